//! How a command ends: its code, and on standard error the sentence and the next step.

use std::{fmt, io, process::ExitCode};

use serde::Serialize;

use super::output::Format;

/// What holds for every command. `lock` ends with the code of its command otherwise, or 128 and the signal.
pub(super) const HELP: &str = "\
--endpoint, --auth, --timeout and -o may stand before a command as well as behind it.

Exit codes:
  0  done
  1  refused by the rules (version, exists, not empty), or the start failed
  2  usage or configuration
  3  not found
  4  no member can be reached
  5  no quorum, or not ready
  6  not done in time
  7  lock not acquired
  8  lock or session lost while the command ran
  9  not permitted
  10 data of the member damaged
  128 and the number of the signal that ended it";

/// What a command ends with unless it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Exit {
    Refused,
    Usage,
    NotFound,
    Unreachable,
    NoQuorum,
    TimedOut,
    NotAcquired,
    Lost,
    NotPermitted,
    Damaged,
    /// Whoever reads the answer has had enough: said to nobody, and told as a shell tells it (SIGPIPE).
    NotRead,
}

/// A command that could not do what it was asked to.
#[derive(Debug)]
pub(super) struct Failure {
    exit: Exit,
    message: String,
    next: Option<String>,
}

impl Exit {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Refused => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Unreachable => 4,
            Self::NoQuorum => 5,
            Self::TimedOut => 6,
            Self::NotAcquired => 7,
            Self::Lost => 8,
            Self::NotPermitted => 9,
            Self::Damaged => 10,
            Self::NotRead => 128 + 13,
        }
    }
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string(), next: None }
    }

    /// What to do about it.
    #[must_use]
    pub(super) fn next(self, step: impl Into<String>) -> Self {
        Self { next: Some(step.into()), ..self }
    }

    /// Says it on standard error, in the form the command was asked to answer in.
    pub(super) fn report(&self, format: Format) -> ExitCode {
        match format {
            _ if self.exit == Exit::NotRead => {}
            Format::Table => eprintln!("{self}"),
            Format::Json => eprintln!("{}", self.json()),
        }
        ExitCode::from(self.exit.code())
    }

    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Object<'a> {
            code: u8,
            name: Exit,
            message: &'a str,
            next: Option<&'a str>,
        }
        let object =
            Object { code: self.exit.code(), name: self.exit, message: &self.message, next: self.next.as_deref() };
        serde_json::to_string(&object).expect("strings and numbers always serialize")
    }
}

impl From<io::Error> for Failure {
    /// Of standard output.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::NotRead, ""),
            _ => Self::new(Exit::Refused, format_args!("the answer cannot be written: {error}")),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.next {
            Some(next) => write!(f, "\n  {next}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_and_what_next_to_people_and_to_scripts() {
        let failure = Failure::new(Exit::NotFound, "there is no /a").next("quorate ls / shows what there is");

        assert_eq!(failure.to_string(), "error: there is no /a\n  quorate ls / shows what there is");
        assert_eq!(
            failure.json(),
            r#"{"code":3,"name":"not_found","message":"there is no /a","next":"quorate ls / shows what there is"}"#
        );
    }
}
