//! What one attached session has in flight: slots in request order, and items that are ready to be sent.
//!
//! Shared by the session's connection, which puts requests in and takes items out, and by the applier, which
//! completes writes and pushes events. Items are pushed in zxid order under the replica's lock, so their order is
//! what the stream promises: before a reply exactly the events up to its zxid.
//!
//! Bounds: slots by the connection (`session_inflight_max`), items by [`QueueLimits`]. A queue that would pass
//! them is closed with [`QueueEnd::TooSlow`]; the session lives on. Reads that take long are run a few at a time, so
//! that others get the lock between them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use quorate_tree::{Identity, SessionEnd, SessionId, Tree, Zxid};

use super::{
    Settled,
    read::{Answer, Declined, Event, Read, ReadContext, Rearm},
    watches::{ConnId, WatchTable},
};

/// A request's place in its queue, counted from 0 over the queue's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SlotId(pub(crate) u64);

/// The queue of one attached session.
#[derive(Debug)]
pub(crate) struct SessionQueue {
    pub(crate) session: SessionId,
    pub(crate) conn: ConnId,
    common: Arc<Common>,
    state: Mutex<State>,
    /// Whether the connection is to look, and what wakes it.
    rung: AtomicBool,
    waker: AtomicWaker,
}

/// What all queues of a member share.
#[derive(Debug)]
pub(super) struct Common {
    limits: QueueLimits,
    /// What they hold that is not yet sent, in bytes.
    waiting_bytes: AtomicUsize,
}

/// How much may wait to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Events not yet taken by the connection; a tenth of it while the member has much waiting.
    pub(crate) outbox_events_max: usize,
    /// Bytes of answers and events not yet taken. Reads wait in their slots beyond half of it.
    pub(crate) outbox_bytes_max: usize,
    /// Bytes of one answer.
    pub(crate) reply_bytes_max: usize,
    /// What reads look at, in nodes, names and paths, under one hold of the replica's lock; further ones are held back.
    pub(crate) run_work_max: usize,
    /// Bytes of answers and events of all sessions that are not yet sent. From half of it on, no session gets a further
    /// answer before it has sent the last; beyond it, larger answers are declined.
    pub(crate) waiting_bytes_max: usize,
}

/// An answer that is always given.
const SMALL_ANSWER_BYTES: usize = 64 * 1024;

impl Common {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self { limits, waiting_bytes: AtomicUsize::new(0) }
    }
}

impl QueueLimits {
    /// What the applier has to do for one session's reads before it can apply that session's next write.
    fn before_write_work_max(&self) -> usize {
        self.run_work_max * 256
    }
}

/// Something to send.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Item {
    Reply { tag: u64, zxid: Zxid, answer: Answer },
    Event(Event),
}

/// Why nothing more will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueEnd {
    /// The session has ended.
    Session(SessionEnd),
    /// The session was attached again.
    Moved,
    /// Too much was waiting to be sent, or to be read before a write.
    TooSlow,
    /// The copy was replaced by a snapshot: what the watches missed is found out by attaching again.
    Replaced,
}

/// A request as the queue takes it. `tag` comes back with the answer.
#[derive(Debug)]
pub(crate) struct Submit {
    pub(crate) tag: u64,
    pub(crate) kind: SubmitKind,
}

#[derive(Debug)]
pub(crate) enum SubmitKind {
    /// Completed by the applier.
    Write,
    /// Run when nothing older is pending. With `barrier`, not before the barrier is released.
    Read { read: Read, identities: Arc<[Identity]>, barrier: bool },
    /// Answered already; keeps its place.
    Ready(Answer),
}

#[derive(Debug)]
struct State {
    /// What the connection has authenticated as, for events.
    identities: Arc<[Identity]>,
    /// Not yet answered, in request order.
    slots: VecDeque<Submit>,
    /// The id of the first slot.
    first: u64,
    out: Vec<Item>,
    out_events: usize,
    /// When the oldest of those events was pushed.
    oldest_event: Option<Instant>,
    out_bytes: usize,
    /// What the connection has taken, and sends until it looks again.
    taken_bytes: usize,
    end: Option<QueueEnd>,
    /// Whether the connection has been told that there is something to take.
    woken: bool,
}

