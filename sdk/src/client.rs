//! The client: a handle that is cheap to clone.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quorate_proto::v1::{self, request::Op};
use tokio_util::sync::CancellationToken;

use crate::{
    acl::Acl,
    admin::Admin,
    builder::ClientBuilder,
    call::Call,
    core::Core,
    create::Create,
    delete::Delete,
    endpoints::IntoSeeds,
    error::{Error, Result},
    janitor::Janitor,
    nodes::{Children, Exists, Get, GetAcl, Set, SetAcl, finish_done},
    path::Namespace,
    retry::{RetryPolicy, Verdict, retry_within},
    session::SessionView,
    state::{SessionState, StateStream},
    txn::Txn,
    watch::WatchBuilder,
};

/// A client of an ensemble, with one session.
///
/// Clones share the session. When the last one is dropped the session is closed in the background;
/// [`Client::close`] does it where it can be waited for.
///
/// Requests of one task reach the tree in the order in which they are first polled, and each write is applied
/// once, over any number of lost connections, while the session lives.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
    pub(crate) ns: Namespace,
    pub(crate) acl: Option<Arc<[Acl]>>,
    janitor: Janitor,
    handle: Arc<ClientHandle>,
}

/// What is dropped with the last clone. Background tasks do not hold it.
#[derive(Debug)]
struct ClientHandle {
    core: Arc<Core>,
    janitor: Janitor,
    close_timeout: Duration,
}

impl Drop for ClientHandle {
    fn drop(&mut self) {
        if self.core.stop.is_cancelled() {
            return;
        }
        let (core, janitor, within) = (self.core.clone(), self.janitor.clone(), self.close_timeout);
        self.core.runtime.spawn(async move { close(&core, &janitor, within).await });
    }
}

/// What [`Client::close`] could not do in its time.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Drained {
    /// Background tasks that had not ended.
    pub tasks_left: usize,
    /// Deletions the janitor had not done.
    pub releases_left: usize,
    /// Whether the ensemble has confirmed the end of the session, or there was none. If not, the session goes
    /// with its timeout.
    pub session_closed: bool,
}

impl Drained {
    /// Whether nothing is left.
    pub fn is_complete(&self) -> bool {
        self.tasks_left == 0 && self.releases_left == 0 && self.session_closed
    }
}

impl Client {
    /// Starts to set one up. `seeds` are addresses of members: `http://host:port`, one or more, in a string
    /// separated by commas or in a collection. Not all members need to be named, but only those named are used.
    pub fn builder(seeds: impl IntoSeeds) -> ClientBuilder {
        ClientBuilder::new(seeds)
    }

    pub(crate) fn new(
        core: Arc<Core>,
        janitor: Janitor,
        ns: Namespace,
        acl: Option<Arc<[Acl]>>,
        close_timeout: Duration,
    ) -> Self {
        let handle = ClientHandle { core: core.clone(), janitor: janitor.clone(), close_timeout };
        let janitor = janitor.in_namespace(ns.clone());
        Self { core, ns, acl, janitor, handle: Arc::new(handle) }
    }

    /// The same client with `name` before every path, below its own namespace.
    pub fn namespace(&self, name: &str) -> Result<Self> {
        let ns = self.ns.below(name)?;
        Ok(Self { janitor: self.janitor.in_namespace(ns.clone()), ns, ..self.clone() })
    }

    pub(crate) fn without_namespace(&self) -> Self {
        let ns = Namespace::default();
        Self { janitor: self.janitor.in_namespace(ns.clone()), ns, ..self.clone() }
    }

    /// The session, or the last one if the next is not open yet; `None` before the first.
    pub fn session(&self) -> Option<SessionView> {
        self.core.session()
    }

    /// Where the client stands now. Never waits.
    ///
    /// It is what the client has noticed. Whoever holds something asks [`SessionView::is_live`], which is
    /// right even in the moment after the machine was asleep.
    pub fn state(&self) -> SessionState {
        self.core.states.state()
    }

