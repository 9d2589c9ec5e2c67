//! One file of the log: a head, then batches.
//!
//! A segment has its full length from the beginning and is synced before it gets its name, so a file of another
//! length was cut. Segments are numbered without gaps; each names the batch it begins with.
//!
//! ```text
//! head: magic 8 | format 4 | sequence 4 | log id 8 | salt 8 | first index 8 | first batch 8 | segment bytes 4 |
//!       checksum 4
//! ```

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::storage::durable;

const MAGIC: [u8; 8] = *b"QUORLOG\n";
/// Raised with every change that a reader of this format would misread.
pub(super) const FORMAT: u32 = 1;
pub(super) const SEGMENT_HEAD_BYTES: u32 = 56;
const ENDING: &str = "log";

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHead {
    /// Counts the segments of a log, from 1.
    pub(super) sequence: u32,
    pub(super) log_id: u64,
    /// Random and never shown to anybody: what tells blocks from payloads that look like blocks.
    pub(super) salt: u64,
    /// Index of the entry that was to come next when the segment was made.
    pub(super) first_index: u64,
    /// Number of the batch that comes first in it.
    pub(super) first_batch: u64,
    pub(super) segment_bytes: u32,
}

/// An open segment.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) head: SegmentHead,
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    /// The highest index of any entry ever written into it, truncated or not. Once that is purged, the segment can go.
    pub(super) index_max: Option<u64>,
}

/// Why a segment's head is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    UnknownFormat(u32),
    Damaged,
}

impl SegmentHead {
    fn encode(&self) -> [u8; SEGMENT_HEAD_BYTES as usize] {
        let mut head = Vec::with_capacity(SEGMENT_HEAD_BYTES as usize);
        head.extend_from_slice(&MAGIC);
        head.extend_from_slice(&FORMAT.to_le_bytes());
        head.extend_from_slice(&self.sequence.to_le_bytes());
        head.extend_from_slice(&self.log_id.to_le_bytes());
        head.extend_from_slice(&self.salt.to_le_bytes());
        head.extend_from_slice(&self.first_index.to_le_bytes());
        head.extend_from_slice(&self.first_batch.to_le_bytes());
        head.extend_from_slice(&self.segment_bytes.to_le_bytes());
        head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
        head.try_into().expect("the fields have fixed lengths")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        let head = bytes.first_chunk::<{ SEGMENT_HEAD_BYTES as usize }>().ok_or(HeadError::Damaged)?;
        let u32_at = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes were asked for"));
        let u64_at = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().expect("eight bytes were asked for"));
        if head[0..8] != MAGIC {
            return Err(HeadError::Damaged);
        }
        // Magic and format stand here in every format; where the checksum stands depends on the format.
        if u32_at(8) != FORMAT {
            return Err(HeadError::UnknownFormat(u32_at(8)));
        }
        if u32_at(52) != crc32fast::hash(&head[..52]) {
            return Err(HeadError::Damaged);
        }
        Ok(Self {
            sequence: u32_at(12),
            log_id: u64_at(16),
            salt: u64_at(24),
            first_index: u64_at(32),
            first_batch: u64_at(40),
            segment_bytes: u32_at(48),
        })
    }
}

impl Segment {
    /// Makes a segment that is there completely or, after a crash, not at all.
    pub(super) fn create(dir: &Path, head: SegmentHead, sync: bool) -> io::Result<Self> {
        let path = dir.join(file_name(head.sequence));
        let beside = durable::unfinished(&path);
        let file = durable::create_preallocated(&beside, u64::from(head.segment_bytes), sync)?;
        file.write_all_at(&head.encode(), 0)?;
        durable::publish(&file, &beside, &path, sync)?;
        Ok(Self { head, path, file: Arc::new(file), index_max: None })
    }

    /// Removes the file; it does not come back after a crash. One that is gone already is gone.
    pub(super) fn remove(&self, sync: bool) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ if sync => durable::sync_dir(durable::parent(&self.path)),
            _ => Ok(()),
        }
    }
}

pub(super) fn file_name(sequence: u32) -> String {
    format!("{sequence:08}.{ENDING}")
}

/// The sequence number in a segment's name.
pub(super) fn sequence_of(name: &str) -> Option<u32> {
    let sequence = name.strip_suffix(ENDING)?.strip_suffix('.')?.parse().ok()?;
    (file_name(sequence) == name).then_some(sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: SegmentHead =
        SegmentHead { sequence: 7, log_id: 1, salt: 2, first_index: 3, first_batch: 4, segment_bytes: 4096 };

    #[test]
    fn head_reads_as_written_and_not_with_a_flipped_bit() {
        let bytes = HEAD.encode();

        assert_eq!(SegmentHead::decode(&bytes), Ok(HEAD));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHead::decode(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn later_format_is_refused_by_its_number() {
        let mut bytes = HEAD.encode();
        bytes[8] = 2;

        assert_eq!(SegmentHead::decode(&bytes), Err(HeadError::UnknownFormat(2)));
    }

    #[test]
    fn created_segment_has_its_full_length_and_no_leftover() {
        for sync in [true, false] {
            let dir = tempfile::tempdir().unwrap();

            let segment = Segment::create(dir.path(), HEAD, sync).unwrap();

            let bytes = std::fs::read(&segment.path).unwrap();
            assert_eq!(bytes.len(), 4096);
            assert_eq!(SegmentHead::decode(&bytes), Ok(HEAD));
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn names_carry_the_sequence() {
        assert_eq!(sequence_of(&file_name(12)), Some(12));
        assert_eq!(sequence_of(&file_name(u32::MAX)), Some(u32::MAX));
        for other in ["12.log", "00000012.tmp", "00000012.log.tmp", "+0000012.log", "log", ""] {
            assert_eq!(sequence_of(other), None, "{other}");
        }
    }
}
