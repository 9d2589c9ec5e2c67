//! `quorate completions`: the script a shell completes commands and flags with.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, exit::Failure, output};

/// Print the completion script of a shell
#[derive(Args, Debug)]
pub(super) struct Completions {
    /// Which shell, for instance `quorate completions bash > /etc/bash_completion.d/quorate`
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self) -> Result<ExitCode, Failure> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "quorate", &mut script);
        output::bytes(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
