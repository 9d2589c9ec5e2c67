//! The composition root: builds the parts of a member, wires them top to bottom, and ends them in order.

use std::{net::SocketAddr, num::NonZeroU32, sync::Arc, time::Duration};

use quorate_proto::v1::{self as proto, admin_server::AdminServer, session_server::SessionServer};
use quorate_tree::{Limits, Tree};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::Server;
use tracing::{Instrument, info, warn};

use crate::{
    config::{Config, limits},
    ensemble::{
        DiskOptions, Ensemble, EnsembleConfig, EnsembleDisk, EnsembleError, Faults, Readiness, SNAPSHOT_LOG_BYTES_MIN,
    },
    front::{
        Member,
        admin::{self, StatusSource},
        grpc::{AdminService, SessionService},
        zookeeper::{self, ZookeeperService},
    },
    net::{self, BindError, Bounds, Door},
    replica::{QueueLimits, Replica, WatchLimits},
    session::{Rate, SessionLimits, Sessions, SuperDigest},
    storage::FlushObserver,
    telemetry::metrics::{EnsembleMetrics, Metrics},
};

/// One member, before it is built.
#[derive(Debug)]
pub struct Sidecar;

/// A member that runs. Dropping it without [`Running::shutdown`] leaves its tasks to the runtime.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    member: Arc<Member>,
    ensemble: Ensemble,
    /// Ends the sessions' streams and the clients' door.
    stop_clients: CancellationToken,
    /// Ends the operators' door, which stays open longest.
    stop_admin: CancellationToken,
    tracker: TaskTracker,
    client_server: Option<JoinHandle<()>>,
    admin_server: Option<JoinHandle<()>>,
    zookeeper_server: Option<JoinHandle<()>>,
}

/// Where the doors of a member are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For clients, over gRPC, if it is open.
    pub client: Option<SocketAddr>,
    /// For the other members.
    pub peer: SocketAddr,
    /// For operators, over HTTP, if it is open.
    pub admin: Option<SocketAddr>,
    /// For clients of ZooKeeper, if it is open.
    pub zookeeper: Option<SocketAddr>,
}

/// Why a member could not be started, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SidecarError {
    /// A door could not be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The ensemble, its data or its disk.
    #[error("{0}")]
    Ensemble(String),
    /// What is on the disk is not what was written there.
    #[error("{0}")]
    Damaged(String),
}

impl From<EnsembleError> for SidecarError {
    fn from(error: EnsembleError) -> Self {
        match error {
            EnsembleError::Damaged(sentence) => Self::Damaged(sentence),
            EnsembleError::Refused(sentence) | EnsembleError::Failed(sentence) => Self::Ensemble(sentence),
        }
    }
}

/// The doors of a member, open before anything else runs, so that their addresses are known.
#[derive(Debug)]
pub(crate) struct Doors {
    client: Option<Door>,
    peer: Door,
    admin: Option<Door>,
    zookeeper: Option<Door>,
    metrics: Metrics,
}

/// What a test does to a member; nothing outside of tests.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hooks {
    pub(crate) faults: Option<Arc<Faults>>,
    /// Data need not survive the machine: nothing is synced.
    pub(crate) unsynced: bool,
    /// So many bytes of log make a snapshot due, instead of those of a member in production.
    pub(crate) snapshot_log_bytes_min: Option<u64>,
}

impl Sidecar {
    /// Starts a member. Returns when its doors are open and its data is read; [`Running::ready`] tells when it serves.
    ///
    /// # Errors
    /// A door cannot be opened, or the data directory is not this member's, or cannot be read.
    ///
    /// # Cancel safety
    /// Not cancel safe: parts that run already would go on.
    pub async fn build(config: Config) -> Result<Running, SidecarError> {
        let doors = Doors::bind(&config).await?;
        doors.build(config, Hooks::default()).await
    }
}

