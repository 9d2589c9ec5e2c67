//! The ZooKeeper door: the client protocol of ZooKeeper 3.9, so that its clients share the tree and the sessions.
//!
//! A connection has one task, owned by the service's tracker and ended by its token. Its first four bytes decide:
//! a four-letter word is answered and the connection closed; anything else is the length of the handshake. From then
//! on the task reads frames while the session has room and sends what is ready in one write, so a client that stops
//! reading is stopped being read, and what it keeps waiting is bounded by its session's queue.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Member;
use crate::{
    config::FourLetterWords,
    net::Door,
    session::Sessions,
    telemetry::metrics::{DoorMetrics, Metrics},
};

mod connection;
mod handshake;
mod quorum;
mod received;
mod registry;
mod reply;
mod request;
mod serving;
mod tag;
mod words;

use quorum::{Mode, Quorum};
use received::Received;
use registry::Registry;

/// A majority that is missing for so long, and at least for a tick, is taken for gone.
const READ_ONLY_AFTER_MIN: Duration = Duration::from_secs(2);

/// What every connection of this door needs.
#[derive(Debug)]
pub(crate) struct ZookeeperService {
    sessions: Arc<Sessions>,
    member: Arc<Member>,
    settings: Settings,
    connections: Registry,
    quorum: Quorum,
    received: Received,
    metrics: Metrics,
    door: DoorMetrics,
}

/// What the door is told, and what it tells of itself.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) words: FourLetterWords,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    pub(crate) connections_per_address: usize,
    pub(crate) data_dir: PathBuf,
    pub(crate) tick_ms: u32,
}

impl ZookeeperService {
    pub(crate) fn new(
        sessions: Arc<Sessions>,
        member: Arc<Member>,
        settings: Settings,
        metrics: Metrics,
        door: DoorMetrics,
    ) -> Arc<Self> {
        Arc::new(Self {
            sessions,
            member,
            settings,
            connections: Registry::default(),
            quorum: Quorum::default(),
            received: Received::default(),
            metrics,
            door,
        })
    }

    fn is_serving(&self) -> bool {
        self.member.ensemble().readiness().borrow().is_ready()
    }

    /// Set while clients that only read are served, for want of a majority.
    fn read_only(&self) -> Option<CancellationToken> {
        match self.quorum.mode() {
            Mode::ReadOnly(while_it_lasts) if !self.is_serving() => Some(while_it_lasts),
            Mode::ReadOnly(_) | Mode::Ordinary => None,
        }
    }
}

/// Takes connections in until `stop`; `tracker` is done when all have ended.
pub(crate) async fn serve(door: Door, service: Arc<ZookeeperService>, tracker: TaskTracker, stop: CancellationToken) {
    let patience = READ_ONLY_AFTER_MIN.max(Duration::from_millis(u64::from(service.settings.tick_ms)));
    let readiness = service.member.ensemble().readiness();
    let following = service.quorum.follow(readiness, patience, &stop);
    tokio::join!(take_in(door, &service, &tracker, &stop), following);
}

async fn take_in(mut door: Door, service: &Arc<ZookeeperService>, tracker: &TaskTracker, stop: &CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            connection = door.accept() => {
                tracker.spawn(connection::serve(connection, service.clone(), stop.clone()));
            }
        }
    }
}
