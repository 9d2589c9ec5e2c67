//! What the client knows of its session, now and from one change to the next.
//!
//! The log of changes is a linked list that grows at its end. Each subscriber holds the entry it has read
//! last, so it misses nothing, and what every subscriber has read is freed. Memory is bounded by what the
//! slowest living subscriber has left unread: about a hundred bytes a change, and changes come no faster than
//! attachments, which are paced.

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{clock::BootInstant, error::LostReason, stat::SessionId};

/// Where a client stands with its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// There is no session, and one is being opened.
    Connecting,
    /// A member serves the session.
    Connected {
        /// The session.
        session: SessionId,
    },
    /// The stream to the member has ended. The session lives on, for a while, and the client looks for a
    /// member to resume it.
    Suspended {
        /// The session.
        session: SessionId,
        /// When the stream ended.
        since: BootInstant,
    },
    /// The session is gone, or must be taken for gone: everything that was held through it may be somebody
    /// else's now. Unless the client is strict about it, a new session follows.
    Lost {
        /// Why.
        reason: LostReason,
    },
    /// The client was closed. Nothing follows.
    Closed,
}

impl SessionState {
    /// Whether a member serves the session.
    pub fn is_connected(self) -> bool {
        matches!(self, Self::Connected { .. })
    }
}

/// One step from state to state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateChange {
    /// Counts the changes of this client, from 1, without gaps.
    pub epoch: u64,
    /// The state before.
    pub from: SessionState,
    /// The state after.
    pub to: SessionState,
    /// What brought it about.
    pub reason: ChangeReason,
}

/// What brought a change of state about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeReason {
    /// A new session was opened.
    Opened,
    /// The session goes on, perhaps on another member.
    Resumed,
    /// The stream broke, or the member fell silent.
    ConnectionLost,
    /// The member asked to be left: it shuts down, or cannot vouch for the session any more.
    MemberLeft,
    /// The session was lost.
    Lost(LostReason),
    /// A new session is wanted in place of the one that was lost.
    Reopening,
    /// The client was closed.
    Closed,
}

#[derive(Debug)]
struct Node {
    change: Option<StateChange>,
    next: OnceLock<Arc<Node>>,
}

impl Drop for Node {
    // A loop in place of the recursion that would come by itself: a subscriber that never read may hold a
    // long chain.
    fn drop(&mut self) {
        let mut next = self.next.take();
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = node.next.take();
        }
    }
}

/// The log of changes and the newest state.
#[derive(Debug)]
pub(crate) struct StateLog {
    tail: Mutex<Arc<Node>>,
    /// Wakes subscribers; carries the newest state for snapshots.
    current: watch::Sender<(u64, SessionState)>,
}

impl StateLog {
    pub(crate) fn new() -> Self {
        Self {
            tail: Mutex::new(Arc::new(Node { change: None, next: OnceLock::new() })),
            current: watch::Sender::new((0, SessionState::Connecting)),
        }
    }

    pub(crate) fn state(&self) -> SessionState {
        self.current.borrow().1
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.current.borrow().0
    }

    /// A receiver that sees the newest state, but not each one.
    pub(crate) fn latest(&self) -> watch::Receiver<(u64, SessionState)> {
        self.current.subscribe()
    }

    pub(crate) fn push(&self, to: SessionState, reason: ChangeReason) -> StateChange {
        let mut tail = self.tail.lock();
        let (epoch, from) = *self.current.borrow();
        let change = StateChange { epoch: epoch + 1, from, to, reason };
        let node = Arc::new(Node { change: Some(change), next: OnceLock::new() });
        tail.next.set(node.clone()).expect("only the tail grows, and under this lock");
        *tail = node;
        self.current.send_replace((change.epoch, to));
        change
    }

    /// The changes from now on.
    pub(crate) fn subscribe(&self) -> StateStream {
        let (cursor, latest) = {
            let tail = self.tail.lock();
            (tail.clone(), self.current.subscribe())
        };
        let changes = stream::unfold((cursor, latest), |(mut cursor, mut latest)| async move {
            loop {
                if let Some(next) = cursor.next.get() {
                    cursor = next.clone();
                    let change = cursor.change.expect("only the first entry is empty, and it is nobody's next");
                    return Some((change, (cursor, latest)));
                }
                // `Closed` is the last state there is.
                if latest.borrow_and_update().1 == SessionState::Closed && cursor.next.get().is_none() {
                    return None;
                }
                if cursor.next.get().is_none() && latest.changed().await.is_err() && cursor.next.get().is_none() {
                    return None;
                }
            }
        });
        StateStream { changes: Box::pin(changes) }
    }
}

/// Every change of state since it was made, in order, none left out.
///
/// Ends after the change to [`SessionState::Closed`].
///
/// # Cancel safety
/// Dropping a future of `next` loses nothing: the change comes with the next one.
pub struct StateStream {
    changes: Pin<Box<dyn Stream<Item = StateChange> + Send + Sync>>,
}

impl std::fmt::Debug for StateStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateStream").finish_non_exhaustive()
    }
}

impl Stream for StateStream {
    type Item = StateChange;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StateChange>> {
        self.changes.as_mut().poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;

    use super::*;

    fn connected(session: u64) -> SessionState {
        SessionState::Connected { session: SessionId(session) }
    }

    #[tokio::test]
    async fn a_late_reader_gets_every_change_in_order() {
        let log = StateLog::new();
        let mut changes = log.subscribe();

        for session in 0..1000 {
            log.push(connected(session), ChangeReason::Opened);
        }
        log.push(SessionState::Closed, ChangeReason::Closed);

        for session in 0..1000 {
            let change = changes.next().await.unwrap();
            assert_eq!((change.epoch, change.to), (session + 1, connected(session)));
        }
        assert_eq!(changes.next().await.unwrap().to, SessionState::Closed);
        assert_eq!(changes.next().await, None);
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let log = Arc::new(StateLog::new());
        let mut changes = log.subscribe();
        let reader = tokio::spawn(async move { changes.next().await });
        tokio::task::yield_now().await;

        log.push(connected(7), ChangeReason::Opened);

        assert_eq!(reader.await.unwrap().unwrap().to, connected(7));
    }

    #[test]
    fn what_nobody_reads_is_freed_without_deep_recursion() {
        let log = StateLog::new();
        let unread = log.subscribe();
        for _ in 0..1_000_000 {
            log.push(connected(1), ChangeReason::Opened);
        }

        drop(unread);

        assert_eq!(log.epoch(), 1_000_000);
    }
}
