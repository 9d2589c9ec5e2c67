//! Sessions that are open and do nothing but stay so: what they take in memory and CPU. A latency is that of opening
//! one.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use tokio::{task::JoinSet, time::interval_at};
use tokio_util::sync::CancellationToken;

use super::{
    Plan,
    measure::{Live, Measured, Window},
    target::{CONNECTING_MAX, Session, Target},
};
use crate::cli::exit::{Exit, Failure};

/// Over gRPC the client keeps its session alive by itself, five times in a timeout; so a timeout of 50 s does it as often.
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(10);
const SESSION_TIMEOUT: Duration = Duration::from_secs(50);

pub(super) async fn run(target: &Arc<Target>, plan: &Plan, live: &Arc<Live>) -> Result<Measured, Failure> {
    let empty = plan.servers.memory()?;
    let mut measured = Measured::new();
    let end = CancellationToken::new();
    let mut held = JoinSet::new();
    let began = Instant::now();
    let opening = (0..plan.sessions).map(|at| {
        let since = Instant::now();
        async move { (at, target.connect_for(at, SESSION_TIMEOUT).await, since.elapsed()) }
    });
    let mut opening = futures_util::stream::iter(opening).buffer_unordered(CONNECTING_MAX);
    while let Some((at, opened, took)) = opening.next().await {
        let session = opened?;
        live.done.fetch_add(1, Ordering::Relaxed);
        measured.latency(took);
        held.spawn(hold(session, at, end.clone()));
    }
    measured.took(began.elapsed());

    let window = Window { from: Instant::now(), to: Instant::now() + plan.duration };
    let usage = plan.servers.during(window).await.map_err(|panicked| Failure::new(Exit::Refused, panicked))??;
    measured.used(usage, Some(empty));
    end.cancel();
    while let Some(ended) = held.join_next().await {
        if let Err(failure) = ended.map_err(|panicked| Failure::new(Exit::Refused, panicked))? {
            measured.failed(failure);
        }
    }
    Ok(measured)
}

/// Keeps a session until all end.
async fn hold(mut session: Session, at: usize, end: CancellationToken) -> Result<(), Failure> {
    // They do not all speak at the same moment.
    let phase = Duration::from_millis(at as u64 * 7919 % KEEP_ALIVE_EVERY.as_millis() as u64);
    let mut due = interval_at(tokio::time::Instant::now() + phase, KEEP_ALIVE_EVERY);
    while end.run_until_cancelled(due.tick()).await.is_some() {
        session.keep_alive().await?;
    }
    session.keep_alive().await?;
    session.close().await;
    Ok(())
}
