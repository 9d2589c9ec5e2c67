//! Who is to hear of which change: the watch table of one member.
//!
//! Not replicated. Watches belong to a connection and go with it. As in ZooKeeper there is a data table (watches
//! of `get` and `exists`, and persistent ones) and a child table (watches of `children`, and persistent ones that
//! are not recursive); a connection holds a set of modes on a path in each.

use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap, HashSet},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use hashbrown::HashTable;
use quorate_tree::{Change, Zxid};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::read::{Declined, Event, EventKind};

/// A connection's place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) u32);

/// Which watch of a connection on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WatchKind {
    /// One-shot, on data, creation and deletion.
    Data,
    /// One-shot, on the set of children.
    Children,
    /// Stays, on both.
    Persistent,
    /// Stays, on the node and all below it, children's sets excepted.
    Recursive,
    /// All of them; only for taking away.
    Any,
}

impl WatchKind {
    /// Its modes in the data table and in the child table.
    fn modes(self) -> (&'static [Modes], &'static [Modes]) {
        const ONE_SHOT: &[Modes] = &[Modes::ONE_SHOT];
        const PERSISTENT: &[Modes] = &[Modes::PERSISTENT];
        match self {
            Self::Data => (ONE_SHOT, &[]),
            Self::Children => (&[], ONE_SHOT),
            Self::Persistent => (PERSISTENT, PERSISTENT),
            Self::Recursive => (&[Modes::RECURSIVE], &[]),
            Self::Any => {
                (&[Modes::ONE_SHOT, Modes::PERSISTENT, Modes::RECURSIVE], &[Modes::ONE_SHOT, Modes::PERSISTENT])
            }
        }
    }
}

/// How many watches there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WatchLimits {
    pub(crate) watches_max: usize,
    pub(crate) watches_per_session_max: usize,
    /// Bytes of the paths that are watched, each counted once.
    pub(crate) path_bytes_max: usize,
    /// Bytes of the paths that one session watches.
    pub(crate) path_bytes_per_session_max: usize,
}

/// An event and the connections that are to hear it, in the order in which they are to be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Firing {
    pub(crate) event: Event,
    pub(crate) to: Vec<ConnId>,
}

/// Path to watchers, and back.
#[derive(Debug)]
pub(crate) struct WatchTable {
    paths: Paths,
    conns: HashMap<ConnId, Watched>,
    /// Of the keys of `paths`.
    path_bytes: usize,
    /// Watches in all, each mode of each connection on each path in each table counted once.
    count: usize,
    /// Connections' recursive watches; 0 spares the walk up the path.
    recursive: usize,
    limits: WatchLimits,
}

/// What one connection watches.
#[derive(Debug, Default)]
struct Watched {
    /// A tree, for it grows without moving the rest.
    paths: BTreeSet<PathKey>,
    /// Of those.
    bytes: usize,
}

/// A path of the table, told from others by where it lies in memory: the table has each once.
#[derive(Clone, Debug)]
struct PathKey(Arc<str>);

impl PathKey {
    fn address(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<u8>().addr()
    }
}

impl PartialEq for PathKey {
    fn eq(&self, other: &Self) -> bool {
        self.address() == other.address()
    }
}

impl Eq for PathKey {}

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.address().cmp(&other.address())
    }
}

#[derive(Debug, Default)]
struct PathWatches {
    data: Watchers,
    child: Watchers,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Modes(u8);

impl Modes {
    const ONE_SHOT: Self = Self(1);
    const PERSISTENT: Self = Self(2);
    const RECURSIVE: Self = Self(4);

    fn has(self, mode: Self) -> bool {
        self.0 & mode.0 != 0
    }

