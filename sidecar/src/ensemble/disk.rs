//! The opened data directory of one member, as far as the ensemble uses it.

use std::{path::Path, time::Duration};

use quorate_tree::MemberId;
use tokio::time::Instant;

use super::{EnsembleError, standing::Credentials};
use crate::storage::{DataDir, DataDirError, DiskSpace, FlushObserver, Log, LogOptions, Snapshots};

/// A directory that is in use may be that of a start that is ending: so long it is given for that.
const ENDING_WITHIN: Duration = Duration::from_secs(2);

/// One member's data directory with its log and its snapshots.
#[derive(Debug)]
pub(crate) struct EnsembleDisk {
    pub(super) dir: DataDir,
    pub(super) log: Log,
    pub(super) snapshots: Snapshots,
    pub(super) space: DiskSpace,
}

/// How a data directory is opened.
#[derive(Clone, Default)]
pub(crate) struct DiskOptions {
    /// What is acknowledged need not survive the machine: nothing is synced.
    pub(crate) unsynced: bool,
    /// Told of every flush of the log.
    pub(crate) on_flush: Option<FlushObserver>,
}

impl EnsembleDisk {
    /// Opens, or makes, a member's data directory, and counts this start. Refuses what is not this member's, and what
    /// cannot be read. Takes as long as reading the log takes.
    pub(crate) async fn open(path: &Path, member: MemberId, options: DiskOptions) -> Result<Self, EnsembleError> {
        let (sync, on_flush) = (!options.unsynced, options.on_flush);
        let patience = Instant::now() + ENDING_WITHIN;
        loop {
            let path = path.to_owned();
            let opening = tokio::task::spawn_blocking(move || DataDir::open(&path, member, sync)).await;
            let dir = match opening.map_err(|panicked| EnsembleError::Refused(panicked.to_string()))? {
                // The start before this one may be about to end.
                Err(DataDirError::InUse { .. }) if Instant::now() < patience => {
                    tokio::time::sleep(ENDING_WITHIN / 50).await;
                    continue;
                }
                opened => opened.map_err(|error| refused_if(error.is_damage(), error))?,
            };
            let opening = tokio::task::spawn_blocking(move || Self::open_parts(dir, on_flush)).await;
            return opening.map_err(|panicked| EnsembleError::Refused(panicked.to_string()))?;
        }
    }

    fn open_parts(dir: DataDir, on_flush: Option<FlushObserver>) -> Result<Self, EnsembleError> {
        let log = dir.open_log(LogOptions { on_flush, ..LogOptions::default() });
        let log = log.map_err(|error| refused_if(error.is_damage(), error))?;
        let snapshots = dir.open_snapshots().map_err(|error| refused_if(false, error))?;
        let space = DiskSpace::new(dir.path(), DiskSpace::RESERVE_BYTES_DEFAULT);
        Ok(Self { dir, log, snapshots, space })
    }

    pub(super) fn credentials(&self) -> Credentials {
        let identity = self.dir.identity();
        Credentials {
            disk_id: identity.disk_id,
            incarnation: incarnation(identity.disk_id, identity.incarnation),
            joined: identity.joined,
            ensemble_id: identity.ensemble_id,
        }
    }
}

/// What tells the starts of a member apart. A disk that came back empty counts its starts from the beginning, and must
/// not take what its predecessor proposed for its own when it reads that in the log: its id goes first.
fn incarnation(disk_id: u64, start: u64) -> u64 {
    disk_id << u32::BITS | start & u64::from(u32::MAX)
}

fn refused_if(damage: bool, error: impl std::error::Error) -> EnsembleError {
    let sentence = sentence(error);
    if damage { EnsembleError::Damaged(sentence) } else { EnsembleError::Refused(sentence) }
}

/// The error with its causes, as one sentence.
pub(super) fn sentence(error: impl std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence = format!("{sentence}: {error}");
        cause = error.source();
    }
    sentence
}
