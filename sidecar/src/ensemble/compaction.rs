//! Decides when a snapshot is due, writes it without stopping the world, and purges the log behind it.
//!
//! Due is when the log has grown since the last one by more than the larger of a minimum and the size of that one, plus
//! a random part of it, so that members do not write theirs at the same time. At most as many bytes of log are kept
//! behind a snapshot, for members that lag.
//!
//! A quiet member writes one when the log has grown by half of that: it disturbs nobody, and what is in the log takes
//! longer to apply again at the next start than what is in a snapshot takes to load.
//!
//! A snapshot that cannot be written (a full disk) is tried again later; the member goes on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::async_runtime::watch::WatchReceiver;
use quorate_tree::Zxid;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    EnsembleError,
    machine::Raft,
    shelf::{ShelfError, SnapshotPoint, SnapshotShelf, StoredSnapshot},
};
use crate::{clock::Clock, replica::Replica, storage::Log, telemetry::metrics::EnsembleMetrics};

/// The log grows by at least this much between snapshots.
pub(crate) const SNAPSHOT_LOG_BYTES_MIN: u64 = 64 << 20;

/// Nodes, sessions and outcomes visited under one hold of the replica's lock.
const NODES_PER_PART: usize = 500;

/// How often the log's size is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A member is quiet when its log grows by no more than this between two looks.
const QUIET_BYTES_MAX: u64 = 64 << 10;

/// How long after a snapshot that could not be written the next one is tried.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// How long the Raft core may take to note a snapshot.
const NOTED_WITHIN: Duration = Duration::from_secs(60);

/// Somebody who wants a snapshot now, and its zxid and size.
pub(crate) type SnapshotRequest = oneshot::Sender<Result<(Zxid, u64), EnsembleError>>;

/// Writes snapshots and purges the log.
pub(crate) struct Compactor {
    pub(crate) raft: Raft,
    pub(crate) replica: Arc<Replica>,
    pub(crate) shelf: Arc<SnapshotShelf>,
    pub(crate) log: Log,
    /// Counts how often the replica was replaced by a snapshot of another member.
    pub(crate) installs: Arc<AtomicU64>,
    pub(crate) log_bytes_min: u64,
    pub(crate) metrics: EnsembleMetrics,
    pub(crate) requests: mpsc::Receiver<SnapshotRequest>,
}

