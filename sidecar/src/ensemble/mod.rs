//! Agreement. The only place that names the Raft crate.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use quorate_tree::{Author, Limits, MemberId, Op, SessionId};
use tokio::sync::watch;

use crate::replica::{Completion, Replica, Settled};

mod codec;
mod faults;
mod status;
mod store;
mod types;

pub(crate) use faults::Faults;
pub(crate) use status::{MemberStatus, NotReady, Readiness, Role, Status};

/// What an ensemble is started with.
#[derive(Clone, Debug)]
pub(crate) struct EnsembleConfig {
    /// This member.
    pub(crate) member: MemberId,
    /// The peer address of every configured member, this one included.
    pub(crate) peers: BTreeMap<MemberId, String>,
    /// A silent leader is replaced within this time.
    pub(crate) election_timeout_ms: u64,
    /// Must be the same everywhere.
    pub(crate) limits: Limits,
    /// How often the leader looks for container and ttl nodes to delete.
    pub(crate) reap_period: Duration,
    /// What a test does to this member's peer traffic; `None` outside of tests.
    pub(crate) faults: Option<Arc<Faults>>,
}

/// A member's part in the agreement: proposals go in, the replica is fed with what was agreed.
#[derive(Clone, Debug)]
pub(crate) struct Ensemble {
    readiness: watch::Sender<Readiness>,
}

/// Why an ensemble could not be started, or had to stop.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnsembleError {
    /// A sentence for the operator.
    #[error("{0}")]
    Refused(String),
}

/// The ensemble has been stopped: what was asked will not be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this member's part in the ensemble has ended")]
pub(crate) struct Stopped;

impl Ensemble {
    /// Reads what is on disk, fills the replica with it, and begins to take part. Peers are served at `door`.
    /// Returns before the member has joined: [`Ensemble::readiness`] tells.
    pub(crate) async fn start(
        config: EnsembleConfig,
        replica: Arc<Replica>,
        door: crate::net::Door,
    ) -> Result<Self, EnsembleError> {
        let _ = (config, replica, door);
        Ok(Self { readiness: watch::channel(Readiness::default()).0 })
    }

    /// Proposes a command in the order of the calls. Never waits: callers hold permits that bound what is open.
    /// The completion is used when this member applies the command, and dropped when that cannot be known.
    pub(crate) fn propose(&self, author: Author, op: Op, traceparent: Option<String>, completion: Completion) {
        let _ = (author, op, traceparent, completion);
    }

    /// Proposes a command of this member's own and waits for what becomes of it.
    pub(crate) async fn ask(&self, op: Op) -> Result<Settled, Stopped> {
        let _ = op;
        Err(Stopped)
    }

    /// Tells the leader that a session was heard from. Resolves when a majority stood behind the leader after that.
    /// Never resolves while there is no such leader: callers have deadlines. The touch counts even if the future is dropped.
    pub(crate) fn touch(
        &self,
        session: SessionId,
    ) -> impl Future<Output = Result<(), Stopped>> + Send + 'static + use<> {
        let _ = session;
        std::future::ready(Err(Stopped))
    }

    /// The log index from which on a read of this member's copy is linearizable with respect to this call.
    /// Never resolves while there is no leader with a majority: callers have deadlines.
    pub(crate) fn barrier(&self) -> impl Future<Output = Result<u64, Stopped>> + Send + 'static + use<> {
        std::future::ready(Err(Stopped))
    }

    /// Whether clients' writes are to be refused before they are proposed, because disks are nearly full.
    pub(crate) fn writes_refused(&self) -> bool {
        false
    }

    /// How things stand.
    pub(crate) fn status(&self) -> Status {
        Status::default()
    }

    /// Whether this member can serve clients, now and from now on.
    pub(crate) fn readiness(&self) -> watch::Receiver<Readiness> {
        self.readiness.subscribe()
    }

    /// Resolves when this member must not go on: its disk failed, or its state is not that of the others.
    pub(crate) async fn failed(&self) -> EnsembleError {
        std::future::pending().await
    }

    /// Writes a snapshot now. Returns its zxid and size in bytes when it is on disk.
    pub(crate) async fn take_snapshot(&self) -> Result<(quorate_tree::Zxid, u64), EnsembleError> {
        Err(EnsembleError::Refused("not started".into()))
    }

    /// On the leader: holds new proposals, waits until the target has everything, and makes it the leader.
    /// `None` picks the most advanced voter. On others, nothing is done and `Ok` returned if `to` is `None`.
    pub(crate) async fn hand_over(&self, to: Option<MemberId>) -> Result<(), EnsembleError> {
        let _ = to;
        Ok(())
    }

    /// Ends all tasks, having flushed the log, and waits for them.
    pub(crate) async fn stop(&self) {}
}
