//! The task that keeps a client's session: finds a member, attaches, reads what it sends, keeps the lease.
//!
//! One task a client. Everything it takes in is handled at once, in the order of the stream; it waits for
//! nobody. It ends when the client is closed, or when the session is lost and there is to be no other.
//!
//! **Lease.** A heartbeat goes out whenever the last one is a fifth of the timeout old, on a busy stream too,
//! because only answers to heartbeats and attachments are promises: so more than half of the timeout is left for the
//! others to elect a leader when a member dies. A member that has proved nothing for two
//! thirds is left for another. When the lease has run out the session is lost by our own word, and before the
//! next one is opened the old one is closed for good: whatever it had sent can have no effect after that.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quorate_proto::v1::{self, goodbye, reply, request::Op, server_item::Item};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tonic::transport::Channel;

use crate::{
    builder::LinkOptions,
    clock::BootInstant,
    core::Core,
    error::{LostReason, Result},
    op,
    outbox::{Entry, Settled, Shut, Waiter},
    retry::Delays,
    session::SessionView,
    stat::SessionId,
    state::{ChangeReason, SessionState},
    transport::{self, Failure, Incoming},
    watches,
};

/// People are told at most this often that no member serves this client.
const COMPLAINT_PERIOD: Duration = Duration::from_secs(10);

/// Each leaves the lease a little shorter than the whole.
const HEARTBEATS_PER_TIMEOUT: u32 = 5;

/// Starts the task.
pub(crate) fn start(core: &Arc<Core>, options: LinkOptions) {
    let delays = core.retry.endless(options.session_timeout / 8).delays();
    let link = Link {
        core: core.clone(),
        options,
        attached: None,
        unburied: None,
        seen_zxid: 0,
        avoided: None,
        died_young: false,
        delays,
        complained_at: None,
        answers: Vec::new(),
    };
    core.own_tasks.spawn_on(link.run(), &core.runtime);
}

struct Link {
    core: Arc<Core>,
    options: LinkOptions,
    /// The session, whether a stream is open or not.
    attached: Option<Attached>,
    /// A session that was given up by our own word and may still live in the ensemble.
    unburied: Option<v1::SessionKey>,
    /// The greatest zxid ever shown to this client, over all its sessions.
    seen_zxid: u64,
    /// The member that was left last: tried after the others.
    avoided: Option<SocketAddr>,
    /// Whether the last stream proved nothing: then the next attempt waits.
    died_young: bool,
    delays: Delays,
    /// When people were last told that no member serves this client.
    complained_at: Option<Instant>,
    /// Kept for its capacity.
    answers: Vec<(Entry, v1::Reply)>,
}

struct Attached {
    key: v1::SessionKey,
    view: SessionView,
}

/// A stream on which the session is attached.
struct Stream {
    incoming: Incoming,
    address: SocketAddr,
    /// The last time a heartbeat was due.
    heartbeat_at: BootInstant,
    /// When the last promise was asked for that was given.
    proven_at: BootInstant,
}

/// Why there is no stream.
#[derive(Debug)]
enum Ended {
    /// The session may live on: look for a member.
    Broken(ChangeReason, String),
    Lost(LostReason),
    /// The session was closed by us.
    Closed,
    /// Everything ends, whatever is open.
    Stop,
}

impl Link {
    async fn run(mut self) {
        loop {
            let ended = match self.open().await {
                Ok(stream) => self.serve(stream).await,
                Err(ended) => ended,
            };
            match ended {
                Ended::Broken(reason, message) => self.suspend(reason, &message),
                Ended::Lost(reason) => {
                    if !self.lose(reason) {
                        self.core.stop.cancel();
                        return;
                    }
                }
                Ended::Closed | Ended::Stop => break,
            }
        }
        if let Some(attached) = &self.attached {
            attached.view.lose(LostReason::ClientClosed);
        }
        self.core.outbox.lose_session(LostReason::ClientClosed, Some(Shut::Closed));
        self.core.stop.cancel();
        self.core.states.push(SessionState::Closed, ChangeReason::Closed);
    }

