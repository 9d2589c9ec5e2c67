//! One session as its holders see it: who it is, and until when it can be trusted.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{BootInstant, Clock},
    error::LostReason,
    stat::SessionId,
};

/// A view of one session, which stays about that session when the client has moved on to the next.
///
/// Whoever holds something through a session keeps a view of it, and asks [`SessionView::is_live`] where it
/// matters: it needs no I/O, and it is right even if the machine was asleep.
#[derive(Debug, Clone)]
pub struct SessionView {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: SessionId,
    epoch: u64,
    timeout: Duration,
    clock: Clock,
    lease_until_ns: AtomicU64,
    lost: watch::Sender<Option<LostReason>>,
    ended: CancellationToken,
}

impl SessionView {
    pub(crate) fn new(id: SessionId, epoch: u64, timeout: Duration, clock: Clock, proven_at: BootInstant) -> Self {
        let view = Self {
            inner: Arc::new(Inner {
                id,
                epoch,
                timeout,
                clock,
                lease_until_ns: AtomicU64::new(0),
                lost: watch::Sender::new(None),
                ended: CancellationToken::new(),
            }),
        };
        view.extend(proven_at);
        view
    }

    /// Its name.
    pub fn id(&self) -> SessionId {
        self.inner.id
    }

    /// The epoch of the change by which this session was opened.
    pub fn epoch(&self) -> u64 {
        self.inner.epoch
    }

    /// After this long without a sign of life the ensemble ends it.
    pub fn negotiated_timeout(&self) -> Duration {
        self.inner.timeout
    }

    /// Until when the ensemble is known to keep it: counted from the sending of the last heartbeat that was
    /// answered, less a margin of a tenth of the timeout, at least 500 ms, at most a third.
    pub fn lease_until(&self) -> BootInstant {
        BootInstant::from_nanos(self.inner.lease_until_ns.load(Ordering::Acquire))
    }

    /// Whether it has not been lost and its lease has not run out, as of now.
    pub fn is_live(&self) -> bool {
        self.lost_reason().is_none() && self.inner.clock.now() < self.lease_until()
    }

    /// What is left of the lease.
    pub fn lease_remaining(&self) -> Duration {
        self.lease_until().saturating_duration_since(self.inner.clock.now())
    }

    /// Why it was lost, if it was.
    pub fn lost_reason(&self) -> Option<LostReason> {
        *self.inner.lost.borrow()
    }

    /// Waits until it is lost.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub fn lost(&self) -> impl Future<Output = LostReason> + Send + use<> {
        let inner = self.inner.clone();
        async move {
            let mut lost = inner.lost.subscribe();
            let reason = lost.wait_for(Option::is_some).await.expect("`inner` keeps the sender");
            reason.expect("this was waited for")
        }
    }

    /// Cancelled when it is lost.
    pub fn ended(&self) -> CancellationToken {
        self.inner.ended.child_token()
    }

    /// The ensemble has given a promise that was asked for at this moment. False if it came too late: holders
    /// may have seen the lease run out, and it is not to come back.
    pub(crate) fn prove(&self, asked_at: BootInstant) -> bool {
        if !self.is_live() {
            return false;
        }
        self.extend(asked_at);
        true
    }

    fn extend(&self, asked_at: BootInstant) {
        let until = asked_at + (self.inner.timeout - lease_margin(self.inner.timeout));
        self.inner.lease_until_ns.fetch_max(until.as_nanos(), Ordering::AcqRel);
    }

    pub(crate) fn lose(&self, reason: LostReason) {
        self.inner.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert(reason);
            first
        });
        self.inner.ended.cancel();
    }
}

/// By how much earlier than the ensemble a holder lets go.
fn lease_margin(timeout: Duration) -> Duration {
    (timeout / 10).max(Duration::from_millis(500)).min(timeout / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(timeout_ms: u64) -> (SessionView, crate::clock::ClockSkew, BootInstant) {
        let (clock, skew) = Clock::skewed();
        let now = clock.now();
        (SessionView::new(SessionId(1), 1, Duration::from_millis(timeout_ms), clock, now), skew, now)
    }

    #[test]
    fn a_lease_counts_from_the_asking_and_ends_before_the_session() {
        let (view, _, asked_at) = view(10_000);

        assert_eq!(view.lease_until().saturating_duration_since(asked_at), Duration::from_millis(9_000));
    }

    #[test]
    fn a_margin_is_never_most_of_a_short_timeout() {
        assert_eq!(lease_margin(Duration::from_millis(600)), Duration::from_millis(200));
        assert_eq!(lease_margin(Duration::from_millis(4_000)), Duration::from_millis(500));
        assert_eq!(lease_margin(Duration::from_millis(40_000)), Duration::from_millis(4_000));
    }

    #[test]
    fn a_lease_ends_while_the_machine_sleeps() {
        let (view, skew, _) = view(10_000);
        assert!(view.is_live());

        skew.sleep(Duration::from_secs(10));

        assert!(!view.is_live());
        assert_eq!(view.lease_remaining(), Duration::ZERO);
    }

    #[test]
    fn an_older_proof_does_not_shorten_a_lease() {
        let (view, skew, first) = view(10_000);
        skew.sleep(Duration::from_secs(5));
        assert!(view.prove(first + Duration::from_secs(5)));

        assert!(view.prove(first));

        assert_eq!(view.lease_until().saturating_duration_since(first), Duration::from_secs(14));
    }

    #[test]
    fn a_lease_that_has_run_out_does_not_come_back() {
        let (view, skew, first) = view(10_000);
        skew.sleep(Duration::from_secs(10));

        assert!(!view.prove(first + Duration::from_secs(9)));
        assert!(!view.is_live());
    }

    #[tokio::test]
    async fn the_first_reason_for_a_loss_stays() {
        let (view, _, _) = view(10_000);
        let ended = view.ended();

        view.lose(LostReason::LocalDeadline);
        view.lose(LostReason::SessionExpired);

        assert_eq!(view.lost().await, LostReason::LocalDeadline);
        assert!(ended.is_cancelled());
        assert!(!view.is_live());
    }
}
