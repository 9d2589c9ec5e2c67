//! Who a member is, as its disk remembers it.
//!
//! One small text file, replaced as a whole, ending in a checksum of what stands before it. Losing it would let the
//! member take part as somebody it is not, so nothing in it is guessed: every line must be there, once, in order.

use std::fmt::Write;

use quorate_tree::MemberId;

const TITLE: &str = "quorate identity";
const FORMAT: u32 = 2;

/// Who a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) member_id: MemberId,
    /// Random, made with the data directory; also the id of its log.
    pub(crate) disk_id: u64,
    /// Counts the starts of this member, from 1. On disk before it is used.
    pub(crate) incarnation: u64,
    /// Whether this disk has been accepted into the ensemble. Only then it may vote.
    pub(crate) joined: bool,
    /// 0 while the member belongs to no ensemble.
    pub(crate) ensemble_id: u64,
    /// The list of members this disk was accepted with; empty before that.
    pub(crate) list: String,
}

/// Why an identity file cannot be read.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum IdentityError {
    #[error("has format {0}, this version reads format {FORMAT}")]
    UnknownFormat(String),
    #[error("is damaged")]
    Damaged,
}

impl Identity {
    pub(super) fn encode(&self) -> String {
        let Self { member_id, disk_id, incarnation, joined, ensemble_id, list } = self;
        let mut text = format!(
            "{TITLE} {FORMAT}\nmember {member_id}\ndisk {disk_id:016x}\nincarnation {incarnation}\njoined {joined}\n\
             ensemble {ensemble_id:016x}\nlist {list}\n"
        );
        let checksum = crc32fast::hash(text.as_bytes());
        writeln!(text, "checksum {checksum:08x}").expect("writing to a string does not fail");
        text
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, IdentityError> {
        let identity = Self::parse(bytes)?;
        // There is exactly one way to write an identity: leading zeros, other letters and the like are damage.
        if identity.encode().as_bytes() == bytes { Ok(identity) } else { Err(IdentityError::Damaged) }
    }

    fn parse(bytes: &[u8]) -> Result<Self, IdentityError> {
        let text = std::str::from_utf8(bytes).map_err(|_| IdentityError::Damaged)?;
        let mut lines = text.lines();
        let mut value = |name: &str| {
            let line = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.ok_or(IdentityError::Damaged)
        };
        let format = value(TITLE)?;
        if format != FORMAT.to_string() {
            return Err(IdentityError::UnknownFormat(format.to_owned()));
        }
        Ok(Self {
            member_id: MemberId(value("member")?.parse().map_err(|_| IdentityError::Damaged)?),
            disk_id: hex(value("disk")?)?,
            incarnation: value("incarnation")?.parse().map_err(|_| IdentityError::Damaged)?,
            joined: value("joined")?.parse().map_err(|_| IdentityError::Damaged)?,
            ensemble_id: hex(value("ensemble")?)?,
            list: value("list")?.to_owned(),
        })
    }
}

fn hex(text: &str) -> Result<u64, IdentityError> {
    u64::from_str_radix(text, 16).map_err(|_| IdentityError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity {
            member_id: MemberId(3),
            disk_id: 0xfeed_beef,
            incarnation: 17,
            joined: true,
            ensemble_id: 42,
            list: "1=a:1,3=c:3".to_owned(),
        }
    }

    #[test]
    fn identity_reads_as_written() {
        let unjoined = Identity { joined: false, list: String::new(), ..identity() };

        for identity in [identity(), unjoined] {
            assert_eq!(Identity::decode(identity.encode().as_bytes()).unwrap(), identity);
        }
    }

    #[test]
    fn bytes_on_disk_stay_as_they_are() {
        let expected = "quorate identity 2\nmember 3\ndisk 00000000feedbeef\nincarnation 17\njoined true\n\
                        ensemble 000000000000002a\nlist 1=a:1,3=c:3\nchecksum 0474e04a\n";

        assert_eq!(identity().encode(), expected);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_refused() {
        let bytes = identity().encode().into_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Identity::decode(&flipped).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(Identity::decode(&bytes[..len]).is_err(), "cut at {len}");
        }
    }

    #[test]
    fn later_format_is_refused_by_its_number() {
        let later = identity().encode().replace("identity 2", "identity 3");

        assert_eq!(Identity::decode(later.as_bytes()), Err(IdentityError::UnknownFormat("3".to_owned())));
    }
}
