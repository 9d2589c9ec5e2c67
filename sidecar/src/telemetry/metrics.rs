//! The metrics of one member: recorded with OpenTelemetry, served as Prometheus text.
//!
//! Events are counted where they happen: each part gets the instruments that concern it. Levels (how many nodes,
//! which term) are read when somebody asks, as one [`Levels`], so that what is served belongs together. Names start
//! with `quorate_`, units are seconds and bytes; no label grows with paths, sessions or clients.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider, UpDownCounter},
};
use opentelemetry_sdk::{Resource, metrics::SdkMeterProvider};
use prometheus::{Encoder, Registry, TextEncoder};
use quorate_tree::MemberId;

use crate::storage::FlushReport;

mod process;
mod summary;
mod zookeeper;

pub(crate) use summary::{Figures, Summary, Tally};
pub(crate) use zookeeper::ZookeeperMetrics;

/// Bucket boundaries of every duration, in seconds. OpenTelemetry's own begin at 0, 5 and 10: of no use here.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// All instruments of one member.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    // Ends the collection when it is dropped.
    _provider: SdkMeterProvider,
    levels: LevelInstruments,
    pub(crate) storage: StorageMetrics,
    pub(crate) ensemble: EnsembleMetrics,
    pub(crate) sessions: SessionMetrics,
    pub(crate) doors: DoorsMetrics,
    pub(crate) zookeeper: ZookeeperMetrics,
}

/// What a member knows of itself at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Levels {
    pub(crate) ready: bool,
    pub(crate) has_leader: bool,
    pub(crate) is_leader: bool,
    pub(crate) term: u64,
    pub(crate) zxid: u64,
    pub(crate) commit_index: u64,
    pub(crate) applied_index: u64,
    pub(crate) snapshot_index: u64,
    /// Live sessions of the ensemble, and those whose stream is open here.
    pub(crate) sessions: u64,
    pub(crate) sessions_here: u64,
    pub(crate) znodes: u64,
    /// Of their paths and data.
    pub(crate) node_bytes: u64,
    pub(crate) ephemerals: u64,
    pub(crate) watches: u64,
    /// Events that wait in the queues of sessions.
    pub(crate) events_queued: u64,
    pub(crate) log_bytes: u64,
}

/// Durations of one kind: a histogram to be collected, and a summary in microseconds to be read here.
#[derive(Clone, Debug)]
pub(crate) struct Seconds {
    histogram: Histogram<f64>,
    summary: Arc<Summary>,
}

/// A counter that is also read here.
#[derive(Clone, Debug)]
pub(crate) struct Count {
    counter: Counter<u64>,
    value: Arc<AtomicU64>,
}

/// What the log costs.
#[derive(Clone, Debug)]
pub(crate) struct StorageMetrics {
    pub(crate) fsync: Seconds,
    /// Bytes written to the log.
    written: Counter<u64>,
}

/// How agreement goes.
#[derive(Clone, Debug)]
pub(crate) struct EnsembleMetrics {
    leader_changes: Counter<u64>,
    proposals: Counter<u64>,
    /// From the proposal to its own apply.
    pub(crate) proposal: Seconds,
    pub(crate) snapshot: Seconds,
    /// From the moment the leader is lost, or the start, until one is known.
    pub(crate) leaderless: Seconds,
    snapshot_hold: Gauge<f64>,
    peer_rtt: Histogram<f64>,
}

/// What became of a proposal of this member that was not simply applied; those are in [`EnsembleMetrics::proposal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProposalEnd {
    /// Sent once more: the leader was gone or had missed one.
    SentAgain,
    /// The copy was replaced by a snapshot before it was seen to be applied.
    Unknown,
}

/// How sessions come and go on this member.
#[derive(Clone, Debug)]
pub(crate) struct SessionMetrics {
    attached: Counter<u64>,
    pub(crate) expired: Count,
    detached: Counter<u64>,
    pub(crate) throttled: Count,
    /// How many watchers an event of each kind had.
    pub(crate) watchers: Arc<Watchers>,
    /// From the change to the moment its event is handed to the connection.
    pub(crate) watch_delivery: Seconds,
}

/// Watchers of the events of each kind.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    pub(crate) created: Summary,
    pub(crate) deleted: Summary,
    pub(crate) data_changed: Summary,
    pub(crate) children_changed: Summary,
}

/// Why this member ended a session's stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DetachReason {
    Closed,
    Expired,
    Moved,
    ClientGone,
    TooSlow,
    Protocol,
    /// This member could not vouch for it any more, or shuts down.
    GoElsewhere,
}

