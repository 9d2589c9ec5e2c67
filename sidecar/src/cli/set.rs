//! `quorate set`: changes the data of a node.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::{
    ensemble::Ensemble,
    exit::Failure,
    node::{DataArg, StatView},
    output::{self, Format},
};

/// Change the data of a node, and print its new version
#[derive(Args, Debug)]
pub(super) struct Set {
    /// The node
    path: String,

    #[command(flatten)]
    data: DataArg,

    /// Only if the node has this version
    #[arg(long, value_name = "N")]
    version: Option<i32>,

    /// Create the node if it does not exist
    #[arg(long, conflicts_with = "version")]
    create: bool,

    #[command(flatten)]
    ensemble: Ensemble,
}

#[derive(Serialize)]
struct Answer {
    path: String,
    stat: StatView,
}

impl Set {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let data = self.data.read()?;
        let stat = self.ensemble.with_client(async |client| {
            let mut set = client.set(&self.path, data);
            if let Some(version) = self.version {
                set = set.version(version);
            }
            if self.create {
                set = set.or_create();
            }
            Ok(set.await?)
        });
        let stat = stat.await?;
        match self.ensemble.output {
            Format::Json => output::json(&Answer { path: self.path, stat: (&stat).into() })?,
            Format::Table => output::line(&stat.version.to_string())?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
