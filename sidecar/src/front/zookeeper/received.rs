//! What clients have sent and nobody has answered yet, over all connections: half frames, and requests under way.
//!
//! One connection has its own bounds. But there may be thousands, each with a frame that never ends.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Of all connections; what is beyond is not read, or its connection closed.
const RECEIVED_BYTES_MAX: usize = 256 * 1024 * 1024;

/// So much of each connection counts as nothing.
const FREE_BYTES: usize = 64 * 1024;

/// Of all connections.
#[derive(Debug, Default)]
pub(super) struct Received(Arc<AtomicUsize>);

/// Of one connection; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    all: Arc<AtomicUsize>,
    own: usize,
}

impl Received {
    pub(super) fn of_connection(&self) -> Held {
        Held { all: Arc::clone(&self.0), own: 0 }
    }
}

impl Held {
    /// The connection holds so many bytes now. Whether it may receive more.
    pub(super) fn set(&mut self, bytes: usize) -> bool {
        let own = bytes.saturating_sub(FREE_BYTES);
        // First what comes, so that the sum never falls below what is there.
        let all = self.all.fetch_add(own, Relaxed) + own - self.own;
        self.all.fetch_sub(self.own, Relaxed);
        self.own = own;
        own == 0 || all <= RECEIVED_BYTES_MAX
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_share_one_bound_and_who_holds_little_is_never_concerned() {
        let received = Received::default();
        let (mut large, mut other, mut small) =
            (received.of_connection(), received.of_connection(), received.of_connection());

        assert!(large.set(FREE_BYTES + RECEIVED_BYTES_MAX));
        assert!(!other.set(FREE_BYTES + 1));
        assert!(!large.set(FREE_BYTES + RECEIVED_BYTES_MAX), "also who was there first");
        assert!(small.set(FREE_BYTES));
        assert!(large.set(FREE_BYTES + RECEIVED_BYTES_MAX - 1));

        drop((large, small));
        assert!(other.set(FREE_BYTES + RECEIVED_BYTES_MAX));
        drop(other);
        assert_eq!(received.0.load(Relaxed), 0);
    }
}
