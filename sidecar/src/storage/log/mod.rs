//! The log of one member: entries, the vote, truncations and purges, in one order, on disk.
//!
//! Vote and entries share one order because an entry flushed before the vote that allowed it would be a lie after a
//! crash. Handles change the state in memory and queue what makes it last; one thread writes (see `writer`), tells
//! whoever waits, and is the only one that touches the disk, but for reads of entries that are no longer in memory.
//! What is on disk and how damage is found: `block`, `segment`, `record`, `recover`.
//!
//! Bounds: `queue_bytes` of requests wait to be written, then their senders wait; `cache_bytes` of the last entries
//! are in memory, besides what is queued; 16 bytes of index an entry. Task: the thread `quorate-log`, which ends with
//! [`Log::close`], the drop of the last handle, or a failure.

mod block;
mod cache;
mod error;
mod ledger;
mod read;
mod record;
mod recover;
mod segment;
mod shared;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fmt, fs, io,
    ops::Range,
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};

use bytes::Bytes;

pub(crate) use self::error::{LogError, LogFailure, OpenError};
use self::{
    cache::Cache,
    ledger::{Ledger, Spot},
    read::Plan,
    record::Checkpoint,
    recover::Recovered,
    segment::{SEGMENT_HEAD_BYTES, Segment, SegmentHead},
    shared::{EndOfThread, Request, Shared, Stop, Waiting},
    writer::Writer,
};
use super::{data_dir::DirLock, durable};

/// Larger payloads are refused.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;
/// Smaller segments would hold nothing but what every segment begins and ends with.
const SEGMENT_BYTES_MIN: u32 = 256;

/// A handle of an open log. When the last one is dropped, the log is abandoned.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    _last: Arc<LastHandle>,
}

/// An entry's place in the log, and the term of the leader that put it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryId {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// An entry. The log does not know what its payload means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) id: EntryId,
    pub(crate) payload: Bytes,
}

/// What the log holds, what is queued included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LogState {
    pub(crate) vote: Option<Bytes>,
    /// The last purged entry.
    pub(crate) purged: Option<EntryId>,
    /// The last entry, or the last purged one if there is none.
    pub(crate) last: Option<EntryId>,
}

/// One flush, for metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlushReport {
    /// Of write and flush together.
    pub(crate) duration: Duration,
    pub(crate) bytes: usize,
}

/// Called by the log's thread after each flush; must not block.
pub(crate) type FlushObserver = Arc<dyn Fn(FlushReport) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct LogOptions {
    /// The size of a segment. One entry that is larger gets a segment of its own.
    pub(crate) segment_bytes: u32,
    pub(crate) cache_bytes: usize,
    pub(crate) queue_bytes: u32,
    /// Whether what is acknowledged survives a power loss. Without it, only a killed process.
    pub(crate) sync: bool,
    pub(crate) on_flush: Option<FlushObserver>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self { segment_bytes: 16 << 20, cache_bytes: 8 << 20, queue_bytes: 8 << 20, sync: true, on_flush: None }
    }
}

struct LastHandle(Arc<Shared>);

impl Drop for LastHandle {
    fn drop(&mut self) {
        self.0.stop(Stop::Now);
    }
}

