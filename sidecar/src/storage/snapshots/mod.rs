//! The snapshot files of one member: each a whole copy of the replicated state, as chunks whose meaning is unknown here.
//!
//! A snapshot is written beside, synced and then gets its name, so one with a name is complete. The last three are
//! kept: if the newest turns out to be damaged, an older one does as long as the log covers the gap, which the caller
//! decides. One from another member is written by the same writer. Everything here blocks on the disk; no task, no
//! memory beyond a chunk.

mod format;
mod reader;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use tracing::warn;

use self::format::{ENDING, FORMAT};
pub(crate) use self::{format::CHUNK_BYTES_MAX, reader::SnapshotReader, writer::SnapshotWriter};
use super::{durable, log::EntryId};

/// How many snapshots stay.
const KEPT: usize = 3;
/// The ending of snapshots that were set aside.
const DAMAGED: &str = "damaged";

/// The snapshot files of one member. Clones are handles of the same.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    dir: PathBuf,
    sync: bool,
    /// So that snapshots written at the same time do not share a file.
    writers: Arc<AtomicU64>,
}

/// What a snapshot says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotInfo {
    /// The last entry whose effect is in it.
    pub(crate) id: EntryId,
    /// What the caller wrote at its head.
    pub(crate) meta: Bytes,
    /// Bytes of all chunks.
    pub(crate) bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("{} is damaged: {what}", file.display())]
    Damaged { file: PathBuf, what: String },
    #[error("{} has format {found}, this version reads format {FORMAT}: start the version that wrote it", file.display())]
    UnknownFormat { file: PathBuf, found: u32 },
    #[error("a chunk of {bytes} bytes; at least one and at most {CHUNK_BYTES_MAX} go into a snapshot")]
    ChunkSize { bytes: usize },
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Snapshots {
    /// Opens the directory, made when missing, and removes what was never finished.
    pub(super) fn open(dir: &Path, sync: bool) -> Result<Self, SnapshotError> {
        if !dir.is_dir() {
            fs::create_dir(dir).map_err(io_error("making", dir))?;
            if sync {
                durable::sync_dir(durable::parent(dir)).map_err(io_error("syncing the parent of", dir))?;
            }
        }
        for path in paths(dir)? {
            if path.extension().is_some_and(|ending| ending == durable::UNFINISHED) {
                fs::remove_file(&path).map_err(io_error("removing", &path))?;
            }
        }
        Ok(Self { dir: dir.to_owned(), sync, writers: Arc::new(AtomicU64::new(0)) })
    }

    /// The snapshots whose head and end are in order, newest first. Only reading one shows whether all of it is.
    pub(crate) fn list(&self) -> Result<Vec<SnapshotInfo>, SnapshotError> {
        let mut infos = Vec::new();
        for id in self.ids()? {
            match self.read(id) {
                Ok(reader) => infos.push(reader.info().clone()),
                Err(error @ SnapshotError::Damaged { .. }) => warn!(%error, "a snapshot is left out"),
                Err(error) => return Err(error),
            }
        }
        Ok(infos)
    }

    /// Begins a snapshot of the state after entry `id`. Nothing is there before [`SnapshotWriter::finish`].
    pub(crate) fn begin(&self, id: EntryId, meta: &[u8]) -> Result<SnapshotWriter, SnapshotError> {
        SnapshotWriter::begin(self.clone(), id, meta)
    }

    /// Opens a snapshot. It can be read to its end even if it is removed meanwhile.
    pub(crate) fn read(&self, id: EntryId) -> Result<SnapshotReader, SnapshotError> {
        SnapshotReader::open(&self.path(id), id)
    }

    /// Takes a snapshot that was found to be damaged out of the list; the file stays until the next one is set aside.
    pub(crate) fn set_aside(&self, id: EntryId) -> Result<(), SnapshotError> {
        for path in paths(&self.dir)? {
            if path.extension().is_some_and(|ending| ending == DAMAGED) {
                fs::remove_file(&path).map_err(io_error("removing", &path))?;
            }
        }
        let path = self.path(id);
        fs::rename(&path, path.with_extension(DAMAGED)).map_err(io_error("renaming", &path))
    }

    /// Removes all but the newest. What cannot be removed costs only room.
    fn remove_old(&self) {
        let ids = match self.ids() {
            Ok(ids) => ids,
            Err(error) => return warn!(%error, "old snapshots stay"),
        };
        for &id in ids.iter().skip(KEPT) {
            if let Err(error) = fs::remove_file(self.path(id)) {
                warn!(file = %self.path(id).display(), %error, "an old snapshot stays");
            }
        }
    }

    /// Newest first.
    fn ids(&self) -> Result<Vec<EntryId>, SnapshotError> {
        let mut ids: Vec<_> = paths(&self.dir)?.iter().filter_map(|path| id_of(path)).collect();
        ids.sort_by_key(|id| std::cmp::Reverse((id.term, id.index)));
        Ok(ids)
    }

    fn path(&self, id: EntryId) -> PathBuf {
        self.dir.join(format!("{:016x}-{:016x}.{ENDING}", id.term, id.index))
    }

    /// A file that nobody else writes.
    fn unfinished_path(&self) -> PathBuf {
        let number = self.writers.fetch_add(1, Ordering::Relaxed);
        self.dir.join(format!("{number}.{}", durable::UNFINISHED))
    }
}

fn paths(dir: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    let entries = fs::read_dir(dir).map_err(io_error("listing", dir))?;
    entries.map(|entry| Ok(entry.map_err(io_error("listing", dir))?.path())).collect()
}

fn id_of(path: &Path) -> Option<EntryId> {
    let name = path.file_name()?.to_str()?;
    let (term, index) = name.strip_suffix(ENDING)?.strip_suffix('.')?.split_once('-')?;
    let number = |digits: &str| if digits.len() == 16 { u64::from_str_radix(digits, 16).ok() } else { None };
    Some(EntryId { index: number(index)?, term: number(term)? })
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
    let path = path.to_owned();
    move |source| SnapshotError::Io { action, path, source }
}
