//! What the applier tells the leader's task: sessions that began, moved or ended, and how far its own lane is.
//!
//! Not a channel, because the applier must never wait. Empty while this member does not lead; what is collected while
//! it leads is taken at every turn of the leader's task.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;
use quorate_tree::{SessionId, Tree};

use super::{lane::OpenLane, leader::LEADER_LANE};

/// Written by the applier, read by the leader's task.
#[derive(Debug, Default)]
pub(crate) struct SessionNews {
    leads: AtomicBool,
    sessions: Mutex<Vec<SessionId>>,
    lane: Mutex<Option<Arc<OpenLane>>>,
}

impl SessionNews {
    /// A session began, moved or ended.
    pub(crate) fn tell(&self, session: SessionId) {
        if self.leads.load(Ordering::Acquire) {
            self.sessions.lock().push(session);
        }
    }

    /// Commands of a leader were applied.
    pub(crate) fn leader_applied(&self, tree: &Tree) {
        let lane = self.lane.lock().clone();
        if let Some(lane) = lane
            && let Some(next) = tree.next_in_lane(LEADER_LANE, lane.incarnation())
        {
            lane.forget_below(next);
        }
    }

    pub(super) fn begin(&self, lane: &Arc<OpenLane>) {
        *self.lane.lock() = Some(lane.clone());
        self.leads.store(true, Ordering::Release);
    }

    pub(super) fn end(&self) {
        self.leads.store(false, Ordering::Release);
        self.lane.lock().take();
        self.sessions.lock().clear();
    }

    pub(super) fn take(&self) -> Vec<SessionId> {
        std::mem::take(&mut *self.sessions.lock())
    }
}
