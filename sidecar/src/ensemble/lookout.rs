//! Looks whether a leader that cannot be reached is gone, and campaigns at once if it is.
//!
//! A system that refuses connections says that the process which listened there has ended. Lost packets, a slow or
//! paused leader and a network that lets nothing through never say so: those are left to the lease. Of a leader that
//! is gone this member forgets the lease, so that it grants its vote, and asks for votes itself when it is its turn.
//! Whether an election comes of it is decided by a majority that has found out the same: those who have not, or whom the
//! leader still answers, refuse in the round before the vote, which changes nothing.
//!
//! No promise rests on the lease (`docs/decisions/0008-leases-of-the-dead.md`). Has no task: the forwarder calls it.

use std::sync::Arc;

use openraft::{async_runtime::watch::WatchReceiver, raft::TransferLeaderRequest};
use quorate_tree::MemberId;
use tokio::time::{Instant, sleep};
use tracing::{debug, info};

use super::{config::Timing, machine::Raft, network::Links, standing::Standing, types::Vote};

/// What is needed to look after the leader.
pub(crate) struct Lookout {
    raft: Raft,
    standing: Arc<Standing>,
    links: Links,
    timing: Timing,
    /// The leader that was found gone, in its term, and when that was.
    gone: Option<(u64, Instant)>,
}

/// When a member campaigns after the others, so that they do not take votes from each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    place: u32,
    of: u32,
}

impl Lookout {
    pub(crate) fn new(raft: Raft, standing: Arc<Standing>, links: Links, timing: Timing) -> Self {
        Self { raft, standing, links, timing, gone: None }
    }

    /// Looks after the leader of a term, which could not be reached. Returns when it should be tried again.
    ///
    /// # Cancel safety
    /// Cancel safe: what was begun goes on in the Raft core.
    pub(crate) async fn look(&mut self, term: u64, leader: MemberId) {
        match self.turn(leader) {
            Some(turn) if self.is_gone(leader).await => self.succeed(term, leader, turn).await,
            Some(_) | None => sleep(self.timing.retry()).await,
        }
    }

    /// The leader was reached: whatever was found before was wrong, or is over.
    pub(crate) fn reached(&mut self) {
        self.gone = None;
    }

    async fn is_gone(&self, leader: MemberId) -> bool {
        match self.links.get(&leader) {
            Some(link) => link.refuses_connections().await,
            None => false,
        }
    }

    async fn succeed(&mut self, term: u64, leader: MemberId, turn: Turn) {
        let since = match self.gone {
            Some((of, since)) if of == term => since,
            _ => {
                info!(%leader, term, "the leader is gone: its address refuses connections");
                self.gone = Some((term, Instant::now()));
                Instant::now()
            }
        };
        if since.elapsed() > self.timing.lease() {
            // There is no majority that has found out the same. From here on the crate campaigns as without a lookout.
            return sleep(self.timing.retry()).await;
        }
        // The crate knows the leader by the vote that a majority gave it.
        let vote = Vote::new_committed(term, leader.0.into());
        self.forget_lease(vote, leader).await;
        sleep(self.timing.turn() * turn.place).await;
        self.campaign(vote).await;
        sleep(self.timing.turn() * (turn.of - turn.place)).await;
    }

    /// Stops honouring the lease of a leader, unless there is another one meanwhile.
    async fn forget_lease(&self, vote: Vote, leader: MemberId) {
        // The crate has no call of this name. This is what it does where leadership is handed to somebody else.
        let to_nobody_here = leader.0.into();
        let forget = TransferLeaderRequest::new(vote, to_nobody_here, None);
        if let Err(fatal) = self.raft.handle_transfer_leader(forget).await {
            // Whoever follows the core ends this member.
            debug!(%fatal, "cannot forget the lease");
        }
    }

    /// Begins the round before a vote, unless this member has given its vote to somebody while it waited for its turn.
    async fn campaign(&self, of_the_gone: Vote) {
        let unchanged = self.raft.with_raft_state(move |state| *state.vote_ref() == of_the_gone).await;
        let begun = match unchanged {
            Ok(true) => self.raft.trigger().elect(true).await,
            Ok(false) => Ok(()),
            Err(fatal) => Err(fatal),
        };
        if let Err(fatal) = begun {
            debug!(%fatal, "cannot campaign");
        }
    }

    /// This member's turn among the voters that are left; `None` if it does not campaign.
    fn turn(&self, leader: MemberId) -> Option<Turn> {
        // The crate would let a disk campaign that has not joined.
        if !*self.standing.may_vote().borrow() {
            return None;
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        turn(metrics.membership_config.voter_ids(), leader.0.into(), self.standing.member().0.into())
    }
}

/// The lowest id comes first.
fn turn(voters: impl Iterator<Item = u64>, leader: u64, member: u64) -> Option<Turn> {
    let mut left: Vec<u64> = voters.filter(|voter| *voter != leader).collect();
    left.sort_unstable();
    left.dedup();
    let place = left.iter().position(|voter| *voter == member)?;
    let small = |count: usize| u32::try_from(count).expect("a member id has eight bits");
    Some(Turn { place: small(place), of: small(left.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn voters_that_are_left_take_turns_by_their_ids() {
        let turn_of = |leader, member| turn([3, 1, 2].into_iter(), leader, member);

        assert_eq!(turn_of(1, 2), Some(Turn { place: 0, of: 2 }));
        assert_eq!(turn_of(1, 3), Some(Turn { place: 1, of: 2 }));
        assert_eq!(turn_of(3, 1), Some(Turn { place: 0, of: 2 }));
        assert_eq!(turn_of(3, 4), None, "it has no vote");
        assert_eq!(turn_of(3, 3), None, "a leader does not look for itself");
    }
}
