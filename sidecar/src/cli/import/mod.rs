//! `quorate import`: copies the nodes of a running ZooKeeper.

use std::{process::ExitCode, time::Instant};

use clap::Args;
use quorate::Client;
use quorate_wire::{Request, Response};

use super::{
    ensemble::Ensemble,
    exit::{Exit, Failure},
    output::{self, Format},
};

mod access;
mod copy;
mod counters;
mod progress;
mod quotas;
mod report;
mod source;
mod zookeeper;

use copy::{CopyError, Ends, Options};
use progress::Progress;
use report::Report;
use source::Source;
use zookeeper::{Credential, Unreachable, Zookeeper};

/// Copy the nodes of a running ZooKeeper into the ensemble
///
/// Carried are paths, data, access lists and sequence numbers; not ephemeral nodes, which belong to sessions,
/// /zookeeper with the quotas, versions and zxids. ZooKeeper does not tell containers and nodes with a time to live from
/// persistent ones, so they become persistent. Nothing is written to ZooKeeper. What is there already is left: run it
/// again to go on, or to bring over what was created since. Nodes with an access list need a user on both sides:
/// --source-auth reads them, and --auth of a super user creates what is below them.
#[derive(Args, Debug)]
pub(super) struct Import {
    /// Servers of the ZooKeeper, and the node to copy with all below it
    #[arg(value_name = "zookeeper://HOST:PORT[,HOST:PORT]/PATH")]
    source: Source,

    /// Look, and say what would be done
    #[arg(long)]
    dry_run: bool,

    /// Replace data and access lists that differ from ZooKeeper's
    #[arg(long)]
    overwrite: bool,

    /// Let the sequence numbers of each parent start behind the children that are copied
    #[arg(long)]
    no_counters: bool,

    /// Be this user to ZooKeeper, for nodes with an access list
    #[arg(long, env = "QUORATE_SOURCE_AUTH", value_name = "digest:USER:PASSWORD", hide_env_values = true)]
    source_auth: Vec<Credential>,

    #[command(flatten)]
    ensemble: Ensemble,
}

impl Import {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let zookeeper = self.connect().await?;
        let total = self.count().await;
        if zookeeper.read_only {
            eprintln!("{} has no quorum now: what it shows may be old", self.source);
        }
        let imported = self.ensemble.with_client(async |client| self.import(&zookeeper, client, total).await).await;
        zookeeper.close().await;
        self.tell(&imported?)
    }

    async fn connect(&self) -> Result<Zookeeper, Failure> {
        let connected = Zookeeper::connect(&self.source.servers, &self.source_auth, self.ensemble.timeout).await;
        connected.map_err(|error| unreachable(&error))
    }

    /// How many nodes there are. On a connection of its own, for a server before 3.6 closes it instead of answering.
    async fn count(&self) -> Option<u64> {
        let zookeeper = self.connect().await.ok()?;
        let path = self.source.path.clone().into();
        let answer = zookeeper.ask(Request::GetAllChildrenNumber { path }).await;
        zookeeper.close().await;
        match answer {
            Ok(Ok(Response::Count(below))) => u64::try_from(below).ok().map(|below| below + 1),
            _ => None,
        }
    }

    async fn import(&self, zookeeper: &Zookeeper, client: &Client, total: Option<u64>) -> Result<Report, Failure> {
        let began = Instant::now();
        let mut report = Report { source: self.source.to_string(), dry_run: self.dry_run, ..Report::default() };
        let mut progress = Progress::new(total);
        let copied = self.copy(Ends { zookeeper, client }, &mut report, &mut progress).await;
        progress.end();
        report.seconds = began.elapsed().as_secs_f64();
        match copied {
            Ok(()) => Ok(report),
            Err(error) => Err(broken_off(error, &report)),
        }
    }

    async fn copy(&self, ends: Ends<'_>, report: &mut Report, progress: &mut Progress) -> Result<(), CopyError> {
        let path = self.source.path.as_str();
        // A server without a quorum refuses, and shows what it has.
        let _ = ends.zookeeper.ask(Request::Sync { path: Some(path.to_owned().into()) }).await?;
        let options =
            Options { dry_run: self.dry_run, overwrite: self.overwrite, known: self.ensemble.says_who_it_is() };
        let counters = copy::copy(ends, path, options, report, progress).await?;
        if !self.dry_run && !self.no_counters {
            counters::raise(ends.client, counters, report).await?;
        }
        report.quotas = quotas::list(ends.zookeeper, path).await?;
        Ok(())
    }

    fn tell(&self, report: &Report) -> Result<ExitCode, Failure> {
        match self.ensemble.output {
            Format::Json => output::json(report)?,
            Format::Table => output::line(&report.text())?,
        }
        if report.not_carried.count == 0 {
            return Ok(ExitCode::SUCCESS);
        }
        let exit = match report.not_carried.iter().all(|node| node.permission) {
            true => Exit::NotPermitted,
            false => Exit::Refused,
        };
        let nodes = report.not_carried.count;
        Err(Failure::new(exit, format_args!("{nodes} nodes were not carried, or not all of them"))
            .next("the list says why; run it again when that is mended: what is there already is left"))
    }
}

fn unreachable(error: &Unreachable) -> Failure {
    match error {
        Unreachable::Credential => {
            Failure::new(Exit::NotPermitted, error).next("--source-auth reads digest:USER:PASSWORD")
        }
        Unreachable::Late(_) => Failure::new(Exit::TimedOut, error).next("--timeout waits longer"),
        Unreachable::Nobody(_) => Failure::new(Exit::Unreachable, format_args!("no ZooKeeper can be reached: {error}"))
            .next("the source names its client port, and no TLS port: zookeeper://HOST:2181/"),
        Unreachable::Lost(_) => Failure::new(Exit::Unreachable, error),
    }
}

/// The import has not come to its end.
fn broken_off(error: CopyError, report: &Report) -> Failure {
    let again = format!("{} nodes were done; run it again to go on: what is there already is left", report.done());
    match error {
        CopyError::NoSource(_) => Failure::new(Exit::NotFound, error),
        CopyError::Source(error) => unreachable(&error).next(again),
        CopyError::Target(error) => Failure::from(error).next(again),
    }
}
