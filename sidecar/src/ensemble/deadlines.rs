//! When sessions that are not heard from have to end. Pure: time comes in, overdue sessions come out.
//!
//! Deadlines count only time in which a session could have been heard from. What the leader spent asleep, stopped or
//! without a majority is added to all of them, and nobody is overdue by time that no majority has confirmed yet.
//!
//! Bounds: one entry a live session, plus one for each time a session's timeout became shorter.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    time::Duration,
};

use quorate_tree::SessionId;

use crate::clock::Moment;

/// The deadlines of all live sessions.
#[derive(Debug)]
pub(crate) struct ExpiryQueue {
    /// What times here are counted from.
    epoch: Moment,
    /// Time that does not count, so far. Adding to it moves all deadlines.
    uncounted: Duration,
    period: Duration,
    /// A majority that is silent for longer than this leaves a gap that does not count.
    silence_max: Duration,
    last_tick: Moment,
    /// Up to when a majority has confirmed the leader.
    confirmed: Duration,
    sessions: HashMap<SessionId, Deadline>,
    /// When to look at a session next. Earlier than its deadline if it was touched since.
    queue: BinaryHeap<Reverse<(Duration, SessionId)>>,
}

#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Duration,
    timeout: Duration,
    attachment: u64,
    /// Its entry in the queue; others are left over.
    queued: Duration,
}

/// A session whose timeout has passed, at the attachment it had then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overdue {
    pub(crate) session: SessionId,
    pub(crate) attachment: u64,
}

impl ExpiryQueue {
    /// An empty queue that expects a tick every `period`, and a majority that is not silent for `silence_max`.
    pub(crate) fn new(now: Moment, period: Duration, silence_max: Duration) -> Self {
        Self {
            epoch: now,
            uncounted: Duration::ZERO,
            period,
            silence_max,
            last_tick: now,
            confirmed: Duration::ZERO,
            sessions: HashMap::new(),
            queue: BinaryHeap::new(),
        }
    }

    /// Gives a session its full timeout: it is new, or was attached again, or this leader is new.
    pub(crate) fn grant(&mut self, session: SessionId, attachment: u64, timeout: Duration, now: Moment) {
        let at = self.counted(now) + timeout;
        let queued = match self.sessions.get(&session) {
            Some(known) if known.queued <= at => known.queued,
            Some(_) | None => {
                self.queue.push(Reverse((at, session)));
                at
            }
        };
        self.sessions.insert(session, Deadline { at, timeout, attachment, queued });
    }

    /// A session was heard from. Says whether it is known.
    pub(crate) fn touch(&mut self, session: SessionId, now: Moment) -> bool {
        let now = self.counted(now);
        let Some(deadline) = self.sessions.get_mut(&session) else { return false };
        deadline.at = deadline.at.max(now + deadline.timeout);
        true
    }

