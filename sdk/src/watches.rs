//! The server watches this client holds, shared by all who watch the same path.
//!
//! An entry lives as long as somebody watches. It is armed by the reply of a read, disarmed by the event, and
//! set again on the next stream relative to the last zxid whose events have all arrived. When the last watcher
//! leaves an armed entry, the server is told to take its watch away.
//!
//! Everything here runs in the order of the session stream: replies and events are fed in by the link as they
//! come, and requests are queued under the lock of the table, so a watch is never taken away from somebody who
//! came later.

use std::{
    collections::{HashMap, hash_map},
    sync::Arc,
};

use parking_lot::Mutex;
use quorate_proto::v1::{self, reply, request::Op, unwatch_request::Kind as UnwatchKind};
use tokio::sync::{broadcast, watch};

use crate::{
    outbox::{Entry, Outbox, Waiter},
    path,
};

/// Events of a recursive watch that a slow stream may fall behind by.
const TREE_EVENTS_MAX: usize = 1024;
/// A rearm request is closed when its paths have grown to this.
const REARM_BYTES_SOFT_MAX: usize = 128 * 1024;

/// What a watch is set on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// The node's data, its creation and its deletion.
    Data,
    /// The node's set of children.
    Children,
    /// Everything at and below the node.
    Recursive,
}

/// What the watchers of a path are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fired {
    /// Counts events, so that none is overlooked.
    pub(crate) count: u64,
    /// Whether one of them was a deletion.
    pub(crate) deletions: u64,
}

/// A change below a recursive watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeChange {
    pub(crate) kind: v1::EventKind,
    pub(crate) path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Armed {
    No,
    Yes,
    /// By `exists` on a node that was absent.
    Absent,
}

/// Whether the answer to this may set a watch.
pub(crate) fn may_arm(op: &Op) -> bool {
    match op {
        Op::Get(r) => r.watch,
        Op::Exists(r) => r.watch,
        Op::Children(r) => r.watch,
        Op::Watch(_) => true,
        _ => false,
    }
}

#[derive(Debug)]
struct Shared {
    watchers: usize,
    armed: Armed,
    fired: watch::Sender<Fired>,
    tree: Option<broadcast::Sender<TreeChange>>,
}

#[derive(Debug, Default)]
struct Tables {
    data: HashMap<String, Shared>,
    children: HashMap<String, Shared>,
    recursive: HashMap<String, Shared>,
    /// Events of changes up to this zxid have arrived on a stream on which every watch was set.
    complete_to: u64,
    /// Rearm requests that are not answered yet: until then events may be missing.
    rearming: usize,
}

impl Tables {
    fn of(&mut self, kind: Kind) -> &mut HashMap<String, Shared> {
        match kind {
            Kind::Data => &mut self.data,
            Kind::Children => &mut self.children,
            Kind::Recursive => &mut self.recursive,
        }
    }

    fn fire(&mut self, kind: Kind, path: &str, deletion: bool) {
        if let Some(shared) = self.of(kind).get_mut(path) {
            shared.armed = Armed::No;
            shared.fired.send_modify(|fired| {
                fired.count += 1;
                fired.deletions += u64::from(deletion);
            });
        }
    }
}

#[derive(Debug)]
pub(crate) struct WatchTable {
    tables: Mutex<Tables>,
    outbox: Arc<Outbox>,
}

