//! Whether the parts of this member make progress, whatever the others do.
//!
//! Once a beat each part is asked for a sign of life, one question at a time. What is counted are the beats that pass
//! without an answer, not time: a process that was stopped and goes on has missed none. A part that is silent for
//! [`SILENT_BEATS_MAX`] of them hangs, and only a restart helps; a disk that is slow for seconds is none of that.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::machine::Raft;
use crate::storage::Log;

const BEAT: Duration = Duration::from_secs(1);

/// A part that answers nothing for so many beats hangs.
pub(crate) const SILENT_BEATS_MAX: u32 = 30;

/// The parts that are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The task that agrees with the others.
    Agreement,
    /// The task that applies what was agreed.
    Applier,
    /// The thread that writes the log.
    Log,
}

/// How long each part has been silent.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    silent_beats: [AtomicU32; 3],
}

impl Pulse {
    /// Whether a part makes progress.
    pub(crate) fn beats(&self, part: Part) -> bool {
        self.silent(part).load(Ordering::Relaxed) < SILENT_BEATS_MAX
    }

    fn silent(&self, part: Part) -> &AtomicU32 {
        &self.silent_beats[part as usize]
    }

    /// Asks one part again and again. Never resolves.
    async fn feel<F: Future<Output = ()>>(&self, part: Part, beat: Duration, ask: impl Fn() -> F) {
        let mut beats = interval(beat);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beats.tick().await;
            let mut answer = std::pin::pin!(ask());
            loop {
                tokio::select! {
                    biased;
                    () = &mut answer => break self.silent(part).store(0, Ordering::Relaxed),
                    _ = beats.tick() => { self.silent(part).fetch_add(1, Ordering::Relaxed); }
                }
            }
        }
    }
}

/// Asks the parts of this member for signs of life.
pub(crate) struct PulseTaker {
    pub(crate) raft: Raft,
    pub(crate) log: Log,
    pub(crate) pulse: Arc<Pulse>,
}

impl PulseTaker {
    /// Runs until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Self { raft, log, pulse } = &self;
        // A part that has ended is silent for good; its end ends the whole member.
        let agreement = pulse.feel(Part::Agreement, BEAT, || async {
            if raft.with_raft_state(|_state| ()).await.is_err() {
                std::future::pending().await
            }
        });
        let applier = pulse.feel(Part::Applier, BEAT, || async {
            if raft.with_state_machine(|_machine| async {}.boxed()).await.is_err() {
                std::future::pending().await
            }
        });
        let log = pulse.feel(Part::Log, BEAT, || log.sign_of_life());
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = futures_util::future::join3(agreement, applier, log) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn part_that_is_silent_for_long_hangs_until_it_answers_and_one_that_is_slow_does_not() {
        let (pulse, answer) = (Pulse::default(), Notify::new());
        let feel = pulse.feel(Part::Log, BEAT, || answer.notified());
        let told = async {
            tokio::time::sleep(BEAT * (SILENT_BEATS_MAX - 1)).await;
            assert!(pulse.beats(Part::Log), "slow");

            tokio::time::sleep(BEAT * 3).await;
            assert!(!pulse.beats(Part::Log), "silent");
            assert!(pulse.beats(Part::Applier));

            answer.notify_one();
            tokio::time::sleep(BEAT).await;
            assert!(pulse.beats(Part::Log), "it has answered");
        };
        tokio::select! {
            () = told => {}
            () = feel => unreachable!("it never resolves"),
        }
    }
}
