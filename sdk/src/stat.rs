//! What is known of a node beside its data.

use quorate_proto::v1;

/// The name of a session within its ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl std::fmt::Display for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// What is known of a node beside its data. The names and meanings are ZooKeeper's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stat {
    /// Zxid of the change that created the node. It grows with every creation, so it serves as a fencing token.
    pub czxid: u64,
    /// Zxid of the last change of the data.
    pub mzxid: u64,
    /// Zxid of the last creation or deletion of a direct child.
    pub pzxid: u64,
    /// The leader's wall clock at creation, in milliseconds since 1970.
    pub ctime_ms: i64,
    /// The leader's wall clock at the last change of the data, in milliseconds since 1970.
    pub mtime_ms: i64,
    /// Counts changes of the data.
    pub version: i32,
    /// Counts creations and deletions of children.
    pub cversion: i32,
    /// Counts changes of the access control list.
    pub aversion: i32,
    /// The session an ephemeral node goes with; none for other nodes.
    pub ephemeral_owner: Option<SessionId>,
    /// Bytes of data.
    pub data_length: u32,
    /// Direct children.
    pub num_children: u32,
}

impl From<v1::Stat> for Stat {
    fn from(stat: v1::Stat) -> Self {
        Self {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            pzxid: stat.pzxid,
            ctime_ms: stat.ctime_ms,
            mtime_ms: stat.mtime_ms,
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            ephemeral_owner: (stat.ephemeral_owner != 0).then_some(SessionId(stat.ephemeral_owner)),
            data_length: stat.data_length,
            num_children: stat.num_children,
        }
    }
}
