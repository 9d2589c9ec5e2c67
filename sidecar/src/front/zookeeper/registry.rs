//! The connections of this door and what they have done, for those who look.
//!
//! Each connection's task writes its own numbers, in batches; whoever looks reads them as they are.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use quorate_tree::{SessionId, Zxid};
use quorate_wire::OpCode;

use crate::{
    clock::Clock,
    telemetry::metrics::{Figures, Summary, Tally},
};

/// All connections, and what those did that have gone.
#[derive(Debug, Default)]
pub(super) struct Registry {
    open: Arc<Mutex<Open>>,
    server: Arc<Totals>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: BTreeMap<u64, Arc<ConnectionStats>>,
}

/// What all connections did since the start, or since it was reset.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    /// From a request to its answer, in microseconds, of those that only read and of the others.
    pub(super) reads: Summary,
    pub(super) updates: Summary,
    pub(super) bytes_received: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    /// Of the bytes sent, those of events.
    pub(super) event_bytes: AtomicU64,
    pub(super) answer_bytes: Summary,
    pub(super) last_answer_bytes: AtomicU64,
    /// Handshakes, and those of them that resume a session.
    pub(super) handshakes: AtomicU64,
    pub(super) resumptions: AtomicU64,
    /// Connections whose clients went without closing their sessions.
    pub(super) lost: AtomicU64,
    /// Connections that never said who they are.
    pub(super) silent: AtomicU64,
    pub(super) wrong_credentials: AtomicU64,
}

/// What one connection did.
#[derive(Debug)]
pub(super) struct ConnectionStats {
    pub(super) peer: SocketAddr,
    pub(super) since_ms: i64,
    /// 0 before the handshake.
    pub(super) session: AtomicU64,
    pub(super) timeout_ms: AtomicU32,
    pub(super) received: AtomicU64,
    pub(super) sent: AtomicU64,
    /// Requests that wait for their answer.
    pub(super) outstanding: AtomicUsize,
    /// The code of the last operation that was answered; 0 for none.
    pub(super) last_op: AtomicI32,
    pub(super) last_xid: AtomicI32,
    pub(super) last_zxid: AtomicI64,
    pub(super) last_answer_ms: AtomicI64,
    /// From a request to its answer, in microseconds.
    pub(super) latency: Summary,
    pub(super) last_latency_us: AtomicU64,
}

/// A connection's place in the registry, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    id: u64,
    stats: Arc<ConnectionStats>,
    server: Arc<Totals>,
    open: Arc<Mutex<Open>>,
}

impl Totals {
    /// From a request to its answer, in microseconds.
    pub(super) fn latency(&self) -> Figures {
        self.reads.figures().and(self.updates.figures())
    }
}

impl Registry {
    pub(super) fn enter(&self, peer: SocketAddr) -> Entry {
        let stats = Arc::new(ConnectionStats {
            peer,
            since_ms: Clock::wall_ms(),
            session: AtomicU64::new(0),
            timeout_ms: AtomicU32::new(0),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            outstanding: AtomicUsize::new(0),
            last_op: AtomicI32::new(0),
            last_xid: AtomicI32::new(0),
            last_zxid: AtomicI64::new(0),
            last_answer_ms: AtomicI64::new(0),
            latency: Summary::small(),
            last_latency_us: AtomicU64::new(0),
        });
        let mut open = self.open.lock();
        let id = open.next;
        open.next += 1;
        open.connections.insert(id, stats.clone());
        Entry { id, stats, server: self.server.clone(), open: self.open.clone() }
    }

    /// Every open connection, the oldest first.
    pub(super) fn connections(&self) -> Vec<Arc<ConnectionStats>> {
        self.open.lock().connections.values().cloned().collect()
    }

    pub(super) fn count(&self) -> usize {
        self.open.lock().connections.len()
    }

    /// Requests of all connections that wait for their answer.
    pub(super) fn outstanding(&self) -> usize {
        self.open.lock().connections.values().map(|connection| connection.outstanding.load(Relaxed)).sum()
    }

    pub(super) fn totals(&self) -> &Totals {
        &self.server
    }

    /// Forgets what the open connections did.
    pub(super) fn reset_connections(&self) {
        for connection in self.connections() {
            connection.received.store(0, Relaxed);
            connection.sent.store(0, Relaxed);
            connection.latency.reset();
            connection.last_latency_us.store(0, Relaxed);
        }
    }

