//! Reads on this member that wait for the leader to confirm what is committed.
//!
//! At most one barrier is unanswered; all that ask meanwhile share the next, because a confirmation is good only for
//! those who asked before it began.
//!
//! Bounds: one ticket a read that waits; the doors bound those.

use std::future::Future;

use parking_lot::Mutex;
use quorate_proto::peer;
use tokio::sync::{Notify, oneshot};

use super::Stopped;

/// The reads that wait.
#[derive(Debug, Default)]
pub(crate) struct BarrierBook {
    barriers: Mutex<Barriers>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Barriers {
    waiting: Vec<oneshot::Sender<u64>>,
    unanswered: Option<(u64, Vec<oneshot::Sender<u64>>)>,
    last_number: u64,
    closed: bool,
}

impl BarrierBook {
    /// The log index that a read from now on must see.
    pub(crate) fn wait(&self) -> impl Future<Output = Result<u64, Stopped>> + Send + 'static + use<> {
        let (ticket, answer) = oneshot::channel();
        let mut barriers = self.barriers.lock();
        if !barriers.closed {
            barriers.waiting.push(ticket);
        }
        drop(barriers);
        self.wake.notify_one();
        async move { answer.await.map_err(|_closed| Stopped) }
    }

    /// Whether a barrier can be sent for somebody.
    pub(crate) fn is_due(&self) -> bool {
        let barriers = self.barriers.lock();
        barriers.unanswered.is_none() && !barriers.waiting.is_empty()
    }

    /// The next barrier, for all that wait. `None` while one is unanswered or nobody waits.
    pub(crate) fn next(&self) -> Option<peer::Barrier> {
        let mut barriers = self.barriers.lock();
        barriers.waiting.retain(|ticket| !ticket.is_closed());
        if barriers.unanswered.is_some() || barriers.waiting.is_empty() {
            return None;
        }
        barriers.last_number += 1;
        let number = barriers.last_number;
        let tickets = std::mem::take(&mut barriers.waiting);
        barriers.unanswered = Some((number, tickets));
        Some(peer::Barrier { number })
    }

    /// The leader confirmed.
    pub(crate) fn answered(&self, number: u64, log_index: u64) {
        let mut barriers = self.barriers.lock();
        let Some((_, tickets)) = barriers.unanswered.take_if(|(unanswered, _)| *unanswered == number) else { return };
        drop(barriers);
        for ticket in tickets {
            // The reader may have given up.
            let _ = ticket.send(log_index);
        }
    }

    /// A new stream begins: what was unanswered must be asked again.
    pub(crate) fn rewind(&self) {
        let mut barriers = self.barriers.lock();
        if let Some((_, tickets)) = barriers.unanswered.take() {
            barriers.waiting.extend(tickets);
        }
    }

    /// Resolves when somebody began to wait since the last time.
    ///
    /// Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Nobody will be answered any more.
    pub(crate) fn close(&self) {
        let mut barriers = self.barriers.lock();
        barriers.closed = true;
        let all = (std::mem::take(&mut barriers.waiting), barriers.unanswered.take());
        drop(barriers);
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn reads_that_come_after_a_barrier_was_sent_wait_for_the_next() {
        let book = BarrierBook::default();
        let first = book.wait();
        let sent = book.next().unwrap();
        let second = book.wait();

        book.answered(sent.number, 10);
        let next = book.next().unwrap();
        book.answered(next.number, 12);

        assert_eq!(first.now_or_never(), Some(Ok(10)));
        assert_eq!(second.now_or_never(), Some(Ok(12)));
    }

    #[test]
    fn barrier_of_a_broken_stream_is_asked_again() {
        let book = BarrierBook::default();
        let read = book.wait();
        let lost = book.next().unwrap();

        book.rewind();
        let again = book.next().unwrap();
        book.answered(lost.number, 3);
        book.answered(again.number, 7);

        assert_eq!(read.now_or_never(), Some(Ok(7)));
    }

    #[test]
    fn reads_that_gave_up_ask_for_nothing() {
        let book = BarrierBook::default();

        drop(book.wait());

        assert!(book.next().is_none());
    }
}
