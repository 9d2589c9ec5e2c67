//! Writes one snapshot.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use fail::fail_point;

use super::{
    EntryId, SnapshotError, SnapshotInfo, Snapshots,
    format::{CHUNK_BYTES_MAX, ChunkHead, End, Head},
    io_error,
};
use crate::storage::durable;

const BUFFER_BYTES: usize = 256 << 10;
/// Flushed so often, a large snapshot does not make the log's next flush wait for all of it.
const SYNC_EVERY_BYTES: u64 = 16 << 20;

/// A snapshot in the making. Dropped without [`SnapshotWriter::finish`], it leaves nothing.
#[derive(Debug)]
pub(crate) struct SnapshotWriter {
    snapshots: Snapshots,
    id: EntryId,
    meta: Bytes,
    file: BufWriter<File>,
    beside: Beside,
    end: End,
    unsynced_bytes: u64,
}

/// The file until it has its name.
#[derive(Debug)]
struct Beside(PathBuf);

impl Drop for Beside {
    fn drop(&mut self) {
        // Gone already when it was given its name. What cannot be removed goes at the next start.
        _ = fs::remove_file(&self.0);
    }
}

impl SnapshotWriter {
    pub(super) fn begin(snapshots: Snapshots, id: EntryId, meta: &[u8]) -> Result<Self, SnapshotError> {
        let beside = snapshots.unfinished_path();
        let file = File::create_new(&beside).map_err(io_error("making", &beside))?;
        let mut writer = Self {
            snapshots,
            id,
            meta: Bytes::copy_from_slice(meta),
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            beside: Beside(beside),
            end: End::default(),
            unsynced_bytes: 0,
        };
        let meta_bytes = u32::try_from(meta.len()).expect("a head is small");
        writer.put(&Head { id, meta_bytes }.encode())?;
        writer.put(meta)?;
        writer.put(&crc32fast::hash(meta).to_le_bytes())?;
        Ok(writer)
    }

    /// Adds a chunk; the reader gives it back as it is.
    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        if chunk.is_empty() || chunk.len() > CHUNK_BYTES_MAX {
            return Err(SnapshotError::ChunkSize { bytes: chunk.len() });
        }
        self.put(&ChunkHead::of(self.end.chunks, chunk).encode())?;
        self.put(chunk)?;
        self.end.chunks += 1;
        self.end.bytes += chunk.len() as u64;
        self.unsynced_bytes += chunk.len() as u64;
        if self.snapshots.sync && self.unsynced_bytes >= SYNC_EVERY_BYTES {
            let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
            synced.map_err(io_error("syncing", &self.beside.0))?;
            self.unsynced_bytes = 0;
        }
        Ok(())
    }

    /// Gives the snapshot its name, and removes the oldest beyond those that are kept. It is there, also after a
    /// crash, once this returns.
    pub(crate) fn finish(mut self) -> Result<SnapshotInfo, SnapshotError> {
        self.put(&self.end.encode())?;
        self.file.flush().map_err(io_error("writing", &self.beside.0))?;
        let path = self.snapshots.path(self.id);
        self.publish(&path).map_err(io_error("finishing", &path))?;
        self.snapshots.remove_old();
        Ok(SnapshotInfo { id: self.id, meta: self.meta, bytes: self.end.bytes })
    }

    fn publish(&self, path: &Path) -> io::Result<()> {
        fail_point!(&self.fail_point("snapshot-before-rename"), |_| Err(io::Error::other("fail point")));
        durable::publish(self.file.get_ref(), &self.beside.0, path, self.snapshots.sync)?;
        fail_point!(&self.fail_point("snapshot-after-rename"), |_| Err(io::Error::other("fail point")));
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.file.write_all(bytes).map_err(io_error("writing", &self.beside.0))
    }

    /// Fail points carry the directory, so that a test can make one member of many fail.
    #[allow(dead_code, reason = "releases are built without fail points")]
    fn fail_point(&self, point: &str) -> String {
        format!("{point}@{}", self.snapshots.dir.display())
    }
}
