//! What stands in a batch: one change of the log's state a record, in the order in which they were asked for.
//!
//! Integers are little-endian. A record starts with its kind; the batch around it has the checksum. An entry has one
//! of its own, because entries are also read one by one.

use bytes::Bytes;

use super::EntryId;

const CHECKPOINT: u8 = 1;
const ENTRY: u8 = 2;
const VOTE: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;

/// Kind, index, term, length and checksum of an entry, before its payload.
pub(super) const ENTRY_HEAD_BYTES: usize = 1 + 8 + 8 + 4 + 4;

/// One change of the log's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    /// All that the segments before have said. The first record of every segment, so that those before can go.
    Checkpoint {
        vote: Option<&'a [u8]>,
        purged: Option<EntryId>,
        last: Option<EntryId>,
    },
    Entry {
        id: EntryId,
        payload: &'a [u8],
    },
    Vote(&'a [u8]),
    /// Entries after `keep` never were.
    Truncate {
        keep: Option<EntryId>,
    },
    /// Entries up to `upto` are needed no more.
    Purge {
        upto: EntryId,
    },
}

/// The bytes are no record of this format.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a record of this format")]
pub(super) struct Unreadable;

/// What a checkpoint says, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) vote: Option<Bytes>,
    pub(super) purged: Option<EntryId>,
    pub(super) last: Option<EntryId>,
}

impl Checkpoint {
    pub(super) fn record(&self) -> Record<'_> {
        Record::Checkpoint { vote: self.vote.as_deref(), purged: self.purged, last: self.last }
    }

    /// Goes on to the state after `record`.
    pub(super) fn advance(&mut self, record: &Record<'_>) {
        match *record {
            Record::Checkpoint { vote, purged, last } => {
                *self = Self { vote: vote.map(Bytes::copy_from_slice), purged, last };
            }
            Record::Entry { id, .. } => self.last = Some(id),
            Record::Vote(vote) => self.vote = Some(Bytes::copy_from_slice(vote)),
            Record::Truncate { keep } => self.last = keep,
            Record::Purge { upto } => {
                self.purged = Some(upto);
                if self.last.is_none_or(|last| last.index < upto.index) {
                    self.last = Some(upto);
                }
            }
        }
    }
}

impl<'a> Record<'a> {
    pub(super) fn encoded_bytes(&self) -> usize {
        let id = |id: &Option<EntryId>| 1 + if id.is_some() { 16 } else { 0 };
        match self {
            Self::Checkpoint { vote, purged, last } => {
                1 + 1 + vote.map_or(0, |vote| 4 + vote.len()) + id(purged) + id(last)
            }
            Self::Entry { payload, .. } => ENTRY_HEAD_BYTES + payload.len(),
            Self::Vote(vote) => 1 + 4 + vote.len(),
            Self::Truncate { keep } => 1 + id(keep),
            Self::Purge { .. } => 1 + 16,
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Checkpoint { vote, purged, last } => {
                out.push(CHECKPOINT);
                out.push(u8::from(vote.is_some()));
                if let Some(vote) = vote {
                    put_bytes(out, vote);
                }
                put_optional_id(out, *purged);
                put_optional_id(out, *last);
            }
            Self::Entry { id, payload } => {
                out.push(ENTRY);
                put_id(out, *id);
                out.extend_from_slice(&length(payload).to_le_bytes());
                out.extend_from_slice(&entry_checksum(*id, payload).to_le_bytes());
                out.extend_from_slice(payload);
            }
            Self::Vote(vote) => {
                out.push(VOTE);
                put_bytes(out, vote);
            }
            Self::Truncate { keep } => {
                out.push(TRUNCATE);
                put_optional_id(out, *keep);
            }
            Self::Purge { upto } => {
                out.push(PURGE);
                put_id(out, *upto);
            }
        }
    }

    /// Takes one record off the front of `bytes`.
    pub(super) fn take(bytes: &mut &'a [u8]) -> Result<Self, Unreadable> {
        match take_u8(bytes)? {
            CHECKPOINT => {
                let vote = if take_flag(bytes)? { Some(take_bytes(bytes)?) } else { None };
                Ok(Self::Checkpoint { vote, purged: take_optional_id(bytes)?, last: take_optional_id(bytes)? })
            }
            ENTRY => {
                let id = take_id(bytes)?;
                let payload_bytes = take_u32(bytes)?;
                let checksum = take_u32(bytes)?;
                let payload = take(bytes, payload_bytes as usize)?;
                if entry_checksum(id, payload) != checksum {
                    return Err(Unreadable);
                }
                Ok(Self::Entry { id, payload })
            }
            VOTE => Ok(Self::Vote(take_bytes(bytes)?)),
            TRUNCATE => Ok(Self::Truncate { keep: take_optional_id(bytes)? }),
            PURGE => Ok(Self::Purge { upto: take_id(bytes)? }),
            _ => Err(Unreadable),
        }
    }
}

