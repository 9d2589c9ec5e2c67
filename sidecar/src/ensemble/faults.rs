//! What a test may do to a member's traffic with its peers: hold it, cut it off from some, or tear it down; and to
//! what it finds when it looks at its disk.
//!
//! Traffic: works at the sockets, under everything that is tested, the way a network does: held bytes arrive late and in
//! order; torn connections are reset.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering},
};

use quorate_tree::MemberId;
use tokio::sync::watch;

/// Cuts, pauses and kills the peer connections of one member, and fills its disk.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: watch::Sender<FaultState>,
    disk_full: AtomicBool,
}

/// What is wrong at present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FaultState {
    paused: bool,
    killed: bool,
    cut_off: BTreeSet<MemberId>,
}

impl Faults {
    /// Holds all traffic to and from `peers`, and no other.
    pub(crate) fn cut_off(&self, peers: impl IntoIterator<Item = MemberId>) {
        let cut_off = peers.into_iter().collect();
        self.state.send_modify(|state| state.cut_off = cut_off);
    }

    /// Lets all traffic pass again.
    pub(crate) fn heal(&self) {
        self.state.send_modify(|state| state.cut_off.clear());
    }

    /// Whether the member finds its disk below the reserve.
    pub(crate) fn fill_disk(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    pub(super) fn disk_is_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<FaultState> {
        self.state.subscribe()
    }

    /// Resolves when traffic with a peer, if it is known which, may pass.
    pub(super) async fn passable(&self, peer: Option<MemberId>) {
        // The sender is this.
        let _ = self.subscribe().wait_for(|state| !state.holds(peer)).await;
    }
}

#[cfg(test)]
impl Faults {
    /// Neither reads nor sends anything.
    pub(crate) fn pause(&self) {
        self.state.send_modify(|state| state.paused = true);
    }

    pub(crate) fn resume(&self) {
        self.state.send_modify(|state| state.paused = false);
    }

    /// Resets every connection, now and from now on.
    pub(crate) fn kill(&self) {
        self.state.send_modify(|state| state.killed = true);
    }
}

impl FaultState {
    pub(super) fn is_killed(&self) -> bool {
        self.killed
    }

    /// Whether traffic with a peer, if it is known which, is held.
    pub(super) fn holds(&self, peer: Option<MemberId>) -> bool {
        self.paused || peer.is_some_and(|peer| self.cut_off.contains(&peer))
    }
}
