//! One attached session: requests in, answers and events out, in the order that was promised.

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::FutureExt as _;
use quorate_tree::{Author, Identity, Op, SessionId, Zxid};
use tokio::{sync::TryAcquireError, task::JoinHandle, time::Sleep};
use tracing::debug;

use super::{Request, RequestKind, Sessions, identity, in_order::InOrder, weight};
use crate::{
    clock::{Clock, Moment},
    replica::{Answer, Completion, Declined, Item, QueueEnd, SessionQueue, SlotId, Submit, SubmitKind, Taken},
};

/// What a session was granted.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) session: SessionId,
    pub(crate) password: Bytes,
    pub(crate) timeout_ms: u32,
    pub(crate) attachment: u64,
    pub(crate) zxid: Zxid,
    pub(crate) next_write: u64,
}

/// What matters of the client and its connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client {
    /// Whether it numbers its writes.
    pub(super) numbered: bool,
    pub(super) address: Option<IpAddr>,
}

/// Something for the door to send.
#[derive(Debug)]
pub(crate) enum Output {
    /// Answers and events, in order.
    Items(Vec<Item>),
    /// The answer to a heartbeat, outside that order.
    Heartbeat { tag: u64 },
    /// Nothing more.
    End(Ended),
}

/// Why a session is no longer served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It ended, moved, or its client was too slow.
    Queue(QueueEnd),
    /// The leader has not vouched for it in time: nothing more may be said to it, not even this.
    CannotVouch,
}

/// The tag of a touch that is a heartbeat, when it came, and whether the leader vouched.
type Touched = (Option<u64>, Moment, bool);

/// One attached session, held by its connection. Dropping it forgets its watches and what it has in flight; the
/// session lives on.
pub(crate) struct Attachment {
    sessions: Arc<Sessions>,
    queue: Arc<SessionQueue>,
    granted: Granted,
    identities: Arc<[Identity]>,
    /// Nothing is sent from here on, unless a heartbeat is acknowledged before.
    serve_until: Moment,
    /// Goes off then, or before: it is not set anew for each heartbeat.
    alarm: Pin<Box<Sleep>>,
    /// Barriers asked for, with the last slot each releases. The leader answers them in order.
    barriers: InOrder<Option<SlotId>>,
    /// Touches not yet acknowledged. The leader does that in order.
    touches: InOrder<Touched>,
    touched_at: Moment,
    /// The first numbered write that was declined: all later ones are declined too, until it comes again. So a write
    /// never overtakes one that was not taken.
    declined_from: Option<u64>,
    numbered: bool,
    /// Whether its reads have just taken long: others come first.
    read_long: bool,
    /// What was taken and holds very many names, while they are brought in order. Ends by itself.
    sorting: Option<JoinHandle<Taken>>,
    /// Whether only this member knows the session. Then nothing is agreed on: it is vouched for by its client being
    /// heard, and it only reads.
    here_alone: bool,
}

/// Heartbeats of one session that may wait for the leader at the same time.
const HEARTBEATS_MAX: usize = 16;
/// A client that sends only requests is vouched for this often in the time of its timeout.
const TOUCHES_PER_TIMEOUT: u64 = 8;

impl Attachment {
    pub(super) fn new(
        sessions: Arc<Sessions>,
        queue: Arc<SessionQueue>,
        granted: Granted,
        asked_at: Moment,
        client: Client,
    ) -> Self {
        let identities: Arc<[Identity]> = client.address.map(identity::of_address).into_iter().collect();
        queue.set_identities(identities.clone());
        let serve_until = asked_at + serving_time(granted.timeout_ms);
        Self {
            sessions,
            queue,
            granted,
            identities,
            serve_until,
            alarm: Box::pin(tokio::time::sleep(serve_until.remaining())),
            barriers: InOrder::default(),
            touches: InOrder::default(),
            touched_at: asked_at,
            declined_from: None,
            numbered: client.numbered,
            read_long: false,
            sorting: None,
            here_alone: false,
        }
    }

    /// Of a session that only this member knows.
    pub(super) fn new_here(
        sessions: Arc<Sessions>,
        queue: Arc<SessionQueue>,
        granted: Granted,
        asked_at: Moment,
        client: Client,
    ) -> Self {
        let mut attachment = Self::new(sessions, queue, granted, asked_at, client);
        attachment.here_alone = true;
        attachment
    }

    pub(crate) fn granted(&self) -> &Granted {
        &self.granted
    }

    /// The password of the session, which the client is told once and nobody needs afterwards.
    pub(crate) fn take_password(&mut self) -> Bytes {
        std::mem::take(&mut self.granted.password)
    }

