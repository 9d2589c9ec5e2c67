//! Agreement: proposals of all members go in, and every member's replica is fed with what a majority has on disk. The
//! only place that names the Raft crate.
//!
//! - [`lane`] keeps what this member proposed and has not seen applied; [`forward`] brings it to the leader, with
//!   touches ([`touches`]) and read barriers ([`barriers`]), and again whenever the leader changes. [`lookout`] finds out
//!   that the leader is gone.
//! - [`leader`] is what only the leader does, [`membership`] keeps the members what they should be.
//! - [`bootstrap`] is how a member begins, [`standing`] who it is to the others.
//! - [`machine`] and [`network`] are the replica and the peers as the Raft crate sees them, [`server`] is what peers
//!   may call.
//!
//! Knows no session promise and no watch. Its tasks are in `docs/tasks.md`, its bounds in `docs/limits.md`.

use std::{
    collections::BTreeMap,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::AtomicU64},
};

use futures_util::{FutureExt, future::BoxFuture};
use openraft::{ServerState, async_runtime::watch::WatchReceiver};
use parking_lot::Mutex;
use quorate_tree::{Author, MemberId, Op, SessionId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, error, warn};

use crate::{
    net::Door,
    replica::{Completion, Replica, Settled},
    storage::{DataDir, Log},
};

mod barriers;
mod bootstrap;
mod codec;
mod command_codec;
mod compaction;
mod config;
mod deadlines;
mod digests;
mod disk;
mod disks;
mod exchange;
mod faults;
mod forward;
mod handover;
mod held_commits;
mod held_replies;
mod lane;
mod leader;
mod leader_door;
mod leadership;
mod link;
mod lookout;
mod machine;
mod membership;
#[cfg(test)]
mod micro;
mod network;
mod peer_door;
mod peer_io;
mod pulse;
mod readiness;
mod server;
mod session_news;
mod shelf;
mod standing;
mod status;
mod store;
#[cfg(test)]
mod tests;
mod touches;
mod types;

use barriers::BarrierBook;
use compaction::{Compactor, SnapshotRequest};
use config::Timing;
use digests::{DigestExchange, DigestMarks};
use disks::DiskTable;
use forward::{Contact, Forwarder};
use handover::HandOver;
use lane::OpenLane;
use leader::LeaderTask;
use leader_door::{LeaderDoor, Sender};
use leadership::Leadership;
use link::PeerLink;
use lookout::Lookout;
use machine::{ApplyHooks, Machine, Raft};
use network::{Links, Network};
use peer_io::PeerSockets;
use pulse::{Pulse, PulseTaker};
use server::PeerService;
use shelf::SnapshotShelf;
use standing::Standing;
use store::LogStore;
use touches::TouchBook;

pub(crate) use compaction::SNAPSHOT_LOG_BYTES_MIN;
pub(crate) use config::EnsembleConfig;
pub(crate) use disk::{DiskOptions, EnsembleDisk};
pub(crate) use faults::Faults;
pub(crate) use pulse::Part;
pub(crate) use status::{MemberStatus, NotReady, Readiness, Role, Status};
pub(crate) use touches::TouchError;

/// A member's part in the agreement. Clones are handles to the same part.
#[derive(Clone, Debug)]
pub(crate) struct Ensemble {
    parts: Arc<Parts>,
}

#[derive(Debug)]
struct Parts {
    raft: Raft,
    /// Until the ensemble is stopped.
    dir: Mutex<Option<Arc<DataDir>>>,
    log: Log,
    standing: Arc<Standing>,
    lane: Arc<OpenLane>,
    touches: Arc<TouchBook>,
    barriers: Arc<BarrierBook>,
    leadership: watch::Receiver<Leadership>,
    contact: watch::Receiver<Contact>,
    readiness: watch::Receiver<Readiness>,
    pulse: Arc<Pulse>,
    snapshot_requests: mpsc::Sender<SnapshotRequest>,
    hand_over: HandOver,
    failure: Arc<Failure>,
    tasks: TaskTracker,
    stop: CancellationToken,
    hangup: CancellationToken,
}

/// Why an ensemble could not be started, or had to stop.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum EnsembleError {
    /// A sentence for the operator.
    #[error("{0}")]
    Refused(String),
    /// What is on disk is not what was written there. A sentence for the operator.
    #[error("{0}")]
    Damaged(String),
    /// This member must not go on.
    #[error("{0}")]
    Failed(String),
}

