//! Whether clients are served, and how: as the ensemble stands now.
//!
//! A member that has lost the majority lets those clients read that ask for no more, after a while in which it may come
//! back. When it does, they are sent away: a session of the ensemble awaits them.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::ensemble::{NotReady, Readiness};

/// How clients are served.
#[derive(Clone, Debug)]
pub(super) enum Mode {
    /// With sessions of the ensemble, or not at all while none can be had.
    Ordinary,
    /// With sessions of this member, until the token is cancelled.
    ReadOnly(CancellationToken),
}

/// The mode, now and from now on.
#[derive(Debug)]
pub(super) struct Quorum(watch::Sender<Mode>);

impl Default for Quorum {
    fn default() -> Self {
        Self(watch::channel(Mode::Ordinary).0)
    }
}

impl Quorum {
    pub(super) fn mode(&self) -> Mode {
        self.0.borrow().clone()
    }

    /// Follows the ensemble until `stop`. A majority that is missing may come back within `patience`.
    pub(super) async fn follow(
        &self,
        mut readiness: watch::Receiver<Readiness>,
        patience: Duration,
        stop: &CancellationToken,
    ) {
        let mut lost_at = None;
        loop {
            let leaderless = is_leaderless(&readiness.borrow_and_update());
            lost_at = if leaderless { lost_at.or_else(|| Some(Instant::now())) } else { None };
            if !leaderless {
                self.become_ordinary();
            }
            let due = lost_at.filter(|_| matches!(self.mode(), Mode::Ordinary)).map(|lost_at| lost_at + patience);
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                changed = readiness.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    info!("no majority: clients that only read are served");
                    self.0.send_replace(Mode::ReadOnly(stop.child_token()));
                }
            }
        }
    }

    fn become_ordinary(&self) {
        if let Mode::ReadOnly(while_it_lasts) = self.mode() {
            info!("there is a majority: clients that only read are sent away");
            self.0.send_replace(Mode::Ordinary);
            while_it_lasts.cancel();
        }
    }
}

/// Whether this member has what the ensemble had, and nothing but a leader is missing to serve it.
fn is_leaderless(readiness: &Readiness) -> bool {
    let never = [NotReady::NotJoined, NotReady::NoVote, NotReady::Diverged];
    readiness.missing.contains(&NotReady::NoLeader) && !never.iter().any(|what| readiness.missing.contains(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(missing: &[NotReady]) -> Readiness {
        Readiness { missing: missing.to_vec() }
    }

    #[test]
    fn only_a_member_with_the_state_of_the_ensemble_lets_read() {
        assert!(is_leaderless(&readiness(&[NotReady::NoLeader, NotReady::CatchingUp])));
        for missing in [&[][..], &[NotReady::CatchingUp], &[NotReady::NoLeader, NotReady::NotJoined]] {
            assert!(!is_leaderless(&readiness(missing)), "{missing:?}");
        }
        assert!(!is_leaderless(&readiness(&[NotReady::Diverged, NotReady::NoLeader])));
    }

    #[tokio::test(start_paused = true)]
    async fn a_majority_that_comes_back_in_time_changes_nothing_and_a_later_one_ends_the_reading() {
        let patience = Duration::from_secs(2);
        let (said, heard) = watch::channel(readiness(&[]));
        let (quorum, stop) = (Quorum::default(), CancellationToken::new());
        let script = async {
            said.send_replace(readiness(&[NotReady::NoLeader]));
            tokio::time::sleep(patience - Duration::from_millis(1)).await;
            said.send_replace(readiness(&[]));
            tokio::time::sleep(patience).await;
            assert!(matches!(quorum.mode(), Mode::Ordinary));

            said.send_replace(readiness(&[NotReady::NoLeader]));
            // Another thing that is missing does not begin the time anew.
            tokio::time::sleep(patience / 2).await;
            said.send_replace(readiness(&[NotReady::NoLeader, NotReady::CatchingUp]));
            tokio::time::sleep(patience / 2 + Duration::from_millis(1)).await;
            let Mode::ReadOnly(while_it_lasts) = quorum.mode() else { panic!("no reading") };

            said.send_replace(readiness(&[NotReady::CatchingUp]));
            while_it_lasts.cancelled().await;
            assert!(matches!(quorum.mode(), Mode::Ordinary));
            stop.cancel();
        };

        tokio::join!(quorum.follow(heard, patience, &stop), script);
    }
}
