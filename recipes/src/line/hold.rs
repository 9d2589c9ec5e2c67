//! The first place in the line, once it is ours: what its holder can ask, and how it is told of its end.
//!
//! Task: [`watch_over`], one for each hold, spawned on the client, so that closing the client waits for it. It
//! ends when the hold does. It has no channel but the watch that carries the state.

use std::{
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use bytes::Bytes;
use parking_lot::Mutex;
use quorate::{Client, LostReason, ReleaseOnDrop, SessionState, SessionView, StateStream, TxnOp, clock::BootInstant};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, FencedClient, FencingToken, Result,
    line::{
        Place,
        contend::{lasting, next_change},
        own_node::{Fate, OwnNode},
    },
};

/// How a hold stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HoldState {
    /// It is held, and a member serves the session.
    Held,
    /// It is held, and no member serves the session now. Most often one does again in a moment.
    Suspended {
        /// When it will be lost if none does.
        until: BootInstant,
    },
    /// It is not held any more: somebody else may hold it now. Nothing follows.
    Lost(LostReason),
    /// Its holder has given it up. Nothing follows.
    Released,
}

impl HoldState {
    fn is_over(self) -> bool {
        matches!(self, Self::Lost(_) | Self::Released)
    }
}

/// Something held: a lock, a leadership. Guards dereference to it.
///
/// **How long.** Until it is released, its node is deleted by somebody, or the session is lost. The session is
/// lost at the latest when the ensemble might end it for want of a sign of life, by a clock that goes on while
/// the machine sleeps: [`Hold::is_held`] says no before anybody else can hold it, even in the first instruction
/// after the process was stopped for an hour. A connection that breaks, or a member that dies, is no loss: the
/// client goes on with another member, and the hold stays with its token.
///
/// **How the holder is told.** [`Hold::lost`] is a future, [`Hold::cancellation`] a token for what is made to be
/// stopped by one, [`Hold::state`] tells each step, [`Hold::scope`] runs a future and drops it on loss.
///
/// **What that cannot do.** Between asking and acting there is always a gap. What a holder of yesterday must not
/// write is written with [`Hold::fenced`], or with [`Hold::token`] to a resource that compares tokens.
#[derive(Debug)]
pub struct Hold {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    path: String,
    token: FencingToken,
    session: SessionView,
    state: watch::Sender<HoldState>,
    /// What the holder follows: cancelled when the hold is over, when its holder is to stop, and when the client
    /// is about to be closed.
    cancellation: CancellationToken,
    /// Ends the task.
    over: CancellationToken,
    revocation: CancellationToken,
    /// Taken by whoever gives the place up.
    release: Mutex<Option<ReleaseOnDrop>>,
    /// What the node is to say, where a revoker's word is to be replaced by it again.
    kept_data: Mutex<Option<Bytes>>,
}

/// The hold itself: dropped, it is given up.
#[derive(Debug)]
pub(crate) struct Held(Hold);

impl std::ops::Deref for Held {
    type Target = Hold;

