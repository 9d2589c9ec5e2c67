//! `quorate lock`: runs a command that nobody else runs at the same time.
//!
//! Three processes: this one holds the lock and its session; the [`warden`] ends the command before anybody else can
//! hold the lock, also when this process hangs or is killed; the command.

use std::{ffi::OsString, process::ExitCode, time::Duration};

use clap::Args;
use quorate::{Client, LostReason, SessionView};
use quorate_recipes::{Error, HolderInfo, LockGuard, Mutex};
use rustix::process::Signal;
use tokio::{
    select,
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use self::{
    command::{Guarded, Happening, Launch},
    warden::OnLoss,
    wire::{News, Order},
};
use super::{
    ensemble::{Ensemble, duration},
    exit::{Exit, Failure},
    output::Format,
    signals::Signals,
};
use crate::clock::{Clock, Moment};

mod command;
mod warden;
mod wire;

pub(super) use warden::Warden;

/// How often the warden is told until when the lock is held.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// How long the end waits for the ensemble to confirm the release and the end of the session.
const RELEASE_MAX: Duration = Duration::from_secs(5);
/// A grace above this part of the session timeout would end commands at the first hiccup.
const GRACE_SHARE: u32 = 3;
/// Signals that are passed on to the command.
const PASSED_ON: [Signal; 6] = [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];

/// Run a command that nobody else runs at the same time
///
/// The command is stopped when the lock cannot be counted on any more, before anybody else can hold it: SIGTERM, and
/// SIGKILL when the grace is over. It runs without a shell, in a process group of its own, and finds in its
/// environment QUORATE_LOCK_NAME, QUORATE_LOCK_PATH, QUORATE_LOCK_TOKEN (grows with every holder: what refuses smaller
/// ones is safe from late writers), QUORATE_SESSION_ID and QUORATE_LOCK_DEADLINE_UNIX_MS (until when the lock is
/// certain to be held, as of its start). Ends with the code of the command, 7 if the lock was not acquired, 8 if it
/// was lost.
#[derive(Args, Debug)]
pub(super) struct Lock {
    /// The lock; a name without a leading slash is /locks/NAME
    name: String,

    /// Give up after this long
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "try_once")]
    wait: Option<Duration>,

    /// Give up at once if somebody holds it or waits for it
    #[arg(long = "try")]
    try_once: bool,

    /// How long the lock outlives this process and its connections
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    ttl: Duration,

    /// What becomes of the command when the lock is lost
    #[arg(long, value_enum, value_name = "WHAT", default_value = "term")]
    on_loss: OnLoss,

    /// From SIGTERM to SIGKILL; at most a third of the session timeout
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    grace: Duration,

    #[command(flatten)]
    ensemble: Ensemble,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// How the command ended.
struct Outcome {
    code: u8,
    /// Why it could not be started.
    not_started: Option<String>,
    /// It was told to end because of the lock.
    stopped: bool,
    /// Why the lock is lost, if that is known.
    lost: Option<LostReason>,
}