    /// The stream is gone and the session lives on.
    fn suspend(&mut self, reason: ChangeReason, message: &str) {
        self.core.outbox.end_stream();
        let Some(attached) = &self.attached else { return };
        let session = attached.view.id();
        tracing::warn!(%session, message, "session suspended");
        let since = self.core.clock.now();
        self.core.states.push(SessionState::Suspended { session, since }, reason);
    }

    /// The session is gone. Whether there is to be another.
    fn lose(&mut self, reason: LostReason) -> bool {
        let last = self.options.single_session || reason == LostReason::Auth;
        if let Some(attached) = self.attached.take() {
            tracing::warn!(session = %attached.view.id(), %reason, "session lost");
            // Holders know first, then those who wait for answers, then those who follow the state.
            attached.view.lose(reason);
            if reason != LostReason::SessionExpired {
                self.unburied = Some(attached.key);
            }
        }
        self.core.outbox.lose_session(reason, last.then_some(Shut::Lost(reason)));
        self.core.states.push(SessionState::Lost { reason }, ChangeReason::Lost(reason));
        if !last {
            self.core.states.push(SessionState::Connecting, ChangeReason::Reopening);
        }
        !last
    }

    /// Attaches the session, or a new one, at some member.
    async fn open(&mut self) -> Result<Stream, Ended> {
        if self.died_young {
            self.pause().await?;
        }
        loop {
            let mut last = None;
            for seed in self.core.endpoints.shuffled() {
                let resolve = tokio::time::timeout(self.options.connect_timeout, seed.resolve());
                let addresses = match self.attend(resolve).await? {
                    Ok(Ok(addresses)) => addresses,
                    Ok(Err(error)) => {
                        self.failed(&seed.to_string(), &error.to_string());
                        continue;
                    }
                    Err(_) => {
                        self.failed(&seed.to_string(), "the name was not resolved in time");
                        continue;
                    }
                };
                for address in addresses {
                    if Some(address) == self.avoided {
                        last = Some((seed.clone(), address));
                    } else if let Some(stream) = self.try_member(&seed, address).await? {
                        return Ok(stream);
                    }
                }
            }
            if let Some((seed, address)) = last
                && let Some(stream) = self.try_member(&seed, address).await?
            {
                return Ok(stream);
            }
            self.pause().await?;
        }
    }

    async fn pause(&mut self) -> Result<(), Ended> {
        let delay = self.delays.next_delay().expect("these delays do not end");
        self.attend(tokio::time::sleep(delay)).await
    }

    fn failed(&mut self, member: &str, message: &str) {
        // A member that is away is an everyday matter; a search that goes on is not.
        if self.complained_at.is_some_and(|at| at.elapsed() < COMPLAINT_PERIOD) {
            tracing::debug!(member, message, "a member does not serve this client");
        } else {
            tracing::warn!(member, message, "a member does not serve this client");
            self.complained_at = Some(Instant::now());
        }
        *self.core.trouble.write() = Some(format!("{member}: {message}"));
    }

    /// Waits for `work`, and meanwhile keeps time: answers what has waited too long, and watches the lease.
    async fn attend<T>(&self, work: impl Future<Output = T>) -> Result<T, Ended> {
        let mut work = std::pin::pin!(work);
        let mut tick = self.ticks();
        loop {
            tokio::select! {
                biased;
                () = self.core.stop.cancelled() => return Err(Ended::Stop),
                done = &mut work => return Ok(done),
                _ = tick.tick() => {
                    self.core.outbox.sweep(self.core.request_timeout);
                    if self.attached.as_ref().is_some_and(|attached| !attached.view.is_live()) {
                        return Err(Ended::Lost(LostReason::LocalDeadline));
                    }
                }
            }
        }
    }

    fn timeout(&self) -> Duration {
        self.attached.as_ref().map_or(self.options.session_timeout, |attached| attached.view.negotiated_timeout())
    }

