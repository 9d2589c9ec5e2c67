//! An attached session and its connection: frames in, answers and events out.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quorate_wire::{ErrorCode, FRAME_BYTES_MAX, OpCode, ReplyHeader, XID_PING, frame};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    ZookeeperService,
    connection::{Broken, FrameStream},
    handshake::Attached,
    received::Held,
    registry::Entry,
    reply::{self, After},
    request::{self, Aside, Asked, Then},
    tag::Tag,
};
use crate::{
    replica::{Item, QueueEnd},
    session::{Attachment, Ended, Output, Request, RequestKind},
    telemetry::metrics::DetachReason,
};

/// Of a frame, before it.
pub(super) const LENGTH_BYTES: u64 = 4;

/// Requests handed on at once; answers that are ready are sent between two such batches.
const BATCH: usize = 256;

/// Requests of one client that are not yet answered; beyond that its socket is not read.
const INFLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Answers are sent once there are so many bytes of them: a client that does not read takes no more memory than this
/// and one answer, besides what waits in its session's queue.
const OUTBOX_BYTES_SENT: usize = 128 * 1024;
/// Memory for answers that a connection keeps between two sends, while it has more to answer.
const OUTBOX_BYTES_KEPT: usize = 4 * 1024;

/// Why a session is not served any more.
#[derive(Debug)]
pub(super) enum End {
    Client(Broken),
    /// An answer, or something that has none, after which the protocol has the connection closed.
    LastAnswer(DetachReason),
    Session(Ended),
    Stop,
}

impl End {
    fn reason(&self) -> DetachReason {
        match self {
            Self::Client(Broken::Gone) => DetachReason::ClientGone,
            Self::Client(Broken::Stuck) | Self::Session(Ended::Queue(QueueEnd::TooSlow)) => DetachReason::TooSlow,
            Self::Client(Broken::Frame(_)) => DetachReason::Protocol,
            Self::LastAnswer(reason) => *reason,
            Self::Session(Ended::Queue(QueueEnd::Session(quorate_tree::SessionEnd::Closed))) => DetachReason::Closed,
            Self::Session(Ended::Queue(QueueEnd::Session(quorate_tree::SessionEnd::Expired))) => DetachReason::Expired,
            Self::Session(Ended::Queue(QueueEnd::Moved)) => DetachReason::Moved,
            Self::Client(Broken::Crowded)
            | Self::Session(Ended::CannotVouch | Ended::Queue(QueueEnd::Replaced))
            | Self::Stop => DetachReason::GoElsewhere,
        }
    }
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        Self::Client(broken)
    }
}

/// A session that is served.
pub(super) struct Serving<'a> {
    attachment: Attachment,
    stream: &'a mut FrameStream,
    service: &'a ZookeeperService,
    stats: &'a Entry,
    /// What the answers to come need besides their tags.
    asides: VecDeque<Aside>,
    /// The requests that are not yet answered, heartbeats left out.
    asked: VecDeque<Pending>,
    /// Of those.
    asked_bytes: usize,
    /// Of those and of what has been read behind them, among all connections.
    held: Held,
    /// What the last request has to say of those behind it.
    then: Then,
    outbox: BytesMut,
    /// Ends it.
    stop: CancellationToken,
}

/// A request that waits for its answer.
struct Pending {
    since: Instant,
    bytes: usize,
}

