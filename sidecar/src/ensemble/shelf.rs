//! The snapshots of this member and what the Raft crate must know of them.
//!
//! A snapshot file's head carries the log id and the membership at that point, encoded as `peer.SnapshotMeta`; its
//! chunks are the parts of the tree. The newest one that is whole is the current one.

use std::io;

use openraft::StoredMembership;
use parking_lot::Mutex;
use prost::Message;
use quorate_proto::peer;
use quorate_tree::{Limits, LoadError, Tree, TreeLoader, Zxid};
use tracing::{info, warn};

use super::{
    EnsembleError, codec,
    machine::{TypedMembership, TypedSnapshotMeta},
    types::LogId,
};
use crate::storage::{EntryId, Log, SnapshotError, SnapshotReader, SnapshotWriter, Snapshots};

/// The snapshots of one member.
#[derive(Debug)]
pub(crate) struct SnapshotShelf {
    files: Snapshots,
    limits: Limits,
    current: Mutex<Option<StoredSnapshot>>,
    /// Written, and not yet known to the Raft crate.
    prepared: Mutex<Option<StoredSnapshot>>,
}

/// A snapshot that is whole on disk.
#[derive(Clone, Debug)]
pub(crate) struct StoredSnapshot {
    id: EntryId,
    pub(crate) meta: TypedSnapshotMeta,
    pub(crate) zxid: Zxid,
    pub(crate) digest: u64,
    /// Bytes of all its chunks.
    pub(crate) bytes: u64,
}

