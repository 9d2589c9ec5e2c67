//! Sessions heard from on this member, until the leader has acknowledged them.
//!
//! At most one touch is unanswered; all that are heard meanwhile go into the next. A touch that was under way to a
//! leader that went is merged into the next one.
//!
//! Bounds: one entry a session, one ticket a heartbeat that waits; both bounded by what the doors admit.

use std::{collections::HashMap, future::Future};

use parking_lot::Mutex;
use quorate_proto::peer;
use quorate_tree::SessionId;
use tokio::sync::{Notify, oneshot};

/// Why a touch will not be acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TouchError {
    #[error("the leader had decided to end the session, or does not know it")]
    Lapsed,
    #[error("this member's part in the ensemble has ended")]
    Stopped,
}

type Tickets = HashMap<SessionId, Vec<oneshot::Sender<Result<(), TouchError>>>>;

/// The sessions that were heard from.
#[derive(Debug, Default)]
pub(crate) struct TouchBook {
    touches: Mutex<Touches>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Touches {
    waiting: Tickets,
    unanswered: Option<(u64, Tickets)>,
    last_number: u64,
    closed: bool,
}

impl TouchBook {
    /// A session was heard from. The touch counts even if the future is dropped.
    pub(crate) fn touch(
        &self,
        session: SessionId,
    ) -> impl Future<Output = Result<(), TouchError>> + Send + 'static + use<> {
        let (ticket, answer) = oneshot::channel();
        let mut touches = self.touches.lock();
        if !touches.closed {
            touches.waiting.entry(session).or_default().push(ticket);
        }
        drop(touches);
        self.wake.notify_one();
        async move { answer.await.unwrap_or(Err(TouchError::Stopped)) }
    }

    /// Whether a touch can be sent that tells something.
    pub(crate) fn is_due(&self) -> bool {
        let touches = self.touches.lock();
        touches.unanswered.is_none() && !touches.waiting.is_empty()
    }

    /// The next touch, with all that wait; an empty one still asks for a sign of a living leader. `None` while one is
    /// unanswered.
    pub(crate) fn next(&self) -> Option<peer::Touch> {
        let mut touches = self.touches.lock();
        if touches.unanswered.is_some() {
            return None;
        }
        touches.last_number += 1;
        let number = touches.last_number;
        let tickets = std::mem::take(&mut touches.waiting);
        let sessions = tickets.keys().map(|session| session.0).collect();
        touches.unanswered = Some((number, tickets));
        Some(peer::Touch { number, sessions })
    }

    /// The leader acknowledged a touch, except for sessions that had lapsed.
    pub(crate) fn answered(&self, number: u64, lapsed: &[u64]) {
        let mut touches = self.touches.lock();
        // An answer to a touch of an earlier stream says nothing about what was merged into this one.
        let Some((_, tickets)) = touches.unanswered.take_if(|(unanswered, _)| *unanswered == number) else { return };
        drop(touches);
        for (session, tickets) in tickets {
            let answer = if lapsed.contains(&session.0) { Err(TouchError::Lapsed) } else { Ok(()) };
            for ticket in tickets {
                // Whoever does not wait any more has been touched all the same.
                let _ = ticket.send(answer);
            }
        }
    }

    /// A new stream begins: what was unanswered must be told again.
    pub(crate) fn rewind(&self) {
        let mut touches = self.touches.lock();
        if let Some((_, tickets)) = touches.unanswered.take() {
            for (session, mut tickets) in tickets {
                tickets.retain(|ticket| !ticket.is_closed());
                touches.waiting.entry(session).or_default().append(&mut tickets);
            }
        }
    }

    /// Resolves when a session was heard from since the last time.
    ///
    /// Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Nothing will be acknowledged any more.
    pub(crate) fn close(&self) {
        let mut touches = self.touches.lock();
        touches.closed = true;
        let all = (std::mem::take(&mut touches.waiting), touches.unanswered.take());
        drop(touches);
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn touches_heard_while_one_is_unanswered_share_the_next() {
        let book = TouchBook::default();
        let first = book.touch(SessionId(1));
        let sent = book.next().unwrap();
        let (second, third) = (book.touch(SessionId(2)), book.touch(SessionId(3)));

        assert!(book.next().is_none());
        book.answered(sent.number, &[]);

        assert_eq!(first.now_or_never(), Some(Ok(())));
        let mut next = book.next().unwrap();
        next.sessions.sort_unstable();
        assert_eq!(next.sessions, [2, 3]);
        book.answered(next.number, &[3]);
        assert_eq!(second.now_or_never(), Some(Ok(())));
        assert_eq!(third.now_or_never(), Some(Err(TouchError::Lapsed)));
    }

    #[test]
    fn touch_of_a_broken_stream_is_told_again_and_its_late_answer_ignored() {
        let book = TouchBook::default();
        let touched = book.touch(SessionId(1));
        let lost = book.next().unwrap();

        book.rewind();
        let again = book.next().unwrap();
        book.answered(lost.number, &[]);

        assert_eq!(again.sessions, [1]);
        book.answered(again.number, &[]);
        assert_eq!(touched.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn session_stays_touched_when_nobody_waits_for_the_answer() {
        let book = TouchBook::default();
        drop(book.touch(SessionId(1)));

        assert_eq!(book.next().unwrap().sessions, [1]);
        book.rewind();
        assert_eq!(book.next().unwrap().sessions, [1]);
    }

    #[test]
    fn closed_book_answers_nobody() {
        let book = TouchBook::default();
        let before = book.touch(SessionId(1));

        book.close();

        assert_eq!(before.now_or_never(), Some(Err(TouchError::Stopped)));
        assert_eq!(book.touch(SessionId(1)).now_or_never(), Some(Err(TouchError::Stopped)));
    }
}