/// Connections of all doors.
#[derive(Clone, Debug)]
pub(crate) struct DoorsMetrics {
    connections: UpDownCounter<i64>,
    refused: Counter<u64>,
    failed: Counter<u64>,
}

/// Connections of one door.
#[derive(Clone, Debug)]
pub(crate) struct DoorMetrics(Arc<OfDoor>);

#[derive(Debug)]
struct OfDoor {
    door: [KeyValue; 1],
    doors: DoorsMetrics,
    refused: AtomicU64,
}

impl Metrics {
    /// The instruments of member `id`.
    pub(crate) fn new(id: MemberId) -> Self {
        let registry = Registry::new();
        let exporter = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .expect("a new registry has no collector yet");
        let provider =
            SdkMeterProvider::builder().with_resource(Resource::builder_empty().build()).with_reader(exporter).build();
        let meter = provider.meter("quorate");

        let build = [KeyValue::new("version", super::VERSION), KeyValue::new("member", i64::from(id.0))];
        gauge(&meter, "quorate_build_info", "What runs here; always 1.").record(1, &build);
        process::observe(&meter);
        Self {
            registry,
            levels: LevelInstruments::new(&meter),
            storage: StorageMetrics::new(&meter),
            ensemble: EnsembleMetrics::new(&meter),
            sessions: SessionMetrics::new(&meter),
            doors: DoorsMetrics::new(&meter),
            zookeeper: ZookeeperMetrics::new(&meter),
            _provider: provider,
        }
    }

    /// Everything as Prometheus text, with `levels` as they are now.
    pub(crate) fn render(&self, levels: &Levels) -> String {
        self.levels.record(levels);
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("a vector takes all that is written");
        String::from_utf8(text).expect("the encoder writes text")
    }

    /// The content type of what [`Metrics::render`] gives.
    pub(crate) const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;
}

/// The one place where durations get their buckets.
fn seconds(meter: &Meter, name: &'static str, description: &'static str) -> Histogram<f64> {
    let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
    histogram.with_boundaries(SECONDS.to_vec()).build()
}

fn durations(meter: &Meter, name: &'static str, description: &'static str) -> Seconds {
    Seconds { histogram: seconds(meter, name, description), summary: Arc::default() }
}

fn count(meter: &Meter, name: &'static str, description: &'static str) -> Count {
    let counter = counter(meter, name, description);
    counter.add(0, &[]);
    Count { counter, value: Arc::default() }
}

fn gauge(meter: &Meter, name: &'static str, description: &'static str) -> Gauge<u64> {
    meter.u64_gauge(name).with_description(description).build()
}

fn counter(meter: &Meter, name: &'static str, description: &'static str) -> Counter<u64> {
    meter.u64_counter(name).with_description(description).build()
}

/// Serves the counter from the start, at 0: a rate needs the value before the first.
fn from_zero(counter: Counter<u64>, labels: impl IntoIterator<Item = KeyValue>) -> Counter<u64> {
    labels.into_iter().for_each(|label| counter.add(0, &[label]));
    counter
}

impl Seconds {
    pub(crate) fn record(&self, duration: Duration) {
        self.histogram.record(duration.as_secs_f64(), &[]);
        self.summary.record(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }
}

impl Count {
    fn add(&self, more: u64) {
        self.counter.add(more, &[]);
        self.value.fetch_add(more, Relaxed);
    }

    /// Since the start.
    pub(crate) fn value(&self) -> u64 {
        self.value.load(Relaxed)
    }
}

impl StorageMetrics {
    fn new(meter: &Meter) -> Self {
        let fsync = "Time to make appended entries durable.";
        let written = counter(meter, "quorate_wal_written_bytes", "Bytes written to the log.");
        written.add(0, &[]);
        Self { fsync: durations(meter, "quorate_wal_fsync_duration", fsync), written }
    }

