//! `quorate create`: a new node.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use quorate::{Client, CreateMode, Created, Error};
use serde::Serialize;
use tokio::select;

use super::{
    ensemble::{Ensemble, duration},
    exit::{Exit, Failure},
    node::{DataArg, StatView},
    output::{self, Format},
    signals::Stop,
};

/// Create a node, and print its path
///
/// An ephemeral node goes with the session that made it, so the command holds it until it is told to stop.
#[derive(Args, Debug)]
pub(super) struct Create {
    /// The node
    path: String,

    #[command(flatten)]
    data: DataArg,

    /// Hold it until Ctrl-C or SIGTERM
    #[arg(short, long, conflicts_with_all = ["container", "ttl"])]
    ephemeral: bool,

    /// Let the ensemble append the parent's counter to the name
    #[arg(short, long, conflicts_with = "container")]
    sequential: bool,

    /// Let it go some time after its last child
    #[arg(short, long, conflicts_with = "ttl")]
    container: bool,

    /// Let it go when it has no children and was not set for this long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    ttl: Option<Duration>,

    /// Create what is missing above it
    #[arg(short, long)]
    parents: bool,

    #[command(flatten)]
    ensemble: Ensemble,
}

#[derive(Serialize)]
struct Answer<'a> {
    path: &'a str,
    stat: StatView,
}

impl Create {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(mut self) -> Result<ExitCode, Failure> {
        let data = std::mem::take(&mut self.data).read()?;
        let ensemble = self.ensemble.clone();
        ensemble.with_client(async |client| self.create(client, data).await).await
    }

    async fn create(&self, client: &Client, data: Vec<u8>) -> Result<ExitCode, Failure> {
        // Before the node exists, so that no signal ends the command between the two.
        let stop = if self.ephemeral { Some(Stop::listen()?) } else { None };
        let mut create = client.create(&self.path).data(data).mode(self.mode());
        if let Some(ttl) = self.ttl {
            create = create.ttl(ttl);
        }
        if self.parents {
            create = create.parents();
        }
        let created = create.await.map_err(|error| self.failed(error))?;
        self.print(&created)?;
        match stop {
            Some(stop) => hold(client, stop).await,
            None => Ok(ExitCode::SUCCESS),
        }
    }

    /// What is missing is the node above, not the one to create.
    fn failed(&self, error: Error) -> Failure {
        match error {
            Error::NoNode { path } if !self.parents => {
                Failure::new(Exit::NotFound, format_args!("the node above {path} does not exist"))
                    .next("`quorate create --parents` makes it")
            }
            error => error.into(),
        }
    }

    fn mode(&self) -> CreateMode {
        match (self.ephemeral, self.sequential) {
            (true, true) => CreateMode::EphemeralSequential,
            (true, false) => CreateMode::Ephemeral,
            (false, true) => CreateMode::PersistentSequential,
            (false, false) if self.container => CreateMode::Container,
            (false, false) => CreateMode::Persistent,
        }
    }

    fn print(&self, created: &Created) -> std::io::Result<()> {
        match self.ensemble.output {
            Format::Json => output::json(&Answer { path: &created.path, stat: (&created.stat).into() }),
            Format::Table => output::line(&created.path),
        }
    }
}

/// Keeps the session, and with it the node, until the command is told to stop.
async fn hold(client: &Client, mut stop: Stop) -> Result<ExitCode, Failure> {
    let Some(session) = client.session() else {
        return Err(Failure::new(Exit::Lost, "the session was lost as soon as it had made the node"));
    };
    eprintln!("held by session {} until Ctrl-C", session.id());
    select! {
        biased;
        () = stop.told() => Ok(ExitCode::SUCCESS),
        reason = session.lost() => Err(Failure::new(Exit::Lost, format_args!("the session was lost: {reason}"))),
    }
}
