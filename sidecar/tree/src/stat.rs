//! What is known of a node beside its data.

use crate::{SessionId, Zxid};

/// The names and meanings are ZooKeeper's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// When the node was created. Unique among creations, so it serves as a fencing token.
    pub czxid: Zxid,
    /// When the data was last set.
    pub mzxid: Zxid,
    /// When a direct child was last created or deleted; at creation the czxid.
    pub pzxid: Zxid,
    /// The leader's wall clock at creation.
    pub ctime_ms: i64,
    /// The leader's wall clock when the data was last set.
    pub mtime_ms: i64,
    /// Counts settings of the data.
    pub version: i32,
    /// Counts creations and deletions of children.
    pub cversion: i32,
    /// Counts settings of the ACL.
    pub aversion: i32,
    /// The owner of an ephemeral node; [`SessionId::NONE`] for all others.
    pub ephemeral_owner: SessionId,
    /// Bytes of data.
    pub data_length: u32,
    /// Direct children now.
    pub num_children: u32,
}