/// The ensemble has been stopped: what was asked will not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this member's part in the ensemble has ended")]
pub(crate) struct Stopped;

/// The first reason why this member must not go on.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    reason: watch::Sender<Option<EnsembleError>>,
}

impl Failure {
    /// Only the first reason counts: the others follow from it.
    pub(crate) fn fail(&self, error: EnsembleError) {
        self.reason.send_if_modified(|reason| {
            let first = reason.is_none();
            if first {
                error!(%error, "this member cannot go on");
                *reason = Some(error);
            }
            first
        });
    }

    async fn failed(&self) -> EnsembleError {
        let mut reason = self.reason.subscribe();
        let reason = reason.wait_for(Option::is_some).await.expect("the sender is this");
        reason.clone().expect("it was waited for")
    }
}

impl Ensemble {
    /// Fills the replica with what is on disk, and begins to take part. Peers are served at `door`. Returns before the
    /// member has joined: [`Ensemble::readiness`] tells.
    pub(crate) async fn start(
        config: EnsembleConfig,
        disk: EnsembleDisk,
        replica: Arc<Replica>,
        door: Door,
    ) -> Result<Self, EnsembleError> {
        config.check()?;
        let timing = config.timing();
        let (stop, hangup, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let failure = Arc::new(Failure::default());
        let credentials = disk.credentials();
        let EnsembleDisk { dir, log, snapshots, space } = disk;
        if let Err(refused) = check_joined_with(&config, &dir.identity().list) {
            log.close().await;
            return Err(refused);
        }
        let dir = Arc::new(dir);

        let standing = Arc::new(Standing::new(&config, credentials));
        let disks = Arc::new(DiskTable::new(config.peers.keys().copied().collect()));
        let shelf = Arc::new(SnapshotShelf::new(snapshots, config.limits));
        load(&shelf, &log, &replica, &disks).await?;

        let sockets = PeerSockets::new(hangup.clone(), config.faults.clone(), timing);
        let links = links(&config, &standing, &disks, &sockets, timing)?;
        let lane = Arc::new(OpenLane::new(config.member, credentials.incarnation).measured(config.metrics.clone()));
        let (leader_door, leader_queue) = LeaderDoor::new();
        let installs = Arc::<AtomicU64>::default();
        let digests = Arc::new(DigestMarks::new(config.member));
        let hooks = ApplyHooks {
            lane: lane.clone(),
            disks: disks.clone(),
            news: leader_door.news().clone(),
            standing: standing.clone(),
            dir: Arc::downgrade(&dir),
            shelf: shelf.clone(),
            digests: digests.clone(),
            installs: installs.clone(),
        };
        let machine = Machine::new(replica.clone(), hooks);
        let raft_config = config.raft().validate();
        let raft_config = raft_config.map_err(|error| EnsembleError::Refused(error.to_string()))?;
        let network = Network::new(links.clone(), shelf.clone(), timing.retry(), config.metrics.clone());
        let store = LogStore::new(log.clone());
        let raft = Raft::new(config.member.0.into(), Arc::new(raft_config), network, store, machine).await;
        let raft = raft.map_err(|fatal| EnsembleError::Refused(fatal.to_string()))?;
        if let Err(refused) = check_list(&config, &raft).await {
            drop(raft.shutdown().await);
            log.close().await;
            return Err(refused);
        }

        let spawn = |name: &'static str, task: BoxFuture<'static, ()>| {
            let failure = failure.clone();
            // A part that fell over leaves a member that only looks alive: the whole member ends, and says why.
            let task = AssertUnwindSafe(task).catch_unwind().map(move |ended| {
                if ended.is_err() {
                    failure.fail(EnsembleError::Failed(format!("the task {name:?} of this member fell over")));
                }
            });
            tasks.spawn(task.in_current_span());
        };

        let (leadership_sender, leadership) = watch::channel(Leadership::default());
        let (contact_sender, contact) = watch::channel(Contact::default());
        let (readiness_sender, readiness) = watch::channel(Readiness { missing: vec![NotReady::NoLeader] });
        let (touches, barriers) = (Arc::<TouchBook>::default(), Arc::<BarrierBook>::default());

        tasks.spawn({
            let (raft, stop, failure, changes) = (raft.clone(), stop.clone(), failure.clone(), config.metrics.clone());
            async move {
                if let Some(error) = leadership::follow(raft, leadership_sender, changes, stop).await {
                    failure.fail(error);
                }
            }
            .in_current_span()
        });
        tasks.spawn({
            let (log, stop, failure) = (log.clone(), stop.clone(), failure.clone());
            async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    // Also of a member that writes nothing: what it promised may not be on disk.
                    error = log.failed() => failure.fail(EnsembleError::Failed(disk::sentence(error))),
                }
            }
            .in_current_span()
        });
        let leader_task = LeaderTask {
            member: config.member,
            raft: raft.clone(),
            replica: replica.clone(),
            disks: disks.clone(),
            door: leader_door.clone(),
            queue: leader_queue,
            leadership: leadership.clone(),
            timing,
            reap_period: config.reap_period,
        };
        spawn("leader", leader_task.run(stop.clone()).boxed());
        let forwarder = Forwarder {
            lane: lane.clone(),
            touches: touches.clone(),
            barriers: barriers.clone(),
            from: Sender { member: config.member, incarnation: credentials.incarnation },
            links: links.clone(),
            lookout: Lookout::new(raft.clone(), standing.clone(), links.clone(), timing),
            door: leader_door.clone(),
            contact: contact_sender,
            space,
            faults: config.faults.clone(),
            disputed: digests.disputed(),
            timing,
            tasks: tasks.clone(),
        };
        spawn("forwarder", forwarder.run(leadership.clone(), stop.clone()).boxed());
        let service = PeerService {
            raft: raft.clone(),
            standing: standing.clone(),
            leadership: leadership.clone(),
            door: leader_door.clone(),
            shelf: shelf.clone(),
            digests: digests.clone(),
            faults: config.faults.clone(),
            timing,
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        spawn("peer door", peer_door::serve(door, sockets, service).boxed());
        let bootstrap = bootstrap::Bootstrap {
            raft: raft.clone(),
            standing: standing.clone(),
            links: links.clone(),
            leadership: leadership.clone(),
            timing,
        };
        spawn("bootstrap", bootstrap.run(stop.clone()).boxed());
        let keeper = membership::MembershipKeeper {
            raft: raft.clone(),
            replica: replica.clone(),
            standing: standing.clone(),
            disks: disks.clone(),
            links: links.clone(),
            door: leader_door.clone(),
            leadership: leadership.clone(),
            timing,
        };
        spawn("membership", keeper.run(stop.clone()).boxed());
        let exchange =
            DigestExchange { marks: digests.clone(), links, dir: dir.clone(), failure: failure.clone(), timing };
        spawn("digest exchange", exchange.run(stop.clone()).boxed());
        let hand_over = HandOver {
            raft: raft.clone(),
            standing: standing.clone(),
            door: leader_door,
            leadership: leadership.clone(),
            timing,
        };
        // When it is full, whoever asks for a snapshot waits for those before.
        let (snapshot_requests, requests) = mpsc::channel(1);
        let compactor = Compactor {
            raft: raft.clone(),
            replica: replica.clone(),
            shelf,
            log: log.clone(),
            installs,
            log_bytes_min: config.snapshot_log_bytes_min,
            metrics: config.metrics.clone(),
            requests,
        };
        spawn("compactor", compactor.run(stop.clone()).boxed());
        let pulse = Arc::<Pulse>::default();
        let taker = PulseTaker { raft: raft.clone(), log: log.clone(), pulse: pulse.clone() };
        spawn("pulse", taker.run(stop.clone()).boxed());
        let watcher = readiness::ReadinessWatcher {
            raft: raft.clone(),
            standing: standing.clone(),
            disks: disks.clone(),
            barriers: barriers.clone(),
            replica,
            contact: contact.clone(),
            disputed: digests.disputed(),
            readiness: readiness_sender,
            timing,
        };
        spawn("readiness", watcher.run(stop.clone()).boxed());

        let parts = Parts {
            raft,
            dir: Mutex::new(Some(dir)),
            log,
            standing,
            lane,
            touches,
            barriers,
            leadership,
            contact,
            readiness,
            pulse,
            snapshot_requests,
            hand_over,
            failure,
            tasks,
            stop,
            hangup,
        };
        Ok(Self { parts: Arc::new(parts) })
    }

