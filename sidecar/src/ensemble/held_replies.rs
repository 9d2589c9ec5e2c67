//! Replies on a follower's log stream, of which those without news wait a moment for company.
//!
//! The leader tells how far the log is committed in a request without entries. The reply to it only repeats what the
//! follower has already said. Sent by itself it would cost both members a wake-up and a packet for every write, so it
//! waits for the next reply that says something, for a moment at most: it is also a sign of life.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, StreamExt};
use openraft::raft::StreamAppendResult;
use tokio::time::{Sleep, sleep};

use super::types::{LogId, Types};

/// How long a reply without news waits. Far below the lease, which it may renew.
pub(crate) const HOLD: Duration = Duration::from_millis(5);

/// At most so many replies wait.
pub(crate) const HELD_MAX: usize = 16;

/// Holds back the replies of `inner` that repeat the one before. All are given, in their order.
pub(crate) struct HeldReplies<S> {
    inner: S,
    /// The last reply that was taken from `inner`.
    last: Option<Option<LogId>>,
    held: VecDeque<StreamAppendResult<Types>>,
    /// Runs while replies are held.
    hold: Option<Pin<Box<Sleep>>>,
    /// What is held goes out now.
    releasing: bool,
}

impl<S> HeldReplies<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, last: None, held: VecDeque::new(), hold: None, releasing: false }
    }

    fn says_nothing_new(&mut self, reply: &StreamAppendResult<Types>) -> bool {
        let Ok(matched) = reply else { return false };
        self.last.replace(*matched) == Some(*matched)
    }
}

impl<S, E> Stream for HeldReplies<S>
where
    S: Stream<Item = Result<StreamAppendResult<Types>, E>> + Unpin,
{
    type Item = Result<StreamAppendResult<Types>, E>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if this.releasing {
                if let Some(reply) = this.held.pop_front() {
                    return Poll::Ready(Some(Ok(reply)));
                }
                this.releasing = false;
                this.hold = None;
            }
            match this.inner.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(reply))) => {
                    this.releasing = !this.says_nothing_new(&reply) || this.held.len() + 1 >= HELD_MAX;
                    this.held.push_back(reply);
                }
                // What is held told nothing new, and a stream that ends is not answered any more.
                Poll::Ready(end) => return Poll::Ready(end),
                Poll::Pending if this.held.is_empty() => return Poll::Pending,
                Poll::Pending => {
                    let hold = this.hold.get_or_insert_with(|| Box::pin(sleep(HOLD)));
                    ready!(hold.as_mut().poll(context));
                    this.releasing = true;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::{sync::mpsc, time::Instant};
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;
    use crate::ensemble::codec::log_id_of;

    type Reply = Result<StreamAppendResult<Types>, ()>;

    fn matched(index: u64) -> Reply {
        Ok(Ok(Some(log_id_of(1, index))))
    }

    fn replies() -> (mpsc::Sender<Reply>, HeldReplies<ReceiverStream<Reply>>) {
        let (sender, receiver) = mpsc::channel(100);
        (sender, HeldReplies::new(ReceiverStream::new(receiver)))
    }

    #[tokio::test(start_paused = true)]
    async fn news_is_given_at_once_and_takes_along_what_was_held() {
        let (sender, mut replies) = replies();
        for index in [7, 7, 7, 8] {
            sender.send(matched(index)).await.unwrap();
        }

        for index in [7, 7, 7, 8] {
            assert_eq!(replies.next().now_or_never(), Some(Some(matched(index))));
        }
        assert_eq!(replies.next().now_or_never(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_nothing_new_waits_for_a_moment_and_no_longer() {
        let (sender, mut replies) = replies();
        sender.send(matched(7)).await.unwrap();
        sender.send(matched(7)).await.unwrap();
        assert_eq!(replies.next().await, Some(matched(7)));
        assert_eq!(replies.next().now_or_never(), None);

        let asked = Instant::now();
        assert_eq!(replies.next().await, Some(matched(7)));

        assert!(asked.elapsed() >= HOLD && asked.elapsed() < HOLD * 2, "{:?}", asked.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_held_than_the_bound() {
        let (sender, mut replies) = replies();
        for _ in 0..=HELD_MAX {
            sender.send(matched(7)).await.unwrap();
        }

        for _ in 0..=HELD_MAX {
            assert_eq!(replies.next().now_or_never(), Some(Some(matched(7))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_and_the_end_do_not_wait() {
        let (sender, mut replies) = replies();
        sender.send(matched(7)).await.unwrap();
        sender.send(Err(())).await.unwrap();
        drop(sender);

        assert_eq!(replies.next().now_or_never(), Some(Some(matched(7))));
        assert_eq!(replies.next().now_or_never(), Some(Some(Err(()))));
        assert_eq!(replies.next().now_or_never(), Some(None));
    }
}