impl Doors {
    pub(crate) async fn bind(config: &Config) -> Result<Self, BindError> {
        let metrics = Metrics::new(config.id);
        let door = |name, address, connections_max, connections_per_address_max| {
            let metrics = metrics.doors.of(name);
            async move { Door::bind(name, address, Bounds { connections_max, connections_per_address_max }, metrics).await }
        };
        let per_address = config.connections_per_address;
        // Both doors of clients share what there is.
        let client_doors = 1 + usize::from(config.zookeeper_addr.is_some());
        let wanted = limits::CLIENT_CONNECTIONS_MAX * client_doors;
        let clients_max = net::affordable_connections(wanted, net::open_files_max()) / client_doors;
        Ok(Self {
            client: match &config.client_addr {
                Some(address) => Some(door("client", address, clients_max, per_address).await?),
                None => None,
            },
            peer: door("peer", &config.peer_addr, limits::PEER_CONNECTIONS_MAX, 0).await?,
            admin: match &config.admin_addr {
                Some(address) => {
                    let per_address = limits::ADMIN_CONNECTIONS_PER_ADDRESS_MAX;
                    Some(door("admin", address, limits::ADMIN_CONNECTIONS_MAX, per_address).await?)
                }
                None => None,
            },
            zookeeper: match &config.zookeeper_addr {
                Some(address) => Some(door("zookeeper", address, clients_max, per_address).await?),
                None => None,
            },
            metrics,
        })
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            client: self.client.as_ref().map(Door::address),
            peer: self.peer.address(),
            admin: self.admin.as_ref().map(Door::address),
            zookeeper: self.zookeeper.as_ref().map(Door::address),
        }
    }

    pub(crate) async fn build(self, config: Config, hooks: Hooks) -> Result<Running, SidecarError> {
        let addresses = self.addresses();
        let queue_limits = QueueLimits {
            outbox_events_max: limits::OUTBOX_EVENTS_MAX,
            outbox_bytes_max: limits::OUTBOX_BYTES_MAX,
            reply_bytes_max: limits::REPLY_BYTES_MAX,
            run_work_max: limits::RUN_WORK_MAX,
            waiting_bytes_max: limits::WAITING_BYTES_MAX,
        };
        let watch_limits = WatchLimits {
            watches_max: limits::WATCHES_MAX,
            watches_per_session_max: limits::WATCHES_PER_SESSION_MAX,
            path_bytes_max: limits::WATCHED_PATH_BYTES_MAX,
            path_bytes_per_session_max: limits::WATCHED_PATH_BYTES_PER_SESSION_MAX,
        };
        let replica = Arc::new(Replica::new(
            config.id,
            Tree::new(Limits::DEFAULT),
            0,
            queue_limits,
            watch_limits,
            self.metrics.sessions.clone(),
        ));
        let storage_metrics = self.metrics.storage.clone();
        let on_flush: FlushObserver = Arc::new(move |flush| storage_metrics.flushed(flush));
        let disk_options = DiskOptions { unsynced: hooks.unsynced, on_flush: Some(on_flush) };
        let disk = EnsembleDisk::open(&config.data_dir, config.id, disk_options).await?;
        let ensemble_config = ensemble_config(&config, &addresses, hooks, self.metrics.ensemble.clone());
        let ensemble = Ensemble::start(ensemble_config, disk, replica.clone(), self.peer).await?;

        let session_limits = SessionLimits {
            timeout_ms_min: millis(*config.session_timeouts().start()),
            timeout_ms_max: millis(*config.session_timeouts().end()),
            session_inflight_max: limits::SESSION_INFLIGHT_MAX,
            member_inflight_max: limits::MEMBER_INFLIGHT_MAX,
            rate: session_rate(&config),
        };
        let superuser = config.super_digest.as_ref().map(|digest| SuperDigest(digest.as_str().into()));
        let sessions =
            Sessions::new(ensemble.clone(), replica.clone(), session_limits, superuser, self.metrics.sessions.clone());
        let tracker = TaskTracker::new();
        let stop_clients = CancellationToken::new();
        let (stop_sweeping, swept) = (stop_clients.clone(), replica.clone());
        tracker.spawn(async move { stop_sweeping.run_until_cancelled(swept.sweep()).await });
        let member = Arc::new(Member::new(config.id, ensemble.clone(), replica));

        let stop_admin = CancellationToken::new();
        let zookeeper_server = self.zookeeper.map(|door| {
            let settings = zookeeper::Settings {
                words: config.four_letter_words.clone(),
                address: door.address(),
                connections_per_address: config.connections_per_address,
                data_dir: config.data_dir.clone(),
                tick_ms: millis(config.tick),
            };
            let (metrics, of_door) = (self.metrics.clone(), door.metrics().clone());
            let service = ZookeeperService::new(sessions.clone(), member.clone(), settings, metrics, of_door);
            tokio::spawn(zookeeper::serve(door, service, tracker.clone(), stop_clients.clone()).in_current_span())
        });
        let client_server = self.client.map(|door| {
            let stop = stop_clients.clone();
            let sessions =
                SessionService::new(sessions, config.id.0, limits::FRAME_BYTES_MAX, tracker.clone(), stop.clone());
            let admin = AdminService::new(member.clone());
            tokio::spawn(serve_clients(door, sessions, admin, ensemble.readiness(), stop).in_current_span())
        });
        let source: Arc<dyn StatusSource> = member.clone();
        let metrics = self.metrics;
        let admin_server = self
            .admin
            .map(|door| tokio::spawn(admin::serve(door, source, metrics, stop_admin.clone()).in_current_span()));
        Ok(Running {
            addresses,
            member,
            ensemble,
            stop_clients,
            stop_admin,
            tracker,
            client_server,
            admin_server,
            zookeeper_server,
        })
    }
}

