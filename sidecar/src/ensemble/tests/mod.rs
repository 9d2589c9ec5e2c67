//! Several members in this process, over real sockets.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_tree::{Acl, Author, Create, CreateMode, Limits, MemberId, Op, Reply, SessionId, Tree};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use super::{DiskOptions, Ensemble, EnsembleConfig, EnsembleDisk, Faults, Readiness, Role, SNAPSHOT_LOG_BYTES_MIN};
use crate::{
    config::Address,
    net::{Bounds, Door},
    replica::{QueueLimits, Replica, Settled, WatchLimits},
    telemetry::metrics::Metrics,
};

mod forming;

/// How long anything may take: far longer than it does.
const PATIENCE: Duration = Duration::from_secs(60);

/// Members of one ensemble, whether they run or not.
struct Cluster {
    places: BTreeMap<u8, Place>,
    peers: BTreeMap<MemberId, String>,
    election_timeout_ms: u64,
    snapshot_log_bytes_min: u64,
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
    async fn new(members: u8) -> Self {
        let mut peers = BTreeMap::new();
        let mut places = BTreeMap::new();
        for member in 1..=members {
            peers.insert(MemberId(member), format!("127.0.0.1:{}", free_port()));
            places.insert(member, Place { data_dir: tempfile::tempdir().unwrap(), running: None });
        }
        Self { places, peers, election_timeout_ms: 600, snapshot_log_bytes_min: SNAPSHOT_LOG_BYTES_MIN }
    }

    /// Members that all serve.
    async fn started(members: u8) -> Self {
        let mut cluster = Self::new(members).await;
        for member in 1..=members {
            cluster.start(member).await;
        }
        cluster.ready().await;
        cluster
    }

    async fn start(&mut self, member: u8) {
        let place = self.places.get_mut(&member).unwrap();
        assert!(place.running.is_none());
        let id = MemberId(member);
        let faults = Arc::<Faults>::default();
        let config = EnsembleConfig {
            member: id,
            peers: self.peers.clone(),
            election_timeout_ms: self.election_timeout_ms,
            limits: Limits::DEFAULT,
            reap_period: Duration::from_secs(60),
            snapshot_log_bytes_min: self.snapshot_log_bytes_min,
            faults: Some(faults.clone()),
        };
        let queue_limits = QueueLimits { outbox_events_max: 1000, outbox_bytes_max: 1 << 20, reply_bytes_max: 1 << 20 };
        let watch_limits = WatchLimits { watches_max: 1000, watches_per_session_max: 1000 };
        let replica = Arc::new(Replica::new(
            id,
            Tree::new(Limits::DEFAULT),
            0,
            queue_limits,
            watch_limits,
            Metrics::new(id).sessions,
        ));
        let address = self.peers[&id].parse::<Address>().unwrap();
        let bounds = Bounds { connections_max: 100, connections_per_address_max: 0 };
        let door = Door::bind("peer", &address, bounds, Metrics::new(id).doors.of("peer")).await.unwrap();
        let options = DiskOptions { unsynced: true, on_flush: None };
        let disk = EnsembleDisk::open(place.data_dir.path(), id, options).await.unwrap();
        let ensemble = Ensemble::start(config, disk, replica.clone(), door).await.unwrap();
        place.running = Some(Running { ensemble, replica, faults });
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

    /// Waits until all that run serve.
    async fn ready(&self) {
        for (member, running) in self.running() {
            let mut readiness = running.ensemble.readiness();
            let ready = timeout(PATIENCE, readiness.wait_for(Readiness::is_ready)).await;
            assert!(ready.is_ok(), "member {member} does not serve: {:?}", running.ensemble.readiness().borrow());
        }
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

    /// Waits until all that run have applied the same, and gives the names below the root.
    async fn agreed(&self) -> Vec<String> {
        self.eventually("equal members", || {
            let mut states =
                self.running().map(|(_, running)| running.replica.read(|tree| (tree.zxid(), tree.digest())));
            let first = states.next()?;
            states.all(|other| other == first).then_some(())
        })
        .await;
        let (_, running) = self.running().next().unwrap();
        running.replica.read(|tree| tree.children("/", &[]).unwrap().0)
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
    /// Opens a session.
    async fn open_session(&self, timeout_ms: u32) -> SessionId {
        let op = Op::OpenSession { timeout_ms, password: vec![7; 16].into(), client_name: "test".into() };
        match timeout(PATIENCE, self.ensemble.ask(op)).await.unwrap().unwrap().outcome {
            Ok(Reply::Opened { session, .. }) => session,
            other => panic!("{other:?}"),
        }
    }

    /// Proposes a create on behalf of a session; the ticket tells what became of it.
    fn propose_create(&self, session: SessionId, path: &str) -> tokio::sync::oneshot::Receiver<Settled> {
        let (ticket, settled) = tokio::sync::oneshot::channel();
        let author = Author { session, attachment: 1, write: None, identities: Vec::new() };
        self.ensemble.propose(author, create(path), None, crate::replica::Completion::Ticket(ticket));
        settled
    }

    async fn create(&self, session: SessionId, path: &str) -> Settled {
        timeout(PATIENCE, self.propose_create(session, path)).await.unwrap().unwrap()
    }
}

fn create(path: &str) -> Op {
    let mode = CreateMode::Persistent;
    Op::Create(Create { path: path.into(), data: bytes::Bytes::new(), mode, acl: vec![Acl::open()] })
}

/// A port that is free now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
