//! Tells whether this member can serve clients.

use std::sync::Arc;

use openraft::async_runtime::watch::WatchReceiver;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    barriers::BarrierBook,
    config::Timing,
    disks::DiskTable,
    forward::Contact,
    machine::Raft,
    standing::Standing,
    status::{NotReady, Readiness},
};
use crate::replica::Replica;

/// Publishes what stands in the way of serving clients.
pub(crate) struct ReadinessWatcher {
    pub(crate) raft: Raft,
    pub(crate) standing: Arc<Standing>,
    pub(crate) disks: Arc<DiskTable>,
    pub(crate) barriers: Arc<BarrierBook>,
    pub(crate) replica: Arc<Replica>,
    pub(crate) contact: watch::Receiver<Contact>,
    pub(crate) disputed: watch::Receiver<bool>,
    pub(crate) readiness: watch::Sender<Readiness>,
    pub(crate) timing: Timing,
}

impl ReadinessWatcher {
    /// Runs until stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // Whether this copy was seen to have all that was committed, since the leader was found.
        let mut caught_up = false;
        // Goes on while the leader answers other things.
        let mut catching_up = Box::pin(self.catch_up());
        loop {
            let lost_at = self.contact.borrow_and_update().heard.map(|heard| heard + self.timing.contact_lost());
            let connected = lost_at.is_some_and(|lost_at| Instant::now() < lost_at);
            if caught_up && !connected {
                caught_up = false;
                catching_up = Box::pin(self.catch_up());
            }
            self.publish(connected, caught_up);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                _ = self.contact.changed() => {}
                () = tokio::time::sleep_until(lost_at.unwrap_or_else(Instant::now)), if connected => {}
                () = &mut catching_up, if !caught_up => caught_up = true,
                // The disk table, the standing and the vote change now and then, and nobody waits for that.
                () = tokio::time::sleep(self.timing.reconcile_every()) => {}
            }
        }
        self.readiness.send_modify(|readiness| readiness.missing = vec![NotReady::NoLeader]);
    }

    /// Resolves when this copy has all that was committed when this was called.
    fn catch_up(&self) -> impl Future<Output = ()> + Send + use<> {
        let (barrier, mut applied) = (self.barriers.wait(), self.replica.applied());
        async move {
            let reached = match barrier.await {
                Ok(index) => applied.wait_for(|applied| applied.log_index >= index).await.is_ok(),
                Err(_stopped) => false,
            };
            if !reached {
                // This member stops, and never catches up.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether this member counts in every majority. One whose disk was replaced does not until it has caught up, and
    /// whoever replaces disks one after the other must wait for that.
    fn has_vote(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.committed_membership_config.get_joint_config();
        let id = u64::from(self.standing.member().0);
        !voters.is_empty() && voters.iter().all(|voters| voters.contains(&id))
    }

    fn publish(&self, connected: bool, caught_up: bool) {
        let obstacles = [
            (NotReady::NotJoined, !self.standing.joined()),
            (NotReady::NoLeader, !connected),
            (NotReady::CatchingUp, connected && !caught_up),
            (NotReady::NoVote, !self.has_vote()),
            (NotReady::TooFewDisks, !self.disks.writes_open()),
            (NotReady::Diverged, *self.disputed.borrow()),
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