    fn count(self) -> usize {
        self.0.count_ones() as usize
    }
}

/// Connections and their modes. Most paths are watched by one; a few are a list; many are a map, so that arming stays
/// cheap in a crowd.
#[derive(Debug, Default)]
enum Watchers {
    #[default]
    Nobody,
    One(ConnId, Modes),
    Few(Vec<(ConnId, Modes)>),
    #[expect(clippy::box_collection, reason = "a map is twice as large as the others, and few paths have one")]
    Many(Box<HashMap<ConnId, Modes>>),
}

const FEW: usize = 16;

impl Watchers {
    /// Whether the mode is new.
    fn add(&mut self, conn: ConnId, mode: Modes) -> bool {
        if let Some(modes) = self.modes_mut(conn) {
            let new = !modes.has(mode);
            modes.0 |= mode.0;
            return new;
        }
        match self {
            Self::Nobody => *self = Self::One(conn, mode),
            Self::One(other, modes) => *self = Self::Few(vec![(*other, *modes), (conn, mode)]),
            Self::Few(list) if list.len() < FEW => list.push((conn, mode)),
            Self::Few(list) => *self = Self::Many(Box::new(list.drain(..).chain([(conn, mode)]).collect())),
            Self::Many(map) => drop(map.insert(conn, mode)),
        }
        true
    }

    /// Whether the mode was there.
    fn remove(&mut self, conn: ConnId, mode: Modes) -> bool {
        let Some(modes) = self.modes_mut(conn) else { return false };
        let had = modes.has(mode);
        modes.0 &= !mode.0;
        if *modes == Modes::default() {
            self.forget(conn);
        }
        had
    }

    /// Takes a connection out, and gives the modes it had.
    fn forget(&mut self, conn: ConnId) -> Modes {
        let had = match self {
            Self::One(one, modes) if *one == conn => {
                let had = *modes;
                *self = Self::Nobody;
                Some(had)
            }
            Self::Nobody | Self::One(..) => None,
            Self::Few(list) => list.iter().position(|(c, _)| *c == conn).map(|at| list.swap_remove(at).1),
            Self::Many(map) => map.remove(&conn),
        };
        had.unwrap_or_default()
    }

    fn modes(&self, conn: ConnId) -> Modes {
        match self {
            Self::One(one, modes) if *one == conn => *modes,
            Self::Nobody | Self::One(..) => Modes::default(),
            Self::Few(list) => list.iter().find(|(c, _)| *c == conn).map(|(_, modes)| *modes).unwrap_or_default(),
            Self::Many(map) => map.get(&conn).copied().unwrap_or_default(),
        }
    }

    fn modes_mut(&mut self, conn: ConnId) -> Option<&mut Modes> {
        match self {
            Self::One(one, modes) if *one == conn => Some(modes),
            Self::Nobody | Self::One(..) => None,
            Self::Few(list) => list.iter_mut().find(|(c, _)| *c == conn).map(|(_, modes)| modes),
            Self::Many(map) => map.get_mut(&conn),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Nobody => true,
            Self::One(..) => false,
            Self::Few(list) => list.is_empty(),
            Self::Many(map) => map.is_empty(),
        }
    }

    fn for_each(&self, mut f: impl FnMut(ConnId, Modes)) {
        match self {
            Self::Nobody => {}
            Self::One(conn, modes) => f(*conn, *modes),
            Self::Few(list) => list.iter().for_each(|(conn, modes)| f(*conn, *modes)),
            Self::Many(map) => map.iter().for_each(|(conn, modes)| f(*conn, *modes)),
        }
    }
}

/// The paths that are watched, in parts each of which grows and shrinks by itself: of a million, only some thousands
/// are ever moved at once.
#[derive(Debug)]
struct Paths {
    parts: Box<[HashTable<(PathKey, PathWatches)>]>,
    count: usize,
    /// Random, so that nobody can choose paths that fall into one place.
    seed: u64,
}

/// A power of two.
const PARTS: usize = 256;

impl Paths {
    fn new() -> Self {
        let seed = RandomState::new().hash_one("paths");
        Self { parts: (0..PARTS).map(|_| HashTable::new()).collect(), count: 0, seed }
    }

    fn len(&self) -> usize {
        self.count
    }

    fn hash(&self, path: &str) -> u64 {
        hash_of(path, self.seed)
    }

    /// By bits that the tables themselves do not look at.
    fn part_of(hash: u64) -> usize {
        (hash >> 40) as usize % PARTS
    }

    fn get(&self, path: &str) -> Option<&PathWatches> {
        let hash = self.hash(path);
        self.parts[Self::part_of(hash)].find(hash, |(key, _)| *key.0 == *path).map(|(_, watches)| watches)
    }

