//! Who leads, as this member knows it: the Raft crate's view in our words.

use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use quorate_tree::MemberId;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{EnsembleError, machine::Raft};
use crate::{clock::Clock, telemetry::metrics::EnsembleMetrics};

/// Who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leadership {
    pub(crate) term: u64,
    /// The leader of that term, once a majority has voted for it.
    pub(crate) leader: Option<MemberId>,
    /// Whether that is this member.
    pub(crate) leads: bool,
}

impl Leadership {
    /// The leader and its term, if there is one.
    pub(crate) fn reign(self) -> Option<(u64, MemberId)> {
        Some((self.term, self.leader?))
    }
}

/// Publishes every change until told to stop, or until the Raft core ends; then says why.
pub(crate) async fn follow(
    raft: Raft,
    leadership: watch::Sender<Leadership>,
    changes: EnsembleMetrics,
    stop: CancellationToken,
) -> Option<EnsembleError> {
    let mut server = raft.server_metrics();
    let mut last_leader = None;
    let mut leaderless_since = Some(Clock::now());
    loop {
        let now = {
            let metrics = server.borrow_and_update();
            let leader = metrics.current_leader.filter(|_leader| metrics.vote.committed);
            Leadership {
                term: metrics.vote.leader_id.term,
                leader: leader.and_then(|leader| u8::try_from(leader).ok()).map(MemberId),
                leads: metrics.state == ServerState::Leader && leader == Some(metrics.id),
            }
        };
        leadership.send_if_modified(|known| std::mem::replace(known, now) != now);
        if now.leader.is_some() && now.leader != last_leader {
            last_leader = now.leader;
            changes.leader_changed();
        }
        match (now.leader, leaderless_since) {
            (Some(_), Some(since)) => {
                changes.leaderless.record(Clock::now().since(since));
                leaderless_since = None;
            }
            (None, None) => leaderless_since = Some(Clock::now()),
            (Some(_), None) | (None, Some(_)) => {}
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            changed = server.changed() => {
                if changed.is_err() {
                    leadership.send_modify(|known| *known = Leadership { term: known.term, ..Leadership::default() });
                    return Some(why_ended(&raft));
                }
            }
        }
    }
}

fn why_ended(raft: &Raft) -> EnsembleError {
    match &raft.metrics().borrow_watched().running_state {
        Ok(()) => EnsembleError::Failed("the agreement between members ended for an unknown reason".into()),
        Err(fatal) => EnsembleError::Failed(fatal.to_string()),
    }
}