/// What a connection finds when it looks.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) items: Vec<Item>,
    /// Set when these are the last.
    pub(crate) end: Option<QueueEnd>,
    /// Reads were held back because too much was waiting; they can go on now.
    pub(crate) held_back: bool,
    /// How long the oldest event among them has waited.
    pub(crate) event_waited: Option<Duration>,
}

impl Taken {
    /// Whether every answer is [in order](Answer::in_order).
    pub(crate) fn is_in_order(&self) -> bool {
        self.items.iter().all(|item| match item {
            Item::Reply { answer, .. } => answer.is_in_order(),
            Item::Event(_) => true,
        })
    }

    /// Brings every answer in order.
    pub(crate) fn in_order(mut self) -> Self {
        let in_order = |item| match item {
            Item::Reply { tag, zxid, answer } => Item::Reply { tag, zxid, answer: answer.in_order() },
            event @ Item::Event(_) => event,
        };
        self.items = self.items.into_iter().map(in_order).collect();
        self
    }
}

/// The state of the world under which slots are run.
pub(crate) struct Run<'a> {
    pub(crate) tree: &'a Tree,
    pub(crate) watches: Option<&'a mut WatchTable>,
}

impl SessionQueue {
    pub(super) fn new(session: SessionId, conn: ConnId, common: Arc<Common>) -> Self {
        let state = State {
            identities: Arc::from([]),
            slots: VecDeque::new(),
            first: 0,
            out: Vec::new(),
            out_events: 0,
            oldest_event: None,
            out_bytes: 0,
            taken_bytes: 0,
            end: None,
            woken: false,
        };
        let (rung, waker) = (AtomicBool::new(false), AtomicWaker::new());
        Self { session, conn, common, state: Mutex::new(state), rung, waker }
    }

    /// What the connection has authenticated as.
    pub(super) fn identities(&self) -> Arc<[Identity]> {
        self.state.lock().identities.clone()
    }

    /// From now on, events are told to these.
    pub(crate) fn set_identities(&self, identities: Arc<[Identity]>) {
        self.state.lock().identities = identities;
    }

    /// Takes everything that is ready. What was taken before has been sent.
    pub(crate) fn take(&self) -> Taken {
        let mut state = self.state.lock();
        state.woken = false;
        state.out_events = 0;
        self.common.waiting_bytes.fetch_sub(state.taken_bytes, Relaxed);
        state.taken_bytes = std::mem::take(&mut state.out_bytes);
        let held_back = state.slots.front().is_some_and(Submit::is_runnable);
        if state.slots.is_empty() && state.out.is_empty() {
            // A session that is silent takes no memory for what it may ask.
            state.slots = VecDeque::new();
        }
        let event_waited = state.oldest_event.take().map(|pushed| pushed.elapsed());
        Taken { items: std::mem::take(&mut state.out), end: state.end, held_back, event_waited }
    }