    fn get_mut(&mut self, path: &str) -> Option<(&PathKey, &mut PathWatches)> {
        let hash = self.hash(path);
        let part = &mut self.parts[Self::part_of(hash)];
        part.find_mut(hash, |(key, _)| *key.0 == *path).map(|(key, watches)| (&*key, watches))
    }

    /// The caller knows that it is not there yet.
    fn insert(&mut self, path: &str) -> (&PathKey, &mut PathWatches) {
        let (hash, seed) = (self.hash(path), self.seed);
        let new = (PathKey(path.into()), PathWatches::default());
        self.count += 1;
        let entry = self.parts[Self::part_of(hash)].insert_unique(hash, new, |(key, _)| hash_of(&key.0, seed));
        let (key, watches) = entry.into_mut();
        (key, watches)
    }

    fn remove(&mut self, path: &str) {
        let (hash, seed) = (self.hash(path), self.seed);
        let part = &mut self.parts[Self::part_of(hash)];
        let Ok(entry) = part.find_entry(hash, |(key, _)| *key.0 == *path) else { return };
        entry.remove();
        self.count -= 1;
        // What once were many give their memory back.
        if part.len() < part.capacity() / 8 {
            part.shrink_to(part.len() * 2, |(key, _)| hash_of(&key.0, seed));
        }
    }
}

/// Fast, for a change of a node that lies deep looks for recursive watches on each of its ancestors.
fn hash_of(path: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(path.as_bytes(), seed)
}

impl WatchTable {
    pub(crate) fn new(limits: WatchLimits) -> Self {
        Self { paths: Paths::new(), conns: HashMap::new(), path_bytes: 0, count: 0, recursive: 0, limits }
    }

    /// Watches in all.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Arms a watch. Arming it twice is arming it once.
    pub(crate) fn add(&mut self, conn: ConnId, path: &str, kind: WatchKind) -> Result<(), Declined> {
        if self.count >= self.limits.watches_max {
            return Err(Declined::TooManyWatches);
        }
        let of_conn = self.conns.entry(conn).or_default();
        let known = self.paths.get_mut(path);
        let (is_watched, is_new) = (known.is_some(), known.is_none_or(|(key, _)| !of_conn.paths.contains(key)));
        if is_new
            && (of_conn.paths.len() >= self.limits.watches_per_session_max
                || of_conn.bytes + path.len() > self.limits.path_bytes_per_session_max)
        {
            return Err(Declined::TooManyWatches);
        }
        let (key, watches) = if is_watched {
            self.paths.get_mut(path).expect("it was there above")
        } else {
            if self.path_bytes + path.len() > self.limits.path_bytes_max {
                return Err(Declined::TooManyWatches);
            }
            self.path_bytes += path.len();
            self.paths.insert(path)
        };
        if is_new {
            of_conn.bytes += path.len();
            of_conn.paths.insert(key.clone());
        }
        let added = match kind {
            WatchKind::Data => usize::from(watches.data.add(conn, Modes::ONE_SHOT)),
            WatchKind::Children => usize::from(watches.child.add(conn, Modes::ONE_SHOT)),
            WatchKind::Persistent => {
                usize::from(watches.data.add(conn, Modes::PERSISTENT))
                    + usize::from(watches.child.add(conn, Modes::PERSISTENT))
            }
            WatchKind::Recursive => {
                let new = usize::from(watches.data.add(conn, Modes::RECURSIVE));
                self.recursive += new;
                new
            }
            WatchKind::Any => 0,
        };
        self.count += added;
        Ok(())
    }

    /// Takes a watch away; whether there was one.
    pub(crate) fn remove(&mut self, conn: ConnId, path: &str, kind: WatchKind) -> bool {
        let (data, child) = kind.modes();
        let mut found = false;
        for mode in data {
            found |= self.take(conn, path, Table::Data, *mode);
        }
        for mode in child {
            found |= self.take(conn, path, Table::Child, *mode);
        }
        found
    }

    /// Whether there is such a watch.
    pub(crate) fn has(&self, conn: ConnId, path: &str, kind: WatchKind) -> bool {
        let Some(watches) = self.paths.get(path) else { return false };
        let (data, child) = kind.modes();
        let has = |watchers: &Watchers, wanted: &[Modes]| {
            let modes = watchers.modes(conn);
            wanted.iter().any(|mode| modes.has(*mode))
        };
        has(&watches.data, data) || has(&watches.child, child)
    }

