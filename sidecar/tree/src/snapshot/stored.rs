//! Items as they stand in a part, read without copying the nodes: a start reads a million of them.
//!
//! What they are is said in [`super::format`], by which they are also written. As everywhere in Protobuf, fields that
//! are not known are skipped.

use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::format::{AclListItem, Head, OutcomeItem, SessionItem, Tail};

/// An item of a part.
#[derive(Debug)]
pub(crate) enum Stored<'a> {
    Head(Head),
    Session(SessionItem),
    Outcome(OutcomeItem),
    AclList(AclListItem),
    Node(StoredNode<'a>),
    Tail(Tail),
}

/// A [`super::format::NodeItem`] that points into its part.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StoredNode<'a> {
    pub(crate) id: u32,
    pub(crate) parent: u32,
    pub(crate) name: &'a str,
    pub(crate) data: &'a [u8],
    pub(crate) acl: u32,
    pub(crate) life: u64,
    pub(crate) czxid: u64,
    pub(crate) mzxid: u64,
    pub(crate) pzxid: u64,
    pub(crate) ctime_ms: i64,
    pub(crate) mtime_ms: i64,
    pub(crate) version: i32,
    pub(crate) aversion: i32,
    pub(crate) created: u64,
    pub(crate) null_data: bool,
}

/// The bytes are no item.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error(transparent)]
    Field(#[from] prost::DecodeError),
    #[error("a value is cut")]
    Cut,
    #[error("a name is not UTF-8")]
    Name,
    #[error("field {tag} has another type")]
    Type { tag: u32 },
    #[error("an item of an unknown kind")]
    Kind,
}

impl<'a> Stored<'a> {
    /// Takes one item off the front of `part`.
    pub(crate) fn take(part: &mut &'a [u8]) -> Result<Self, Unreadable> {
        let mut item = take_delimited(part)?;
        let mut kind = None;
        while !item.is_empty() {
            let (tag, wire_type) = decode_key(&mut item)?;
            if !(1..=6).contains(&tag) {
                skip_field(wire_type, tag, &mut item, DecodeContext::default())?;
                continue;
            }
            if wire_type != WireType::LengthDelimited {
                return Err(Unreadable::Type { tag });
            }
            let content = take_delimited(&mut item)?;
            kind = Some(match tag {
                1 => Self::Head(Head::decode(content)?),
                2 => Self::Session(SessionItem::decode(content)?),
                3 => Self::AclList(AclListItem::decode(content)?),
                4 => Self::Node(StoredNode::decode(content)?),
                5 => Self::Tail(Tail::decode(content)?),
                _ => Self::Outcome(OutcomeItem::decode(content)?),
            });
        }
        kind.ok_or(Unreadable::Kind)
    }
}

impl<'a> StoredNode<'a> {
    fn decode(mut rest: &'a [u8]) -> Result<Self, Unreadable> {
        let mut node = Self::default();
        while !rest.is_empty() {
            let (tag, wire_type) = decode_key(&mut rest)?;
            // Integers are cut to their types, as Protobuf has it.
            match (tag, wire_type) {
                (1, WireType::Varint) => node.id = decode_varint(&mut rest)? as u32,
                (2, WireType::Varint) => node.parent = decode_varint(&mut rest)? as u32,
                (3, WireType::LengthDelimited) => {
                    node.name = str::from_utf8(take_delimited(&mut rest)?).map_err(|_| Unreadable::Name)?;
                }
                (4, WireType::LengthDelimited) => node.data = take_delimited(&mut rest)?,
                (5, WireType::Varint) => node.acl = decode_varint(&mut rest)? as u32,
                (6, WireType::SixtyFourBit) => node.life = take_fixed(&mut rest)?,
                (7, WireType::Varint) => node.czxid = decode_varint(&mut rest)?,
                (8, WireType::Varint) => node.mzxid = decode_varint(&mut rest)?,
                (9, WireType::Varint) => node.pzxid = decode_varint(&mut rest)?,
                (10, WireType::Varint) => node.ctime_ms = decode_varint(&mut rest)? as i64,
                (11, WireType::Varint) => node.mtime_ms = decode_varint(&mut rest)? as i64,
                (12, WireType::Varint) => node.version = decode_varint(&mut rest)? as i32,
                (13, WireType::Varint) => node.aversion = decode_varint(&mut rest)? as i32,
                (14, WireType::Varint) => node.created = decode_varint(&mut rest)?,
                (15, WireType::Varint) => node.null_data = decode_varint(&mut rest)? != 0,
                (1..=15, _) => return Err(Unreadable::Type { tag }),
                _ => skip_field(wire_type, tag, &mut rest, DecodeContext::default())?,
            }
        }
        Ok(node)
    }
}

