//! This member's copy of the replicated state: one writer, many readers.
//!
//! The writer is the ensemble, which hands over log entries in order. Readers are the sessions attached here; each
//! has a [`SessionQueue`] that the applier fills. Not replicated, and gone with the process: the watch table and
//! the queues.
//!
//! Locks are taken in the order tree, attached (watches and queues), one queue; none is held across an await. A
//! reader holds the tree shared, the applier holds it alone, so the applier never meets a reader half way; but a session
//! that owns very many ephemeral nodes ends in parts, between which readers see it half gone, as they do in ZooKeeper.
//! Nothing that grows with the number of nodes, sessions or watches is done under one hold of a lock, but for what one
//! transaction asks for and the names of one node's children, which are copied.
//!
//! Task: [`Replica::sweep`].

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use quorate_tree::{
    Acl, Applied, Change, Command, Identity, Lane, MemberId, Outcome, Permissions, Refusal, Refused, SessionEnd,
    SessionId, Tree, Zxid,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot, watch};
use tracing::warn;

#[cfg(test)]
mod micro;
mod queue;
mod read;
mod watches;

pub(crate) use queue::{Item, QueueEnd, QueueLimits, SessionQueue, SlotId, Submit, SubmitKind, Taken};
pub(crate) use read::{Answer, Declined, Event, EventKind, Read, Rearm};
pub(crate) use watches::{WatchKind, WatchLimits};

use crate::{
    clock::{Clock, Moment},
    telemetry::metrics::SessionMetrics,
};
use queue::{Common, Run};
use watches::{ConnId, Firing, WatchTable};

/// Digests are compared between members at every zxid that this divides.
pub(crate) const DIGEST_MARK_EVERY: u64 = 4096;

/// Paths that a connection watched and that are forgotten under one hold of the lock.
const FORGOTTEN_AT_ONCE: usize = 1024;

/// Ephemeral nodes that go with their session under one hold of the lock.
const LET_GO_AT_ONCE: usize = 1024;

/// Between two warnings of soft quotas.
const QUOTA_WARNING_PAUSE: Duration = Duration::from_secs(60);

/// The copy and everything that hangs on it.
#[derive(Debug)]
pub(crate) struct Replica {
    me: MemberId,
    tree: RwLock<Tree>,
    attached: Mutex<Attached>,
    applied: watch::Sender<AppliedTo>,
    /// Told when a connection has gone whose watches have not.
    to_sweep: Notify,
    metrics: SessionMetrics,
}

/// The sessions this member serves.
#[derive(Debug)]
struct Attached {
    watches: WatchTable,
    by_conn: HashMap<ConnId, Arc<SessionQueue>>,
    by_session: HashMap<SessionId, ConnId>,
    /// Connections that have gone and whose watches have not.
    gone: Vec<ConnId>,
    /// Of the command of which a part is done.
    begun: Option<Completion>,
    next_conn: u32,
    quota_warned_at: Option<Moment>,
    of_queues: Arc<Common>,
}

/// How far this copy is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AppliedTo {
    /// The last log entry.
    pub(crate) log_index: u64,
    /// The last command.
    pub(crate) zxid: Zxid,
}

/// Who is to learn what becomes of a proposal. Completed by the apply of the member that proposed it; dropped
/// when it cannot be known any more (the copy was replaced by a snapshot).
#[derive(Debug)]
pub(crate) enum Completion {
    /// A write of an attached session: the reply goes into its queue, the permit back to where it came from.
    Write { queue: Arc<SessionQueue>, slot: SlotId, permit: OwnedSemaphorePermit },
    /// Anybody who waits for one outcome. A dropped sender means unknown.
    Ticket(oneshot::Sender<Settled>),
    /// Nobody.
    Nobody,
}

/// An outcome and where it stands in the order of things.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) zxid: Zxid,
    pub(crate) outcome: Outcome,
}

/// What the applier of an entry must know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ApplyReport {
    /// How many of the commands were applied.
    pub(crate) applied: usize,
    /// A proposal of this member was refused as a gap: its open proposals must be sent again.
    pub(crate) own_gap: bool,
    /// Digests at the marks that this entry passed.
    pub(crate) digest_marks: Vec<(Zxid, u64)>,
}