    pub(crate) fn flushed(&self, flush: FlushReport) {
        self.fsync.record(flush.duration);
        self.written.add(flush.bytes as u64, &[]);
    }
}

impl EnsembleMetrics {
    fn new(meter: &Meter) -> Self {
        let leader_changes = counter(meter, "quorate_leader_changes", "Changes of the leader that this member saw.");
        leader_changes.add(0, &[]);
        let proposals = counter(meter, "quorate_proposals", "Proposals of this member that were not simply applied.");
        let proposal = "Time from a proposal of this member to its own apply.";
        let snapshot = "Time to write a snapshot and make it durable.";
        let snapshot_hold = "Longest time for which the newest snapshot held up the replica.";
        let leaderless = "Time without a leader, or from the start to the first one.";
        let peer_rtt = "Time from a heartbeat to a member to its answer.";
        Self {
            leader_changes,
            proposals: from_zero(proposals, ProposalEnd::ALL.map(ProposalEnd::label)),
            proposal: durations(meter, "quorate_proposal_duration", proposal),
            snapshot: durations(meter, "quorate_snapshot_duration", snapshot),
            leaderless: durations(meter, "quorate_leaderless_duration", leaderless),
            snapshot_hold: meter
                .f64_gauge("quorate_snapshot_longest_hold")
                .with_unit("s")
                .with_description(snapshot_hold)
                .build(),
            peer_rtt: seconds(meter, "quorate_peer_rtt", peer_rtt),
        }
    }

    pub(crate) fn leader_changed(&self) {
        self.leader_changes.add(1, &[]);
    }

    pub(crate) fn proposals_ended(&self, how: ProposalEnd, count: u64) {
        self.proposals.add(count, &[how.label()]);
    }

    /// A snapshot is whole: how long it took, and how long it held up the replica at a time.
    pub(crate) fn snapshot_written(&self, after: Duration, longest_hold: Duration) {
        self.snapshot.record(after);
        self.snapshot_hold.record(longest_hold.as_secs_f64(), &[]);
    }

    pub(crate) fn peer_answered(&self, peer: MemberId, after: Duration) {
        self.peer_rtt.record(after.as_secs_f64(), &[KeyValue::new("peer", i64::from(peer.0))]);
    }
}

impl ProposalEnd {
    const ALL: [Self; 2] = [Self::SentAgain, Self::Unknown];

    fn label(self) -> KeyValue {
        let result = match self {
            Self::SentAgain => "sent_again",
            Self::Unknown => "unknown",
        };
        KeyValue::new("result", result)
    }
}

impl SessionMetrics {
    fn new(meter: &Meter) -> Self {
        let attached = counter(meter, "quorate_session_attached", "Sessions attached here, opened or resumed.");
        let expired = count(meter, "quorate_session_expired", "Sessions this member has applied the expiry of.");
        let detached = counter(meter, "quorate_session_detached", "Session streams ended here, by reason.");
        let throttled = count(meter, "quorate_session_throttled", "Clients turned away because they came too fast.");
        let delivery = "Time from a change to its event being handed to the watcher's connection.";
        Self {
            attached: from_zero(attached, [OPENED, RESUMED].map(how)),
            expired,
            throttled,
            detached: from_zero(detached, DetachReason::ALL.map(DetachReason::label)),
            watchers: Arc::default(),
            watch_delivery: durations(meter, "quorate_watch_delivery_duration", delivery),
        }
    }

    pub(crate) fn opened(&self) {
        self.attached.add(1, &[how(OPENED)]);
    }

    pub(crate) fn resumed(&self) {
        self.attached.add(1, &[how(RESUMED)]);
    }

    pub(crate) fn throttled(&self) {
        self.throttled.add(1);
    }

    pub(crate) fn expired(&self) {
        self.expired.add(1);
    }

    pub(crate) fn detached(&self, why: DetachReason) {
        self.detached.add(1, &[why.label()]);
    }
}

const OPENED: &str = "opened";
const RESUMED: &str = "resumed";

fn how(how: &'static str) -> KeyValue {
    KeyValue::new("how", how)
}

impl DetachReason {
    const ALL: [Self; 7] =
        [Self::Closed, Self::Expired, Self::Moved, Self::ClientGone, Self::TooSlow, Self::Protocol, Self::GoElsewhere];

    fn label(self) -> KeyValue {
        let reason = match self {
            Self::Closed => "closed",
            Self::Expired => "expired",
            Self::Moved => "moved",
            Self::ClientGone => "client_gone",
            Self::TooSlow => "too_slow",
            Self::Protocol => "protocol",
            Self::GoElsewhere => "go_elsewhere",
        };
        KeyValue::new("reason", reason)
    }
}

impl DoorsMetrics {
    fn new(meter: &Meter) -> Self {
        let connections =
            meter.i64_up_down_counter("quorate_connections").with_description("Open connections, by door.");
        Self {
            connections: connections.build(),
            refused: counter(meter, "quorate_connections_refused", "Connections over the bound of their address."),
            failed: counter(meter, "quorate_accept_failures", "Accepts that failed, for instance for want of files."),
        }
    }

