//! How batches stand in a segment, and what proves that one was flushed.
//!
//! ```text
//! batch:  magic 4 | payload bytes 4 | batch number 8 | payload checksum 4 | head checksum 4 | payload
//! slot:   16 bytes, zero when the batch is written; after its flush a mark: magic 4 | batch number 8 | checksum 4
//! ```
//!
//! After the slot comes the next batch, or, when the segment is full, a seal in the form of a mark. Batch numbers are
//! consecutive over all segments, and batch n + 1 is written only after the flush of batch n, so each of these proves
//! that batch n was flushed: its mark, a seal with its number, the head of batch n + 1. A batch is acknowledged only
//! after its mark is written. Therefore, whatever byte of an acknowledged batch is damaged, something else proves
//! that the batch was there, and the damage is not taken for a write that was cut short.
//!
//! The head's and the marks' checksums cover where they stand and the segment's secret salt: neither payloads nor
//! copies of blocks pass for blocks.

/// Magic, length, number and both checksums before a batch's payload.
pub(super) const BATCH_HEAD_BYTES: usize = 24;
/// The slot after a batch, and the seal.
pub(super) const MARK_BYTES: usize = 16;

const BATCH_MAGIC: [u8; 4] = *b"QBAT";
const FLUSHED_MAGIC: [u8; 4] = *b"QFLU";
const SEALED_MAGIC: [u8; 4] = *b"QEND";

/// What stands before a batch's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BatchHead {
    pub(super) number: u64,
    pub(super) payload_bytes: u32,
    pub(super) payload_checksum: u32,
}

/// A proof that a batch, and so every batch before it, was flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    Flushed(u64),
    /// And that the log goes on in the next segment.
    Sealed(u64),
}

/// Where a block stands: part of its checksum.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) salt: u64,
    pub(super) offset: u32,
}

impl Place {
    fn checksum(self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.salt.to_le_bytes());
        hasher.update(&self.offset.to_le_bytes());
        hasher.update(bytes);
        hasher.finalize()
    }
}

impl BatchHead {
    pub(super) fn of(number: u64, payload: &[u8]) -> Self {
        let payload_bytes = u32::try_from(payload.len()).expect("a batch is smaller than a segment");
        Self { number, payload_bytes, payload_checksum: crc32fast::hash(payload) }
    }

    pub(super) fn encode(&self, place: Place) -> [u8; BATCH_HEAD_BYTES] {
        let mut head = [0; BATCH_HEAD_BYTES];
        head[0..4].copy_from_slice(&BATCH_MAGIC);
        head[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        head[8..16].copy_from_slice(&self.number.to_le_bytes());
        head[16..20].copy_from_slice(&self.payload_checksum.to_le_bytes());
        let checksum = place.checksum(&head[..20]);
        head[20..24].copy_from_slice(&checksum.to_le_bytes());
        head
    }

    /// The head at the front of `bytes`, if one stands there.
    pub(super) fn decode(bytes: &[u8], place: Place) -> Option<Self> {
        let head: &[u8; BATCH_HEAD_BYTES] = bytes.first_chunk()?;
        let sound = head[0..4] == BATCH_MAGIC && u32_at(head, 20) == place.checksum(&head[..20]);
        sound.then(|| Self {
            number: u64_at(head, 8),
            payload_bytes: u32_at(head, 4),
            payload_checksum: u32_at(head, 16),
        })
    }
}

impl Mark {
    pub(super) fn number(self) -> u64 {
        match self {
            Self::Flushed(number) | Self::Sealed(number) => number,
        }
    }

    pub(super) fn encode(self, place: Place) -> [u8; MARK_BYTES] {
        let mut mark = [0; MARK_BYTES];
        mark[0..4].copy_from_slice(match self {
            Self::Flushed(_) => &FLUSHED_MAGIC,
            Self::Sealed(_) => &SEALED_MAGIC,
        });
        mark[4..12].copy_from_slice(&self.number().to_le_bytes());
        let checksum = place.checksum(&mark[..12]);
        mark[12..16].copy_from_slice(&checksum.to_le_bytes());
        mark
    }

    /// The mark at the front of `bytes`, if one stands there.
    pub(super) fn decode(bytes: &[u8], place: Place) -> Option<Self> {
        let mark: &[u8; MARK_BYTES] = bytes.first_chunk()?;
        let number = u64_at(mark, 4);
        let decoded = match [mark[0], mark[1], mark[2], mark[3]] {
            FLUSHED_MAGIC => Self::Flushed(number),
            SEALED_MAGIC => Self::Sealed(number),
            _ => return None,
        };
        (u32_at(mark, 12) == place.checksum(&mark[..12])).then_some(decoded)
    }
}

/// The last batch that anything in `bytes`, from whatever offset on, proves to have been flushed.
pub(super) fn flush_proven(bytes: &[u8], salt: u64, offset: u32) -> Option<u64> {
    let mut proven = None;
    for (at, rest) in (0..bytes.len()).map(|at| (at, &bytes[at..])) {
        // Every magic begins with the same letter; most bytes need no closer look.
        if rest[0] != BATCH_MAGIC[0] {
            continue;
        }
        let place = Place { salt, offset: offset + at as u32 };
        let mark = Mark::decode(rest, place).map(Mark::number);
        // Written only after the flush of the batch before.
        let head = BatchHead::decode(rest, place).map(|head| head.number.saturating_sub(1));
        proven = proven.max(mark).max(head);
    }
    proven
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes were asked for"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes were asked for"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { salt: 77, offset: 4096 };

    #[test]
    fn blocks_read_as_written_where_they_were_written() {
        let head = BatchHead::of(5, b"payload");
        let elsewhere = [Place { salt: 78, ..PLACE }, Place { offset: 4097, ..PLACE }];

        assert_eq!(BatchHead::decode(&head.encode(PLACE), PLACE), Some(head));
        for mark in [Mark::Flushed(5), Mark::Sealed(6)] {
            assert_eq!(Mark::decode(&mark.encode(PLACE), PLACE), Some(mark));
            assert!(elsewhere.iter().all(|&place| Mark::decode(&mark.encode(PLACE), place).is_none()));
        }
        assert!(elsewhere.iter().all(|&place| BatchHead::decode(&head.encode(PLACE), place).is_none()));
    }

    #[test]
    fn flipped_bit_makes_no_block() {
        for bit in 0..BATCH_HEAD_BYTES * 8 {
            let mut head = BatchHead::of(5, b"payload").encode(PLACE);
            head[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BatchHead::decode(&head, PLACE), None, "bit {bit}");
        }
        for bit in 0..MARK_BYTES * 8 {
            let mut mark = Mark::Flushed(5).encode(PLACE);
            mark[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::decode(&mark, PLACE), None, "bit {bit}");
        }
    }

    #[test]
    fn proof_of_a_flush_is_found_at_any_offset() {
        for at in [0, 1, 2, 33] {
            let place = Place { offset: PLACE.offset + at as u32, ..PLACE };
            let mut bytes = vec![b'Q'; 100];
            assert_eq!(flush_proven(&bytes, PLACE.salt, PLACE.offset), None);

            bytes[at..at + MARK_BYTES].copy_from_slice(&Mark::Flushed(9).encode(place));
            assert_eq!(flush_proven(&bytes, PLACE.salt, PLACE.offset), Some(9));

            bytes[at..at + BATCH_HEAD_BYTES].copy_from_slice(&BatchHead::of(9, b"").encode(place));
            assert_eq!(flush_proven(&bytes, PLACE.salt, PLACE.offset), Some(8));
        }
    }
}
