//! `quorate rm`: deletes nodes.

use std::process::ExitCode;

use clap::Args;

use super::{
    ensemble::Ensemble,
    exit::{Exit, Failure},
    output::Format,
};

/// Delete a node
#[derive(Args, Debug)]
pub(super) struct Rm {
    /// The node
    path: String,

    /// Delete everything below it first; others may see a part of it gone
    #[arg(short, long, conflicts_with = "version")]
    recursive: bool,

    /// Only if the node has this version
    #[arg(long, value_name = "N")]
    version: Option<i32>,

    #[command(flatten)]
    ensemble: Ensemble,
}

impl Rm {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        if self.recursive && self.path == "/" {
            return Err(Failure::new(Exit::Usage, "the whole tree is not deleted by one command"));
        }
        let deleted = self.ensemble.with_client(async |client| {
            let mut delete = client.delete(&self.path);
            if let Some(version) = self.version {
                delete = delete.version(version);
            }
            if self.recursive {
                delete = delete.recursive();
            }
            Ok(delete.await?)
        });
        deleted.await?;
        Ok(ExitCode::SUCCESS)
    }
}
