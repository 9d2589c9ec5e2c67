//! Keeps the node of one instance: the task behind a [`Registration`](super::Registration).
//!
//! It compares what is wanted with what it sees and does the next thing that brings them together, one request
//! at a time, and nothing else ever writes this node; so what was taken away is not brought back by a request
//! that was under way. It knows its own node by the zxid of its creation.
//!
//! One task a registration. It ends when the instance has been taken away, or with the client.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use quorate::{Client, CreateMode, DataEvent, Error, Node, RetryPolicy, SessionId, Stat, TxnOp, retry::Delays};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    DiscoveryError, Instance, OnConflict, RegistrationState,
    instance::{key, process_nonce},
    json,
};

/// Between one update and the next: each makes every consumer read again.
const UPDATES_APART: Duration = Duration::from_secs(1);
/// What somebody has deleted comes back after this.
const DELETED_FOR: Duration = Duration::from_secs(1);
/// After a lost session each instance comes back at a moment of its own within this time: others have lost
/// theirs too.
const RETURN_WITHIN: Duration = Duration::from_secs(2);
/// By how much the node of a session that died may outlive its timeout.
const EXPIRY_SLACK: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) on_conflict: OnConflict,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub(super) struct Desired {
    /// Counts what the owner has asked for.
    pub(super) revision: u64,
    pub(super) instance: Instance,
    /// The instance is to be taken away.
    pub(super) absent: bool,
    /// The next update does not wait for others.
    pub(super) urgent: bool,
}

impl Desired {
    pub(super) fn first(instance: Instance) -> Self {
        Self { revision: 1, instance, absent: false, urgent: false }
    }
}

/// What has come of it.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub(super) state: RegistrationState,
    /// Up to which revision it can be read in the node.
    pub(super) written: u64,
    pub(super) error: Option<DiscoveryError>,
    /// Which revision the error was about.
    failed: u64,
}

impl Default for Report {
    fn default() -> Self {
        Self { state: RegistrationState::Pending, written: 0, error: None, failed: 0 }
    }
}

impl Report {
    /// Whether nothing will come of this revision any more.
    pub(super) fn is_final(&self, revision: u64) -> bool {
        match self.state {
            RegistrationState::Deregistered => true,
            RegistrationState::Failed => self.failed >= revision,
            _ => false,
        }
    }
}

pub(super) struct Actor {
    client: Client,
    path: Arc<str>,
    options: Options,
    desired: Arc<watch::Sender<Desired>>,
    report: watch::Sender<Report>,
    /// Cancelled when the owner has let go.
    released: CancellationToken,
    seen: Seen,
    own: Option<Own>,
    /// A creation that may have happened: what was sent, and its revision.
    doubt: Option<(u64, Vec<u8>)>,
    /// Whether the instance has been there.
    established: bool,
    /// When what is gone is to come back.
    return_at: Option<Instant>,
    /// Who stands in the way, by the zxid of its creation, and since when.
    conflict: Option<(u64, Instant)>,
    written_at: Option<Instant>,
    delays: Delays,
}

/// The node as it was seen last.
enum Seen {
    Nothing,
    Absent {
        /// Whether this was read after everything this task has done.
        certain: bool,
    },
    Node(Node),
}

/// The node this task has made.
struct Own {
    session: Option<SessionId>,
    czxid: u64,
    mzxid: u64,
    version: i32,
    /// What is in it, as far as is known.
    data: Vec<u8>,
}

impl Own {
    fn new(stat: &Stat, data: Vec<u8>) -> Self {
        Self { session: stat.ephemeral_owner, czxid: stat.czxid, mzxid: stat.mzxid, version: stat.version, data }
    }

    /// Whether this was read before the last that is known of ours.
    fn is_newer_than(&self, stat: &Stat) -> bool {
        stat.czxid < self.czxid || stat.mzxid < self.mzxid
    }
}

/// What to do next.
enum Turn {
    Again,
    /// Nothing, until something happens, or until then.
    Wait(Option<Instant>),
    End,
}