    fn ticks(&self) -> Interval {
        let period = (self.timeout() / 12).clamp(Duration::from_millis(1), Duration::from_millis(500));
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// One attempt at one address. `None` if it failed and others are worth trying.
    async fn try_member(
        &mut self,
        seed: &crate::endpoints::Seed,
        address: SocketAddr,
    ) -> Result<Option<Stream>, Ended> {
        let within = (self.timeout() / 3).max(Duration::from_millis(500));
        let connect_within = self.options.connect_timeout.min(within);
        let attempt = async {
            let channel = transport::connect(seed, address, connect_within).await?;
            if let Some(key) = &self.unburied {
                self.bury(&channel, key.clone()).await?;
            }
            self.attach(&channel).await
        };
        let buried = self.unburied.is_some();
        let attempt = tokio::time::timeout(within + connect_within, attempt);
        let failure = match self.attend(attempt).await? {
            Ok(Ok((incoming, asked_at, attached, rest))) => {
                if buried {
                    self.unburied = None;
                }
                let stream = Stream { incoming, address, heartbeat_at: asked_at, proven_at: asked_at };
                return self.attached(stream, attached, rest).map(Some);
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Unreachable("it did not answer in time".into()),
        };
        self.core.outbox.end_stream();
        if matches!(failure, Failure::NoSession(_)) && self.attached.is_some() {
            return Err(Ended::Lost(LostReason::SessionExpired));
        }
        self.failed(&address.to_string(), &failure.to_string());
        Ok(None)
    }

    /// Asks for the session, or for a new one.
    async fn attach(
        &self,
        channel: &Channel,
    ) -> Result<(Incoming, BootInstant, v1::Attached, Vec<v1::ServerItem>), Failure> {
        let request = v1::AttachRequest {
            resume: self.attached.as_ref().map(|attached| attached.key.clone()),
            timeout_ms: self.options.session_timeout.as_millis() as u32,
            last_zxid: self.seen_zxid,
            client_name: self.options.client_name.clone(),
        };
        // Before the request leaves, so that the lease is never counted from too late.
        let asked_at = self.core.clock.now();
        let outgoing = self.core.outbox.begin_stream(request);
        let mut incoming = transport::attach(channel, outgoing).await?;
        let first = incoming.next().await?;
        let mut items = first.map(|frame| frame.items).unwrap_or_default().into_iter();
        match items.next().and_then(|item| item.item) {
            Some(Item::Attached(attached)) => Ok((incoming, asked_at, attached, items.collect())),
            Some(Item::Goodbye(goodbye)) => Err(match goodbye.reason() {
                goodbye::Reason::Expired | goodbye::Reason::Closed => Failure::NoSession(goodbye.message),
                _ => Failure::Unreachable(goodbye.message),
            }),
            Some(_) => Err(Failure::Protocol("its first word is not about the attachment".into())),
            None => Err(Failure::Unreachable("it ended the stream".into())),
        }
    }

    /// Closes a session that was given up: from then on nothing that it had sent can take effect.
    async fn bury(&self, channel: &Channel, key: v1::SessionKey) -> Result<(), Failure> {
        let attach = v1::AttachRequest {
            resume: Some(key),
            timeout_ms: self.options.session_timeout.as_millis() as u32,
            last_zxid: self.seen_zxid,
            client_name: self.options.client_name.clone(),
        };
        let close = v1::Request { seq: 1, op: Some(Op::Close(v1::CloseRequest {})), ..v1::Request::default() };
        let frame = v1::ClientFrame { attach: Some(attach), requests: vec![close] };
        let mut incoming = match transport::attach_for(channel, frame).await {
            Ok(incoming) => incoming,
            Err(Failure::NoSession(_)) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        loop {
            let frame = match incoming.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => return Err(Failure::Unreachable("it ended the stream".into())),
                Err(Failure::NoSession(_)) => return Ok(()),
                Err(failure) => return Err(failure),
            };
            for item in frame.items {
                match item.item {
                    Some(Item::Reply(reply)) if matches!(reply.result, Some(reply::Result::Done(_))) => return Ok(()),
                    Some(Item::Reply(v1::Reply { result: Some(reply::Result::Refused(refused)), .. })) => {
                        return match refused.reason() {
                            v1::Refusal::SessionExpired => Ok(()),
                            _ => Err(Failure::Unreachable(refused.message)),
                        };
                    }
                    Some(Item::Goodbye(goodbye)) => {
                        return match goodbye.reason() {
                            goodbye::Reason::Closed | goodbye::Reason::Expired => Ok(()),
                            _ => Err(Failure::Unreachable(goodbye.message)),
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    /// The member has taken the session up.
    fn attached(&mut self, stream: Stream, attached: v1::Attached, rest: Vec<v1::ServerItem>) -> Result<Stream, Ended> {
        let key = attached.key.clone().unwrap_or_default();
        let session = SessionId(key.session_id);
        let reason = match &self.attached {
            Some(resumed) => {
                if resumed.view.id() != session {
                    return Err(Ended::Lost(LostReason::Protocol));
                }
                if !resumed.view.prove(stream.proven_at) {
                    return Err(Ended::Lost(LostReason::LocalDeadline));
                }
                ChangeReason::Resumed
            }
            None => {
                let timeout = Duration::from_millis(attached.timeout_ms.into());
                let epoch = self.core.states.epoch() + 1;
                let view = SessionView::new(session, epoch, timeout, self.core.clock.clone(), stream.proven_at);
                *self.core.session.write() = Some(view.clone());
                self.attached = Some(Attached { key, view });
                ChangeReason::Opened
            }
        };
        tracing::info!(%session, member = attached.member_id, address = %stream.address, ?reason, "session attached");
        let mut setup: Vec<Entry> = self
            .options
            .credentials
            .iter()
            .map(|credential| {
                let credential =
                    v1::AuthRequest { scheme: credential.scheme.clone(), credential: credential.secret.clone().into() };
                Entry::new(Op::Auth(credential), Waiter::Stream)
            })
            .collect();
        setup.extend(self.core.watches.rearm());
        self.core.outbox.open(&attached, setup).map_err(Ended::Lost)?;
        *self.core.trouble.write() = None;
        self.died_young = true;
        self.avoided = None;
        self.core.states.push(SessionState::Connected { session }, reason);
        let mut stream = stream;
        match self.take(&mut stream, rest) {
            Some(ended) => Err(ended),
            None => Ok(stream),
        }
    }

    /// Reads until the stream ends.
    async fn serve(&mut self, mut stream: Stream) -> Ended {
        let timeout = self.timeout();
        let mut tick = self.ticks();
        loop {
            let ended = tokio::select! {
                biased;
                () = self.core.stop.cancelled() => return Ended::Stop,
                frame = stream.incoming.next() => match frame {
                    Ok(Some(frame)) => self.take(&mut stream, frame.items),
                    Ok(None) => Some(broken("the member ended the stream")),
                    Err(failure) => Some(broken(&failure.to_string())),
                },
                _ = tick.tick() => self.tick(&mut stream, timeout),
            };
            match ended {
                None => {}
                Some(ended) => {
                    self.avoided = Some(stream.address);
                    return ended;
                }
            }
        }
    }

    fn view(&self) -> &SessionView {
        &self.attached.as_ref().expect("a stream is served for a session").view
    }

    fn tick(&mut self, stream: &mut Stream, timeout: Duration) -> Option<Ended> {
        self.core.outbox.sweep(self.core.request_timeout);
        if !self.view().is_live() {
            return Some(Ended::Lost(LostReason::LocalDeadline));
        }
        let now = self.core.clock.now();
        if now.saturating_duration_since(stream.proven_at) >= timeout * 2 / 3 {
            return Some(broken("the member did not answer heartbeats"));
        }
        if now.saturating_duration_since(stream.heartbeat_at) >= timeout / HEARTBEATS_PER_TIMEOUT {
            stream.heartbeat_at = now;
            self.core.outbox.heartbeat();
        }
        None
    }

    /// Takes in what came in one frame.
    fn take(&mut self, stream: &mut Stream, items: Vec<v1::ServerItem>) -> Option<Ended> {
        // After a sleep of the machine the first thing to see may be an old frame.
        if !self.view().is_live() {
            return Some(Ended::Lost(LostReason::LocalDeadline));
        }
        let core = self.core.clone();
        let mut answers = std::mem::take(&mut self.answers);
        let mut ended = None;
        let waker = {
            let mut flight = core.outbox.flight();
            for item in items {
                ended = match item.item {
                    Some(Item::Reply(reply)) => match flight.settle(reply) {
                        Settled::Answer(entry, reply) => {
                            self.seen_zxid = self.seen_zxid.max(reply.zxid);
                            match entry.waiter {
                                Waiter::Caller(_) => {
                                    if watches::may_arm(entry.op()) {
                                        core.watches.answered(entry.op(), &reply);
                                    }
                                    let closed = matches!(entry.op(), Op::Close(_));
                                    answers.push((entry, reply));
                                    closed.then_some(Ended::Closed)
                                }
                                Waiter::Stream => self.set_up(entry.op(), &reply),
                            }
                        }
                        Settled::Heartbeat(asked_at) => self.proven(stream, asked_at),
                        Settled::Again => Some(broken("the session was attached elsewhere, or is out of step")),
                        Settled::Expired => Some(Ended::Lost(LostReason::SessionExpired)),
                        Settled::OutOfOrder { expected } => {
                            tracing::error!(expected, "a reply is out of order");
                            Some(broken("a reply is out of order"))
                        }
                    },
                    Some(Item::Event(event)) => {
                        self.seen_zxid = self.seen_zxid.max(event.zxid);
                        core.watches.event(event);
                        None
                    }
                    Some(Item::Attached(_)) => Some(broken("the member attached the session twice")),
                    Some(Item::Goodbye(goodbye)) => Some(farewell(&goodbye)),
                    // Of a newer server.
                    None => None,
                };
                if ended.is_some() {
                    break;
                }
            }
            core.watches.seen(self.seen_zxid);
            flight.take_waker()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        for (entry, reply) in answers.drain(..) {
            let answer = match reply.result {
                Some(reply::Result::Refused(refused)) => Err(op::refused(entry.op(), refused)),
                _ => Ok(reply),
            };
            entry.answer(answer);
        }
        self.answers = answers;
        ended
    }

    /// The answer to what this task has sent by itself.
    fn set_up(&mut self, op: &Op, reply: &v1::Reply) -> Option<Ended> {
        match (op, &reply.result) {
            (Op::Auth(_), Some(reply::Result::Refused(refused))) => {
                tracing::error!(message = refused.message, "a credential was not accepted");
                return Some(Ended::Lost(LostReason::Auth));
            }
            (Op::Rearm(request), _) => self.core.watches.rearmed(request, reply),
            _ => {}
        }
        None
    }

    /// A promise was given that was asked for at this moment.
    fn proven(&mut self, stream: &mut Stream, asked_at: BootInstant) -> Option<Ended> {
        if self.died_young {
            self.died_young = false;
            self.delays.reset();
        }
        stream.proven_at = stream.proven_at.max(asked_at);
        if self.view().prove(asked_at) { None } else { Some(Ended::Lost(LostReason::LocalDeadline)) }
    }
}

fn broken(message: &str) -> Ended {
    Ended::Broken(ChangeReason::ConnectionLost, message.to_owned())
}

/// What the member's last word means.
fn farewell(goodbye: &v1::Goodbye) -> Ended {
    let message = if goodbye.message.is_empty() { goodbye.reason().as_str_name() } else { &goodbye.message };
    match goodbye.reason() {
        // Whoever closed it, it is gone. What we close ourselves ends with the answer to that.
        goodbye::Reason::Expired | goodbye::Reason::Closed => Ended::Lost(LostReason::SessionExpired),
        goodbye::Reason::GoElsewhere => Ended::Broken(ChangeReason::MemberLeft, message.to_owned()),
        goodbye::Reason::Protocol => {
            tracing::error!(message, "the member says that this client broke the protocol");
            broken(message)
        }
        goodbye::Reason::Moved | goodbye::Reason::TooSlow | goodbye::Reason::Unspecified => broken(message),
    }
}
