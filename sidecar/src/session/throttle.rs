//! How fast sessions may be opened and resumed on this member: so many a second, and some at once.
//!
//! After a failure all clients come at the same time, and each costs an agreement. Who is turned away tries again, here
//! or on another member, and finds those served that were there before.

use std::{num::NonZeroU32, time::Duration};

use parking_lot::Mutex;

use crate::clock::Moment;

/// What is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) per_second: NonZeroU32,
    /// Of those that come at once.
    pub(crate) burst: NonZeroU32,
}

/// Lets sessions through at a rate, or all of them.
#[derive(Debug)]
pub(super) struct Throttle {
    rate: Option<Rate>,
    taken: Mutex<Taken>,
}

/// The time that those let through have used up, and that has not passed yet.
#[derive(Debug, Default)]
struct Taken {
    time: Duration,
    at: Option<Moment>,
}

impl Throttle {
    pub(super) fn new(rate: Option<Rate>) -> Self {
        Self { rate, taken: Mutex::default() }
    }

    /// Whether one more may pass.
    pub(super) fn admits(&self, now: Moment) -> bool {
        let Some(Rate { per_second, burst }) = self.rate else { return true };
        let each = Duration::from_secs(1) / per_second.get();
        let mut taken = self.taken.lock();
        let passed = taken.at.map_or(Duration::MAX, |at| now.since(at));
        taken.time = taken.time.saturating_sub(passed);
        taken.at = Some(now);
        if taken.time + each > each * burst.get() {
            return false;
        }
        taken.time += each;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn throttle(per_second: u32, burst: u32) -> Throttle {
        let number = |n| NonZeroU32::new(n).unwrap();
        Throttle::new(Some(Rate { per_second: number(per_second), burst: number(burst) }))
    }

    fn admitted(throttle: &Throttle, now: Moment, of: usize) -> usize {
        (0..of).filter(|_| throttle.admits(now)).count()
    }

    #[test]
    fn a_burst_passes_at_once_and_the_rate_after_it() {
        let throttle = throttle(10, 4);
        let start = Clock::now();

        assert_eq!(admitted(&throttle, start, 7), 4);
        assert_eq!(admitted(&throttle, start + Duration::from_millis(99), 1), 0);
        assert_eq!(admitted(&throttle, start + Duration::from_millis(250), 7), 2);
        // A long pause earns no more than a burst.
        assert_eq!(admitted(&throttle, start + Duration::from_secs(3600), 7), 4);
    }

    #[test]
    fn over_a_long_time_the_rate_is_kept() {
        let throttle = throttle(3, 1);
        let start = Clock::now();

        let passed: usize = (0..1000).map(|ms| admitted(&throttle, start + Duration::from_millis(ms * 10), 2)).sum();

        assert!((29..=31).contains(&passed), "{passed} in ten seconds");
    }

    #[test]
    fn a_clock_that_stands_still_lets_nobody_through_for_nothing() {
        let throttle = throttle(1, 1);
        let start = Clock::now();
        assert!(throttle.admits(start + Duration::from_secs(5)));

        assert!(!throttle.admits(start));
        assert!(!throttle.admits(start));
    }

    #[test]
    fn without_a_rate_all_pass() {
        assert_eq!(admitted(&Throttle::new(None), Clock::now(), 1000), 1000);
    }
}