impl WatchTable {
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self { tables: Mutex::default(), outbox }
    }

    /// Joins those who watch this path.
    pub(crate) fn join(self: &Arc<Self>, kind: Kind, path: &str) -> Watcher {
        let mut tables = self.tables.lock();
        let shared = tables.of(kind).entry(path.to_owned()).or_insert_with(|| Shared {
            watchers: 0,
            armed: Armed::No,
            fired: watch::Sender::new(Fired::default()),
            // A stream that has fallen behind by so much is told that it has.
            tree: (kind == Kind::Recursive).then(|| broadcast::Sender::new(TREE_EVENTS_MAX)),
        });
        shared.watchers += 1;
        Watcher {
            kind,
            path: path.to_owned(),
            fired: shared.fired.subscribe(),
            tree: shared.tree.as_ref().map(broadcast::Sender::subscribe),
            table: self.clone(),
        }
    }

    fn leave(&self, kind: Kind, path: &str) {
        let mut tables = self.tables.lock();
        let hash_map::Entry::Occupied(mut shared) = tables.of(kind).entry(path.to_owned()) else { return };
        shared.get_mut().watchers -= 1;
        if shared.get().watchers == 0 && shared.remove().armed != Armed::No {
            self.take_away(kind, path);
        }
    }

    /// Under the lock of the table, so that it goes before the read of whoever comes next.
    fn take_away(&self, kind: Kind, path: &str) {
        let kind = match kind {
            Kind::Data => UnwatchKind::Data,
            Kind::Children => UnwatchKind::Children,
            Kind::Recursive => UnwatchKind::PersistentRecursive,
        };
        let op = Op::Unwatch(v1::UnwatchRequest { path: path.to_owned(), kind: kind.into() });
        // Only a client that is closed refuses, and its watches are gone.
        let _ = self.outbox.push(Entry::new(op, Waiter::Stream));
    }

    /// A request was answered: it may have armed a watch.
    pub(crate) fn answered(&self, op: &Op, reply: &v1::Reply) {
        let (kind, path, armed) = match (op, &reply.result) {
            (Op::Get(r), Some(reply::Result::Get(_))) if r.watch => (Kind::Data, &r.path, Armed::Yes),
            (Op::Exists(r), Some(reply::Result::Exists(found))) if r.watch => {
                let armed = if found.stat.is_some() { Armed::Yes } else { Armed::Absent };
                (Kind::Data, &r.path, armed)
            }
            (Op::Children(r), Some(reply::Result::Children(_))) if r.watch => (Kind::Children, &r.path, Armed::Yes),
            (Op::Watch(r), Some(reply::Result::Done(_))) => (Kind::Recursive, &r.path, Armed::Yes),
            _ => return,
        };
        let mut tables = self.tables.lock();
        match tables.of(kind).get_mut(path) {
            Some(shared) => shared.armed = armed,
            // Whoever asked has left in the meantime.
            None => self.take_away(kind, path),
        }
    }

    /// The end of a frame: everything up to this zxid was seen, if every watch was set.
    pub(crate) fn seen(&self, zxid: u64) {
        let mut tables = self.tables.lock();
        if tables.rearming == 0 {
            tables.complete_to = tables.complete_to.max(zxid);
        }
    }

    /// An event has arrived.
    pub(crate) fn event(&self, event: v1::Event) {
        let mut tables = self.tables.lock();
        let kind = event.kind();
        let deletion = kind == v1::EventKind::Deleted;
        match kind {
            v1::EventKind::Created | v1::EventKind::DataChanged => tables.fire(Kind::Data, &event.path, false),
            v1::EventKind::ChildrenChanged => tables.fire(Kind::Children, &event.path, false),
            v1::EventKind::Deleted => {
                tables.fire(Kind::Data, &event.path, deletion);
                tables.fire(Kind::Children, &event.path, deletion);
            }
            v1::EventKind::Resync | v1::EventKind::Unspecified => {}
        }
        if tables.recursive.is_empty() || kind == v1::EventKind::ChildrenChanged {
            return;
        }
        // A resync speaks of the watch at its own path only; a change concerns every watch above it.
        let mut at = Some(event.path.as_str());
        while let Some(above) = at {
            if let Some(tree) = tables.recursive.get(above).and_then(|shared| shared.tree.as_ref()) {
                // Nobody listening is no loss.
                let _ = tree.send(TreeChange { kind, path: event.path.clone() });
            }
            at = if kind == v1::EventKind::Resync { None } else { path::parent(above) };
        }
    }

    /// What sets the watches of earlier streams again.
    pub(crate) fn rearm(&self) -> Vec<Entry> {
        let mut tables = self.tables.lock();
        let since_zxid = tables.complete_to;
        let mut requests = Vec::new();
        let mut request = v1::RearmRequest { since_zxid, ..v1::RearmRequest::default() };
        let mut bytes = 0;
        for kind in [Kind::Data, Kind::Children, Kind::Recursive] {
            for (path, shared) in tables.of(kind) {
                let list = match (kind, shared.armed) {
                    (_, Armed::No) => continue,
                    (Kind::Data, Armed::Yes) => &mut request.data,
                    (Kind::Data, Armed::Absent) => &mut request.exists,
                    (Kind::Children, _) => &mut request.children,
                    (Kind::Recursive, _) => &mut request.persistent_recursive,
                };
                list.push(path.clone());
                bytes += path.len() + 4;
                if bytes > REARM_BYTES_SOFT_MAX {
                    let next = v1::RearmRequest { since_zxid, ..v1::RearmRequest::default() };
                    requests.push(std::mem::replace(&mut request, next));
                    bytes = 0;
                }
            }
        }
        if bytes > 0 {
            requests.push(request);
        }
        tables.rearming = requests.len();
        requests.into_iter().map(|request| Entry::new(Op::Rearm(request), Waiter::Stream)).collect()
    }

    /// A rearm request was answered. After a refusal those concerned look for themselves.
    pub(crate) fn rearmed(&self, request: &v1::RearmRequest, reply: &v1::Reply) {
        let mut tables = self.tables.lock();
        tables.rearming = tables.rearming.saturating_sub(1);
        if tables.rearming == 0 {
            tables.complete_to = tables.complete_to.max(reply.zxid);
        }
        if !matches!(reply.result, Some(reply::Result::Refused(_))) {
            return;
        }
        for path in request.data.iter().chain(&request.exists) {
            tables.fire(Kind::Data, path, false);
        }
        for path in &request.children {
            tables.fire(Kind::Children, path, false);
        }
        for path in &request.persistent_recursive {
            tables.fire(Kind::Recursive, path, false);
        }
    }
}