    /// Waits until there is something to take. Only the connection does, one at a time.
    ///
    /// Cancel safe: a wake-up that is not consumed stays.
    pub(crate) fn ready(&self) -> impl Future<Output = ()> + '_ {
        poll_fn(|context| {
            // Registered first: whoever rings after that is heard.
            self.waker.register(context.waker());
            if self.rung.swap(false, Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
    }

    /// Wakes the connection.
    pub(crate) fn wake(&self) {
        self.rung.store(true, Release);
        self.waker.wake();
    }

    /// Slots not yet answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.state.lock().slots.len()
    }

    /// Events not yet taken.
    pub(super) fn events_queued(&self) -> usize {
        self.state.lock().out_events
    }

    /// Puts requests at the tail, in order, and runs what nothing older holds up. Returns the first slot's id, and
    /// whether the connection must be woken.
    pub(super) fn submit(&self, requests: Vec<Submit>, run: &mut Run<'_>) -> (SlotId, bool) {
        let mut state = self.state.lock();
        let at = SlotId(state.first + state.slots.len() as u64);
        if state.end.is_some() {
            return (at, false);
        }
        for request in requests {
            state.slots.push_back(request);
        }
        self.run_head(&mut state, run);
        (at, state.must_wake())
    }

    /// Releases the barrier of every read up to `last`, and runs what can be run.
    pub(super) fn release(&self, last: SlotId, run: &mut Run<'_>) -> bool {
        let mut state = self.state.lock();
        let first = state.first;
        for (offset, slot) in state.slots.iter_mut().enumerate() {
            if first + offset as u64 > last.0 {
                break;
            }
            if let SubmitKind::Read { barrier, .. } = &mut slot.kind {
                *barrier = false;
            }
        }
        self.run_head(&mut state, run);
        state.must_wake()
    }

    /// Runs what was held back because too much was waiting.
    pub(super) fn resume(&self, run: &mut Run<'_>) -> bool {
        let mut state = self.state.lock();
        self.run_head(&mut state, run);
        state.must_wake()
    }

    /// Called right before the write of `slot` is applied: runs the reads in front of it, barriers included, for the
    /// commit of this write proves what they were waiting for.
    ///
    /// Nobody is served meanwhile. A client that lets reads pile up which take so long together is closed instead.
    pub(super) fn before_write(&self, slot: SlotId, run: &mut Run<'_>) {
        let mut state = self.state.lock();
        let mut work = 0;
        while state.first < slot.0 && state.end.is_none() {
            if work > self.common.limits.before_write_work_max() {
                state.close(QueueEnd::TooSlow);
                return;
            }
            let Some(head) = state.slots.pop_front() else { return };
            state.first += 1;
            assert!(!matches!(head.kind, SubmitKind::Write), "writes of a session are applied in order");
            work += self.answer(&mut state, head, run);
        }
    }

    /// Called right after the write of `slot` was applied: answers it, and runs the reads behind it.
    pub(super) fn complete(&self, slot: SlotId, settled: Settled, run: &mut Run<'_>) -> bool {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return false;
        }
        assert_eq!(state.first, slot.0, "writes of a session are completed in order");
        let Some(head) = state.slots.pop_front() else { return false };
        state.first += 1;
        let answer = settled.outcome.map_or_else(Answer::Refused, Answer::Wrote);
        self.push_reply(&mut state, head.tag, settled.zxid, answer);
        self.run_head(&mut state, run);
        state.must_wake()
    }

    /// An event of the change that is being applied, or of catching up. Closes the queue when it is full.
    pub(super) fn push_event(&self, event: Event) -> bool {
        let mut state = self.state.lock();
        self.add_event(&mut state, event);
        state.must_wake()
    }

    /// Nothing more will come. The first reason stays.
    pub(super) fn close(&self, end: QueueEnd) -> bool {
        let mut state = self.state.lock();
        state.close(end);
        state.must_wake()
    }

    fn run_head(&self, state: &mut State, run: &mut Run<'_>) {
        let mut work = 0;
        while self.may_answer(state)
            && work <= self.common.limits.run_work_max
            && state.end.is_none()
            && state.slots.front().is_some_and(Submit::is_runnable)
        {
            if let Some((part, identities)) = state.split_front(self.common.limits.run_work_max) {
                let (answer, part_work) = self.read(state, &Read::Rearm(Box::new(part)), &identities, run);
                work += part_work;
                if answer != Answer::Done {
                    state.slots.front_mut().expect("the front was looked at").kind = SubmitKind::Ready(answer);
                }
                continue;
            }
            let head = state.slots.pop_front().expect("the front was looked at");
            state.first += 1;
            work += self.answer(state, head, run);
        }
    }

    /// Whether there is room for one more answer.
    fn may_answer(&self, state: &State) -> bool {
        let crowded = self.is_crowded();
        let room = if crowded { 0 } else { self.common.limits.outbox_bytes_max / 2 };
        state.out_bytes <= room && (!crowded || state.taken_bytes == 0)
    }

    fn is_crowded(&self) -> bool {
        self.common.waiting_bytes.load(Relaxed) > self.common.limits.waiting_bytes_max / 2
    }

