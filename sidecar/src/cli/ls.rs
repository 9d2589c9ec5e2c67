//! `quorate ls`: the children of a node.

use std::process::ExitCode;

use clap::Args;

use super::{
    ensemble::Ensemble,
    exit::Failure,
    output::{self, Format},
};

/// List the children of a node, one name a line
#[derive(Args, Debug)]
pub(super) struct Ls {
    /// The node
    #[arg(default_value = "/")]
    path: String,

    /// See every write that was acknowledged anywhere before
    #[arg(long)]
    linearizable: bool,

    #[command(flatten)]
    ensemble: Ensemble,
}

impl Ls {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let list = self.ensemble.with_client(async |client| {
            let children = client.children(&self.path);
            let children = if self.linearizable { children.linearizable() } else { children };
            Ok(children.await?)
        });
        let names = list.await?.names;
        match self.ensemble.output {
            Format::Json => output::json(&names)?,
            Format::Table if names.is_empty() => {}
            Format::Table => output::line(&names.join("\n"))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
