//! `quorate dev`: an ensemble in this process, for trying things out.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use clap::{Args, value_parser};
use futures_util::future;
use quorate_tree::MemberId;
use tempfile::TempDir;
use tokio::select;
use tracing::{Instrument, Span};

use super::{
    exit::{Exit, Failure},
    output, serve,
    signals::Stop,
};
use crate::{
    BindError, Running, Sidecar, SidecarError,
    config::{Address, Config, Voters, limits},
    net, telemetry,
};

/// Where a member's doors are, beyond the base and its id.
const PEER_OFFSET: u16 = 100;
const ADMIN_OFFSET: u16 = 200;
const ZOOKEEPER_OFFSET: u16 = 300;
/// The greatest port of a block: that of the ZooKeeper door of the last member.
const BLOCK: u16 = 300 + limits::VOTERS_MAX as u16;

/// Start an ensemble on this machine: loopback only, no TLS, data that goes away unless --data-dir keeps it
#[derive(Args, Debug)]
pub(super) struct Dev {
    /// How many members
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u8).range(1..=limits::VOTERS_MAX as i64))]
    members: u8,

    /// Member i opens base+i for clients, base+100+i for members, base+200+i for operators, base+300+i for clients of
    /// ZooKeeper
    #[arg(long, value_name = "PORT", default_value_t = 7100, value_parser = value_parser!(u16).range(1..=i64::from(u16::MAX - BLOCK)))]
    port_base: u16,

    /// Keep the data, in one directory a member
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// What is logged: a level, or filters like `info,quorate_sidecar=debug` (RUST_LOG too)
    #[arg(long, env = "QUORATE_LOG_LEVEL", value_name = "FILTER")]
    log_level: Option<String>,
}

impl Dev {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let options = telemetry::Options {
            // The table is what people look at; it should not scroll away.
            log_level: self.log_level.clone().or_else(telemetry::log_level_of_env).unwrap_or_else(|| "warn".into()),
            log_format: telemetry::LogFormat::Auto,
            otlp_endpoint: None,
        };
        let telemetry = telemetry::init(&options).map_err(|error| Failure::new(Exit::Usage, error))?;
        net::raise_open_files();
        let outcome = self.serve().await;
        telemetry.shutdown().await;
        outcome
    }

    async fn serve(self) -> Result<ExitCode, Failure> {
        let began = Instant::now();
        let mut stop = Stop::listen()?;
        let data = Data::of(self.data_dir.as_deref())?;
        let configs = self.configs(data.root());

        let kept = if self.data_dir.is_some() { "data is kept" } else { "data is temporary" };
        eprintln!("quorate {} dev mode: {kept}, loopback only, no TLS", telemetry::VERSION);
        let mut members = Vec::new();
        for config in &configs {
            select! {
                biased;
                () = stop.told() => return Ok(ExitCode::SUCCESS),
                built = Sidecar::build(config.clone()).instrument(of_member(config.id)) => {
                    members.push((config.id, built.map_err(|error| not_started(&error))?));
                }
            }
        }
        output::line(&table(&configs))?;
        select! {
            biased;
            () = stop.told() => {}
            error = first_failure(&members) => return Err(serve::must_not_go_on(&error)),
            said = say_when_ready(&members, &configs, began) => said?,
        }
        stop.end(async {
            // Together, and nobody is left who could take over leadership.
            let ends = members.into_iter().map(|(id, member)| member.shutdown_with_all().instrument(of_member(id)));
            future::join_all(ends).await;
        })
        .await;
        Ok(ExitCode::SUCCESS)
    }

    fn configs(&self, root: &Path) -> Vec<Config> {
        let at = |offset, id: u8| Address::loopback(self.port_base + offset + u16::from(id));
        let voters: Voters = (1..=self.members).map(|id| (MemberId(id), at(PEER_OFFSET, id))).collect();
        let config = |id| Config {
            client_addr: Some(at(0, id)),
            peer_addr: at(PEER_OFFSET, id),
            admin_addr: Some(at(ADMIN_OFFSET, id)),
            zookeeper_addr: Some(at(ZOOKEEPER_OFFSET, id)),
            ..Config::new(MemberId(id), root.join(format!("member-{id}")), voters.clone())
        };
        (1..=self.members).map(config).collect()
    }
}

/// Where the members keep their data.
enum Data {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Data {
    fn of(dir: Option<&Path>) -> Result<Self, Failure> {
        match dir {
            Some(dir) => Ok(Self::Kept(dir.to_owned())),
            None => tempfile::Builder::new().prefix("quorate-dev-").tempdir().map(Self::Temporary).map_err(|error| {
                let failure = format_args!("no temporary directory can be made: {error}").to_string();
                Failure::new(Exit::Refused, failure).next("--data-dir names another place")
            }),
        }
    }

    fn root(&self) -> &Path {
        match self {
            Self::Kept(dir) => dir,
            Self::Temporary(dir) => dir.path(),
        }
    }
}

/// Says in each log line of a member which one it is of: they share one output. Above every filter.
fn of_member(member: MemberId) -> Span {
    tracing::error_span!("dev", %member)
}

fn table(configs: &[Config]) -> String {
    let rows = configs.iter().map(|config| {
        let Config { id, client_addr, peer_addr, admin_addr, zookeeper_addr, .. } = config;
        [
            id.to_string(),
            url(client_addr.as_ref()),
            peer_addr.to_string(),
            url(admin_addr.as_ref()),
            zookeeper_addr.as_ref().map(Address::to_string).unwrap_or_default(),
        ]
    });
    let titles = ["MEMBER", "CLIENT (gRPC)", "PEER", "ADMIN (HTTP)", "ZOOKEEPER"];
    output::table(titles, [true, false, false, false, false], rows.collect())
}

fn url(address: Option<&Address>) -> String {
    address.map(|address| format!("http://{address}")).unwrap_or_default()
}

async fn say_when_ready(members: &[(MemberId, Running)], configs: &[Config], began: Instant) -> Result<(), Failure> {
    future::join_all(members.iter().map(|(_, member)| member.ready())).await;
    output::line(&format!("ready in {} ms", began.elapsed().as_millis()))?;
    let endpoints: Vec<_> = configs.iter().map(|config| url(config.client_addr.as_ref())).collect();
    eprintln!("\n  export QUORATE_ENDPOINT={}", endpoints.join(","));
    eprintln!("  quorate status  |  quorate tree /  |  quorate lock build -- make\n");
    eprintln!("Ctrl-C stops all members; a second one at once.");
    future::pending().await
}

async fn first_failure(members: &[(MemberId, Running)]) -> SidecarError {
    let failures = members.iter().map(|(_, member)| Box::pin(member.failed()));
    future::select_all(failures).await.0
}

fn not_started(error: &SidecarError) -> Failure {
    match error {
        SidecarError::Bind(BindError::InUse { .. }) => {
            Failure::new(Exit::Refused, error).next("is another ensemble running here? --port-base chooses other ports")
        }
        _ => serve::not_started(error),
    }
}
