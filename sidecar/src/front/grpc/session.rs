//! `quorate.v1.Session`: one stream, one session.
//!
//! Each stream has one task (`grpc session`), owned by the service's tracker and stopped by its token. It reads the
//! client's frames only while the session has room and the client takes what is sent, so a client that stops
//! reading is stopped being read.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use quorate_proto::v1::{
    self as proto, ClientFrame, Goodbye, ServerFrame, ServerItem, goodbye::Reason, server_item::Item as Sent,
    session_server::Session,
};
use quorate_tree::{SessionEnd, SessionId, Zxid};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Request, Response, Status, Streaming};
use tracing::{Span, debug, warn};

use super::convert;
use crate::{
    replica::{Item, QueueEnd},
    session::{AttachError, AttachRequest, Attachment, Ended, Output, Resume, Sessions},
    telemetry::{metrics::DetachReason, traces},
};

/// The first frame must come this soon after the stream was opened.
const FIRST_FRAME_WITHIN: Duration = Duration::from_secs(10);
/// A last word waits this long for the client to take what came before.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// Frames that wait for the client's window to open; beyond that the session's task waits.
const FRAMES_WAITING: usize = 2;
/// A frame carries at most this many items, or this many bytes, or a single item.
const FRAME_ITEMS_MAX: usize = 256;
const FRAME_BYTES: usize = 256 * 1024;
/// Requests of one frame.
const FRAME_REQUESTS_MAX: usize = 1024;
/// A client's name is for people; more than this is cut.
const CLIENT_NAME_BYTES_MAX: usize = 256;

/// The service behind the session stream.
#[derive(Clone, Debug)]
pub(crate) struct SessionService {
    sessions: Arc<Sessions>,
    member_id: u8,
    frame_bytes_max: usize,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl SessionService {
    /// `stop` ends every stream with a goodbye; `tracker` is done when all have ended.
    pub(crate) fn new(
        sessions: Arc<Sessions>,
        member_id: u8,
        frame_bytes_max: usize,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { sessions, member_id, frame_bytes_max, tracker, stop }
    }

    fn attached(&self, attachment: &mut Attachment) -> ServerItem {
        let password = attachment.take_password();
        let granted = attachment.granted();
        convert::item(Sent::Attached(proto::Attached {
            key: Some(proto::SessionKey { session_id: granted.session.0, password }),
            timeout_ms: granted.timeout_ms,
            attachment: granted.attachment,
            zxid: granted.zxid.0,
            member_id: self.member_id.into(),
            next_write: granted.next_write,
            inflight_max: u32::try_from(self.sessions.limits().session_inflight_max).unwrap_or(u32::MAX),
            frame_bytes_max: u32::try_from(self.frame_bytes_max).unwrap_or(u32::MAX),
        }))
    }
}

#[tonic::async_trait]
impl Session for SessionService {
    type AttachStream = ReceiverStream<Result<ServerFrame, Status>>;

