//! What the handles of a log and its writer share: the state in memory, and the queue between them.
//!
//! The state in memory is ahead of the disk by exactly what is queued: both change under one lock, so the order of
//! the requests is the order of their effects. The lock is never held across IO or an await.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io, mem,
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::{
    EntryId, LogEntry, LogFailure,
    cache::Cache,
    ledger::{Ledger, Spot},
};
use crate::storage::data_dir::DirLock;

/// What a queued request costs beyond its payloads.
const REQUEST_OVERHEAD_BYTES: usize = 64;

pub(super) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

pub(super) struct Shared {
    pub(super) inner: Mutex<Inner>,
    wake: Condvar,
    /// Bytes that may still be queued. When they are used up, requests wait for their turn.
    room: Arc<Semaphore>,
    room_bytes: u32,
    failure: watch::Sender<Option<LogFailure>>,
    ended: watch::Sender<bool>,
}

pub(super) struct Inner {
    pub(super) ledger: Ledger,
    pub(super) cache: Cache,
    /// By sequence number.
    pub(super) files: BTreeMap<u32, Arc<File>>,
    /// Bounded by the room each request holds.
    pub(super) queue: VecDeque<Queued>,
    pub(super) next_ticket: u32,
    /// Set once; whoever comes later gets it.
    refuses: Option<LogFailure>,
    stop: Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Not yet.
    Running,
    /// Once all that is queued is flushed.
    Drained,
    /// At once: what is queued is dropped.
    Now,
}

/// A request on its way to the writer.
pub(super) struct Queued {
    pub(super) request: Request,
    pub(super) waiting: Waiting,
}

pub(super) enum Request {
    /// The entries have consecutive tickets from `ticket` on.
    Append {
        entries: Vec<LogEntry>,
        ticket: u32,
    },
    Vote(Bytes),
    Truncate {
        keep: Option<EntryId>,
    },
    Purge {
        upto: EntryId,
    },
    /// Writes nothing: whoever waits sees that its turn came.
    Nothing,
}

/// Whoever waits for a request, with the room it takes up. Told exactly once, even if it is just dropped.
pub(super) struct Waiting {
    done: Option<Done>,
    _room: OwnedSemaphorePermit,
}

impl Waiting {
    pub(super) fn new(done: Option<Done>, room: OwnedSemaphorePermit) -> Self {
        Self { done, _room: room }
    }

    pub(super) fn complete(mut self, result: io::Result<()>) {
        if let Some(done) = self.done.take() {
            done(result);
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            done(Err(LogFailure::Closed.into()));
        }
    }
}

impl Shared {
    pub(super) fn new(ledger: Ledger, cache: Cache, files: BTreeMap<u32, Arc<File>>, room_bytes: u32) -> Self {
        let inner =
            Inner { ledger, cache, files, queue: VecDeque::new(), next_ticket: 0, refuses: None, stop: Stop::Running };
        Self {
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            room: Arc::new(Semaphore::new(room_bytes as usize)),
            room_bytes,
            failure: watch::channel(None).0,
            ended: watch::channel(false).0,
        }
    }

    /// Waits until so many bytes may be queued. What is larger than the whole queue waits until it is empty.
    pub(super) async fn room(&self, payload_bytes: usize) -> OwnedSemaphorePermit {
        let bytes = payload_bytes.saturating_add(REQUEST_OVERHEAD_BYTES);
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(self.room_bytes);
        self.room.clone().acquire_many_owned(bytes).await.expect("the semaphore is never closed")
    }

    /// Changes the state in memory and queues what makes it last: `change` does the first and returns the second, or
    /// nothing if nothing is to be done. If it refuses, nobody is told but the caller. Once the log takes nothing any
    /// more, `waiting` is told why.
    pub(super) fn request<E>(
        &self,
        mut waiting: Waiting,
        change: impl FnOnce(&mut Inner) -> Result<Option<Request>, E>,
    ) -> Result<(), E> {
        let mut inner = self.inner.lock();
        if let Some(failure) = inner.refuses.clone() {
            drop(inner);
            waiting.complete(Err(failure.into()));
            return Ok(());
        }
        let request = match change(&mut inner) {
            Ok(request) => request,
            Err(refused) => {
                waiting.done = None;
                return Err(refused);
            }
        };
        let Some(request) = request else {
            drop(inner);
            waiting.complete(Ok(()));
            return Ok(());
        };
        inner.queue.push_back(Queued { request, waiting });
        drop(inner);
        self.wake.notify_one();
        Ok(())
    }

    /// All that is queued, once something is; `None` when the writer is to end.
    pub(super) fn wait_for_requests(&self) -> Option<VecDeque<Queued>> {
        let mut inner = self.inner.lock();
        loop {
            match inner.stop {
                Stop::Now => return None,
                _ if !inner.queue.is_empty() => return Some(mem::take(&mut inner.queue)),
                Stop::Drained => return None,
                Stop::Running => self.wake.wait(&mut inner),
            }
        }
    }

    /// Takes nothing any more, and ends the writer.
    pub(super) fn stop(&self, stop: Stop) {
        let mut inner = self.inner.lock();
        inner.refuses.get_or_insert(LogFailure::Closed);
        if inner.stop != Stop::Now {
            inner.stop = stop;
        }
        drop(inner);
        self.wake.notify_one();
    }

    /// Tells `affected`, all that is queued and all who come later that the log has failed.
    pub(super) fn fail(&self, failure: LogFailure, affected: impl Iterator<Item = Waiting>) {
        let queue = {
            let mut inner = self.inner.lock();
            inner.refuses = Some(failure.clone());
            mem::take(&mut inner.queue)
        };
        tracing::error!(%failure, error = ?failure, "the log takes nothing any more");
        self.failure.send_replace(Some(failure.clone()));
        for waiting in affected.chain(queue.into_iter().map(|queued| queued.waiting)) {
            waiting.complete(Err(failure.clone().into()));
        }
    }

    pub(super) async fn failed(&self) -> LogFailure {
        let mut failure = self.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await.expect("the sender lives as long as self");
        failed.clone().expect("waited for")
    }

    pub(super) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        ended.wait_for(|&ended| ended).await.expect("the sender lives as long as self");
    }
}

impl Inner {
    pub(super) fn shrink_cache(&mut self) {
        let ledger = &self.ledger;
        self.cache.shrink(|index| matches!(ledger.spot(index), Some(Spot::Written { .. })));
    }
}

/// Held by the writer's thread; its drop is the last that the thread does, also when it panics.
pub(super) struct EndOfThread {
    pub(super) shared: Arc<Shared>,
    /// Nobody else opens the directory as long as this thread may write.
    pub(super) lock: Option<DirLock>,
}

impl Drop for EndOfThread {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.fail(LogFailure::Panicked, std::iter::empty());
        }
        let dropped = {
            let mut inner = self.shared.inner.lock();
            inner.refuses.get_or_insert(LogFailure::Closed);
            mem::take(&mut inner.queue)
        };
        // Tells them that the log is closed.
        drop(dropped);
        self.lock = None;
        self.shared.ended.send_replace(true);
    }
}
