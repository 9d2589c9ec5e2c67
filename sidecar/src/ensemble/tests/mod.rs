//! Several members in this process, over real sockets and on real directories.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use quorate_tree::{
    Acl, Author, Create, CreateMode, Limits, MemberId, Op, Reply, SessionId, SetData, Tree, WriteNumber,
};
use tempfile::TempDir;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout},
};

use super::{
    DiskOptions, Ensemble, EnsembleConfig, EnsembleDisk, EnsembleError, Faults, NotReady, Readiness, Role,
    SNAPSHOT_LOG_BYTES_MIN, Status,
};
use crate::{
    config::Address,
    net::{Bounds, Door},
    replica::{Completion, QueueLimits, Replica, Settled, WatchLimits},
    telemetry::metrics::Metrics,
};

mod conformance;
mod divergence;
mod failing_disk;
mod failover;
mod forged;
mod forming;
mod joining;
mod measure;
mod sessions;
mod snapshots;

/// How long anything may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// The empty copy of a member.
fn replica(member: MemberId) -> Replica {
    let queue_limits = QueueLimits {
        outbox_events_max: 1000,
        outbox_bytes_max: 1 << 20,
        reply_bytes_max: 1 << 20,
        run_work_max: 1000,
        waiting_bytes_max: 1 << 30,
    };
    let watch_limits = WatchLimits {
        watches_max: 1000,
        watches_per_session_max: 1000,
        path_bytes_max: 1 << 20,
        path_bytes_per_session_max: 1 << 20,
    };
    let metrics = Metrics::new(member).sessions;
    Replica::new(member, Tree::new(Limits::DEFAULT), 0, queue_limits, watch_limits, metrics)
}

/// Members of one ensemble, whether they run or not.
struct Cluster {
    places: BTreeMap<u8, Place>,
    peers: BTreeMap<MemberId, String>,
    snapshot_log_bytes_min: u64,
    synced: bool,
    election_timeout_ms: u64,
}

/// What outlives a member.
struct Place {
    data_dir: TempDir,
    running: Option<Running>,
}

struct Running {
    ensemble: Ensemble,
    replica: Arc<Replica>,
    faults: Arc<Faults>,
}

impl Cluster {
    /// Members that do not run yet.
    fn new(members: u8) -> Self {
        // `RUST_LOG=quorate_sidecar=debug` shows what the members do.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
        let mut peers = BTreeMap::new();
        let mut places = BTreeMap::new();
        for member in 1..=members {
            peers.insert(MemberId(member), format!("127.0.0.1:{}", free_port()));
            places.insert(member, Place { data_dir: tempfile::tempdir().unwrap(), running: None });
        }
        Self { places, peers, snapshot_log_bytes_min: SNAPSHOT_LOG_BYTES_MIN, synced: false, election_timeout_ms: 600 }
    }

    /// Members that all serve.
    async fn started(members: u8) -> Self {
        let mut cluster = Self::new(members);
        cluster.start_all().await;
        cluster
    }

    async fn start_all(&mut self) {
        let members: Vec<u8> = self.places.keys().copied().collect();
        for member in members {
            self.start(member).await;
        }
        self.ready().await;
    }

    async fn start(&mut self, member: u8) {
        self.try_start(member, self.peers.clone()).await.unwrap();
    }

    /// Starts a member with a list that may not be the others'.
    async fn try_start(&mut self, member: u8, peers: BTreeMap<MemberId, String>) -> Result<(), EnsembleError> {
        let place = self.places.get_mut(&member).unwrap();
        assert!(place.running.is_none());
        let id = MemberId(member);
        let faults = Arc::<Faults>::default();
        let address = self.peers[&id].parse::<Address>().unwrap();
        let config = EnsembleConfig {
            member: id,
            peers,
            zookeeper_address: Some(format!("zk{}:2181", id.0)),
            election_timeout_ms: self.election_timeout_ms,
            limits: Limits::DEFAULT,
            reap_period: Duration::from_millis(100),
            snapshot_log_bytes_min: self.snapshot_log_bytes_min,
            faults: Some(faults.clone()),
            metrics: Metrics::new(id).ensemble,
        };
        let replica = Arc::new(replica(id));
        let bounds = Bounds { connections_max: 100, connections_per_address_max: 0 };
        let door = Door::bind("peer", &address, bounds, Metrics::new(id).doors.of("peer")).await.unwrap();
        let options = DiskOptions { unsynced: !self.synced, on_flush: None };
        let disk = EnsembleDisk::open(place.data_dir.path(), id, options).await.unwrap();
        let ensemble = Ensemble::start(config, disk, replica.clone(), door).await?;
        place.running = Some(Running { ensemble, replica, faults });
        Ok(())
    }

    /// Ends a member without a goodbye: its sockets are reset.
    async fn kill(&mut self, member: u8) {
        let running = self.places.get_mut(&member).unwrap().running.take().unwrap();
        running.faults.kill();
        running.ensemble.stop().await;
    }

    /// A new disk for a member that does not run.
    fn wipe(&mut self, member: u8) {
        let place = self.places.get_mut(&member).unwrap();
        assert!(place.running.is_none());
        place.data_dir = tempfile::tempdir().unwrap();
    }

    fn running(&self) -> impl Iterator<Item = (u8, &Running)> {
        self.places.iter().filter_map(|(member, place)| Some((*member, place.running.as_ref()?)))
    }

    fn member(&self, member: u8) -> &Running {
        self.places[&member].running.as_ref().unwrap()
    }

    /// Holds all traffic between a member and the others.
    fn cut_off(&self, member: u8) {
        let others = self.peers.keys().copied().filter(|other| other.0 != member);
        self.member(member).faults.cut_off(others);
    }