impl ApplyReport {
    /// What was done next.
    pub(crate) fn add(&mut self, next: Self) {
        self.applied += next.applied;
        self.own_gap |= next.own_gap;
        self.digest_marks.extend(next.digest_marks);
    }
}

/// The attachment is not, or no longer, the newest of a live session here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session was attached elsewhere or has ended")]
pub(crate) struct NotAttached;

impl Replica {
    pub(crate) fn new(
        me: MemberId,
        tree: Tree,
        log_index: u64,
        limits: QueueLimits,
        watch_limits: WatchLimits,
        metrics: SessionMetrics,
    ) -> Self {
        let applied = AppliedTo { log_index, zxid: tree.zxid() };
        let attached = Attached {
            watches: WatchTable::new(watch_limits),
            by_conn: HashMap::new(),
            by_session: HashMap::new(),
            gone: Vec::new(),
            begun: None,
            next_conn: 0,
            quota_warned_at: None,
            of_queues: Arc::new(Common::new(limits)),
        };
        Self {
            me,
            tree: RwLock::new(tree),
            attached: Mutex::new(attached),
            applied: watch::channel(applied).0,
            to_sweep: Notify::new(),
            metrics,
        }
    }

    /// Applies the commands of one log entry under one lock. `completion` is asked for each command of this member
    /// that is applied in its turn, and gives the completion if the proposal is open.
    ///
    /// Stops in front of a command that takes long, with a part of it done: others are to have the lock, and the thread,
    /// before the caller comes again with the commands that are left. Until none is, the entry does not count as applied.
    pub(crate) fn apply(
        &self,
        log_index: u64,
        commands: &[Command],
        completion: &mut dyn FnMut(&Lane) -> Option<Completion>,
    ) -> ApplyReport {
        let mut report = ApplyReport::default();
        let mut to_wake = Vec::new();
        let mut tree = self.tree.write();
        let mut attached = self.attached.lock();
        for command in commands {
            let own = command.lane.member == self.me;
            let its_turn =
                own && tree.next_in_lane(command.lane.member, command.lane.incarnation) == Some(command.lane.seq);
            let begun = attached.begun.take();
            let completion = if its_turn { begun.or_else(|| completion(&command.lane)) } else { None };
            if let Some(Completion::Write { queue, slot, .. }) = &completion {
                queue.before_write(*slot, &mut Run { tree: &tree, watches: Some(&mut attached.watches) });
            }
            if let Some((zxid, changes)) = tree.apply_ahead(command, LET_GO_AT_ONCE) {
                attached.fire(&changes, zxid, &tree, &mut to_wake, &self.metrics);
                attached.begun = completion;
                break;
            }
            match tree.apply(command) {
                Applied::Fresh { zxid, outcome, changes } => {
                    attached.fire(&changes, tree.zxid(), &tree, &mut to_wake, &self.metrics);
                    if let Some(completion) = completion {
                        attached.complete(completion, Settled { zxid, outcome }, &tree, &mut to_wake);
                    }
                    attached.end(&changes, &mut to_wake, &self.metrics);
                    if own {
                        attached.warn_of_quotas(&changes);
                    }
                }
                Applied::Repeat => {}
                Applied::Gap => report.own_gap |= own,
            }
            if tree.zxid().0.is_multiple_of(DIGEST_MARK_EVERY) {
                report.digest_marks.push((tree.zxid(), tree.digest()));
            }
            report.applied += 1;
        }
        let applied = AppliedTo { log_index, zxid: tree.zxid() };
        drop(attached);
        drop(tree);
        if report.applied == commands.len() {
            self.applied.send_replace(applied);
        }
        for queue in to_wake {
            queue.wake();
        }
        report
    }