impl Log {
    /// Opens the log with `log_id` in `dir`, made when missing. The log keeps `lock` until its thread has ended. Blocks
    /// on the disk, as long as reading the log takes.
    pub(super) fn open(dir: &Path, log_id: u64, lock: Option<DirLock>, options: LogOptions) -> Result<Self, OpenError> {
        let failed = |action| move |source| OpenError::Io { action, path: dir.to_owned(), source };
        if !dir.is_dir() {
            fs::create_dir(dir).map_err(failed("making"))?;
            if options.sync {
                durable::sync_dir(durable::parent(dir)).map_err(failed("syncing the parent of"))?;
            }
        }
        let recovered = match recover::recover(dir, log_id, options.sync)? {
            Some(recovered) => recovered,
            None => begin(dir, log_id, &options).map_err(failed("making a segment in"))?,
        };
        let Recovered { ledger, checkpoint, segments, offset, next_batch } = recovered;

        let cache = Cache::new(options.cache_bytes);
        let files = segments.iter().map(|segment| (segment.head.sequence, segment.file.clone()));
        let shared = Arc::new(Shared::new(ledger, cache, files.collect::<BTreeMap<_, _>>(), options.queue_bytes));
        let log = Self { _last: Arc::new(LastHandle(shared.clone())), shared: shared.clone() };
        log.warm_up(options.cache_bytes as u64).map_err(failed("reading the last entries in"))?;

        let writer = Writer {
            shared: shared.clone(),
            dir: dir.to_owned(),
            log_id,
            options,
            segments,
            offset,
            next_batch,
            checkpoint,
            batch: Vec::new(),
            placed: Vec::new(),
            waiting: Vec::new(),
        };
        let end = EndOfThread { shared, lock };
        let thread = thread::Builder::new().name("quorate-log".to_owned());
        let run = move || {
            // Outlives the writer, and says that it has ended.
            let _end = end;
            writer.run();
        };
        thread.spawn(run).map_err(failed("starting the thread that writes"))?;
        Ok(log)
    }

    /// Takes the last entries into memory.
    fn warm_up(&self, bytes_max: u64) -> io::Result<()> {
        let plan = {
            let inner = self.shared.inner.lock();
            let ledger = &inner.ledger;
            let next = ledger.next_index();
            let mut first = next;
            while first > ledger.first_index() && ledger.bytes_after((first - 1).checked_sub(1)) <= bytes_max {
                first -= 1;
            }
            Plan::new(&inner, first..next, usize::MAX)
        };
        let entries = plan.read()?;
        let mut inner = self.shared.inner.lock();
        for entry in entries {
            // Copied, so that it does not hold on to what it was read with.
            inner.cache.push(entry.id.index, Bytes::copy_from_slice(&entry.payload));
        }
        inner.shrink_cache();
        Ok(())
    }

    /// Appends entries: readable when this returns, on disk when `done` is called. Waits while the queue is full. A
    /// refused append changes nothing and does not call `done`; otherwise `done` is called exactly once, in the order of
    /// the requests, by the log's thread, and must not block.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, nothing was appended.
    pub(crate) async fn append(
        &self,
        entries: Vec<LogEntry>,
        done: impl FnOnce(io::Result<()>) + Send + 'static,
    ) -> Result<(), LogError> {
        for LogEntry { id, payload } in &entries {
            let bytes = payload.len();
            if bytes > PAYLOAD_BYTES_MAX {
                return Err(LogError::TooLarge { index: id.index, bytes, bytes_max: PAYLOAD_BYTES_MAX });
            }
        }
        let bytes = entries.iter().map(|entry| entry.payload.len() + record::ENTRY_HEAD_BYTES).sum();
        let waiting = Waiting::new(Some(Box::new(done)), self.shared.room(bytes).await);
        self.shared.request(waiting, |inner| {
            inner.ledger.check(&entries)?;
            let ticket = inner.next_ticket;
            for LogEntry { id, payload } in &entries {
                let queued = Spot::Queued(inner.next_ticket);
                inner.next_ticket = inner.next_ticket.wrapping_add(1);
                inner.ledger.append(*id, payload.len() as u32, queued)?;
                inner.cache.push(id.index, payload.clone());
            }
            inner.shrink_cache();
            Ok(Some(Request::Append { entries, ticket }))
        })
    }

    /// Replaces the vote: on disk, and all that was asked for before it, when `done` is called (see [`Log::append`]).
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the vote is as it was.
    pub(crate) async fn save_vote(&self, vote: Bytes, done: impl FnOnce(io::Result<()>) + Send + 'static) {
        let waiting = Waiting::new(Some(Box::new(done)), self.shared.room(vote.len()).await);
        let Ok(()) = self.shared.request::<Infallible>(waiting, |inner| {
            inner.ledger.set_vote(vote.clone());
            Ok(Some(Request::Vote(vote)))
        });
    }