/// Why there is no new snapshot.
#[derive(Debug, thiserror::Error)]
enum Unwritten {
    #[error("nothing has been applied yet")]
    Nothing,
    #[error("this member stops")]
    Stopped,
    #[error("the copy was replaced by a snapshot of another member meanwhile")]
    Replaced,
    #[error(transparent)]
    Shelf(#[from] ShelfError),
}

impl Compactor {
    /// Runs until stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut share = rand::random::<f64>();
        let mut pause = LOOK_EVERY;
        // A member that has just started was quiet for long.
        let mut grown = self.grown();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some(request) = self.requests.recv() => {
                    let written = self.snapshot(&stop).await;
                    let answer = written.map(|snapshot| (snapshot.zxid, snapshot.bytes));
                    // Whoever asked may have gone.
                    let _ = request.send(answer.map_err(|error| EnsembleError::Refused(error.to_string())));
                }
                () = tokio::time::sleep(pause) => {
                    pause = LOOK_EVERY;
                    let grown_then = std::mem::replace(&mut grown, self.grown());
                    let quiet = grown.saturating_sub(grown_then) <= QUIET_BYTES_MAX;
                    if self.is_due(grown, quiet, share) {
                        share = rand::random();
                        if let Err(error) = self.snapshot(&stop).await {
                            warn!(%error, "no snapshot was written; it is tried again");
                            pause = RETRY_AFTER;
                        }
                    }
                }
            }
        }
    }

    /// What the log may hold before and behind a snapshot.
    fn allowance(&self) -> u64 {
        self.shelf.current().map_or(0, |snapshot| snapshot.bytes).max(self.log_bytes_min)
    }

    /// Bytes of log since the last snapshot, as far as it is applied: a snapshot would have no more than that.
    fn grown(&self) -> u64 {
        let applied = self.replica.applied().borrow().log_index;
        let last = self.shelf.current().map(|snapshot| snapshot.index());
        self.log.bytes_after(last).saturating_sub(self.log.bytes_after(Some(applied)))
    }

    fn is_due(&self, grown: u64, quiet: bool, share: f64) -> bool {
        let allowance = self.allowance();
        if quiet {
            return grown > allowance / 2;
        }
        // A quarter at most on top.
        let offset = (allowance as f64 / 4.0 * share) as u64;
        grown > allowance + offset
    }

    async fn snapshot(&self, stop: &CancellationToken) -> Result<StoredSnapshot, Unwritten> {
        let began = Clock::now();
        let (snapshot, longest_hold) = self.write().await?;
        self.metrics.snapshot_written(Clock::now().since(began), longest_hold);
        self.shelf.prepare(snapshot.clone());
        let noted = async {
            self.raft.trigger().snapshot().await.ok()?;
            let mut metrics = self.raft.metrics();
            while metrics.borrow_watched().snapshot.is_none_or(|noted| noted.index < snapshot.index()) {
                metrics.changed().await.ok()?;
            }
            Some(())
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(Unwritten::Stopped),
            noted = tokio::time::timeout(NOTED_WITHIN, noted) => {
                if noted.ok().flatten().is_none() {
                    return Err(Unwritten::Stopped);
                }
            }
        }
        let longest_hold_us = longest_hold.as_micros();
        info!(index = snapshot.index(), zxid = %snapshot.zxid, bytes = snapshot.bytes, longest_hold_us, "snapshot written");
        self.purge(snapshot.index()).await;
        Ok(snapshot)
    }

    /// The snapshot, and the longest time for which the replica was held up by it.
    async fn write(&self) -> Result<(StoredSnapshot, Duration), Unwritten> {
        let installs = self.installs.load(Ordering::Acquire);
        let point = self.raft.with_state_machine(|machine| {
            let point = machine.freeze();
            Box::pin(std::future::ready(point))
        });
        let point = point.await.map_err(|_fatal| Unwritten::Stopped)?.ok_or(Unwritten::Nothing)?;
        let (shelf, replica, counter) = (self.shelf.clone(), self.replica.clone(), self.installs.clone());
        let walk = move || {
            let written = walk(&shelf, &replica, point, || counter.load(Ordering::Acquire) == installs);
            if written.is_err() {
                replica.with_tree_mut(quorate_tree::Tree::thaw);
            }
            written
        };
        tokio::task::spawn_blocking(walk).await.map_err(|_panicked| Unwritten::Stopped)?
    }

    /// Keeps at most the allowance of log behind a snapshot at `index`.
    async fn purge(&self, index: u64) {
        let (allowance, after) = (self.allowance(), self.log.bytes_after(Some(index)));
        let kept_behind = |from: u64| self.log.bytes_after(Some(from)).saturating_sub(after);
        // The smallest index whose followers fit.
        let (mut low, mut high) = (self.log.state().purged.map_or(0, |purged| purged.index), index);
        while low < high {
            let middle = low + (high - low) / 2;
            if kept_behind(middle) <= allowance { high = middle } else { low = middle + 1 }
        }
        if let Err(fatal) = self.raft.trigger().purge_log(high).await {
            warn!(%fatal, "the log was not purged");
        }
    }
}

/// Writes the frozen state part by part; commands are applied between the parts.
fn walk(
    shelf: &SnapshotShelf,
    replica: &Replica,
    point: SnapshotPoint,
    same_copy: impl Fn() -> bool,
) -> Result<(StoredSnapshot, Duration), Unwritten> {
    let mut draft = shelf.begin(point)?;
    let mut longest_hold = Duration::ZERO;
    let mut next_part = || {
        replica.with_tree_mut(|tree| {
            let held_from = Clock::now();
            let part = tree.frozen_part(NODES_PER_PART);
            longest_hold = longest_hold.max(Clock::now().since(held_from));
            part
        })
    };
    while let Some(part) = next_part() {
        draft.write(&part)?;
    }
    // A copy that was put in meanwhile is not frozen, and so looks like one that was walked to its end.
    if !same_copy() {
        return Err(Unwritten::Replaced);
    }
    Ok((draft.finish()?, longest_hold))
}
