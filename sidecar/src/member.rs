//! One member as operators see it: what the doors show of all parts together.

use std::sync::Arc;

use quorate_tree::{MemberId, SessionView, Zxid};

use crate::{
    ensemble::{Ensemble, NotReady, Status},
    replica::Replica,
};

/// A member's parts, for the doors that show them.
#[derive(Debug)]
pub(crate) struct Member {
    id: MemberId,
    ensemble: Ensemble,
    replica: Arc<Replica>,
}

/// A moment's view. `zxid`, `digest`, `sessions` and `znodes` belong to one state.
#[derive(Clone, Debug)]
pub(crate) struct MemberView {
    pub(crate) id: MemberId,
    pub(crate) status: Status,
    pub(crate) zxid: Zxid,
    pub(crate) digest: u64,
    pub(crate) sessions: usize,
    pub(crate) znodes: usize,
    pub(crate) watches: usize,
    /// Sessions whose stream is open here.
    pub(crate) connections: usize,
    /// What stands in the way of serving clients.
    pub(crate) not_ready: Vec<NotReady>,
}

impl Member {
    pub(crate) fn new(id: MemberId, ensemble: Ensemble, replica: Arc<Replica>) -> Self {
        Self { id, ensemble, replica }
    }

    pub(crate) fn ensemble(&self) -> &Ensemble {
        &self.ensemble
    }

    pub(crate) fn replica(&self) -> &Replica {
        &self.replica
    }

    pub(crate) fn view(&self) -> MemberView {
        let (zxid, digest, sessions, znodes) =
            self.replica.read(|tree| (tree.zxid(), tree.digest(), tree.session_count(), tree.node_count()));
        MemberView {
            id: self.id,
            status: self.ensemble.status(),
            zxid,
            digest,
            sessions,
            znodes,
            watches: self.replica.watch_count(),
            connections: self.replica.attached_sessions().len(),
            not_ready: self.ensemble.readiness().borrow().missing.clone(),
        }
    }

    /// Up to `limit` sessions of the ensemble, and whether each is served here.
    pub(crate) fn sessions(&self, limit: usize) -> Vec<(SessionView, bool)> {
        let here: std::collections::HashSet<_> = self.replica.attached_sessions().into_iter().collect();
        let sessions: Vec<_> = self.replica.read(|tree| tree.sessions().take(limit).collect());
        sessions
            .into_iter()
            .map(|session| {
                let connected = here.contains(&session.session);
                (session, connected)
            })
            .collect()
    }
}
