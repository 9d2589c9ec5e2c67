//! The leader gives its place to another member, so that its end costs nobody an election.

use std::{sync::Arc, time::Duration};

use openraft::async_runtime::watch::WatchReceiver;
use quorate_tree::MemberId;
use tokio::{sync::watch, time::timeout};
use tracing::info;

use super::{
    EnsembleError, config::Timing, leader_door::LeaderDoor, leadership::Leadership, machine::Raft, standing::Standing,
};

/// What is needed to hand over.
#[derive(Debug)]
pub(crate) struct HandOver {
    pub(crate) raft: Raft,
    pub(crate) standing: Arc<Standing>,
    pub(crate) door: LeaderDoor,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) timing: Timing,
}

impl HandOver {
    /// Holds new proposals, waits until the target has everything, and makes it the leader. The members send again what
    /// was held. Without a target, the most advanced voter is taken; without a reign or another voter, there is nothing
    /// to do.
    pub(crate) async fn run(&self, to: Option<MemberId>) -> Result<(), EnsembleError> {
        let refuse = |reason: String| Err(EnsembleError::Refused(reason));
        let mut leadership = self.leadership.clone();
        let reign = *leadership.borrow_and_update();
        if !reign.leads {
            return match to {
                Some(_) => refuse(format!("member {} does not lead", self.standing.member())),
                None => Ok(()),
            };
        }
        let target = match to {
            Some(to) if to == self.standing.member() => return Ok(()),
            Some(to) if !self.voters().contains(&to) => return refuse(format!("member {to} has no vote")),
            Some(to) => to,
            None => match self.most_advanced() {
                Some(to) => to,
                None => return Ok(()),
            },
        };
        info!(%target, "hand over leadership");
        let patience = self.patience();
        self.door.hold(patience).await;
        let handed_over = async {
            self.matched(target).await?;
            self.raft.trigger().transfer_leader(target.0.into()).await.ok()?;
            leadership.wait_for(|now| now.term > reign.term && now.leader.is_some()).await.ok()?;
            Some(())
        };
        match timeout(patience, handed_over).await {
            Ok(Some(())) => Ok(()),
            Ok(None) => refuse("this member is stopping".into()),
            Err(_elapsed) => refuse(format!("member {target} did not take over within {patience:?}")),
        }
    }

    fn patience(&self) -> Duration {
        self.timing.contact_lost() * 2
    }

    fn voters(&self) -> Vec<MemberId> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.voter_ids().filter_map(|id| u8::try_from(id).ok()).map(MemberId).collect()
    }

    fn matched_index(&self, member: MemberId) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let replication = metrics.replication.as_ref()?;
        replication.get(&member.0.into()).copied().flatten().map(|matched| matched.index)
    }

    fn most_advanced(&self) -> Option<MemberId> {
        let others = self.voters().into_iter().filter(|member| *member != self.standing.member());
        others.max_by_key(|member| self.matched_index(*member))
    }

    /// Resolves when a member has all of this member's log.
    async fn matched(&self, member: MemberId) -> Option<()> {
        let mut metrics = self.raft.metrics();
        loop {
            let last = metrics.borrow_and_update().last_log_index;
            if self.matched_index(member) >= last {
                return Some(());
            }
            metrics.changed().await.ok()?;
        }
    }
}
