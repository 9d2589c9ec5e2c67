//! Watch streams: the newest state of a node, again and again.
//!
//! A stream reads and arms the server's watch with one request, gives out what it read, and reads again when
//! the watch has fired. It does so when it is polled, so a slow consumer gets the newest state and no backlog,
//! and there is no task and no buffer behind it. Watches survive reconnects and lost sessions. Streams on one
//! path share one server watch, which is taken away when the last of them is dropped.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::stream;
use quorate_proto::v1::{self, reply, request::Op};
use tokio::sync::broadcast::error::RecvError;

use crate::{
    call::mismatch,
    client::Client,
    core::Core,
    error::{Error, Result},
    nodes::{ChildList, Node, stat_of},
    outbox::Shut,
    retry::{Delays, RetryPolicy},
    watches::{Kind, Watcher},
};

/// What to watch on a path; from [`Client::watch`].
#[derive(Debug, Clone)]
#[must_use = "nothing is watched before a method of it is called"]
pub struct WatchBuilder<'a> {
    client: &'a Client,
    path: &'a str,
}

/// The state of a node's data.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataEvent {
    /// The node, as it is.
    Value(Node),
    /// There is no node.
    Absent,
}

/// The state of a node's children.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildrenEvent {
    /// The children, as they are.
    Set(ChildList),
    /// There is no node.
    Absent,
}

/// A change at or below a node.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeEvent {
    /// This node was created.
    Created(String),
    /// The data of this node was set.
    Changed(String),
    /// This node was deleted.
    Deleted(String),
    /// The watch stands from now on, and what happened before may have been missed: read everything again.
    /// Comes first, after each gap (a lost session, a slow consumer), and possibly without one.
    Resync,
}

/// Items of a watch. Errors are items too, and the watch goes on after them, with a growing delay; it ends
/// when the client is closed, or has lost its session and is strict about it, with that error as its last item.
///
/// # Cancel safety
/// Dropping a future of `next` loses nothing: what it was about comes with the next one.
#[must_use = "nothing is watched before it is polled"]
pub struct WatchStream<T> {
    items: Pin<Box<dyn Stream<Item = Result<T>> + Send>>,
}

impl<T> std::fmt::Debug for WatchStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WatchStream").finish_non_exhaustive()
    }
}

impl<T> Stream for WatchStream<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<T>>> {
        self.items.as_mut().poll_next(cx)
    }
}

impl<'a> WatchBuilder<'a> {
    pub(crate) fn new(client: &'a Client, path: &'a str) -> Self {
        Self { client, path }
    }

    /// The data of the node, or that there is none: first as it is, then after each change. States in between
    /// may be left out, the newest is not, and it never goes back.
    pub fn data(self) -> WatchStream<DataEvent> {
        self.states()
    }

    /// The children of the node, or that there is none: first as they are, then after each change. States in
    /// between may be left out, the newest is not, and it never goes back.
    pub fn children(self) -> WatchStream<ChildrenEvent> {
        self.states()
    }

    /// Every change at and below the node. Starts with [`TreeEvent::Resync`]; buffers 1024 changes, and tells
    /// a consumer that is slower than that to read everything again.
    pub fn recursive(self) -> WatchStream<TreeEvent> {
        self.stream(|client, path| {
            let watcher = client.core.watches.join(Kind::Recursive, &path);
            stream::unfold(Some(Tree { client, path, watcher, armed: false, rest: Rest::new() }), |tree| async {
                let mut tree = tree?;
                let item = tree.next().await;
                let goes_on = item.is_ok() || !tree.client.core.is_shut();
                Some((item, goes_on.then_some(tree)))
            })
        })
    }

    /// Waits until the node is gone; at once if it is not there.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped; a watch that was set is taken away.
    pub fn once_deleted(self) -> impl Future<Output = Result<()>> + Send + use<> {
        let client = self.client.clone();
        let path = client.ns.full(self.path);
        async move {
            // As a whole, or only the parts named below would be kept, and the client be closed behind them.
            let client = client;
            let path = path?;
            let mut watcher = client.core.watches.join(Kind::Data, &path);
            let mut rest = Rest::new();
            loop {
                let deletions = watcher.fired.borrow_and_update().deletions;
                let get = v1::GetRequest { path: path.clone(), watch: true, linearizable: false };
                match client.core.ticket(Op::Get(get)).await {
                    Ok(_) => {}
                    Err(Error::NoNode { .. }) => return Ok(()),
                    Err(error) if error.is_retryable() && !client.core.is_shut() => {
                        rest.after(error);
                        rest.take().await;
                        continue;
                    }
                    Err(error) => return Err(error.map_path(&|path| client.ns.strip(path).to_owned())),
                }
                fired(&client.core, &mut watcher, None).await?;
                if watcher.fired.borrow().deletions != deletions {
                    return Ok(());
                }
            }
        }
    }

