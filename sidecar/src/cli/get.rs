//! `quorate get`: the data of a node.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Args;
use serde::Serialize;

use super::{
    ensemble::Ensemble,
    exit::Failure,
    node::{Data, StatView},
    output::{self, Format},
};

/// Print the data of a node as it is; with -o json also what is known of it
#[derive(Args, Debug)]
pub(super) struct Get {
    /// The node
    path: String,

    /// See every write that was acknowledged anywhere before
    #[arg(long)]
    linearizable: bool,

    #[command(flatten)]
    ensemble: Ensemble,
}

#[derive(Serialize)]
struct Answer {
    path: String,
    #[serde(flatten)]
    data: Data,
    stat: StatView,
}

impl Get {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let node = self.ensemble.with_client(async |client| {
            let get = client.get(&self.path);
            let get = if self.linearizable { get.linearizable() } else { get };
            Ok(get.await?)
        });
        let node = node.await?;
        match self.ensemble.output {
            Format::Json => {
                output::json(&Answer { path: self.path, data: (&*node.data).into(), stat: (&node.stat).into() })?;
            }
            Format::Table => {
                output::bytes(&node.data)?;
                // People want their prompt on a new line; scripts want the data and nothing else.
                if io::stdout().is_terminal() && !node.data.ends_with(b"\n") {
                    output::line("")?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