    /// Proposes a command in the order of the calls. Never waits: callers hold permits that bound what is open.
    /// The completion is used when this member applies the command, and dropped when that cannot be known.
    pub(crate) fn propose(&self, author: Author, op: Op, traceparent: Option<String>, completion: Completion) {
        self.parts.lane.propose(author, op, traceparent.unwrap_or_default(), completion);
    }

    /// Proposes a command of this member's own and waits for what becomes of it.
    ///
    /// # Cancel safety
    /// Cancel safe: the command goes on, and nobody learns what becomes of it.
    pub(crate) async fn ask(&self, op: Op) -> Result<Settled, Stopped> {
        let (ticket, settled) = oneshot::channel();
        self.propose(Author::default(), op, None, Completion::Ticket(ticket));
        settled.await.map_err(|_dropped| Stopped)
    }

    /// Tells the leader that a session was heard from. Resolves when a majority stood behind the leader after that.
    /// Never resolves while there is no such leader: callers have deadlines. The touch counts even if the future is
    /// dropped.
    pub(crate) fn touch(
        &self,
        session: SessionId,
    ) -> impl Future<Output = Result<(), TouchError>> + Send + 'static + use<> {
        self.parts.touches.touch(session)
    }

    /// The log index from which on a read of this member's copy is linearizable with respect to this call.
    /// Never resolves while there is no leader with a majority: callers have deadlines.
    pub(crate) fn barrier(&self) -> impl Future<Output = Result<u64, Stopped>> + Send + 'static + use<> {
        self.parts.barriers.wait()
    }

    /// Whether writes must be declined before they are proposed: the disks behind the quorum are nearly full.
    pub(crate) fn writes_refused(&self) -> bool {
        self.parts.contact.borrow().writes_refused
    }

    /// How things stand.
    pub(crate) fn status(&self) -> Status {
        let metrics = self.parts.raft.metrics();
        let metrics = metrics.borrow_watched();
        let leadership = *self.parts.leadership.borrow();
        // A change of the voters counts once a majority of the old ones and of the new ones has it.
        let voters = metrics.committed_membership_config.get_joint_config();
        let matched = |id: u64| {
            let replication = metrics.replication.as_ref()?;
            replication.get(&id).and_then(|matched| matched.as_ref()).map(|matched| matched.index)
        };
        let is_voter = |id: &u64| !voters.is_empty() && voters.iter().all(|voters| voters.contains(id));
        let members = metrics.membership_config.nodes().filter_map(|(id, node)| {
            let member = MemberId(u8::try_from(*id).ok()?);
            let peer_address = node.addr.clone();
            Some(MemberStatus { member, peer_address, voter: is_voter(id), matched_index: matched(*id) })
        });
        Status {
            role: match metrics.state {
                ServerState::Leader if leadership.leads => Role::Leader,
                ServerState::Learner => Role::Observer,
                ServerState::Leader | ServerState::Candidate => Role::Candidate,
                ServerState::Follower | ServerState::Shutdown => Role::Follower,
            },
            leader: leadership.leader,
            term: metrics.current_term,
            last_log_index: metrics.last_log_index.unwrap_or_default(),
            commit_index: metrics.local_committed.map_or(0, |committed| committed.index),
            log_bytes: self.parts.log.bytes_after(None),
            applied_index: metrics.last_applied.map_or(0, |applied| applied.index),
            snapshot_index: metrics.snapshot.map_or(0, |snapshot| snapshot.index),
            members: members.collect(),
            quarrels: self.parts.standing.quarrels(),
        }
    }

    /// Whether this member can serve clients, now and from now on.
    pub(crate) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.parts.readiness.clone()
    }

    /// Whether a part of this member makes progress, whatever the others do.
    pub(crate) fn beats(&self, part: Part) -> bool {
        self.parts.pulse.beats(part)
    }

    /// Resolves when this member must not go on: its disk failed, or its state is not that of the others.
    pub(crate) async fn failed(&self) -> EnsembleError {
        self.parts.failure.failed().await
    }

    /// Writes a snapshot now. Returns its zxid and size in bytes when it is on disk.
    ///
    /// # Cancel safety
    /// Cancel safe: the snapshot is written all the same.
    pub(crate) async fn take_snapshot(&self) -> Result<(quorate_tree::Zxid, u64), EnsembleError> {
        let stopped = || EnsembleError::Refused(Stopped.to_string());
        let (request, answer) = oneshot::channel();
        self.parts.snapshot_requests.send(request).await.map_err(|_closed| stopped())?;
        answer.await.map_err(|_dropped| stopped())?
    }

    /// On the leader: holds new proposals, waits until the target has everything, and makes it the leader.
    /// `None` picks the most advanced voter. On others, nothing is done and `Ok` returned if `to` is `None`.
    ///
    /// # Cancel safety
    /// Cancel safe: proposals are held for a bounded time only.
    pub(crate) async fn hand_over(&self, to: Option<MemberId>) -> Result<(), EnsembleError> {
        self.parts.hand_over.run(to).await
    }

    /// Ends all tasks, having flushed the log, and waits for them.
    pub(crate) async fn stop(&self) {
        self.parts.stop.cancel();
        if let Err(error) = self.parts.raft.shutdown().await {
            warn!(%error, "the core did not end well");
        }
        self.parts.tasks.close();
        let goodbye = tokio::time::timeout(server::GOODBYE, self.parts.tasks.wait()).await;
        // Connections that nobody closed by now are cut, on both sides.
        self.parts.hangup.cancel();
        if goodbye.is_err() {
            self.parts.tasks.wait().await;
        }
        self.parts.log.close().await;
        drop(self.parts.dir.lock().take());
    }
}

