//! `quorate serve`: runs one member until it is told to stop.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::exit::{Exit, Failure};
use crate::{
    config::{self, Layer},
    net, telemetry,
};

/// Run a member of an ensemble
///
/// Settings come from flags, then the environment (QUORATE_...), then the file of --config, then the defaults.
/// Prints one line an open door and then `ready` on standard error. SIGTERM or Ctrl-C stops it in order, a second one
/// at once.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// TOML file; its keys are these flags with `_` for `-`, and `ensemble` is a table of id = address
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Layer,
}

impl Serve {
    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let resolved =
            config::resolve(self.settings, self.config.as_deref()).map_err(|error| Failure::new(Exit::Usage, error))?;
        let telemetry = telemetry::init(&resolved.telemetry).map_err(|error| Failure::new(Exit::Usage, error))?;
        for warning in &resolved.warnings {
            tracing::warn!("{warning}");
        }
        net::raise_open_files();
        telemetry.shutdown().await;
        Err(Failure::new(Exit::Refused, "no part of a member is built yet"))
    }
}
