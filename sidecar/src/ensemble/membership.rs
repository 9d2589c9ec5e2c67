//! Keeps the members what they should be, while this member leads: every configured member is a voter with the disk
//! that is registered for it.
//!
//! A disk that is unknown for its id is registered. One that differs from the registered one has lost what its member
//! acknowledged: the member is removed from the voters first, then the disk is registered, then the member is added as a
//! learner and becomes a voter again when it has caught up.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use futures_util::future::join_all;
use openraft::{BasicNode, ChangeMembers, async_runtime::watch::WatchReceiver};
use quorate_tree::{MemberId, Op};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    config::Timing, disks::DiskTable, leader::LeaderDoor, leadership::Leadership, machine::Raft, network::Links,
    standing::Standing, types::Membership,
};
use crate::replica::Replica;

/// A learner that lacks no more entries than this has caught up: so many are under way at any time.
const LAG_MAX: u64 = 64;

/// Compares the members with what they should be.
pub(crate) struct MembershipKeeper {
    pub(crate) raft: Raft,
    pub(crate) replica: Arc<Replica>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) disks: Arc<DiskTable>,
    pub(crate) links: Links,
    pub(crate) door: LeaderDoor,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) timing: Timing,
}

type Change = ChangeMembers<u64, BasicNode>;

impl MembershipKeeper {
    /// Runs until stopped; idle while another member leads.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                term = Self::next_reign(&mut self.leadership) => match term {
                    Some(term) => self.keep(term, &stop).await,
                    None => return,
                },
            }
        }
    }

    async fn next_reign(leadership: &mut watch::Receiver<Leadership>) -> Option<u64> {
        let leads = leadership.wait_for(|leadership| leadership.leads).await.ok()?;
        Some(leads.term)
    }

    /// As long as this member leads in `term`.
    async fn keep(&self, term: u64, stop: &CancellationToken) {
        let mut leadership = self.leadership.clone();
        let ended = leadership.wait_for(|leadership| !leadership.leads || leadership.term != term);
        let mut proposed = HashSet::new();
        let keep = async {
            loop {
                self.compare(term, &mut proposed).await;
                tokio::time::sleep(self.timing.reconcile_every()).await;
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = ended => {}
            () = keep => {}
        }
    }

    pub(super) async fn compare(&self, term: u64, proposed: &mut HashSet<(MemberId, u64)>) {
        let membership = self.membership();
        if membership.get_joint_config().len() > 1 {
            // Somebody began a change and could not end it.
            self.change(ChangeMembers::AddVoterIds(BTreeSet::new()), "the end of a change").await;
            return;
        }
        for (member, disk_id) in self.present().await {
            match self.disks.registered(member) {
                Some(registered) if registered == disk_id => self.seat(member).await,
                None => self.register(term, member, disk_id, proposed).await,
                Some(_) if self.membership().get_node(&member.0.into()).is_some() => self.unseat(member).await,
                Some(_) => self.register(term, member, disk_id, proposed).await,
            }
        }
    }

    /// The members that answer, with their disks.
    async fn present(&self) -> Vec<(MemberId, u64)> {
        let leader = Some(self.standing.member());
        let asked = self.links.iter().map(|(member, link)| async move {
            // Asked anew only if calls to it failed since: a disk does not change under a connection.
            let known = link.known();
            let greeting = match known {
                Some(greeting) => greeting,
                None => link.greet(leader).await.ok()?,
            };
            Some((*member, greeting.disk_id))
        });
        let mut present: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
        present.push((self.standing.member(), self.standing.disk_id()));
        present
    }

    async fn register(&self, term: u64, member: MemberId, disk_id: u64, proposed: &mut HashSet<(MemberId, u64)>) {
        if proposed.contains(&(member, disk_id)) {
            return;
        }
        // An ensemble that has a name keeps it.
        let named = self.replica.read(|tree| tree.ensemble_id());
        let ensemble_id = named.unwrap_or_else(|| rand::random_range(1..=u64::MAX));
        // The leader's task may learn of its reign later than this one does: what it does not take is proposed again.
        if self.door.propose_own(term, Op::RegisterMember { member, disk_id, ensemble_id }).await {
            info!(%member, disk = format_args!("{disk_id:016x}"), "register a disk");
            proposed.insert((member, disk_id));
        }
    }

    /// A member that lost its disk has no vote until it has caught up.
    async fn unseat(&self, member: MemberId) {
        let id = u64::from(member.0);
        warn!(%member, "has another disk than it had: it loses its vote until it has caught up");
        let change = if self.membership().voter_ids().any(|voter| voter == id) {
            ChangeMembers::RemoveVoters(BTreeSet::from([id]))
        } else {
            ChangeMembers::RemoveNodes(BTreeSet::from([id]))
        };
        self.change(change, "the removal of a member whose disk is another").await;
    }

    /// A member whose disk is registered becomes a learner, and a voter when it has caught up.
    async fn seat(&self, member: MemberId) {
        let id = u64::from(member.0);
        let membership = self.membership();
        if membership.voter_ids().any(|voter| voter == id) {
            return;
        }
        if membership.get_node(&id).is_none() {
            let Some(address) = self.standing.peers().get(&member) else { return };
            info!(%member, "add as a learner");
            let learner = BTreeMap::from([(id, BasicNode::new(address))]);
            self.change(ChangeMembers::AddNodes(learner), "a learner").await;
        } else if self.has_caught_up(id) {
            info!(%member, "has caught up: it has a vote again");
            self.change(ChangeMembers::AddVoterIds(BTreeSet::from([id])), "a voter").await;
        }
    }

    fn has_caught_up(&self, id: u64) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let matched = metrics.replication.as_ref().and_then(|replication| replication.get(&id)).copied().flatten();
        matched.is_some_and(|matched| matched.index + LAG_MAX >= metrics.last_log_index.unwrap_or_default())
    }

    fn membership(&self) -> Membership {
        self.raft.metrics().borrow_watched().membership_config.membership().clone()
    }

    async fn change(&self, change: Change, what: &'static str) {
        // Removed voters are removed altogether: as learners they would still be fed.
        if let Err(error) = self.raft.change_membership(change, false).await {
            debug!(%error, what, "the membership was not changed, and will be tried again");
        }
    }
}
