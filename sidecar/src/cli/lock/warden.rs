//! The process between `quorate lock` and the command: it ends the command before anybody else can hold the lock,
//! whatever becomes of `quorate lock`.
//!
//! `quorate lock` tells it again and again until when the lock is held. When that time comes near and nothing newer
//! was said, because the ensemble cannot be reached, or `quorate lock` hangs, is stopped, or was killed, the command
//! gets SIGTERM, and SIGKILL when its grace is over. Signals go to the command's whole process group.
//!
//! It has a process group of its own, so that what is meant for `quorate lock` does not hit it.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{ExitCode, ExitStatus, Stdio},
    time::Duration,
};

use clap::{Args, ValueEnum};
use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process_group, test_kill_process_group},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, Command},
    select,
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{
    super::exit::{Exit, Failure},
    wire::{self, News, Order},
};
use crate::clock::{Clock, Moment};

/// How often the deadline is looked at: timers stand still while the machine sleeps, the deadline does not.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// SIGKILL comes this much before the deadline, so that the command is gone when the deadline comes.
const KILL_AHEAD: Duration = Duration::from_millis(200);

/// What becomes of the command when the lock cannot be counted on any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum OnLoss {
    /// SIGTERM, and SIGKILL when the grace is over.
    #[default]
    Term,
    /// SIGKILL at once.
    Kill,
    /// Nothing: the command goes on without the lock.
    Ignore,
}

/// Run a command for `quorate lock`; not for people
#[derive(Args, Debug)]
#[command(hide = true)]
pub(in super::super) struct Warden {
    #[arg(long)]
    socket: PathBuf,
    #[arg(long)]
    grace_ms: u64,
    #[arg(long, value_enum)]
    on_loss: OnLoss,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// What the warden knows while the command runs.
struct Watch {
    group: Pid,
    grace: Duration,
    on_loss: OnLoss,
    stage: Stage,
    news: OwnedWriteHalf,
}

/// How far the end of the command has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The lock is held until then.
    Held {
        until: Moment,
    },
    /// It was asked to end, and is killed then.
    Terminated {
        kill_at: Moment,
    },
    Killed,
}

impl Warden {
    pub(in super::super) async fn run(self) -> Result<ExitCode, Failure> {
        // Somebody who ends every `quorate` by name must not leave the command without a warden: these are ignored.
        let ignored = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup(), SignalKind::quit()];
        let _ignored: Vec<_> = ignored.into_iter().filter_map(|kind| signal(kind).ok()).collect();

        let stream = UnixStream::connect(&self.socket).await.map_err(|error| broken(&error))?;
        let (orders, mut news) = stream.into_split();
        let mut orders = BufReader::new(orders).lines();
        let Some(Order::HeldUntil(until)) = next(&mut orders).await else {
            return Err(Failure::new(Exit::Lost, "no word until when the lock is held"));
        };
        let (mut child, group) = match start(&self.command) {
            Ok(started) => started,
            Err((code, message)) => {
                say(&mut news, &News::NotStarted(message)).await;
                return Ok(ExitCode::from(code));
            }
        };
        say(&mut news, &News::Started(group.as_raw_pid().unsigned_abs())).await;

        let watch = Watch {
            group,
            grace: Duration::from_millis(self.grace_ms),
            on_loss: self.on_loss,
            stage: Stage::Held { until },
            news,
        };
        let status = watch.until_the_end(&mut child, orders).await.map_err(|error| broken(&error))?;
        Ok(ExitCode::from(code(status)))
    }
}

/// Starts the command in a process group of its own.
fn start(command: &[OsString]) -> Result<(Child, Pid), (u8, String)> {
    let (program, args) = command.split_first().expect("clap requires one");
    let started = Command::new(program).args(args).stdin(Stdio::inherit()).process_group(0).spawn();
    let child = started.map_err(|error| {
        // As shells tell it.
        let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        (code, format!("{} cannot be run: {error}", program.display()))
    })?;
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok((child, id.expect("it was not waited for yet")))
}

impl Watch {
    async fn until_the_end(
        mut self,
        child: &mut Child,
        mut orders: Lines<BufReader<OwnedReadHalf>>,
    ) -> std::io::Result<ExitStatus> {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = true;
        let status = loop {
            select! {
                biased;
                status = child.wait() => break status?,
                order = next(&mut orders), if told => match order {
                    Some(order) => self.obey(order).await,
                    // Nobody holds the session any more, or soon nobody will.
                    None => {
                        told = false;
                        self.lost().await;
                    }
                },
                _ = look.tick() => self.look().await,
            }
        };
        self.end_stragglers(&mut look).await;
        Ok(status)
    }

    async fn obey(&mut self, order: Order) {
        match (order, self.stage) {
            (Order::HeldUntil(until), Stage::Held { .. }) => self.stage = Stage::Held { until },
            // What has begun is finished: the command may have let go of things already.
            (Order::HeldUntil(_), _) => {}
            (Order::Signal(number), _) => {
                if let Some(signal) = Signal::from_named_raw(number) {
                    self.signal(signal);
                }
            }
            (Order::Lost, _) => self.lost().await,
        }
    }

    /// Acts when the time has come.
    async fn look(&mut self) {
        match self.stage {
            Stage::Held { until } if until.remaining() <= self.grace + KILL_AHEAD => self.end(until).await,
            Stage::Terminated { kill_at } if kill_at.has_passed() => self.kill().await,
            _ => {}
        }
    }

    /// The lock is lost, or nobody is left to say that it is not.
    async fn lost(&mut self) {
        if let Stage::Held { until } = self.stage {
            self.end(until).await;
        }
    }

    /// Ends the command within its grace, and before `until` in any case.
    async fn end(&mut self, until: Moment) {
        match self.on_loss {
            OnLoss::Ignore => {}
            OnLoss::Kill => self.kill().await,
            OnLoss::Term => {
                self.signal(Signal::TERM);
                // One that was stopped could not end otherwise.
                self.signal(Signal::CONT);
                let grace = self.grace.min(until.remaining().saturating_sub(KILL_AHEAD));
                self.stage = Stage::Terminated { kill_at: Clock::now() + grace };
                say(&mut self.news, &News::Terminated).await;
            }
        }
    }

    async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.stage = Stage::Killed;
        say(&mut self.news, &News::Killed).await;
    }

    /// A command that was asked to end has ended; what it started has the rest of the grace.
    async fn end_stragglers(&mut self, look: &mut tokio::time::Interval) {
        while let Stage::Terminated { kill_at } = self.stage {
            if test_kill_process_group(self.group) == Err(Errno::SRCH) {
                return;
            }
            if kill_at.has_passed() {
                self.kill().await;
            }
            look.tick().await;
        }
    }

    fn signal(&self, signal: Signal) {
        match kill_process_group(self.group, signal) {
            // It has ended, and is waited for next.
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => eprintln!("the command cannot be signalled: {error}"),
        }
    }
}

/// The next order; `None` when `quorate lock` is gone, or says what this build does not understand.
///
/// # Cancel safety
/// Cancel safe, as [`Lines::next_line`] is.
async fn next(orders: &mut Lines<BufReader<OwnedReadHalf>>) -> Option<Order> {
    let line = orders.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

/// Tells `quorate lock`; if it is gone, nobody needs to know.
async fn say(news: &mut OwnedWriteHalf, message: &News) {
    let _ = news.write_all(&wire::line(message)).await;
}

/// How a shell tells the end of a command.
pub(super) fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

fn broken(error: &std::io::Error) -> Failure {
    Failure::new(Exit::Lost, format_args!("the warden of the command failed: {error}"))
}
