//! Keeps what lies at and below some nodes in memory, as it was at one moment.
//!
//! A mirror sets a recursive watch on each of its roots and reads what the events name. Events come before any
//! reply that shows their change, so when everything named has been read and no further event is there, the
//! mirror is the tree as it was at the last reply: a transaction shows as a whole or not at all.
//!
//! After each reconnect it asks the ensemble to catch up ([`Client::sync`]) and looks again, so "settled" also
//! means that nothing acknowledged before has been missed. It is no task and decides nothing: its owner polls
//! [`Mirror::next`] and takes what it needs from [`Mirror::nodes`].
//!
//! Bounds: as many nodes as there are below the roots, to the given depth; 64 reads are under way at a time; when
//! more than [`PATHS_MAX`] nodes have changed everything is read again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, TryStreamExt, future::select_all, stream};
use quorate::{
    Client, Error, Node, RetryPolicy, SessionState, Stat, StateStream, TreeEvent, WatchStream, retry::Delays,
};
use tokio::time::{Instant, sleep_until};

/// Reads that are under way at a time.
const READS_MAX: usize = 64;
/// Changed nodes that are remembered one by one.
const PATHS_MAX: usize = 4096;
/// So often what has changed is read again before the mirror is given out although it goes on changing.
const ROUNDS_MAX: usize = 16;

/// How far what is served can be trusted to be what the ensemble has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Freshness {
    /// A member serves the session, and nothing that it knows of is missing.
    Fresh,
    /// It is the last that was known, and may have changed since.
    Stale {
        /// Since when.
        since: std::time::Instant,
    },
}

impl Freshness {
    /// Whether it is [`Freshness::Fresh`].
    pub fn is_fresh(self) -> bool {
        self == Self::Fresh
    }

    /// Of something that was settled in this epoch of the client and has been doubted since.
    pub(crate) fn of(client: &Client, settled_epoch: u64, doubted_since: Option<std::time::Instant>) -> Self {
        match doubted_since {
            Some(since) => Self::Stale { since },
            // The owner has not heard of the change of state yet.
            None if client.epoch() != settled_epoch => Self::Stale { since: std::time::Instant::now() },
            None => Self::Fresh,
        }
    }
}

/// What has happened to a mirror.
#[derive(Debug)]
pub(crate) enum Step {
    /// It is the tree as it was at one moment, after everything that had been told by then.
    Settled,
    /// No member serves the session: it may fall behind.
    Suspended,
    /// It cannot be read now. It goes on trying.
    Failed(Error),
    /// The client was closed, or will not go on.
    Ended,
}

/// A node of a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirrored {
    pub(crate) data: Bytes,
    pub(crate) version: i32,
    /// The zxid of its creation.
    pub(crate) czxid: u64,
    /// Of the last change of it that was read; of its children not all are.
    zxid: u64,
}

impl Mirrored {
    fn new(node: &Node) -> Self {
        // A copy, for it is kept, and the buffer it came in is larger.
        let data = Bytes::copy_from_slice(&node.data);
        let Stat { version, czxid, mzxid, pzxid, .. } = node.stat;
        Self { data, version, czxid, zxid: czxid.max(mzxid).max(pzxid) }
    }

    #[cfg(test)]
    pub(crate) fn of(data: &str) -> Self {
        Self { data: Bytes::copy_from_slice(data.as_bytes()), version: 0, czxid: 1, zxid: 1 }
    }
}

/// Nodes by their paths.
pub(crate) type Nodes = BTreeMap<String, Mirrored>;

/// The nodes at and below some roots.
pub(crate) struct Mirror {
    states: StateStream,
    subtrees: Subtrees,
}

/// Everything but the state of the session, so that both can be waited for at once.
struct Subtrees {
    client: Client,
    roots: Vec<Root>,
    depth_max: usize,
    debounce: Duration,
    /// When what has changed is to be read.
    due: Option<Instant>,
    /// Whether the ensemble is to be asked if anything was missed.
    unconfirmed: bool,
    settled_epoch: u64,
    zxid: u64,
    delays: Delays,
    retry_at: Option<Instant>,
}

