//! Asking for a lock.

use std::{fmt, future::IntoFuture, pin::Pin, time::Duration};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};

use crate::{
    Error, HolderInfo, LockGuard, Result,
    line::{Held, Line, Patience, WaitEvent, acquire},
};

/// A lock that is asked for, with how to wait for it; from [`Mutex::lock`](crate::Mutex::lock).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
/// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
/// use std::time::Duration;
///
/// use quorate_recipes::{Error, HolderInfo, Mutex};
///
/// let mutex = Mutex::new(&client, "/locks/report")?;
/// let guard = mutex.lock().data(HolderInfo::current().task("nightly report")).await?;
///
/// let late = mutex.lock().timeout(Duration::from_millis(50)).on_position(|n| println!("{n} ahead")).await;
/// assert!(matches!(late, Err(Error::Timeout { .. })));
///
/// let holder = mutex.holder().await?.expect("it is held");
/// assert_eq!(holder.token, guard.token());
/// assert_eq!(holder.info().unwrap().task.as_deref(), Some("nightly report"));
/// # drop(guard);
/// # client.close(Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
/// Dropped at any point, it leaves the line: what it had created is deleted in the background. The order in the
/// line is that in which the ensemble created the nodes, not that of polling.
#[must_use = "nothing is asked for before it is awaited"]
pub struct Lock {
    line: Line,
    data: Option<Bytes>,
    timeout: Option<Duration>,
    cancel: Option<CancellationToken>,
    revocable: bool,
    listeners: Vec<Box<dyn FnMut(WaitEvent) + Send>>,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("line", &self.line).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Lock {
    pub(super) fn new(line: Line) -> Self {
        Self { line, data: None, timeout: None, cancel: None, revocable: false, listeners: Vec::new() }
    }

    /// At most for this long, everything included, also the wait for a member. Zero means: take it now or not at
    /// all. The error is [`Error::Timeout`]. Default: no bound.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Until this is cancelled. The error is [`Error::Cancelled`].
    pub fn cancel_on(mut self, token: &CancellationToken) -> Self {
        self.cancel = Some(token.clone());
        self
    }

    /// What the node says about the holder. Default: [`HolderInfo::current`].
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Declares that the holder listens to [`Hold::revocation_requested`](crate::Hold::revocation_requested), as
    /// Curator does: with a node without data, so that who holds it cannot be read from it.
    pub fn revocable(mut self, revocable: bool) -> Self {
        self.revocable = revocable;
        self
    }

    /// Is told how many are ahead ([`WaitEvent::Queued`]).
    pub fn on_position(self, mut tell: impl FnMut(usize) + Send + 'static) -> Self {
        self.on_event(move |event| {
            if let WaitEvent::Queued { position } = event {
                tell(position);
            }
        })
    }

    /// Is told what happens while it waits. It must not block.
    pub fn on_event(mut self, tell: impl FnMut(WaitEvent) + Send + 'static) -> Self {
        self.listeners.push(Box::new(tell));
        self
    }

    pub(super) async fn try_once(self) -> Result<Option<LockGuard>> {
        Ok(acquire(&self.line, self.node_data(), Patience::Once, &mut |_| {}).await?.map(LockGuard::new))
    }

    fn node_data(&self) -> Bytes {
        match &self.data {
            _ if self.revocable => Bytes::new(),
            Some(data) => data.clone(),
            None => HolderInfo::current().into(),
        }
    }

    async fn run(self) -> Result<LockGuard> {
        let data = self.node_data();
        let Self { line, timeout, cancel, mut listeners, .. } = self;
        let path = || line.path().to_owned();
        let span = tracing::debug_span!(
            "quorate.lock.acquire",
            recipe = "mutex",
            root = line.path(),
            position = field::Empty,
            outcome = field::Empty
        );
        let record = span.clone();
        let mut tell = |event| {
            if let WaitEvent::Queued { position } = event {
                record.record("position", position);
            }
            listeners.iter_mut().for_each(|listener| listener(event));
        };
        let patience = if timeout == Some(Duration::ZERO) { Patience::Once } else { Patience::UntilGranted };
        let granted = async {
            let acquired = acquire(&line, data, patience, &mut tell);
            let granted = match timeout {
                Some(after) if patience == Patience::UntilGranted => {
                    match tokio::time::timeout(after, acquired).await {
                        Ok(granted) => granted?,
                        Err(_) => None,
                    }
                }
                _ => acquired.await?,
            };
            granted.ok_or_else(|| Error::Timeout { path: path(), after: timeout.unwrap_or_default() })
        };
        let granted = async {
            match &cancel {
                Some(token) => match token.run_until_cancelled(granted).await {
                    Some(granted) => granted,
                    None => Err(Error::Cancelled { path: path() }),
                },
                None => granted.await,
            }
        };
        let granted: Result<Held> = granted.instrument(span.clone()).await;
        span.record(
            "outcome",
            match &granted {
                Ok(_) => "granted",
                Err(Error::Timeout { .. }) => "timeout",
                Err(Error::Cancelled { .. }) => "cancelled",
                Err(_) => "error",
            },
        );
        granted.map(LockGuard::new)
    }
}

impl IntoFuture for Lock {
    type Output = Result<LockGuard>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<LockGuard>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}
