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
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use quorate_tree::{SessionId, Zxid};
use quorate_wire::OpCode;

use crate::clock::Clock;

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
    pub(super) latency: Latency,
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
    pub(super) latency: Latency,
}

/// From a request to its answer, in microseconds.
#[derive(Debug)]
pub(super) struct Latency {
    last: AtomicU64,
    min: AtomicU64,
    max: AtomicU64,
    sum: AtomicU64,
    count: AtomicU64,
}

/// A connection's place in the registry, given up when it is dropped.
#[derive(Debug)]
pub(super) struct Entry {
    id: u64,
    stats: Arc<ConnectionStats>,
    server: Arc<Totals>,
    open: Arc<Mutex<Open>>,
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
            latency: Latency::default(),
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
        }
    }

    /// Forgets what the server did.
    pub(super) fn reset(&self) {
        self.server.received.store(0, Relaxed);
        self.server.sent.store(0, Relaxed);
        self.server.latency.reset();
    }
}

impl Entry {
    pub(super) fn attached(&self, session: SessionId, timeout_ms: u32, zxid: Zxid) {
        self.stats.session.store(session.0, Relaxed);
        self.stats.timeout_ms.store(timeout_ms, Relaxed);
        self.stats.last_zxid.store(zxid.0 as i64, Relaxed);
    }

    pub(super) fn received(&self, frames: u64) {
        self.stats.received.fetch_add(frames, Relaxed);
        self.server.received.fetch_add(frames, Relaxed);
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

    pub(super) fn took(&self, batch: &Batch) {
        self.stats.latency.add(batch);
        self.server.latency.add(batch);
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

/// The latencies of a batch of answers, put into the shared numbers at once.
#[derive(Debug)]
pub(super) struct Batch {
    last: u64,
    min: u64,
    max: u64,
    sum: u64,
    count: u64,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self { last: 0, min: u64::MAX, max: 0, sum: 0, count: 0 }
    }

    pub(super) fn add(&mut self, asked: Instant, now: Instant) {
        let us = u64::try_from(now.duration_since(asked).as_micros()).unwrap_or(u64::MAX);
        self.last = us;
        self.min = self.min.min(us);
        self.max = self.max.max(us);
        self.sum += us;
        self.count += 1;
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            last: AtomicU64::new(0),
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }
}

impl Latency {
    fn add(&self, batch: &Batch) {
        if batch.count == 0 {
            return;
        }
        self.last.store(batch.last, Relaxed);
        self.min.fetch_min(batch.min, Relaxed);
        self.max.fetch_max(batch.max, Relaxed);
        self.sum.fetch_add(batch.sum, Relaxed);
        self.count.fetch_add(batch.count, Relaxed);
    }

    fn reset(&self) {
        self.last.store(0, Relaxed);
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
        self.sum.store(0, Relaxed);
        self.count.store(0, Relaxed);
    }

    pub(super) fn last(&self) -> Duration {
        Duration::from_micros(self.last.load(Relaxed))
    }

    pub(super) fn min(&self) -> Duration {
        match self.min.load(Relaxed) {
            u64::MAX => Duration::ZERO,
            us => Duration::from_micros(us),
        }
    }

    pub(super) fn max(&self) -> Duration {
        Duration::from_micros(self.max.load(Relaxed))
    }

    /// In milliseconds.
    pub(super) fn average_ms(&self) -> f64 {
        match self.count.load(Relaxed) {
            0 => 0.0,
            count => self.sum.load(Relaxed) as f64 / count as f64 / 1000.0,
        }
    }
}
