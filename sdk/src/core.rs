//! What the handles, the link and the background tasks of one client share.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;
use quorate_proto::v1::{self, request::Op};
use tokio::{runtime::Handle, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    call::Ticket,
    clock::Clock,
    endpoints::Endpoints,
    error::{Error, Result},
    outbox::{Entry, Outbox, Shut, Waiter},
    retry::{RetryBudget, RetryPolicy},
    session::SessionView,
    state::{SessionState, StateLog},
    watches::WatchTable,
};

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) clock: Clock,
    pub(crate) endpoints: Endpoints,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) states: StateLog,
    pub(crate) watches: Arc<WatchTable>,
    pub(crate) session: RwLock<Option<SessionView>>,
    pub(crate) retry: RetryPolicy,
    pub(crate) budget: RetryBudget,
    pub(crate) request_timeout: Duration,
    /// What the last failed attempt to attach said.
    pub(crate) trouble: RwLock<Option<String>>,
    /// The user wants an end: what holds something lets go.
    pub(crate) shutdown: CancellationToken,
    /// The link ends now, whatever is open.
    pub(crate) stop: CancellationToken,
    /// What lets go of things when `shutdown` is cancelled.
    pub(crate) tasks: TaskTracker,
    /// The link and the janitor.
    pub(crate) own_tasks: TaskTracker,
    pub(crate) runtime: Handle,
}

impl Core {
    pub(crate) fn ticket(self: &Arc<Self>, op: Op) -> Ticket {
        Ticket::new(self, op)
    }

    pub(crate) fn session(&self) -> Option<SessionView> {
        self.session.read().clone()
    }

    /// Whether nothing is taken in any more.
    pub(crate) fn is_shut(&self) -> bool {
        self.outbox.shut().is_some()
    }

    /// Ends the session after everything that waits before it.
    pub(crate) async fn close_session(&self) -> Result<()> {
        if matches!(self.states.state(), SessionState::Connecting | SessionState::Lost { .. }) {
            return Ok(());
        }
        let (reply, answer) = oneshot::channel();
        let entry = Entry::new(Op::Close(v1::CloseRequest {}), Waiter::Caller(reply));
        match self.outbox.push(entry) {
            Ok(()) => {}
            Err(Error::SessionLost { .. } | Error::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
        match answer.await {
            Ok(Ok(_) | Err(Error::SessionLost { .. } | Error::Closed)) => Ok(()),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(Shut::Closed.error(false)),
        }
    }
}