    fn deref(&self) -> &Hold {
        &self.0
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

impl Hold {
    /// Makes a place that is the first into a hold.
    pub(super) fn grant(client: &Client, place: Place, own: OwnNode, states: StateStream) -> Held {
        let inner = Arc::new(Inner {
            client: client.clone(),
            path: place.path,
            token: place.token,
            session: place.session,
            state: watch::Sender::new(HoldState::Held),
            cancellation: client.shutdown_token(),
            over: CancellationToken::new(),
            revocation: CancellationToken::new(),
            release: Mutex::new(Some(place.release)),
            kept_data: Mutex::new(None),
        });
        tracing::debug!(path = inner.path, token = %inner.token, "granted");
        let hold = Self { inner };
        if own.is_revoked() {
            revoked(&hold);
        }
        client.spawn(watch_over(hold.handle(), own, states));
        Held(hold)
    }

    /// The same hold for somebody who does not keep it.
    pub(crate) fn handle(&self) -> Self {
        Self { inner: self.inner.clone() }
    }

    pub(crate) fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Grows with every hold of the same lock or leadership. It stays the same for as long as this one lasts.
    pub fn token(&self) -> FencingToken {
        self.inner.token
    }

    /// The node that stands for it.
    pub fn path(&self) -> &str {
        &self.inner.path
    }

    /// The session it goes with: who it is, and until when it is certain to live.
    pub fn session(&self) -> &SessionView {
        &self.inner.session
    }

    /// Whether it is held, as of now and by the clock. No I/O.
    pub fn is_held(&self) -> bool {
        !self.now().is_over()
    }

    /// How it stands, step by step. It is told by a task: where it matters, ask [`Hold::is_held`].
    pub fn state(&self) -> watch::Receiver<HoldState> {
        self.inner.state.subscribe()
    }

    /// Waits until it is lost. If it is released instead, this does not complete: wait for
    /// [`Hold::cancellation`] where both matter.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub fn lost(&self) -> impl Future<Output = LostReason> + Send + use<> {
        let mut state = self.inner.state.subscribe();
        let session = self.inner.session.clone();
        async move {
            let seen = state.clone();
            let mut told = pin!(async move {
                let last = state.wait_for(|state| state.is_over()).await.map(|state| *state);
                match last {
                    Ok(HoldState::Lost(reason)) => reason,
                    _ => pending().await,
                }
            });
            poll_fn(move |cx| match told.as_mut().poll(cx) {
                Poll::Ready(reason) => Poll::Ready(reason),
                // The clock may know before the task does: then whoever is polled now is not to go on.
                Poll::Pending => match judge(*seen.borrow(), &session) {
                    HoldState::Lost(reason) => Poll::Ready(reason),
                    _ => Poll::Pending,
                },
            })
            .await
        }
    }

    /// Cancelled when it is lost or released, and when the client is about to be closed. A token of one's own:
    /// cancelling it has no effect on the hold.
    pub fn cancellation(&self) -> CancellationToken {
        self.inner.cancellation.child_token()
    }

    /// Waits until somebody asks the holder to let go: Curator's revocation. It is a request and nothing more.
    /// One made while this still waited for its turn counts.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub fn revocation_requested(&self) -> impl Future<Output = ()> + Send + use<> {
        self.inner.revocation.clone().cancelled_owned()
    }

    /// Asks the ensemble whether it is held, with a linearizable read: if so, it was held when this was called.
    /// While no member can be reached it waits, at most until it is lost.
    ///
    /// # Cancel safety
    /// It changes nothing, so it may be dropped at any time.
    pub async fn verify(&self) -> Result<()> {
        self.check()?;
        let client = self.client();
        let look = lasting(client, || async { Ok(client.exists(self.path()).linearizable().await?) });
        let found = tokio::select! {
            biased;
            reason = self.lost() => return Err(self.lost_for(reason)),
            found = look => found?,
        };
        match found {
            Some(stat) if stat.czxid == self.token().0 => self.check(),
            _ => Err(self.found_gone()),
        }
    }