    /// Removes the entries after `keep`, all if there is none. It is on disk before anything that is asked for later.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, nothing was removed.
    pub(crate) async fn truncate_after(&self, keep: Option<u64>) -> Result<(), LogError> {
        let waiting = Waiting::new(None, self.shared.room(0).await);
        self.shared.request(waiting, |inner| {
            let keep = inner.ledger.truncation(keep)?;
            if inner.ledger.last() == keep {
                return Ok(None);
            }
            inner.ledger.truncate_after(keep);
            inner.cache.truncate(keep.map_or(0, |keep| keep.index + 1));
            Ok(Some(Request::Truncate { keep }))
        })
    }

    /// Removes the entries up to `upto`, which may lie beyond the last. Their segments go once that is on disk.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, nothing was removed.
    pub(crate) async fn purge(&self, upto: EntryId) {
        let waiting = Waiting::new(None, self.shared.room(0).await);
        let Ok(()) = self.shared.request::<Infallible>(waiting, |inner| {
            if inner.ledger.purged().is_some_and(|purged| purged.index >= upto.index) {
                return Ok(None);
            }
            inner.ledger.purge(upto);
            inner.cache.purge(upto.index + 1);
            Ok(Some(Request::Purge { upto }))
        });
    }

    /// Resolves when the writer has done all that was asked of it before; never, once it does nothing any more.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub(crate) async fn sign_of_life(&self) {
        let (done, answer) = tokio::sync::oneshot::channel();
        // Whoever stopped waiting does not need to know.
        let done: shared::Done = Box::new(|result| _ = done.send(result));
        let waiting = Waiting::new(Some(done), self.shared.room(0).await);
        let Ok(()) = self.shared.request::<Infallible>(waiting, |_inner| Ok(Some(Request::Nothing)));
        if !matches!(answer.await, Ok(Ok(()))) {
            std::future::pending().await
        }
    }

    /// The entries of `range` that there are, in order: at most `bytes_max` of payload, but at least one.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub(crate) async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<LogEntry>> {
        let plan = Plan::new(&self.shared.inner.lock(), range, bytes_max);
        if !plan.needs_disk() {
            return plan.read();
        }
        tokio::task::spawn_blocking(|| plan.read()).await.map_err(io::Error::other)?
    }

    pub(crate) fn state(&self) -> LogState {
        let inner = self.shared.inner.lock();
        let ledger = &inner.ledger;
        LogState { vote: ledger.vote().cloned(), purged: ledger.purged(), last: ledger.last() }
    }

    /// The term of an entry, or of the one that was purged last.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        self.shared.inner.lock().ledger.term(index)
    }

    /// Payload bytes of all entries after `index`.
    pub(crate) fn bytes_after(&self, index: Option<u64>) -> u64 {
        self.shared.inner.lock().ledger.bytes_after(index)
    }

    /// Waits until the log has failed: then this process must end.
    ///
    /// # Cancel safety
    ///
    /// Changes nothing.
    pub(crate) async fn failed(&self) -> LogFailure {
        self.shared.failed().await
    }

    /// Flushes what is queued, takes nothing more, and waits until the thread has ended.
    ///
    /// # Cancel safety
    ///
    /// Goes on to close when cancelled.
    pub(crate) async fn close(&self) {
        self.shared.stop(Stop::Drained);
        self.shared.ended().await;
    }

    /// Drops what is queued, as if the process had been killed, and waits until the thread has ended.
    ///
    /// # Cancel safety
    ///
    /// Goes on to end when cancelled.
    #[cfg(test)]
    pub(crate) async fn abandon(&self) {
        self.shared.stop(Stop::Now);
        self.shared.ended().await;
    }
}

/// Makes a new, empty log.
fn begin(dir: &Path, log_id: u64, options: &LogOptions) -> io::Result<Recovered> {
    let head = SegmentHead {
        sequence: 1,
        log_id,
        salt: rand::random(),
        first_index: 0,
        first_batch: 1,
        segment_bytes: options.segment_bytes.max(SEGMENT_BYTES_MIN),
    };
    let segment = Segment::create(dir, head, options.sync)?;
    Ok(Recovered {
        ledger: Ledger::default(),
        checkpoint: Checkpoint::default(),
        segments: VecDeque::from([segment]),
        offset: SEGMENT_HEAD_BYTES,
        next_batch: 1,
    })
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("state", &self.state()).finish_non_exhaustive()
    }
}