struct Root {
    path: String,
    events: WatchStream<TreeEvent>,
    /// Whether the watch stands.
    armed: bool,
    stale: Stale,
    nodes: Nodes,
}

/// What has to be read again.
enum Stale {
    Paths(BTreeSet<String>),
    Everything,
}

impl Stale {
    const NOTHING: Self = Self::Paths(BTreeSet::new());

    fn is_nothing(&self) -> bool {
        matches!(self, Self::Paths(paths) if paths.is_empty())
    }
}

/// Why the mirror does not advance.
enum Halt {
    Failed(Error),
    Ended,
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        match error {
            Error::Closed => Self::Ended,
            error => Self::Failed(error),
        }
    }
}

impl Mirror {
    /// A mirror of what is at these paths and up to `depth_max` levels below. Changes are gathered for
    /// `debounce` before they are read.
    pub(crate) fn new(client: &Client, roots: &[String], depth_max: usize, debounce: Duration) -> Self {
        let roots = roots.iter().map(|path| Root {
            path: path.clone(),
            events: client.watch(path).recursive(),
            armed: false,
            stale: Stale::NOTHING,
            nodes: Nodes::new(),
        });
        Self {
            states: client.states(),
            subtrees: Subtrees {
                client: client.clone(),
                roots: roots.collect(),
                depth_max,
                debounce,
                due: None,
                unconfirmed: true,
                settled_epoch: 0,
                zxid: 0,
                delays: RetryPolicy::background().delays(),
                retry_at: None,
            },
        }
    }

    /// Waits for the next step.
    ///
    /// Cancel-safe: what was learned and not told is told by the next call.
    pub(crate) async fn next(&mut self) -> Step {
        loop {
            tokio::select! {
                biased;
                change = self.states.next() => match change.map(|change| change.to) {
                    None | Some(SessionState::Closed) => return Step::Ended,
                    Some(to) if to.is_connected() => self.subtrees.unconfirmed = true,
                    Some(_) => return Step::Suspended,
                },
                advanced = self.subtrees.advance() => return match advanced {
                    Ok(()) => Step::Settled,
                    Err(Halt::Failed(error)) => Step::Failed(error),
                    Err(Halt::Ended) => Step::Ended,
                },
            }
        }
    }

    /// Waits until it is settled for the first time. Gives up on errors that will not pass, and on others when
    /// the client's retry policy does.
    pub(crate) async fn fill(&mut self) -> quorate::Result<()> {
        let mut patience = self.subtrees.client.retry_policy().delays();
        loop {
            match self.next().await {
                Step::Settled => return Ok(()),
                Step::Suspended => {}
                Step::Failed(error) if error.is_retryable() && patience.next_delay().is_some() => {}
                Step::Failed(error) => return Err(error),
                Step::Ended => return Err(Error::Closed),
            }
        }
    }

    /// The next settling does not wait for more changes, and nothing acknowledged by now is missing from it.
    pub(crate) fn confirm(&mut self) {
        self.subtrees.unconfirmed = true;
    }

    /// What is at and below this root, by path. In the order of the roots given.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Nodes> {
        self.subtrees.roots.iter().map(|root| &root.nodes)
    }

    /// No change of what is here is later than this, and every change up to it is in.
    pub(crate) fn zxid(&self) -> u64 {
        self.subtrees.zxid
    }

    /// The client's epoch in which it was settled and confirmed last.
    pub(crate) fn settled_epoch(&self) -> u64 {
        self.subtrees.settled_epoch
    }
}

