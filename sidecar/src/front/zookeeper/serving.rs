//! An attached session and its connection: frames in, answers and events out.

use std::{
    collections::VecDeque,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quorate_wire::{ErrorCode, FRAME_BYTES_MAX, OpCode, ReplyHeader, XID_PING, frame};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    ZookeeperService,
    connection::{Broken, FrameStream},
    received::Held,
    registry::Entry,
    reply::{self, After},
    request::{self, Aside, Asked, Then},
    tag::Tag,
};
use crate::{
    replica::{Item, QueueEnd},
    session::{Attachment, Ended, Output, RequestKind},
    telemetry::metrics::{DetachReason, RequestCounts},
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
/// Memory for answers that a connection keeps between two sends.
const OUTBOX_BYTES_KEPT: usize = 4 * 1024;

/// Serves a session until it or its connection ends.
pub(super) async fn serve(
    attachment: Attachment,
    stream: &mut FrameStream,
    service: &ZookeeperService,
    stats: &Entry,
    stop: CancellationToken,
) {
    let session = attachment.granted().session;
    let patience = Duration::from_millis(u64::from(attachment.granted().timeout_ms));
    let mut serving = Serving {
        attachment,
        stream,
        stats,
        patience,
        asides: VecDeque::new(),
        asked: VecDeque::new(),
        asked_bytes: 0,
        held: service.received.of_connection(),
        then: Then::Continue,
        outbox: BytesMut::new(),
        kinds: service.metrics.zookeeper.requests(),
        stop,
    };
    let end = match serving.run().await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    let reason = end.reason();
    if reason == DetachReason::ClientGone {
        stats.lost();
    }
    debug!(%session, ?end, "a session of the ZooKeeper door is detached");
    service.sessions.metrics().detached(reason);
    // The session is free before its client closes its side.
    drop(serving);
    match end {
        End::LastAnswer(_) => stream.finish().await,
        End::Client(_) | End::Session(_) | End::Stop => stream.close().await,
    }
}

/// Why a session is not served any more.
#[derive(Debug)]
enum End {
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

struct Serving<'a> {
    attachment: Attachment,
    stream: &'a mut FrameStream,
    stats: &'a Entry,
    /// A client that takes nothing for this long has no session any more.
    patience: Duration,
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
    kinds: RequestCounts,
    stop: CancellationToken,
}

/// A request that waits for its answer.
struct Pending {
    since: Instant,
    bytes: usize,
}

impl Serving<'_> {
    async fn run(&mut self) -> Result<std::convert::Infallible, End> {
        let stop = self.stop.clone();
        let mut stopped = pin!(stop.cancelled());
        loop {
            let room = self.has_room();
            // More may have been read than there was room for.
            let taken = room && self.take().await?;
            let receives = room && !taken && self.may_receive()?;
            tokio::select! {
                biased;
                () = &mut stopped => return Err(End::Stop),
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
        let mut requests = Vec::new();
        let mut received_bytes = 0;
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
            self.kinds.add(op);
            self.asides.extend(aside);
            self.then = then;
            requests.push(request);
        }
        if requests.is_empty() {
            return Ok(false);
        }
        self.stats.received(requests.len() as u64, received_bytes);
        self.stats.outstanding(self.asked.len());
        self.kinds.record();
        tokio::select! {
            biased;
            () = self.attachment.submit(requests) => Ok(true),
            // While the member has no room for more writes, nothing of these was taken.
            () = self.stop.cancelled() => Err(End::Stop),
        }
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
                self.flush().await?;
            }
        }
        self.stats.sent(sent);
        batch.record();
        if let Some((tag, zxid)) = last {
            self.stats.answered(tag.op, tag.xid, zxid);
            self.stats.outstanding(self.asked.len());
        }
        self.flush().await?;
        match after {
            After::Continue => Ok(()),
            After::Close(reason) => Err(End::LastAnswer(reason)),
        }
    }

    /// Sends everything in one write. A client that does not take it is stopped being read.
    async fn flush(&mut self) -> Result<(), End> {
        let outbox = std::mem::take(&mut self.outbox);
        tokio::select! {
            biased;
            sent = self.stream.send(&outbox, self.patience) => sent?,
            () = self.stop.cancelled() => return Err(End::Stop),
        }
        self.stats.sent_bytes(outbox.len() as u64);
        if outbox.capacity() <= OUTBOX_BYTES_KEPT.max(2 * outbox.len()) {
            self.outbox = outbox;
            self.outbox.clear();
        }
        Ok(())
    }
}
