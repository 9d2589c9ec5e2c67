//! How much is below a node: kept by every node that has children, so that nobody has to count.
//!
//! It follows from the nodes, so it is part of no snapshot and no digest.

use std::fmt;

/// Nodes, and the bytes of their data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) nodes: u64,
    pub(crate) bytes: u64,
}

impl Usage {
    pub(crate) fn after(self, nodes: i64, bytes: i64) -> Self {
        let sum = |now: u64, more| now.checked_add_signed(more).expect("what goes was counted when it came");
        Self { nodes: sum(self.nodes, nodes), bytes: sum(self.bytes, bytes) }
    }
}

/// As ZooKeeper's tools read it.
impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "count={},bytes={}", self.nodes, self.bytes)
    }
}