    async fn attach(&self, request: Request<Streaming<ClientFrame>>) -> Result<Response<Self::AttachStream>, Status> {
        let address = request.remote_addr().map(|address| address.ip());
        let mut inbound = request.into_inner();
        let first = tokio::time::timeout(FIRST_FRAME_WITHIN, inbound.message())
            .await
            .map_err(|_elapsed| Status::deadline_exceeded("the first frame did not come in time"))??
            .ok_or_else(|| Status::invalid_argument("the stream ended before its first frame"))?;
        let (wanted, requests) = (first.attach, first.requests);
        let wanted = wanted.ok_or_else(|| Status::invalid_argument("the first frame must carry `attach`"))?;
        let mut attachment = self.sessions.attach(attach_request(wanted, address)).await.map_err(status_of)?;
        debug!(session = %attachment.granted().session, "session attached");

        let (frames, outbound) = mpsc::channel(FRAMES_WAITING);
        let hello = ServerFrame { items: vec![self.attached(&mut attachment)] };
        let mut stream = SessionStream {
            patience: Duration::from_millis(attachment.granted().timeout_ms.into()),
            attachment,
            inbound,
            frames,
            last_seq: 0,
            spans: HashMap::new(),
            sessions: self.sessions.clone(),
            stop: self.stop.clone(),
        };
        // A block that owns the stream: a function that takes it would have room for it twice.
        self.tracker.spawn(async move { stream.run(hello, requests).await });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

/// One session's stream, as its task sees it.
struct SessionStream {
    attachment: Attachment,
    /// A client that takes nothing for this long has no session any more.
    patience: Duration,
    inbound: Streaming<ClientFrame>,
    frames: mpsc::Sender<Result<ServerFrame, Status>>,
    /// Requests are numbered without holes; this was the last.
    last_seq: u64,
    /// Of requests whose caller is traced: open from here to the reply.
    spans: HashMap<u64, Span>,
    sessions: Arc<Sessions>,
    stop: CancellationToken,
}

/// Why a stream ends.
enum End {
    /// The client has gone, or half closed: nothing more will be asked.
    Client,
    /// With a last word.
    Goodbye(Reason, String),
    /// Without a word.
    Silent,
    /// The client did not take what was sent to it for as long as its session lives without a word from it.
    Stuck,
}

impl End {
    fn reason(&self) -> DetachReason {
        match self {
            Self::Client => DetachReason::ClientGone,
            Self::Silent => DetachReason::GoElsewhere,
            Self::Stuck => DetachReason::TooSlow,
            Self::Goodbye(reason, _) => match reason {
                Reason::Closed => DetachReason::Closed,
                Reason::Expired => DetachReason::Expired,
                Reason::Moved => DetachReason::Moved,
                Reason::TooSlow => DetachReason::TooSlow,
                Reason::Protocol => DetachReason::Protocol,
                Reason::GoElsewhere | Reason::Unspecified => DetachReason::GoElsewhere,
            },
        }
    }
}

impl SessionStream {
    async fn run(&mut self, hello: ServerFrame, requests: Vec<proto::Request>) {
        let end = match self.serve(hello, requests).await {
            Ok(never) => match never {},
            Err(end) => end,
        };
        self.sessions.metrics().detached(end.reason());
        // Boxed, as it happens once.
        Box::pin(self.finish(end)).await;
    }

    async fn finish(&mut self, end: End) {
        let session = self.attachment.granted().session;
        match end {
            End::Client => debug!(%session, "the client ended the stream"),
            End::Stuck => debug!(%session, "the client takes nothing"),
            End::Silent => {
                let status = Status::unavailable("this member cannot vouch for the session; attach to another one");
                // The client may be gone already.
                let _ = self.frames.try_send(Err(status));
            }
            End::Goodbye(reason, message) => {
                if reason == Reason::Protocol {
                    warn!(%session, message, "closing a stream that broke the protocol");
                }
                let goodbye = convert::item(Sent::Goodbye(Goodbye { reason: reason.into(), message }));
                let last = self.frames.send(Ok(ServerFrame { items: vec![goodbye] }));
                // A client that takes nothing does not get a last word either.
                let _ = tokio::time::timeout(GOODBYE_WITHIN, last).await;
            }
        }
    }

    async fn serve(
        &mut self,
        hello: ServerFrame,
        requests: Vec<proto::Request>,
    ) -> Result<std::convert::Infallible, End> {
        self.send(hello).await?;
        self.take(requests).await?;
        let mut half_closed = false;
        loop {
            let room = !half_closed && self.attachment.has_room();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    return Err(End::Goodbye(Reason::GoElsewhere, "this member is shutting down".into()));
                }
                output = self.attachment.next() => self.give(output).await?,
                frame = self.inbound.message(), if room => match frame {
                    Ok(Some(ClientFrame { attach: None, requests })) => self.take(requests).await?,
                    Ok(Some(ClientFrame { attach: Some(_), .. })) => {
                        return Err(End::Goodbye(Reason::Protocol, "only the first frame may carry `attach`".into()));
                    }
                    // What was asked is still answered; the client ends it by dropping the stream.
                    Ok(None) => half_closed = true,
                    Err(_gone) => return Err(End::Client),
                },
                () = self.frames.closed() => return Err(End::Client),
            }
        }
    }

    /// Hands the client's requests on.
    async fn take(&mut self, requests: Vec<proto::Request>) -> Result<(), End> {
        let broken = |message: String| End::Goodbye(Reason::Protocol, message);
        if requests.len() > FRAME_REQUESTS_MAX {
            return Err(broken(format!("a frame has {} requests, {FRAME_REQUESTS_MAX} are allowed", requests.len())));
        }
        let mut taken = Vec::with_capacity(requests.len());
        for request in requests {
            let expected = self.last_seq + 1;
            if request.seq != expected {
                return Err(broken(format!("request {} came where {expected} was due", request.seq)));
            }
            self.last_seq = expected;
            let mut request = convert::request(request).map_err(|malformed| broken(malformed.to_string()))?;
            if !request.traceparent.is_empty() {
                request.traceparent = self.begin_span(request.tag, &request.traceparent);
            }
            taken.push(request);
        }
        self.attachment.submit(taken).await;
        Ok(())
    }

