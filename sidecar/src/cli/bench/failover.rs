//! The leader is killed while a writer at every member has one write in flight. A latency is that from the kill to the
//! end of the first write that was begun after it.
//!
//! Killing and starting again is left to two commands: members are not processes of this one.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{process::Command, task::JoinSet, time::timeout};

use super::{
    Plan,
    measure::Measured,
    target::{Op, Session, Target},
};
use crate::{
    cli::exit::{Exit, Failure},
    clock::Clock,
};

/// Without a write for so long the ensemble is not coming back.
const WITHIN: Duration = Duration::from_secs(60);
/// A writer whose member does not answer looks for it again after this time.
const PAUSE: Duration = Duration::from_millis(3);
/// Over ZooKeeper's protocol, where nobody else looks after the connection, an attempt may take this long.
const ATTEMPT: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_millis(5);

/// How the leader is killed and started again.
#[derive(Debug)]
pub(super) struct Commands {
    /// Prints when it did, in nanoseconds since 1970.
    pub(super) kill: String,
    /// Comes back when the ensemble is whole.
    pub(super) restart: String,
}

/// A write that was acknowledged.
struct Written {
    begun: Instant,
    done: Instant,
}

pub(super) async fn run(
    target: &Arc<Target>,
    plan: &Plan,
    rounds: usize,
    commands: &Commands,
    setter: &mut Session,
    folder: &str,
) -> Result<Measured, Failure> {
    let log: Arc<Mutex<Vec<Written>>> = Arc::default();
    // They end with this set.
    let mut writers = JoinSet::new();
    for at in 0..target.members() {
        let path = format!("{folder}/w{at}");
        setter.create(&path).await?;
        writers.spawn(write(target.clone(), at, path.into(), log.clone()));
    }
    let mut measured = Measured::new();
    for _ in 0..rounds {
        tokio::time::sleep(plan.warm_up).await;
        log.lock().clear();
        let killed = instant_of(&said_by(&commands.kill).await?)?;
        let first = timeout(WITHIN, first_after(killed, &log)).await.map_err(|_late| {
            Failure::new(
                Exit::TimedOut,
                format_args!("no write was done within {WITHIN:?} after the leader was killed"),
            )
        })?;
        measured.latency(first - killed);
        measured.round(first - killed);
        said_by(&commands.restart).await?;
    }
    Ok(measured)
}

/// Writes through one member, one after the other, for ever.
async fn write(target: Arc<Target>, at: usize, path: Arc<str>, log: Arc<Mutex<Vec<Written>>>) {
    let mut session = None;
    loop {
        let begun = Instant::now();
        match attempt(&target, at, &mut session, &path).await {
            Ok(()) => log.lock().push(Written { begun, done: Instant::now() }),
            Err(_gone) => {
                session = None;
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn attempt(target: &Target, at: usize, session: &mut Option<Session>, path: &Arc<str>) -> Result<(), Failure> {
    let work = async {
        let session = match session {
            Some(session) => session,
            None => session.insert(target.connect(at).await?),
        };
        session.call(Op::Set { path: path.clone(), data: Bytes::from_static(b"1") }).await
    };
    match target {
        // The client looks for its member by itself, and sends again what was not answered.
        Target::Grpc(_) => work.await,
        Target::Zookeeper(_) => timeout(ATTEMPT, work).await.map_err(|late| Failure::new(Exit::TimedOut, late))?,
    }
}

async fn first_after(killed: Instant, log: &Mutex<Vec<Written>>) -> Instant {
    loop {
        let first = log.lock().iter().filter(|written| written.begun >= killed).map(|written| written.done).min();
        if let Some(first) = first {
            return first;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// What a command says that ends well.
async fn said_by(command: &str) -> Result<String, Failure> {
    let failed = |how: &dyn std::fmt::Display| Failure::new(Exit::Refused, format_args!("`{command}`: {how}"));
    let output = Command::new("sh").arg("-c").arg(command).kill_on_drop(true).output().await;
    let output = output.map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&format_args!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The moment that is the first word of a text, in nanoseconds since 1970.
fn instant_of(text: &str) -> Result<Instant, Failure> {
    let (now, wall_ms) = (Instant::now(), Clock::wall_ms());
    let said_ns = text.split_ascii_whitespace().next().and_then(|word| word.parse::<i64>().ok());
    let ago_ms = said_ns.and_then(|ns| u64::try_from(wall_ms - ns / 1_000_000).ok());
    ago_ms.and_then(|ms| now.checked_sub(Duration::from_millis(ms))).ok_or_else(|| {
        let said = format_args!("what kills the leader says when, in nanoseconds since 1970, not {text:?}");
        Failure::new(Exit::Refused, said)
    })
}