fn entry_checksum(id: EntryId, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id.index.to_le_bytes());
    hasher.update(&id.term.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("longer values are refused before they are queued")
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes).to_le_bytes());
    out.extend_from_slice(bytes);
}

fn put_id(out: &mut Vec<u8>, id: EntryId) {
    out.extend_from_slice(&id.index.to_le_bytes());
    out.extend_from_slice(&id.term.to_le_bytes());
}

fn put_optional_id(out: &mut Vec<u8>, id: Option<EntryId>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        put_id(out, id);
    }
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], Unreadable> {
    let (taken, rest) = bytes.split_at_checked(count).ok_or(Unreadable)?;
    *bytes = rest;
    Ok(taken)
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Unreadable> {
    Ok(take(bytes, N)?.try_into().expect("the length was asked for"))
}

fn take_u8(bytes: &mut &[u8]) -> Result<u8, Unreadable> {
    Ok(take_array::<1>(bytes)?[0])
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, Unreadable> {
    take_array(bytes).map(u32::from_le_bytes)
}

fn take_u64(bytes: &mut &[u8]) -> Result<u64, Unreadable> {
    take_array(bytes).map(u64::from_le_bytes)
}

fn take_flag(bytes: &mut &[u8]) -> Result<bool, Unreadable> {
    match take_u8(bytes)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Unreadable),
    }
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Unreadable> {
    let count = take_u32(bytes)?;
    take(bytes, count as usize)
}

fn take_id(bytes: &mut &[u8]) -> Result<EntryId, Unreadable> {
    Ok(EntryId { index: take_u64(bytes)?, term: take_u64(bytes)? })
}

fn take_optional_id(bytes: &mut &[u8]) -> Result<Option<EntryId>, Unreadable> {
    if take_flag(bytes)? { take_id(bytes).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: EntryId = EntryId { index: 0x0102_0304_0506_0708, term: 9 };

    fn all() -> Vec<Record<'static>> {
        vec![
            Record::Checkpoint { vote: None, purged: None, last: None },
            Record::Checkpoint { vote: Some(b"vote"), purged: Some(ID), last: Some(ID) },
            Record::Entry { id: ID, payload: b"" },
            Record::Entry { id: ID, payload: b"payload" },
            Record::Vote(b"vote"),
            Record::Truncate { keep: None },
            Record::Truncate { keep: Some(ID) },
            Record::Purge { upto: ID },
        ]
    }

    #[test]
    fn records_read_as_written_and_are_as_long_as_they_say() {
        let mut bytes = Vec::new();
        for record in all() {
            let before = bytes.len();
            record.put(&mut bytes);
            assert_eq!(bytes.len() - before, record.encoded_bytes(), "{record:?}");
        }

        let mut rest = bytes.as_slice();
        for record in all() {
            assert_eq!(Record::take(&mut rest), Ok(record));
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn record_cut_anywhere_is_unreadable() {
        for record in all() {
            let mut bytes = Vec::new();
            record.put(&mut bytes);
            for len in 0..bytes.len() {
                assert_eq!(Record::take(&mut &bytes[..len]), Err(Unreadable), "{record:?} cut at {len}");
            }
        }
    }

    #[test]
    fn entry_with_a_flipped_bit_is_unreadable() {
        let mut bytes = Vec::new();
        Record::Entry { id: ID, payload: b"payload" }.put(&mut bytes);
        for bit in 8..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Record::take(&mut flipped.as_slice()), Err(Unreadable), "bit {bit}");
        }
    }

    #[test]
    fn bytes_on_disk_stay_as_they_are() {
        let mut bytes = Vec::new();
        Record::Entry { id: ID, payload: b"ab" }.put(&mut bytes);

        let expected = [2, 8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        assert_eq!(bytes[..expected.len()], expected);
        assert_eq!(bytes[expected.len() + 4..], *b"ab");
    }
}