/// The state that a snapshot is to have.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotPoint {
    pub(crate) applied: LogId,
    pub(crate) membership: TypedMembership,
    pub(crate) zxid: Zxid,
    pub(crate) digest: u64,
}

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShelfError {
    #[error(transparent)]
    File(#[from] SnapshotError),
    #[error("a snapshot's head: {0}")]
    Head(#[from] codec::CodecError),
    #[error("a snapshot's content: {0}")]
    Content(#[from] LoadError),
    #[error("{received} of {promised} bytes of a snapshot came")]
    Incomplete { received: u64, promised: u64 },
    #[error("a snapshot says of itself that it is at change {head}, its content is at {content}")]
    Contradiction { head: Zxid, content: Zxid },
}

impl From<ShelfError> for io::Error {
    fn from(error: ShelfError) -> Self {
        Self::other(error)
    }
}

impl SnapshotPoint {
    fn id(&self) -> EntryId {
        EntryId { index: self.applied.index, term: self.applied.leader_id.term }
    }

    fn to_proto(&self, bytes: u64) -> peer::SnapshotMeta {
        peer::SnapshotMeta {
            last_log_id: Some(codec::log_id_to_proto(&self.applied)),
            membership_log_id: self.membership.log_id().as_ref().map(codec::log_id_to_proto),
            membership: Some(codec::membership_to_proto(self.membership.membership())),
            bytes,
            zxid: self.zxid.0,
            digest: self.digest,
        }
    }

    pub(crate) fn from_proto(meta: &peer::SnapshotMeta) -> Result<Self, codec::CodecError> {
        let missing = |field| codec::CodecError::Missing { message: "snapshot head", field };
        let last_log_id = meta.last_log_id.as_ref().ok_or_else(|| missing("log id"))?;
        let membership = meta.membership.as_ref().ok_or_else(|| missing("membership"))?;
        let membership_log_id = codec::optional_log_id_from_proto(meta.membership_log_id.as_ref())?;
        Ok(Self {
            applied: codec::log_id_from_proto(last_log_id)?,
            membership: StoredMembership::new(membership_log_id, codec::membership_from_proto(membership)?),
            zxid: Zxid(meta.zxid),
            digest: meta.digest,
        })
    }

    fn stored(self, bytes: u64) -> StoredSnapshot {
        let id = self.id();
        let meta = TypedSnapshotMeta { last_log_id: Some(self.applied), last_membership: self.membership };
        StoredSnapshot { id, meta, zxid: self.zxid, digest: self.digest, bytes }
    }
}

impl StoredSnapshot {
    pub(crate) fn index(&self) -> u64 {
        self.id.index
    }

    /// What it says of itself, for its receiver.
    pub(crate) fn to_proto(&self) -> peer::SnapshotMeta {
        let applied = codec::log_id_of(self.id.term, self.id.index);
        let membership = self.meta.last_membership.clone();
        SnapshotPoint { applied, membership, zxid: self.zxid, digest: self.digest }.to_proto(self.bytes)
    }
}

/// A snapshot file that is being written.
#[derive(Debug)]
pub(crate) struct SnapshotDraft {
    point: SnapshotPoint,
    writer: SnapshotWriter,
}

impl SnapshotDraft {
    pub(crate) fn write(&mut self, chunk: &[u8]) -> Result<(), ShelfError> {
        Ok(self.writer.write(chunk)?)
    }

    /// Makes it a snapshot: whole and on disk when this returns.
    pub(crate) fn finish(self) -> Result<StoredSnapshot, ShelfError> {
        let info = self.writer.finish()?;
        Ok(self.point.stored(info.bytes))
    }
}

/// All of this blocks on the disk, except for `current`, `install` and `prepare`.
impl SnapshotShelf {
    pub(crate) fn new(files: Snapshots, limits: Limits) -> Self {
        Self { files, limits, current: Mutex::default(), prepared: Mutex::default() }
    }

    /// The newest snapshot that the Raft crate knows of.
    pub(crate) fn current(&self) -> Option<StoredSnapshot> {
        self.current.lock().clone()
    }

    pub(crate) fn install(&self, snapshot: StoredSnapshot) {
        *self.current.lock() = Some(snapshot);
    }

    /// Puts a snapshot where the Raft crate will ask for it.
    pub(crate) fn prepare(&self, snapshot: StoredSnapshot) {
        *self.prepared.lock() = Some(snapshot);
    }

    pub(crate) fn take_prepared(&self) -> Option<StoredSnapshot> {
        self.prepared.lock().take()
    }

    /// Begins a snapshot file.
    pub(crate) fn begin(&self, point: SnapshotPoint) -> Result<SnapshotDraft, ShelfError> {
        let head = point.to_proto(0).encode_to_vec();
        let writer = self.files.begin(point.id(), &head)?;
        Ok(SnapshotDraft { point, writer })
    }

    /// Opens a snapshot for sending.
    pub(crate) fn open(&self, snapshot: &StoredSnapshot) -> Result<SnapshotReader, ShelfError> {
        Ok(self.files.read(snapshot.id)?)
    }

    /// Makes a tree of a snapshot.
    pub(crate) fn load(&self, snapshot: &StoredSnapshot) -> Result<Tree, ShelfError> {
        let (_, tree) = self.read(snapshot.id)?;
        Ok(tree)
    }

    /// Takes a snapshot that turned out to be unusable out of the way.
    pub(crate) fn set_aside(&self, snapshot: &StoredSnapshot) {
        self.set_aside_id(snapshot.id);
    }

    fn set_aside_id(&self, id: EntryId) {
        if let Err(error) = self.files.set_aside(id) {
            warn!(%error, "an unusable snapshot stays");
        }
    }

    fn read(&self, id: EntryId) -> Result<(StoredSnapshot, Tree), ShelfError> {
        let mut reader = self.files.read(id)?;
        let head = peer::SnapshotMeta::decode(reader.info().meta.clone())
            .map_err(|source| codec::CodecError::Garbled { message: "snapshot head", source })?;
        let point = SnapshotPoint::from_proto(&head)?;
        let bytes = reader.info().bytes;
        let mut loader = TreeLoader::new(self.limits);
        while let Some(part) = reader.next_chunk()? {
            loader.add(&part)?;
        }
        let tree = loader.finish()?;
        if tree.zxid() != point.zxid {
            return Err(ShelfError::Contradiction { head: point.zxid, content: tree.zxid() });
        }
        Ok((point.stored(bytes), tree))
    }

    /// The newest snapshot that is whole, loaded, if the log goes on where it ends. `None` if there is none and the log
    /// has everything.
    pub(crate) fn load_newest(&self, log: &Log) -> Result<Option<(StoredSnapshot, Tree)>, EnsembleError> {
        let refuse = |reason: String| EnsembleError::Refused(reason);
        let purged = log.state().purged;
        for listed in self.files.list().map_err(|error| refuse(error.to_string()))? {
            if purged.is_some_and(|purged| purged.index > listed.id.index) {
                break;
            }
            match self.read(listed.id) {
                Ok((snapshot, tree)) => {
                    info!(index = snapshot.id.index, zxid = %snapshot.zxid, bytes = snapshot.bytes, "snapshot loaded");
                    self.install(snapshot.clone());
                    return Ok(Some((snapshot, tree)));
                }
                // A later version wrote it: going on without it would undo what that version did.
                Err(ShelfError::Content(error @ LoadError::Format { .. })) => return Err(refuse(error.to_string())),
                Err(ShelfError::File(error @ SnapshotError::UnknownFormat { .. })) => {
                    return Err(refuse(error.to_string()));
                }
                Err(error) => {
                    warn!(%error, "a snapshot cannot be used; an older one may do");
                    self.set_aside_id(listed.id);
                }
            }
        }
        match purged {
            None => Ok(None),
            Some(purged) => Err(EnsembleError::Damaged(format!(
                "the log begins after entry {} and no usable snapshot reaches so far; move the data directory away and \
                 start with an empty one, the member then joins again as a new disk",
                purged.index
            ))),
        }
    }
}

/// Brings the log in line with a snapshot that was written when the member ended before the log was. Entries that
/// contradict the snapshot were never committed; all of them go, as Raft has it.
pub(crate) async fn align_log(log: &Log, snapshot: &StoredSnapshot) -> Result<(), EnsembleError> {
    let state = log.state();
    let id = snapshot.id;
    let behind = state.last.is_none_or(|last| last.index < id.index);
    let agrees = log.term(id.index) == Some(id.term) || state.purged == Some(id);
    if agrees || behind {
        return Ok(());
    }
    warn!(index = id.index, "the log contradicts the snapshot; its entries were never committed and go");
    let kept = state.purged.map(|purged| purged.index);
    log.truncate_after(kept).await.map_err(|error| EnsembleError::Refused(error.to_string()))?;
    log.purge(id).await;
    Ok(())
}
