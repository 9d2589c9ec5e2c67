//! What is different after a command, for those who watch.

use crate::{Acl, SessionId};
use std::sync::Arc;

/// One difference. A multi makes several, all with the zxid of its command.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A node came into being; its parent has one child more.
    Created {
        /// The node.
        path: String,
    },
    /// The data of a node was set, perhaps to the same bytes.
    DataChanged {
        /// The node.
        path: String,
    },
    /// A node has gone; its parent has one child less.
    Deleted {
        /// The node.
        path: String,
        /// Who was allowed to see it.
        acl: Arc<[Acl]>,
    },
    /// A quota's soft limit is passed: nobody is refused anything for that, but somebody may want to know.
    QuotaPassed {
        /// The root of the subtree.
        subtree: String,
        /// What there is in it now.
        nodes: u64,
        /// Their data.
        bytes: u64,
    },
    /// A session has ended. Its ephemeral nodes were reported as deleted before this.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// How it came to that.
        end: SessionEnd,
    },
    /// A session was attached: every older attachment is stale.
    SessionAttached {
        /// The session.
        session: SessionId,
        /// Its newest attachment.
        attachment: u64,
    },
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// By its client.
    Closed,
    /// Because it was not heard from.
    Expired,
}