    /// Connections that watch anything, and the paths that are watched.
    pub(crate) fn extent(&self) -> (usize, usize) {
        (self.conns.values().filter(|watched| !watched.paths.is_empty()).count(), self.paths.len())
    }

    /// Which connection watches which paths, in no order.
    pub(crate) fn watchers(&self) -> impl Iterator<Item = (ConnId, &Arc<str>)> + '_ {
        self.conns.iter().flat_map(|(conn, watched)| watched.paths.iter().map(|key| (*conn, &key.0)))
    }

    /// Whether anything is known of a connection.
    pub(crate) fn knows(&self, conn: ConnId) -> bool {
        self.conns.contains_key(&conn)
    }

    /// Forgets up to `paths_max` of the paths that a connection watches; whether that was all.
    pub(crate) fn forget(&mut self, conn: ConnId, paths_max: usize) -> bool {
        let Some(watched) = self.conns.get_mut(&conn) else { return true };
        for _ in 0..paths_max {
            let Some(PathKey(path)) = watched.paths.pop_first() else { break };
            watched.bytes -= path.len();
            let (_, watches) = self.paths.get_mut(&path).expect("a path somebody watches is in the table");
            let (data, child) = (watches.data.forget(conn), watches.child.forget(conn));
            self.count -= data.count() + child.count();
            self.recursive -= usize::from(data.has(Modes::RECURSIVE));
            if watches.data.is_empty() && watches.child.is_empty() {
                self.paths.remove(&path);
                self.path_bytes -= path.len();
            }
        }
        let all = watched.paths.is_empty();
        if all {
            self.conns.remove(&conn);
        }
        all
    }

    /// What a change fires, in the order in which a connection is to hear it: the data table of the node, for a
    /// deletion its child table, then the child table of its parent. One-shot watches are gone afterwards.
    pub(crate) fn fire(&mut self, change: &Change, zxid: Zxid) -> Vec<Firing> {
        if self.count == 0 {
            return Vec::new();
        }
        let mut firings = Vec::new();
        match change {
            Change::Created { path } => {
                self.fire_node(path, EventKind::Created, zxid, &mut firings);
                self.fire_parent(path, zxid, &mut firings);
            }
            Change::DataChanged { path } => self.fire_node(path, EventKind::DataChanged, zxid, &mut firings),
            Change::Deleted { path, .. } => {
                self.fire_node(path, EventKind::Deleted, zxid, &mut firings);
                self.fire_deleted_children(path, zxid, &mut firings);
                self.fire_parent(path, zxid, &mut firings);
            }
            Change::QuotaPassed { .. } | Change::SessionEnded { .. } | Change::SessionAttached { .. } => {}
        }
        firings
    }

    fn fire_node(&mut self, path: &str, kind: EventKind, zxid: Zxid, firings: &mut Vec<Firing>) {
        let mut to = Vec::new();
        let mut spent = Vec::new();
        if let Some(watches) = self.paths.get(path) {
            watches.data.for_each(|conn, modes| {
                to.push(conn);
                if modes.has(Modes::ONE_SHOT) {
                    spent.push(conn);
                }
            });
        }
        if self.recursive > 0 {
            for ancestor in ancestors(path) {
                if let Some(watches) = self.paths.get(ancestor) {
                    watches.data.for_each(|conn, modes| {
                        if modes.has(Modes::RECURSIVE) {
                            to.push(conn);
                        }
                    });
                }
            }
            to.sort_unstable();
            to.dedup();
        }
        self.spend(path, Table::Data, &spent);
        push(firings, path, kind, zxid, to);
    }

    /// Those who watch the children of a node that is gone, unless its data watch has told them already.
    fn fire_deleted_children(&mut self, path: &str, zxid: Zxid, firings: &mut Vec<Firing>) {
        let Some(watches) = self.paths.get(path) else { return };
        let told: HashSet<ConnId> = firings.last().into_iter().flat_map(|firing| firing.to.iter().copied()).collect();
        let mut to = Vec::new();
        let mut spent = Vec::new();
        watches.child.for_each(|conn, modes| {
            if !told.contains(&conn) {
                to.push(conn);
            }
            if modes.has(Modes::ONE_SHOT) {
                spent.push(conn);
            }
        });
        self.spend(path, Table::Child, &spent);
        push(firings, path, EventKind::Deleted, zxid, to);
    }

