//! The opened data directory of one member, as far as the ensemble uses it.

use std::path::Path;

use quorate_tree::MemberId;

use super::{EnsembleError, standing::Credentials};
use crate::storage::{DataDir, DiskSpace, FlushObserver, Log, LogOptions, Snapshots};

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
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_now(&path, member, options)).await;
        opened.map_err(|panicked| EnsembleError::Refused(panicked.to_string()))?
    }

    fn open_now(path: &Path, member: MemberId, options: DiskOptions) -> Result<Self, EnsembleError> {
        let dir = DataDir::open(path, member, !options.unsynced).map_err(refused)?;
        let log = dir.open_log(LogOptions { on_flush: options.on_flush, ..LogOptions::default() }).map_err(refused)?;
        let snapshots = dir.open_snapshots().map_err(refused)?;
        let space = DiskSpace::new(path, DiskSpace::RESERVE_BYTES_DEFAULT);
        Ok(Self { dir, log, snapshots, space })
    }

    pub(super) fn credentials(&self) -> Credentials {
        let identity = self.dir.identity();
        Credentials {
            disk_id: identity.disk_id,
            incarnation: identity.incarnation,
            joined: identity.joined,
            ensemble_id: identity.ensemble_id,
        }
    }
}

/// The error with its causes, as one sentence.
fn refused(error: impl std::error::Error) -> EnsembleError {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence = format!("{sentence}: {error}");
        cause = error.source();
    }
    EnsembleError::Refused(sentence)
}