    /// Whether the door may read more from its socket.
    pub(crate) fn has_room(&self) -> bool {
        self.queue.in_flight() < self.sessions.limits.session_inflight_max && self.touches.len() < HEARTBEATS_MAX
    }

    /// Takes requests, in order. Waits while the member has as many writes in flight as it may.
    ///
    /// Not cancel safe: dropping it may leave some of the requests taken and others not. Doors call it outside any
    /// `select!` condition.
    pub(crate) async fn submit(&mut self, requests: Vec<Request>) {
        let mut submits = Vec::with_capacity(requests.len());
        let mut writes = Vec::new();
        let mut barrier = false;
        for request in requests {
            let tag = request.tag;
            if self.here_alone
                && let Some(answer) = without_majority(&request.kind)
            {
                submits.push(Submit { tag, kind: SubmitKind::Ready(answer) });
                continue;
            }
            let kind = match request.kind {
                RequestKind::Read { read, linearizable } => {
                    barrier |= linearizable;
                    SubmitKind::Read { read, identities: self.identities.clone(), barrier: linearizable }
                }
                RequestKind::Write(op) => match self.decline(&op, request.write.map(|write| write.number)) {
                    Some(declined) => SubmitKind::Ready(Answer::Declined(declined)),
                    None => {
                        let author = Author {
                            session: self.granted.session,
                            attachment: self.granted.attachment,
                            write: request.write,
                            identities: self.identities.clone(),
                        };
                        writes.push(Write {
                            at: submits.len() as u64,
                            author,
                            permits: weight::permits(&op),
                            op,
                            traceparent: Some(request.traceparent).filter(|trace| !trace.is_empty()),
                        });
                        SubmitKind::Write
                    }
                },
                RequestKind::Auth { scheme, credential } => SubmitKind::Ready(self.authenticate(&scheme, &credential)),
                RequestKind::WhoAmI => SubmitKind::Ready(Answer::Identities(self.identities.to_vec())),
                RequestKind::Answered(answer) => SubmitKind::Ready(answer),
                RequestKind::Heartbeat => {
                    self.touch(Some(tag));
                    continue;
                }
            };
            submits.push(Submit { tag, kind });
        }
        if submits.is_empty() {
            return;
        }
        self.heard();
        let permits_wanted = writes.iter().map(|write| write.permits).sum::<u32>();
        let all = self.sessions.writes.clone();
        let permits = match all.clone().try_acquire_many_owned(permits_wanted) {
            Ok(permits) => Ok(permits),
            // Rare, and not small.
            Err(TryAcquireError::NoPermits) => Box::pin(all.acquire_many_owned(permits_wanted)).await,
            Err(TryAcquireError::Closed) => return,
        };
        let Ok(mut permits) = permits else { return };
        let last = submits.len() as u64 - 1;
        let first = self.sessions.replica.submit(&self.queue, submits);
        for write in writes {
            let permit = permits.split(write.permits as usize).expect("permits were taken for each write");
            let completion = Completion::Write { queue: self.queue.clone(), slot: SlotId(first.0 + write.at), permit };
            self.sessions.ensemble.propose(write.author, write.op, write.traceparent, completion);
        }
        if barrier {
            self.ask_barrier(SlotId(first.0 + last));
        }
    }

    /// The next thing to send.
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Output {
        loop {
            // First, for it lets the session go on: also one that is never silent must be vouched for.
            while let Some(touched) = self.touches.next().now_or_never() {
                if let Some(heartbeat) = self.vouched(touched) {
                    return heartbeat;
                }
            }
            if std::mem::take(&mut self.read_long) {
                tokio::task::yield_now().await;
            }
            let taken = match self.sorting.as_mut() {
                // Nothing else is taken meanwhile, so that nothing overtakes.
                Some(sorting) => {
                    let Ok(taken) = sorting.await else { return Output::End(Ended::CannotVouch) };
                    self.sorting = None;
                    taken
                }
                None => {
                    let taken = self.queue.take();
                    if !taken.is_in_order() {
                        self.sorting = Some(tokio::task::spawn_blocking(|| taken.in_order()));
                        continue;
                    }
                    taken
                }
            };
            if self.serve_until.has_passed() {
                debug!(session = %self.granted.session, "cannot vouch for the session any more");
                return Output::End(Ended::CannotVouch);
            }
            if let Some(waited) = taken.event_waited {
                self.sessions.metrics.watch_delivery.record(waited);
            }
            if taken.held_back {
                self.sessions.replica.resume(&self.queue);
                self.read_long = true;
            }
            if !taken.items.is_empty() {
                if taken.end.is_some() {
                    // The end is found again by the next call.
                    self.queue.wake();
                }
                return Output::Items(taken.items);
            }
            if let Some(end) = taken.end {
                return Output::End(Ended::Queue(end));
            }
            tokio::select! {
                biased;
                touched = self.touches.next() => {
                    if let Some(heartbeat) = self.vouched(touched) {
                        return heartbeat;
                    }
                }
                released = self.barriers.next() => {
                    if let Some(last) = released {
                        self.sessions.replica.release(&self.queue, last);
                    }
                }
                () = self.queue.ready() => {}
                () = &mut self.alarm => {
                    let remaining = self.serve_until.remaining();
                    self.alarm.as_mut().reset(tokio::time::Instant::now() + remaining);
                }
            }
        }
    }