impl<'a> Serving<'a> {
    /// `stop` ends it, unless the session lasts only as long as something else.
    pub(super) fn new(
        Attached { attachment, while_it_lasts }: Attached,
        stream: &'a mut FrameStream,
        service: &'a ZookeeperService,
        stats: &'a Entry,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            attachment,
            stream,
            service,
            stats,
            asides: VecDeque::new(),
            asked: VecDeque::new(),
            asked_bytes: 0,
            held: service.received.of_connection(),
            then: Then::Continue,
            outbox: BytesMut::new(),
            stop: while_it_lasts.unwrap_or_else(|| stop.clone()),
        }
    }

    /// Serves until the session or its connection ends.
    pub(super) async fn run(&mut self) -> End {
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => End::Stop,
            end = self.converse() => match end {
                Ok(never) => match never {},
                Err(end) => end,
            },
        }
    }

    /// Leaves the session, before its client closes its side. Whether the client has been told the last thing that there
    /// is to say, which it must have time to hear.
    pub(super) fn detach(self, end: End) -> bool {
        let reason = end.reason();
        if reason == DetachReason::ClientGone {
            self.stats.lost();
        }
        let session = self.attachment.granted().session;
        debug!(%session, ?end, "a session of the ZooKeeper door is detached");
        self.service.sessions.metrics().detached(reason);
        matches!(end, End::LastAnswer(_))
    }

    /// May be given up at any point: then the session and its connection are, too.
    async fn converse(&mut self) -> Result<std::convert::Infallible, End> {
        loop {
            let room = self.has_room();
            // More may have been read than there was room for.
            let taken = room && self.take().await?;
            let receives = room && !taken && self.may_receive()?;
            tokio::select! {
                biased;
                output = self.attachment.next() => self.give(output).await?,
                () = std::future::ready(()), if taken => {}
                filled = self.stream.fill(), if receives => filled?,
            }
        }
    }

    fn has_room(&self) -> bool {
        self.then == Then::Continue && self.asked_bytes < INFLIGHT_BYTES_MAX && self.attachment.has_room()
    }

    /// Whether there is memory for more. Without any, a client waits for its answers, or is let go if it has none to
    /// come.
    fn may_receive(&mut self) -> Result<bool, End> {
        if self.held.set(self.stream.buffered_bytes() + self.asked_bytes) {
            return Ok(true);
        }
        if self.asked.is_empty() { Err(Broken::Crowded.into()) } else { Ok(false) }
    }

    /// Hands on what has been read, up to a batch; whether there was anything.
    async fn take(&mut self) -> Result<bool, End> {
        let requests = self.next_batch();
        if requests.is_empty() {
            return Ok(false);
        }
        self.attachment.submit(requests).await;
        Ok(true)
    }

    fn next_batch(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        let mut received_bytes = 0;
        let mut kinds = self.service.metrics.zookeeper.requests();
        let now = Instant::now();
        while self.then == Then::Continue
            && requests.len() < BATCH
            && self.asked_bytes < INFLIGHT_BYTES_MAX
            && let Some(Asked { request, op, bytes, aside, then }) = self.next_asked()
        {
            received_bytes += bytes as u64 + LENGTH_BYTES;
            if !matches!(request.kind, RequestKind::Heartbeat) {
                self.asked.push_back(Pending { since: now, bytes });
                self.asked_bytes += bytes;
            }
            kinds.add(op);
            self.asides.extend(aside);
            self.then = then;
            requests.push(request);
        }
        if !requests.is_empty() {
            self.stats.received(requests.len() as u64, received_bytes);
            self.stats.outstanding(self.asked.len());
            kinds.record();
        }
        requests
    }

    fn next_asked(&mut self) -> Option<Asked> {
        match self.stream.buffered(FRAME_BYTES_MAX) {
            Ok(frame) => Some(request::of_frame(&frame?, self.attachment.granted().session)),
            Err(Broken::Frame(error)) => {
                debug!(peer = %self.stream.peer(), %error, "a frame that is none");
                Some(request::unreadable())
            }
            Err(Broken::Gone | Broken::Stuck | Broken::Crowded) => None,
        }
    }

    /// Sends what the session has to say.
    async fn give(&mut self, output: Output) -> Result<(), End> {
        match output {
            Output::Items(items) => self.give_items(items).await,
            Output::Heartbeat { .. } => {
                let zxid = self.stats.last_zxid();
                frame(&mut self.outbox, |out| {
                    ReplyHeader { xid: XID_PING, zxid, error: ErrorCode::OK }.encode(out);
                });
                self.stats.sent(1);
                self.flush().await
            }
            Output::End(end) => Err(End::Session(end)),
        }
    }

    async fn give_items(&mut self, items: Vec<Item>) -> Result<(), End> {
        let mut items = items.into_iter();
        loop {
            let after = self.encode_some(&mut items);
            self.flush().await?;
            match after {
                After::Close(reason) => return Err(End::LastAnswer(reason)),
                After::Continue if items.as_slice().is_empty() => return Ok(()),
                After::Continue => {}
            }
        }
    }

    /// As many as are sent at once.
    fn encode_some(&mut self, items: &mut std::vec::IntoIter<Item>) -> After {
        let now = Instant::now();
        let stats = self.stats;
        let mut batch = stats.batch();
        let mut last = None;
        let mut after = After::Continue;
        let mut sent = 0;
        for item in items {
            sent += 1;
            let bytes_before = self.outbox.len();
            match item {
                Item::Event(event) => {
                    reply::encode_event(&event, &mut self.outbox);
                    batch.event(self.outbox.len() - bytes_before);
                }
                Item::Reply { tag, zxid, answer } => {
                    let tag = Tag::unpack(tag);
                    let pending = self.asked.pop_front();
                    self.asked_bytes -= pending.as_ref().map_or(0, |pending| pending.bytes);
                    last = Some((tag, zxid));
                    after = reply::encode(tag, zxid, answer, &mut self.asides, &mut self.outbox);
                    let took = pending.map(|pending| now.duration_since(pending.since));
                    batch.answer(tag.op, took, self.outbox.len() - bytes_before);
                    if after != After::Continue {
                        if tag.op == Some(OpCode::Auth) {
                            stats.wrong_credential();
                        }
                        break;
                    }
                    if tag.op == Some(OpCode::Auth) && tag.refusal.is_none() {
                        self.then = Then::Continue;
                    }
                }
            }
            if self.outbox.len() >= OUTBOX_BYTES_SENT {
                break;
            }
        }
        self.stats.sent(sent);
        batch.record();
        if let Some((tag, zxid)) = last {
            self.stats.answered(tag.op, tag.xid, zxid);
            self.stats.outstanding(self.asked.len());
        }
        after
    }

    /// Sends everything in one write. A client that does not take it is stopped being read.
    async fn flush(&mut self) -> Result<(), End> {
        // A client that takes nothing for this long has no session any more.
        let patience = Duration::from_millis(u64::from(self.attachment.granted().timeout_ms));
        self.stream.send(&self.outbox, patience).await?;
        self.stats.sent_bytes(self.outbox.len() as u64);
        let is_kept = !self.asked.is_empty() && self.outbox.capacity() <= OUTBOX_BYTES_KEPT.max(2 * self.outbox.len());
        if is_kept {
            self.outbox.clear();
        } else {
            self.outbox = BytesMut::new();
        }
        Ok(())
    }
}
