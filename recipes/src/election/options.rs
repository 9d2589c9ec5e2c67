//! How a candidate is set up.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use quorate::{Client, retry::RetryPolicy};
use tokio::sync::watch;

use super::{CandidateState, Election, Shared};
use crate::{
    Result,
    line::{Label, Line, host},
};

/// Sets up a candidate; from [`Election::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens before it is built"]
pub struct ElectionBuilder {
    client: Client,
    path: String,
    id: Option<Bytes>,
    grace: Duration,
    on_overrun: OnOverrun,
    pause: RetryPolicy,
}

/// What to do about leader code that goes on after it was dropped, because it blocks its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnOverrun {
    /// Say so, and wait. No further term begins before it has ended.
    #[default]
    Warn,
    /// End the process with this code, for then certainly nobody goes on.
    Exit(i32),
}

impl ElectionBuilder {
    pub(super) fn new(client: &Client, path: String) -> Self {
        Self {
            client: client.clone(),
            path,
            id: None,
            grace: Duration::from_secs(1),
            on_overrun: OnOverrun::default(),
            pause: RetryPolicy::forever(),
        }
    }

    /// Who this is, for those who ask who leads. Default: machine and process.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into().into());
        self
    }

    /// How long leader code that [`Election::run`] has told to stop may go on while its seat is kept: when the
    /// program is to end, or somebody asked the leader to resign. Default 1 s. A seat that is lost leaves no time.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// What [`Election::run`] does about leader code that cannot be stopped.
    pub fn on_overrun(mut self, on_overrun: OnOverrun) -> Self {
        self.on_overrun = on_overrun;
        self
    }

    /// The pauses of [`Election::run`] between a term, or a campaign that failed, and the next campaign. They
    /// start anew after a campaign and term of more than 5 s. Bounds on time and attempts have no
    /// meaning here. Default: 50 ms, doubling up to 5 s, with jitter.
    pub fn pause(mut self, pause: RetryPolicy) -> Self {
        self.pause = pause;
        self
    }

    /// The candidate.
    ///
    /// # Errors
    /// The path is none.
    pub fn build(self) -> Result<Election> {
        let id = self.id.unwrap_or_else(|| {
            let host = host().unwrap_or("unknown host");
            format!("{host}[{}]", std::process::id()).into()
        });
        Ok(Election {
            shared: Arc::new(Shared {
                line: Line::new(&self.client, self.path, Label::LATCH)?,
                id,
                grace: self.grace,
                on_overrun: self.on_overrun,
                pause: self.pause,
                state: watch::Sender::new(CandidateState::Idle),
                term: Default::default(),
            }),
        })
    }
}
