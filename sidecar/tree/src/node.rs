//! One node as it lies in memory. A million of them must fit into a few hundred megabytes, so what only parents
//! have lies in a box of its own, short names lie in the node, and lists of permissions are shared.

use std::sync::Arc;

use hashbrown::HashTable;

use crate::acl_lists::AclId;
use crate::usage::Usage;
use crate::{SessionId, Zxid};

/// The place of a node in the arena. It says nothing to other replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) u32);

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    /// The root is its own parent.
    pub(crate) parent: NodeId,
    pub(crate) name: Name,
    pub(crate) data: Data,
    pub(crate) acl: AclId,
    pub(crate) life: Life,
    pub(crate) czxid: Zxid,
    pub(crate) mzxid: Zxid,
    pub(crate) ctime_ms: i64,
    pub(crate) mtime_ms: i64,
    pub(crate) version: i32,
    pub(crate) aversion: i32,
    /// Only of nodes that have or had a child.
    pub(crate) directory: Option<Box<Directory>>,
}

/// What a node knows of its children.
#[derive(Debug)]
pub(crate) struct Directory {
    /// When a child was last created or deleted.
    pub(crate) pzxid: Zxid,
    /// Children ever created: the next sequence number. ZooKeeper keeps 32 bits of it; here it goes on.
    pub(crate) created: u64,
    pub(crate) children: ChildTable,
    /// Of everything below.
    pub(crate) below: Usage,
    /// Of the names of the children, in all.
    pub(crate) name_bytes: usize,
}

impl Node {
    pub(crate) fn child_count(&self) -> usize {
        self.directory.as_ref().map_or(0, |directory| directory.children.len())
    }

    pub(crate) fn created(&self) -> u64 {
        self.directory.as_ref().map_or(0, |directory| directory.created)
    }

    pub(crate) fn below(&self) -> Usage {
        self.directory.as_ref().map_or_else(Usage::default, |directory| directory.below)
    }

    pub(crate) fn pzxid(&self) -> Zxid {
        self.directory.as_ref().map_or(self.czxid, |directory| directory.pzxid)
    }

    /// The directory, made if this node never had a child.
    pub(crate) fn directory_mut(&mut self) -> &mut Directory {
        let czxid = self.czxid;
        self.directory.get_or_insert_with(|| {
            let children = ChildTable::default();
            Box::new(Directory { pzxid: czxid, created: 0, children, below: Usage::default(), name_bytes: 0 })
        })
    }

    /// The moment from which the node may be reaped, or `None` as long as that depends on something else than time.
    pub(crate) fn due_from_ms(&self) -> Option<i64> {
        if self.child_count() > 0 {
            return None;
        }
        match self.life.kind() {
            Kind::Container if self.created() > 0 => Some(i64::MIN),
            // Due is what was not set for longer than its ttl.
            Kind::Ttl { ttl_ms } => Some(self.mtime_ms.saturating_add_unsigned(ttl_ms).saturating_add(1)),
            Kind::Persistent | Kind::Container | Kind::Ephemeral(_) => None,
        }
    }
}

/// When a node goes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Persistent,
    Container,
    Ephemeral(SessionId),
    Ttl { ttl_ms: u64 },
}

/// A [`Kind`] in eight bytes, packed as ZooKeeper packs it into `ephemeralOwner`: 0 is persistent, the top bit alone
/// a container, a top byte of 0xff a ttl, and everything else the owner of an ephemeral.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life(u64);

const CONTAINER: u64 = 1 << 63;
const TTL_MARK: u64 = 0xff << 56;

/// The longest ttl, in milliseconds.
pub(crate) const TTL_MS_MAX: u64 = (1 << 40) - 1;

impl Life {
    pub(crate) const PERSISTENT: Self = Self(0);

    pub(crate) fn new(kind: Kind) -> Self {
        Self(match kind {
            Kind::Persistent => 0,
            Kind::Container => CONTAINER,
            Kind::Ephemeral(owner) => owner.0,
            Kind::Ttl { ttl_ms } => TTL_MARK | ttl_ms,
        })
    }

    pub(crate) fn kind(self) -> Kind {
        match self.0 {
            0 => Kind::Persistent,
            CONTAINER => Kind::Container,
            packed if packed & TTL_MARK == TTL_MARK => Kind::Ttl { ttl_ms: packed & !TTL_MARK },
            owner => Kind::Ephemeral(SessionId(owner)),
        }
    }

    pub(crate) fn from_packed(packed: u64) -> Self {
        Self(packed)
    }

    pub(crate) fn packed(self) -> u64 {
        self.0
    }

    /// The owner of an ephemeral node, [`SessionId::NONE`] of all others.
    pub(crate) fn owner(self) -> SessionId {
        match self.kind() {
            Kind::Ephemeral(owner) => owner,
            Kind::Persistent | Kind::Container | Kind::Ttl { .. } => SessionId::NONE,
        }
    }
}