    /// Runs a future while it is held, and drops it on loss, with [`Error::Lost`]. Only the future is dropped:
    /// what it has begun elsewhere goes on.
    ///
    /// # Cancel safety
    /// That of `work`.
    pub async fn scope<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        let mut lost = pin!(self.lost());
        poll_fn(|cx| match lost.as_mut().poll(cx) {
            Poll::Ready(reason) => Poll::Ready(Err(self.lost_for(reason))),
            Poll::Pending => work.as_mut().poll(cx).map(Ok),
        })
        .await
    }

    /// A client whose writes take effect only while this is held.
    pub fn fenced(&self) -> FencedClient {
        FencedClient::new(self.handle())
    }

    /// The check of [`Hold::fenced`], to put into a transaction of one's own: it is refused with
    /// [`quorate::Error::NoNode`] when this is not held any more.
    pub fn check_op(&self) -> TxnOp {
        TxnOp::check(self.path(), -1)
    }

    /// An error if it is not held, as of now and by the clock.
    pub(crate) fn check(&self) -> Result<()> {
        match self.now() {
            HoldState::Lost(reason) => Err(self.lost_for(reason)),
            HoldState::Released => Err(Error::Released { path: self.path().to_owned() }),
            HoldState::Held | HoldState::Suspended { .. } => Ok(()),
        }
    }

    /// The ensemble says that the node is gone.
    pub(crate) fn found_gone(&self) -> Error {
        if *self.inner.state.borrow() == HoldState::Released {
            return Error::Released { path: self.path().to_owned() };
        }
        // Where the session has gone, the node went with it.
        let reason = self.inner.session.lost_reason().unwrap_or(LostReason::NodeDeleted);
        self.finish(HoldState::Lost(reason));
        match self.check() {
            Err(error) => error,
            Ok(()) => unreachable!("it was finished"),
        }
    }

    /// Tells the holder to stop. It is held until it is given up.
    pub(crate) fn stop(&self) {
        self.inner.cancellation.cancel();
    }

    /// From now on a revoker's word in the node is replaced by this again. So is one that stands there already.
    pub(crate) fn keep_data(&self, data: Bytes) {
        let first = self.inner.kept_data.lock().replace(data).is_none();
        if first && self.inner.revocation.is_cancelled() {
            revoked(self);
        }
    }

    /// Gives it up: the janitor deletes the node.
    pub(crate) fn give_up(&self) {
        self.finish(HoldState::Released);
        drop(self.inner.release.lock().take());
    }

    /// Gives it up and waits until the ensemble has confirmed. An error if it was lost before; if it cannot be
    /// said, the janitor goes on.
    ///
    /// # Cancel safety
    /// Dropped, it goes on in the background.
    pub(crate) async fn release(&self) -> Result<()> {
        let before = self.check();
        self.finish(match self.now() {
            HoldState::Lost(reason) => HoldState::Lost(reason),
            _ => HoldState::Released,
        });
        let Some(release) = self.inner.release.lock().take() else { return before };
        before?;
        match self.client().delete(self.path()).await {
            Ok(()) => {
                release.disarm();
                Ok(())
            }
            Err(quorate::Error::NoNode { .. }) => {
                release.disarm();
                Err(self.lost_for(self.inner.session.lost_reason().unwrap_or(LostReason::NodeDeleted)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn lost_for(&self, reason: LostReason) -> Error {
        Error::Lost { path: self.path().to_owned(), reason }
    }

    fn now(&self) -> HoldState {
        judge(*self.inner.state.borrow(), &self.inner.session)
    }

    fn step(&self, to: HoldState) -> bool {
        self.inner.state.send_if_modified(|state| {
            let is_news = !state.is_over() && *state != to;
            if is_news {
                *state = to;
            }
            is_news
        })
    }

    fn finish(&self, last: HoldState) {
        if !self.step(last) {
            return;
        }
        if let HoldState::Lost(reason) = last {
            tracing::warn!(path = self.path(), token = %self.token(), %reason, "a hold is lost");
        }
        self.inner.cancellation.cancel();
        self.inner.over.cancel();
    }
}

/// What a state is worth by the clock.
fn judge(state: HoldState, session: &SessionView) -> HoldState {
    if state.is_over() || session.is_live() {
        return state;
    }
    HoldState::Lost(session.lost_reason().unwrap_or(LostReason::LocalDeadline))
}

/// Tells the holder what happens, until it is over.
async fn watch_over(hold: Hold, mut own: OwnNode, mut states: StateStream) {
    let inner = &*hold.inner;
    let shutdown = inner.client.shutdown_token();
    let mut lost = pin!(inner.session.lost());
    loop {
        tokio::select! {
            biased;
            () = inner.over.cancelled() => return,
            reason = &mut lost => return hold.finish(HoldState::Lost(reason)),
            // The client closes: it waits for this, and then for the janitor.
            () = shutdown.cancelled() => {
                hold.finish(HoldState::Lost(LostReason::ClientClosed));
                return hold.give_up();
            }
            fate = own.next() => match fate {
                Fate::Stands => {}
                Fate::Deleted => return hold.finish(HoldState::Lost(LostReason::NodeDeleted)),
                Fate::Revoked => revoked(&hold),
            },
            change = next_change(&mut states) => match change.to {
                SessionState::Suspended { .. } => {
                    hold.step(HoldState::Suspended { until: inner.session.lease_until() });
                }
                SessionState::Connected { .. } => {
                    hold.step(HoldState::Held);
                    // What happened to it meanwhile is not left to the watch alone.
                    own = OwnNode::new(&inner.client, &inner.path, inner.token);
                }
                _ => {}
            },
        }
    }
}

fn revoked(hold: &Hold) {
    tracing::debug!(path = hold.path(), "somebody asks the holder to let go");
    hold.inner.revocation.cancel();
    let Some(data) = hold.inner.kept_data.lock().clone() else { return };
    let hold = hold.handle();
    let client = hold.client().clone();
    // Ends with its one request.
    client.spawn(async move {
        if let Err(error) = hold.client().set(hold.path(), data).await {
            tracing::debug!(path = hold.path(), %error, "the revoker's word stays");
        }
    });
}
