//! The replica behind the Raft crate's state-machine trait: decodes what was agreed, and has it applied.

use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use futures_util::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership, storage::EntryResponder,
    storage::RaftStateMachine, vote::RaftLeaderId,
};
use quorate_tree::{Command, Op, SessionId, Tree, Zxid};
use tracing::{Span, info};

use super::{
    command_codec::{Batch, decode_batch},
    digests::DigestMarks,
    disks::DiskTable,
    lane::OpenLane,
    leader::LEADER_LANE,
    session_news::SessionNews,
    shelf::{SnapshotPoint, SnapshotShelf, StoredSnapshot},
    standing::Standing,
    types::{BatchBytes, EntryApplied, LeaderId, LogId, Types},
};
use crate::{replica::Replica, storage::DataDir, telemetry::traces};

pub(crate) type Raft = openraft::Raft<Types, Machine>;
type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type TypedSnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, openraft::BasicNode>;
pub(crate) type TypedSnapshot = openraft::Snapshot<CommittedLeaderId, u64, openraft::BasicNode, SnapshotFile>;
pub(crate) type TypedMembership = StoredMembership<CommittedLeaderId, u64, openraft::BasicNode>;

/// A snapshot that the Raft crate passes around: sent from its file, or received and already loaded.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) stored: StoredSnapshot,
    /// The tree of a received one.
    pub(crate) tree: Option<Box<Tree>>,
}

/// What happens beside the replica when something is applied.
pub(crate) struct ApplyHooks {
    /// The open proposals of this member.
    pub(crate) lane: Arc<OpenLane>,
    pub(crate) disks: Arc<DiskTable>,
    /// What the leader's task must know.
    pub(crate) news: Arc<SessionNews>,
    pub(crate) standing: Arc<Standing>,
    /// Weak: this machine ends a moment after its ensemble, and must not keep the next start out.
    pub(crate) dir: Weak<DataDir>,
    pub(crate) shelf: Arc<SnapshotShelf>,
    pub(crate) digests: Arc<DigestMarks>,
    /// Counts how often the replica was replaced by a snapshot of another member.
    pub(crate) installs: Arc<AtomicU64>,
}

/// Applies what was agreed.
pub(crate) struct Machine {
    replica: Arc<Replica>,
    hooks: ApplyHooks,
    applied: Option<LogId>,
    membership: TypedMembership,
}

impl Machine {
    /// Begins with what the replica shows: the state of a snapshot, or nothing.
    pub(crate) fn new(replica: Arc<Replica>, hooks: ApplyHooks) -> Self {
        let loaded = hooks.shelf.current().map(|snapshot| snapshot.meta).unwrap_or_default();
        Self { replica, hooks, applied: loaded.last_log_id, membership: loaded.last_membership }
    }

    /// Marks the state as it is now as the content of a snapshot. `None` if there is nothing yet.
    pub(crate) fn freeze(&mut self) -> Option<SnapshotPoint> {
        let applied = self.applied?;
        let (zxid, digest) = self.replica.with_tree_mut(|tree| {
            tree.freeze();
            (tree.zxid(), tree.digest())
        });
        Some(SnapshotPoint { applied, membership: self.membership.clone(), zxid, digest })
    }

    async fn apply_commands(&self, index: u64, Batch { commands, traceparents }: &Batch) -> io::Result<()> {
        let hooks = &self.hooks;
        let spans: Vec<_> = traceparents.iter().map(|caller| apply_span(index, caller)).collect();
        let before = self.replica.applied().borrow().zxid;
        let mut report = self.replica.apply(index, commands, &mut |of| hooks.lane.take(of));
        while let left @ [_, ..] = &commands[report.applied..] {
            tokio::task::yield_now().await;
            report.add(self.replica.apply(index, left, &mut |of| hooks.lane.take(of)));
        }
        drop(spans);
        if report.own_gap {
            hooks.lane.gap_seen();
        }
        hooks.digests.reached(&report.digest_marks);
        let mut zxid = before;
        for command in commands {
            // Each command has its own zxid, also one that did nothing.
            zxid = zxid.next();
            if let Some(session) = session_of(command, zxid) {
                hooks.news.tell(session);
            }
        }
        if commands.iter().any(|command| command.lane.member == LEADER_LANE) {
            self.replica.read(|tree| hooks.news.leader_applied(tree));
            if commands.iter().any(|command| matches!(command.op, Op::RegisterMember { .. })) {
                self.registered().await?;
            }
        }
        Ok(())
    }

