//! The thread that writes the log, and the only one that does.
//!
//! It takes all that waits, writes it as one batch, flushes once, and completes the callbacks in the order of the
//! requests: whatever arrives while a flush is in the air shares the next one, and nobody waits for a timer. The first
//! failure ends it for ever (see [`LogFailure`]).

use std::{collections::VecDeque, io, os::unix::fs::FileExt, path::PathBuf, sync::Arc, time::Instant};

use fail::fail_point;

use super::{
    FlushReport, LogFailure, LogOptions, SEGMENT_BYTES_MIN,
    block::{BATCH_HEAD_BYTES, BatchHead, MARK_BYTES, Mark, Place},
    record::{Checkpoint, Record},
    segment::{SEGMENT_HEAD_BYTES, Segment, SegmentHead},
    shared::{Queued, Request, Shared, Waiting},
};

/// A batch that grew to this is written before more goes into it, so that memory and the wait of its first request
/// stay bounded.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Owns the files of the log for writing.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) dir: PathBuf,
    pub(super) log_id: u64,
    pub(super) options: LogOptions,
    /// In order; the last one is written to.
    pub(super) segments: VecDeque<Segment>,
    /// Where the next batch goes.
    pub(super) offset: u32,
    pub(super) next_batch: u64,
    /// What the log says with everything that is in `batch`.
    pub(super) checkpoint: Checkpoint,
    /// The batch in the making, after room for its head.
    pub(super) batch: Vec<u8>,
    /// The entries in `batch`.
    pub(super) placed: Vec<Placed>,
    /// Whom the next flush completes.
    pub(super) waiting: Vec<Waiting>,
}

/// An entry in the batch in the making.
pub(super) struct Placed {
    index: u64,
    ticket: u32,
    offset: u32,
}

impl Writer {
    /// Runs until the log is closed or fails.
    pub(super) fn run(mut self) {
        self.batch.resize(BATCH_HEAD_BYTES, 0);
        self.drop_purged_segments();
        while let Some(mut queue) = self.shared.wait_for_requests() {
            if let Err(failure) = self.write(&mut queue) {
                let rest = queue.drain(..).map(|queued| queued.waiting);
                self.shared.fail(failure, self.waiting.drain(..).chain(rest));
                return;
            }
        }
    }

    /// Writes and flushes all of `queue`. On failure, `queue` and `waiting` hold whoever is to be told.
    fn write(&mut self, queue: &mut VecDeque<Queued>) -> Result<(), LogFailure> {
        while let Some(Queued { request, waiting }) = queue.pop_front() {
            let put = self.put_request(&request);
            self.waiting.push(waiting);
            put?;
        }
        self.flush()
    }

    fn put_request(&mut self, request: &Request) -> Result<(), LogFailure> {
        match request {
            Request::Append { entries, ticket } => {
                let mut ticket = *ticket;
                for entry in entries {
                    let record = Record::Entry { id: entry.id, payload: &entry.payload };
                    self.put(&record)?;
                    let offset = self.offset + (self.batch.len() - record.encoded_bytes()) as u32;
                    self.placed.push(Placed { index: entry.id.index, ticket, offset });
                    ticket = ticket.wrapping_add(1);
                    let segment = self.segments.back_mut().expect("a log has a segment");
                    segment.index_max = segment.index_max.max(Some(entry.id.index));
                }
                Ok(())
            }
            Request::Vote(vote) => self.put(&Record::Vote(vote)),
            Request::Truncate { keep } => self.put(&Record::Truncate { keep: *keep }),
            Request::Purge { upto } => self.put(&Record::Purge { upto: *upto }),
            Request::Nothing => Ok(()),
        }
    }

    /// Adds a record to the batch; before that, flushes a batch that is full and begins a segment where the last one is.
    fn put(&mut self, record: &Record<'_>) -> Result<(), LogFailure> {
        let bytes = record.encoded_bytes();
        let full = self.batch.len() + bytes > BATCH_BYTES_MAX;
        if self.batch.len() > BATCH_HEAD_BYTES && (full || !self.fits(bytes)) {
            self.flush()?;
        }
        if !self.fits(bytes) {
            self.begin_segment(bytes)?;
        }
        if self.opens_segment() {
            self.checkpoint.record().put(&mut self.batch);
        }
        record.put(&mut self.batch);
        self.checkpoint.advance(record);
        Ok(())
    }

    /// The batch is empty and will be the first of its segment.
    fn opens_segment(&self) -> bool {
        self.offset == SEGMENT_HEAD_BYTES && self.batch.len() == BATCH_HEAD_BYTES
    }

    fn fits(&self, record_bytes: usize) -> bool {
        let checkpoint = if self.opens_segment() { self.checkpoint.record().encoded_bytes() } else { 0 };
        // A mark, and the seal that says that the log goes on elsewhere.
        let after = 2 * MARK_BYTES;
        let end = self.offset as usize + self.batch.len() + checkpoint + record_bytes + after;
        end <= self.current().head.segment_bytes as usize
    }

    fn current(&self) -> &Segment {
        self.segments.back().expect("a log has a segment")
    }

