//! The history of a suite: one line a case and run, oldest first.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use crate::Measured;

const HEAD: &str = "date,commit,rustc,case,instructions,ns";

/// What was recorded before.
pub(crate) struct History(Vec<Measured>);

impl History {
    /// Nothing if there is none.
    pub(crate) fn read(suite: &str) -> Self {
        let file = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/bench-history"));
        let text = fs::read_to_string(file.join(format!("{suite}.csv"))).unwrap_or_default();
        Self(text.lines().skip(1).filter_map(parse).collect())
    }

    /// The newest figures of a case.
    pub(crate) fn last(&self, case: &str) -> Option<&Measured> {
        self.0.iter().rev().find(|measured| measured.case == case)
    }
}

fn parse(line: &str) -> Option<Measured> {
    let mut fields = line.split(',').skip(3);
    let case = fields.next()?.to_owned();
    let instructions = fields.next()?.parse().ok();
    Some(Measured { case, instructions, ns: fields.next()?.parse().ok()? })
}

/// Adds what was measured now.
pub(crate) fn append(directory: &Path, suite: &str, measured: &[Measured]) -> io::Result<()> {
    let path = directory.join(format!("{suite}.csv"));
    let is_new = !path.exists();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if is_new {
        writeln!(file, "{HEAD}")?;
    }
    let (date, rustc) = (said_by("date", &["-u", "+%F"]), said_by("rustc", &["--version"]));
    let rustc = rustc.split(' ').nth(1).unwrap_or_default();
    let mut commit = said_by("git", &["rev-parse", "--short=10", "HEAD"]);
    if !said_by("git", &["status", "--porcelain", "--untracked-files=no", "--", "*.rs", "*.toml", "*.lock"]).is_empty()
    {
        // Something that is in no commit yet was measured.
        commit.push('+');
    }
    for Measured { case, instructions, ns } in measured {
        let instructions = instructions.map_or_else(String::new, |count| format!("{count:.1}"));
        writeln!(file, "{date},{commit},{rustc},{case},{instructions},{ns:.1}")?;
    }
    Ok(())
}

/// Nothing if there is no such program.
fn said_by(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_is_read_back() {
        let directory = std::env::temp_dir().join(format!("quorate-micro-history-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let counted = Measured { case: "a".into(), instructions: Some(12.5), ns: 3.0 };
        let timed = Measured { case: "b".into(), instructions: None, ns: 4.5 };

        append(&directory, "suite", std::slice::from_ref(&timed)).unwrap();
        append(&directory, "suite", &[counted.clone(), timed.clone()]).unwrap();

        let text = fs::read_to_string(directory.join("suite.csv")).unwrap();
        fs::remove_dir_all(&directory).unwrap();
        let read: Vec<Measured> = text.lines().skip(1).filter_map(parse).collect();
        assert_eq!(text.lines().next(), Some(HEAD));
        assert_eq!(read, [timed.clone(), counted, timed]);
    }
}
