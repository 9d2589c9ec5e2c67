//! How things stand with a member, for operators and for the doors.

use std::fmt;

use quorate_tree::MemberId;

/// What a member is to the ensemble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    Leader,
    #[default]
    Follower,
    /// No leader is known and this member may become one.
    Candidate,
    /// Follows without a vote.
    Observer,
}

/// A moment's view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) role: Role,
    pub(crate) leader: Option<MemberId>,
    pub(crate) term: u64,
    pub(crate) last_log_index: u64,
    pub(crate) commit_index: u64,
    /// Of the log on disk.
    pub(crate) log_bytes: u64,
    pub(crate) applied_index: u64,
    pub(crate) snapshot_index: u64,
    pub(crate) members: Vec<MemberStatus>,
    /// Members that do not speak with this one, or it with them, and why.
    pub(crate) quarrels: Vec<String>,
}

/// One member of the ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberStatus {
    pub(crate) member: MemberId,
    pub(crate) peer_address: String,
    pub(crate) voter: bool,
    /// The entries it is known to have: only the leader knows it of others.
    pub(crate) matched_index: Option<u64>,
}

/// Whether clients can be served, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// Nothing stands in the way if empty.
    pub(crate) missing: Vec<NotReady>,
}

/// What stands in the way of serving clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NotReady {
    /// The ensemble has not accepted this member's disk yet.
    NotJoined,
    /// No leader is known.
    NoLeader,
    /// The copy is behind what the leader has committed.
    CatchingUp,
    /// This member's disk was replaced, and has not caught up yet.
    NoVote,
    /// Too few disks are registered for writes to be safe.
    TooFewDisks,
    /// This member's state differs from the others'.
    Diverged,
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJoined => "the ensemble has not accepted this member's disk yet",
            Self::NoLeader => "no leader is known",
            Self::CatchingUp => "this member is behind what the leader has committed",
            Self::NoVote => "this member has no vote: its disk was replaced and has not caught up yet",
            Self::TooFewDisks => "fewer than a majority of disks are registered: start the other members",
            Self::Diverged => {
                "this member's state differs from the others': it must rejoin with an empty data directory"
            }
        })
    }
}

impl Readiness {
    /// Whether clients can be served.
    pub(crate) fn is_ready(&self) -> bool {
        self.missing.is_empty()
    }
}