    /// Replaces the copy by one loaded from a snapshot, and closes every queue: clients attach again, and find out
    /// by zxid what their watches missed.
    pub(crate) fn install(&self, tree: Tree, log_index: u64) {
        let applied = AppliedTo { log_index, zxid: tree.zxid() };
        let mut place = self.tree.write();
        // Closed before anybody can read the new copy: a reply from it would show changes without their events.
        let mut to_wake = Vec::new();
        for queue in self.attached.lock().by_conn.values() {
            if queue.close(QueueEnd::Replaced) {
                to_wake.push(queue.clone());
            }
        }
        let old = std::mem::replace(&mut *place, tree);
        drop(place);
        self.applied.send_replace(applied);
        for queue in to_wake {
            queue.wake();
        }
        // Freeing a large tree takes a while; nobody waits for it here.
        drop(old);
    }

    /// Reads the copy as it is now.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Tree) -> T) -> T {
        read(&self.tree.read())
    }

    /// Changes nothing that is replicated: for freezing and walking a snapshot.
    pub(crate) fn with_tree_mut<T>(&self, f: impl FnOnce(&mut Tree) -> T) -> T {
        f(&mut self.tree.write())
    }

    /// How far the copy is, now and from now on.
    pub(crate) fn applied(&self) -> watch::Receiver<AppliedTo> {
        self.applied.subscribe()
    }

    /// A queue for an attachment that has been applied here.
    pub(crate) fn attach(&self, session: SessionId, attachment: u64) -> Result<Arc<SessionQueue>, NotAttached> {
        // The tree lock keeps the applier out: whatever ends this attachment comes after the queue is known.
        let tree = self.tree.read();
        if tree.session(session).is_none_or(|view| view.attachment != attachment) {
            return Err(NotAttached);
        }
        let mut attached = self.attached.lock();
        let queue = attached.enter(session);
        attached.by_session.insert(session, queue.conn);
        Ok(queue)
    }

    /// A queue for a session that only this member knows: nothing that is replicated ends it.
    pub(crate) fn attach_here(&self, session: SessionId) -> Arc<SessionQueue> {
        let _tree = self.tree.read();
        self.attached.lock().enter(session)
    }

    /// Forgets a queue and its watches; if they are very many, the rest of them is left to [`Replica::sweep`].
    pub(crate) fn detach(&self, queue: &SessionQueue) {
        let _tree = self.tree.read();
        let mut attached = self.attached.lock();
        attached.by_conn.remove(&queue.conn);
        if attached.by_session.get(&queue.session) == Some(&queue.conn) {
            attached.by_session.remove(&queue.session);
        }
        if !attached.watches.forget(queue.conn, FORGOTTEN_AT_ONCE) {
            attached.gone.push(queue.conn);
            self.to_sweep.notify_one();
        }
    }

    /// Forgets the watches of connections that have gone, a few under one hold of the lock, for there may be a million.
    /// Never ends.
    ///
    /// Cancel safe: what is left is left.
    pub(crate) async fn sweep(&self) -> Infallible {
        loop {
            while self.sweep_some() {
                tokio::task::yield_now().await;
            }
            self.to_sweep.notified().await;
        }
    }

    /// Whether there was anything to forget.
    fn sweep_some(&self) -> bool {
        let mut attached = self.attached.lock();
        let Some(conn) = attached.gone.last().copied() else { return false };
        if attached.watches.forget(conn, FORGOTTEN_AT_ONCE) {
            attached.gone.pop();
        }
        true
    }

    /// Puts requests at the tail of a queue and runs those reads that nothing older holds up. Returns the slot of
    /// the first of them; the others follow.
    pub(crate) fn submit(&self, queue: &SessionQueue, requests: Vec<Submit>) -> SlotId {
        let watches = requests.iter().any(|request| match &request.kind {
            SubmitKind::Read { read, .. } => read.touches_watches(),
            SubmitKind::Write | SubmitKind::Ready(_) => false,
        });
        // Reads that were put in before and could not run then are run by whoever removes their obstacle, unless it
        // was the bound on bytes: then this call may run them, and they may arm.
        let mut first = SlotId(0);
        self.run(queue, watches || queue.in_flight() > 0, |queue, run| {
            let (at, wake) = queue.submit(requests, run);
            first = at;
            wake
        });
        first
    }

    /// Releases the barriers of a queue's reads up to a slot.
    pub(crate) fn release(&self, queue: &SessionQueue, last: SlotId) {
        self.run(queue, true, |queue, run| queue.release(last, run));
    }

    /// Runs the reads that were held back because too much was waiting to be sent.
    pub(crate) fn resume(&self, queue: &SessionQueue) {
        self.run(queue, true, SessionQueue::resume);
    }

    /// Watches of all sessions here.
    pub(crate) fn watch_count(&self) -> usize {
        self.attached.lock().watches.count()
    }

    /// Sessions here that watch anything, paths that are watched, and watches.
    pub(crate) fn watch_extent(&self) -> (usize, usize, usize) {
        let attached = self.attached.lock();
        let (sessions, paths) = attached.watches.extent();
        (sessions, paths, attached.watches.count())
    }

    /// Who watches what, up to `limit` pairs, in no order.
    pub(crate) fn watchers(&self, limit: usize) -> Vec<(SessionId, Arc<str>)> {
        let attached = self.attached.lock();
        let pairs = attached.watches.watchers().take(limit);
        pairs.filter_map(|(conn, path)| Some((attached.by_conn.get(&conn)?.session, path.clone()))).collect()
    }

    /// Events that wait to be taken by their connections.
    pub(crate) fn events_queued(&self) -> usize {
        let queues: Vec<_> = self.attached.lock().by_conn.values().cloned().collect();
        queues.iter().map(|queue| queue.events_queued()).sum()
    }

    /// Sessions that only this member knows.
    pub(crate) fn sessions_here_alone(&self) -> usize {
        let attached = self.attached.lock();
        attached.by_conn.values().filter(|queue| queue.session.member() == MemberId(0)).count()
    }

    /// Sessions attached here.
    pub(crate) fn attached_sessions(&self) -> Vec<SessionId> {
        self.attached.lock().by_session.keys().copied().collect()
    }

    fn run(&self, queue: &SessionQueue, watches: bool, f: impl FnOnce(&SessionQueue, &mut Run<'_>) -> bool) {
        let tree = self.tree.read();
        let mut attached = watches.then(|| self.attached.lock());
        let watches = attached.as_deref_mut().map(|attached| &mut attached.watches);
        let wake = f(queue, &mut Run { tree: &tree, watches });
        drop(attached);
        drop(tree);
        if wake {
            queue.wake();
        }
    }
}

