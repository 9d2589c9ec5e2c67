//! Reading entries: from memory where they are there, otherwise from the segments.
//!
//! What is read is decided under the lock, so that it is the log of one moment; the disk is read without it. That is
//! safe because segments are only written where nothing stood before, and an open file outlives its removal.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;

use super::{
    EntryId, LogEntry,
    ledger::Spot,
    record::{ENTRY_HEAD_BYTES, Record},
    shared::Inner,
};

/// Neighbours are read at once up to this many bytes.
const SPAN_BYTES_MAX: u32 = 1 << 20;
/// What may lie between neighbours: the ends of batches.
const GAP_BYTES_MAX: u32 = 4096;

/// Entries to be read.
#[derive(Debug)]
pub(super) struct Plan(Vec<(EntryId, Source)>);

#[derive(Debug)]
enum Source {
    Memory(Bytes),
    Disk(Stored),
}

/// An entry's record in a segment.
#[derive(Clone, Debug)]
struct Stored {
    file: Arc<File>,
    offset: u32,
    record_bytes: u32,
}

impl Plan {
    /// Entries of `range` that there are, in order: at most `bytes_max` of payload, at least one entry.
    pub(super) fn new(inner: &Inner, range: Range<u64>, bytes_max: usize) -> Self {
        let ledger = &inner.ledger;
        let range = range.start.max(ledger.first_index())..range.end.min(ledger.next_index());
        let mut planned = Vec::new();
        let mut bytes = 0;
        for index in range {
            let payload_bytes = ledger.payload_bytes(index).expect("the range was cut to the log");
            bytes += payload_bytes as usize;
            if bytes > bytes_max && !planned.is_empty() {
                break;
            }
            let term = ledger.term(index).expect("the range was cut to the log");
            let source = match inner.cache.get(index) {
                Some(payload) => Source::Memory(payload.clone()),
                None => match ledger.spot(index).expect("the range was cut to the log") {
                    Spot::Queued(_) => unreachable!("entries stay in memory until they are flushed"),
                    Spot::Written { segment, offset } => Source::Disk(Stored {
                        file: inner.files[&segment].clone(),
                        offset,
                        record_bytes: ENTRY_HEAD_BYTES as u32 + payload_bytes as u32,
                    }),
                },
            };
            planned.push((EntryId { index, term }, source));
        }
        Self(planned)
    }

    pub(super) fn needs_disk(&self) -> bool {
        self.0.iter().any(|(_, source)| matches!(source, Source::Disk(_)))
    }

    /// Blocks on the disk if the plan needs it.
    pub(super) fn read(self) -> io::Result<Vec<LogEntry>> {
        let mut entries = Vec::with_capacity(self.0.len());
        let mut span = Span::default();
        for (at, (id, source)) in self.0.iter().enumerate() {
            let payload = match source {
                Source::Memory(payload) => payload.clone(),
                Source::Disk(stored) => {
                    if !span.covers(stored) {
                        span = Span::read(stored, &self.0[at + 1..])?;
                    }
                    span.payload(*id, stored)?
                }
            };
            entries.push(LogEntry { id: *id, payload });
        }
        Ok(entries)
    }
}

/// A piece of a segment in memory.
#[derive(Default)]
struct Span {
    file: Option<Arc<File>>,
    offset: u32,
    bytes: Bytes,
}

impl Span {
    /// Reads `first` and what of `next` stands close behind it.
    fn read(first: &Stored, next: &[(EntryId, Source)]) -> io::Result<Self> {
        let mut end = first.offset + first.record_bytes;
        for (_, source) in next {
            let Source::Disk(stored) = source else { break };
            let close = stored.offset >= end && stored.offset - end <= GAP_BYTES_MAX;
            let next_end = stored.offset.saturating_add(stored.record_bytes);
            if !Arc::ptr_eq(&stored.file, &first.file) || !close || next_end - first.offset > SPAN_BYTES_MAX {
                break;
            }
            end = next_end;
        }
        let mut bytes = vec![0; (end - first.offset) as usize];
        first.file.read_exact_at(&mut bytes, u64::from(first.offset))?;
        Ok(Self { file: Some(first.file.clone()), offset: first.offset, bytes: bytes.into() })
    }

    fn covers(&self, stored: &Stored) -> bool {
        let end = self.offset + self.bytes.len() as u32;
        self.file.as_ref().is_some_and(|file| Arc::ptr_eq(file, &stored.file))
            && self.offset <= stored.offset
            && stored.offset + stored.record_bytes <= end
    }

    fn payload(&self, id: EntryId, stored: &Stored) -> io::Result<Bytes> {
        let start = (stored.offset - self.offset) as usize;
        let record = self.bytes.slice(start..start + stored.record_bytes as usize);
        match Record::take(&mut &record[..]) {
            Ok(Record::Entry { id: found, payload }) if found == id => Ok(record.slice_ref(payload)),
            _ => {
                let message = format!("entry {} is damaged, at byte {} of its segment", id.index, stored.offset);
                Err(io::Error::new(io::ErrorKind::InvalidData, message))
            }
        }
    }
}