impl Actor {
    pub(super) fn new(
        client: &Client,
        path: Arc<str>,
        options: Options,
        desired: Arc<watch::Sender<Desired>>,
        report: watch::Sender<Report>,
        released: CancellationToken,
    ) -> Self {
        Self {
            client: client.clone(),
            path,
            options,
            desired,
            report,
            released,
            seen: Seen::Nothing,
            own: None,
            doubt: None,
            established: false,
            return_at: None,
            conflict: None,
            written_at: None,
            delays: RetryPolicy::background().delays(),
        }
    }

    pub(super) async fn run(mut self) {
        let path = self.path.clone();
        let mut node = self.client.clone().watch(&path).data();
        let mut desired = self.desired.subscribe();
        let (released, shutdown) = (self.released.clone(), self.client.shutdown_token());
        loop {
            let wake_at = match self.act().await {
                Turn::Again => continue,
                Turn::Wait(at) => at,
                Turn::End => return,
            };
            let leaving = self.desired.borrow().absent;
            tokio::select! {
                biased;
                () = shutdown.cancelled(), if !leaving => self.leave(),
                () = released.cancelled(), if !leaving => self.leave(),
                // This task holds the sender.
                _ = desired.changed() => {}
                item = node.next() => match item {
                    Some(Ok(DataEvent::Value(node))) => self.see(Some(node)),
                    Some(Ok(_)) => self.see(None),
                    // The stream goes on.
                    Some(Err(error)) => tracing::debug!(path = %self.path, %error, "the node cannot be watched"),
                    None => return,
                },
                () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {}
            }
        }
    }

    fn leave(&self) {
        self.desired.send_modify(|desired| desired.absent = true);
    }

    fn see(&mut self, node: Option<Node>) {
        self.seen = match node {
            Some(node) if self.own.as_ref().is_some_and(|own| own.is_newer_than(&node.stat)) => return,
            Some(node) => Seen::Node(node),
            // If a node of ours should be there this may have been read before it was made.
            None => Seen::Absent { certain: self.own.is_none() },
        };
    }

    async fn act(&mut self) -> Turn {
        if let Some((revision, sent)) = self.doubt.take() {
            match self.settle_doubt(revision, &sent).await {
                Ok(()) => return Turn::Again,
                Err(error) => {
                    self.doubt = Some((revision, sent));
                    return self.failed(error);
                }
            }
        }
        let wanted = self.desired.borrow().clone();
        if wanted.absent {
            return self.delete().await;
        }
        let failed = self.report.borrow().is_final(wanted.revision);
        match &self.seen {
            Seen::Nothing => Turn::Wait(None),
            Seen::Absent { certain: false } => self.look().await,
            Seen::Absent { certain: true } => self.restore(wanted).await,
            Seen::Node(node) => {
                let node = node.clone();
                match &self.own {
                    Some(own) if own.czxid == node.stat.czxid => self.keep(&node).await,
                    _ if failed => Turn::Wait(None),
                    _ => self.contend(wanted, &node).await,
                }
            }
        }
    }

    /// The node is not there and should be.
    async fn restore(&mut self, wanted: Desired) -> Turn {
        if self.report.borrow().is_final(wanted.revision) {
            return Turn::Wait(None);
        }
        if let Some(own) = &self.own {
            let state = self.report.borrow().state;
            let deleted = own.session == self.session() || state == RegistrationState::Evicted;
            if deleted && !wanted.instance.enabled && wanted.revision <= self.report.borrow().written {
                self.tell(RegistrationState::Evicted);
                return Turn::Wait(None);
            }
            let now = Instant::now();
            let return_at = *self.return_at.get_or_insert_with(|| {
                let after = if deleted { DELETED_FOR } else { rand::random_range(Duration::ZERO..RETURN_WITHIN) };
                tracing::info!(path = %self.path, deleted, ?after, "the instance is gone and comes back");
                now + after
            });
            if now < return_at {
                self.tell(RegistrationState::Pending);
                return Turn::Wait(Some(return_at));
            }
        }
        let data = json::write(&wanted.instance);
        match self.client.create(&self.path).data(data.clone()).ephemeral().parents().await {
            Ok(created) => self.created(&wanted, created.stat, data),
            Err(Error::NodeExists { .. }) => self.look().await,
            Err(error) if error.is_unknown_outcome() => {
                self.doubt = Some((wanted.revision, data));
                Turn::Again
            }
            Err(error) => self.failed(error),
        }
    }