    /// Goes on in a new segment that has room for a record of so many bytes. All before it is flushed.
    fn begin_segment(&mut self, record_bytes: usize) -> Result<(), LogFailure> {
        let needed = SEGMENT_HEAD_BYTES as usize
            + BATCH_HEAD_BYTES
            + self.checkpoint.record().encoded_bytes()
            + record_bytes
            + 2 * MARK_BYTES;
        let needed = u32::try_from(needed).expect("records have a bound");
        let head = SegmentHead {
            sequence: self.current().head.sequence.checked_add(1).expect("no disk has room for so many segments"),
            log_id: self.log_id,
            salt: rand::random(),
            first_index: self.checkpoint.last.map_or(0, |last| last.index + 1),
            first_batch: self.next_batch,
            segment_bytes: self.options.segment_bytes.max(SEGMENT_BYTES_MIN).max(needed),
        };
        let segment = Segment::create(&self.dir, head, self.options.sync)
            .map_err(|error| LogFailure::io("making a segment in", &self.dir, error))?;

        // From here on, losing the new segment would be noticed.
        let full = self.current();
        let place = Place { salt: full.head.salt, offset: self.offset };
        let seal = || {
            full.file.write_all_at(&Mark::Sealed(self.next_batch - 1).encode(place), u64::from(self.offset))?;
            if self.options.sync { full.file.sync_data() } else { Ok(()) }
        };
        seal().map_err(|error| LogFailure::io("sealing", &full.path, error))?;

        self.shared.inner.lock().files.insert(segment.head.sequence, segment.file.clone());
        self.segments.push_back(segment);
        self.offset = SEGMENT_HEAD_BYTES;
        Ok(())
    }

    /// Writes the batch, flushes it, marks it, and completes all who wait.
    fn flush(&mut self) -> Result<(), LogFailure> {
        if self.batch.len() > BATCH_HEAD_BYTES {
            let report = self.flush_batch().map_err(|error| LogFailure::io("writing", &self.current().path, error))?;
            if let Some(on_flush) = &self.options.on_flush {
                on_flush(report);
            }
            self.next_batch += 1;
            self.offset += self.batch.len() as u32 + MARK_BYTES as u32;
            self.publish();
            if self.batch.capacity() > 2 * BATCH_BYTES_MAX {
                self.batch = Vec::new();
            }
            self.batch.resize(BATCH_HEAD_BYTES, 0);
        }
        for waiting in self.waiting.drain(..) {
            waiting.complete(Ok(()));
        }
        self.drop_purged_segments();
        Ok(())
    }

    fn flush_batch(&mut self) -> io::Result<FlushReport> {
        let segment = self.segments.back().expect("a log has a segment");
        let place = Place { salt: segment.head.salt, offset: self.offset };
        let head = BatchHead::of(self.next_batch, &self.batch[BATCH_HEAD_BYTES..]);
        self.batch[..BATCH_HEAD_BYTES].copy_from_slice(&head.encode(place));

        let started = Instant::now();
        fail_point!(&self.fail_point("log-before-write"), |_| Err(io::Error::other("fail point")));
        segment.file.write_all_at(&self.batch, u64::from(self.offset))?;
        fail_point!(&self.fail_point("log-before-sync"), |_| Err(io::Error::other("fail point")));
        if self.options.sync {
            segment.file.sync_data()?;
        }
        fail_point!(&self.fail_point("log-after-sync"), |_| Err(io::Error::other("fail point")));
        // Before anybody is told: from now on the batch is known to have been here.
        let slot = Place { offset: self.offset + self.batch.len() as u32, ..place };
        segment.file.write_all_at(&Mark::Flushed(self.next_batch).encode(slot), u64::from(slot.offset))?;
        Ok(FlushReport { duration: started.elapsed(), bytes: self.batch.len() })
    }

    /// Tells readers where the flushed entries stand; they may leave the cache now.
    fn publish(&mut self) {
        let segment = self.segments.back().expect("a log has a segment").head.sequence;
        let mut inner = self.shared.inner.lock();
        for Placed { index, ticket, offset } in self.placed.drain(..) {
            inner.ledger.written(index, ticket, segment, offset);
        }
        inner.shrink_cache();
    }

    /// Removes the segments before the current one of which every entry is purged, on disk as well.
    fn drop_purged_segments(&mut self) {
        // The checkpoint that replaces them must be on disk.
        if self.offset == SEGMENT_HEAD_BYTES {
            return;
        }
        let purged = self.checkpoint.purged.map(|purged| purged.index);
        while self.segments.len() > 1 && self.segments[0].index_max <= purged {
            let segment = &self.segments[0];
            if let Err(error) = segment.remove(self.options.sync) {
                // Costs only room. It is tried again before any later segment goes: there must be no gap.
                tracing::warn!(file = %segment.path.display(), %error, "a purged segment stays");
                return;
            }
            self.shared.inner.lock().files.remove(&segment.head.sequence);
            self.segments.pop_front();
        }
    }

    /// Fail points carry the log's directory, so that a test can make one member of many fail.
    #[allow(dead_code, reason = "releases are built without fail points")]
    fn fail_point(&self, point: &str) -> String {
        format!("{point}@{}", self.dir.display())
    }
}
