//! What becomes of a command.

use crate::{Change, SessionId, Stat, Zxid};

/// What applying a command did.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// It was its turn.
    Fresh {
        /// The command that the outcome belongs to: this one, or for a write that was sent again the one that
        /// settled it, which is what its author must be told.
        zxid: Zxid,
        /// The answer to its author.
        outcome: Outcome,
        /// What is different now, in order.
        changes: Vec<Change>,
    },
    /// The lane is further on: this proposal was applied before. Nothing happened.
    Repeat,
    /// A proposal of the lane is missing before this one. Nothing happened; the member sends both again.
    Gap,
}

/// The answer to the author of a command. A refusal is an answer like any other.
pub type Outcome = Result<Reply, Refused>;

/// A command that did what it was asked to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A node was made.
    Created {
        /// Its final path, with the sequence number if it has one.
        path: String,
        /// As of this change.
        stat: Stat,
    },
    /// Data or ACL were replaced.
    Stat(Stat),
    /// A deletion, a check, the end of a session.
    Done,
    /// One reply for each operation, in order.
    Multi(Vec<Reply>),
    /// A session was opened.
    Opened {
        /// Its id.
        session: SessionId,
        /// The granted timeout.
        timeout_ms: u32,
        /// Its first attachment.
        attachment: u64,
    },
    /// A session was attached.
    Attached {
        /// The granted timeout.
        timeout_ms: u32,
        /// The new attachment.
        attachment: u64,
        /// The write number the session expects next.
        next_write: u64,
    },
}

/// A command the rules said no to. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// Of a multi: the operation to blame, counted from 0.
    pub failed_op: Option<u32>,
}

/// Why the rules said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The node, or the parent of the node to create, does not exist.
    NoNode,
    /// The node exists.
    NodeExists,
    /// The node has another version.
    BadVersion,
    /// The node has children.
    NotEmpty,
    /// An ephemeral node cannot be a parent.
    NoChildrenForEphemerals,
    /// No ACL entry allows it.
    NoAuth,
    /// The ACL is empty or names what cannot be.
    InvalidAcl,
    /// A malformed path, an illegal ttl, a reserved node.
    BadArguments,
    /// A quota of an ancestor would be passed.
    QuotaExceeded,
    /// The session has ended, or never was.
    SessionExpired,
    /// The session was attached again since.
    SessionMoved,
    /// The password is not the session's.
    WrongPassword,
    /// A write number of the session is missing before this one; or it lies behind, and its author has said that
    /// its outcome need not be kept. Nothing happened, and the number is not used up.
    Gap,
    /// A bound would be passed (see [`crate::Limits`]).
    LimitExceeded,
}

impl From<Refusal> for Refused {
    fn from(reason: Refusal) -> Self {
        Self { reason, failed_op: None }
    }
}
