//! `quorate stat`: what is known of a node beside its data.

use std::process::ExitCode;

use clap::Args;
use quorate::Error;

use super::{
    ensemble::Ensemble,
    exit::Failure,
    node::StatView,
    output::{self, Format},
};

/// Show what is known of a node beside its data, under ZooKeeper's names
#[derive(Args, Debug)]
pub(super) struct Stat {
    /// The node
    path: String,

    #[command(flatten)]
    ensemble: Ensemble,
}

impl Stat {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let stat = self.ensemble.with_client(async |client| {
            let stat = client.exists(&self.path).await?;
            Ok(stat.ok_or_else(|| Error::NoNode { path: self.path.clone() })?)
        });
        let stat = StatView::from(&stat.await?);
        match self.ensemble.output {
            Format::Json => output::json(&stat)?,
            Format::Table => output::line(&output::table(["FIELD", "VALUE"], [false, false], stat.rows()))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
