//! Tells whether this member can serve clients.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    barriers::BarrierBook,
    config::Timing,
    disks::DiskTable,
    forward::Contact,
    leadership::Leadership,
    standing::Standing,
    status::{NotReady, Readiness},
};
use crate::replica::Replica;

/// Publishes what stands in the way of serving clients.
pub(crate) struct ReadinessWatcher {
    pub(crate) standing: Arc<Standing>,
    pub(crate) disks: Arc<DiskTable>,
    pub(crate) barriers: Arc<BarrierBook>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) contact: watch::Receiver<Contact>,
    pub(crate) readiness: watch::Sender<Readiness>,
    pub(crate) timing: Timing,
}

impl ReadinessWatcher {
    /// Runs until stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // The term of the leader up to whose commits this copy was seen to be.
        let mut caught_up: Option<u64> = None;
        loop {
            let term = self.leadership.borrow().term;
            let connected = self.contact.borrow().fresh;
            if !connected {
                caught_up = None;
            }
            self.publish(connected, caught_up.is_some());
            let (barriers, replica) = (self.barriers.clone(), self.replica.clone());
            let catch_up = async move {
                let index = barriers.wait().await.ok()?;
                let mut applied = replica.applied();
                applied.wait_for(|applied| applied.log_index >= index).await.ok()?;
                Some(term)
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = self.contact.changed() => {}
                _ = self.leadership.changed() => {}
                reached = catch_up, if connected && caught_up.is_none() => caught_up = reached,
                // The disk table and the standing change now and then, and nobody waits for that.
                () = tokio::time::sleep(self.timing.reconcile_every()), if !connected || caught_up.is_some() => {}
            }
        }
        self.readiness.send_modify(|readiness| readiness.missing = vec![NotReady::NoLeader]);
    }

    fn publish(&self, connected: bool, caught_up: bool) {
        let obstacles = [
            (NotReady::NotJoined, !self.standing.joined()),
            (NotReady::NoLeader, !connected),
            (NotReady::CatchingUp, connected && !caught_up),
            (NotReady::TooFewDisks, !self.disks.writes_open()),
        ];
        let missing: Vec<NotReady> =
            obstacles.into_iter().filter_map(|(what, missing)| missing.then_some(what)).collect();
        self.readiness.send_if_modified(|readiness| {
            let changed = readiness.missing != missing;
            if changed {
                info!(member = %self.standing.member(), ready = missing.is_empty(), ?missing, "readiness");
                readiness.missing = missing;
            }
            changed
        });
    }
}
