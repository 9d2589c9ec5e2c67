//! The only place that reads the clock by which leases are judged.
//!
//! It goes on while the machine sleeps. `std::time::Instant` and tokio's timers stand still then on Linux, and
//! a holder that woke up would believe in a lease that is long over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

#[cfg(any(target_os = "linux", target_os = "android"))]
const CLOCK: ClockId = ClockId::Boottime;
// Elsewhere the monotonic clock is the best there is; on Apple's systems it goes on in sleep.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A moment on a clock that goes on while the machine sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootInstant(Duration);

impl BootInstant {
    /// The time from `earlier` to this moment; zero if it is not earlier.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    pub(crate) fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).expect("a machine does not run for 500 years")
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }
}

impl std::ops::Add<Duration> for BootInstant {
    type Output = Self;

    fn add(self, more: Duration) -> Self {
        Self(self.0 + more)
    }
}

/// Where a client reads the time by which it judges its lease.
///
/// [`Clock::system`] is what a client has unless told otherwise. [`Clock::skewed`] is for tests of what an
/// application does when its machine was asleep.
#[derive(Debug, Clone, Default)]
pub struct Clock {
    skew_ns: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The machine's clock that goes on in sleep.
    pub fn system() -> Self {
        Self::default()
    }

    /// The machine's clock plus what [`ClockSkew::sleep`] adds to it.
    pub fn skewed() -> (Self, ClockSkew) {
        let skew_ns = Arc::new(AtomicU64::new(0));
        (Self { skew_ns: Some(skew_ns.clone()) }, ClockSkew { skew_ns })
    }

    /// Now.
    pub fn now(&self) -> BootInstant {
        let now = clock_gettime(CLOCK);
        let now = Duration::new(
            u64::try_from(now.tv_sec).expect("this clock starts at zero"),
            u32::try_from(now.tv_nsec).expect("nanoseconds are below 10^9"),
        );
        let skew_ns = self.skew_ns.as_ref().map_or(0, |skew| skew.load(Ordering::Relaxed));
        BootInstant(now + Duration::from_nanos(skew_ns))
    }
}

/// Moves a [`Clock`] ahead, as if the machine had slept.
#[derive(Debug, Clone)]
pub struct ClockSkew {
    skew_ns: Arc<AtomicU64>,
}

impl ClockSkew {
    /// The clock has gone on by this much while nothing else did.
    pub fn sleep(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).expect("a test does not sleep for 500 years");
        self.skew_ns.fetch_add(nanos, Ordering::Relaxed);
    }
}