    /// The epoch of the last change of state; 0 before the first.
    pub fn epoch(&self) -> u64 {
        self.core.states.epoch()
    }

    /// Every change of state from now on, none left out.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
    /// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
    /// use futures_util::StreamExt;
    /// use quorate::{ChangeReason, SessionState};
    ///
    /// let mut states = client.states();
    /// client.close(std::time::Duration::from_secs(5)).await?;
    /// let change = states.next().await.expect("the end is a change too");
    /// assert_eq!((change.to, change.reason), (SessionState::Closed, ChangeReason::Closed));
    /// # ensemble.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn states(&self) -> StateStream {
        self.core.states.subscribe()
    }

    /// Waits until a member serves the session.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn ready(&self, within: Duration) -> Result<()> {
        let mut latest = self.core.states.latest();
        let ready = latest.wait_for(|(_, state)| state.is_connected() || self.core.outbox.shut().is_some());
        let waited = if within == Duration::MAX {
            Ok(ready.await.map(|latest| *latest))
        } else {
            tokio::time::timeout(within, ready).await.map(|ready| ready.map(|latest| *latest))
        };
        if let Some(shut) = self.core.outbox.shut() {
            return Err(shut.error(false));
        }
        match waited {
            Ok(_) => Ok(()),
            Err(_) => Err(match &*self.core.trouble.read() {
                Some(message) => Error::Unreachable { message: message.clone() },
                None => Error::Timeout { op: "ready", after: within, ambiguous: false },
            }),
        }
    }

    /// Creates a node.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
    /// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
    /// use quorate::CreateMode;
    ///
    /// client.create("/plain").data("x").await?;
    /// client.create("/deep/down").parents().await?;
    /// let first = client.create("/deep/item-").mode(CreateMode::EphemeralSequential).protected().await?;
    /// assert_eq!(first.stat.ephemeral_owner, client.session().map(|session| session.id()));
    /// # ensemble.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn create<'a>(&'a self, path: &'a str) -> Create<'a> {
        Create::new(self, path)
    }

    /// Reads the data of a node.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
    /// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
    /// assert_eq!(client.get("/missing").opt().await?, None);
    /// client.create("/a").data("x").await?;
    /// assert_eq!(client.get("/a").linearizable().await?.data, "x");
    /// # ensemble.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn get<'a>(&'a self, path: &'a str) -> Get<'a> {
        Get::new(self, path)
    }

    /// Sets the data of a node.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
    /// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
    /// let stat = client.set("/settings/color", "red").or_create().await?;
    /// client.set("/settings/color", "blue").version(stat.version).await?;
    /// # ensemble.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn set<'a>(&'a self, path: &'a str, data: impl Into<Bytes>) -> Set<'a> {
        Set::new(self, path, data.into())
    }

    /// Deletes a node.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
    /// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
    /// client.create("/a/b/c").parents().await?;
    /// client.delete("/a").recursive().await?;
    /// assert_eq!(client.exists("/a").await?, None);
    /// # ensemble.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn delete<'a>(&'a self, path: &'a str) -> Delete<'a> {
        Delete::new(self, path)
    }

    /// Looks whether a node exists; its stat, if so.
    pub fn exists<'a>(&'a self, path: &'a str) -> Exists<'a> {
        Exists::new(self, path)
    }

    /// Lists the children of a node.
    pub fn children<'a>(&'a self, path: &'a str) -> Children<'a> {
        Children::new(self, path)
    }

    /// Reads the access control list of a node.
    pub fn get_acl<'a>(&'a self, path: &'a str) -> GetAcl<'a> {
        GetAcl::new(self, path)
    }

    /// Sets the access control list of a node.
    pub fn set_acl<'a>(&'a self, path: &'a str, acl: impl Into<Vec<Acl>>) -> SetAcl<'a> {
        SetAcl::new(self, path, acl.into())
    }

    /// Waits until the member that serves this client has applied everything that was committed when it was
    /// asked, so that a plain read after it sees every write acknowledged before. The path only has to be legal.
    ///
    /// # Cancel safety
    /// It changes nothing, so it may be dropped at any time.
    pub async fn sync(&self, path: &str) -> Result<()> {
        let op = self.ns.full(path).map(|_| Op::Sync(v1::SyncRequest {}));
        Call::single(&self.core, &self.ns, op, finish_done).await
    }

    /// Watches a node, or what is below it.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
    /// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
    /// use futures_util::StreamExt;
    /// use quorate::DataEvent;
    ///
    /// let mut color = client.watch("/color").data();
    /// assert_eq!(color.next().await.expect("it goes on")?, DataEvent::Absent);
    /// client.create("/color").data("red").await?;
    /// let Some(Ok(DataEvent::Value(node))) = color.next().await else { panic!("it exists now") };
    /// assert_eq!(node.data, "red");
    /// # ensemble.shutdown().await;
    /// # Ok(()) }
    /// ```
    pub fn watch<'a>(&'a self, path: &'a str) -> WatchBuilder<'a> {
        WatchBuilder::new(self, path)
    }

    /// Starts a transaction.
    pub fn txn(&self) -> Txn {
        Txn::new(self.clone())
    }

    /// Repeats `op` under the client's retry policy and budget, while its error is retryable
    /// ([`Error::is_retryable`]) and the client goes on: one that was closed, or that lost its only session, answers
    /// nothing any more.
    ///
    /// # Cancel safety
    /// That of `op`.
    pub async fn retry<T, Fut>(&self, op: impl FnMut() -> Fut) -> Result<T>
    where
        Fut: Future<Output = Result<T>>,
    {
        let classify = |error: &Error| if self.core.is_shut() { Verdict::Permanent } else { Verdict::from(error) };
        retry_within(&self.core.retry, Some(&self.core.budget), classify, op).await
    }

    /// The delays this client was set up with.
    pub fn retry_policy(&self) -> &RetryPolicy {
        &self.core.retry
    }

    /// Deletes what must go in any case, from `Drop` too.
    pub fn janitor(&self) -> &Janitor {
        &self.janitor
    }

    /// What operators ask, over the same addresses.
    pub fn admin(&self) -> Admin {
        Admin::over(self.core.endpoints.clone())
    }

    /// The clock by which this client judges its lease.
    pub fn clock(&self) -> &crate::clock::Clock {
        &self.core.clock
    }

    /// Cancelled when this client is about to be closed, while it still works: whoever holds something lets go
    /// of it then, in a task of [`Client::spawn`], which [`Client::close`] waits for.
    pub fn shutdown_token(&self) -> CancellationToken {
        self.core.shutdown.child_token()
    }

    /// Runs a task on the client's runtime that [`Client::close`] waits for. It should end when
    /// [`Client::shutdown_token`] is cancelled.
    pub fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.core.tasks.spawn_on(task, &self.core.runtime)
    }

    /// Ends it in order: cancels [`Client::shutdown_token`], waits for the tasks of [`Client::spawn`], lets the
    /// janitor finish, closes the session. What is not done in time is left, and told. All clones end with it;
    /// calls that are made later fail with [`Error::Closed`].
    ///
    /// # Cancel safety
    /// Dropped, it leaves the client open, though its shutdown token is cancelled; call it again.
    pub async fn close(self, within: Duration) -> Result<Drained> {
        Ok(close(&self.core, &self.handle.janitor, within).await)
    }
}

async fn close(core: &Arc<Core>, janitor: &Janitor, within: Duration) -> Drained {
    core.shutdown.cancel();
    core.tasks.close();
    let in_order = async {
        core.tasks.wait().await;
        janitor.idle().await;
        core.close_session().await
    };
    let closed = tokio::time::timeout(within, in_order).await;
    let drained = Drained {
        tasks_left: core.tasks.len(),
        releases_left: janitor.pending(),
        session_closed: matches!(closed, Ok(Ok(()))),
    };
    core.stop.cancel();
    core.own_tasks.close();
    core.own_tasks.wait().await;
    drained
}
