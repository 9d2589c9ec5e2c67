//! Waiting for one's turn.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use quorate::{Client, LostReason, SessionState, StateChange, StateStream, retry::RetryPolicy};

use crate::{
    Error, Result,
    line::{
        Line, Place,
        hold::{Held, Hold},
        own_node::{Fate, OwnNode},
    },
};

/// What happens to one who waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitEvent {
    /// It stands in the line.
    Queued {
        /// How many stand before it. It is told when the wait begins and when it looked again, which is when the
        /// one just before it has left: whoever leaves further ahead does not wake it.
        position: usize,
    },
    /// It has lost its place, and takes one at the end.
    Requeued {
        /// How it lost its place.
        reason: LostReason,
    },
    /// No member serves the client now. Its place is kept while its session lives.
    Suspended,
    /// A member serves the client again, in the same session.
    Resumed,
}

/// For how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Over lost connections and lost sessions.
    UntilGranted,
    /// Not at all: as it is, or not.
    Once,
}

/// Stands in the line until it is granted; with [`Patience::Once`], `None` if it is not granted at once. Fails with
/// [`quorate::Error::Closed`] when the client is about to be closed.
///
/// # Cancel safety
/// Dropped at any point, it leaves no node.
pub(crate) async fn acquire(
    line: &Line,
    data: Bytes,
    patience: Patience,
    tell: &mut (dyn FnMut(WaitEvent) + Send),
) -> Result<Option<Held>> {
    let acquired = async {
        match patience {
            Patience::Once => acquire_once(line, data).await,
            Patience::UntilGranted => acquire_in_turn(line, data, tell).await.map(Some),
        }
    };
    match line.client().shutdown_token().run_until_cancelled(acquired).await {
        Some(acquired) => acquired,
        None => Err(quorate::Error::Closed.into()),
    }
}

async fn acquire_in_turn(line: &Line, data: Bytes, tell: &mut (dyn FnMut(WaitEvent) + Send)) -> Result<Held> {
    loop {
        // Another place means another mark in its name.
        let Some(place) = lasting(line.client(), || line.enter(data.clone())).await? else { continue };
        match stand(line, place, tell).await? {
            Turn::Granted(hold) => return Ok(hold),
            Turn::PlaceLost(reason) => tell(WaitEvent::Requeued { reason }),
        }
    }
}

/// Looks before it enters, so that no waiter is disturbed by one that does not wait.
async fn acquire_once(line: &Line, data: Bytes) -> Result<Option<Held>> {
    if !line.newest_names().await?.is_empty() {
        return Ok(None);
    }
    let Some(place) = line.enter(data).await? else { return Ok(None) };
    if line.names().await?.first().is_some_and(|first| first == place.name()) && place.session.is_live() {
        let own = OwnNode::new(line.client(), &place.path, place.token);
        let states = line.client().states();
        return Ok(Some(Hold::grant(line.client(), place, own, states)));
    }
    // Somebody was faster. Dropping the place would do, but then it might still be there for the caller to see.
    match line.client().delete(&place.path).await {
        Ok(()) | Err(quorate::Error::NoNode { .. }) => place.release.disarm(),
        Err(error) => tracing::debug!(path = place.path, %error, "left to the janitor"),
    }
    Ok(None)
}

enum Turn {
    Granted(Held),
    PlaceLost(LostReason),
}

/// Stands in one place until it is granted or lost.
async fn stand(line: &Line, place: Place, tell: &mut (dyn FnMut(WaitEvent) + Send)) -> Result<Turn> {
    let client = line.client();
    let mut own = OwnNode::new(client, &place.path, place.token);
    let mut states = client.states();
    let mut lost = std::pin::pin!(place.session.lost());
    loop {
        let names = tokio::select! {
            biased;
            reason = &mut lost => return Ok(Turn::PlaceLost(reason)),
            names = lasting(client, || async { line.names().await.map_err(Error::from) }) => names?,
        };
        if !place.session.is_live() {
            // Whatever the list says, it may be of another session than our place. It is lost, or about to be.
            let reason = place.session.lost_reason().unwrap_or(LostReason::LocalDeadline);
            return Ok(Turn::PlaceLost(reason));
        }
        let before = match names.iter().position(|name| name == place.name()) {
            None => return Ok(Turn::PlaceLost(LostReason::NodeDeleted)),
            Some(0) => return Ok(Turn::Granted(Hold::grant(client, place, own, states))),
            Some(position) => {
                tell(WaitEvent::Queued { position });
                line.child(&names[position - 1])
            }
        };
        let mut before_has_left = std::pin::pin!(lasting(client, || {
            let gone = client.watch(&before).once_deleted();
            async { gone.await.map_err(Error::from) }
        }));
        // Until something happened that is a reason to look again.
        loop {
            tokio::select! {
                biased;
                reason = &mut lost => return Ok(Turn::PlaceLost(reason)),
                fate = own.next() => match fate {
                    // A request to let go is for the time when there is something to let go of.
                    Fate::Stands | Fate::Revoked => {}
                    Fate::Deleted => break,
                },
                left = &mut before_has_left => {
                    left?;
                    break;
                }
                change = next_change(&mut states) => match change.to {
                    SessionState::Suspended { .. } => tell(WaitEvent::Suspended),
                    SessionState::Connected { .. } => {
                        tell(WaitEvent::Resumed);
                        break;
                    }
                    _ => {}
                },
            }
        }
    }
}

/// The next change of the client's state. None comes after its end, and that is told by the session's loss.
pub(crate) async fn next_change(states: &mut StateStream) -> StateChange {
    match states.next().await {
        Some(change) => change,
        None => std::future::pending().await,
    }
}

/// Repeats what failed because there was no member, or no session, until there is one again or is to be none. Of
/// what else may pass, it does so within the client's retry policy.
///
/// # Cancel safety
/// That of an attempt.
pub(crate) async fn lasting<T, Fut>(client: &Client, mut attempt: impl FnMut() -> Fut) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    let mut outage_delays = RetryPolicy::forever().delays();
    let mut refusal_delays = client.retry_policy().delays();
    loop {
        let error = match attempt().await {
            Err(error) => error,
            settled => return settled,
        };
        let delay = if is_outage(&error) {
            // Fails if there is to be none.
            client.ready(Duration::MAX).await?;
            outage_delays.next_delay()
        } else if may_pass(&error) {
            refusal_delays.next_delay()
        } else {
            None
        };
        match delay {
            Some(delay) => tokio::time::sleep(delay).await,
            None => return Err(error),
        }
    }
}

/// There was no member, or no session.
fn is_outage(error: &Error) -> bool {
    use quorate::Error as Of;
    matches!(error, Error::Client(Of::Timeout { .. } | Of::SessionLost { .. } | Of::Unreachable { .. }))
}

/// The ensemble refused what it may take later.
pub(crate) fn may_pass(error: &Error) -> bool {
    !is_outage(error) && matches!(error, Error::Client(error) if error.is_retryable())
}
