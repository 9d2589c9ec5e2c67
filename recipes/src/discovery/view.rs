//! What a consumer sees of a service: its instances, now and from change to change.
//!
//! One task a view, which keeps a [`Mirror`] of the service and publishes what it makes of it. It ends when the
//! last clone of the view is dropped, or with the client.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    sync::Arc,
    time::Duration,
};

use futures_core::Stream;
use futures_util::stream;
use quorate::Client;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Balancer, DiscoveryError, Instance, Strategy, json,
    protection::{Listed, Protection},
};
use crate::{
    Freshness,
    mirror::{Mirror, Step, name},
};

type Filter = Arc<dyn Fn(&Instance) -> bool + Send + Sync>;

/// Sets up a [`ServiceView`]; from [`Discovery::service`](super::Discovery::service).
#[derive(Clone)]
#[must_use = "nothing is read before it is watched"]
pub struct ServiceBuilder {
    client: Client,
    path: String,
    service: Arc<str>,
    filter: Option<Filter>,
    grace: Option<Duration>,
}

impl fmt::Debug for ServiceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceBuilder").field("path", &self.path).field("grace", &self.grace).finish_non_exhaustive()
    }
}

impl ServiceBuilder {
    pub(super) fn new(client: &Client, path: String, service: &str) -> Self {
        Self { client: client.clone(), path, service: service.into(), filter: None, grace: None }
    }

    /// Takes only these into account, of those that are up. It is asked often, and should be quick.
    pub fn filter(mut self, filter: impl Fn(&Instance) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(filter));
        self
    }

    /// For how long instances are kept that vanish in a way that speaks of trouble with the registry: all of
    /// them after our own session was lost, or more than half of several at once. Default: the session timeout.
    /// Zero takes every list as it is.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = Some(grace);
        self
    }

    /// Reads the service and keeps watching it. A service without instances, or that never was, is an empty
    /// view.
    ///
    /// # Errors
    /// The name is no part of a path, it may not be read, or no member could be reached for as long as the
    /// client's retry policy says.
    ///
    /// # Cancel safety
    /// Nothing is left when the future is dropped.
    pub async fn watch(self) -> Result<ServiceView, DiscoveryError> {
        let mut mirror = Mirror::new(&self.client, std::slice::from_ref(&self.path), 1, Duration::ZERO);
        mirror.fill().await?;
        let timeout = self.client.session().map_or(Duration::ZERO, |session| session.negotiated_timeout());
        let mut watcher = Watcher {
            client: self.client.clone(),
            path: self.path,
            service: self.service.clone(),
            filter: self.filter,
            protection: Protection::new(self.grace.unwrap_or(timeout)),
            mirror,
            session_epoch: self.client.session().map(|session| session.epoch()),
            shaken_until: None,
            doubted_since: None,
            bad: BTreeSet::new(),
        };
        watcher.list();
        // A watch holds the newest value and is never full.
        let (publish, snapshot) = watch::channel(Arc::new(watcher.snapshot()));
        let stop = CancellationToken::new();
        self.client.spawn(watcher.run(publish, stop.clone()));
        let inner = Inner { client: self.client, service: self.service, snapshot, _stop: stop.drop_guard() };
        Ok(ServiceView { inner: Arc::new(inner) })
    }
}

/// What is published.
#[derive(Debug)]
struct Snapshot {
    /// By the names of the nodes.
    all: Listed,
    usable: BTreeMap<String, Arc<Instance>>,
    usable_list: Arc<[Arc<Instance>]>,
    skipped: usize,
    settled_epoch: u64,
    doubted_since: Option<std::time::Instant>,
}

/// The instances of a service. Clones share one watch.
///
/// While no member serves the client the last that was known is served ([`ServiceView::freshness`]). It keeps the
/// client open for as long as it lives.
#[derive(Clone)]
pub struct ServiceView {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    service: Arc<str>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    _stop: DropGuard,
}

impl fmt::Debug for ServiceView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let snapshot = self.snapshot();
        f.debug_struct("ServiceView")
            .field("service", &self.inner.service)
            .field("instances", &snapshot.usable.keys())
            .finish_non_exhaustive()
    }
}