    fn fire_parent(&mut self, path: &str, zxid: Zxid, firings: &mut Vec<Firing>) {
        let Some(parent) = parent(path) else { return };
        let Some(watches) = self.paths.get(parent) else { return };
        let mut to = Vec::new();
        let mut spent = Vec::new();
        watches.child.for_each(|conn, modes| {
            to.push(conn);
            if modes.has(Modes::ONE_SHOT) {
                spent.push(conn);
            }
        });
        self.spend(parent, Table::Child, &spent);
        push(firings, parent, EventKind::ChildrenChanged, zxid, to);
    }

    fn spend(&mut self, path: &str, table: Table, conns: &[ConnId]) {
        for conn in conns {
            self.take(*conn, path, table, Modes::ONE_SHOT);
        }
    }

    /// Removes one mode, and what is left empty by that; whether it was there.
    fn take(&mut self, conn: ConnId, path: &str, table: Table, mode: Modes) -> bool {
        let Some((key, watches)) = self.paths.get_mut(path) else { return false };
        let had = match table {
            Table::Data => watches.data.remove(conn, mode),
            Table::Child => watches.child.remove(conn, mode),
        };
        if !had {
            return false;
        }
        self.count -= 1;
        if mode == Modes::RECURSIVE {
            self.recursive -= 1;
        }
        if watches.data.modes(conn) == Modes::default()
            && watches.child.modes(conn) == Modes::default()
            && let Some(of_conn) = self.conns.get_mut(&conn)
            && of_conn.paths.remove(key)
        {
            of_conn.bytes -= path.len();
        }
        if watches.data.is_empty() && watches.child.is_empty() {
            self.paths.remove(path);
            self.path_bytes -= path.len();
        }
        true
    }
}

#[derive(Clone, Copy, Debug)]
enum Table {
    Data,
    Child,
}

fn push(firings: &mut Vec<Firing>, path: &str, kind: EventKind, zxid: Zxid, to: Vec<ConnId>) {
    if !to.is_empty() {
        firings.push(Firing { event: Event { zxid, kind, path: path.into(), caught_up: false }, to });
    }
}