/// Fills the replica from the newest snapshot that is usable, and brings the log in line with it.
async fn load(
    shelf: &Arc<SnapshotShelf>,
    log: &Log,
    replica: &Arc<Replica>,
    disks: &DiskTable,
) -> Result<(), EnsembleError> {
    let loading = {
        let (shelf, log, replica) = (shelf.clone(), log.clone(), replica.clone());
        move || -> Result<(), EnsembleError> {
            if let Some((snapshot, tree)) = shelf.load_newest(&log)? {
                replica.install(tree, snapshot.index());
            }
            Ok(())
        }
    };
    let loaded = tokio::task::spawn_blocking(loading).await;
    loaded.map_err(|panicked| EnsembleError::Refused(panicked.to_string()))??;
    if let Some(snapshot) = shelf.current() {
        shelf::align_log(log, &snapshot).await?;
        replica.read(|tree| disks.refresh(tree));
    }
    Ok(())
}

/// Refuses any list but the one this disk was accepted with: a majority of a longer one is another majority.
fn check_joined_with(config: &EnsembleConfig, joined_with: &str) -> Result<(), EnsembleError> {
    if joined_with.is_empty() || joined_with == config.list() { Ok(()) } else { Err(other_list(config, joined_with)) }
}

fn other_list(config: &EnsembleConfig, of_the_data: &str) -> EnsembleError {
    EnsembleError::Refused(format!(
        "the ensemble's list is {}, but the data of member {} is that of {of_the_data}: correct the list, or give this \
         member the data directory that belongs to it (the members of an ensemble cannot be changed yet)",
        config.list(),
        config.member
    ))
}

