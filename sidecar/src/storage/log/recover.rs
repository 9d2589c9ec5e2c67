//! Reads a log at a start, and tells a write that was cut short from damage.
//!
//! All batches of a log must be there without a gap. What follows the last good one is a write that was cut short
//! only if nothing behind it proves that more was flushed (see `block`); then it is erased. Otherwise something that
//! may have been acknowledged is lost, and the log is refused. Reads the segments one by one, each as a whole.

use std::{
    collections::VecDeque,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use tracing::warn;

use super::{
    block::{self, BATCH_HEAD_BYTES, BatchHead, MARK_BYTES, Mark, Place},
    error::OpenError,
    ledger::{Ledger, Spot},
    record::{Checkpoint, Record},
    segment::{self, FORMAT, HeadError, SEGMENT_HEAD_BYTES, Segment, SegmentHead},
};
use crate::storage::durable;

/// A log as it was found.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) ledger: Ledger,
    pub(super) checkpoint: Checkpoint,
    /// In order; never empty.
    pub(super) segments: VecDeque<Segment>,
    /// Where the next batch goes in the last segment.
    pub(super) offset: u32,
    pub(super) next_batch: u64,
}

/// The good batches at the beginning of a segment.
#[derive(Debug)]
struct Walk {
    /// Where the batch after the last good one begins, or would.
    end: u32,
    /// The last good batch, or the one before the first.
    last: u64,
    /// Where the last good batch begins, if its mark is not there.
    unmarked: Option<u32>,
}

/// Reads the log in `dir`; `None` if there is not one segment.
pub(super) fn recover(dir: &Path, log_id: u64, sync: bool) -> Result<Option<Recovered>, OpenError> {
    let mut segments = open_segments(dir, log_id)?;
    let Some(first) = segments.front() else { return Ok(None) };
    if sync {
        // A name that a process killed right after giving it may be in memory only.
        durable::sync_dir(dir).map_err(|source| OpenError::Io { action: "syncing", path: dir.to_owned(), source })?;
    }

    let mut replay = Replay::default();
    let mut next_batch = first.head.first_batch;
    let mut offset = SEGMENT_HEAD_BYTES;
    // One for all: fresh memory for each costs more than reading it.
    let mut image = Vec::new();
    for at in 0..segments.len() {
        let expected = segments.get(at + 1).map(|next| next.head.first_batch);
        let segment = &mut segments[at];
        if segment.head.first_batch != next_batch {
            let what = format!("begins with batch {} where {next_batch} comes next", segment.head.first_batch);
            return Err(OpenError::Damaged { file: segment.path.clone(), offset: 0, what });
        }
        read_image(segment, &mut image)?;
        let walk = walk(segment, &image, &mut replay)?;
        match expected {
            // The next segment was made after the flush of all of this one.
            Some(expected) if expected != walk.last + 1 => return Err(damaged(segment, walk.end, walk.last)),
            Some(_) => {}
            None => end_of_log(dir, segment, &image, &walk, sync)?,
        }
        next_batch = walk.last + 1;
        offset = walk.end;
    }
    let Replay { ledger, checkpoint, began } = replay;
    if !began && segments[0].head.sequence != 1 {
        let file = dir.join(segment::file_name(segments[0].head.sequence - 1));
        return Err(OpenError::Missing { file });
    }
    if let Some((first, last)) = ledger.missing() {
        return Err(OpenError::EntriesMissing { dir: dir.to_owned(), first, last });
    }
    Ok(Some(Recovered { ledger, checkpoint, segments, offset, next_batch }))
}

fn open_segments(dir: &Path, log_id: u64) -> Result<VecDeque<Segment>, OpenError> {
    let mut sequences = sequences(dir)?;
    sequences.sort_unstable();
    for pair in sequences.windows(2) {
        if pair[0] + 1 != pair[1] {
            return Err(OpenError::Missing { file: dir.join(segment::file_name(pair[0] + 1)) });
        }
    }
    sequences
        .into_iter()
        .map(|sequence| open_segment(&dir.join(segment::file_name(sequence)), sequence, log_id))
        .collect()
}