    /// Continues the caller's trace, and gives the context for those who continue this one.
    fn begin_span(&mut self, tag: u64, caller: &str) -> String {
        let session = self.attachment.granted().session;
        let span = tracing::info_span!(target: "quorate", "quorate.request", %session);
        traces::continue_from(&span, caller);
        let onward = traces::traceparent(&span);
        self.spans.insert(tag, span);
        onward
    }

    /// Sends what the session has to say.
    async fn give(&mut self, output: Output) -> Result<(), End> {
        match output {
            Output::Items(items) => {
                let mut frame = ServerFrame::default();
                let mut bytes = 0;
                for item in items {
                    let item_bytes = size_of_item(&item);
                    if !frame.items.is_empty()
                        && (frame.items.len() == FRAME_ITEMS_MAX || bytes + item_bytes > FRAME_BYTES)
                    {
                        self.send(std::mem::take(&mut frame)).await?;
                        bytes = 0;
                    }
                    bytes += item_bytes;
                    frame.items.push(match item {
                        Item::Reply { tag, zxid, answer } => {
                            if !self.spans.is_empty() {
                                self.spans.remove(&tag);
                            }
                            convert::reply_item(tag, zxid, answer)
                        }
                        Item::Event(event) => convert::event_item(&event),
                    });
                }
                self.send(frame).await
            }
            Output::Heartbeat { tag } => self.send(heartbeat(tag)).await,
            Output::End(Ended::CannotVouch) => Err(End::Silent),
            Output::End(Ended::Queue(end)) => {
                let (reason, message) = farewell(end);
                Err(End::Goodbye(reason, message.into()))
            }
        }
    }

    /// Waits while the client does not take what was sent before.
    async fn send(&mut self, frame: ServerFrame) -> Result<(), End> {
        let frame = match self.frames.try_send(Ok(frame)) {
            Ok(()) => {
                // What never waits lets others run, too.
                tokio::task::coop::consume_budget().await;
                return Ok(());
            }
            Err(TrySendError::Closed(_)) => return Err(End::Client),
            Err(TrySendError::Full(frame)) => frame,
        };
        // Boxed, as it is rare and has a timer: an idle stream has no room for it.
        match Box::pin(tokio::time::timeout(self.patience, self.frames.send(frame))).await {
            Ok(sent) => sent.map_err(|_gone| End::Client),
            Err(_elapsed) => Err(End::Stuck),
        }
    }
}

fn heartbeat(tag: u64) -> ServerFrame {
    // Outside the order of the stream, so it shows no state: zxid 0.
    let done = proto::Reply { seq: tag, zxid: 0, result: Some(proto::reply::Result::Done(proto::Done {})) };
    ServerFrame { items: vec![convert::item(Sent::Reply(done))] }
}

fn size_of_item(item: &Item) -> usize {
    match item {
        Item::Reply { answer, .. } => answer.bytes(),
        Item::Event(event) => event.path.len() + 16,
    }
}

fn farewell(end: QueueEnd) -> (Reason, &'static str) {
    match end {
        QueueEnd::Session(SessionEnd::Closed) => (Reason::Closed, "the session was closed"),
        QueueEnd::Session(SessionEnd::Expired) => (Reason::Expired, "the session has expired; open a new one"),
        QueueEnd::Moved => (Reason::Moved, "the session was attached elsewhere"),
        QueueEnd::TooSlow => (Reason::TooSlow, "this client did not take its answers and events; attach again"),
        QueueEnd::Replaced => (Reason::GoElsewhere, "this member took over a snapshot; attach again"),
    }
}

fn attach_request(wanted: proto::AttachRequest, address: Option<IpAddr>) -> AttachRequest {
    let mut client_name = wanted.client_name;
    if client_name.len() > CLIENT_NAME_BYTES_MAX {
        let end = (0..=CLIENT_NAME_BYTES_MAX).rev().find(|at| client_name.is_char_boundary(*at)).unwrap_or(0);
        client_name.truncate(end);
    }
    AttachRequest {
        resume: wanted.resume.map(|key| Resume { session: SessionId(key.session_id), password: key.password }),
        timeout_ms: wanted.timeout_ms,
        last_zxid: Zxid(wanted.last_zxid),
        client_name,
        numbered: true,
        address,
    }
}

fn status_of(error: AttachError) -> Status {
    match error {
        AttachError::Expired => Status::not_found(error.to_string()),
        AttachError::WrongPassword => Status::unauthenticated(error.to_string()),
        AttachError::AnotherEnsemble { .. } => Status::failed_precondition(error.to_string()),
        AttachError::TooManySessions => Status::resource_exhausted(error.to_string()),
        AttachError::NotReady(_) | AttachError::NoQuorum | AttachError::Throttled => {
            Status::unavailable(error.to_string())
        }
    }
}
