//! Runs the `quorate` binary as a user does.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

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
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Said {
    start(command).end()
}

impl Said {
    /// It ended with `code`, said nothing as data, and said `told` as its error.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, told: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.out, "", "{self:?}");
        assert!(self.err.contains(told), "{self:?}");
    }
}

/// How long a condition may take to come true before a test gives up.
pub(crate) const WITHIN: Duration = Duration::from_secs(60);

/// A command that runs, and what it says line by line. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    out: Lines,
    err: Lines,
}

/// The lines of one of its outputs, as they come.
#[derive(Debug)]
struct Lines {
    coming: mpsc::Receiver<String>,
    seen: Vec<String>,
}

/// Starts it, with what it prints coming to the test.
pub(crate) fn start(command: &mut Command) -> Running {
    command.stdout(Stdio::piped());
    start_unread(command)
}

/// Starts it, with its standard output as the command has it.
pub(crate) fn start_unread(command: &mut Command) -> Running {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("the binary starts");
    let out = child.stdout.take().map_or_else(|| Lines::of(std::io::empty()), Lines::of);
    let err = Lines::of(child.stderr.take().expect("it is piped"));
    Running { child, out, err }
}

impl Lines {
    fn of(output: impl Read + Send + 'static) -> Self {
        // Unbounded: a test reads what a child says in a minute.
        let (said, coming) = mpsc::channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            // The last line may have no end.
            while output.read_line(&mut line).is_ok_and(|read| read > 0) && said.send(line.clone()).is_ok() {
                line.clear();
            }
        });
        Self { coming, seen: Vec::new() }
    }

    /// What `find` makes of the first line from here on of which it makes something; `None` if none comes.
    fn until(&mut self, find: impl Fn(&str) -> Option<&str>) -> Option<String> {
        let deadline = Instant::now() + WITHIN;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.coming.recv_timeout(left).ok()?;
            self.seen.push(line.clone());
            if let Some(found) = find(line.trim_end_matches('\n')) {
                return Some(found.to_owned());
            }
        }
    }

    /// What has come by now.
    fn now(&mut self) -> &[String] {
        self.seen.extend(self.coming.try_iter());
        &self.seen
    }

    /// Everything, once the command has ended.
    fn all(&mut self) -> String {
        self.seen.extend(self.coming.iter());
        self.seen.concat()
    }
}

impl Running {
    /// Waits for a line on standard output that begins so; the rest of it.
    #[track_caller]
    pub(crate) fn out(&mut self, beginning: &str) -> String {
        let found = self.out.until(|line| line.strip_prefix(beginning));
        found.unwrap_or_else(|| panic!("it never printed `{beginning}`: {:#?}, {:#?}", self.out.seen, self.err.now()))
    }

    /// Waits for a line on standard error that begins so; the rest of it.
    #[track_caller]
    pub(crate) fn err(&mut self, beginning: &str) -> String {
        let found = self.err.until(|line| line.strip_prefix(beginning));
        found.unwrap_or_else(|| panic!("it never said `{beginning}`: {:#?}, {:#?}", self.err.seen, self.out.now()))
    }

    /// Waits for an event in its log.
    #[track_caller]
    pub(crate) fn logged(&mut self, event: &str) {
        let found = self.err.until(|line| line.contains(event).then_some(line));
        assert!(found.is_some(), "it never logged `{event}`: {:#?}", self.err.seen);
    }

    pub(crate) fn id(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.id(), signal).expect("it runs");
    }

    /// Whether it has ended by now.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Said {
        let deadline = Instant::now() + WITHIN;
        while !self.has_ended() {
            let late = Instant::now() >= deadline;
            assert!(!late, "it does not end: {:#?}, {:#?}", self.out.now(), self.err.now());
            std::thread::park_timeout(Duration::from_millis(1));
        }
        let status = self.child.wait().expect("it is our child");
        Said { code: status.code(), out: self.out.all(), err: self.err.all() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until `check` finds something.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "it did not come to pass: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// The answer to a GET over plain HTTP: its status and body.
pub(crate) fn http_get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(WITHIN))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(std::io::ErrorKind::UnexpectedEof)?;
    let status = head.get(9..12).and_then(|status| status.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    Ok((status, body.to_owned()))
}

/// A port that is free now, given to no other test of this process, and not one that outgoing connections get.
pub(crate) fn free_port() -> u16 {
    free_ports(1, |port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

/// The first of `count` ports of which `is_free` is true, likewise.
pub(crate) fn free_ports(count: u16, is_free: impl Fn(u16) -> bool) -> u16 {
    const FIRST: u16 = 10_240;
    const COUNT: u16 = 20_000;
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new((std::process::id() % u32::from(COUNT)) as u16));
    loop {
        let port = FIRST + NEXT.fetch_add(count, Ordering::Relaxed) % COUNT;
        if is_free(port) {
            return port;
        }
    }
}