    /// The node is there and ours.
    async fn keep(&mut self, node: &Node) -> Turn {
        self.return_at = None;
        self.adopt(node);
        let wanted = self.desired.borrow().clone();
        if self.report.borrow().written >= wanted.revision {
            self.tell(RegistrationState::Registered);
            return Turn::Wait(None);
        }
        if self.report.borrow().is_final(wanted.revision) {
            return Turn::Wait(None);
        }
        let (now, due) = (Instant::now(), self.written_at.map(|at| at + UPDATES_APART));
        if let Some(due) = due.filter(|due| now < *due && !wanted.urgent) {
            self.tell(RegistrationState::Registered);
            return Turn::Wait(Some(due));
        }
        let data = json::write(&wanted.instance);
        let own = self.own.as_ref().expect("only what is ours is kept");
        let set = self.client.set(&self.path, data.clone()).version(own.version);
        match self.within_session(own.session, set).await {
            None => self.look().await,
            Some(Ok(stat)) => {
                self.own = Some(Own::new(&stat, data));
                self.done(wanted.revision);
                self.tell(RegistrationState::Registered);
                self.look_later()
            }
            // What came in between is looked at first.
            Some(Err(Error::NoNode { .. } | Error::BadVersion { .. })) => self.look().await,
            Some(Err(error)) if error.is_unknown_outcome() => self.look().await,
            Some(Err(error)) => self.failed(error),
        }
    }

    /// The node is there and somebody else's.
    async fn contend(&mut self, wanted: Desired, node: &Node) -> Turn {
        // If there was one of ours, it is gone.
        self.own = None;
        let owner = node.stat.ephemeral_owner;
        let now = Instant::now();
        let since = match self.conflict {
            Some((czxid, since)) if czxid == node.stat.czxid => since,
            _ => {
                tracing::warn!(path = %self.path, ?owner, policy = ?self.options.on_conflict, "held by somebody else");
                self.conflict = Some((node.stat.czxid, now));
                now
            }
        };
        if is_predecessor(&wanted.instance, node) {
            let timeout = self.client.session().map_or(Duration::ZERO, |session| session.negotiated_timeout());
            let until = since + timeout + EXPIRY_SLACK;
            if now < until {
                self.tell(RegistrationState::Waiting { owner });
                return Turn::Wait(Some(until));
            }
        }
        match self.options.on_conflict {
            OnConflict::Fail => {
                let path = self.path.to_string();
                self.give_up(DiscoveryError::Conflict { path, owner })
            }
            OnConflict::Steal if !self.established => self.steal(wanted, node).await,
            OnConflict::Steal | OnConflict::WaitForExpiry => {
                self.tell(RegistrationState::Waiting { owner });
                Turn::Wait(None)
            }
        }
    }

    async fn steal(&mut self, wanted: Desired, node: &Node) -> Turn {
        let data = json::write(&wanted.instance);
        let path = &*self.path;
        let stolen = self
            .client
            .txn()
            .op(TxnOp::delete(path).version(node.stat.version))
            .op(TxnOp::create(path, data.clone()).mode(CreateMode::Ephemeral))
            .commit()
            .await;
        match stolen.and_then(|results| results.stat(1)) {
            Ok(stat) => self.created(&wanted, stat, data),
            Err(error) if error.is_unknown_outcome() => {
                self.doubt = Some((wanted.revision, data));
                Turn::Again
            }
            // It has changed, or is gone.
            Err(Error::Txn { source, .. }) if matches!(*source, Error::BadVersion { .. } | Error::NoNode { .. }) => {
                self.look().await
            }
            Err(error) => self.failed(error),
        }
    }