fn take_delimited<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Unreadable> {
    let length = usize::try_from(decode_varint(bytes)?).map_err(|_| Unreadable::Cut)?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(Unreadable::Cut)?;
    *bytes = rest;
    Ok(taken)
}

fn take_fixed(bytes: &mut &[u8]) -> Result<u64, Unreadable> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(Unreadable::Cut)?;
    *bytes = rest;
    Ok(u64::from_le_bytes(*taken))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::format::{Item, Kind, NodeItem};

    /// What a later version might add to a node.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Later {
        #[prost(string, tag = "16")]
        text: String,
        #[prost(fixed32, tag = "2000")]
        number: u32,
    }

    fn nodes() -> impl Strategy<Value = NodeItem> {
        let places = (any::<u32>(), any::<u32>(), ".{0,30}", any::<Vec<u8>>(), any::<u32>(), any::<u64>());
        let times = (any::<u64>(), any::<u64>(), any::<u64>(), any::<i64>(), any::<i64>());
        let counts = (any::<i32>(), any::<i32>(), any::<u64>(), any::<bool>());
        (places, times, counts).prop_map(|(places, times, counts)| {
            let (id, parent, name, data, acl, life) = places;
            let (czxid, mzxid, pzxid, ctime_ms, mtime_ms) = times;
            let (version, aversion, created, null_data) = counts;
            NodeItem {
                id,
                parent,
                name,
                data,
                acl,
                life,
                czxid,
                mzxid,
                pzxid,
                ctime_ms,
                mtime_ms,
                version,
                aversion,
                created,
                null_data,
            }
        })
    }

    fn stored(item: &NodeItem) -> StoredNode<'_> {
        StoredNode {
            id: item.id,
            parent: item.parent,
            name: &item.name,
            data: &item.data,
            acl: item.acl,
            life: item.life,
            czxid: item.czxid,
            mzxid: item.mzxid,
            pzxid: item.pzxid,
            ctime_ms: item.ctime_ms,
            mtime_ms: item.mtime_ms,
            version: item.version,
            aversion: item.aversion,
            created: item.created,
            null_data: item.null_data,
        }
    }

    proptest! {
        #[test]
        fn nodes_are_read_as_they_were_written(item in nodes(), rest in any::<Vec<u8>>()) {
            let mut part = Item { kind: Some(Kind::Node(item.clone())) }.encode_length_delimited_to_vec();
            part.extend_from_slice(&rest);
            let mut left = &part[..];

            let Stored::Node(node) = Stored::take(&mut left).unwrap() else { panic!("it is a node") };

            prop_assert_eq!(node, stored(&item));
            prop_assert_eq!(left, &rest[..]);
        }

        #[test]
        fn what_a_later_version_adds_is_skipped(item in nodes(), text in ".{0,9}", number in any::<u32>()) {
            let mut content = item.encode_to_vec();
            Later { text, number }.encode(&mut content).unwrap();

            prop_assert_eq!(StoredNode::decode(&content).unwrap(), stored(&item));
        }

        /// A cut between two fields is another node; one within a field is none.
        #[test]
        fn cut_and_garbled_nodes_are_judged_as_by_the_format(item in nodes(), cut in 0_usize..200, at in 0_usize..200) {
            let mut content = item.encode_to_vec();
            content.truncate(cut);
            if let Some(byte) = content.get_mut(at) {
                *byte ^= 0x55;
            }

            match NodeItem::decode(&content[..]) {
                Ok(item) => prop_assert_eq!(StoredNode::decode(&content).unwrap(), stored(&item)),
                Err(_) => prop_assert!(StoredNode::decode(&content).is_err()),
            }
        }
    }
}
