//! The Raft crate's own suite over our log and our state machine.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use openraft::{
    OptionalSend, RaftSnapshotBuilder, StorageError,
    storage::{EntryResponder, RaftStateMachine},
    testing::log::{StoreBuilder, Suite},
    type_config::alias::SnapshotOf,
};

use super::*;
use crate::{
    ensemble::{
        digests::DigestMarks,
        disks::DiskTable,
        lane::OpenLane,
        leader_door::LeaderDoor,
        machine::{
            ApplyHooks, Machine, PreparedSnapshot, SnapshotFile, TypedMembership, TypedSnapshotMeta as SuiteMeta,
        },
        shelf::{SnapshotPoint, SnapshotShelf, StoredSnapshot},
        standing::Standing,
        store::LogStore,
        types::{LogId, Types},
    },
    storage::DataDir,
};

type SuiteSnapshot = SnapshotOf<Types, Option<Transfer>>;

/// The state machine, and what the compactor does beside it: the suite asks for snapshots right away, also of nothing,
/// and hands one over without a network.
struct SuiteMachine {
    machine: Machine,
    replica: Arc<Replica>,
    shelf: Arc<SnapshotShelf>,
}

/// A snapshot on its way from one member to another.
struct Transfer {
    stored: StoredSnapshot,
    chunks: Vec<Bytes>,
}

/// `None` is a snapshot of nothing.
struct SuiteBuilder(Option<PreparedSnapshot>);

impl RaftStateMachine<Types> for SuiteMachine {
    type SnapshotData = Option<Transfer>;
    type SnapshotBuilder = SuiteBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, TypedMembership)> {
        self.machine.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + OptionalSend,
    {
        self.machine.apply(entries).await
    }

    async fn get_snapshot_builder(&mut self) -> SuiteBuilder {
        let Some(point) = self.machine.freeze() else { return SuiteBuilder(None) };
        let mut draft = self.shelf.begin(point).unwrap();
        while let Some(part) = self.replica.with_tree_mut(|tree| tree.frozen_part(100)) {
            draft.write(&part).unwrap();
        }
        self.shelf.prepare(draft.finish().unwrap());
        let prepared = self.machine.try_create_snapshot_builder(true).await;
        SuiteBuilder(Some(prepared.expect("one was prepared")))
    }

    async fn install_snapshot(&mut self, meta: &SuiteMeta, snapshot: Option<Transfer>) -> io::Result<()> {
        let Transfer { stored, chunks } = snapshot.expect("the suite hands over a state");
        let mut draft = self.shelf.begin(SnapshotPoint::from_proto(&stored.to_proto()).unwrap()).unwrap();
        for chunk in chunks {
            draft.write(&chunk).unwrap();
        }
        let received = SnapshotFile { stored: draft.finish().unwrap(), tree: None };
        self.machine.install_snapshot(meta, received).await
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SuiteSnapshot>> {
        let Some(current) = self.machine.get_current_snapshot().await? else { return Ok(None) };
        let stored = current.snapshot.stored;
        let mut reader = self.shelf.open(&stored).unwrap();
        let chunks = std::iter::from_fn(|| reader.next_chunk().unwrap()).collect();
        Ok(Some(SuiteSnapshot { meta: current.meta, snapshot: Some(Transfer { stored, chunks }) }))
    }
}

impl RaftSnapshotBuilder<Types> for SuiteBuilder {
    type SnapshotData = Option<Transfer>;

    async fn build_snapshot(&mut self) -> io::Result<SuiteSnapshot> {
        let Some(prepared) = &mut self.0 else {
            return Ok(SuiteSnapshot { meta: SuiteMeta::default(), snapshot: None });
        };
        let built = prepared.build_snapshot().await?;
        let transfer = Transfer { stored: built.snapshot.stored, chunks: Vec::new() };
        Ok(SuiteSnapshot { meta: built.meta, snapshot: Some(transfer) })
    }
}

struct Builder;

/// What a store needs for as long as it lives.
type Guard = (TempDir, Arc<DataDir>);

impl StoreBuilder<Types, LogStore, SuiteMachine, Guard> for Builder {
    async fn build(&self) -> Result<(Guard, LogStore, SuiteMachine), StorageError<Types>> {
        let place = tempfile::tempdir().unwrap();
        let config = EnsembleConfig {
            member: MEMBER,
            peers: BTreeMap::from([(MEMBER, "127.0.0.1:7201".to_owned())]),
            zookeeper_address: None,
            election_timeout_ms: 600,
            limits: Limits::DEFAULT,
            reap_period: Duration::from_secs(60),
            snapshot_log_bytes_min: SNAPSHOT_LOG_BYTES_MIN,
            faults: None,
            metrics: crate::telemetry::metrics::Metrics::new(MemberId(1)).ensemble,
        };
        let disk =
            EnsembleDisk::open(place.path(), MEMBER, DiskOptions { unsynced: true, on_flush: None }).await.unwrap();
        let standing = Arc::new(Standing::new(&config, disk.credentials()));
        let dir = Arc::new(disk.dir);
        let shelf = Arc::new(SnapshotShelf::new(disk.snapshots, Limits::DEFAULT));
        let replica = Arc::new(replica(MEMBER));
        let hooks = ApplyHooks {
            lane: Arc::new(OpenLane::new(MEMBER, 1)),
            disks: Arc::new(DiskTable::new(vec![MEMBER])),
            news: LeaderDoor::new().0.news().clone(),
            standing,
            dir: Arc::downgrade(&dir),
            shelf: shelf.clone(),
            digests: Arc::new(DigestMarks::new(MEMBER)),
            installs: Arc::default(),
        };
        let machine = Machine::new(replica.clone(), hooks);
        Ok(((place, dir), LogStore::new(disk.log), SuiteMachine { machine, replica, shelf }))
    }
}

const MEMBER: MemberId = MemberId(1);

#[tokio::test]
async fn log_and_machine_pass_the_suite_of_the_raft_crate() {
    Suite::test_all(Builder).await.unwrap();
}
