//! Loops of operations: closed, or open at a rate.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    Plan, gather,
    measure::{Live, Measured, Window},
    target::{Done, Session, Target},
    workload::{Mix, Operations, keys},
};
use crate::cli::exit::Failure;

/// Operations of a session that may be late in an open loop; beyond that the loop waits, and their times show it.
const LATE_MAX: usize = 1024;

pub(super) async fn run(
    target: &Arc<Target>,
    plan: &Plan,
    mix: Mix,
    folder: &str,
    live: &Arc<Live>,
) -> Result<Measured, Failure> {
    let mut sessions = target.connect_all(plan.sessions, folder).await?;
    let own_folder = |at: usize| format!("{folder}/s{at}");
    if !mix.needs_keys() {
        for (at, session) in sessions.iter_mut().enumerate() {
            session.create(&own_folder(at)).await?;
        }
    }
    let keys = keys(folder, plan.keys);
    let window = Window::of(plan);
    let mut tasks = JoinSet::new();
    for (at, session) in sessions.into_iter().enumerate() {
        let (in_flight, pace) = (plan.in_flight, plan.pace);
        let slots = if pace.is_some() { LATE_MAX } else { in_flight };
        let operations = Operations::new(mix, at, own_folder(at), keys.clone(), plan.value_size, slots);
        let looping = Loop { session, operations, live: live.clone(), window, measured: Measured::new() };
        let offset = at as f64 / plan.sessions as f64;
        tasks.spawn(async move {
            match pace {
                None => looping.closed(in_flight).await,
                Some(pace) => looping.open(pace, pace.mul_f64(offset)).await,
            }
        });
    }
    gather(tasks, plan, window).await
}

struct Loop {
    session: Session,
    operations: Operations,
    live: Arc<Live>,
    window: Window,
    measured: Measured,
}

impl Loop {
    /// Each answer is followed by the next operation.
    async fn closed(mut self, in_flight: usize) -> Result<Measured, Failure> {
        for slot in 0..in_flight {
            self.start(slot, Instant::now());
        }
        let mut pending = in_flight;
        let mut done = Vec::new();
        while pending > 0 {
            self.session.next(&mut done).await?;
            let now = Instant::now();
            for answer in done.drain(..) {
                let slot = answer.slot;
                self.note(answer, now);
                if now < self.window.to {
                    self.start(slot, now);
                } else {
                    pending -= 1;
                }
            }
        }
        self.session.close().await;
        Ok(self.measured)
    }

    /// Operations are due at fixed times.
    async fn open(mut self, pace: Duration, offset: Duration) -> Result<Measured, Failure> {
        let mut due = Instant::now() + offset;
        let mut free: Vec<usize> = (0..LATE_MAX).collect();
        let mut done = Vec::new();
        while due < self.window.to || free.len() < LATE_MAX {
            let now = Instant::now();
            while due <= now
                && due < self.window.to
                && let Some(slot) = free.pop()
            {
                self.start(slot, due);
                due += pace;
            }
            let wait = due < self.window.to && !free.is_empty();
            tokio::select! {
                biased;
                next = self.session.next(&mut done) => next?,
                () = tokio::time::sleep_until(due.into()), if wait => {}
            }
            let now = Instant::now();
            for answer in done.drain(..) {
                free.push(answer.slot);
                self.note(answer, now);
            }
        }
        self.session.close().await;
        Ok(self.measured)
    }

    fn start(&mut self, slot: usize, since: Instant) {
        let op = self.operations.next(slot);
        self.session.start(op, slot, since);
    }

    fn note(&mut self, answer: Done, now: Instant) {
        match answer.outcome {
            Ok(()) => {
                self.live.done.fetch_add(1, Ordering::Relaxed);
                self.measured.answered(answer.since, now, self.window);
            }
            Err(error) => {
                self.live.errors.fetch_add(1, Ordering::Relaxed);
                self.measured.failed(error);
            }
        }
    }
}