    /// Answers what is not a write, and says what it took.
    fn answer(&self, state: &mut State, slot: Submit, run: &mut Run<'_>) -> usize {
        let (answer, work) = match slot.kind {
            SubmitKind::Ready(answer) => (answer, 0),
            SubmitKind::Read { read, identities, .. } => self.read(state, &read, &identities, run),
            SubmitKind::Write => unreachable!("a write is answered by its completion"),
        };
        self.push_reply(state, slot.tag, run.tree.zxid(), answer);
        work
    }

    /// Runs a read and pushes the events that go before its answer.
    fn read(&self, state: &mut State, read: &Read, identities: &[Identity], run: &mut Run<'_>) -> (Answer, usize) {
        let mut fired = Vec::new();
        let mut context = ReadContext {
            tree: run.tree,
            watches: run.watches.as_deref_mut(),
            conn: self.conn,
            reply_bytes_max: self.common.limits.reply_bytes_max,
            work: 0,
        };
        let answer = read.run(&mut context, identities, &mut fired);
        let work = context.work;
        for event in fired {
            self.add_event(state, event);
        }
        (answer, work)
    }

    fn push_reply(&self, state: &mut State, tag: u64, zxid: Zxid, answer: Answer) {
        let mut answer = answer;
        let bytes = answer.held_bytes();
        if bytes > SMALL_ANSWER_BYTES && self.common.waiting_bytes.load(Relaxed) > self.common.limits.waiting_bytes_max
        {
            // What was written was written, and is said; a read can be asked again.
            answer = if matches!(answer, Answer::Wrote(_)) { answer } else { Answer::Declined(Declined::Busy) };
        }
        self.push(state, Item::Reply { tag, zxid, answer });
    }

    /// The last thing that is let in may be larger than what was left.
    fn push(&self, state: &mut State, item: Item) {
        if state.end.is_some() {
            return;
        }
        let events_max = self.common.limits.outbox_events_max / if self.is_crowded() { 10 } else { 1 };
        if state.out_bytes > self.common.limits.outbox_bytes_max || state.out_events > events_max {
            state.close(QueueEnd::TooSlow);
            return;
        }
        let bytes = item.bytes();
        self.common.waiting_bytes.fetch_add(bytes, Relaxed);
        state.out_bytes += bytes;
        state.out.push(item);
    }

    fn add_event(&self, state: &mut State, event: Event) {
        // What is caught up with was asked for, like an answer, and no more comes of it.
        state.out_events += usize::from(!event.caught_up);
        state.oldest_event.get_or_insert_with(Instant::now);
        self.push(state, Item::Event(event));
    }
}

impl Drop for SessionQueue {
    fn drop(&mut self) {
        let state = self.state.get_mut();
        self.common.waiting_bytes.fetch_sub(state.out_bytes + state.taken_bytes, Relaxed);
    }
}

impl Item {
    /// About how many bytes it takes while it waits.
    fn bytes(&self) -> usize {
        match self {
            Self::Reply { answer, .. } => answer.held_bytes(),
            Self::Event(event) => event.bytes(),
        }
    }
}

impl Submit {
    fn is_runnable(&self) -> bool {
        match &self.kind {
            SubmitKind::Write => false,
            SubmitKind::Read { barrier, .. } => !barrier,
            SubmitKind::Ready(_) => true,
        }
    }
}

impl State {
    /// Takes a part off a first request that would take too long at once: watches that are set again.
    fn split_front(&mut self, paths_max: usize) -> Option<(Rearm, Arc<[Identity]>)> {
        match &mut self.slots.front_mut()?.kind {
            SubmitKind::Read { read: Read::Rearm(rearm), identities, .. } => {
                Some((rearm.split_first(paths_max)?, identities.clone()))
            }
            _ => None,
        }
    }

    fn close(&mut self, end: QueueEnd) {
        if self.end.is_none() {
            self.end = Some(end);
            self.slots.clear();
        }
    }

    /// Whether there is something the connection has not been told of: items, or reads that it must have run.
    fn must_wake(&mut self) -> bool {
        let held_back = self.slots.front().is_some_and(Submit::is_runnable);
        let wake = !self.woken && (!self.out.is_empty() || self.end.is_some() || held_back);
        self.woken |= wake;
        wake
    }
}