impl Attached {
    fn enter(&mut self, session: SessionId) -> Arc<SessionQueue> {
        let queue = Arc::new(SessionQueue::new(session, self.free_conn(), self.of_queues.clone()));
        self.by_conn.insert(queue.conn, queue.clone());
        queue
    }

    fn free_conn(&mut self) -> ConnId {
        loop {
            let conn = ConnId(self.next_conn);
            self.next_conn = self.next_conn.wrapping_add(1);
            if !self.by_conn.contains_key(&conn) && !self.watches.knows(conn) {
                return conn;
            }
        }
    }

    /// Tells those who watch of what has changed with `zxid`.
    fn fire(
        &mut self,
        changes: &[Change],
        zxid: Zxid,
        tree: &Tree,
        to_wake: &mut Vec<Arc<SessionQueue>>,
        metrics: &SessionMetrics,
    ) {
        let mut deleted = None;
        for change in changes {
            for firing in self.watches.fire(change, zxid) {
                count_watchers(&firing, metrics);
                let deleted = deleted.get_or_insert_with(|| lists_of_deleted(changes));
                let sight = Sight::of(&firing.event, change, deleted, tree);
                for conn in &firing.to {
                    if let Some(queue) = self.by_conn.get(conn)
                        && (matches!(sight, Sight::Everybody) || sight.includes(&queue.identities()))
                        && queue.push_event(firing.event.clone())
                    {
                        to_wake.push(queue.clone());
                    }
                }
            }
        }
    }

