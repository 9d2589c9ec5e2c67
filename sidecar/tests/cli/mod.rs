//! Runs the `quorate` binary as a user does.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    ffi::OsStr,
    process::{Command, Output, Stdio},
};

/// The binary, with no setting of this process leaking into it.
pub(crate) fn quorate<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("QUORATE_") || name_text.starts_with("OTEL_") || name_text == "RUST_LOG" {
            command.env_remove(&name);
        }
    }
    command.args(args).stdin(Stdio::null());
    command
}

/// What a command that has ended said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Runs it to its end.
pub(crate) fn run(command: &mut Command) -> Said {
    Said::of(&command.output().expect("the binary starts"))
}

impl Said {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it writes text");
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// It ended with `code`, said nothing as data, and said `told` as its error.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, told: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        assert!(self.err.contains(told), "{self:?}");
    }
}
