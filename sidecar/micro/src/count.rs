//! Counting instructions: the program runs itself under callgrind, which writes down what was executed between the
//! beginning and the end of [`quorate_counted`], in all threads.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set for the program that valgrind runs.
const COUNTED: &str = "QUORATE_MICRO_COUNTED";
/// [`quorate_counted`], as callgrind calls it.
const MEASURED: &str = "quorate_micro::count::quorate_counted";
/// Begins a line that says which case was counted.
const SAID: &str = "quorate-micro counted ";

pub(crate) fn is_counted() -> bool {
    env::var_os(COUNTED).is_some()
}

/// Tells the program outside which case the last count belongs to.
pub(crate) fn say(case: &str, operations: u64) {
    println!("\n{SAID}{operations} {case}");
}

/// Callgrind knows the measured part by the name of this function.
#[inline(never)]
pub(crate) fn quorate_counted(act: &mut dyn FnMut()) {
    act();
    // What is a tail call would be no call of this function.
    std::hint::black_box(());
}

/// Runs this program under callgrind.
pub(crate) struct Counter;

impl Counter {
    /// Instructions of one operation of each case.
    pub(crate) fn run() -> Result<Vec<(String, f64)>, String> {
        let directory = Directory::new().map_err(|error| format!("no directory for what valgrind writes: {error}"))?;
        let program = env::current_exe().map_err(|error| format!("this program is not to be found: {error}"))?;
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet", "--dump-line=no"])
            .args([format!("--zero-before={MEASURED}"), format!("--dump-after={MEASURED}")])
            .arg(format!("--callgrind-out-file={}", directory.0.join("counted").display()))
            .arg(program)
            .args(env::args_os().skip(1))
            .env(COUNTED, "1")
            .stdin(Stdio::null());
        let output = command.output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "valgrind is not installed".to_owned(),
            _ => format!("valgrind does not start: {error}"),
        })?;
        if !output.status.success() {
            return Err(format!("valgrind ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        let cases = said.lines().filter_map(|line| line.strip_prefix(SAID)?.split_once(' '));
        let counts = cases.enumerate().map(|(at, (operations, case))| {
            let operations: f64 = operations.parse().map_err(|_| format!("{case} counts no operations"))?;
            let total = total(&directory.0.join(format!("counted.{}", at + 1)))
                .ok_or_else(|| format!("valgrind has written nothing on {case}"))?;
            Ok((case.to_owned(), total / operations))
        });
        counts.collect()
    }
}

/// The sum in a file of callgrind.
fn total(file: &Path) -> Option<f64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().rev().find_map(|line| line.strip_prefix("totals: "))?;
    line.split(' ').next()?.parse().ok()
}

/// A directory that goes away.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Self> {
        let path = env::temp_dir().join(format!("quorate-micro-{}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left of it harms nobody.
        drop(fs::remove_dir_all(&self.0));
    }
}
