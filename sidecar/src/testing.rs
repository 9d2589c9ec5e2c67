//! The test kit: the real sidecar in this process, one member or an ensemble, with the faults of real life.
//!
//! Nothing here is a fake. Each member has its own thread and runtime, real sockets on free ports, and its own data
//! directory. [`TestEnsemble::kill`] drops it where it stands: no flush, no hand-over, no goodbye.
//! [`TestEnsemble::pause`] stops its thread as a suspended machine would be stopped.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use quorate_sidecar::testing::TestEnsemble;
//!
//! let mut ensemble = TestEnsemble::start(3).await?;
//! let leader = ensemble.leader().await?;
//!
//! ensemble.kill(leader);
//! let successor = ensemble.leader().await?;
//!
//! assert_ne!(leader, successor);
//! # ensemble.shutdown().await;
//! # Ok(())
//! # }
//! ```

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use quorate_tree::{MemberId, Op, SessionId};
use tempfile::TempDir;
use tokio::{
    sync::{mpsc as async_mpsc, oneshot, watch},
    time::{Instant, timeout_at},
};

use crate::{
    config::{Address, Config, Voters},
    ensemble::{Faults, Readiness},
    front::{
        Member,
        admin::{Role, StatusSource as _},
    },
    sidecar::{Doors, Hooks, SidecarError},
};

mod ports;

pub use ports::free_port;

/// How long anything of the kit may take before it gives up with an error.
const PATIENCE: Duration = Duration::from_secs(60);

/// An ensemble of real members in this process.
///
/// Members are numbered from 1. Dropping it kills all members.
#[derive(Debug)]
pub struct TestEnsemble {
    members: BTreeMap<u8, Place>,
    _temporary: Option<TempDir>,
}

/// How an ensemble is to be.
#[derive(Clone, Debug)]
#[must_use]
pub struct TestEnsembleBuilder {
    members: u8,
    data_dir: Option<PathBuf>,
    synced: bool,
    snapshot_log_bytes: Option<u64>,
    tick: Duration,
    election_timeout: Duration,
    port_base: Option<u16>,
    settings: fn(&mut Config),
}

/// Why the kit could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestError {
    /// The member could not be started.
    #[error("member {member} could not be started")]
    Start {
        /// Which one.
        member: u8,
        /// Why.
        #[source]
        source: SidecarError,
    },
    /// What was waited for did not come.
    #[error("{what} did not come to pass within {within:?}")]
    Patience {
        /// What was waited for.
        what: String,
        /// How long.
        within: Duration,
    },
    /// A member that does not run, or does not exist, was asked for something.
    #[error("member {member} does not run")]
    NotRunning {
        /// Which one.
        member: u8,
    },
    /// Files or threads.
    #[error("{what}: {source}")]
    Machine {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}

/// How a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TestStatus {
    /// The last change applied.
    pub zxid: u64,
    /// Of the tree at that zxid.
    pub digest: u64,
    /// Whether it leads.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// Live sessions.
    pub sessions: u64,
    /// The log index of its newest snapshot; 0 without one.
    pub snapshot_index: u64,
}

/// A member's place in the ensemble, whether it runs or not.
#[derive(Debug)]
struct Place {
    config: Config,
    synced: bool,
    snapshot_log_bytes: Option<u64>,
    running: Option<RunningMember>,
}

/// A member that runs on its own thread.
#[derive(Debug)]
struct RunningMember {
    thread: Option<JoinHandle<()>>,
    /// One command at a time; the sender waits for room.
    commands: async_mpsc::Sender<Order>,
    member: Arc<Member>,
    faults: Arc<Faults>,
    readiness: watch::Receiver<Readiness>,
    /// Dropped to wake a paused member.
    paused: Option<mpsc::Sender<()>>,
}

/// What a member's thread is told.
#[derive(Debug)]
enum Order {
    /// Stand still until the sender is dropped.
    Pause(mpsc::Receiver<()>),
    /// Vanish.
    Kill,
    /// End in order.
    Shutdown,
}