    /// A session has ended.
    pub(crate) fn forget(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// The sessions that are overdue; they are forgotten. `silent_for` says how long ago a majority last confirmed the
    /// leader, if it has at all. A tick that comes late moves all deadlines by its delay.
    pub(crate) fn tick(&mut self, now: Moment, silent_for: Option<Duration>) -> Vec<Overdue> {
        let since = now.since(self.last_tick);
        self.last_tick = now;
        if since > self.period * 2 {
            let delay = since - self.period;
            self.uncounted += delay;
            // The same time is not a gap as well.
            self.confirmed += delay;
        }
        let Some(silent_for) = silent_for else { return Vec::new() };
        let confirmed = now.since(self.epoch).saturating_sub(silent_for);
        let silence = confirmed.saturating_sub(self.confirmed);
        if silence > self.silence_max {
            self.uncounted += silence - self.period.min(silence);
        }
        self.confirmed = self.confirmed.max(confirmed);
        let now = self.confirmed.saturating_sub(self.uncounted);
        let mut overdue = Vec::new();
        while let Some(Reverse((at, session))) = self.queue.peek().copied() {
            if at > now {
                break;
            }
            self.queue.pop();
            let Some(deadline) = self.sessions.get_mut(&session).filter(|deadline| deadline.queued == at) else {
                continue;
            };
            if deadline.at > now {
                deadline.queued = deadline.at;
                self.queue.push(Reverse((deadline.at, session)));
                continue;
            }
            overdue.push(Overdue { session, attachment: deadline.attachment });
            self.sessions.remove(&session);
        }
        overdue
    }

    fn counted(&self, now: Moment) -> Duration {
        now.since(self.epoch).saturating_sub(self.uncounted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const PERIOD: Duration = Duration::from_millis(50);
    const TIMEOUT: Duration = Duration::from_millis(1000);

    /// A queue and its clock, which ticks as it should.
    struct Ticking {
        queue: ExpiryQueue,
        now: Moment,
    }

    impl Ticking {
        fn new() -> Self {
            let now = Clock::now();
            Self { queue: ExpiryQueue::new(now, PERIOD, PERIOD * 4), now }
        }

        fn grant(&mut self, session: u64, timeout: Duration) {
            self.queue.grant(SessionId(session), 1, timeout, self.now);
        }

        fn touch(&mut self, session: u64) -> bool {
            self.queue.touch(SessionId(session), self.now)
        }

        fn run(&mut self, for_ms: u64) -> Vec<u64> {
            let mut overdue = Vec::new();
            for _ in 0..for_ms / 50 {
                self.now = self.now + PERIOD;
                overdue.extend(
                    self.queue.tick(self.now, Some(Duration::ZERO)).into_iter().map(|overdue| overdue.session.0),
                );
            }
            overdue
        }

        /// Stands still, then goes on.
        fn leap(&mut self, by_ms: u64, silent_for: Option<Duration>) -> Vec<Overdue> {
            self.now = self.now + Duration::from_millis(by_ms);
            self.queue.tick(self.now, silent_for)
        }
    }

    #[test]
    fn silent_session_is_overdue_after_its_timeout_and_not_before() {
        let mut ticking = Ticking::new();
        ticking.grant(1, TIMEOUT);

        assert!(ticking.run(950).is_empty());
        assert_eq!(ticking.run(50), [1]);
        assert!(ticking.run(5000).is_empty(), "it is told once");
    }

    #[test]
    fn touch_gives_the_timeout_anew() {
        let mut ticking = Ticking::new();
        ticking.grant(1, TIMEOUT);
        ticking.grant(2, TIMEOUT);

        assert!(ticking.run(900).is_empty());
        assert!(ticking.touch(1));
        assert_eq!(ticking.run(900), [2]);
        assert_eq!(ticking.run(100), [1]);
        assert!(!ticking.touch(1));
    }

    #[test]
    fn shorter_timeout_of_a_new_attachment_counts() {
        let mut ticking = Ticking::new();
        ticking.grant(1, TIMEOUT * 10);
        ticking.run(100);

        ticking.grant(1, TIMEOUT);

        assert!(ticking.run(950).is_empty());
        assert_eq!(ticking.run(50), [1]);
        assert!(ticking.run(20_000).is_empty());
    }

    #[test]
    fn longer_timeout_of_a_new_attachment_counts() {
        let mut ticking = Ticking::new();
        ticking.grant(1, TIMEOUT);

        ticking.grant(1, TIMEOUT * 2);

        assert!(ticking.run(1950).is_empty());
        assert_eq!(ticking.run(50), [1]);
    }

    #[test]
    fn ended_session_is_never_overdue() {
        let mut ticking = Ticking::new();
        ticking.grant(1, TIMEOUT);
        ticking.queue.forget(SessionId(1));

        assert!(ticking.run(5000).is_empty());
    }

    #[test]
    fn late_tick_moves_all_deadlines_by_its_delay() {
        let mut ticking = Ticking::new();
        ticking.grant(1, TIMEOUT);
        ticking.run(500);

        // The answers of the majority stood still as well, and come a moment later.
        assert!(ticking.leap(60_000, Some(Duration::from_millis(60_000))).is_empty());

        assert!(ticking.run(400).is_empty());
        assert_eq!(ticking.run(50), [1]);
    }

    #[test]
    fn time_without_a_majority_does_not_count_and_expires_nobody() {
        let mut ticking = Ticking::new();
        ticking.grant(1, TIMEOUT);
        ticking.run(500);

        for silent_periods in 1..=100 {
            assert!(ticking.leap(50, Some(PERIOD * silent_periods)).is_empty());
        }

        assert!(ticking.run(450).is_empty());
        assert_eq!(ticking.run(100), [1]);
    }

    #[test]
    fn leader_that_no_majority_has_confirmed_expires_nobody() {
        let mut ticking = Ticking::new();
        ticking.grant(1, TIMEOUT);

        for _ in 0..100 {
            assert!(ticking.leap(50, None).is_empty());
        }

        assert_eq!(ticking.run(1100), [1]);
    }

    #[test]
    fn short_silence_of_the_majority_counts() {
        let mut ticking = Ticking::new();
        ticking.grant(1, TIMEOUT);
        ticking.run(500);

        assert!(ticking.leap(50, Some(PERIOD)).is_empty());
        assert!(ticking.leap(50, Some(PERIOD * 2)).is_empty());

        assert!(ticking.run(350).is_empty());
        assert_eq!(ticking.run(50), [1]);
    }
}