    fn states<T: State>(self) -> WatchStream<T> {
        self.stream(|client, path| {
            let watcher = client.core.watches.join(T::KIND, &path);
            let states: States<T> = States {
                client,
                path,
                watcher,
                appearance: None,
                last: None,
                stale: true,
                rest: Rest::new(),
                _state: PhantomData,
            };
            stream::unfold(Some(states), |states| async {
                let mut states = states?;
                let item = states.next().await;
                let goes_on = item.is_ok() || !states.client.core.is_shut();
                Some((item, goes_on.then_some(states)))
            })
        })
    }

    /// A stream on a legal path, or the error alone.
    fn stream<T, S>(self, open: impl FnOnce(Client, String) -> S) -> WatchStream<T>
    where
        T: Send + 'static,
        S: Stream<Item = Result<T>> + Send + 'static,
    {
        let client = self.client.clone();
        match client.ns.full(self.path) {
            Ok(path) => WatchStream { items: Box::pin(open(client, path)) },
            Err(error) => WatchStream { items: Box::pin(stream::iter([Err(error)])) },
        }
    }
}

/// Waits for an event at the watcher, or at the other one, or for the end of the client.
async fn fired(core: &Core, watcher: &mut Watcher, other: Option<&mut Watcher>) -> Result<()> {
    let appearance = async {
        match other {
            Some(other) => other.fired.changed().await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        fired = watcher.fired.changed() => fired.expect("a watcher keeps its entry"),
        fired = appearance => fired.expect("a watcher keeps its entry"),
        () = core.stop.cancelled() => return Err(core.outbox.shut().unwrap_or(Shut::Closed).error(false)),
    }
    Ok(())
}

/// The delays after errors.
struct Rest {
    delays: Delays,
    next: Option<Duration>,
}

impl Rest {
    fn new() -> Self {
        Self { delays: RetryPolicy::background().delays(), next: None }
    }

    /// The next [`Rest::take`] waits.
    fn after(&mut self, error: Error) -> Error {
        self.next = self.delays.next_delay();
        error
    }

    async fn take(&mut self) {
        if let Some(delay) = self.next {
            tokio::time::sleep(delay).await;
            self.next = None;
        }
    }

    fn over(&mut self) {
        self.delays.reset();
    }
}

/// Something about a node that is read again and again.
trait State: Sized + Send + 'static {
    const KIND: Kind;

    fn request(path: String) -> Op;

    fn from_reply(reply: v1::Reply) -> Result<Self>;

    fn absent() -> Self;

    /// The birth of the node and the last change of this about it; nothing if there is no node.
    fn mark(&self) -> Option<(u64, u64)>;
}

impl State for DataEvent {
    const KIND: Kind = Kind::Data;

    fn request(path: String) -> Op {
        Op::Get(v1::GetRequest { path, watch: true, linearizable: false })
    }

    fn from_reply(reply: v1::Reply) -> Result<Self> {
        match reply.result {
            Some(reply::Result::Get(get)) => {
                // A copy, for it is kept, and the buffer it came in is larger.
                let data = Bytes::copy_from_slice(&get.data);
                Ok(Self::Value(Node { data, stat: stat_of(get.stat)? }))
            }
            _ => mismatch(reply),
        }
    }

    fn absent() -> Self {
        Self::Absent
    }

    fn mark(&self) -> Option<(u64, u64)> {
        match self {
            Self::Value(node) => Some((node.stat.czxid, node.stat.mzxid)),
            Self::Absent => None,
        }
    }
}

impl State for ChildrenEvent {
    const KIND: Kind = Kind::Children;

    fn request(path: String) -> Op {
        Op::Children(v1::ChildrenRequest { path, watch: true, linearizable: false })
    }

    fn from_reply(reply: v1::Reply) -> Result<Self> {
        match reply.result {
            Some(reply::Result::Children(list)) => {
                Ok(Self::Set(ChildList { names: list.names, stat: stat_of(list.stat)? }))
            }
            _ => mismatch(reply),
        }
    }

    fn absent() -> Self {
        Self::Absent
    }

    fn mark(&self) -> Option<(u64, u64)> {
        match self {
            Self::Set(list) => Some((list.stat.czxid, list.stat.pzxid)),
            Self::Absent => None,
        }
    }
}