/// The content of a node, shared with whoever reads it, and its hash. Null is not empty: clients of ZooKeeper tell them
/// apart.
#[derive(Clone, Debug, Default)]
pub(crate) struct Data {
    /// `None` for both null and empty.
    bytes: Option<Arc<[u8]>>,
    /// 0 for empty, [`NULL`] for null.
    hash: u64,
}

const NULL: u64 = 1;

impl Data {
    /// Copies `bytes`: a slice of a received frame would keep the whole frame in memory.
    pub(crate) fn copy_of(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else { return Self { bytes: None, hash: NULL } };
        if bytes.is_empty() {
            return Self::default();
        }
        Self { bytes: Some(bytes.into()), hash: xxhash_rust::xxh3::xxh3_64(bytes) }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        self.bytes.as_deref().unwrap_or_default()
    }

    pub(crate) fn shared(&self) -> Option<bytes::Bytes> {
        match &self.bytes {
            Some(bytes) => Some(bytes::Bytes::from_owner(Arc::clone(bytes))),
            None => (!self.is_null()).then(bytes::Bytes::new),
        }
    }

    pub(crate) fn bytes(&self) -> i64 {
        self.as_slice().len() as i64
    }

    pub(crate) fn is_null(&self) -> bool {
        self.bytes.is_none() && self.hash == NULL
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}

const SHORT_NAME_BYTES_MAX: usize = 22;

/// The last component of a path. Always UTF-8.
#[derive(Clone, Debug)]
pub(crate) enum Name {
    Short { length: u8, bytes: [u8; SHORT_NAME_BYTES_MAX] },
    Long(Box<str>),
}

impl Name {
    pub(crate) fn new(text: &str) -> Self {
        if text.len() > SHORT_NAME_BYTES_MAX {
            return Self::Long(text.into());
        }
        let mut bytes = [0; SHORT_NAME_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Self::Short { length: text.len() as u8, bytes }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { length, bytes } => &bytes[..usize::from(*length)],
            Self::Long(text) => text.as_bytes(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Short { .. } => std::str::from_utf8(self.as_bytes()).expect("a name is made of a str"),
            Self::Long(text) => text,
        }
    }
}

/// The children of one node, found by the hash of their names. Keeps part of the hash, so that growing and most
/// misses touch no node.
#[derive(Debug, Default)]
pub(crate) struct ChildTable(HashTable<Child>);

#[derive(Clone, Copy, Debug)]
struct Child {
    hash: u32,
    id: NodeId,
}

impl ChildTable {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// In no order that could be told to anybody.
    pub(crate) fn iter(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.0.iter().map(|child| child.id)
    }

    pub(crate) fn find(&self, hash: u32, mut is_it: impl FnMut(NodeId) -> bool) -> Option<NodeId> {
        self.0.find(spread(hash), |child| child.hash == hash && is_it(child.id)).map(|child| child.id)
    }

    /// Makes room for so many in all.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.0.reserve(count.saturating_sub(self.0.len()), |child| spread(child.hash));
    }

    /// The caller knows that the name is not there yet.
    pub(crate) fn insert(&mut self, hash: u32, id: NodeId) {
        self.0.insert_unique(spread(hash), Child { hash, id }, |child| spread(child.hash));
    }

    pub(crate) fn remove(&mut self, hash: u32, id: NodeId) {
        if let Ok(entry) = self.0.find_entry(spread(hash), |child| child.id == id) {
            entry.remove();
        }
        if self.0.is_empty() {
            // A parent that once had many children gives the memory back.
            self.0 = HashTable::new();
        } else if self.0.len() < self.0.capacity() / 8 {
            self.0.shrink_to(self.0.len() * 2, |child| spread(child.hash));
        }
    }
}

/// The table looks at the lowest and the seven highest bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_small() {
        assert!(size_of::<Node>() <= 112, "{}", size_of::<Node>());
    }

    #[test]
    fn every_kind_survives_packing() {
        let kinds = [
            Kind::Persistent,
            Kind::Container,
            Kind::Ephemeral(SessionId(1 << 56 | 1)),
            Kind::Ephemeral(SessionId(0x80 << 56 | 1)),
            Kind::Ephemeral(SessionId(0xfe << 56 | 0x00ff_ffff_ffff_ffff)),
            Kind::Ttl { ttl_ms: 1 },
            Kind::Ttl { ttl_ms: TTL_MS_MAX },
        ];

        for kind in kinds {
            assert_eq!(Life::new(kind).kind(), kind);
        }
    }

    #[test]
    fn names_of_any_length_come_back() {
        for name in ["", "a", "1234567890123456789012", "12345678901234567890123", "žluťoučký kůň"] {
            assert_eq!(Name::new(name).as_str(), name);
        }
    }
}