impl Lock {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        // One that was suspended would lose the lock, and a warden would end the command for it.
        let mut signals = Signals::listen(PASSED_ON.into_iter().chain([Signal::TSTP]))?;
        let name = format!("quorate lock {}", self.name);
        let client = self.ensemble.client(|builder| builder.session_timeout(self.ttl).client_name(name)).await?;
        let outcome = self.hold(&client, &mut signals).await;
        // What is left goes with the session's timeout.
        let _ = client.close(RELEASE_MAX).await;
        outcome
    }

    async fn hold(&self, client: &Client, signals: &mut Signals) -> Result<ExitCode, Failure> {
        let mutex = Mutex::new(client, self.path()).map_err(Failure::from_recipe)?;
        let guard = select! {
            biased;
            guard = self.acquire(&mutex) => guard?,
            signal = until_told(signals) => return Ok(code_of(signal)),
        };
        let outcome = self.supervise(&guard, signals).await;
        let released = match tokio::time::timeout(RELEASE_MAX, guard.release()).await {
            Ok(released) => released,
            Err(_) => Err(Error::Timeout { path: self.path(), after: RELEASE_MAX }),
        };
        let outcome = outcome?;
        if let Some(message) = outcome.not_started {
            eprintln!("error: {message}");
        } else if outcome.stopped {
            let why =
                outcome.lost.map_or_else(|| "no word from the ensemble in time".to_owned(), |why| why.to_string());
            return Err(Failure::new(Exit::Lost, format_args!("{} was lost while the command ran: {why}", self.name)));
        }
        match released {
            Err(Error::Lost { reason, .. }) if self.on_loss != OnLoss::Ignore => {
                let lost = format_args!("{} was lost before the command ended: {reason}", self.name).to_string();
                Err(Failure::new(Exit::Lost, lost))
            }
            Err(error) => {
                eprintln!("{} could not be released, and goes with its session: {error}", self.name);
                Ok(ExitCode::from(outcome.code))
            }
            Ok(()) => Ok(ExitCode::from(outcome.code)),
        }
    }

    fn path(&self) -> String {
        if self.name.starts_with('/') { self.name.clone() } else { format!("/locks/{}", self.name) }
    }

    async fn acquire(&self, mutex: &Mutex) -> Result<LockGuard, Failure> {
        let program = self.command[0].to_string_lossy().into_owned();
        let (position, ahead) = watch::channel(0);
        let lock = mutex.lock().data(HolderInfo::current().task(program));
        let lock = lock.on_position(move |ahead| {
            position.send_replace(ahead);
        });
        let lock = match (self.try_once, self.wait) {
            (true, _) => lock.timeout(Duration::ZERO),
            (false, Some(wait)) => lock.timeout(wait),
            (false, None) => lock,
        };
        let acquired = select! {
            biased;
            acquired = lock => acquired,
            never = self.tell_position(mutex, ahead) => match never {},
        };
        match acquired {
            Ok(guard) => Ok(guard),
            Err(Error::Timeout { .. }) => {
                let holder = mutex.holder().await.ok().flatten().map(|holder| describe(&holder));
                let held = holder.map_or_else(String::new, |holder| format!(": held by {holder}"));
                Err(Failure::new(Exit::NotAcquired, format_args!("{} was not acquired{held}", self.name)))
            }
            Err(error) => Err(Failure::from_recipe(error)),
        }
    }

    /// Says how many are ahead, and who holds it, whenever that becomes known.
    async fn tell_position(&self, mutex: &Mutex, mut ahead: watch::Receiver<usize>) -> std::convert::Infallible {
        while ahead.changed().await.is_ok() {
            let position = *ahead.borrow_and_update();
            if position == 0 {
                continue;
            }
            let holder = mutex.holder().await.ok().flatten();
            let held = holder.map_or_else(String::new, |holder| format!(", held by {}", describe(&holder)));
            eprintln!("waiting for {}: {position} ahead{held}", self.name);
        }
        std::future::pending().await
    }

    async fn supervise(&self, guard: &LockGuard, signals: &mut Signals) -> Result<Outcome, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Refused, format_args!("the command cannot be supervised: {error}"))
                .next("it needs a temporary directory: TMPDIR names another one")
        };
        let session = guard.session();
        let mut until = held_until(session);
        let mut running = Guarded::start(self.launch(guard), until).await.map_err(failed)?;
        let mut outcome = Outcome { code: 0, not_started: None, stopped: false, lost: None };

        let lost = guard.lost();
        tokio::pin!(lost);
        let mut tell = interval(TELL_EVERY);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            select! {
                biased;
                happening = running.next() => match happening.map_err(failed)? {
                    Happening::Ended(code) => return Ok(Outcome { code, ..outcome }),
                    Happening::News(News::Started(_)) => {}
                    Happening::News(News::NotStarted(message)) => outcome.not_started = Some(message),
                    Happening::News(News::Terminated) => {
                        outcome.stopped = true;
                        eprintln!("{} cannot be counted on any more: the command was sent SIGTERM", self.name);
                    }
                    Happening::News(News::Killed) => {
                        outcome.stopped = true;
                        eprintln!("{} cannot be counted on any more: the command was killed", self.name);
                    }
                },
                reason = &mut lost, if outcome.lost.is_none() => {
                    outcome.lost = Some(reason);
                    eprintln!("{} is lost: {reason}", self.name);
                    running.tell(Order::Lost).await;
                }
                signal = signals.next() => match signal {
                    Signal::TSTP => eprintln!("a holder of a lock cannot be suspended"),
                    signal => running.tell(Order::Signal(signal.as_raw())).await,
                },
                _ = tell.tick(), if outcome.lost.is_none() => {
                    let now_until = held_until(session);
                    if now_until > until {
                        until = now_until;
                        running.tell(Order::HeldUntil(until)).await;
                    }
                }
            }
        }
    }

    fn launch(&self, guard: &LockGuard) -> Launch {
        let session = guard.session();
        let timeout = session.negotiated_timeout();
        let deadline_ms = u128::try_from(Clock::wall_ms()).unwrap_or_default() + session.lease_remaining().as_millis();
        let grace = self.grace.min(timeout / GRACE_SHARE);
        if grace < self.grace {
            eprintln!("the grace is {grace:?}: a third of the session timeout of {timeout:?}");
        }
        Launch {
            command: self.command.clone(),
            env: vec![
                ("QUORATE_LOCK_NAME", self.name.clone().into()),
                ("QUORATE_LOCK_PATH", self.path().into()),
                ("QUORATE_LOCK_TOKEN", guard.token().to_string().into()),
                ("QUORATE_SESSION_ID", session.id().to_string().into()),
                ("QUORATE_LOCK_DEADLINE_UNIX_MS", deadline_ms.to_string().into()),
                ("QUORATE_ENDPOINT", self.ensemble.endpoints().into()),
            ],
            grace,
            on_loss: self.on_loss,
        }
    }
}

/// Until when the session is certain to live. The clock is read first: a process that is stopped in between makes it
/// too early, never too late.
fn held_until(session: &SessionView) -> Moment {
    let now = Clock::now();
    now + session.lease_remaining()
}

/// Waits for a signal that ends; the others have no command to go to.
async fn until_told(signals: &mut Signals) -> Signal {
    loop {
        match signals.next().await {
            Signal::USR1 | Signal::USR2 | Signal::TSTP => {}
            signal => return signal,
        }
    }
}

fn code_of(signal: Signal) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX))
}

/// Who a holder says it is: `deploy by pid 4711 on build-3 (token 118)`.
fn describe(holder: &quorate_recipes::Participant) -> String {
    let token = holder.token;
    let Some(info) = holder.info() else { return format!("somebody (token {token})") };
    let task = info.task.or(info.service).unwrap_or_else(|| "somebody".into());
    let pid = info.pid.map_or_else(String::new, |pid| format!(", pid {pid}"));
    let host = info.host.map_or_else(String::new, |host| format!(" on {host}"));
    format!("{task}{pid}{host} (token {token})")
}

impl Failure {
    fn from_recipe(error: Error) -> Self {
        match error {
            Error::Client(error) => error.into(),
            Error::Lost { .. } => Self::new(Exit::Lost, error),
            error => Self::new(Exit::Refused, error),
        }
    }
}