/// One who watches. Leaves when dropped.
#[derive(Debug)]
pub(crate) struct Watcher {
    kind: Kind,
    path: String,
    pub(crate) fired: watch::Receiver<Fired>,
    pub(crate) tree: Option<broadcast::Receiver<TreeChange>>,
    table: Arc<WatchTable>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.table.leave(self.kind, &self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn table() -> Arc<WatchTable> {
        Arc::new(WatchTable::new(Arc::new(Outbox::new(16, Clock::system()))))
    }

    fn get(path: &str) -> (Op, v1::Reply) {
        let op = Op::Get(v1::GetRequest { path: path.into(), watch: true, linearizable: false });
        let result = reply::Result::Get(v1::GetReply::default());
        (op, v1::Reply { seq: 1, zxid: 5, result: Some(result) })
    }

    fn event(kind: v1::EventKind, path: &str) -> v1::Event {
        v1::Event { zxid: 6, kind: kind.into(), path: path.into() }
    }

    fn rearmed_data(table: &WatchTable) -> Vec<String> {
        let entries = table.rearm();
        entries
            .iter()
            .flat_map(|entry| match entry.op() {
                Op::Rearm(request) => request.data.clone(),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn only_what_is_armed_is_set_again() {
        let table = table();
        let _a = table.join(Kind::Data, "/a");
        let _b = table.join(Kind::Data, "/b");
        for path in ["/a", "/b"] {
            let (op, reply) = get(path);
            table.answered(&op, &reply);
        }

        table.event(event(v1::EventKind::DataChanged, "/a"));

        assert_eq!(rearmed_data(&table), ["/b"]);
    }

    #[test]
    fn events_before_the_rearm_reply_do_not_move_the_mark() {
        let table = table();
        let _a = table.join(Kind::Data, "/a");
        let (op, reply) = get("/a");
        table.answered(&op, &reply);
        table.seen(reply.zxid);
        let entries = table.rearm();
        let Op::Rearm(request) = entries[0].op() else { panic!("{entries:?}") };
        assert_eq!(request.since_zxid, 5);

        table.event(v1::Event { zxid: 9, kind: v1::EventKind::DataChanged.into(), path: "/b".into() });
        table.seen(9);
        assert_eq!(table.tables.lock().complete_to, 5);

        let done = v1::Reply { seq: 2, zxid: 12, result: Some(reply::Result::Done(v1::Done {})) };
        table.rearmed(request, &done);
        assert_eq!(table.tables.lock().complete_to, 12);
    }

    #[test]
    fn a_deletion_wakes_both_kinds_of_watchers() {
        let table = table();
        let data = table.join(Kind::Data, "/a");
        let children = table.join(Kind::Children, "/a");

        table.event(event(v1::EventKind::Deleted, "/a"));

        assert_eq!(*data.fired.borrow(), Fired { count: 1, deletions: 1 });
        assert_eq!(children.fired.borrow().count, 1);
    }

    #[test]
    fn a_recursive_watch_hears_of_everything_below_and_of_nothing_beside() {
        let table = table();
        let mut watcher = table.join(Kind::Recursive, "/a");
        let tree = watcher.tree.as_mut().unwrap();

        table.event(event(v1::EventKind::Created, "/a/b/c"));
        table.event(event(v1::EventKind::Created, "/ab"));
        table.event(event(v1::EventKind::ChildrenChanged, "/a"));
        table.event(event(v1::EventKind::Resync, "/a/b"));
        table.event(event(v1::EventKind::Resync, "/a"));

        assert_eq!(tree.try_recv().unwrap().path, "/a/b/c");
        assert_eq!(tree.try_recv().unwrap(), TreeChange { kind: v1::EventKind::Resync, path: "/a".into() });
        assert!(tree.try_recv().is_err());
    }

    #[test]
    fn watchers_share_an_entry_and_the_last_one_takes_it_away() {
        let table = table();
        let first = table.join(Kind::Data, "/a");
        let second = table.join(Kind::Data, "/a");
        let (op, reply) = get("/a");
        table.answered(&op, &reply);

        drop(first);
        assert_eq!(rearmed_data(&table), ["/a"]);

        drop(second);
        assert!(table.tables.lock().data.is_empty());
    }

    #[test]
    fn many_watches_are_set_again_in_bounded_requests() {
        let table = table();
        let watchers: Vec<_> = (0..5000)
            .map(|n| {
                let path = format!("/{n:0100}");
                let (op, reply) = get(&path);
                let watcher = table.join(Kind::Data, &path);
                table.answered(&op, &reply);
                watcher
            })
            .collect();

        let requests = table.rearm();

        assert!(requests.len() > 1);
        for request in &requests {
            assert!(prost::Message::encoded_len(&request.request) < REARM_BYTES_SOFT_MAX + 1024);
        }
        assert_eq!(rearmed_data(&table).len(), watchers.len());
    }
}
