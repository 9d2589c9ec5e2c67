//! Keeps the members what they should be, while this member leads: every configured member is a voter with the disk
//! that is registered for it.
//!
//! A disk that is unknown for its id is registered. One that differs from the registered one has lost what its member
//! acknowledged: the member is removed from the voters first, then the disk is registered, then the member is added as a
//! learner and becomes a voter again when it has caught up.
//!
//! It also keeps `/zookeeper/config` true.

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
    config::Timing, disks::DiskTable, leader_door::LeaderDoor, leadership::Leadership, machine::Raft, network::Links,
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
                self.publish(term).await;
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

    /// Lets clients of ZooKeeper see who the members are, if what they see differs.
    async fn publish(&self, term: u64) {
        // Before, nobody is served.
        if !self.disks.writes_open() {
            return;
        }
        let published = self.replica.read(|tree| tree.published_config());
        let own = (self.standing.member(), self.standing.zookeeper_address().to_owned());
        let theirs = self.links.iter().filter_map(|(member, link)| Some((*member, link.known()?.zookeeper_address)));
        let told: BTreeMap<MemberId, String> = theirs.chain([own]).collect();
        let servers = member_lines(self.standing.peers(), &told, &published);
        if servers != published {
            // What is not taken is found to differ again.
            self.door.propose_own(term, Op::PublishConfig { servers }).await;
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

/// The lines of `/zookeeper/config`, one a member: where its peers find it, and where clients do. The second port is
/// nobody's: ZooKeeper's own clients refuse a line that has not two different ones. What a member that does not answer `told` is taken from what is
/// `published`. Nothing for a member alone.
fn member_lines(peers: &BTreeMap<MemberId, String>, told: &BTreeMap<MemberId, String>, published: &str) -> String {
    if peers.len() == 1 {
        return String::new();
    }
    let line = |(member, peer): (&MemberId, &String)| {
        let port = peer.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default();
        let server = format!("server.{member}={peer}:{}:participant", beside(port));
        let known = published.lines().find_map(|line| line.strip_prefix(&server)?.strip_prefix(';'));
        let clients = told.get(member).map(String::as_str).or(known).unwrap_or_default();
        if clients.is_empty() { server } else { format!("{server};{clients}") }
    };
    peers.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Another port than this one.
fn beside(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(port - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_two_different_ports() {
        let line = |port: u16| {
            let peers = BTreeMap::from([(MemberId(1), format!("host:{port}")), (MemberId(2), "other:1".to_owned())]);
            member_lines(&peers, &BTreeMap::new(), "").lines().next().map(str::to_owned)
        };

        assert_eq!(line(2888).unwrap(), "server.1=host:2888:2889:participant");
        assert_eq!(line(65535).unwrap(), "server.1=host:65535:65534:participant");
    }

    #[test]
    fn lines_keep_what_a_silent_member_told_before() {
        let peers = BTreeMap::from([1, 2, 3].map(|id| (MemberId(id), format!("host{id}:720{id}"))));
        let told = |addresses: &[(u8, &str)]| {
            addresses.iter().map(|(member, address)| (MemberId(*member), (*address).to_owned())).collect()
        };

        let first = member_lines(&peers, &told(&[(1, "zk1:2181"), (2, "")]), "");
        assert_eq!(
            first,
            "server.1=host1:7201:7202:participant;zk1:2181\n\
             server.2=host2:7202:7203:participant\n\
             server.3=host3:7203:7204:participant"
        );
        let then = member_lines(&peers, &told(&[(2, "zk2:2181"), (3, "[::1]:2181")]), &first);
        assert_eq!(
            then,
            "server.1=host1:7201:7202:participant;zk1:2181\n\
             server.2=host2:7202:7203:participant;zk2:2181\n\
             server.3=host3:7203:7204:participant;[::1]:2181"
        );
        assert_eq!(member_lines(&peers, &told(&[]), &then), then);
        assert_eq!(member_lines(&peers, &told(&[(1, "")]), &then), then.replace(";zk1:2181", ""));
    }

    #[test]
    fn a_member_alone_has_no_lines() {
        let peers = BTreeMap::from([(MemberId(1), "a:1".to_owned())]);

        assert_eq!(member_lines(&peers, &BTreeMap::from([(MemberId(1), "a:2181".to_owned())]), ""), "");
    }
}
