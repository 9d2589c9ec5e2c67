//! The command as `quorate lock` sees it: through its warden.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixListener,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    select, time,
};

use super::{
    warden::{self, OnLoss},
    wire::{self, News, Order},
};
use crate::clock::Moment;

/// How long a warden may take to call back: it is a start of this same binary.
const CALL_BACK_MAX: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) command: Vec<OsString>,
    pub(super) env: Vec<(&'static str, OsString)>,
    pub(super) grace: Duration,
    pub(super) on_loss: OnLoss,
}

/// A command that runs, and its warden.
#[derive(Debug)]
pub(super) struct Guarded {
    warden: Child,
    orders: OwnedWriteHalf,
    news: Lines<BufReader<OwnedReadHalf>>,
    group: Option<Pid>,
}

/// What happens to a command.
#[derive(Debug)]
pub(super) enum Happening {
    News(News),
    /// It has ended, with this code.
    Ended(u8),
}

impl Guarded {
    /// Starts the warden, and through it the command, which may run until `until`.
    pub(super) async fn start(launch: Launch, until: Moment) -> io::Result<Self> {
        // Only this user can enter, and the warden comes once.
        let meeting = TempDir::with_prefix("quorate-lock-")?;
        let socket = meeting.path().join("warden");
        let listener = UnixListener::bind(&socket)?;
        let mut warden = Command::new(this_binary()?)
            .arg0("quorate")
            .arg("__warden")
            .arg("--socket")
            .arg(&socket)
            .args(["--grace-ms", &launch.grace.as_millis().to_string()])
            .args(["--on-loss", on_loss(launch.on_loss)])
            .arg("--")
            .args(launch.command)
            .envs(launch.env)
            .stdin(stdin())
            .process_group(0)
            .spawn()?;
        let stream = select! {
            biased;
            accepted = time::timeout(CALL_BACK_MAX, listener.accept()) => accepted.map_err(io::Error::from)??.0,
            ended = warden.wait() => return Err(io::Error::other(format!("its warden ended at once: {}", ended?))),
        };
        let (news, orders) = stream.into_split();
        let mut guarded = Self { warden, orders, news: BufReader::new(news).lines(), group: None };
        guarded.tell(Order::HeldUntil(until)).await;
        Ok(guarded)
    }

    /// Tells the warden. One that is gone is found by [`Guarded::next`].
    pub(super) async fn tell(&mut self, order: Order) {
        let _ = self.orders.write_all(&wire::line(&order)).await;
    }

    /// What happens next. After `Ended` there is nothing more.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Happening> {
        let Self { warden, news, group, .. } = self;
        loop {
            // News first: what was said before the end is told before it.
            let line = select! {
                biased;
                line = news.next_line() => line,
                status = warden.wait() => {
                    let status = status?;
                    match news.next_line().await {
                        Ok(Some(line)) => Ok(Some(line)),
                        _ => return Ok(Happening::Ended(ended(status, *group))),
                    }
                }
            };
            match line {
                Ok(Some(line)) => {
                    if let Ok(said) = serde_json::from_str(&line) {
                        if let News::Started(id) = said {
                            *group = i32::try_from(id).ok().and_then(Pid::from_raw);
                        }
                        return Ok(Happening::News(said));
                    }
                }
                Ok(None) | Err(_) => return Ok(Happening::Ended(ended(warden.wait().await?, *group))),
            }
        }
    }
}

/// The binary this process runs, even if another one has taken its place on disk since: the two must understand each
/// other.
fn this_binary() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") { Ok("/proc/self/exe".into()) } else { std::env::current_exe() }
}

/// The code of the command. A warden that was killed leaves the command without one: it must not go on.
fn ended(status: std::process::ExitStatus, group: Option<Pid>) -> u8 {
    if let (None, Some(group)) = (status.code(), group) {
        // It may have ended by itself.
        let _ = kill_process_group(group, Signal::KILL);
    }
    warden::code(status)
}

/// The command reads what is piped to it. A terminal stays with `quorate lock`: in a process group of its own the
/// command would be stopped as soon as it read from it, and hold the lock for ever.
fn stdin() -> Stdio {
    if io::stdin().is_terminal() { Stdio::null() } else { Stdio::inherit() }
}

fn on_loss(on_loss: OnLoss) -> &'static str {
    match on_loss {
        OnLoss::Term => "term",
        OnLoss::Kill => "kill",
        OnLoss::Ignore => "ignore",
    }
}