    /// The instruments of one door.
    pub(crate) fn of(&self, door: &'static str) -> DoorMetrics {
        let door = [KeyValue::new("door", door)];
        self.connections.add(0, &door);
        self.refused.add(0, &door);
        self.failed.add(0, &door);
        DoorMetrics(Arc::new(OfDoor { door, doors: self.clone(), refused: AtomicU64::new(0) }))
    }
}

impl DoorMetrics {
    pub(crate) fn opened(&self) {
        self.0.doors.connections.add(1, &self.0.door);
    }

    pub(crate) fn closed(&self) {
        self.0.doors.connections.add(-1, &self.0.door);
    }

    pub(crate) fn refused(&self) {
        self.0.doors.refused.add(1, &self.0.door);
        self.0.refused.fetch_add(1, Relaxed);
    }

    /// Connections that this door has refused since the start.
    pub(crate) fn refusals(&self) -> u64 {
        self.0.refused.load(Relaxed)
    }

    pub(crate) fn accept_failed(&self) {
        self.0.doors.failed.add(1, &self.0.door);
    }
}

/// Where levels are written when somebody asks.
#[derive(Clone, Debug)]
struct LevelInstruments {
    ready: Gauge<u64>,
    has_leader: Gauge<u64>,
    is_leader: Gauge<u64>,
    term: Gauge<u64>,
    zxid: Gauge<u64>,
    commit_index: Gauge<u64>,
    applied_index: Gauge<u64>,
    apply_lag: Gauge<u64>,
    snapshot_index: Gauge<u64>,
    sessions: Gauge<u64>,
    znodes: Gauge<u64>,
    watches: Gauge<u64>,
    watch_backlog: Gauge<u64>,
    log_bytes: Gauge<u64>,
}

impl LevelInstruments {
    fn new(meter: &Meter) -> Self {
        Self {
            ready: gauge(meter, "quorate_ready", "1 while this member serves clients."),
            has_leader: gauge(meter, "quorate_has_leader", "1 while this member knows a leader."),
            is_leader: gauge(meter, "quorate_is_leader", "1 while this member leads."),
            term: gauge(meter, "quorate_term", "The term of agreement this member is in."),
            zxid: gauge(meter, "quorate_zxid", "The last change applied here."),
            commit_index: gauge(meter, "quorate_commit_index", "The last log entry known to be agreed."),
            applied_index: gauge(meter, "quorate_applied_index", "The last log entry applied here."),
            apply_lag: gauge(meter, "quorate_apply_lag_entries", "Agreed log entries not applied here yet."),
            snapshot_index: gauge(meter, "quorate_snapshot_index", "The last log entry in the newest snapshot."),
            sessions: gauge(meter, "quorate_sessions", "Live sessions: of the ensemble, and attached here."),
            znodes: gauge(meter, "quorate_znodes", "Nodes of the tree, by kind."),
            watches: gauge(meter, "quorate_watches", "Watches armed on this member."),
            watch_backlog: gauge(meter, "quorate_watch_backlog", "Events that wait for slow watchers."),
            log_bytes: gauge(meter, "quorate_log_bytes", "Size of the log on disk."),
        }
    }

    fn record(&self, levels: &Levels) {
        self.ready.record(levels.ready.into(), &[]);
        self.has_leader.record(levels.has_leader.into(), &[]);
        self.is_leader.record(levels.is_leader.into(), &[]);
        self.term.record(levels.term, &[]);
        self.zxid.record(levels.zxid, &[]);
        self.commit_index.record(levels.commit_index, &[]);
        self.applied_index.record(levels.applied_index, &[]);
        self.apply_lag.record(levels.commit_index.saturating_sub(levels.applied_index), &[]);
        self.snapshot_index.record(levels.snapshot_index, &[]);
        self.sessions.record(levels.sessions, &[KeyValue::new("state", "live")]);
        self.sessions.record(levels.sessions_here, &[KeyValue::new("state", "attached_here")]);
        let lasting = levels.znodes.saturating_sub(levels.ephemerals);
        self.znodes.record(lasting, &[KeyValue::new("kind", "lasting")]);
        self.znodes.record(levels.ephemerals, &[KeyValue::new("kind", "ephemeral")]);
        self.watches.record(levels.watches, &[]);
        self.watch_backlog.record(levels.events_queued, &[]);
        self.log_bytes.record(levels.log_bytes, &[]);
    }
}

#[cfg(test)]
mod tests;
