//! How a member begins, as ARCHITECTURE.md tells it ("the life of a member").
//!
//! A disk that has joined may vote at once. Another one asks everybody who they are: if a majority answers and nobody
//! has joined anywhere, the ensemble is to be founded, and the lowest id begins; if somebody has joined, this member
//! waits for the leader to find it.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use openraft::BasicNode;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    config::Timing, leadership::Leadership, link::LinkError, machine::Raft, network::Links, standing::Standing,
};

/// Finds out whether this member may vote.
pub(crate) struct Bootstrap {
    pub(crate) raft: Raft,
    pub(crate) standing: Arc<Standing>,
    pub(crate) links: Links,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) timing: Timing,
}

/// What the others said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    /// One of them at least.
    HaveJoined,
    /// Too few answered to know.
    MayBeAway,
    /// Nobody has joined anywhere.
    FoundWithThis,
}

impl Bootstrap {
    /// Runs until this member has joined, or is stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut may_vote = self.standing.may_vote();
        let begin = async {
            let mut told = false;
            while !self.standing.joined() {
                if self.ask_everybody().await == Others::HaveJoined && self.standing.peers().len() == 2 && !told {
                    // Whoever has a vote cannot be replaced without a majority, and there is none without this disk.
                    warn!(
                        member = %self.standing.member(),
                        "this disk is empty and the other member has joined: an ensemble of two cannot replace a disk"
                    );
                    told = true;
                }
                tokio::time::sleep(self.timing.retry()).await;
            }
        };
        let allow = async {
            // The sender lives as long as the standing, which this holds.
            let _ = may_vote.wait_for(|may_vote| *may_vote).await;
            self.raft.runtime_config().elect(true);
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = futures_util::future::join(begin, allow) => {}
        }
    }

    async fn ask_everybody(&self) -> Others {
        let leader = self.leadership.borrow().leader;
        let answers = join_all(self.links.values().map(|link| link.greet(leader))).await;
        let mut present = vec![self.standing.member()];
        for (member, answer) in self.links.keys().zip(answers) {
            match answer {
                Ok(greeting) if greeting.joined => {
                    debug!(%member, "somebody has joined already: wait for the leader");
                    return Others::HaveJoined;
                }
                Ok(_) => present.push(*member),
                Err(LinkError::Refused { .. } | LinkError::Unreachable { .. } | LinkError::Unregistered { .. }) => {}
            }
        }
        if present.len() < self.standing.majority() {
            return Others::MayBeAway;
        }
        self.standing.may_found();
        if present.iter().min() == Some(&self.standing.member()) {
            self.found().await;
        }
        Others::FoundWithThis
    }

    /// Writes the first entry: the configured voters. Whoever else writes it writes the same.
    async fn found(&self) {
        let voters: BTreeMap<u64, BasicNode> =
            self.standing.peers().iter().map(|(member, address)| (member.0.into(), BasicNode::new(address))).collect();
        match self.raft.initialize(voters).await {
            Ok(()) => info!(member = %self.standing.member(), "found the ensemble"),
            // It has a log, or voted for somebody: the ensemble is being founded already.
            Err(error) => debug!(%error, "not founded again"),
        }
    }
}
