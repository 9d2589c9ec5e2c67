//! The replica behind the Raft crate's state-machine trait: decodes what was agreed, and has it applied.

use std::{io, sync::Arc};

use futures_util::{Stream, TryStreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, StoredMembership, storage::EntryResponder,
    storage::RaftStateMachine, vote::RaftLeaderId,
};
use quorate_tree::{Command, Op, SessionId, Zxid};
use tracing::info;

use super::{
    JoinRecord,
    command_codec::decode_batch,
    disks::DiskTable,
    lane::OpenLane,
    leader::{LEADER_LANE, SessionNews},
    standing::Standing,
    types::{BatchBytes, EntryApplied, LeaderId, LogId, Types},
};
use crate::replica::Replica;

pub(crate) type Raft = openraft::Raft<Types, Machine>;
type CommittedLeaderId = <LeaderId as RaftLeaderId>::Committed;
pub(crate) type TypedSnapshotMeta = openraft::SnapshotMeta<CommittedLeaderId, u64, openraft::BasicNode>;
pub(crate) type TypedSnapshot = openraft::Snapshot<CommittedLeaderId, u64, openraft::BasicNode, SnapshotFile>;
pub(crate) type TypedMembership = StoredMembership<CommittedLeaderId, u64, openraft::BasicNode>;

/// A snapshot on disk.
#[derive(Clone, Debug)]
pub(crate) struct SnapshotFile {}

/// What happens beside the replica when something is applied.
pub(crate) struct ApplyHooks {
    /// The open proposals of this member.
    pub(crate) lane: Arc<OpenLane>,
    pub(crate) disks: Arc<DiskTable>,
    /// What the leader's task must know.
    pub(crate) news: Arc<SessionNews>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) join_record: JoinRecord,
}

/// Applies what was agreed.
pub(crate) struct Machine {
    replica: Arc<Replica>,
    hooks: ApplyHooks,
    applied: Option<LogId>,
    membership: TypedMembership,
}

impl Machine {
    pub(crate) fn new(replica: Arc<Replica>, hooks: ApplyHooks) -> Self {
        Self { replica, hooks, applied: None, membership: TypedMembership::default() }
    }

    async fn apply_commands(&self, index: u64, commands: &[Command]) -> io::Result<()> {
        let hooks = &self.hooks;
        let before = self.replica.applied().borrow().zxid;
        let report = self.replica.apply(index, commands, &mut |of| hooks.lane.take(of));
        if report.own_gap {
            hooks.lane.gap_seen();
        }
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
        let ApplyHooks { disks, standing, join_record, .. } = &self.hooks;
        let ensemble_id = self.replica.read(|tree| {
            disks.refresh(tree);
            tree.ensemble_id()
        });
        let own = disks.registered(standing.member()) == Some(standing.disk_id());
        let Some(ensemble_id) = ensemble_id.filter(|_| own && !standing.joined()) else { return Ok(()) };
        let join_record = join_record.clone();
        // On disk before it is told: a vote that was given counts.
        tokio::task::spawn_blocking(move || join_record(ensemble_id)).await.map_err(io::Error::other)??;
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
        Op::Reap(_) | Op::RegisterMember { .. } => None,
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = SnapshotFile;
    type SnapshotBuilder = Builder;

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
                EntryPayload::Blank => self.apply_commands(index, &[]).await?,
                EntryPayload::Membership(membership) => {
                    self.membership = TypedMembership::new(Some(entry.log_id), membership);
                    self.apply_commands(index, &[]).await?;
                }
                EntryPayload::Normal(BatchBytes(batch)) => {
                    let commands = decode_batch(batch).map_err(io::Error::other)?;
                    self.apply_commands(index, &commands).await?;
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

    async fn get_snapshot_builder(&mut self) -> Builder {
        Builder {}
    }

    async fn install_snapshot(&mut self, _meta: &TypedSnapshotMeta, _snapshot: SnapshotFile) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<TypedSnapshot>> {
        Ok(None)
    }
}

#[derive(Debug)]
pub(crate) struct Builder {}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = SnapshotFile;

    async fn build_snapshot(&mut self) -> io::Result<TypedSnapshot> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