impl TestEnsembleBuilder {
    /// How many members; 1, 3 or 5.
    pub fn members(mut self, members: u8) -> Self {
        self.members = members;
        self
    }

    /// Keeps data under `dir`, one folder a member, and leaves it there. Otherwise a temporary folder is used and
    /// removed.
    pub fn data_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(dir.into());
        self
    }

    /// Syncs every write to the disk, as a member in production does. Without it (the default) data outlives killed
    /// members but not the machine, and tests are quicker.
    pub fn synced(mut self, synced: bool) -> Self {
        self.synced = synced;
        self
    }

    /// Writes a snapshot whenever the log has grown by this much, and keeps as much of the log behind it. A member in
    /// production waits for 64 MiB; with little, a member that was away for a moment is brought up from a snapshot.
    pub fn snapshot_log_bytes(mut self, bytes: u64) -> Self {
        self.snapshot_log_bytes = Some(bytes);
        self
    }

    /// The session clock: timeouts are clamped to 2 to 20 of it. The default is 100 ms.
    pub fn tick(mut self, tick: Duration) -> Self {
        self.tick = tick;
        self
    }

    /// A silent leader is replaced within this time.
    pub fn election_timeout(mut self, timeout: Duration) -> Self {
        self.election_timeout = timeout;
        self
    }

    /// Fixed ports instead of free ones: member i gets clients at base+i, peers at base+100+i, operators at base+200+i.
    pub fn port_base(mut self, base: u16) -> Self {
        self.port_base = Some(base);
        self
    }

    /// Changes what else there is to set, of every member. Not for what the kit sets itself: identities, addresses.
    pub fn settings(mut self, change: fn(&mut Config)) -> Self {
        self.settings = change;
        self
    }

    /// Starts the members and waits until all of them serve.
    ///
    /// # Errors
    /// A member cannot be started, or does not serve in time.
    ///
    /// # Cancel safety
    /// Dropping the future kills what was started.
    pub async fn start(self) -> Result<TestEnsemble, TestError> {
        let (root, temporary) = match &self.data_dir {
            Some(dir) => (dir.clone(), None),
            None => {
                let dir = tempfile::tempdir()
                    .map_err(|source| TestError::Machine { what: "a temporary folder cannot be made", source })?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        let mut ensemble = TestEnsemble { members: BTreeMap::new(), _temporary: temporary };
        let configs: Vec<_> = (1..=self.members).map(|id| self.config(id, &root)).collect();
        let voters: Voters = configs.iter().map(|config| (config.id, config.peer_addr.clone())).collect();
        for mut config in configs {
            config.ensemble = voters.clone();
            ensemble.members.insert(
                config.id.0,
                Place { config, synced: self.synced, snapshot_log_bytes: self.snapshot_log_bytes, running: None },
            );
        }
        for id in 1..=self.members {
            ensemble.restart(id).await?;
        }
        ensemble.ready().await?;
        Ok(ensemble)
    }

    fn config(&self, id: u8, root: &Path) -> Config {
        let mut config = Config::new(MemberId(id), root.join(format!("member-{id}")), Voters::default());
        let port = |offset: u16| self.port_base.map_or_else(free_port, |base| base + offset + u16::from(id));
        config.client_addr = Some(Address::loopback(port(0)));
        config.peer_addr = Address::loopback(port(100));
        config.admin_addr = Some(Address::loopback(port(200)));
        config.zookeeper_addr = Some(Address::loopback(port(300)));
        config.tick = self.tick;
        config.election_timeout = self.election_timeout;
        (self.settings)(&mut config);
        config
    }
}

impl TestEnsemble {
    /// Starts an ensemble with the kit's defaults and waits until all members serve.
    ///
    /// # Errors
    /// A member cannot be started, or does not serve in time.
    ///
    /// # Cancel safety
    /// Dropping the future kills what was started.
    pub async fn start(members: u8) -> Result<Self, TestError> {
        Self::builder().members(members).start().await
    }

    /// An ensemble that is not to be as the defaults.
    pub fn builder() -> TestEnsembleBuilder {
        TestEnsembleBuilder {
            members: 3,
            data_dir: None,
            synced: false,
            snapshot_log_bytes: None,
            tick: Duration::from_millis(100),
            election_timeout: Duration::from_millis(600),
            port_base: None,
            settings: |_as_they_are| {},
        }
    }

    /// Where clients connect: every member, also those that do not run now.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.members.values().map(|place| http(place.config.client_addr.as_ref())).collect()
    }

    /// Where clients of one member connect.
    ///
    /// # Panics
    /// There is no such member.
    #[must_use]
    pub fn endpoint(&self, member: u8) -> String {
        http(self.members[&member].config.client_addr.as_ref())
    }

    /// Where clients of ZooKeeper connect to one member, as host and port.
    ///
    /// # Panics
    /// There is no such member.
    #[must_use]
    pub fn zookeeper_endpoint(&self, member: u8) -> String {
        let address = self.members[&member].config.zookeeper_addr.as_ref();
        address.expect("the kit opens this door of every member").to_string()
    }

    /// The settings of a member: its addresses, its data directory.
    ///
    /// # Panics
    /// There is no such member.
    #[must_use]
    pub fn config(&self, member: u8) -> &Config {
        &self.members[&member].config
    }

    /// Every member, whether it runs or not.
    pub fn members(&self) -> impl Iterator<Item = u8> + '_ {
        self.members.keys().copied()
    }

    /// Waits until every running member serves.
    ///
    /// # Errors
    /// One does not within a minute.
    pub async fn ready(&self) -> Result<(), TestError> {
        let deadline = Instant::now() + PATIENCE;
        for (id, place) in &self.members {
            let Some(running) = &place.running else { continue };
            let mut readiness = running.readiness.clone();
            let ready = timeout_at(deadline, readiness.wait_for(Readiness::is_ready)).await;
            if ready.is_err() {
                let missing = running.readiness.borrow().missing.clone();
                return Err(impatient(format!("member {id} to serve (missing: {missing:?})")));
            }
        }
        Ok(())
    }

    /// The member that leads, once the running members agree on one.
    ///
    /// # Errors
    /// None does within a minute.
    pub async fn leader(&self) -> Result<u8, TestError> {
        self.eventually("a leader that all running members know", |ensemble| {
            let mut leaders = ensemble.members.values().filter_map(|place| place.running.as_ref()).map(|running| {
                let status = running.member.status();
                (status.leader, status.term)
            });
            let first = leaders.next()?;
            let leader = first.0?.0;
            // Members go on naming one that died until they notice.
            let lives = ensemble.running(leader).is_ok_and(|running| running.paused.is_none());
            (lives && leaders.all(|other| other == first)).then_some(leader)
        })
        .await
    }

    /// How a member stands.
    ///
    /// # Errors
    /// It does not run.
    pub fn status(&self, member: u8) -> Result<TestStatus, TestError> {
        let status = self.running(member)?.member.status();
        Ok(TestStatus {
            zxid: status.zxid.0,
            digest: status.digest,
            leads: status.role == Role::Leader,
            term: status.term,
            sessions: status.sessions,
            snapshot_index: status.snapshot_index,
        })
    }

    /// Waits until all running members have applied the same, and gives that zxid and digest.
    ///
    /// # Errors
    /// They do not within a minute; digests that differ at one zxid never will.
    pub async fn agreed(&self) -> Result<(u64, u64), TestError> {
        self.eventually("equal members", |ensemble| {
            let mut states = ensemble.members().filter_map(|id| ensemble.status(id).ok()).map(|s| (s.zxid, s.digest));
            let first = states.next()?;
            states.all(|other| other == first).then_some(first)
        })
        .await
    }

    /// Drops a member where it stands: no flush, no hand-over, no goodbye. Its data directory stays.
    ///
    /// A member that does not run stays as it is.
    pub fn kill(&mut self, member: u8) {
        if let Some(running) = self.members.get_mut(&member).and_then(|place| place.running.take()) {
            running.kill();
        }
    }

    /// Ends a member in order, as SIGTERM does.
    ///
    /// # Errors
    /// It does not run.
    pub async fn stop(&mut self, member: u8) -> Result<(), TestError> {
        let place = self.members.get_mut(&member).ok_or(TestError::NotRunning { member })?;
        place.running.take().ok_or(TestError::NotRunning { member })?.shutdown().await;
        Ok(())
    }

    /// Starts a member that does not run, on the data and the ports it had.
    ///
    /// # Errors
    /// It cannot be started. A member that runs stays as it is.
    pub async fn restart(&mut self, member: u8) -> Result<(), TestError> {
        let place = self.members.get_mut(&member).ok_or(TestError::NotRunning { member })?;
        if place.running.is_none() {
            let hooks =
                Hooks { unsynced: !place.synced, snapshot_log_bytes_min: place.snapshot_log_bytes, ..Hooks::default() };
            place.running = Some(start_member(place.config.clone(), hooks).await?);
        }
        Ok(())
    }

    /// Removes the data of a member that does not run, as a replaced disk would.
    ///
    /// # Errors
    /// The folder cannot be removed.
    ///
    /// # Panics
    /// The member runs, or there is no such member.
    pub fn wipe(&mut self, member: u8) -> Result<(), TestError> {
        let place = &self.members[&member];
        assert!(place.running.is_none(), "a running member's data cannot be wiped");
        match std::fs::remove_dir_all(&place.config.data_dir) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(TestError::Machine { what: "a member's data cannot be removed", source })
            }
            _ => Ok(()),
        }
    }

    /// Stops a member's thread as a suspended machine would be stopped, until [`TestEnsemble::resume`].
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&mut self, member: u8) -> Result<(), TestError> {
        let running = self.running_mut(member)?;
        if running.paused.is_none() {
            let (wake, woken) = mpsc::channel();
            running.paused = Some(wake);
            // The thread takes orders as long as it runs.
            let _ = running.commands.send(Order::Pause(woken)).await;
        }
        Ok(())
    }

    /// Lets a paused member go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&mut self, member: u8) -> Result<(), TestError> {
        self.running_mut(member)?.paused = None;
        Ok(())
    }

    /// Cuts a member off from the others; its clients still reach it.
    ///
    /// # Errors
    /// It does not run.
    pub fn cut_off(&self, member: u8) -> Result<(), TestError> {
        let others: Vec<_> = self.members().filter(|other| *other != member).map(MemberId).collect();
        self.running(member)?.faults.cut_off(others);
        Ok(())
    }

    /// Ends a cut.
    ///
    /// # Errors
    /// It does not run.
    pub fn reconnect(&self, member: u8) -> Result<(), TestError> {
        self.running(member)?.faults.heal();
        Ok(())
    }

    /// Lets a member find its disk below the reserve. Where that is the leader, or so many members that no majority is
    /// left, writes are refused until there is room again.
    ///
    /// # Errors
    /// It does not run.
    pub fn fill_disk(&self, member: u8) -> Result<(), TestError> {
        self.running(member)?.faults.fill_disk(true);
        Ok(())
    }

    /// Makes room on a member's disk again.
    ///
    /// # Errors
    /// It does not run.
    pub fn clear_disk(&self, member: u8) -> Result<(), TestError> {
        self.running(member)?.faults.fill_disk(false);
        Ok(())
    }

    /// Ends a session as if its timeout had passed.
    ///
    /// # Errors
    /// There is no such session, or no majority.
    pub async fn expire_session(&self, session_id: u64) -> Result<(), TestError> {
        let session = SessionId(session_id);
        let running = self.members.values().find_map(|place| place.running.as_ref());
        let running = running.ok_or(TestError::NotRunning { member: 0 })?;
        let attachment = running.member.replica().read(|tree| tree.session(session).map(|view| view.attachment));
        let what = || format!("the end of session {session}");
        let attachment = attachment.ok_or_else(|| impatient(what()))?;
        let asked = running.member.ensemble().ask(Op::ExpireSession { session, attachment });
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(Ok(_settled)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(impatient(what())),
        }
    }

    /// Ends all members in order, one after the other.
    pub async fn shutdown(mut self) {
        for place in self.members.values_mut() {
            if let Some(running) = place.running.take() {
                running.shutdown().await;
            }
        }
    }

    async fn eventually<T>(&self, what: &str, mut check: impl FnMut(&Self) -> Option<T>) -> Result<T, TestError> {
        let deadline = Instant::now() + PATIENCE;
        let mut poll = tokio::time::interval(Duration::from_millis(5));
        loop {
            if let Some(found) = check(self) {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Err(impatient(what.into()));
            }
            poll.tick().await;
        }
    }

    fn running(&self, member: u8) -> Result<&RunningMember, TestError> {
        self.members.get(&member).and_then(|place| place.running.as_ref()).ok_or(TestError::NotRunning { member })
    }

    fn running_mut(&mut self, member: u8) -> Result<&mut RunningMember, TestError> {
        self.members.get_mut(&member).and_then(|place| place.running.as_mut()).ok_or(TestError::NotRunning { member })
    }
}

