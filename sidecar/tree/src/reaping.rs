//! Which nodes may be reaped from when: childless containers that had a child, and childless nodes with a ttl.
//!
//! Kept in the order of that moment, so that finding the due ones looks at no others. It follows from the nodes, so
//! it is part of no snapshot.

use std::collections::BTreeSet;

use crate::node::NodeId;

/// The nodes that wait for nothing but time.
#[derive(Debug, Default)]
pub(crate) struct Reaping(BTreeSet<(i64, NodeId)>);

impl Reaping {
    /// Moves a node to where it belongs now.
    pub(crate) fn update(&mut self, id: NodeId, before: Option<i64>, after: Option<i64>) {
        if before == after {
            return;
        }
        if let Some(due_from_ms) = before {
            self.0.remove(&(due_from_ms, id));
        }
        if let Some(due_from_ms) = after {
            self.0.insert((due_from_ms, id));
        }
    }

    /// The nodes that are due at `now_ms`, those that are due for longest first.
    pub(crate) fn due(&self, now_ms: i64) -> impl Iterator<Item = NodeId> + '_ {
        self.0.range(..=(now_ms, NodeId(u32::MAX))).map(|(_, id)| *id)
    }
}