    /// The leader has acknowledged a touch, or never will; the answer if it was a heartbeat.
    fn vouched(&mut self, (tag, came_at, vouched): Touched) -> Option<Output> {
        if !vouched {
            return None;
        }
        self.serve_until = self.serve_until.max(came_at + serving_time(self.granted.timeout_ms));
        tag.map(|tag| Output::Heartbeat { tag })
    }

    /// Whether a write must be declined before it is proposed.
    fn decline(&mut self, op: &Op, number: Option<u64>) -> Option<Declined> {
        // A full disk keeps sessions: they are opened, kept and closed as ever.
        if matches!(op, Op::CloseSession) {
            return None;
        }
        let refused = self.sessions.ensemble.writes_refused();
        let Some(number) = number.filter(|_| self.numbered) else {
            return refused.then_some(Declined::DiskFull);
        };
        match self.declined_from {
            Some(from) if number > from => return Some(Declined::DiskFull),
            _ => self.declined_from = None,
        }
        if refused {
            self.declined_from = Some(number);
        }
        refused.then_some(Declined::DiskFull)
    }

    fn authenticate(&mut self, scheme: &str, credential: &[u8]) -> Answer {
        if scheme == identity::ADDRESS_SCHEME && self.identities.iter().any(|known| known.scheme == scheme) {
            // What it says of itself does not count, and what it is, is known.
            return Answer::Done;
        }
        if credential.len() > identity::IDENTITIES_BYTES_MAX {
            return Answer::Declined(Declined::AuthFailed);
        }
        let Some(new) = identity::of_credential(scheme, credential, self.sessions.super_digest.as_ref()) else {
            return Answer::Declined(Declined::AuthFailed);
        };
        let mut identities = self.identities.to_vec();
        for identity in new {
            if !identities.contains(&identity) {
                identities.push(identity);
            }
        }
        if identity::bytes(&identities) > identity::IDENTITIES_BYTES_MAX {
            return Answer::Declined(Declined::AuthFailed);
        }
        self.identities = identities.into();
        self.queue.set_identities(self.identities.clone());
        Answer::Done
    }

    /// Whatever comes from a client shows that it lives: some clients send no heartbeat while they have other things
    /// to say.
    fn heard(&mut self) {
        let pause = Duration::from_millis(u64::from(self.granted.timeout_ms) / TOUCHES_PER_TIMEOUT);
        if self.touches.is_empty() && Clock::now().since(self.touched_at) >= pause {
            self.touch(None);
        }
    }

    fn touch(&mut self, tag: Option<u64>) {
        let came_at = Clock::now();
        self.touched_at = came_at;
        if self.here_alone {
            self.touches.push(std::future::ready((tag, came_at, true)));
            return;
        }
        let touched = self.sessions.ensemble.touch(self.granted.session);
        self.touches.push(async move { (tag, came_at, touched.await.is_ok()) });
    }

    fn ask_barrier(&mut self, last: SlotId) {
        // Asked for now, not when those before it are answered.
        let caught_up = self.sessions.catch_up();
        self.barriers.push(async move { caught_up.await.ok().map(|()| last) });
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.sessions.replica.detach(&self.queue);
    }
}

/// What becomes at once of a request that cannot be done without a majority.
fn without_majority(request: &RequestKind) -> Option<Answer> {
    match request {
        RequestKind::Write(Op::CloseSession) => Some(Answer::Done),
        RequestKind::Write(_) | RequestKind::Read { linearizable: true, .. } => {
            Some(Answer::Declined(Declined::OnlyReads))
        }
        RequestKind::Read { .. }
        | RequestKind::Auth { .. }
        | RequestKind::WhoAmI
        | RequestKind::Answered(_)
        | RequestKind::Heartbeat => None,
    }
}

struct Write {
    at: u64,
    author: Author,
    permits: u32,
    op: Op,
    traceparent: Option<String>,
}

/// How long a promise of the leader lets a member serve a session: nine tenths of its timeout.
fn serving_time(timeout_ms: u32) -> Duration {
    Duration::from_millis(u64::from(timeout_ms) * 9 / 10)
}