    /// Lets connections between some members break and be refused, as a network does that is told to.
    fn refuse(&self, member: u8, others: &[u8]) {
        let ids = |members: &[u8]| members.iter().copied().map(MemberId).collect::<Vec<_>>();
        self.member(member).faults.refuse(ids(others));
        for other in others {
            self.member(*other).faults.refuse(ids(&[member]));
        }
    }

    /// Leaves elections to those who found out that the leader is gone: nobody campaigns because it is silent.
    fn mind_no_silence(&self) {
        for (_, running) in self.running() {
            running.ensemble.parts.raft.runtime_config().elect(false);
        }
    }

    fn heal(&self, member: u8) {
        self.member(member).faults.heal();
    }

    /// Waits until all that run serve.
    async fn ready(&self) {
        for (member, running) in self.running() {
            let mut readiness = running.ensemble.readiness();
            let ready = timeout(PATIENCE, readiness.wait_for(Readiness::is_ready)).await;
            assert!(ready.is_ok(), "member {member} does not serve: {:?}", running.ensemble.status());
        }
    }

    /// Waits until a member knows that it has lost the leader.
    async fn without_leader(&self, member: u8) {
        let mut readiness = self.member(member).ensemble.readiness();
        let lost = readiness.wait_for(|readiness| readiness.missing.contains(&NotReady::NoLeader));
        timeout(PATIENCE, lost).await.unwrap().unwrap();
    }

    /// The leader that all that run agree on.
    async fn leader(&self) -> u8 {
        self.eventually("a leader", || {
            let mut known = self.running().map(|(_, running)| {
                let status = running.ensemble.status();
                (status.leader, status.term)
            });
            let first = known.next()?;
            known.all(|other| other == first).then_some(first.0?.0)
        })
        .await
    }

    /// The leader that all that run agree on, and that is another one than before.
    async fn successor(&self, before: u8) -> u8 {
        self.eventually("a successor", || {
            let mut known = self.running().map(|(_, running)| running.status().leader);
            let first = known.next()?.filter(|leader| leader.0 != before)?;
            known.all(|other| other == Some(first)).then_some(first.0)
        })
        .await
    }

    fn followers(&self, leader: u8) -> Vec<u8> {
        self.running().map(|(member, _)| member).filter(|member| *member != leader).collect()
    }

    async fn eventually<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        let mut poll = tokio::time::interval(Duration::from_millis(5));
        loop {
            if let Some(found) = check() {
                return found;
            }
            if Instant::now() > deadline {
                let states: Vec<_> = self.running().map(|(_, running)| running.ensemble.status()).collect();
                panic!("{what} did not come to pass: {states:#?}");
            }
            poll.tick().await;
        }
    }

    /// Waits until all that run have applied the same, and gives the names of the children of `path`.
    async fn agreed(&self, path: &str) -> Vec<String> {
        self.eventually("equal members", || {
            let mut states =
                self.running().map(|(_, running)| running.replica.read(|tree| (tree.zxid(), tree.digest())));
            let first = states.next()?;
            states.all(|other| other == first).then_some(())
        })
        .await;
        let (_, running) = self.running().next().unwrap();
        running.replica.read(|tree| tree.children(path, &[]).unwrap().0)
    }

    async fn stop(mut self) {
        for place in self.places.values_mut() {
            if let Some(running) = place.running.take() {
                running.ensemble.stop().await;
            }
        }
    }
}

impl Running {
    fn status(&self) -> Status {
        self.ensemble.status()
    }

    /// Opens a session.
    async fn open_session(&self, timeout_ms: u32) -> SessionId {
        let op = Op::OpenSession { timeout_ms, password: vec![7; 16].into(), client_name: "test".into() };
        match timeout(PATIENCE, self.ensemble.ask(op)).await.unwrap().unwrap().outcome {
            Ok(Reply::Opened { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Proposes on behalf of a session; the ticket tells what became of it.
    fn propose(&self, session: SessionId, op: Op) -> oneshot::Receiver<Settled> {
        self.propose_numbered(session, None, op)
    }

    fn propose_numbered(&self, session: SessionId, write: Option<WriteNumber>, op: Op) -> oneshot::Receiver<Settled> {
        let (ticket, settled) = oneshot::channel();
        let author = Author { session, attachment: 1, write, identities: [].into() };
        self.ensemble.propose(author, op, None, Completion::Ticket(ticket));
        settled
    }

    async fn write(&self, session: SessionId, op: Op) -> Reply {
        settled(self.propose(session, op)).await
    }

    fn has_session(&self, session: SessionId) -> bool {
        self.replica.read(|tree| tree.session(session).is_some())
    }
}

async fn settled(ticket: oneshot::Receiver<Settled>) -> Reply {
    timeout(PATIENCE, ticket).await.unwrap().unwrap().outcome.unwrap()
}

fn create(path: &str) -> Op {
    create_as(path, CreateMode::Persistent)
}

fn create_as(path: &str, mode: CreateMode) -> Op {
    Op::Create(Create { path: path.into(), data: Some(bytes::Bytes::new()), mode, acl: vec![Acl::open()] })
}

fn set(path: &str, bytes: usize) -> Op {
    Op::SetData(SetData { path: path.into(), data: Some(vec![7; bytes].into()), version: -1 })
}

/// A port nobody listens on, not from the range the system gives to outgoing connections: a member that was killed
/// finds it free when it comes back.
fn free_port() -> u16 {
    static NEXT: OnceLock<AtomicU16> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU16::new(rand::random_range(0..20_000)));
    loop {
        let port = 10_240 + next.fetch_add(1, Ordering::Relaxed) % 20_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