    /// The instance is not wanted any more.
    async fn delete(&mut self) -> Turn {
        let Some(own) = &self.own else {
            self.tell(RegistrationState::Deregistered);
            return Turn::End;
        };
        let (session, czxid) = (own.session, own.czxid);
        let delete = self.client.delete(&self.path).version(own.version);
        match self.within_session(session, delete).await {
            // What belonged to the session is gone with it.
            None | Some(Ok(()) | Err(Error::NoNode { .. })) => self.own = None,
            Some(Err(Error::BadVersion { .. })) => {
                let turn = self.look().await;
                match (&self.seen, &mut self.own) {
                    (Seen::Node(node), Some(own)) if node.stat.czxid == czxid => own.version = node.stat.version,
                    (Seen::Absent { certain: true } | Seen::Node(_), _) => self.own = None,
                    _ => return turn,
                }
            }
            Some(Err(error)) if error.is_unknown_outcome() => {}
            Some(Err(error)) => return self.failed(error),
        }
        Turn::Again
    }

    /// Reads the node: a read comes after everything this task has done before.
    async fn look(&mut self) -> Turn {
        self.seen = Seen::Nothing;
        match self.client.get(&self.path).opt().await {
            Ok(Some(node)) => self.seen = Seen::Node(node),
            Ok(None) => self.seen = Seen::Absent { certain: true },
            Err(error) => {
                // The next look may be at the same state of things.
                self.seen = Seen::Absent { certain: false };
                return self.failed(error);
            }
        }
        Turn::Again
    }

    /// Finds out whether a creation has happened. Either it has when this reads, or it never will.
    async fn settle_doubt(&mut self, revision: u64, sent: &[u8]) -> quorate::Result<()> {
        let found = self.client.get(&self.path).opt().await?;
        if let Some(node) = &found
            && node.stat.ephemeral_owner.is_some()
            && node.stat.ephemeral_owner == self.session()
            && node.data == sent
        {
            self.own = Some(Own::new(&node.stat, sent.to_vec()));
            self.established = true;
            self.done(revision);
        }
        self.see(found);
        Ok(())
    }

    fn created(&mut self, wanted: &Desired, stat: Stat, data: Vec<u8>) -> Turn {
        tracing::info!(path = %self.path, czxid = stat.czxid, "registered");
        self.own = Some(Own::new(&stat, data));
        self.established = true;
        self.return_at = None;
        self.conflict = None;
        self.done(wanted.revision);
        self.tell(RegistrationState::Registered);
        self.look_later()
    }

    /// What is there is known, until the watch tells otherwise.
    fn look_later(&mut self) -> Turn {
        self.seen = Seen::Nothing;
        Turn::Wait(None)
    }

    fn done(&mut self, revision: u64) {
        self.written_at = Some(Instant::now());
        self.delays.reset();
        self.desired.send_if_modified(|desired| {
            desired.urgent &= desired.revision > revision;
            false
        });
        self.report.send_modify(|report| {
            report.written = report.written.max(revision);
            report.error = None;
        });
    }

    fn tell(&self, state: RegistrationState) {
        self.report.send_if_modified(|report| std::mem::replace(&mut report.state, state) != state);
    }

    fn failed(&mut self, error: Error) -> Turn {
        match error {
            Error::Closed => Turn::End,
            Error::NoAuth { .. }
            | Error::AuthFailed
            | Error::InvalidPath { .. }
            | Error::InvalidAcl { .. }
            | Error::BadArguments { .. }
            | Error::NoChildrenForEphemerals { .. }
            | Error::RequestTooLarge { .. } => self.give_up(error.into()),
            error => {
                let delay = self.delays.next_delay().unwrap_or(RETURN_WITHIN);
                tracing::debug!(path = %self.path, %error, ?delay, "trying again");
                Turn::Wait(Some(Instant::now() + delay))
            }
        }
    }