    fn complete(
        &mut self,
        completion: Completion,
        settled: Settled,
        tree: &Tree,
        to_wake: &mut Vec<Arc<SessionQueue>>,
    ) {
        match completion {
            Completion::Write { queue, slot, permit } => {
                if queue.complete(slot, settled, &mut Run { tree, watches: Some(&mut self.watches) }) {
                    to_wake.push(queue);
                }
                drop(permit);
            }
            // Nobody may be waiting any more; the outcome stands all the same.
            Completion::Ticket(ticket) => drop(ticket.send(settled)),
            Completion::Nobody => {}
        }
    }

    /// Says that a soft quota is passed, on the member whose client did it. One warning stands for all that follow it
    /// closely.
    fn warn_of_quotas(&mut self, changes: &[Change]) {
        for change in changes {
            let Change::QuotaPassed { subtree, nodes, bytes } = change else { continue };
            let now = Clock::now();
            if self.quota_warned_at.is_some_and(|before| now.since(before) < QUOTA_WARNING_PAUSE) {
                continue;
            }
            self.quota_warned_at = Some(now);
            warn!(subtree, nodes, bytes, "a soft quota is passed");
        }
    }

    /// Closes the queues of sessions that ended or moved. After completions, so that a session that closes itself
    /// still gets its reply.
    fn end(&mut self, changes: &[Change], to_wake: &mut Vec<Arc<SessionQueue>>, metrics: &SessionMetrics) {
        for change in changes {
            if matches!(change, Change::SessionEnded { end: SessionEnd::Expired, .. }) {
                metrics.expired();
            }
            let (session, end) = match change {
                Change::SessionEnded { session, end } => (session, QueueEnd::Session(*end)),
                Change::SessionAttached { session, .. } => (session, QueueEnd::Moved),
                Change::Created { .. }
                | Change::DataChanged { .. }
                | Change::Deleted { .. }
                | Change::QuotaPassed { .. } => continue,
            };
            if let Some(queue) = self.by_session.get(session).and_then(|conn| self.by_conn.get(conn))
                && queue.close(end)
            {
                to_wake.push(queue.clone());
            }
        }
    }
}

fn lists_of_deleted(changes: &[Change]) -> HashMap<&str, &[Acl]> {
    let mut lists = HashMap::new();
    for change in changes {
        if let Change::Deleted { path, acl } = change {
            lists.insert(path.as_str(), &**acl);
        }
    }
    lists
}

fn count_watchers(firing: &Firing, metrics: &SessionMetrics) {
    let summary = match firing.event.kind {
        EventKind::Created => &metrics.watchers.created,
        EventKind::Deleted => &metrics.watchers.deleted,
        EventKind::DataChanged => &metrics.watchers.data_changed,
        EventKind::ChildrenChanged => &metrics.watchers.children_changed,
        EventKind::Resync => return,
    };
    summary.record(firing.to.len() as u64);
}

/// Who may hear of an event: those who may read the node it tells of. A watch that fires for somebody who may not is
/// spent without a word.
enum Sight<'a> {
    Everybody,
    /// Those to whom this list gives READ.
    Acl(&'a [Acl]),
    /// Those to whom the node of this path gives READ.
    Node(&'a Tree, &'a str),
}

impl<'a> Sight<'a> {
    /// `deleted` are the lists of what the same command deleted.
    fn of(event: &'a Event, change: &'a Change, deleted: &HashMap<&str, &'a [Acl]>, tree: &'a Tree) -> Self {
        let sight = match change {
            Change::Deleted { path, acl } if **path == *event.path => Self::Acl(acl),
            _ => match deleted.get(&*event.path) {
                // What is gone again by the end of the command is hidden as it was when it went.
                Some(acl) if tree.stat(&event.path, &[]) == Err(Refusal::NoNode.into()) => Self::Acl(acl),
                _ => Self::Node(tree, &event.path),
            },
        };
        if sight.includes(&[]) { Self::Everybody } else { sight }
    }

    fn includes(&self, identities: &[Identity]) -> bool {
        match self {
            Self::Everybody => true,
            Self::Acl(acl) => quorate_tree::allows(acl, Permissions::READ, identities),
            Self::Node(tree, path) => {
                !matches!(tree.stat(path, identities), Err(Refused { reason: Refusal::NoAuth, .. }))
            }
        }
    }
}

#[cfg(test)]
mod tests;