/// Refuses a list that does not have every member of the log, for a disk that has a log and was not accepted yet. The
/// log may have fewer members: one whose disk is being replaced.
async fn check_list(config: &EnsembleConfig, raft: &Raft) -> Result<(), EnsembleError> {
    let known = raft.with_raft_state(|state| {
        let members = state.membership_state.effective().nodes().map(|(id, node)| (*id, node.addr.clone()));
        members.collect::<BTreeMap<u64, String>>()
    });
    let known = known.await.map_err(|fatal| EnsembleError::Refused(fatal.to_string()))?;
    let is_configured = |(id, address): (&u64, &String)| {
        u8::try_from(*id).ok().and_then(|id| config.peers.get(&MemberId(id))) == Some(address)
    };
    if known.iter().all(is_configured) {
        return Ok(());
    }
    let known: Vec<String> = known.iter().map(|(id, address)| format!("{id}={address}")).collect();
    Err(other_list(config, &known.join(",")))
}

fn links(
    config: &EnsembleConfig,
    standing: &Arc<Standing>,
    disks: &Arc<DiskTable>,
    sockets: &PeerSockets,
    timing: Timing,
) -> Result<Links, EnsembleError> {
    let others = config.peers.iter().filter(|(member, _)| **member != config.member);
    let links = others.map(|(member, address)| {
        let link = PeerLink::new(*member, address, standing.clone(), disks.clone(), sockets, timing)?;
        Ok((*member, Arc::new(link)))
    });
    Ok(Arc::new(links.collect::<Result<_, EnsembleError>>()?))
}
