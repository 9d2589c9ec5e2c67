//! Requests on a follower's log stream, of which those without entries wait a few turns for company.
//!
//! The crate tells each follower how far the log is committed in a request without entries, as soon as it knows. Under
//! load the next entry is proposed right after that, and its request tells the same: sent together, they cost both
//! members one packet and one wake-up instead of two. So a request without entries lets whatever is ready to run here
//! go first, which also tells the clients of this member before the followers; it never waits for a timer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt, stream::Fuse};
use openraft::raft::AppendEntriesRequest;

use super::types::Types;

/// How often the task of a request without entries goes behind whatever else is ready before the request goes out by
/// itself: enough for the entry to be applied, for the leader's task to hear of it and propose the next, and for the core
/// to take that in. Wake-ups for other reasons count too.
const TURNS: u8 = 6;

/// Holds back what has no entries. All is given, in its order.
pub(crate) struct HeldCommits<S> {
    inner: Fuse<S>,
    held: Option<AppendEntriesRequest<Types>>,
    /// Came while another was held, and follows it.
    next: Option<AppendEntriesRequest<Types>>,
    turns: u8,
}

impl<S: Stream> HeldCommits<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner: inner.fuse(), held: None, next: None, turns: 0 }
    }
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Stream for HeldCommits<S> {
    type Item = AppendEntriesRequest<Types>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(next));
        }
        match this.inner.poll_next_unpin(cx) {
            Poll::Ready(Some(request)) => match this.held.take() {
                Some(held) => {
                    this.next = Some(request);
                    Poll::Ready(Some(held))
                }
                None if request.entries.is_empty() => {
                    this.held = Some(request);
                    this.turns = 1;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                None => Poll::Ready(Some(request)),
            },
            Poll::Ready(None) => Poll::Ready(this.held.take()),
            Poll::Pending if this.held.is_none() => Poll::Pending,
            Poll::Pending if this.turns < TURNS => {
                this.turns += 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Ready(this.held.take()),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use openraft::EntryPayload;
    use tokio::{sync::mpsc, task::yield_now};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::ensemble::{
        codec::log_id_of,
        types::{Entry, Vote},
    };

    fn request(commit: u64, entries: u64) -> AppendEntriesRequest<Types> {
        let entry = |index| Entry { log_id: log_id_of(1, index), payload: EntryPayload::Blank };
        AppendEntriesRequest {
            vote: Vote::new_committed(1, 1),
            prev_log_id: None,
            leader_commit: Some(log_id_of(1, commit)),
            entries: (1..=entries).map(entry).collect(),
        }
    }

    /// How far it says the log is committed, and with how many entries.
    fn said(request: AppendEntriesRequest<Types>) -> (u64, usize) {
        (request.leader_commit.unwrap().index, request.entries.len())
    }

    fn requests()
    -> (mpsc::Sender<AppendEntriesRequest<Types>>, HeldCommits<ReceiverStream<AppendEntriesRequest<Types>>>) {
        let (sender, receiver) = mpsc::channel(10);
        (sender, HeldCommits::new(ReceiverStream::new(receiver)))
    }

    #[tokio::test]
    async fn what_has_no_entries_goes_after_some_turns_without_a_timer() {
        let (sender, mut requests) = requests();
        sender.send(request(7, 0)).await.unwrap();

        assert_eq!(requests.next().await.map(said), Some((7, 0)));
    }

    #[tokio::test]
    async fn what_has_no_entries_goes_along_with_what_is_proposed_meanwhile() {
        let (sender, mut requests) = requests();
        sender.send(request(7, 0)).await.unwrap();
        let proposing = tokio::spawn(async move {
            yield_now().await;
            sender.send(request(7, 2)).await.unwrap();
            sender
        });

        assert_eq!(requests.next().await.map(said), Some((7, 0)));
        assert!(proposing.is_finished(), "it did not wait for what was ready to run");
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert_eq!(requests.poll_next_unpin(&mut cx).map(|next| next.map(said)), Poll::Ready(Some((7, 2))));
        assert!(requests.poll_next_unpin(&mut cx).is_pending());
    }

    #[tokio::test]
    async fn nothing_is_lost_at_the_end() {
        let sent = [request(1, 1), request(1, 0), request(2, 0), request(2, 1), request(3, 0)];
        // As the crate's: it must not be polled after its end.
        let sent = stream::unfold(sent.into_iter(), |mut rest| async { rest.next().map(|request| (request, rest)) });

        let given: Vec<_> = HeldCommits::new(Box::pin(sent)).map(said).collect().await;

        assert_eq!(given, [(1, 1), (1, 0), (2, 0), (2, 1), (3, 0)]);
    }
}
