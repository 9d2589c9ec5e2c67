//! `quorate serve`: runs one member until it is told to stop.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use tokio::select;

use super::{
    exit::{Exit, Failure},
    signals::Stop,
};
use crate::{
    Addresses, BindError, Running, Sidecar, SidecarError,
    config::{self, Config, Layer},
    net, telemetry,
};

/// Run a member of an ensemble
///
/// Settings come from flags, then the environment (QUORATE_...), then the file of --config, then that of --zoo-cfg,
/// then the defaults.
/// Prints one line an open door and then `ready` on standard error. SIGTERM or Ctrl-C stops it in order, a second one
/// at once.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// TOML file; its keys are these flags with `_` for `-`, and `ensemble` is a table of id = address
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// ZooKeeper's configuration file: id (myid), members, addresses and limits; all else wins over it, and the doors
    /// for clients and operators open only where something names them
    #[arg(long, env = "QUORATE_ZOO_CFG", value_name = "FILE")]
    zoo_cfg: Option<PathBuf>,

    #[command(flatten)]
    settings: Layer,
}

impl Serve {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let resolved = config::resolve(self.settings, self.config.as_deref(), self.zoo_cfg.as_deref())
            .map_err(|error| Failure::new(Exit::Usage, error))?;
        for note in &resolved.notes {
            eprintln!("zoo.cfg: {note}");
        }
        let telemetry = telemetry::init(&resolved.telemetry).map_err(|error| Failure::new(Exit::Usage, error))?;
        for warning in &resolved.warnings {
            tracing::warn!("{warning}");
        }
        net::raise_open_files();
        let outcome = serve(resolved.member).await;
        telemetry.shutdown().await;
        outcome
    }
}

async fn serve(config: Config) -> Result<ExitCode, Failure> {
    let mut stop = Stop::listen()?;
    let running = select! {
        biased;
        // What was begun ends with the process; nothing has been promised yet.
        () = stop.told() => return Ok(ExitCode::SUCCESS),
        built = Sidecar::build(config) => built.map_err(|error| not_started(&error))?,
    };
    say_doors(running.addresses());
    select! {
        biased;
        () = stop.told() => {}
        error = running.failed() => return Err(must_not_go_on(&error)),
        () = say_when_ready(&running) => {}
    }
    stop.end(running.shutdown()).await;
    Ok(ExitCode::SUCCESS)
}

/// One line a door, for people and for scripts that wait for them.
fn say_doors(Addresses { client, peer, admin, zookeeper }: Addresses) {
    if let Some(client) = client {
        eprintln!("client door: {client} (gRPC, no TLS)");
    }
    eprintln!("peer door: {peer} (no TLS)");
    if let Some(admin) = admin {
        eprintln!("admin door: http://{admin}");
    }
    if let Some(zookeeper) = zookeeper {
        eprintln!("zookeeper door: {zookeeper} (no TLS)");
    }
}

async fn say_when_ready(running: &Running) {
    running.ready().await;
    eprintln!("ready");
    std::future::pending().await
}

/// Why a member did not start, and what to do.
pub(super) fn not_started(error: &SidecarError) -> Failure {
    let exit = if matches!(error, SidecarError::Damaged(_)) { Exit::Damaged } else { Exit::Refused };
    let failure = Failure::new(exit, error);
    match error {
        SidecarError::Bind(BindError::InUse { door, address }) => failure.next(format!(
            "`ss -ltnp sport = :{}` tells which process listens there; --{door}-addr chooses another address",
            address.port()
        )),
        _ => failure,
    }
}

/// Why a member ends although nobody told it to. It ends as it stands: what it could still say may be wrong.
pub(super) fn must_not_go_on(error: &SidecarError) -> Failure {
    tracing::error!(%error, "this member must not go on");
    Failure::new(Exit::Refused, format_args!("this member must not go on: {error}"))
}
