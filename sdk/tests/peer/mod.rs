//! A scripted peer: what a member says on the session stream is decided by the test, item by item.
//!
//! It is for what a real member does only by accident: lost replies, broken streams, replies held back, last
//! words, slow heartbeats. Everything else is tested on real members.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate::{Client, ClientBuilder};
use quorate_proto::v1::{self, reply, request::Op, server_item::Item, session_server};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for what must come.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, condition: impl Fn() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// A member that does as it is told.
pub struct Peer {
    address: SocketAddr,
    streams: mpsc::Receiver<Conn>,
    server: JoinHandle<()>,
}

impl Peer {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        // Full: attaching waits, as with a slow member.
        let (taken, streams) = mpsc::channel(16);
        let service = session_server::SessionServer::new(Service { taken });
        let server = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { server.await.unwrap() });
        Self { address, streams, server }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A client of this peer with a long timeout.
    pub fn client(&self) -> ClientBuilder {
        Client::builder(self.endpoint()).session_timeout(Duration::from_secs(20))
    }

    /// The next stream that is opened.
    pub async fn stream(&mut self) -> Conn {
        soon("a stream", self.streams.recv()).await.expect("the server runs")
    }

    /// Opens session 7 for a client that is being built.
    pub async fn opened(&mut self, builder: ClientBuilder) -> (Client, Conn) {
        let client = builder.build().unwrap();
        let conn = self.stream().await;
        assert_eq!(conn.attach.resume, None);
        conn.attached(1).await;
        soon("being ready", client.ready(PATIENCE)).await.unwrap();
        (client, conn)
    }

    /// Nobody opens a stream for this long.
    pub async fn stays_alone(&mut self, time: Duration) {
        let opened = tokio::time::timeout(time, self.streams.recv()).await;
        assert!(opened.is_err(), "a stream was opened: {:?}", opened.unwrap().map(|conn| conn.attach));
    }

    /// Takes the peer off the network.
    pub fn vanish(&self) {
        self.server.abort();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service {
    taken: mpsc::Sender<Conn>,
}

#[tonic::async_trait]
impl session_server::Session for Service {
    type AttachStream = ReceiverStream<Result<v1::ServerFrame, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<v1::ClientFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let mut frames = request.into_inner();
        let first = frames.message().await?.expect("a client says something");
        let attach = first.attach.expect("the first frame attaches");
        // Full: the script waits for the client, as a member would.
        let (replies, outgoing) = mpsc::channel(1024);
        let (arrived, requests) = mpsc::channel(4096);
        let mute = Arc::new(AtomicBool::new(false));
        let zxid = Arc::new(AtomicU64::new(1));
        let reader = Reader { arrived, replies: replies.downgrade(), mute: mute.clone() };
        tokio::spawn(reader.run(frames, first.requests));
        let conn = Conn { attach, requests, replies, mute, zxid };
        self.taken.send(conn).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Answers heartbeats, and hands the rest to the script.
struct Reader {
    arrived: mpsc::Sender<v1::Request>,
    /// Weak, for the script owns the stream: when it has ended it, nothing is answered any more.
    replies: mpsc::WeakSender<Result<v1::ServerFrame, Status>>,
    mute: Arc<AtomicBool>,
}

impl Reader {
    async fn run(self, mut frames: Streaming<v1::ClientFrame>, first: Vec<v1::Request>) {
        let mut requests = first;
        let Self { arrived, replies, mute } = self;
        loop {
            for request in requests.drain(..) {
                if !matches!(request.op, Some(Op::Heartbeat(_))) {
                    if arrived.send(request).await.is_err() {
                        return;
                    }
                } else if !mute.load(Ordering::Relaxed)
                    && let Some(replies) = replies.upgrade()
                {
                    let result = Some(reply::Result::Done(v1::Done {}));
                    let item = Item::Reply(v1::Reply { seq: request.seq, zxid: 0, result });
                    let _ = replies.send(Ok(frame([item]))).await;
                }
            }
            match frames.message().await {
                Ok(Some(frame)) => requests = frame.requests,
                _ => return,
            }
        }
    }
}

pub fn frame(items: impl IntoIterator<Item = Item>) -> v1::ServerFrame {
    v1::ServerFrame { items: items.into_iter().map(|item| v1::ServerItem { item: Some(item) }).collect() }
}

/// One stream, in the hands of the script. Dropping it ends the stream.
#[derive(Debug)]
pub struct Conn {
    pub attach: v1::AttachRequest,
    requests: mpsc::Receiver<v1::Request>,
    replies: mpsc::Sender<Result<v1::ServerFrame, Status>>,
    mute: Arc<AtomicBool>,
    zxid: Arc<AtomicU64>,
}

impl Conn {
    /// Session 7, with the timeout that was asked for.
    pub async fn attached(&self, next_write: u64) {
        self.attached_as(7, next_write).await;
    }

    pub async fn attached_as(&self, session_id: u64, next_write: u64) {
        let attached = v1::Attached {
            key: Some(v1::SessionKey { session_id, password: vec![session_id as u8; 16].into() }),
            timeout_ms: self.attach.timeout_ms,
            attachment: 1,
            zxid: 1,
            member_id: 1,
            next_write,
            inflight_max: 1000,
            frame_bytes_max: 1024 * 1024,
        };
        self.say([Item::Attached(attached)]).await;
    }

    /// The session does not exist, or something else is wrong.
    pub async fn refuse(self, status: Status) {
        let _ = self.replies.send(Err(status)).await;
    }

    pub async fn say(&self, items: impl IntoIterator<Item = Item>) {
        // A client that has left hears nothing.
        let _ = self.replies.send(Ok(frame(items))).await;
    }

    /// The next request, heartbeats left out.
    pub async fn request(&mut self) -> v1::Request {
        soon("a request", self.requests.recv()).await.expect("the stream has ended")
    }

    /// The next request, which must be a write, and its number.
    pub async fn write(&mut self) -> (u64, v1::Request) {
        let request = self.request().await;
        assert_ne!(request.write, 0, "{request:?}");
        (request.write, request)
    }

    /// The client has ended the stream.
    pub async fn ended(&mut self) {
        let request = soon("the end of the stream", self.requests.recv()).await;
        assert_eq!(request, None, "the stream goes on");
    }

    /// No request comes for this long.
    pub async fn stays_silent(&mut self, time: Duration) {
        if let Ok(Some(request)) = tokio::time::timeout(time, self.requests.recv()).await {
            panic!("there is a request: {request:?}");
        }
    }

    /// Whether heartbeats are left unanswered.
    pub fn mute(&self, mute: bool) {
        self.mute.store(mute, Ordering::Relaxed);
    }

    /// The zxid of replies from now on.
    pub fn at_zxid(&self, zxid: u64) {
        self.zxid.store(zxid, Ordering::Relaxed);
    }

    pub async fn answer(&self, request: &v1::Request, result: reply::Result) {
        let zxid = self.zxid.load(Ordering::Relaxed);
        self.say([Item::Reply(v1::Reply { seq: request.seq, zxid, result: Some(result) })]).await;
    }

    pub async fn done(&self, request: &v1::Request) {
        self.answer(request, reply::Result::Done(v1::Done {})).await;
    }

    /// The answer to a set.
    pub async fn stat(&self, request: &v1::Request, version: i32) {
        self.answer(request, reply::Result::Stat(v1::Stat { version, ..v1::Stat::default() })).await;
    }

    /// The answer to a get.
    pub async fn node(&self, request: &v1::Request, data: &str, mzxid: u64) {
        let stat = v1::Stat { czxid: 1, mzxid, ..v1::Stat::default() };
        let get = v1::GetReply { data: data.to_owned().into(), stat: Some(stat) };
        self.answer(request, reply::Result::Get(get)).await;
    }

    /// The answer to a children request.
    pub async fn names(&self, request: &v1::Request, names: &[&str], pzxid: u64) {
        let stat = v1::Stat { czxid: 1, pzxid, ..v1::Stat::default() };
        let names = names.iter().map(|&name| name.to_owned()).collect();
        self.answer(request, reply::Result::Children(v1::ChildrenReply { names, stat: Some(stat) })).await;
    }

    /// The answer to a create.
    pub async fn created(&self, request: &v1::Request, path: &str, stat: v1::Stat) {
        let created = v1::CreateReply { path: path.to_owned(), stat: Some(stat) };
        self.answer(request, reply::Result::Create(created)).await;
    }

    pub async fn exists(&self, request: &v1::Request, stat: Option<v1::Stat>) {
        self.answer(request, reply::Result::Exists(v1::ExistsReply { stat })).await;
    }

    pub async fn refused(&self, request: &v1::Request, reason: v1::Refusal) {
        let refused = v1::RefusedReply { reason: reason.into(), message: "no".into(), failed_op: None };
        self.answer(request, reply::Result::Refused(refused)).await;
    }

    pub async fn event(&self, zxid: u64, kind: v1::EventKind, path: &str) {
        self.say([Item::Event(v1::Event { zxid, kind: kind.into(), path: path.to_owned() })]).await;
    }

    pub async fn goodbye(self, reason: v1::goodbye::Reason) {
        self.say([Item::Goodbye(v1::Goodbye { reason: reason.into(), message: String::new() })]).await;
    }
}

/// The path a request is about.
pub fn path(request: &v1::Request) -> &str {
    match request.op.as_ref().unwrap() {
        Op::Get(r) => &r.path,
        Op::Exists(r) => &r.path,
        Op::Children(r) => &r.path,
        Op::Create(r) => &r.path,
        Op::SetData(r) => &r.path,
        Op::Delete(r) => &r.path,
        Op::Watch(r) => &r.path,
        Op::Unwatch(r) => &r.path,
        other => panic!("{other:?} has no path"),
    }
}
