//! One of many leads, and all know which.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
//! # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
//! use quorate_recipes::Election;
//! use tokio_util::sync::CancellationToken;
//!
//! let election = Election::builder(&client, "/orders/leader").id("orders-1").build()?;
//!
//! // Leads whenever it is its turn, until the program ends. Here that is after its first term.
//! let shutdown = CancellationToken::new();
//! let end = shutdown.clone();
//! election
//!     .run(shutdown, move |lease| {
//!         let end = end.clone();
//!         async move {
//!             println!("leading, with token {}", lease.token());
//!             end.cancel();
//!         }
//!     })
//!     .await?;
//!
//! assert!(!election.is_leader());
//! # client.close(std::time::Duration::from_secs(5)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! Three ways to use it. [`Election::run`] calls leader code in every term and stops it when the term ends; it is
//! what a service wants. [`Election::campaign`] gives a guard, for those who build their own loop.
//! [`Election::observe`] follows who leads, also for those who never campaign.
//!
//! **On the wire** it is Curator's `LeaderLatch`: each candidate has an ephemeral sequential child
//! `_c_<uuid>-latch-NNNNNNNNNN` with its id as data, and the first of them leads. A candidate whose predecessor
//! vanishes looks again and keeps its own node, so candidates never chase each other.
//!
//! **Terms.** A lost leadership is over, with its token. The next one, of the same candidate too, has another
//! token, so nothing that belongs to one term can be taken for another's. A connection that comes back in time
//! does not end a term.

mod leadership;
mod observe;
mod options;
mod run;

use std::sync::Arc;

use bytes::Bytes;
pub use leadership::Leadership;
pub use observe::{LeaderEvent, LeaderStream};
pub use options::{ElectionBuilder, OnOverrun};
use parking_lot::Mutex;
use quorate::{Client, retry::RetryPolicy};
use tokio::sync::watch;

use crate::{
    FencingToken, Participant, Result,
    line::{Hold, Line, Patience, WaitEvent, acquire},
};

/// A candidate in an election. Clones are the same candidate.
///
/// There is an example at [the module](crate::election).
#[derive(Debug, Clone)]
pub struct Election {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    line: Line,
    id: Bytes,
    grace: std::time::Duration,
    on_overrun: OnOverrun,
    pause: RetryPolicy,
    state: watch::Sender<CandidateState>,
    /// The leadership granted last.
    term: Mutex<Option<Hold>>,
}

/// Where a candidate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CandidateState {
    /// It does not campaign.
    Idle,
    /// It campaigns.
    Waiting {
        /// How many were ahead when it looked last; nothing before it has looked.
        position: Option<usize>,
    },
    /// It leads. If it was lost a moment ago this may not be told yet: [`Election::is_leader`] knows.
    Leading {
        /// Of this term.
        token: FencingToken,
    },
    /// Its campaign failed. In [`Election::run`] another follows after a pause, if that can help.
    Failed {
        /// Why.
        message: String,
    },
}

impl Election {
    /// Starts to set up a candidate for the election at this path.
    pub fn builder(client: &Client, path: impl Into<String>) -> ElectionBuilder {
        ElectionBuilder::new(client, path.into())
    }

    /// Its path.
    pub fn path(&self) -> &str {
        self.shared.line.path()
    }

    /// Waits until it leads: over lost connections, members that die, and lost sessions.
    ///
    /// One campaign of a candidate at a time: a second one waits behind the first, as any other candidate does.
    ///
    /// # Cancel safety
    /// Dropped at any point, it leaves no node: what it had created is deleted in the background.
    pub async fn campaign(&self) -> Result<Leadership> {
        let shared = &self.shared;
        // Says that it is idle if the campaign is dropped.
        let _campaign = Campaign { state: &shared.state };
        shared.state.send_replace(CandidateState::Waiting { position: None });
        let mut tell = |event| {
            if let WaitEvent::Queued { position } = event {
                shared.state.send_replace(CandidateState::Waiting { position: Some(position) });
            }
        };
        let held = match acquire(&shared.line, shared.id.clone(), Patience::UntilGranted, &mut tell).await {
            Ok(held) => held.expect("who waits until it is granted gets it, or an error"),
            Err(error) => {
                shared.state.send_replace(CandidateState::Failed { message: error.to_string() });
                return Err(error);
            }
        };
        held.keep_data(shared.id.clone());
        Ok(Leadership::new(held, self.clone()))
    }

    /// Whether this candidate leads, as of now and by the clock. No I/O.
    pub fn is_leader(&self) -> bool {
        self.shared.term.lock().as_ref().is_some_and(Hold::is_held)
    }

    /// Where this candidate stands, of the campaign begun last.
    pub fn state(&self) -> watch::Receiver<CandidateState> {
        self.shared.state.subscribe()
    }

    /// Who leads. As new as everything that was acknowledged before this was called.
    pub async fn leader(&self) -> Result<Option<Participant>> {
        self.shared.line.first().await
    }

    /// Who leads and who waits, in their order, the leader first.
    pub async fn participants(&self) -> Result<Vec<Participant>> {
        self.shared.line.participants().await
    }

    /// Asks a leader to resign. It is told by [`Hold::revocation_requested`], and [`Election::run`] does resign.
    pub async fn revoke(&self, leader: &Participant) -> Result<()> {
        self.shared.line.revoke(leader).await
    }

    /// Who leads, now and from then on, also that nobody does.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
    /// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
    /// use futures_util::StreamExt;
    /// use quorate_recipes::{Election, election::LeaderEvent};
    ///
    /// let election = Election::builder(&client, "/orders/leader").id("orders-1").build()?;
    /// let mut leaders = election.observe();
    /// assert_eq!(leaders.next().await.unwrap()?, LeaderEvent::NoLeader);
    ///
    /// let leadership = election.campaign().await?;
    /// let event = leaders.next().await.unwrap()?;
    /// assert_eq!(event, LeaderEvent::Leader { id: "orders-1".into(), token: leadership.token() });
    ///
    /// leadership.resign().await?;
    /// assert_eq!(leaders.next().await.unwrap()?, LeaderEvent::NoLeader);
    /// # client.close(std::time::Duration::from_secs(5)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn observe(&self) -> LeaderStream {
        LeaderStream::new(self.shared.line.clone())
    }
}

/// A campaign that has not ended.
struct Campaign<'a> {
    state: &'a watch::Sender<CandidateState>,
}

impl Drop for Campaign<'_> {
    fn drop(&mut self) {
        self.state.send_if_modified(|state| {
            let waits = matches!(state, CandidateState::Waiting { .. });
            if waits {
                *state = CandidateState::Idle;
            }
            waits
        });
    }
}
