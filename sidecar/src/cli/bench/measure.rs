//! What was measured.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::Plan;

/// What happens, for those who look on.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub(super) done: AtomicU64,
    pub(super) errors: AtomicU64,
}

/// When what happens counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) from: Instant,
    pub(super) to: Instant,
}

impl Window {
    pub(super) fn of(plan: &Plan) -> Self {
        let from = Instant::now() + plan.warm_up;
        Self { from, to: from + plan.duration }
    }
}

/// Latencies in microseconds, and what else became of a workload.
#[derive(Clone, Debug)]
pub(super) struct Measured {
    name: &'static str,
    sessions: usize,
    in_flight: usize,
    seconds: f64,
    latencies: Histogram<u64>,
    pub(super) errors: u64,
    /// The first of them.
    first_error: Option<String>,
}

impl Measured {
    pub(super) fn new() -> Self {
        // A microsecond to two minutes, three digits: about 200 KiB each.
        let latencies = Histogram::new_with_bounds(1, 120_000_000, 3).expect("these bounds are valid");
        Self { name: "", sessions: 0, in_flight: 0, seconds: 0.0, latencies, errors: 0, first_error: None }
    }

    /// An operation that was due, or begun, at `since` is answered.
    pub(super) fn answered(&mut self, since: Instant, now: Instant, window: Window) {
        if now >= window.from && now < window.to {
            self.latency(now.saturating_duration_since(since));
        }
    }

    pub(super) fn latency(&mut self, latency: Duration) {
        self.latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// It took this long in all, unlike what was planned.
    pub(super) fn took(&mut self, duration: Duration) {
        self.seconds += duration.as_secs_f64();
    }

    pub(super) fn failed(&mut self, error: impl ToString) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies).expect("all have the same bounds");
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error.clone_from(&other.first_error);
        }
    }

    pub(super) fn named(mut self, name: &'static str, plan: &Plan) -> Self {
        self.name = name;
        self.sessions = plan.sessions;
        self.in_flight = plan.in_flight;
        if self.seconds == 0.0 {
            self.seconds = plan.duration.as_secs_f64();
        }
        self
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn ops_per_second(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds
    }

    pub(super) fn quantile_ms(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1000.0
    }

    pub(super) fn max_ms(&self) -> f64 {
        self.latencies.max() as f64 / 1000.0
    }

    pub(super) fn row(&self) -> [String; 9] {
        let errors = match &self.first_error {
            Some(first) => format!("{} ({first})", self.errors),
            None => self.errors.to_string(),
        };
        [
            self.name.into(),
            self.sessions.to_string(),
            self.in_flight.to_string(),
            format!("{:.0}", self.ops_per_second()),
            format!("{:.2}", self.quantile_ms(0.5)),
            format!("{:.2}", self.quantile_ms(0.99)),
            format!("{:.2}", self.quantile_ms(0.999)),
            format!("{:.2}", self.max_ms()),
            errors,
        ]
    }
}

impl Serialize for Measured {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        let mut fields = serializer.serialize_struct("Measured", 11)?;
        fields.serialize_field("workload", self.name)?;
        fields.serialize_field("sessions", &self.sessions)?;
        fields.serialize_field("in_flight", &self.in_flight)?;
        fields.serialize_field("seconds", &self.seconds)?;
        fields.serialize_field("ops_per_second", &self.ops_per_second())?;
        for (name, quantile) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)] {
            fields.serialize_field(name, &self.quantile_ms(quantile))?;
        }
        fields.serialize_field("max_ms", &self.max_ms())?;
        fields.serialize_field("errors", &self.errors)?;
        fields.serialize_field("first_error", &self.first_error)?;
        fields.end()
    }
}