impl Subtrees {
    async fn advance(&mut self) -> Result<(), Halt> {
        if let Some(at) = self.retry_at {
            sleep_until(at).await;
            self.retry_at = None;
        }
        let advanced = self.try_advance().await;
        match advanced {
            Ok(()) => self.delays.reset(),
            Err(Halt::Failed(_)) => self.retry_at = self.delays.next_delay().map(|delay| Instant::now() + delay),
            Err(Halt::Ended) => {}
        }
        advanced
    }

    async fn try_advance(&mut self) -> Result<(), Halt> {
        let epoch = self.client.epoch();
        if self.unconfirmed {
            let path = self.roots.first().map_or("/", |root| &root.path);
            self.client.sync(path).await?;
        } else {
            if !self.is_stale() {
                self.changed().await?;
                self.due = Some(Instant::now() + self.debounce);
            }
            if let Some(due) = self.due {
                sleep_until(due).await;
            }
        }
        self.settle().await?;
        self.due = None;
        if std::mem::take(&mut self.unconfirmed) {
            self.settled_epoch = epoch;
        }
        Ok(())
    }

    fn is_stale(&self) -> bool {
        self.roots.iter().any(|root| !root.armed || !root.stale.is_nothing())
    }

    /// Waits for an event.
    async fn changed(&mut self) -> Result<(), Halt> {
        let (item, root, _) = select_all(self.roots.iter_mut().map(|root| root.events.next())).await;
        self.roots[root].take(item, self.depth_max)
    }