    /// The member table has changed. If this member's own disk is in it now, it has joined.
    async fn registered(&self) -> io::Result<()> {
        let ApplyHooks { disks, standing, dir, .. } = &self.hooks;
        let ensemble_id = self.replica.read(|tree| {
            disks.refresh(tree);
            tree.ensemble_id()
        });
        let own = disks.registered(standing.member()) == Some(standing.disk_id());
        let Some(ensemble_id) = ensemble_id.filter(|_| own && !standing.joined()) else { return Ok(()) };
        let Some(dir) = dir.upgrade() else { return Ok(()) };
        // On disk before it is told: a vote that was given counts.
        let list = standing.list().to_owned();
        let recorded = tokio::task::spawn_blocking(move || dir.set_joined(ensemble_id, &list)).await;
        recorded.map_err(io::Error::other)?.map_err(io::Error::other)?;
        standing.set_joined(ensemble_id);
        info!(member = %standing.member(), ensemble = format_args!("{ensemble_id:016x}"), "joined the ensemble");
        Ok(())
    }
}

/// The session that a command begins, moves or ends.
fn session_of(command: &Command, zxid: Zxid) -> Option<SessionId> {
    match &command.op {
        Op::OpenSession { .. } => Some(SessionId::opened_by(command.lane.member, zxid)),
        Op::AttachSession { session, .. } | Op::ExpireSession { session, .. } => Some(*session),
        Op::CloseSession => Some(command.author.session),
        Op::Create(_) | Op::SetData(_) | Op::SetAcl(_) | Op::Delete(_) | Op::Multi(_) => None,
        Op::Reap(_) | Op::PublishConfig { .. } | Op::RegisterMember { .. } => None,
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = PreparedSnapshot;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, TypedMembership)> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> io::Result<()>
    where
        Strm: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let index = entry.log_id.index;
            match entry.payload {
                EntryPayload::Blank => self.apply_commands(index, &Batch::default()).await?,
                EntryPayload::Membership(membership) => {
                    self.membership = TypedMembership::new(Some(entry.log_id), membership);
                    self.apply_commands(index, &Batch::default()).await?;
                }
                EntryPayload::Normal(BatchBytes(batch)) => {
                    let batch = decode_batch(batch).map_err(io::Error::other)?;
                    self.apply_commands(index, &batch).await?;
                }
            }
            self.applied = Some(entry.log_id);
            if let Some(responder) = responder {
                responder.send(EntryApplied);
            }
            // A member that catches up applies for long; the others on this thread get their turn.
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }

    /// Only what is written already: [`super::compaction`] walks the tree by itself, and a snapshot that it cannot write
    /// is no reason to stop.
    async fn try_create_snapshot_builder(&mut self, _force: bool) -> Option<PreparedSnapshot> {
        let stored = self.hooks.shelf.take_prepared()?;
        self.hooks.shelf.install(stored.clone());
        Some(PreparedSnapshot(stored))
    }

    async fn get_snapshot_builder(&mut self) -> PreparedSnapshot {
        unreachable!("the crate calls `try_create_snapshot_builder`")
    }

    async fn install_snapshot(&mut self, meta: &TypedSnapshotMeta, snapshot: SnapshotFile) -> io::Result<()> {
        let SnapshotFile { stored, tree } = snapshot;
        let index = stored.index();
        let (replica, shelf, installs) = (self.replica.clone(), self.hooks.shelf.clone(), self.hooks.installs.clone());
        let install = move || -> io::Result<StoredSnapshot> {
            let tree = match tree {
                Some(tree) => *tree,
                None => shelf.load(&stored)?,
            };
            // Before the copy changes: whoever walks the old one must find out.
            installs.fetch_add(1, Ordering::AcqRel);
            replica.install(tree, index);
            Ok(stored)
        };
        let stored = tokio::task::spawn_blocking(install).await.map_err(io::Error::other)??;
        info!(member = %self.hooks.standing.member(), index, zxid = %stored.zxid, "the copy was replaced by a snapshot of the leader");
        self.hooks.shelf.install(stored);
        self.hooks.digests.forget_own();
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        let standing = &self.hooks.standing;
        let next = self.replica.read(|tree| tree.next_in_lane(standing.member(), standing.incarnation()));
        if let Some(next) = next {
            self.hooks.lane.forget_below(next);
        }
        self.registered().await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<TypedSnapshot>> {
        let stored = self.hooks.shelf.current();
        Ok(stored
            .map(|stored| TypedSnapshot { meta: stored.meta.clone(), snapshot: SnapshotFile { stored, tree: None } }))
    }
}

/// A snapshot that is written already.
#[derive(Debug)]
pub(crate) struct PreparedSnapshot(StoredSnapshot);

impl RaftSnapshotBuilder<Types> for PreparedSnapshot {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<TypedSnapshot> {
        let stored = self.0.clone();
        Ok(TypedSnapshot { meta: stored.meta.clone(), snapshot: SnapshotFile { stored, tree: None } })
    }
}

/// The apply of an entry, as a part of a caller's trace.
fn apply_span(index: u64, caller: &str) -> Span {
    let span = tracing::info_span!(target: "quorate", "quorate.apply", index);
    traces::continue_from(&span, caller);
    span
}