    /// Until something else is wanted.
    fn give_up(&self, error: DiscoveryError) -> Turn {
        let desired = self.desired.borrow().clone();
        if desired.absent {
            // The node goes with the session.
            tracing::warn!(path = %self.path, %error, "the instance could not be taken away");
            return Turn::End;
        }
        tracing::warn!(path = %self.path, %error, "the instance cannot be registered");
        self.report.send_modify(|report| {
            report.state = RegistrationState::Failed;
            report.error = Some(error);
            report.failed = desired.revision;
        });
        Turn::Wait(None)
    }

    fn session(&self) -> Option<SessionId> {
        self.client.session().map(|session| session.id())
    }

    /// The outcome of a request that only makes sense in this session; none if that has ended. A request that
    /// was not sent by then is not sent any more.
    async fn within_session<T>(
        &self,
        session: Option<SessionId>,
        request: impl IntoFuture<Output = quorate::Result<T>>,
    ) -> Option<quorate::Result<T>> {
        let view = self.client.session().filter(|view| Some(view.id()) == session)?;
        tokio::select! {
            biased;
            _ = view.lost() => None,
            outcome = request => Some(outcome),
        }
    }

    /// Takes over what operators have changed.
    fn adopt(&mut self, node: &Node) {
        let own = self.own.as_mut().expect("only what is ours is adopted");
        (own.version, own.mzxid) = (node.stat.version, node.stat.mzxid);
        if own.data == node.data {
            return;
        }
        let before = json::read("", "", &own.data);
        own.data = node.data.to_vec();
        match (before, json::read("", "", &node.data)) {
            (Ok(before), Ok(after)) => {
                self.desired.send_if_modified(|desired| merge(&mut desired.instance, &before, &after));
            }
            (_, Err(error)) => tracing::warn!(path = %self.path, %error, "somebody wrote what is no instance"),
            (Err(_), _) => {}
        }
    }
}

/// Applies what changed from `before` to `after` of what operators may change. Whether anything did.
fn merge(ours: &mut Instance, before: &Instance, after: &Instance) -> bool {
    let mut changed = false;
    if before.enabled != after.enabled {
        ours.enabled = after.enabled;
        changed = true;
    }
    for key in [key::STATUS, key::WEIGHT] {
        if before.metadata(key) != after.metadata(key) {
            ours.set_metadata(key, after.metadata(key));
            changed = true;
        }
    }
    changed
}

/// Whether the node is what an earlier session of this process has left.
fn is_predecessor(ours: &Instance, node: &Node) -> bool {
    json::read("", "", &node.data).is_ok_and(|theirs| {
        theirs.metadata(key::NONCE) == Some(&*process_nonce())
            && (theirs.address(), theirs.port()) == (ours.address(), ours.port())
    })
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    fn instance() -> Instance {
        Instance::builder("orders").address("10.0.0.7").port(8080).weight(10).zone("eu-1").build().unwrap()
    }

    #[test]
    fn only_what_an_operator_changed_is_taken_over() {
        let before = instance();
        let mut after = before.clone();
        after.set_metadata(key::WEIGHT, Some("1"));
        after.set_metadata(key::ZONE, Some("us-1"));
        let mut ours = before.clone();
        ours.set_status(Status::OutOfService);

        assert!(merge(&mut ours, &before, &after));

        assert_eq!((ours.weight(), ours.zone(), ours.status()), (1, Some("eu-1"), Some("OUT_OF_SERVICE")));
    }

    #[test]
    fn an_operator_can_switch_off_and_unset() {
        let before = instance();
        let mut after = before.clone();
        after.enabled = false;
        after.set_metadata(key::WEIGHT, None);
        let mut ours = before.clone();

        assert!(merge(&mut ours, &before, &after));

        assert!(!ours.is_enabled());
        assert_eq!(ours.metadata(key::WEIGHT), None);
        assert!(!merge(&mut ours, &after, &after));
    }
}
