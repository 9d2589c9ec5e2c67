//! Futures that become ready in the order in which they were put in.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Poll, ready},
};

/// Futures of which none is ready before those that were put in earlier: only the first is asked. Takes no memory while
/// there are none.
pub(super) struct InOrder<T>(VecDeque<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T> Default for InOrder<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> InOrder<T> {
    pub(super) fn push(&mut self, future: impl Future<Output = T> + Send + 'static) {
        self.0.push_back(Box::pin(future));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the first becomes; never while there is none.
    ///
    /// Cancel safe.
    pub(super) fn next(&mut self) -> impl Future<Output = T> + '_ {
        poll_fn(|context| {
            let Some(first) = self.0.front_mut() else { return Poll::Pending };
            let output = ready!(first.as_mut().poll(context));
            self.0.pop_front();
            if self.0.is_empty() {
                self.0 = VecDeque::new();
            }
            Poll::Ready(output)
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn outputs_come_in_the_order_in_which_futures_were_put_in() {
        let mut futures = InOrder::default();
        assert_eq!(futures.next().now_or_never(), None);
        let (first, heard) = oneshot::channel();
        futures.push(async { heard.await.unwrap_or(0) });
        futures.push(std::future::ready(2));

        assert_eq!(futures.next().now_or_never(), None);
        first.send(1).unwrap();

        assert_eq!(futures.len(), 2);
        assert_eq!(futures.next().now_or_never(), Some(1));
        assert_eq!(futures.next().now_or_never(), Some(2));
        assert!(futures.is_empty() && futures.0.capacity() == 0);
    }
}
