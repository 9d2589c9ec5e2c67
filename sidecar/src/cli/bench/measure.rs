//! What was measured.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{Plan, usage::Usage};

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
    /// Of a workload that is measured in parts: which, and whose operations.
    part: Option<(&'static str, &'static str)>,
    folder: String,
    sessions: usize,
    in_flight: usize,
    seconds: f64,
    latencies: Histogram<u64>,
    pub(super) errors: u64,
    /// The first of them.
    first_error: Option<String>,
    /// Of a workload in rounds, how long each took.
    rounds: Vec<Duration>,
    usage: Option<Usage>,
    /// Resident memory of each member before the workload, where it is about memory.
    empty_memory_bytes: Option<Vec<u64>>,
    /// And after a part of it.
    memory_bytes: Option<Vec<u64>>,
}

impl Measured {
    pub(super) fn new() -> Self {
        // A microsecond to two minutes, three digits: about 200 KiB each.
        let latencies = Histogram::new_with_bounds(1, 120_000_000, 3).expect("these bounds are valid");
        Self {
            name: "",
            part: None,
            folder: String::new(),
            sessions: 0,
            in_flight: 0,
            seconds: 0.0,
            latencies,
            errors: 0,
            first_error: None,
            rounds: Vec::new(),
            usage: None,
            empty_memory_bytes: None,
            memory_bytes: None,
        }
    }

    /// An operation that was due, or begun, at `since` is answered.
    pub(super) fn answered(&mut self, since: Instant, now: Instant, window: Window) {
        if now >= window.from && now < window.to {
            self.latency(now.saturating_duration_since(since));
        }
    }

    pub(super) fn latency(&mut self, latency: Duration) {
        self.latencies(latency, 1);
    }

    /// So many had this one.
    pub(super) fn latencies(&mut self, latency: Duration, count: u64) {
        let microseconds = u64::try_from(latency.as_nanos().div_ceil(1000)).unwrap_or(u64::MAX);
        self.latencies.saturating_record_n(microseconds.max(1), count);
    }

    /// One that was begun when the last was answered, and of which one is due every so often: if it is late, so are those
    /// that were due meanwhile.
    pub(super) fn latency_of_one_due_every(&mut self, every: Duration, latency: Duration) {
        self.latency(latency);
        let mut later = latency;
        while let Some(left) = later.checked_sub(every).filter(|left| !left.is_zero()) {
            self.latency(left);
            later = left;
        }
    }

    /// These were the operations of others in a part of a workload, and this is the memory of each member after it.
    pub(super) fn part_of(&mut self, part: &'static str, op: &'static str, memory_bytes: Vec<u64>) {
        self.part = Some((part, op));
        self.memory_bytes = Some(memory_bytes);
    }

    /// It lasted so long, whatever took how long in it.
    pub(super) fn lasted(&mut self, duration: Duration) {
        self.seconds = duration.as_secs_f64();
    }

    /// It took this long in all, unlike what was planned.
    pub(super) fn took(&mut self, duration: Duration) {
        self.seconds += duration.as_secs_f64();
    }

    /// One of several rounds has ended.
    pub(super) fn round(&mut self, duration: Duration) {
        self.rounds.push(duration);
        self.took(duration);
    }

    pub(super) fn used(&mut self, usage: Usage, empty_memory_bytes: Option<Vec<u64>>) {
        self.usage = Some(usage);
        self.empty_memory_bytes = empty_memory_bytes;
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

    pub(super) fn named(mut self, name: &'static str, folder: String, plan: &Plan) -> Self {
        self.name = name;
        self.folder = folder;
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

    /// CPU of all members for an operation, microseconds.
    fn server_us_per_op(&self) -> Option<f64> {
        let usage = self.usage.as_ref().filter(|usage| !usage.server_memory_bytes.is_empty())?;
        if self.in_flight == 0 {
            return None;
        }
        Some(usage.server_cores * 1e6 / self.ops_per_second()).filter(|us| us.is_finite())
    }

    /// The middle one of the rounds.
    fn round_ms(&self) -> Option<f64> {
        let mut rounds = self.rounds.clone();
        rounds.sort_unstable();
        rounds.get(rounds.len() / 2).map(|round| round.as_secs_f64() * 1000.0)
    }

    /// Of the largest member.
    fn server_mib(&self) -> Option<f64> {
        let of_all = self.usage.as_ref().map(|usage| &usage.server_memory_bytes).or(self.memory_bytes.as_ref())?;
        let bytes = of_all.iter().max()?;
        Some(*bytes as f64 / f64::from(1 << 20))
    }

    pub(super) fn row(&self) -> [String; 11] {
        let some = |figure: Option<f64>| figure.map_or_else(|| "-".into(), |figure| format!("{figure:.1}"));
        let errors = match &self.first_error {
            Some(first) => format!("{} ({first})", self.errors),
            None => self.errors.to_string(),
        };
        let name = match self.part {
            Some((part, op)) => format!("{}, {part}: {op}", self.name),
            None => self.name.into(),
        };
        [
            name,
            self.sessions.to_string(),
            self.in_flight.to_string(),
            format!("{:.0}", self.ops_per_second()),
            format!("{:.2}", self.quantile_ms(0.5)),
            format!("{:.2}", self.quantile_ms(0.99)),
            format!("{:.2}", self.quantile_ms(0.999)),
            format!("{:.2}", self.max_ms()),
            some(self.server_us_per_op()),
            some(self.server_mib()),
            errors,
        ]
    }
}

impl Serialize for Measured {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;

        let mut fields = serializer.serialize_struct("Measured", 19)?;
        fields.serialize_field("workload", self.name)?;
        fields.serialize_field("part", &self.part.map(|(part, _)| part))?;
        fields.serialize_field("op", &self.part.map(|(_, op)| op))?;
        fields.serialize_field("folder", &self.folder)?;
        fields.serialize_field("sessions", &self.sessions)?;
        fields.serialize_field("in_flight", &self.in_flight)?;
        fields.serialize_field("seconds", &self.seconds)?;
        fields.serialize_field("ops_per_second", &self.ops_per_second())?;
        for (name, quantile) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("p999_ms", 0.999)] {
            fields.serialize_field(name, &self.quantile_ms(quantile))?;
        }
        fields.serialize_field("max_ms", &self.max_ms())?;
        fields.serialize_field("round_ms", &self.round_ms())?;
        fields.serialize_field("server_us_per_op", &self.server_us_per_op())?;
        fields.serialize_field("empty_memory_bytes", &self.empty_memory_bytes)?;
        fields.serialize_field("memory_bytes", &self.memory_bytes)?;
        fields.serialize_field("usage", &self.usage)?;
        fields.serialize_field("errors", &self.errors)?;
        fields.serialize_field("first_error", &self.first_error)?;
        fields.end()
    }
}