/// How the instances of a service have changed.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// This one can be used now.
    Added(Arc<Instance>),
    /// This one says something else of itself than before.
    Updated(Arc<Instance>),
    /// This one cannot be used any more: it is gone, or not up.
    Removed(Arc<Instance>),
}

impl ServiceView {
    /// The service.
    pub fn service(&self) -> &str {
        &self.inner.service
    }

    /// The instances that can be used: they are enabled, their status is `UP` or none, and the filter takes them.
    /// In the order of their ids.
    pub fn instances(&self) -> Arc<[Arc<Instance>]> {
        self.inner.snapshot.borrow().usable_list.clone()
    }

    /// All instances, whether they can be used or not.
    pub fn all(&self) -> Vec<Arc<Instance>> {
        self.snapshot().all.values().cloned().collect()
    }

    /// Nodes that are no instances. They are left out, and do no harm.
    pub fn skipped(&self) -> usize {
        self.snapshot().skipped
    }

    /// How far it can be trusted. Stale while no member serves the client, and while instances are kept that
    /// are not listed any more ([`ServiceBuilder::grace`]).
    pub fn freshness(&self) -> Freshness {
        let snapshot = self.snapshot();
        Freshness::of(&self.inner.client, snapshot.settled_epoch, snapshot.doubted_since)
    }

    /// How [`ServiceView::instances`] changes: first an [`Added`](Change::Added) for each there is, then what
    /// differs from what this stream has told. It has no backlog: a slow consumer is told of the difference to
    /// the newest state. Ends with the client.
    pub fn changes(&self) -> impl Stream<Item = Change> + Send + Unpin + use<> {
        struct Changes {
            view: ServiceView,
            snapshot: watch::Receiver<Arc<Snapshot>>,
            told: BTreeMap<String, Arc<Instance>>,
            untold: VecDeque<Change>,
        }
        let mut snapshot = self.inner.snapshot.clone();
        snapshot.mark_changed();
        let changes = Changes { view: self.clone(), snapshot, told: BTreeMap::new(), untold: VecDeque::new() };
        Box::pin(stream::unfold(changes, |mut changes| async move {
            loop {
                if let Some(change) = changes.untold.pop_front() {
                    return Some((change, changes));
                }
                changes.snapshot.changed().await.ok()?;
                let newest = changes.snapshot.borrow_and_update().usable.clone();
                changes.untold = differences(&changes.told, &newest);
                changes.told = newest;
                // The stream keeps the view, and with it the watch.
                let _ = &changes.view;
            }
        }))
    }

    /// Waits until at least `n` instances can be used.
    ///
    /// # Errors
    /// They do not come in time, or the client is closed.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn wait_for(&self, n: usize, within: Duration) -> Result<(), DiscoveryError> {
        let mut snapshot = self.inner.snapshot.clone();
        let enough = snapshot.wait_for(|snapshot| snapshot.usable.len() >= n);
        match tokio::time::timeout(within, enough).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(quorate::Error::Closed.into()),
            Err(_) => {
                let (service, present) = (self.service().to_owned(), self.instances().len());
                Err(DiscoveryError::TooFew { service, wanted: n, present, within })
            }
        }
    }

    /// Picks instances by this strategy, one after the other.
    pub fn balancer<S: Strategy>(&self, strategy: S) -> Balancer<S> {
        Balancer::new(self.clone(), strategy)
    }

    fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.borrow().clone()
    }
}

fn differences(told: &BTreeMap<String, Arc<Instance>>, newest: &BTreeMap<String, Arc<Instance>>) -> VecDeque<Change> {
    let removed = told.iter().filter(|(node, _)| !newest.contains_key(*node));
    let removed = removed.map(|(_, instance)| Change::Removed(instance.clone()));
    let others = newest.iter().filter_map(|(node, instance)| match told.get(node) {
        None => Some(Change::Added(instance.clone())),
        Some(before) if before != instance => Some(Change::Updated(instance.clone())),
        Some(_) => None,
    });
    removed.chain(others).collect()
}

