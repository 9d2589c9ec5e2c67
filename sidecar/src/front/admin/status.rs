//! What the operators' door asks of the member behind it, in its own words.

use std::fmt;

use quorate_tree::{MemberId, SessionId, Zxid};
use serde::{Serialize, Serializer};

use crate::telemetry::{self, metrics::Levels};

/// The member behind the door. Each answer is taken at once and waits for nobody: not for a quorum, not for a disk.
pub(crate) trait StatusSource: Send + Sync + 'static {
    /// Where this member stands.
    fn status(&self) -> Status;

    /// What this member needs to serve clients, and whether it has it. It is ready when every check passes.
    fn readiness(&self) -> Vec<Check>;

    /// What this process needs to make progress, whatever the others do. Only a restart cures a check that fails.
    fn liveness(&self) -> Vec<Check>;

    /// The live sessions of the ensemble with ids beyond `after`, by id, at most `limit` of them.
    fn sessions(&self, after: SessionId, limit: usize) -> Vec<SessionStatus>;

    /// The levels to serve as metrics.
    fn levels(&self) -> Levels;
}

/// Where a member stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    #[serde(serialize_with = "member")]
    pub(crate) id: MemberId,
    pub(crate) role: Role,
    #[serde(serialize_with = "member_or_null")]
    pub(crate) leader: Option<MemberId>,
    pub(crate) term: u64,
    #[serde(serialize_with = "zxid")]
    pub(crate) zxid: Zxid,
    /// Of the tree at that zxid; text, because JSON readers round numbers of 64 bits.
    #[serde(serialize_with = "hex")]
    pub(crate) digest: u64,
    pub(crate) sessions: u64,
    pub(crate) znodes: u64,
    pub(crate) watches: u64,
    pub(crate) members: Vec<MemberStatus>,
    pub(crate) log_index: u64,
    pub(crate) snapshot_index: u64,
    pub(crate) connections: u64,
}

/// Where a member stands, whether it serves clients, and which build it is: what `/api/v1/status` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StatusReport {
    #[serde(flatten)]
    pub(crate) status: Status,
    pub(crate) version: String,
    pub(crate) ready: bool,
    /// One clause a failed check.
    pub(crate) not_ready: Vec<String>,
}

/// What a member is to the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    Follower,
    Observer,
    Candidate,
}

/// A member as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MemberStatus {
    #[serde(serialize_with = "member")]
    pub(crate) id: MemberId,
    pub(crate) peer_address: String,
    pub(crate) voter: bool,
    /// Log entries it is known to have; only the leader knows it of others.
    pub(crate) matched_index: Option<u64>,
}

/// One thing that must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) ok: bool,
    /// How it is, as a clause: «no leader is known», «3 entries behind the leader».
    pub(crate) detail: String,
}

/// A session of the ensemble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct SessionStatus {
    #[serde(serialize_with = "display")]
    pub(crate) id: SessionId,
    pub(crate) timeout_ms: u32,
    /// The member it was last attached to.
    #[serde(serialize_with = "member")]
    pub(crate) member: MemberId,
    pub(crate) attachment: u64,
    pub(crate) ephemerals: u64,
    pub(crate) client_name: String,
    pub(crate) connected_here: bool,
}

impl dyn StatusSource {
    /// Everything there is to say of the member now.
    pub(crate) fn report(&self) -> StatusReport {
        let failed = self.readiness().into_iter().filter(|check| !check.ok);
        let not_ready: Vec<_> = failed.map(|check| check.detail).collect();
        let ready = not_ready.is_empty();
        StatusReport { status: self.status(), version: telemetry::VERSION.into(), ready, not_ready }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Observer => "observer",
            Self::Candidate => "candidate",
        })
    }
}

impl Serialize for Role {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn member<S: Serializer>(id: &MemberId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(id.0)
}

fn member_or_null<S: Serializer>(id: &Option<MemberId>, serializer: S) -> Result<S::Ok, S::Error> {
    id.map(|id| id.0).serialize(serializer)
}

fn zxid<S: Serializer>(zxid: &Zxid, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(zxid.0)
}

fn hex<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("0x{number:016x}"))
}

fn display<S: Serializer>(id: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
