//! What a test may do to a member's traffic with its peers: hold it, cut it off from some, tear it down or refuse it; and to
//! what it finds when it looks at its disk.
//!
//! Traffic: works at the sockets, under everything that is tested, the way a network does: held bytes arrive late and in
//! order; torn connections are reset.

use std::{
    collections::BTreeSet,
    io,
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
    refused: BTreeSet<MemberId>,
    /// Sockets that were made before the last one are gone.
    resets: u64,
}

impl Faults {
    /// Holds all traffic to and from `peers`, and no other.
    pub(crate) fn cut_off(&self, peers: impl IntoIterator<Item = MemberId>) {
        let cut_off = peers.into_iter().collect();
        self.state.send_modify(|state| state.cut_off = cut_off);
    }

    /// Lets all traffic pass again.
    pub(crate) fn heal(&self) {
        self.state.send_modify(|state| {
            state.cut_off.clear();
            state.refused.clear();
        });
    }

    /// Whether the member finds its disk below the reserve.
    pub(crate) fn fill_disk(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }

    pub(super) fn disk_is_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    /// Resolves when a connection to a peer may be made, or be refused.
    pub(super) async fn connect_to(&self, peer: MemberId) -> io::Result<()> {
        self.passable(Some(peer)).await;
        if self.state.borrow().refuses(peer) { Err(io::ErrorKind::ConnectionRefused.into()) } else { Ok(()) }
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

    /// Resets the connections to and from `peers` and lets further ones be refused, as a network does that is told to.
    pub(crate) fn refuse(&self, peers: impl IntoIterator<Item = MemberId>) {
        let refused = peers.into_iter().collect();
        self.state.send_modify(|state| state.refused = refused);
    }

    /// Resets every connection that is open now.
    pub(crate) fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }

    /// Resets every connection, now and from now on.
    pub(crate) fn kill(&self) {
        self.state.send_modify(|state| state.killed = true);
    }
}

impl FaultState {
    /// Whether a socket must be reset: it was made when there had been so many resets.
    pub(super) fn resets(&self, born: u64, peer: Option<MemberId>) -> bool {
        self.killed || self.resets != born || peer.is_some_and(|peer| self.refuses(peer))
    }

    pub(super) fn count_of_resets(&self) -> u64 {
        self.resets
    }

    pub(super) fn refuses(&self, peer: MemberId) -> bool {
        self.refused.contains(&peer)
    }

    /// Whether traffic with a peer, if it is known which, is held.
    pub(super) fn holds(&self, peer: Option<MemberId>) -> bool {
        self.paused || peer.is_some_and(|peer| self.cut_off.contains(&peer))
    }
}