impl Running {
    /// Where the doors are.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Waits until this member serves clients: joined, caught up, leader known.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn ready(&self) {
        // The sender lives as long as the ensemble, which this holds.
        let _ = self.ensemble.readiness().wait_for(Readiness::is_ready).await;
    }

    /// Resolves when this member must not go on: its disk failed, or its state is not that of the others.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn failed(&self) -> SidecarError {
        self.ensemble.failed().await.into()
    }

    /// Ends the member in order: no new clients, sessions are sent elsewhere, leadership is handed over, the log is
    /// flushed. What takes longer than ten seconds is cut off.
    ///
    /// # Cancel safety
    /// Not cancel safe: the parts that were not ended go on.
    pub async fn shutdown(self) {
        self.end(Heir::Wanted).await;
    }

    /// The same for a member whose whole ensemble ends with it: nobody is left to take over leadership.
    ///
    /// # Cancel safety
    /// Not cancel safe, as [`Running::shutdown`].
    pub(crate) async fn shutdown_with_all(self) {
        self.end(Heir::NotWanted).await;
    }

    async fn end(self, heir: Heir) {
        if tokio::time::timeout(limits::DRAIN_MAX, self.drain(heir)).await.is_err() {
            warn!("the graceful end took too long; what was open is cut off");
        }
    }

    async fn drain(self, heir: Heir) {
        info!("shutting down");
        self.stop_clients.cancel();
        self.tracker.close();
        self.tracker.wait().await;
        if heir == Heir::Wanted
            && let Err(error) = self.ensemble.hand_over(None).await
        {
            warn!(%error, "leadership could not be handed over; the others elect a leader after their timeout");
        }
        join(self.client_server, "client").await;
        join(self.zookeeper_server, "zookeeper").await;
        self.ensemble.stop().await;
        self.stop_admin.cancel();
        join(self.admin_server, "admin").await;
    }

    pub(crate) fn member(&self) -> &Arc<Member> {
        &self.member
    }
}

/// Whether somebody is to take over leadership from a member that ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heir {
    Wanted,
    NotWanted,
}

fn ensemble_config(config: &Config, addresses: &Addresses, hooks: Hooks, metrics: EnsembleMetrics) -> EnsembleConfig {
    EnsembleConfig {
        member: config.id,
        peers: config.ensemble.iter().map(|(id, address)| (id, address.to_string())).collect(),
        zookeeper_address: zookeeper_address(config, addresses),
        election_timeout_ms: u64::try_from(config.election_timeout.as_millis()).unwrap_or(u64::MAX),
        limits: Limits::DEFAULT,
        reap_period: config.reap_period,
        snapshot_log_bytes_min: hooks.snapshot_log_bytes_min.unwrap_or(SNAPSHOT_LOG_BYTES_MIN),
        faults: hooks.faults,
        metrics,
    }
}

/// As it is configured, for a name may mean more than an address; a port that the system chose as it was chosen.
fn zookeeper_address(config: &Config, addresses: &Addresses) -> Option<String> {
    let configured = config.zookeeper_addr.as_ref()?;
    let bound = addresses.zookeeper?;
    Some(if configured.port() == 0 { bound.to_string() } else { configured.to_string() })
}

/// Serves the clients' door until `stop`.
async fn serve_clients(
    door: Door,
    sessions: SessionService,
    admin: AdminService,
    readiness: watch::Receiver<Readiness>,
    stop: CancellationToken,
) {
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .expect("the descriptors were generated by the build");
    let session_server = SessionServer::new(sessions)
        .max_decoding_message_size(limits::FRAME_BYTES_MAX)
        .max_encoding_message_size(2 * limits::REPLY_BYTES_MAX);
    let server = Server::builder()
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_frame_size(Some(limits::TRANSPORT_FRAME_BYTES_MAX))
        .max_concurrent_streams(limits::STREAMS_PER_CONNECTION_MAX)
        .http2_keepalive_interval(Some(limits::KEEPALIVE_IDLE))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_INTERVAL))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(session_server)
        .add_service(AdminServer::new(admin))
        .serve_with_incoming_shutdown(door.into_incoming(), stop.clone().cancelled_owned());
    let reporting = report_health(health, readiness, stop.clone());
    let (served, ()) = tokio::join!(server, reporting);
    if let Err(error) = served {
        warn!(%error, "the client door ended");
    }
}

/// Tells gRPC's standard health whether this member serves.
async fn report_health(
    health: tonic_health::server::HealthReporter,
    mut readiness: watch::Receiver<Readiness>,
    stop: CancellationToken,
) {
    use tonic_health::ServingStatus;

    let services = ["", proto::session_server::SERVICE_NAME, proto::admin_server::SERVICE_NAME];
    loop {
        let ready = readiness.borrow_and_update().is_ready() && !stop.is_cancelled();
        let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        for service in services {
            health.set_service_status(service, status).await;
        }
        if stop.is_cancelled() {
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            changed = readiness.changed() => if changed.is_err() { return },
        }
    }
}

/// How fast sessions may come, if that is bounded.
fn session_rate(config: &Config) -> Option<Rate> {
    let per_second = NonZeroU32::new(config.sessions_per_second)?;
    let burst = config.sessions_burst.and_then(NonZeroU32::new).unwrap_or(per_second);
    Some(Rate { per_second, burst })
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

async fn join(task: Option<JoinHandle<()>>, door: &'static str) {
    let Some(task) = task else { return };
    if let Err(error) = task.await {
        warn!(%error, door, "the door's task failed");
    }
}