/// Behind [`WatchBuilder::data`] and [`WatchBuilder::children`].
struct States<T> {
    client: Client,
    path: String,
    watcher: Watcher,
    /// Of a node that is not there: waits for its creation.
    appearance: Option<Watcher>,
    /// The mark of the last item, if there was one.
    last: Option<Option<(u64, u64)>>,
    /// Whether something may have changed since the last read.
    stale: bool,
    rest: Rest,
    _state: PhantomData<fn() -> T>,
}

impl<T: State> States<T> {
    async fn next(&mut self) -> Result<T> {
        loop {
            self.rest.take().await;
            if !self.stale {
                fired(&self.client.core, &mut self.watcher, self.appearance.as_mut()).await?;
            }
            self.stale = true;
            let state = match self.read().await {
                Ok(state) => state,
                Err(error) => {
                    let error = error.map_path(&|path| self.client.ns.strip(path).to_owned());
                    return Err(self.rest.after(error));
                }
            };
            self.rest.over();
            self.stale = false;
            let (mark, last) = (state.mark(), self.last);
            // Only the state that has been given out already, or one before it, is left out.
            let is_news = match (last, mark) {
                (Some(Some((born, changed))), Some(now)) => now.0 != born || now.1 > changed,
                (Some(last), mark) => last != mark,
                (None, _) => true,
            };
            if is_news {
                self.last = Some(mark);
                return Ok(state);
            }
        }
    }

    async fn read(&mut self) -> Result<T> {
        let core = self.client.core.clone();
        loop {
            // What fires from here on is after the read, or seen by it.
            self.watcher.fired.borrow_and_update();
            match core.ticket(T::request(self.path.clone())).await {
                Ok(reply) => {
                    self.appearance = None;
                    return T::from_reply(reply);
                }
                Err(Error::NoNode { .. }) => {}
                Err(error) => return Err(error),
            }
            let appearance = self.appearance.get_or_insert_with(|| core.watches.join(Kind::Data, &self.path));
            appearance.fired.borrow_and_update();
            let exists = v1::ExistsRequest { path: self.path.clone(), watch: true, linearizable: false };
            match core.ticket(Op::Exists(exists)).await? {
                v1::Reply { result: Some(reply::Result::Exists(found)), .. } if found.stat.is_none() => {
                    return Ok(T::absent());
                }
                // It has appeared meanwhile.
                v1::Reply { result: Some(reply::Result::Exists(_)), .. } => {}
                other => return mismatch(other),
            }
        }
    }
}

/// Behind [`WatchBuilder::recursive`].
struct Tree {
    client: Client,
    path: String,
    watcher: Watcher,
    armed: bool,
    rest: Rest,
}

impl Tree {
    async fn next(&mut self) -> Result<TreeEvent> {
        let core = self.client.core.clone();
        let strip = |path: &str| self.client.ns.strip(path).to_owned();
        loop {
            self.rest.take().await;
            let Watcher { tree, fired, .. } = &mut self.watcher;
            let tree = tree.as_mut().expect("a recursive watcher has one");
            if !self.armed {
                fired.borrow_and_update();
                // What has come so far is covered by reading everything again.
                *tree = tree.resubscribe();
                let mode = v1::WatchMode::PersistentRecursive.into();
                let watch = Op::Watch(v1::WatchRequest { path: self.path.clone(), mode });
                if let Err(error) = core.ticket(watch).await {
                    return Err(self.rest.after(error.map_path(&strip)));
                }
                self.rest.over();
                self.armed = true;
                return Ok(TreeEvent::Resync);
            }
            let change = tokio::select! {
                biased;
                () = core.stop.cancelled() => return Err(core.outbox.shut().unwrap_or(Shut::Closed).error(false)),
                // It could not be set again on the next stream.
                fired = fired.changed() => {
                    fired.expect("a watcher keeps its entry");
                    self.armed = false;
                    continue;
                }
                change = tree.recv() => change,
            };
            let change = match change {
                Ok(change) => change,
                Err(RecvError::Lagged(_)) => {
                    *tree = tree.resubscribe();
                    return Ok(TreeEvent::Resync);
                }
                Err(RecvError::Closed) => unreachable!("a watcher keeps its entry"),
            };
            return Ok(match change.kind {
                v1::EventKind::Created => TreeEvent::Created(strip(&change.path)),
                v1::EventKind::DataChanged => TreeEvent::Changed(strip(&change.path)),
                v1::EventKind::Deleted => TreeEvent::Deleted(strip(&change.path)),
                v1::EventKind::Resync => TreeEvent::Resync,
                v1::EventKind::ChildrenChanged | v1::EventKind::Unspecified => continue,
            });
        }
    }
}
