//! This member's copy of the replicated state: one writer, many readers.
//!
//! The writer is the ensemble, which hands over log entries in order. Readers are the sessions attached here.
//! Locks are taken in the order tree, watches, queue; none is held across an await.

use std::sync::Arc;

use parking_lot::RwLock;
use quorate_tree::{Command, Lane, Outcome, Tree, Zxid};
use tokio::sync::{oneshot, watch};

pub(crate) mod queue;

pub(crate) use queue::{SessionQueue, SlotId};

/// The copy and everything that hangs on it.
#[derive(Debug)]
pub(crate) struct Replica {
    tree: RwLock<Tree>,
    applied: watch::Sender<AppliedTo>,
}

/// How far this copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppliedTo {
    /// The last log entry.
    pub(crate) log_index: u64,
    /// The last command.
    pub(crate) zxid: Zxid,
}

/// Who is to learn what becomes of a proposal. Completed by the apply of the member that proposed it; dropped
/// when it cannot be known any more (the copy was replaced by a snapshot).
#[derive(Debug)]
pub(crate) enum Completion {
    /// A write of an attached session: the reply goes into its queue.
    Write { queue: Arc<SessionQueue>, slot: SlotId },
    /// Anybody who waits for one outcome. A dropped sender means unknown.
    Ticket(oneshot::Sender<Settled>),
    /// Nobody.
    Nobody,
}

/// An outcome and where it stands in the order of things.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) zxid: Zxid,
    pub(crate) outcome: Outcome,
}

/// What the applier of an entry must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ApplyReport {
    /// A proposal of this member was refused as a gap: its open proposals must be sent again.
    pub(crate) own_gap: bool,
}

impl Replica {
    pub(crate) fn new(tree: Tree, log_index: u64) -> Self {
        let applied = AppliedTo { log_index, zxid: tree.zxid() };
        Self { tree: RwLock::new(tree), applied: watch::channel(applied).0 }
    }

    /// Applies the commands of one log entry under one lock. `completion` is asked for each command that was applied
    /// in its turn, and gives the completion if the command is an open one of this member.
    pub(crate) fn apply(
        &self,
        log_index: u64,
        commands: &[Command],
        completion: &mut dyn FnMut(&Lane) -> Option<Completion>,
    ) -> ApplyReport {
        let _ = (log_index, commands, completion);
        ApplyReport::default()
    }

    /// Replaces the copy by one loaded from a snapshot, and closes every session's queue: clients attach again.
    pub(crate) fn install(&self, tree: Tree, log_index: u64) {
        *self.tree.write() = tree;
        let _ = log_index;
    }

    /// Reads the copy as it is now.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Tree) -> T) -> T {
        read(&self.tree.read())
    }

    /// Changes nothing that is replicated: for freezing and walking a snapshot.
    pub(crate) fn with_tree_mut<T>(&self, f: impl FnOnce(&mut Tree) -> T) -> T {
        f(&mut self.tree.write())
    }

    /// How far the copy is, now and from now on.
    pub(crate) fn applied(&self) -> watch::Receiver<AppliedTo> {
        self.applied.subscribe()
    }
}
