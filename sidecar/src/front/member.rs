//! One member as operators see it: what the gRPC and the HTTP door show of the parts below them.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use quorate_tree::{MemberId, SessionId};

use super::admin::{Check, MemberStatus, Role, SessionStatus, Status, StatusSource};
use crate::{
    ensemble::{self, Ensemble, NotReady, Part},
    replica::Replica,
    telemetry::metrics::Levels,
};

/// A member's parts, for the doors that show them.
#[derive(Debug)]
pub(crate) struct Member {
    id: MemberId,
    ensemble: Ensemble,
    replica: Arc<Replica>,
    since: Instant,
}

impl Member {
    pub(crate) fn new(id: MemberId, ensemble: Ensemble, replica: Arc<Replica>) -> Self {
        Self { id, ensemble, replica, since: Instant::now() }
    }

    pub(crate) fn ensemble(&self) -> &Ensemble {
        &self.ensemble
    }

    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    /// How long it has run.
    pub(crate) fn uptime(&self) -> Duration {
        self.since.elapsed()
    }

    /// What stands in the way of serving clients, in words.
    pub(super) fn not_ready(&self) -> Vec<String> {
        self.readiness().into_iter().filter(|check| !check.ok).map(|check| check.detail).collect()
    }
}

impl StatusSource for Member {
    fn status(&self) -> Status {
        // These four belong to one state.
        let (zxid, digest, sessions, znodes) =
            self.replica.read(|tree| (tree.zxid(), tree.digest(), tree.session_count(), tree.node_count()));
        let ensemble = self.ensemble.status();
        Status {
            id: self.id,
            role: role(ensemble.role),
            leader: ensemble.leader,
            term: ensemble.term,
            zxid,
            digest,
            sessions: sessions as u64,
            znodes: znodes as u64,
            watches: self.replica.watch_count() as u64,
            members: ensemble
                .members
                .into_iter()
                .map(|member| MemberStatus {
                    id: member.member,
                    peer_address: member.peer_address,
                    voter: member.voter,
                    matched_index: member.matched_index,
                })
                .collect(),
            log_index: ensemble.last_log_index,
            snapshot_index: ensemble.snapshot_index,
            connections: self.replica.attached_sessions().len() as u64,
        }
    }

    fn readiness(&self) -> Vec<Check> {
        let missing = self.ensemble.readiness().borrow().missing.clone();
        CHECKS
            .iter()
            .map(|(stands_in_the_way, name, well)| {
                let ok = !missing.contains(stands_in_the_way);
                Check { name, ok, detail: if ok { (*well).into() } else { stands_in_the_way.to_string() } }
            })
            .collect()
    }

    fn liveness(&self) -> Vec<Check> {
        // What fails ends the process by itself; this finds what hangs.
        SIGNS_OF_LIFE
            .iter()
            .map(|(part, name, well, ill)| {
                let ok = self.ensemble.beats(*part);
                Check { name, ok, detail: if ok { (*well).into() } else { (*ill).into() } }
            })
            .collect()
    }

    fn sessions(&self, after: SessionId, limit: usize) -> Vec<SessionStatus> {
        let here: HashSet<_> = self.replica.attached_sessions().into_iter().collect();
        self.replica.read(|tree| {
            tree.sessions()
                .filter(|view| view.session > after)
                .take(limit)
                .map(|view| SessionStatus {
                    id: view.session,
                    timeout_ms: view.timeout_ms,
                    member: view.member,
                    attachment: view.attachment,
                    ephemerals: view.ephemerals as u64,
                    client_name: view.client_name,
                    connected_here: here.contains(&view.session),
                })
                .collect()
        })
    }

    fn levels(&self) -> Levels {
        let ensemble = self.ensemble.status();
        let (zxid, sessions, znodes, node_bytes, ephemerals) = self.replica.read(|tree| {
            let ephemerals = tree.sessions().map(|session| session.ephemerals as u64).sum();
            (tree.zxid().0, tree.session_count() as u64, tree.node_count() as u64, tree.node_bytes(), ephemerals)
        });
        Levels {
            ready: self.ensemble.readiness().borrow().is_ready(),
            has_leader: ensemble.leader.is_some(),
            is_leader: ensemble.leader == Some(self.id),
            term: ensemble.term,
            zxid,
            commit_index: ensemble.commit_index,
            applied_index: ensemble.applied_index,
            snapshot_index: ensemble.snapshot_index,
            log_bytes: ensemble.log_bytes,
            sessions,
            sessions_here: self.replica.attached_sessions().len() as u64,
            znodes,
            node_bytes,
            watches: self.replica.watch_count() as u64,
            events_queued: self.replica.events_queued() as u64,
            ephemerals,
        }
    }
}

/// What stands in the way, the name of the check, and how it is when it does not.
const CHECKS: [(NotReady, &str, &str); 6] = [
    (NotReady::NotJoined, "joined", "this member's disk belongs to the ensemble"),
    (NotReady::NoLeader, "leader", "a leader is known"),
    (NotReady::CatchingUp, "caught_up", "this member has what the leader has committed"),
    (NotReady::NoVote, "vote", "this member has a vote"),
    (NotReady::TooFewDisks, "disks", "a majority of disks is registered"),
    (NotReady::Diverged, "state", "this member's state is that of the others"),
];

/// A part of this member, the name of its check, and how it is when it makes progress and when it does not.
const SIGNS_OF_LIFE: [(Part, &str, &str, &str); 3] = [
    (Part::Agreement, "agreement", "the agreement between members goes on", "the agreement between members hangs here"),
    (Part::Applier, "applier", "what is agreed is applied", "applying what is agreed hangs"),
    (Part::Log, "log", "the log is written", "writing the log hangs"),
];

fn role(role: ensemble::Role) -> Role {
    match role {
        ensemble::Role::Leader => Role::Leader,
        ensemble::Role::Follower => Role::Follower,
        ensemble::Role::Candidate => Role::Candidate,
        ensemble::Role::Observer => Role::Observer,
    }
}