impl Drop for TestEnsemble {
    fn drop(&mut self) {
        for place in self.members.values_mut() {
            if let Some(running) = place.running.take() {
                running.kill();
            }
        }
    }
}

impl RunningMember {
    fn kill(mut self) {
        self.paused = None;
        // Never full for long: the thread takes orders one by one, and this is its last.
        while let Err(async_mpsc::error::TrySendError::Full(_)) = self.commands.try_send(Order::Kill) {
            std::thread::yield_now();
        }
        self.join();
    }

    async fn shutdown(mut self) {
        self.paused = None;
        let _ = self.commands.send(Order::Shutdown).await;
        let thread = self.thread.take();
        let _ = tokio::task::spawn_blocking(move || thread.map(JoinHandle::join)).await;
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic of the member's thread was printed where it happened.
            let _ = thread.join();
        }
    }
}

/// Starts a member on a thread of its own and waits until its doors are open.
async fn start_member(config: Config, hooks: Hooks) -> Result<RunningMember, TestError> {
    let id = config.id.0;
    let (commands, orders) = async_mpsc::channel(1);
    let (started, start) = oneshot::channel();
    let faults = Arc::new(Faults::default());
    let hooks = Hooks { faults: Some(faults.clone()), ..hooks };
    let thread = std::thread::Builder::new()
        .name(format!("member {id}"))
        .spawn(move || run_member(config, hooks, started, orders))
        .map_err(|source| TestError::Machine { what: "a member's thread cannot be started", source })?;
    let (member, readiness) =
        start.await.map_err(|_gone| TestError::NotRunning { member: id })?.map_err(|source| failed(id, source))?;
    Ok(RunningMember { thread: Some(thread), commands, member, faults, readiness, paused: None })
}