/// The task of a view.
struct Watcher {
    client: Client,
    path: String,
    service: Arc<str>,
    filter: Option<Filter>,
    mirror: Mirror,
    protection: Protection,
    session_epoch: Option<u64>,
    /// Until when it counts that our session was lost.
    shaken_until: Option<Instant>,
    doubted_since: Option<std::time::Instant>,
    /// Nodes that are no instances, by the zxid of their creation: each is told of once.
    bad: BTreeSet<u64>,
}

impl Watcher {
    async fn run(mut self, publish: watch::Sender<Arc<Snapshot>>, stop: CancellationToken) {
        let shutdown = self.client.shutdown_token();
        loop {
            let release_at = self.protection.until();
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = stop.cancelled() => return,
                step = self.mirror.next() => Some(step),
                () = sleep_until(release_at.unwrap_or_else(Instant::now)), if release_at.is_some() => None,
            };
            match step {
                Some(Step::Settled) => {
                    self.doubted_since = None;
                    self.list();
                }
                Some(Step::Suspended) => self.doubt(),
                Some(Step::Failed(error)) => {
                    tracing::warn!(service = %self.service, %error, "the service cannot be read now");
                    self.doubt();
                }
                Some(Step::Ended) => return,
                None => self.protection.release(Instant::now()),
            }
            publish.send_replace(Arc::new(self.snapshot()));
        }
    }

    fn doubt(&mut self) {
        self.doubted_since.get_or_insert_with(std::time::Instant::now);
    }

    /// Takes in what the mirror has.
    fn list(&mut self) {
        let now = Instant::now();
        if let Some(session) = self.client.session() {
            let before = self.session_epoch.replace(session.epoch());
            if before.is_some_and(|before| before != session.epoch()) {
                self.shaken_until = Some(now + session.negotiated_timeout());
            }
        }
        let shaken = self.shaken_until.is_some_and(|until| now < until);
        let mut listed = Listed::new();
        let mut bad = BTreeSet::new();
        for (path, node) in self.mirror.nodes().flatten().filter(|(path, _)| **path != self.path) {
            match json::read(&self.service, name(path), &node.data) {
                Ok(instance) => drop(listed.insert(name(path).to_owned(), Arc::new(instance))),
                // Of a service whose name goes on below this one.
                Err(_) if node.data.is_empty() => {}
                Err(error) => {
                    bad.insert(node.czxid);
                    if !self.bad.contains(&node.czxid) {
                        tracing::warn!(path, %error, "what is registered here is no instance, and is left out");
                    }
                }
            }
        }
        self.bad = bad;
        self.protection.list(listed, shaken, now);
    }

    fn snapshot(&self) -> Snapshot {
        let all = self.protection.in_view();
        let takes = |instance: &Instance| self.filter.as_ref().is_none_or(|filter| filter(instance));
        let usable = all.iter().filter(|(_, instance)| instance.is_up() && takes(instance));
        let usable: BTreeMap<_, _> = usable.map(|(node, instance)| (node.clone(), instance.clone())).collect();
        Snapshot {
            usable_list: usable.values().cloned().collect(),
            usable,
            all,
            skipped: self.bad.len(),
            settled_epoch: self.mirror.settled_epoch(),
            doubted_since: self.doubted_since.or(self.protection.since().map(Instant::into_std)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(id: &str, weight: u32) -> (String, Arc<Instance>) {
        let instance = Instance::builder("orders").id(id).address("h").port(1).weight(weight).registered_at_ms(0);
        (id.to_owned(), Arc::new(instance.build().unwrap()))
    }

    #[test]
    fn only_what_differs_is_told() {
        let told = BTreeMap::from([instance("a", 1), instance("b", 1), instance("c", 1)]);
        let newest = BTreeMap::from([instance("b", 1), instance("c", 2), instance("d", 1)]);

        let changes = differences(&told, &newest);

        let expected = [
            Change::Removed(instance("a", 1).1),
            Change::Updated(instance("c", 2).1),
            Change::Added(instance("d", 1).1),
        ];
        assert_eq!(changes, expected);
        assert!(differences(&newest, &newest).is_empty());
    }
}
