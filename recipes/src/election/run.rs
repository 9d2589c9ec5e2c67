//! Leader code, called in every term and stopped when the term ends.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{CandidateState, Election, Leadership, OnOverrun};
use crate::{Hold, Result, line::may_pass};

/// After this long leader code that was dropped and goes on has overrun.
const OVERRUN: Duration = Duration::from_secs(1);
/// What lasts longer than this is no quick failure.
const CALM: Duration = Duration::from_secs(5);

impl Election {
    /// Campaigns, leads, and campaigns again, until `shutdown` is cancelled.
    ///
    /// `lead` is called once in each term. What it returns runs as a task of its own, and the term ends when that
    /// does. The other way round:
    ///
    /// - **The leadership is lost**: the task is dropped at once, at the await point where it stands.
    /// - **The program is to end, or somebody asks the leader to resign**: the leadership's
    ///   [`cancellation`](Hold::cancellation) is cancelled, and the task has the [grace] to come to an end while
    ///   it still leads. Then it is dropped.
    /// - **It panics**: the leadership is given up and the panic is logged.
    ///
    /// After each term it pauses, and takes a place at the end of the line. It never leads again before the task
    /// of the last term has ended. A task that blocks its thread cannot be dropped: see [`OnOverrun`].
    ///
    /// # Errors
    /// One that does not pass: no permission, or the client is closed. Everything else is waited out; where it
    /// stands is told by [`Election::state`].
    ///
    /// # Cancel safety
    /// Dropped, it drops the task and resigns.
    ///
    /// [grace]: super::ElectionBuilder::grace
    pub async fn run<F, Fut>(&self, shutdown: CancellationToken, mut lead: F) -> Result<()>
    where
        F: FnMut(Leadership) -> Fut,
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        let clock = self.shared.line.client().clock().clone();
        let mut pauses = self.shared.pause.delays();
        loop {
            let began = clock.now();
            let campaign = shutdown.run_until_cancelled(self.campaign());
            match campaign.await {
                None => return Ok(()),
                Some(Ok(leadership)) => self.term(leadership, &shutdown, &mut lead).await,
                Some(Err(error)) if may_pass(&error) => {
                    tracing::warn!(path = self.path(), %error, "a campaign failed");
                }
                Some(Err(error)) => return Err(error),
            }
            if clock.now().saturating_duration_since(began) > CALM {
                pauses.reset();
            }
            let pause = pauses.next_delay().unwrap_or(CALM);
            if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
        }
    }

    /// One term, from the first call to the end of the task.
    async fn term<F, Fut>(&self, leadership: Leadership, shutdown: &CancellationToken, lead: &mut F)
    where
        F: FnMut(Leadership) -> Fut,
        Fut: Future + Send + 'static,
        Fut::Output: Send + 'static,
    {
        // Kept here, for leader code need not keep what it is given.
        let hold = leadership.another();
        tracing::info!(path = self.path(), token = %hold.token(), "leading");
        let work = match catch_unwind(AssertUnwindSafe(|| lead(leadership))) {
            Ok(work) => work,
            Err(panic) => return self.panicked(&*panic),
        };
        let scope = hold.handle();
        let task = hold.client().spawn(async move { scope.scope(work).await.map(|_| ()) });
        let mut task = Task(task);
        let ended = tokio::select! {
            biased;
            ended = &mut task => Some(ended),
            _ = hold.lost() => None,
            () = shutdown.cancelled() => self.let_end(&hold, &mut task).await,
            () = hold.revocation_requested() => self.let_end(&hold, &mut task).await,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => self.end(task).await,
        };
        // Also if leader code has put the leadership away where it lives longer.
        hold.give_up();
        match ended {
            Ok(Ok(())) => tracing::info!(path = self.path(), token = %hold.token(), "leader code has ended"),
            Ok(Err(lost)) => {
                tracing::info!(path = self.path(), token = %hold.token(), %lost, "leader code was dropped")
            }
            Err(error) if error.is_panic() => self.panicked(&*error.into_panic()),
            Err(_) => tracing::info!(path = self.path(), token = %hold.token(), "leader code was dropped"),
        }
    }

    /// Tells it to stop and gives it time.
    async fn let_end(&self, hold: &Hold, task: &mut Task) -> Option<Ended> {
        hold.stop();
        tokio::time::timeout(self.shared.grace, task).await.ok()
    }

    /// Drops it, and waits until it is gone.
    async fn end(&self, mut task: Task) -> Ended {
        task.0.abort();
        if let Ok(ended) = tokio::time::timeout(OVERRUN, &mut task).await {
            return ended;
        }
        tracing::error!(path = self.path(), "leader code goes on after it was dropped: it blocks its thread");
        if let OnOverrun::Exit(code) = self.shared.on_overrun {
            std::process::exit(code);
        }
        task.await
    }

    fn panicked(&self, panic: &(dyn Any + Send)) {
        let text = panic.downcast_ref::<&str>().copied();
        let message = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("of another kind");
        tracing::error!(path = self.path(), message, "leader code panicked");
        let message = format!("leader code panicked: {message}");
        self.shared.state.send_replace(CandidateState::Failed { message });
    }
}

/// What became of leader code: it ended, its leadership was lost, or it panicked or was dropped.
type Ended = std::result::Result<Result<()>, JoinError>;

/// The task of a term. Dropped, it is dropped.
struct Task(JoinHandle<Result<()>>);

impl Future for Task {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