type Started = Result<(Arc<Member>, watch::Receiver<Readiness>), SidecarError>;

/// A member's thread: builds it, obeys orders, and drops everything where it stands when killed.
fn run_member(
    config: Config,
    hooks: Hooks,
    started: oneshot::Sender<Started>,
    mut orders: async_mpsc::Receiver<Order>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        let built = match Doors::bind(&config).await {
            Ok(doors) => doors.build(config, hooks).await,
            Err(error) => Err(error.into()),
        };
        let running = match built {
            Ok(running) => running,
            Err(error) => return drop(started.send(Err(error))),
        };
        let member = running.member().clone();
        let readiness = member.ensemble().readiness();
        if started.send(Ok((member, readiness))).is_err() {
            return;
        }
        loop {
            match orders.recv().await {
                // Blocks the runtime's only thread: nothing of this member moves.
                Some(Order::Pause(until)) => drop(until.recv()),
                Some(Order::Kill) | None => return,
                Some(Order::Shutdown) => return running.shutdown().await,
            }
        }
    });
    runtime.shutdown_background();
}

fn http(address: Option<&Address>) -> String {
    format!("http://{}", address.expect("the kit opens this door"))
}

fn failed(member: u8, source: SidecarError) -> TestError {
    TestError::Start { member, source }
}

fn impatient(what: String) -> TestError {
    TestError::Patience { what, within: PATIENCE }
}
