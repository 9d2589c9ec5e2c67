//! One `quorate serve` process, and what can be done to it from outside.
//!
//! The binary is built with the tests: `quorate-member` of this package is the very `main.rs` of `quorate`, so cargo
//! builds it whenever it builds these tests, with the same settings. `QUORATE_BINARY` names another one to test, for
//! instance a release build.

use std::{
    env,
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, prlimit, waitid};

/// The binary under test.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("QUORATE_BINARY") {
        return Ok(path.into());
    }
    // The test runs from target/<profile>/deps, the binary stands one level up.
    let test = env::current_exe().context("the path of this test")?;
    let path = test.ancestors().nth(2).context("a test lies in a directory")?.join("quorate-member");
    ensure!(path.is_file(), "{} is missing: `cargo test -p quorate-integration` builds it", path.display());
    Ok(path)
}

/// A command of the binary under test, in a known environment.
pub fn command() -> Result<Command> {
    let mut command = Command::new(binary()?);
    for (name, _) in env::vars_os() {
        // Nothing of the person who runs the tests may configure the members.
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    Ok(command)
}

/// The same for a member that is to get an error, and not a signal, when a file may not grow any more.
pub fn unlimited_by_signal(arguments: Vec<String>) -> Result<Command> {
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap "" XFSZ; exec "$0" "$@""#]).arg(binary()?).args(arguments);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    Ok(command)
}

/// A process that is killed with -9 when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts a command whose output is added to the end of a file.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(log);
            file.with_context(|| format!("opening {}", log.display()))
        };
        command.stdout(open()?).stderr(open()?);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child })
    }

    /// Lets it write no file beyond so many bytes from its beginning, as a disk that refuses.
    pub fn limit_files(&self, bytes: u64) -> Result<()> {
        let limit = Rlimit { current: Some(bytes), maximum: None };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit).context("limiting the size of files")?;
        Ok(())
    }

    /// Its id, also after it has ended.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("looking after a process")
    }

    /// Kills it with -9, and returns when it is gone.
    pub fn kill(mut self) {
        self.end();
    }

    /// Asks it to end (SIGTERM).
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Stops it (SIGSTOP), and returns when all its threads stand still.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.pid()), options).context("waiting for a process to stop")?;
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid(), signal).with_context(|| format!("sending {signal:?} to process {}", self.id()))
    }

    fn end(&mut self) {
        // Both fail only for a process that has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
