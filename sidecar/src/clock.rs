//! The only reader of clocks.

use std::{
    ops::Add,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// A point on a clock that goes on while the machine sleeps, and is never set.
///
/// The ordinary monotonic clock stands still during a suspend: a member that slept would believe that the promises
/// it was given are still fresh. All processes of a machine read the same clock, so it may be told from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment(Duration);

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock;

impl Clock {
    /// Now, for measuring how long ago something was.
    pub(crate) fn now() -> Moment {
        let time = clock_gettime(ClockId::Boottime);
        Moment(Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).expect("less than a second")))
    }

    /// The wall clock, milliseconds since 1970, for people. Nothing relies on its order.
    pub(crate) fn wall_ms() -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Moment {
    /// How long it is from `earlier` to this; zero if it is not earlier.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// How long it is from now until this; zero if it has passed.
    pub(crate) fn remaining(self) -> Duration {
        self.since(Clock::now())
    }

    /// Whether it lies behind us.
    pub(crate) fn has_passed(self) -> bool {
        Clock::now() >= self
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}