    /// Forgets what the server did.
    pub(super) fn reset(&self) {
        let totals = &*self.server;
        for count in [
            &totals.received,
            &totals.sent,
            &totals.bytes_received,
            &totals.bytes_sent,
            &totals.event_bytes,
            &totals.last_answer_bytes,
            &totals.handshakes,
            &totals.resumptions,
            &totals.lost,
            &totals.silent,
            &totals.wrong_credentials,
        ] {
            count.store(0, Relaxed);
        }
        [&totals.reads, &totals.updates, &totals.answer_bytes].into_iter().for_each(Summary::reset);
    }
}

impl Entry {
    pub(super) fn attached(&self, session: SessionId, timeout_ms: u32, zxid: Zxid) {
        self.stats.session.store(session.0, Relaxed);
        self.stats.timeout_ms.store(timeout_ms, Relaxed);
        self.stats.last_zxid.store(zxid.0 as i64, Relaxed);
    }

    pub(super) fn received(&self, frames: u64, bytes: u64) {
        self.stats.received.fetch_add(frames, Relaxed);
        self.server.received.fetch_add(frames, Relaxed);
        self.server.bytes_received.fetch_add(bytes, Relaxed);
    }

    pub(super) fn sent_bytes(&self, bytes: u64) {
        self.server.bytes_sent.fetch_add(bytes, Relaxed);
    }

    /// A client asks for a session: a new one, or the one it had.
    pub(super) fn shook_hands(&self, resumes: bool) {
        self.server.handshakes.fetch_add(1, Relaxed);
        self.server.resumptions.fetch_add(resumes.into(), Relaxed);
    }

    pub(super) fn lost(&self) {
        self.server.lost.fetch_add(1, Relaxed);
    }

    pub(super) fn silent(&self) {
        self.server.silent.fetch_add(1, Relaxed);
    }

    pub(super) fn wrong_credential(&self) {
        self.server.wrong_credentials.fetch_add(1, Relaxed);
    }

    pub(super) fn sent(&self, frames: u64) {
        self.stats.sent.fetch_add(frames, Relaxed);
        self.server.sent.fetch_add(frames, Relaxed);
    }

    pub(super) fn outstanding(&self, requests: usize) {
        self.stats.outstanding.store(requests, Relaxed);
    }

    /// Of the last answer of a batch.
    pub(super) fn answered(&self, op: Option<OpCode>, xid: i32, zxid: Zxid) {
        self.stats.last_op.store(op.map_or(0, OpCode::code), Relaxed);
        self.stats.last_xid.store(xid, Relaxed);
        self.stats.last_zxid.store(zxid.0 as i64, Relaxed);
        self.stats.last_answer_ms.store(Clock::wall_ms(), Relaxed);
    }

    /// What is sent from here on, to be put into the shared numbers at once.
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch {
            stats: &self.stats,
            totals: &self.server,
            reads: Tally::default(),
            updates: Tally::default(),
            answer_bytes: Tally::default(),
            last_us: None,
            last_answer_bytes: None,
            event_bytes: 0,
        }
    }

    pub(super) fn last_zxid(&self) -> i64 {
        self.stats.last_zxid.load(Relaxed)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.open.lock().connections.remove(&self.id);
    }
}

/// What is sent at once.
pub(super) struct Batch<'a> {
    stats: &'a ConnectionStats,
    totals: &'a Totals,
    reads: Tally,
    updates: Tally,
    answer_bytes: Tally,
    last_us: Option<u64>,
    last_answer_bytes: Option<u64>,
    event_bytes: u64,
}

impl Batch<'_> {
    /// An answer, and how long it took if it was waited for.
    pub(super) fn answer(&mut self, op: Option<OpCode>, took: Option<Duration>, bytes: usize) {
        self.last_answer_bytes = Some(bytes as u64);
        self.answer_bytes.add(bytes as u64, &self.totals.answer_bytes);
        let Some(took) = took else { return };
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.last_us = Some(us);
        if op.is_some_and(OpCode::writes) {
            self.updates.add(us, &self.totals.updates);
        } else {
            self.reads.add(us, &self.totals.reads);
        }
    }

    pub(super) fn event(&mut self, bytes: usize) {
        self.event_bytes += bytes as u64;
    }

    /// The batch is whole.
    pub(super) fn record(self) {
        let Self { stats, totals, .. } = self;
        stats.latency.add(&self.reads);
        stats.latency.add(&self.updates);
        if let Some(us) = self.last_us {
            stats.last_latency_us.store(us, Relaxed);
        }
        totals.reads.add(&self.reads);
        totals.updates.add(&self.updates);
        totals.answer_bytes.add(&self.answer_bytes);
        if let Some(bytes) = self.last_answer_bytes {
            totals.last_answer_bytes.store(bytes, Relaxed);
        }
        totals.event_bytes.fetch_add(self.event_bytes, Relaxed);
    }
}
