//! Following who leads.
//!
//! Only the leader's own node is watched while there is one, so that candidates who come and go wake no observer.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::{StreamExt, stream};
use quorate::{ChangeReason, ChildrenEvent, DataEvent, StateStream, WatchStream};

use crate::{
    Error, FencingToken, Result,
    line::{Line, id_of, lasting, next_change},
};

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaderEvent {
    /// This one. A new token is a new term, also of the same candidate; the same token with another id is a
    /// leader that has proclaimed it.
    Leader {
        /// What it calls itself.
        id: String,
        /// Of its term.
        token: FencingToken,
    },
    /// Nobody.
    NoLeader,
    /// The observer had lost its session: leaders may have come and gone. Who leads now follows.
    Resync,
}

/// Who leads, now and from then on; from [`Election::observe`](super::Election::observe). Terms between two items
/// may be left out, the newest is not. It ends after an error, which is one that does not pass.
///
/// # Cancel safety
/// Dropping a future of `next` loses nothing.
#[must_use = "nothing is watched before it is polled"]
pub struct LeaderStream {
    events: Pin<Box<dyn Stream<Item = Result<LeaderEvent>> + Send>>,
}

impl std::fmt::Debug for LeaderStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderStream").finish_non_exhaustive()
    }
}

impl Stream for LeaderStream {
    type Item = Result<LeaderEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl LeaderStream {
    pub(super) fn new(line: Line) -> Self {
        let states = line.client().states();
        // The first session is no gap.
        let session_epoch = line.client().session().map(|session| session.epoch());
        let observer = Observer { line, states, session_epoch, seat: Seat::Unknown, last: None };
        let events = stream::unfold(Some(observer), |observer| async {
            let mut observer = observer?;
            let event = observer.next().await;
            let goes_on = event.is_ok();
            Some((event, goes_on.then_some(observer)))
        });
        Self { events: Box::pin(events) }
    }
}

struct Observer {
    line: Line,
    states: StateStream,
    /// Of the session in which all this was seen.
    session_epoch: Option<u64>,
    seat: Seat,
    last: Option<LeaderEvent>,
}

/// What is known of the first place.
enum Seat {
    Unknown,
    /// This node has it.
    Taken(WatchStream<DataEvent>),
    /// There is no place. Waits for one.
    Empty(WatchStream<ChildrenEvent>),
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderEvent> {
        loop {
            let event = tokio::select! {
                biased;
                change = next_change(&mut self.states) => {
                    if change.reason != ChangeReason::Opened {
                        continue;
                    }
                    if self.session_epoch.replace(change.epoch).is_none_or(|epoch| epoch == change.epoch) {
                        continue;
                    }
                    self.seat = Seat::Unknown;
                    LeaderEvent::Resync
                }
                event = look(&self.line, &mut self.seat) => event?,
            };
            if self.last.as_ref() != Some(&event) {
                self.last = Some(event.clone());
                return Ok(event);
            }
        }
    }
}

/// What there is to be said of the first place next. Dropped, it goes on where it was.
async fn look(line: &Line, seat: &mut Seat) -> Result<LeaderEvent> {
    let client = line.client();
    loop {
        match seat {
            Seat::Unknown => {
                let names = lasting(client, || async { line.names().await.map_err(Error::from) }).await?;
                match names.first() {
                    Some(first) => *seat = Seat::Taken(client.watch(&line.child(first)).data()),
                    None => {
                        *seat = Seat::Empty(client.watch(line.path()).children());
                        return Ok(LeaderEvent::NoLeader);
                    }
                }
            }
            Seat::Taken(watch) => match watch.next().await {
                Some(Ok(DataEvent::Value(node))) => {
                    let token = FencingToken(node.stat.czxid);
                    return Ok(LeaderEvent::Leader { id: id_of(&node.data), token });
                }
                Some(Ok(_)) => *seat = Seat::Unknown,
                Some(Err(error)) => passing(error)?,
                None => return Err(quorate::Error::Closed.into()),
            },
            Seat::Empty(watch) => match watch.next().await {
                Some(Ok(ChildrenEvent::Set(list))) => {
                    if !line.in_order(list.names).is_empty() {
                        *seat = Seat::Unknown;
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => passing(error)?,
                None => return Err(quorate::Error::Closed.into()),
            },
        }
    }
}

/// A watch goes on after any error; who watches does so after those that pass.
fn passing(error: quorate::Error) -> Result<()> {
    if error.is_retryable() { Ok(()) } else { Err(error.into()) }
}