/// The sequence numbers of the segments in `dir`. Removes unfinished files.
fn sequences(dir: &Path) -> Result<Vec<u32>, OpenError> {
    let failed = |action, path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::Io { action, path, source }
    };
    let mut sequences = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed("listing", dir))? {
        let path = entry.map_err(failed("listing", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if let Some(sequence) = segment::sequence_of(name) {
            sequences.push(sequence);
        } else if path.extension().is_some_and(|ending| ending == durable::UNFINISHED) {
            fs::remove_file(&path).map_err(failed("removing", &path))?;
        } else {
            return Err(OpenError::Foreign { file: path });
        }
    }
    Ok(sequences)
}

fn open_segment(path: &Path, sequence: u32, log_id: u64) -> Result<Segment, OpenError> {
    let failed = |source| OpenError::Io { action: "opening", path: path.to_owned(), source };
    let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?.len();
    let mut head = [0; SEGMENT_HEAD_BYTES as usize];
    match file.read_exact_at(&mut head, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let expected = u64::from(SEGMENT_HEAD_BYTES);
            return Err(OpenError::WrongLength { file: path.to_owned(), found, expected });
        }
        Err(error) => return Err(failed(error)),
    }
    let damaged = |what: &str| OpenError::Damaged { file: path.to_owned(), offset: 0, what: what.to_owned() };
    let head = SegmentHead::decode(&head).map_err(|error| match error {
        HeadError::UnknownFormat(found) => OpenError::UnknownFormat { file: path.to_owned(), found, known: FORMAT },
        HeadError::Damaged => damaged("the head of the segment does not match its checksum"),
    })?;
    if head.log_id != log_id {
        return Err(OpenError::OtherLog { file: path.to_owned() });
    }
    if head.sequence != sequence {
        return Err(damaged(&format!("it is segment {} by its head", head.sequence)));
    }
    let expected = u64::from(head.segment_bytes);
    if found != expected {
        return Err(OpenError::WrongLength { file: path.to_owned(), found, expected });
    }
    Ok(Segment { head, path: path.to_owned(), file: Arc::new(file), index_max: None })
}

fn read_image(segment: &Segment, image: &mut Vec<u8>) -> Result<(), OpenError> {
    image.resize(segment.head.segment_bytes as usize, 0);
    let read = segment.file.read_exact_at(image, 0);
    read.map_err(|source| OpenError::Io { action: "reading", path: segment.path.clone(), source })
}

/// Replays the good batches of a segment, up to the first place where the next one does not stand.
fn walk(segment: &mut Segment, image: &[u8], replay: &mut Replay) -> Result<Walk, OpenError> {
    let salt = segment.head.salt;
    let mut walk = Walk { end: SEGMENT_HEAD_BYTES, last: segment.head.first_batch - 1, unmarked: None };
    loop {
        let offset = walk.end;
        let Some(payload) = batch_at(image, Place { salt, offset }, walk.last + 1) else { return Ok(walk) };
        let payload_offset = offset + BATCH_HEAD_BYTES as u32;
        replay.batch(segment, payload_offset, payload)?;
        walk.last += 1;
        let slot = payload_offset + payload.len() as u32;
        let mark = Mark::decode(&image[slot as usize..], Place { salt, offset: slot });
        walk.unmarked = if mark == Some(Mark::Flushed(walk.last)) { None } else { Some(offset) };
        walk.end = slot + MARK_BYTES as u32;
    }
}

/// The payload of batch `number`, if it stands there in good order, with room for its mark.
fn batch_at(image: &[u8], place: Place, number: u64) -> Option<&[u8]> {
    let bytes = image.get(place.offset as usize..)?;
    let head = BatchHead::decode(bytes, place)?;
    let (payload, rest) = bytes[BATCH_HEAD_BYTES..].split_at_checked(head.payload_bytes as usize)?;
    (head == BatchHead::of(number, payload) && rest.len() >= MARK_BYTES).then_some(payload)
}

