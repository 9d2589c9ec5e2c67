//! What members agree on: one command is one request to change the replicated state.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Acl, Identity, MemberId, SessionId, Zxid};

/// One command of the log, evaluated once, when it is applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Who proposed it, and as which of its proposals.
    pub lane: Lane,
    /// The leader's wall clock, milliseconds since 1970. May go back between leaders.
    pub stamp_ms: i64,
    /// On whose behalf.
    pub author: Author,
    /// What is to be done.
    pub op: Op,
}

/// The place of a proposal among those of one start of one member.
///
/// A lane is what makes re-sending safe: a proposal is applied only in its turn, once. One that was applied
/// before is a repeat, one whose predecessor is missing is a gap; neither changes anything. A lane with a
/// greater incarnation ends the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The proposing member.
    pub member: MemberId,
    /// Counts the starts of that member.
    pub incarnation: u64,
    /// From 1, without holes.
    pub seq: u64,
}

/// On whose behalf a command is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Author {
    /// The session; [`SessionId::NONE`] for the member's own commands.
    pub session: SessionId,
    /// The attachment the session had when it sent this. An older one is refused as moved.
    pub attachment: u64,
    /// Set by doors whose clients number their writes.
    pub write: Option<WriteNumber>,
    /// What the connection has authenticated as.
    /// Shared: every write of a connection says the same.
    pub identities: Arc<[Identity]>,
}

/// The number of a write among those of its session. Only create, set, delete and multi have one: the end of a
/// session needs none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteNumber {
    /// From 1, without holes, over the whole life of the session.
    pub number: u64,
    /// Outcomes up to this number need not be kept any longer.
    pub answered: u64,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Makes a node.
    Create(Create),
    /// Replaces the data of a node.
    SetData(SetData),
    /// Replaces the access control list of a node.
    SetAcl(SetAcl),
    /// Removes a node.
    Delete(Delete),
    /// All or nothing, each seeing the effects of those before it, under one zxid.
    Multi(Vec<MultiOp>),
    /// Begins a session, attached to the proposing member. Refused with `BadArguments` for a password that has not 16
    /// bytes.
    OpenSession {
        /// Already clamped by the door.
        timeout_ms: u32,
        /// 16 random bytes.
        password: Bytes,
        /// For people who look at the session list.
        client_name: String,
    },
    /// Attaches a session to the proposing member and numbers the attachment. The password is checked before anything
    /// else.
    AttachSession {
        /// The session to attach.
        session: SessionId,
        /// Must be the session's own.
        password: Bytes,
        /// A resume may change it.
        timeout_ms: u32,
    },
    /// Ends the author's session and deletes its ephemeral nodes.
    CloseSession,
    /// Ends a session that was not heard from, unless it was attached again since `attachment`. Never refused: if the
    /// session has ended already, there is nothing to do.
    ExpireSession {
        /// The session to end.
        session: SessionId,
        /// The attachment the leader saw when it decided.
        attachment: u64,
    },
    /// Deletes a container or ttl node, if it is still the same one and still due. Refused with `NoNode` if it is
    /// another one, `NotEmpty` if it has got a child, and `BadVersion` if it was set since or is of another kind.
    Reap(Reap),
    /// Makes `/zookeeper/config` say who the members are, behind which stands the zxid at which that was said. Does
    /// nothing if it says so already.
    PublishConfig {
        /// A line for each, or nothing where there is only one.
        servers: String,
    },
    /// Remembers the disk of a member, and names the ensemble if it has no name.
    RegisterMember {
        /// The member.
        member: MemberId,
        /// Random, made with its data directory.
        disk_id: u64,
        /// The name to give.
        ensemble_id: u64,
    },
}

/// How a node comes into being and when it goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CreateMode {
    /// Stays until deleted.
    #[default]
    Persistent,
    /// Goes with its session; has no children.
    Ephemeral,
    /// The parent's counter is appended to the name.
    PersistentSequential,
    /// Both of these.
    EphemeralSequential,
    /// Reaped when its last child has gone.
    Container,
    /// Reaped when childless and not set for this long.
    PersistentWithTtl {
        /// 1 to 2^40-1.
        ttl_ms: u64,
    },
    /// With the parent's counter appended.
    PersistentSequentialWithTtl {
        /// 1 to 2^40-1.
        ttl_ms: u64,
    },
}

/// Makes a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Create {
    /// As the client sent it; validated when applied, because the order of checks decides the refusal.
    pub path: String,
    /// The content; null is not empty.
    pub data: Option<Bytes>,
    /// How it lives.
    pub mode: CreateMode,
    /// Must not be empty; doors put in world:anyone where the client gave none.
    pub acl: Vec<Acl>,
}

/// Replaces the data of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct SetData {
    /// The node.
    pub path: String,
    /// The new content; null is not empty.
    pub data: Option<Bytes>,
    /// The version the node must have; -1 takes any.
    pub version: i32,
}

/// Replaces the access control list of a node.
#[derive(Clone, Debug, PartialEq)]
pub struct SetAcl {
    /// The node.
    pub path: String,
    /// The new list.
    pub acl: Vec<Acl>,
    /// The aversion the node must have; -1 takes any.
    pub version: i32,
}

/// Removes a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// The node.
    pub path: String,
    /// The version the node must have; -1 takes any.
    pub version: i32,
}

/// Requires that a node exists and has a version.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// The node.
    pub path: String,
    /// The version it must have; -1 takes any.
    pub version: i32,
}

/// One operation of a multi.
#[derive(Clone, Debug, PartialEq)]
pub enum MultiOp {
    /// Makes a node.
    Create(Create),
    /// Replaces the data of a node.
    SetData(SetData),
    /// Removes a node.
    Delete(Delete),
    /// Requires a node and its version.
    Check(Check),
}

/// A node that the leader found due, named so that only this very node can be reaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reap {
    /// Where it is.
    pub path: String,
    /// When it was made.
    pub czxid: Zxid,
}
