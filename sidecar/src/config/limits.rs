//! The bounds of the operators' side on one page, and the relations between bounds.
//!
//! The bounds that all replicas must agree on are `quorate_tree::Limits`; every bound of the project stands in
//! `docs/limits.md`. A relation that does not hold does not compile.

use std::time::Duration;

/// Voting members. More would make every write slower and survive no likelier loss; further sidecars observe.
pub(crate) const VOTERS_MAX: usize = 7;

/// What `--tick-ms` may be.
pub(crate) const TICK_MS_MIN: u64 = 10;
pub(crate) const TICK_MS_MAX: u64 = 60_000;
pub(crate) const TICK_MS: u64 = 2_000;

/// Session timeouts, in ticks, as ZooKeeper has them.
pub(crate) const SESSION_TICKS_MIN: u64 = 2;
pub(crate) const SESSION_TICKS_MAX: u64 = 20;

/// What `--session-timeout-min-ms` and `-max-ms` may be: they travel as positive 32-bit milliseconds.
pub(crate) const SESSION_TIMEOUT_MS_MIN: u64 = SESSION_TICKS_MIN * TICK_MS_MIN;
pub(crate) const SESSION_TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// Requests of one session that are not yet answered; beyond that its socket is not read.
pub(crate) const SESSION_INFLIGHT_MAX: usize = 1024;
/// Writes of all sessions of a member that are not yet applied, 16 KiB of data counting as one more; beyond that no
/// socket is read that brings writes.
pub(crate) const MEMBER_INFLIGHT_MAX: usize = 8 * 1024;

/// What one session may have waiting to be sent; beyond that its connection is closed and the session lives on.
/// One command may fire more than a multi has operations: that alone must close nobody.
pub(crate) const OUTBOX_EVENTS_MAX: usize = 100_000;
pub(crate) const OUTBOX_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What all sessions of a member may have waiting to be sent. From half of it on each has one answer at a time, beyond
/// it large answers are refused.
pub(crate) const WAITING_BYTES_MAX: usize = 512 * 1024 * 1024;
/// One answer; a larger one is refused.
pub(crate) const REPLY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Nodes, names and paths that the reads of one session look at before others have their turn.
pub(crate) const RUN_WORK_MAX: usize = 2 * 1024;
/// One message a client sends.
pub(crate) const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Watches of all sessions of a member, and of one of them; further ones are refused.
pub(crate) const WATCHES_MAX: usize = 10_000_000;
pub(crate) const WATCHES_PER_SESSION_MAX: usize = 1_000_000;
/// Bytes of the paths they are on, likewise.
pub(crate) const WATCHED_PATH_BYTES_MAX: usize = 512 * 1024 * 1024;
pub(crate) const WATCHED_PATH_BYTES_PER_SESSION_MAX: usize = 64 * 1024 * 1024;

/// Memory of a client's connection that the transport may fill: one stream, and all of them.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// One HTTP/2 frame from a client: a large write comes in few of them.
pub(crate) const TRANSPORT_FRAME_BYTES_MAX: u32 = 1024 * 1024;
/// Sessions over one connection.
pub(crate) const STREAMS_PER_CONNECTION_MAX: u32 = 1024;

/// How long a graceful end may take in all; what is not done by then is cut off.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(10);

/// How often the leader looks for container and ttl nodes that are due.
pub(crate) const REAP_PERIOD: Duration = Duration::from_secs(60);
/// What `--reap-period-ms` may be.
pub(crate) const REAP_PERIOD_MS_MIN: u64 = 100;
pub(crate) const REAP_PERIOD_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// What `--election-timeout-ms` may be. The heartbeat is a tenth of it and waits for an fsync, hence the minimum.
pub(crate) const ELECTION_TIMEOUT_MS_MIN: u64 = 50;
pub(crate) const ELECTION_TIMEOUT_MS_MAX: u64 = 60_000;
pub(crate) const ELECTION_TIMEOUT_MS: u64 = 600;

/// Open connections a door holds; further ones wait in the backlog of the system.
pub(crate) const CLIENT_CONNECTIONS_MAX: usize = 16 * 1024;
pub(crate) const PEER_CONNECTIONS_MAX: usize = 512;
pub(crate) const ADMIN_CONNECTIONS_MAX: usize = 128;
/// One address cannot keep the others from the admin door.
pub(crate) const ADMIN_CONNECTIONS_PER_ADDRESS_MAX: usize = 32;
/// Connections the system holds for a door that has not taken them yet.
pub(crate) const ACCEPT_BACKLOG: u32 = 1024;