fn parent(path: &str) -> Option<&str> {
    match path.rfind('/')? {
        0 if path.len() == 1 => None,
        0 => Some("/"),
        at => Some(&path[..at]),
    }
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(parent(path), |path| parent(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    use quorate_tree::Acl;

    const A: ConnId = ConnId(1);
    const B: ConnId = ConnId(2);

    fn limits(watches_max: usize, watches_per_session_max: usize) -> WatchLimits {
        WatchLimits { watches_max, watches_per_session_max, path_bytes_max: 1000, path_bytes_per_session_max: 100 }
    }

    fn table() -> WatchTable {
        WatchTable::new(limits(1000, 100))
    }

    fn created(path: &str) -> Change {
        Change::Created { path: path.into() }
    }

    fn deleted(path: &str) -> Change {
        Change::Deleted { path: path.into(), acl: Arc::from([Acl::open()]) }
    }

    fn changed(path: &str) -> Change {
        Change::DataChanged { path: path.into() }
    }

    fn heard(table: &mut WatchTable, change: &Change, conn: ConnId) -> Vec<(EventKind, String)> {
        table
            .fire(change, Zxid(7))
            .into_iter()
            .filter(|firing| firing.to.contains(&conn))
            .map(|firing| (firing.event.kind, firing.event.path.to_string()))
            .collect()
    }

    #[test]
    fn one_shot_data_watch_fires_once() {
        let mut table = table();
        table.add(A, "/p", WatchKind::Data).unwrap();

        assert_eq!(heard(&mut table, &changed("/p"), A), [(EventKind::DataChanged, "/p".into())]);
        assert_eq!(heard(&mut table, &changed("/p"), A), []);
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn arming_twice_gives_one_event() {
        let mut table = table();
        table.add(A, "/p", WatchKind::Data).unwrap();
        table.add(A, "/p", WatchKind::Data).unwrap();

        assert_eq!(table.count(), 1);
        assert_eq!(heard(&mut table, &changed("/p"), A).len(), 1);
    }

    #[test]
    fn creation_fires_the_node_before_the_parent() {
        let mut table = table();
        table.add(A, "/p", WatchKind::Children).unwrap();
        table.add(A, "/p/c", WatchKind::Data).unwrap();

        let heard = heard(&mut table, &created("/p/c"), A);

        assert_eq!(heard, [(EventKind::Created, "/p/c".into()), (EventKind::ChildrenChanged, "/p".into())]);
    }

    #[test]
    fn deletion_tells_a_connection_with_both_watches_once() {
        let mut table = table();
        table.add(A, "/p", WatchKind::Data).unwrap();
        table.add(A, "/p", WatchKind::Children).unwrap();
        table.add(B, "/p", WatchKind::Children).unwrap();

        let firings = table.fire(&deleted("/p"), Zxid(7));

        let a = firings.iter().filter(|f| f.to.contains(&A)).count();
        let b = firings.iter().filter(|f| f.to.contains(&B)).count();
        assert_eq!((a, b), (1, 1));
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn child_watches_of_the_root_fire() {
        let mut table = table();
        table.add(A, "/", WatchKind::Children).unwrap();

        assert_eq!(heard(&mut table, &created("/x"), A), [(EventKind::ChildrenChanged, "/".into())]);
    }

    #[test]
    fn persistent_watch_stays_and_sees_children() {
        let mut table = table();
        table.add(A, "/p", WatchKind::Persistent).unwrap();

        for _ in 0..2 {
            assert_eq!(heard(&mut table, &created("/p/c"), A), [(EventKind::ChildrenChanged, "/p".into())]);
            assert_eq!(heard(&mut table, &changed("/p"), A), [(EventKind::DataChanged, "/p".into())]);
            assert_eq!(heard(&mut table, &changed("/p/c"), A), []);
        }
    }

    #[test]
    fn recursive_watch_sees_everything_below_but_no_child_sets() {
        let mut table = table();
        table.add(A, "/p", WatchKind::Recursive).unwrap();

        assert_eq!(heard(&mut table, &created("/p/c/d"), A), [(EventKind::Created, "/p/c/d".into())]);
        assert_eq!(heard(&mut table, &changed("/p"), A), [(EventKind::DataChanged, "/p".into())]);
        assert_eq!(heard(&mut table, &deleted("/p/c"), A), [(EventKind::Deleted, "/p/c".into())]);
        assert_eq!(heard(&mut table, &created("/pq"), A), []);
    }

    #[test]
    fn modes_on_one_path_coexist_and_give_one_event() {
        let mut table = table();
        for kind in [WatchKind::Data, WatchKind::Persistent, WatchKind::Recursive] {
            table.add(A, "/w", kind).unwrap();
        }

        assert_eq!(heard(&mut table, &changed("/w"), A), [(EventKind::DataChanged, "/w".into())]);
        assert_eq!(
            heard(&mut table, &created("/w/k"), A),
            [(EventKind::Created, "/w/k".into()), (EventKind::ChildrenChanged, "/w".into())]
        );
    }

    #[test]
    fn a_forgotten_connection_leaves_nothing() {
        let mut table = table();
        table.add(A, "/p", WatchKind::Recursive).unwrap();
        table.add(A, "/q", WatchKind::Persistent).unwrap();
        table.add(B, "/q", WatchKind::Data).unwrap();

        table.forget(A, usize::MAX);

        assert_eq!(table.count(), 1);
        assert_eq!(table.recursive, 0);
        assert_eq!(heard(&mut table, &changed("/q"), A), []);
        assert_eq!(table.count(), 0, "the one watch left was spent by the change");
    }

    #[test]
    fn removing_one_kind_leaves_the_others() {
        let mut table = table();
        table.add(A, "/p", WatchKind::Data).unwrap();
        table.add(A, "/p", WatchKind::Persistent).unwrap();

        assert!(table.remove(A, "/p", WatchKind::Data));
        assert!(!table.remove(A, "/p", WatchKind::Data));
        assert_eq!(heard(&mut table, &changed("/p"), A).len(), 1);
        assert!(table.remove(A, "/p", WatchKind::Any));
        assert_eq!(table.count(), 0);
    }

    #[test]
    fn a_session_may_not_hold_more_watches_than_its_bound() {
        let mut table = WatchTable::new(limits(3, 2));
        table.add(A, "/1", WatchKind::Data).unwrap();
        table.add(A, "/2", WatchKind::Data).unwrap();

        assert_eq!(table.add(A, "/3", WatchKind::Data), Err(Declined::TooManyWatches));
        table.add(B, "/1", WatchKind::Data).unwrap();
        assert_eq!(table.add(B, "/2", WatchKind::Data), Err(Declined::TooManyWatches));
    }

    #[test]
    fn paths_are_bounded_by_their_bytes_of_a_connection_and_in_all() {
        let mut table =
            WatchTable::new(WatchLimits { path_bytes_max: 25, path_bytes_per_session_max: 20, ..limits(9, 9) });
        let add = |table: &mut WatchTable, conn, path: &str| table.add(conn, path, WatchKind::Persistent).is_ok();

        assert!(add(&mut table, A, "/345678901"));
        assert!(add(&mut table, A, "/345678901"), "a path counts once");
        assert!(add(&mut table, A, "/345678902"));
        assert!(!add(&mut table, A, "/"), "of a connection");
        assert!(add(&mut table, B, "/345678901"), "what is there already takes nothing");
        assert!(!add(&mut table, B, "/34567"), "in all");

        table.remove(A, "/345678902", WatchKind::Persistent);
        assert!(add(&mut table, B, "/34567"));
        table.forget(A, usize::MAX);
        table.forget(B, usize::MAX);
        assert_eq!((table.path_bytes, table.count()), (0, 0));
    }

    #[test]
    fn a_connection_is_forgotten_in_parts() {
        let mut table = table();
        for n in 0..5 {
            table.add(A, &format!("/{n}"), WatchKind::Data).unwrap();
        }
        table.add(B, "/0", WatchKind::Data).unwrap();

        assert!(!table.forget(A, 2) && !table.forget(A, 2));
        assert_eq!(table.count(), 2);
        assert!(table.forget(A, 2));
        assert!(table.forget(A, 2), "again");

        assert_eq!(heard(&mut table, &changed("/0"), B).len(), 1);
        assert_eq!((table.count(), table.path_bytes), (0, 0));
    }

    #[test]
    fn no_part_of_the_table_holds_many_of_its_paths_and_memory_is_given_back() {
        let mut table =
            WatchTable::new(WatchLimits { path_bytes_per_session_max: 1 << 20, ..limits(1 << 20, 1 << 20) });
        table.limits.path_bytes_max = 1 << 20;
        const PATHS: usize = 64 * PARTS;
        for n in 0..PATHS {
            table.add(A, &format!("/{n}"), WatchKind::Data).unwrap();
        }
        assert_eq!(table.extent(), (1, PATHS));
        let largest = table.paths.parts.iter().map(HashTable::len).max().unwrap();
        assert!(largest < PATHS / PARTS * 4, "{largest}: a growing part moves what it holds, and no more");

        while !table.forget(A, 1000) {}

        assert_eq!((table.extent(), table.path_bytes), ((0, 0), 0));
        assert!(table.paths.parts.iter().all(|part| part.capacity() < 8));
    }

    #[test]
    fn one_of_two_watchers_goes_and_the_other_is_told() {
        let mut table = table();
        for conn in [A, B] {
            table.add(conn, "/p", WatchKind::Data).unwrap();
            table.add(conn, "/p", WatchKind::Persistent).unwrap();
        }
        table.forget(A, usize::MAX);

        assert_eq!(heard(&mut table, &changed("/p"), A), []);
        assert!(table.has(B, "/p", WatchKind::Persistent) && !table.has(B, "/p", WatchKind::Data));
        assert_eq!(heard(&mut table, &changed("/p"), B).len(), 1);
    }

    #[test]
    fn a_crowd_on_one_path_is_told_and_forgotten() {
        let mut table = WatchTable::new(limits(10_000, 2));
        for conn in 0..1000 {
            table.add(ConnId(conn), "/p", WatchKind::Data).unwrap();
        }

        let firings = table.fire(&changed("/p"), Zxid(1));

        assert_eq!(firings[0].to.len(), 1000);
        assert_eq!(table.count(), 0);
    }
}
