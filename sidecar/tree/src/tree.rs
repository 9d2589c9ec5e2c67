//! The tree itself: apply is the only mutator.

use bytes::Bytes;

use crate::{Acl, Applied, Command, Identity, Limits, MemberId, Reap, Refused, SessionId, Stat, Zxid};

/// The replicated state of an ensemble.
#[derive(Debug)]
pub struct Tree {
    zxid: Zxid,
    limits: Limits,
}

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its id.
    pub session: SessionId,
    /// The granted timeout.
    pub timeout_ms: u32,
    /// Its newest attachment.
    pub attachment: u64,
    /// The member it is attached to.
    pub member: MemberId,
    /// The write number expected next.
    pub next_write: u64,
    /// Ephemeral nodes it owns.
    pub ephemerals: usize,
    /// Who the client said it is.
    pub client_name: String,
}

impl Tree {
    /// The tree of a new ensemble: the reserved nodes and nothing else.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { zxid: Zxid(0), limits }
    }

    /// Applies one command, which gets the next zxid.
    pub fn apply(&mut self, command: &Command) -> Applied {
        let _ = command;
        self.zxid = self.zxid.next();
        Applied::Repeat
    }

    /// The last command applied.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The bounds it holds itself to.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A hash of the whole replicated state, kept incrementally.
    #[must_use]
    pub fn digest(&self) -> u64 {
        0
    }

    /// Nodes, the reserved ones included.
    #[must_use]
    pub fn node_count(&self) -> usize {
        0
    }

    /// Data and stat of a node.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read it.
    pub fn get(&self, path: &str, identities: &[Identity]) -> Result<(Bytes, Stat), Refused> {
        let _ = (path, identities);
        Err(crate::Refusal::NoNode.into())
    }

    /// The stat of a node, if it exists.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read it.
    pub fn stat(&self, path: &str, identities: &[Identity]) -> Result<Stat, Refused> {
        let _ = (path, identities);
        Err(crate::Refusal::NoNode.into())
    }

    /// The names of a node's children in byte order, and its stat.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read it.
    pub fn children(&self, path: &str, identities: &[Identity]) -> Result<(Vec<String>, Stat), Refused> {
        let _ = (path, identities);
        Err(crate::Refusal::NoNode.into())
    }

    /// The access control list of a node, and its stat. Without ADMIN, digests are shown as `user:x`.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read or administer it.
    pub fn acl(&self, path: &str, identities: &[Identity]) -> Result<(Vec<Acl>, Stat), Refused> {
        let _ = (path, identities);
        Err(crate::Refusal::NoNode.into())
    }

    /// A live session.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<SessionView> {
        let _ = session;
        None
    }

    /// Whether `password` belongs to this live session, compared in constant time.
    #[must_use]
    pub fn password_matches(&self, session: SessionId, password: &[u8]) -> bool {
        let _ = (session, password);
        false
    }

    /// Every live session, by id.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> + '_ {
        std::iter::empty()
    }

    /// The ephemeral nodes of a session, in byte order.
    #[must_use]
    pub fn ephemerals(&self, session: SessionId) -> Vec<String> {
        let _ = session;
        Vec::new()
    }

    /// The disk that is registered for a member.
    #[must_use]
    pub fn disk_of(&self, member: MemberId) -> Option<u64> {
        let _ = member;
        None
    }

    /// The name of the ensemble, once it has one.
    #[must_use]
    pub fn ensemble_id(&self) -> Option<u64> {
        None
    }

    /// The lane seq expected next of a start of a member: 1 if it has sent nothing yet, `None` if a later start of
    /// that member has been heard of.
    #[must_use]
    pub fn next_in_lane(&self, member: MemberId, incarnation: u64) -> Option<u64> {
        let _ = (member, incarnation);
        None
    }

    /// Up to `limit` container and ttl nodes that are due at `now_ms`.
    #[must_use]
    pub fn due_for_reaping(&self, now_ms: i64, limit: usize) -> Vec<Reap> {
        let _ = (now_ms, limit);
        Vec::new()
    }

    /// Marks the state as it is now as the content of a snapshot, without copying it. Ends an earlier freeze.
    pub fn freeze(&mut self) {}

    /// The next part of the frozen state, visiting at most `nodes_max` nodes; `None` when all has been given out,
    /// which ends the freeze. Between calls, commands may be applied: the parts still show the frozen state.
    pub fn frozen_part(&mut self, nodes_max: usize) -> Option<Bytes> {
        let _ = nodes_max;
        None
    }

    /// Ends a freeze early.
    pub fn thaw(&mut self) {}
}

/// Builds a tree from the parts of a snapshot.
#[derive(Debug)]
pub struct TreeLoader {
    tree: Tree,
}

/// Why parts do not make a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A part does not decode.
    #[error("snapshot part {part} does not decode: {detail}")]
    Malformed {
        /// Counted from 0.
        part: u64,
        /// What is wrong.
        detail: String,
    },
    /// Written by a later version.
    #[error("snapshot format {found} is not known here (this version reads up to {known})")]
    Format {
        /// What the snapshot says.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// Parts are missing.
    #[error("the snapshot ends before its last part")]
    Incomplete,
    /// The content is not what was written.
    #[error("the snapshot's digest is {expected:016x}, its content has {found:016x}")]
    Digest {
        /// What the snapshot says.
        expected: u64,
        /// What was computed.
        found: u64,
    },
}

impl TreeLoader {
    /// Starts with nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { tree: Tree::new(limits) }
    }

    /// Adds the next part.
    ///
    /// # Errors
    /// The part does not decode, or its format is not known.
    pub fn add(&mut self, part: &[u8]) -> Result<(), LoadError> {
        let _ = part;
        Ok(())
    }

    /// The tree, if all parts were there and the digest is right.
    ///
    /// # Errors
    /// Parts are missing, or the content is not what was written.
    pub fn finish(self) -> Result<Tree, LoadError> {
        Ok(self.tree)
    }
}