/// What `--sessions-per-second` and `--sessions-burst` may be at most.
pub(crate) const SESSIONS_PER_SECOND_MAX: u32 = 100_000;
pub(crate) const SESSIONS_BURST_MAX: u32 = 1_000_000;

/// Pauses after an accept that failed for want of something (files, memory), doubling from the first to the second.
pub(crate) const ACCEPT_PAUSE_MIN: Duration = Duration::from_millis(5);
pub(crate) const ACCEPT_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A connection must say within this time that it speaks HTTP/2, or, between members, what stream it is for.
pub(crate) const CONNECTION_OPENING_MAX: Duration = Duration::from_secs(10);

/// A silent connection is asked after this long, then every interval, and given up after this many silent answers.
pub(crate) const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
pub(crate) const KEEPALIVE_PROBES: u32 = 3;

/// The admin door reads no bodies; a head may be this large, hold this many fields, and take this long to arrive.
pub(crate) const ADMIN_HEAD_BYTES_MAX: usize = 16 * 1024;
pub(crate) const ADMIN_HEADERS_MAX: usize = 64;
pub(crate) const ADMIN_HEAD_READ_MAX: Duration = Duration::from_secs(5);
/// After this long a connection of the admin door answers what it has begun and closes; after the grace it is cut.
pub(crate) const ADMIN_CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
pub(crate) const ADMIN_CLOSE_GRACE: Duration = Duration::from_secs(5);
/// Sessions on one page of `/api/v1/sessions`.
pub(crate) const ADMIN_SESSIONS_PAGE_MAX: usize = 1_000;

/// Spans that wait for the exporter; further ones are dropped and counted by the exporter.
pub(crate) const TRACE_SPANS_QUEUED_MAX: usize = 4_096;
/// How long the end of the process waits for the exporter.
pub(crate) const TELEMETRY_FLUSH_MAX: Duration = Duration::from_secs(2);

const _: () = {
    assert!(FRAME_BYTES_MAX > 2 * quorate_tree::Limits::DEFAULT.node_bytes_max, "a node must fit into a frame");
    assert!(REPLY_BYTES_MAX > 2 * quorate_tree::Limits::DEFAULT.node_bytes_max, "a node must fit into an answer");
    assert!(OUTBOX_BYTES_MAX >= 2 * REPLY_BYTES_MAX, "reads go on while half of the outbox is free");
    assert!(
        OUTBOX_EVENTS_MAX > 4 * quorate_tree::Limits::DEFAULT.multi_ops_max,
        "two events of an operation, and twice"
    );
    assert!(WAITING_BYTES_MAX >= 8 * OUTBOX_BYTES_MAX, "a few slow clients are no crowd");
    assert!(SESSION_INFLIGHT_MAX <= quorate_tree::Limits::DEFAULT.session_outcomes_max);
    assert!(SESSION_INFLIGHT_MAX + FRAME_BYTES_MAX / 1024 <= MEMBER_INFLIGHT_MAX, "what comes at once has permits");
    assert!(WATCHES_PER_SESSION_MAX <= WATCHES_MAX);
    assert!(WATCHED_PATH_BYTES_PER_SESSION_MAX <= WATCHED_PATH_BYTES_MAX);
    assert!(VOTERS_MAX % 2 == 1, "an even number of voters survives no more than one fewer");
    assert!(TICK_MS_MIN <= TICK_MS && TICK_MS <= TICK_MS_MAX);
    assert!(ELECTION_TIMEOUT_MS_MIN <= ELECTION_TIMEOUT_MS && ELECTION_TIMEOUT_MS <= ELECTION_TIMEOUT_MS_MAX);
    assert!(SESSION_TICKS_MIN < SESSION_TICKS_MAX);
    assert!(ELECTION_TIMEOUT_MS < SESSION_TICKS_MIN * TICK_MS, "a session must outlive the choice of a new leader");
    assert!(SESSION_TIMEOUT_MS_MAX <= i32::MAX as u64, "session timeouts travel as 32-bit milliseconds");
    assert!(SESSION_TICKS_MAX * TICK_MS_MAX <= SESSION_TIMEOUT_MS_MAX);
    assert!(ADMIN_CONNECTIONS_PER_ADDRESS_MAX < ADMIN_CONNECTIONS_MAX);
    assert!(ADMIN_HEAD_READ_MAX.as_millis() < ADMIN_CONNECTION_AGE_MAX.as_millis());
    assert!(ACCEPT_PAUSE_MIN.as_millis() < ACCEPT_PAUSE_MAX.as_millis());
};
