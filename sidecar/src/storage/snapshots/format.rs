//! How a snapshot stands on disk.
//!
//! ```text
//! head:  magic 8 | format 4 | term 8 | index 8 | meta bytes 4 | checksum 4 | meta | checksum of meta 4
//! chunk: bytes 4 | checksum 4 | the bytes          (the checksum covers the chunk's number, from 0, too)
//! end:   0 4 | checksum 4 | bytes of all chunks 8 | number of chunks 8
//! ```
//!
//! Integers are little-endian.

use super::EntryId;

pub(super) const ENDING: &str = "snap";
/// Raised with every change that a reader of this format would misread.
pub(super) const FORMAT: u32 = 1;
const MAGIC: [u8; 8] = *b"QUORSNP\n";

/// A larger chunk is refused, by the writer and, as damage, by the reader.
pub(crate) const CHUNK_BYTES_MAX: usize = 8 << 20;

pub(super) const HEAD_BYTES: usize = 36;
pub(super) const CHUNK_HEAD_BYTES: usize = 8;
pub(super) const END_BYTES: usize = 24;

/// What stands at the beginning, before the meta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) id: EntryId,
    pub(super) meta_bytes: u32,
}

/// Why a head is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadError {
    UnknownFormat(u32),
    Damaged,
}

impl Head {
    pub(super) fn encode(&self) -> [u8; HEAD_BYTES] {
        let mut head = [0; HEAD_BYTES];
        head[0..8].copy_from_slice(&MAGIC);
        head[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        head[12..20].copy_from_slice(&self.id.term.to_le_bytes());
        head[20..28].copy_from_slice(&self.id.index.to_le_bytes());
        head[28..32].copy_from_slice(&self.meta_bytes.to_le_bytes());
        let checksum = crc32fast::hash(&head[..32]);
        head[32..36].copy_from_slice(&checksum.to_le_bytes());
        head
    }

    pub(super) fn decode(head: &[u8; HEAD_BYTES]) -> Result<Self, HeadError> {
        if head[0..8] != MAGIC {
            return Err(HeadError::Damaged);
        }
        // Magic and format stand here in every format.
        if u32_at(head, 8) != FORMAT {
            return Err(HeadError::UnknownFormat(u32_at(head, 8)));
        }
        if u32_at(head, 32) != crc32fast::hash(&head[..32]) {
            return Err(HeadError::Damaged);
        }
        Ok(Self { id: EntryId { term: u64_at(head, 12), index: u64_at(head, 20) }, meta_bytes: u32_at(head, 28) })
    }
}

/// What stands before a chunk, or, without bytes, at the beginning of the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkHead {
    pub(super) bytes: u32,
    pub(super) checksum: u32,
}

impl ChunkHead {
    pub(super) fn of(number: u64, chunk: &[u8]) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&number.to_le_bytes());
        hasher.update(chunk);
        Self { bytes: chunk.len() as u32, checksum: hasher.finalize() }
    }

    pub(super) fn encode(&self) -> [u8; CHUNK_HEAD_BYTES] {
        let mut head = [0; CHUNK_HEAD_BYTES];
        head[0..4].copy_from_slice(&self.bytes.to_le_bytes());
        head[4..8].copy_from_slice(&self.checksum.to_le_bytes());
        head
    }

    pub(super) fn decode(head: &[u8; CHUNK_HEAD_BYTES]) -> Self {
        Self { bytes: u32_at(head, 0), checksum: u32_at(head, 4) }
    }
}

/// What stands at the end, so that a cut snapshot is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    pub(super) bytes: u64,
    pub(super) chunks: u64,
}

impl End {
    pub(super) fn encode(&self) -> [u8; END_BYTES] {
        let mut end = [0; END_BYTES];
        end[8..16].copy_from_slice(&self.bytes.to_le_bytes());
        end[16..24].copy_from_slice(&self.chunks.to_le_bytes());
        let checksum = crc32fast::hash(&end[8..]);
        end[4..8].copy_from_slice(&checksum.to_le_bytes());
        end
    }

    pub(super) fn decode(end: &[u8; END_BYTES]) -> Option<Self> {
        let sound = u32_at(end, 0) == 0 && u32_at(end, 4) == crc32fast::hash(&end[8..]);
        sound.then(|| Self { bytes: u64_at(end, 8), chunks: u64_at(end, 16) })
    }

    /// The length of a file with such an end.
    pub(super) fn file_bytes(&self, meta_bytes: u32) -> Option<u64> {
        let head = HEAD_BYTES as u64 + u64::from(meta_bytes) + 4;
        let chunk_heads = self.chunks.checked_mul(CHUNK_HEAD_BYTES as u64)?;
        head.checked_add(self.bytes)?.checked_add(chunk_heads)?.checked_add(END_BYTES as u64)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were asked for"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were asked for"))
}
