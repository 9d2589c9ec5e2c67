//! One term of a leader.

use std::{ops::Deref, sync::Arc};

use bytes::Bytes;

use super::{CandidateState, Election};
use crate::{Hold, Result, line::Held};

/// One term of a leader; from [`Election::campaign`], or given to the leader code of [`Election::run`]. What it
/// can be asked is in [`Hold`].
///
/// Dropping it resigns, in the background. In [`Election::run`] it need not be kept: there the end of the leader
/// code resigns.
#[derive(Debug)]
#[must_use = "dropping it resigns"]
pub struct Leadership {
    seat: Arc<Seat>,
}

/// The first place, and the candidate that has it.
#[derive(Debug)]
struct Seat {
    held: Held,
    election: Election,
}

impl Leadership {
    pub(super) fn new(held: Held, election: Election) -> Self {
        let token = held.token();
        *election.shared.term.lock() = Some(held.handle());
        election.shared.state.send_replace(CandidateState::Leading { token });
        Self { seat: Arc::new(Seat { held, election }) }
    }

    /// The same term, which ends with the last of them.
    pub(super) fn another(&self) -> Self {
        Self { seat: self.seat.clone() }
    }

    /// Resigns and waits until the ensemble has confirmed it.
    ///
    /// # Errors
    /// [`Error::Lost`](crate::Error::Lost) if the leadership was lost before. After any other error it is given up
    /// in the background.
    ///
    /// # Cancel safety
    /// Dropped, it goes on in the background.
    pub async fn resign(self) -> Result<()> {
        let resigned = self.seat.held.release().await;
        self.seat.vacated();
        resigned
    }

    /// Replaces the id that others see, without losing the seat.
    ///
    /// # Cancel safety
    /// Dropped after it was first polled, it may or may not take effect.
    pub async fn proclaim(&self, id: impl Into<String>) -> Result<()> {
        let held = &self.seat.held;
        held.check()?;
        let id = Bytes::from(id.into());
        held.keep_data(id.clone());
        match held.client().set(held.path(), id).await {
            Ok(_) => Ok(()),
            Err(quorate::Error::NoNode { .. }) => Err(held.found_gone()),
            Err(error) => Err(error.into()),
        }
    }

    /// Resigns now, however many there are of it.
    pub(super) fn give_up(&self) {
        self.seat.held.give_up();
    }
}

impl Deref for Leadership {
    type Target = Hold;

    fn deref(&self) -> &Hold {
        &self.seat.held
    }
}

impl Seat {
    /// The candidate does not lead any more, unless it does so again by now.
    fn vacated(&self) {
        let token = self.held.token();
        let shared = &self.election.shared;
        shared.term.lock().take_if(|term| term.token() == token);
        shared.state.send_if_modified(|state| {
            let was_this = *state == CandidateState::Leading { token };
            if was_this {
                *state = CandidateState::Idle;
            }
            was_this
        });
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.held.give_up();
        self.vacated();
    }
}
