//! What clients asked and what they were told, with the times of both.
//!
//! Knows nothing of what the answers mean: that is the models' work. Every stamp errs to the outside (an invocation
//! is stamped before the request leaves, a return after the reply has arrived), so two operations that are ordered
//! here were ordered in truth. Grows with the number of operations: a history belongs to one test.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the clock that goes on through a suspend and is never set; the same for all processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub u64);

impl Stamp {
    /// Now.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
        Self(seconds * 1_000_000_000 + nanos)
    }
}

/// Who asked. One client asks one thing at a time; one that does not is two clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u32);

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "client {}", self.0)
    }
}

/// One thing asked of one object.
#[derive(Clone, Debug)]
pub struct Operation<C, R> {
    /// Who asked.
    pub client: ClientId,
    /// Of which object: the path of a node, the name of a lock. Histories are checked object by object.
    pub key: Arc<str>,
    /// What was asked.
    pub call: C,
    /// Not later than the request left.
    pub invoked: Stamp,
    /// What became of it.
    pub outcome: Outcome<R>,
}

/// What a client knows of a thing it asked.
#[derive(Clone, Debug)]
pub enum Outcome<R> {
    /// It was answered.
    Returned {
        /// Not earlier than the reply arrived.
        at: Stamp,
        /// The answer.
        reply: R,
    },
    /// No answer came. It may have taken effect, may still do so at any later time, or never.
    Unknown,
}

/// The operations of some clients, in the order of their invocations.
#[derive(Clone, Debug)]
pub struct History<C, R> {
    /// Ordered by `invoked`.
    pub operations: Vec<Operation<C, R>>,
}

impl<C: Clone, R: Clone> History<C, R> {
    /// A history of operations in any order.
    pub fn new(mut operations: Vec<Operation<C, R>>) -> Self {
        operations.sort_by_key(|operation| operation.invoked);
        Self { operations }
    }

    /// The operations on each object.
    pub fn by_key(&self) -> BTreeMap<Arc<str>, Vec<Operation<C, R>>> {
        let mut keys: BTreeMap<Arc<str>, Vec<_>> = BTreeMap::new();
        for operation in &self.operations {
            keys.entry(Arc::clone(&operation.key)).or_default().push(operation.clone());
        }
        keys
    }

    /// How many operations were answered.
    pub fn answered(&self) -> usize {
        self.operations.iter().filter(|operation| !operation.outcome.is_unknown()).count()
    }
}

impl<R> Outcome<R> {
    /// Whether no answer came.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown)
    }
}

/// Operations in the order in which they were taken down; one that never happened leaves its place empty.
type Slots<C, R> = Vec<Option<Operation<C, R>>>;

/// Takes down what concurrent clients ask and are told. Clones write into the same history.
#[derive(Debug)]
pub struct Recorder<C, R> {
    operations: Arc<Mutex<Slots<C, R>>>,
}

/// An operation that has been asked and not answered yet. Dropped, for instance with its task, it stays unknown.
#[derive(Debug)]
#[must_use = "say what became of it"]
pub struct Pending<C, R> {
    recorder: Recorder<C, R>,
    index: usize,
}

impl<C: Clone, R: Clone> Recorder<C, R> {
    /// An empty history.
    pub fn new() -> Self {
        Self { operations: Arc::default() }
    }

    /// A client is about to ask.
    pub fn invoke(&self, client: ClientId, key: &Arc<str>, call: C) -> Pending<C, R> {
        let invoked = Stamp::now();
        let mut operations = self.lock();
        operations.push(Some(Operation { client, key: Arc::clone(key), call, invoked, outcome: Outcome::Unknown }));
        Pending { recorder: self.clone(), index: operations.len() - 1 }
    }

    /// What has been taken down until now. Operations that are still open are unknown in it.
    pub fn history(&self) -> History<C, R> {
        History::new(self.lock().iter().flatten().cloned().collect())
    }
}

impl<C, R> Recorder<C, R> {
    /// How many operations have been answered until now.
    pub fn answered(&self) -> usize {
        self.lock().iter().flatten().filter(|operation| !operation.outcome.is_unknown()).count()
    }

    fn lock(&self) -> MutexGuard<'_, Slots<C, R>> {
        self.operations.lock().expect("nothing panics while it holds the history")
    }
}

impl<C, R> Pending<C, R> {
    /// The answer has arrived.
    pub fn returned(self, reply: R) {
        let mut operations = self.recorder.lock();
        let operation = operations[self.index].as_mut().expect("only this value can take it out");
        operation.outcome = Outcome::Returned { at: Stamp::now(), reply };
    }

    /// No answer will come.
    pub fn unknown(self) {}

    /// It is certain that it had no effect and will have none: it is as if it had not been asked.
    pub fn never_happened(self) {
        self.recorder.lock()[self.index] = None;
    }
}

impl<C, R> Clone for Recorder<C, R> {
    fn clone(&self) -> Self {
        Self { operations: Arc::clone(&self.operations) }
    }
}

impl<C: Clone, R: Clone> Default for Recorder<C, R> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: fmt::Debug, R: fmt::Debug> fmt::Display for Operation<C, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |stamp: Stamp| stamp.0 as f64 / 1e6;
        write!(f, "[{:.3} ms", millis(self.invoked))?;
        match &self.outcome {
            Outcome::Returned { at, reply } => {
                write!(f, " .. {:.3} ms] {} {:?} -> {reply:?}", millis(*at), self.client, self.call)
            }
            Outcome::Unknown => write!(f, " .. ] {} {:?} -> never answered", self.client, self.call),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Arc<str> {
        Arc::from("/k")
    }

    #[test]
    fn a_history_has_what_was_asked_and_answered_in_order_of_invocation() {
        let recorder: Recorder<&str, u32> = Recorder::new();

        let first = recorder.invoke(ClientId(1), &key(), "first");
        let second = recorder.invoke(ClientId(2), &key(), "second");
        second.returned(2);
        first.returned(1);

        let history = recorder.history();
        let calls: Vec<_> = history.operations.iter().map(|operation| operation.call).collect();
        assert_eq!(calls, ["first", "second"]);
        assert_eq!(history.answered(), 2);
        for operation in &history.operations {
            assert!(matches!(operation.outcome, Outcome::Returned { at, .. } if at >= operation.invoked));
        }
    }

    #[test]
    fn an_operation_whose_task_was_dropped_is_unknown() {
        let recorder: Recorder<&str, u32> = Recorder::new();

        drop(recorder.invoke(ClientId(1), &key(), "lost"));

        assert!(recorder.history().operations[0].outcome.is_unknown());
    }

    #[test]
    fn what_never_happened_is_not_in_the_history() {
        let recorder: Recorder<&str, u32> = Recorder::new();

        recorder.invoke(ClientId(1), &key(), "refused").never_happened();
        recorder.invoke(ClientId(1), &key(), "done").returned(1);

        assert_eq!(recorder.history().operations.len(), 1);
    }

    #[test]
    fn clients_record_at_the_same_time() {
        let recorder: Recorder<u32, u32> = Recorder::new();

        std::thread::scope(|scope| {
            for client in 0..8 {
                let recorder = recorder.clone();
                scope.spawn(move || {
                    for call in 0..100 {
                        recorder.invoke(ClientId(client), &key(), call).returned(call);
                    }
                });
            }
        });

        let history = recorder.history();
        assert_eq!(history.answered(), 800);
        assert!(history.operations.is_sorted_by_key(|operation| operation.invoked));
    }
}