/// Decides what stands behind the last good batch of the log, and leaves the segment ready for the next.
fn end_of_log(dir: &Path, segment: &Segment, image: &[u8], walk: &Walk, sync: bool) -> Result<(), OpenError> {
    let salt = segment.head.salt;
    let (end, last) = (walk.end, walk.last);
    let tail = &image[end as usize..];
    let behind = without_zeros(tail);
    // What proves a flush may itself end with zeros.
    let searched = &tail[..tail.len().min(behind.len() + BATCH_HEAD_BYTES)];
    if block::flush_proven(searched, salt, end).is_some_and(|proven| proven > last) {
        return Err(damaged(segment, end, last));
    }
    if Mark::decode(&image[end as usize..], Place { salt, offset: end }) == Some(Mark::Sealed(last)) {
        return Err(OpenError::Missing { file: dir.join(segment::file_name(segment.head.sequence + 1)) });
    }
    let repair = || {
        let Walk { unmarked, .. } = *walk;
        if !behind.is_empty() {
            warn!(
                file = %segment.path.display(),
                offset = end,
                bytes = behind.len(),
                "erased the end of the log: a write that was cut short, acknowledged to nobody"
            );
            segment.file.write_all_at(&vec![0; behind.len()], u64::from(end))?;
        }
        if let Some(start) = unmarked {
            // Nobody knows whether its flush succeeded. If it failed, the kernel may believe that the pages are on
            // disk; written again, they are flushed again.
            segment.file.write_all_at(&image[start as usize..end as usize], u64::from(start))?;
        }
        if sync && (unmarked.is_some() || !behind.is_empty()) {
            segment.file.sync_data()?;
        }
        if unmarked.is_some() {
            let slot = Place { salt, offset: end - MARK_BYTES as u32 };
            segment.file.write_all_at(&Mark::Flushed(last).encode(slot), u64::from(slot.offset))?;
        }
        Ok(())
    };
    repair().map_err(|source| OpenError::Io { action: "writing", path: segment.path.clone(), source })
}

/// `bytes` up to the last that is not zero.
fn without_zeros(bytes: &[u8]) -> &[u8] {
    const CHUNK: usize = 4096;
    let mut rest = bytes;
    // Most of it is zeros: comparing chunks is quick.
    while let Some((front, chunk)) = rest.split_last_chunk::<CHUNK>()
        && chunk == &[0; CHUNK]
    {
        rest = front;
    }
    let len = rest.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &rest[..len]
}

fn damaged(segment: &Segment, offset: u32, last: u64) -> OpenError {
    let what = format!("batch {} was flushed and is not there in good order", last + 1);
    OpenError::Damaged { file: segment.path.clone(), offset: u64::from(offset), what }
}

/// The state that grows while batches are read.
#[derive(Debug, Default)]
struct Replay {
    ledger: Ledger,
    checkpoint: Checkpoint,
    /// A first checkpoint has been read.
    began: bool,
}

impl Replay {
    /// Replays one batch of `segment`, whose payload stands at `offset`.
    fn batch(&mut self, segment: &mut Segment, offset: u32, payload: &[u8]) -> Result<(), OpenError> {
        let file: PathBuf = segment.path.clone();
        let damaged = |at: u32, what: String| OpenError::Damaged { file: file.clone(), offset: u64::from(at), what };
        let mut rest = payload;
        while !rest.is_empty() {
            let at = offset + (payload.len() - rest.len()) as u32;
            let record = Record::take(&mut rest).map_err(|error| damaged(at, error.to_string()))?;
            let opens_segment = at == SEGMENT_HEAD_BYTES + BATCH_HEAD_BYTES as u32;
            if opens_segment != matches!(record, Record::Checkpoint { .. }) {
                return Err(damaged(
                    at,
                    "a checkpoint stands at the beginning of each segment and nowhere else".to_owned(),
                ));
            }
            self.record(segment, at, &record).map_err(|what| damaged(at, what))?;
        }
        Ok(())
    }

    fn record(&mut self, segment: &mut Segment, offset: u32, record: &Record<'_>) -> Result<(), String> {
        match *record {
            Record::Checkpoint { vote, purged, last } => {
                if self.began && self.checkpoint.record() != *record {
                    return Err("the segment does not go on where the one before ends".to_owned());
                }
                if !self.began {
                    self.ledger = Ledger::from_checkpoint(vote.map(Bytes::copy_from_slice), purged, last);
                    self.began = true;
                }
            }
            Record::Entry { id, payload } => {
                let spot = Spot::Written { segment: segment.head.sequence, offset };
                let appended = self.ledger.append(id, payload.len() as u32, spot);
                appended.map_err(|error| error.to_string())?;
                segment.index_max = segment.index_max.max(Some(id.index));
            }
            Record::Vote(vote) => self.ledger.set_vote(Bytes::copy_from_slice(vote)),
            Record::Truncate { keep } => self.ledger.truncate_after(keep),
            Record::Purge { upto } => self.ledger.purge(upto),
        }
        self.checkpoint.advance(record);
        Ok(())
    }
}
