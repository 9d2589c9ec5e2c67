//! An attached session and its connection: frames in, answers and events out.

use std::{
    collections::VecDeque,
    pin::pin,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use quorate_wire::{ErrorCode, FRAME_BYTES_MAX, ReplyHeader, XID_PING, frame};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{
    ZookeeperService,
    connection::{Broken, FrameStream},
    registry::{Batch, Entry},
    reply::{self, After},
    request::{self, Aside},
    tag::Tag,
};
use crate::{
    replica::{Item, QueueEnd},
    session::{Attachment, Ended, Output, RequestKind},
    telemetry::metrics::DetachReason,
};

/// Requests handed on at once; answers that are ready are sent between two such batches.
const BATCH: usize = 256;

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
        outbox: BytesMut::new(),
    };
    let end = match serving.run(stop).await {
        Ok(never) => match never {},
        Err(end) => end,
    };
    let reason = end.reason();
    debug!(%session, ?end, "a session of the ZooKeeper door is detached");
    service.sessions.metrics().detached(reason);
    // What was sent is delivered before the end; a client that has gone does not hear of it.
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.finish()).await;
}

/// Why a session is not served any more.
#[derive(Debug)]
enum End {
    Client(Broken),
    /// An answer after which the protocol has the connection closed.
    LastAnswer,
    Session(Ended),
    /// A frame without a header.
    Garbage,
    Stop,
}

impl End {
    fn reason(&self) -> DetachReason {
        match self {
            Self::Client(Broken::Gone) => DetachReason::ClientGone,
            Self::Client(Broken::Stuck) | Self::Session(Ended::Queue(QueueEnd::TooSlow)) => DetachReason::TooSlow,
            Self::Client(Broken::Frame(_)) | Self::Garbage => DetachReason::Protocol,
            Self::LastAnswer => DetachReason::Closed,
            Self::Session(Ended::Queue(QueueEnd::Session(quorate_tree::SessionEnd::Closed))) => DetachReason::Closed,
            Self::Session(Ended::Queue(QueueEnd::Session(quorate_tree::SessionEnd::Expired))) => DetachReason::Expired,
            Self::Session(Ended::Queue(QueueEnd::Moved)) => DetachReason::Moved,
            Self::Session(Ended::CannotVouch | Ended::Queue(QueueEnd::Replaced)) | Self::Stop => {
                DetachReason::GoElsewhere
            }
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
    /// When the requests came that are not yet answered, heartbeats left out.
    asked: VecDeque<Instant>,
    outbox: BytesMut,
}

impl Serving<'_> {
    async fn run(&mut self, stop: CancellationToken) -> Result<std::convert::Infallible, End> {
        let mut stopped = pin!(stop.cancelled());
        loop {
            let room = self.attachment.has_room();
            // More may have been read than there was room for.
            let taken = room && self.take().await?;
            tokio::select! {
                biased;
                () = &mut stopped => return Err(End::Stop),
                output = self.attachment.next() => self.give(output).await?,
                () = std::future::ready(()), if taken => {}
                filled = self.stream.fill(), if room && !taken => filled?,
            }
        }
    }

    /// Hands on what has been read, up to a batch; whether there was anything.
    async fn take(&mut self) -> Result<bool, End> {
        let session = self.attachment.granted().session;
        let mut requests = Vec::new();
        let now = Instant::now();
        while requests.len() < BATCH
            && let Some(frame) = self.stream.buffered(FRAME_BYTES_MAX)?
        {
            let asked = request::of_frame(&frame, session).ok_or(End::Garbage)?;
            if !matches!(asked.request.kind, RequestKind::Heartbeat) {
                self.asked.push_back(now);
            }
            self.asides.extend(asked.aside);
            requests.push(asked.request);
        }
        if requests.is_empty() {
            return Ok(false);
        }
        self.stats.received(requests.len() as u64);
        self.attachment.submit(requests).await;
        Ok(true)
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
        let mut batch = Batch::new();
        let mut last = None;
        let mut after = After::Continue;
        let mut sent = 0;
        for item in items {
            sent += 1;
            match item {
                Item::Event(event) => reply::encode_event(&event, &mut self.outbox),
                Item::Reply { tag, zxid, answer } => {
                    let tag = Tag::unpack(tag);
                    if let Some(asked) = self.asked.pop_front() {
                        batch.add(asked, now);
                    }
                    last = Some((tag, zxid));
                    after = reply::encode(tag, zxid, answer, &mut self.asides, &mut self.outbox);
                    if after != After::Continue {
                        break;
                    }
                }
            }
        }
        self.stats.sent(sent);
        if let Some((tag, zxid)) = last {
            self.stats.answered(tag.op, tag.xid, zxid);
            self.stats.took(&batch);
        }
        self.flush().await?;
        if after == After::Continue { Ok(()) } else { Err(End::LastAnswer) }
    }

    /// Sends everything in one write. A client that does not take it is stopped being read.
    async fn flush(&mut self) -> Result<(), End> {
        let outbox = std::mem::take(&mut self.outbox);
        self.stream.send(&outbox, self.patience).await?;
        if outbox.capacity() <= OUTBOX_BYTES_KEPT.max(2 * outbox.len()) {
            self.outbox = outbox;
            self.outbox.clear();
        }
        Ok(())
    }
}