    /// Reads until nothing more is told. If it does not come to rest it stops half way, and goes on with the
    /// next call.
    async fn settle(&mut self) -> Result<(), Halt> {
        for _ in 0..ROUNDS_MAX {
            for root in &mut self.roots {
                root.hear(self.depth_max).await?;
            }
            if !self.is_stale() {
                break;
            }
            self.read().await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Halt> {
        for root in &mut self.roots {
            let gone = match &root.stale {
                Stale::Paths(paths) => {
                    let mut gone = BTreeSet::new();
                    for (path, node) in get_all(&self.client, paths.iter().cloned()).await? {
                        match node {
                            Some(node) => drop(root.nodes.insert(path, Mirrored::new(&node))),
                            None => {
                                root.nodes.remove(&path);
                                gone.insert(parent(&path).to_owned());
                            }
                        }
                    }
                    gone
                }
                Stale::Everything => {
                    let nodes = walk(&self.client, &root.path, self.depth_max).await?;
                    let gone = root.nodes.keys().filter(|path| !nodes.contains_key(*path));
                    let gone = gone.map(|path| parent(path).to_owned()).collect();
                    root.nodes = nodes;
                    gone
                }
            };
            let newest = root.nodes.values().map(|node| node.zxid).max();
            self.zxid = self.zxid.max(newest.unwrap_or(0)).max(deleted_zxid(&self.client, gone).await?);
            root.stale = Stale::NOTHING;
        }
        Ok(())
    }
}

impl Root {
    /// Takes in what has been told, without waiting once the watch stands.
    async fn hear(&mut self, depth_max: usize) -> Result<(), Halt> {
        loop {
            let item = if self.armed {
                // Outside of tokio's budget, which would make it look as if nothing were there.
                match tokio::task::unconstrained(self.events.next()).now_or_never() {
                    Some(item) => item,
                    None => return Ok(()),
                }
            } else {
                self.events.next().await
            };
            self.take(item, depth_max)?;
        }
    }

    fn take(&mut self, item: Option<quorate::Result<TreeEvent>>, depth_max: usize) -> Result<(), Halt> {
        match item {
            Some(Ok(TreeEvent::Created(path) | TreeEvent::Changed(path) | TreeEvent::Deleted(path))) => {
                if depth_below(&self.path, &path).is_some_and(|depth| depth <= depth_max)
                    && let Stale::Paths(paths) = &mut self.stale
                {
                    paths.insert(path);
                    if paths.len() > PATHS_MAX {
                        self.stale = Stale::Everything;
                    }
                }
                Ok(())
            }
            // A resync, or an event of a newer client.
            Some(Ok(_)) => {
                self.armed = true;
                self.stale = Stale::Everything;
                Ok(())
            }
            Some(Err(error)) => {
                // The stream goes on, and tells when it stands again.
                self.armed = false;
                Err(error.into())
            }
            None => Err(Halt::Ended),
        }
    }
}

async fn get_all(
    client: &Client,
    paths: impl IntoIterator<Item = String>,
) -> quorate::Result<Vec<(String, Option<Node>)>> {
    stream::iter(paths)
        .map(|path| async move {
            let node = client.get(&path).opt().await?;
            Ok((path, node))
        })
        .buffer_unordered(READS_MAX)
        .try_collect()
        .await
}

/// Reads a whole subtree, level by level.
async fn walk(client: &Client, root: &str, depth_max: usize) -> quorate::Result<Nodes> {
    let mut nodes = Nodes::new();
    let mut level = vec![root.to_owned()];
    for depth in 0..=depth_max {
        let found = get_all(client, level).await?;
        let parents = found.iter().filter_map(|(path, node)| {
            let has_children = node.as_ref().is_some_and(|node| node.stat.num_children > 0);
            (depth < depth_max && has_children).then(|| path.clone())
        });
        let lists: Vec<Vec<String>> = stream::iter(parents.collect::<Vec<_>>())
            .map(|path| async move {
                let names = client.children(&path).opt().await?.map_or(Vec::new(), |list| list.names);
                Ok::<_, Error>(names.iter().map(|name| join(&path, name)).collect())
            })
            .buffer_unordered(READS_MAX)
            .try_collect()
            .await?;
        nodes.extend(found.into_iter().filter_map(|(path, node)| Some((path, Mirrored::new(&node?)))));
        level = lists.into_iter().flatten().collect();
        if level.is_empty() {
            break;
        }
    }
    Ok(nodes)
}

/// The zxid by which the last children of these nodes were deleted. Of one that is gone too, the node above
/// tells.
async fn deleted_zxid(client: &Client, parents: BTreeSet<String>) -> quorate::Result<u64> {
    let mut zxid = 0;
    for path in &parents {
        let mut at = path.as_str();
        loop {
            if let Some(stat) = client.exists(at).await? {
                zxid = zxid.max(stat.pzxid);
                break;
            }
            if at == "/" {
                break;
            }
            at = parent(at);
        }
    }
    Ok(zxid)
}

/// How many levels `path` is below `root`; none if it is elsewhere.
fn depth_below(root: &str, path: &str) -> Option<usize> {
    let below = match path.strip_prefix(if root == "/" { "" } else { root })? {
        "" => return Some(0),
        below => below.strip_prefix('/')?,
    };
    Some(if below.is_empty() { 0 } else { below.split('/').count() })
}

/// The node above; the root is above itself.
pub(crate) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// The last part of a path.
pub(crate) fn name(path: &str) -> &str {
    &path[path.rfind('/').map_or(0, |at| at + 1)..]
}

/// The path of a child.
pub(crate) fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_counted_from_the_root_of_a_mirror() {
        assert_eq!(depth_below("/a", "/a"), Some(0));
        assert_eq!(depth_below("/a", "/a/b/c"), Some(2));
        assert_eq!(depth_below("/a", "/ab"), None);
        assert_eq!(depth_below("/a", "/b"), None);
        assert_eq!(depth_below("/", "/"), Some(0));
        assert_eq!(depth_below("/", "/a/b"), Some(2));
    }

    #[test]
    fn the_node_above_and_the_last_part() {
        assert_eq!((parent("/a/b"), name("/a/b")), ("/a", "b"));
        assert_eq!((parent("/a"), name("/a")), ("/", "a"));
        assert_eq!(parent("/"), "/");
        assert_eq!(join(parent("/a"), "b"), "/b");
    }
}
