//! A client that reads from a running ZooKeeper: one connection, many requests under way, no watches, no writes.
//!
//! A connection that is lost stays lost: an import is run again and goes on where it was.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use quorate_wire::{
    ConnectRequest, ConnectResponse, Decoder, ErrorCode, OpCode, ReplyHeader, Request, Response, XID_AUTH, XID_EVENT,
    XID_PING, frame, split_frame,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    select,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, interval_at, timeout},
};

use crate::Address;

/// Requests sent and not answered; further ones wait.
const IN_FLIGHT_MAX: usize = 256;
/// One answer. A list of children may be longer than a frame of a client.
const REPLY_BYTES_MAX: usize = 64 * 1024 * 1024;
const SESSION_TIMEOUT_MS: i32 = 30_000;

/// A connection with its session.
#[derive(Debug)]
pub(super) struct Zookeeper {
    requests: mpsc::Sender<Asked>,
    link: JoinHandle<()>,
    /// Why the link has ended.
    end: Arc<OnceLock<String>>,
    answer_within: Duration,
    /// Whether the server has no quorum, so that it may be behind.
    pub(super) read_only: bool,
}

/// Who the connection says it is: `SCHEME:CREDENTIAL`.
#[derive(Clone)]
pub(super) struct Credential {
    scheme: String,
    secret: Bytes,
}

/// The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("{}", .0.join("; "))]
    Nobody(Vec<String>),
    #[error("the connection to ZooKeeper was lost: {0}")]
    Lost(String),
    #[error("ZooKeeper did not answer within {0:?}")]
    Late(Duration),
    #[error("ZooKeeper did not accept a credential")]
    Credential,
}

type Answer = oneshot::Sender<Result<Response, ErrorCode>>;

/// A request and who waits for its answer.
#[derive(Debug)]
struct Asked {
    request: Request<'static>,
    answer: Answer,
}

/// A request that was sent.
#[derive(Debug)]
struct Waiting {
    xid: i32,
    op: OpCode,
    answer: Answer,
}

impl std::str::FromStr for Credential {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((scheme, secret)) if !scheme.is_empty() => {
                Ok(Self { scheme: scheme.into(), secret: Bytes::copy_from_slice(secret.as_bytes()) })
            }
            _ => Err("a credential reads SCHEME:CREDENTIAL, for instance digest:USER:PASSWORD"),
        }
    }
}

/// Not the secret: arguments are printed when something is wrong with them.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:...", self.scheme)
    }
}

impl Zookeeper {
    /// A session with the first server that gives one. `answer_within` bounds the handshake and every answer.
    pub(super) async fn connect(
        servers: &[Address],
        credentials: &[Credential],
        answer_within: Duration,
    ) -> Result<Self, Unreachable> {
        let mut said = Vec::new();
        for server in servers {
            match timeout(answer_within, attach(server)).await {
                Ok(Ok((stream, granted))) => {
                    let zookeeper = Self::over(stream, &granted, answer_within);
                    zookeeper.authenticate(credentials).await?;
                    return Ok(zookeeper);
                }
                Ok(Err(error)) => said.push(format!("{server}: {error}")),
                Err(_late) => said.push(format!("{server}: no answer within {answer_within:?}")),
            }
        }
        Err(Unreachable::Nobody(said))
    }

    fn over(stream: TcpStream, granted: &ConnectResponse, answer_within: Duration) -> Self {
        // When it is full, whoever asks waits.
        let (requests, asked) = mpsc::channel(IN_FLIGHT_MAX);
        let end = Arc::new(OnceLock::new());
        let ping_every = Duration::from_millis(u64::try_from(granted.timeout_ms).unwrap_or(1).max(30) / 3);
        let link = Link { stream, asked, waiting: VecDeque::new(), out: BytesMut::new(), xid: 0 };
        let why = end.clone();
        let link = tokio::spawn(async move {
            // It is set once: here.
            let _ = why.set(link.run(ping_every).await);
        });
        Self { requests, link, end, answer_within, read_only: granted.read_only == Some(true) }
    }

    async fn authenticate(&self, credentials: &[Credential]) -> Result<(), Unreachable> {
        for Credential { scheme, secret } in credentials {
            let request = Request::Auth { scheme: scheme.clone().into(), credential: secret.clone() };
            self.ask(request).await?.map_err(|_code| Unreachable::Credential)?;
        }
        Ok(())
    }

    /// The answer, or the code of a refusal.
    pub(super) async fn ask(&self, request: Request<'static>) -> Result<Result<Response, ErrorCode>, Unreachable> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Asked { request, answer }).await.is_err() {
            return Err(self.lost());
        }
        match timeout(self.answer_within, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_dropped)) => Err(self.lost()),
            Err(_late) => Err(Unreachable::Late(self.answer_within)),
        }
    }

    fn lost(&self) -> Unreachable {
        Unreachable::Lost(self.end.get().cloned().unwrap_or_else(|| "it was closed".into()))
    }

    /// Ends the session.
    pub(super) async fn close(self) {
        // A session that is not closed goes with its timeout.
        let _ = self.ask(Request::CloseSession).await;
        drop(self.requests);
        let _ = self.link.await;
    }
}

/// Opens a session.
async fn attach(server: &Address) -> Result<(TcpStream, ConnectResponse), String> {
    let io = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect((server.host(), server.port())).await.map_err(io)?;
    stream.set_nodelay(true).map_err(io)?;
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms: SESSION_TIMEOUT_MS,
        session_id: 0,
        password: Bytes::from_static(&[0; quorate_wire::PASSWORD_BYTES]),
        read_only: Some(true),
    };
    let mut out = BytesMut::new();
    frame(&mut out, |to| request.encode(to));
    stream.write_all(&out).await.map_err(io)?;
    let mut buffer = BytesMut::new();
    let frame = loop {
        if let Some(frame) =
            split_frame(&mut buffer, quorate_wire::FRAME_BYTES_MAX).map_err(|error| error.to_string())?
        {
            break frame;
        }
        if stream.read_buf(&mut buffer).await.map_err(io)? == 0 {
            return Err("the server closed the connection; it may have no quorum".into());
        }
    };
    let granted = ConnectResponse::decode(&frame).map_err(|error| format!("this is no ZooKeeper: {error}"))?;
    if granted.timeout_ms <= 0 { Err("the server gave no session".into()) } else { Ok((stream, granted)) }
}

/// What the task behind a connection owns.
struct Link {
    stream: TcpStream,
    asked: mpsc::Receiver<Asked>,
    /// In the order in which they were asked, which is that of the answers.
    waiting: VecDeque<Waiting>,
    out: BytesMut,
    xid: i32,
}

impl Link {
    /// Runs until nobody asks any more, or the connection breaks. Says why it ended.
    async fn run(mut self, ping_every: Duration) -> String {
        let mut ping = interval_at(Instant::now() + ping_every, ping_every);
        let mut buffer = BytesMut::new();
        let (mut from, mut to) = self.stream.split();
        loop {
            select! {
                biased;
                written = to.write_buf(&mut self.out), if !self.out.is_empty() => match written {
                    Ok(0) => return "the server closed it".into(),
                    Ok(_) => {}
                    Err(error) => return error.to_string(),
                },
                read = from.read_buf(&mut buffer) => {
                    match read {
                        Ok(0) => return "the server closed it".into(),
                        Ok(_) => {}
                        Err(error) => return error.to_string(),
                    }
                    if let Err(error) = answer_all(&mut buffer, &mut self.waiting) {
                        return error;
                    }
                }
                asked = self.asked.recv(), if self.waiting.len() < IN_FLIGHT_MAX => {
                    let Some(Asked { request, answer }) = asked else { return "it was closed".into() };
                    let xid = match request {
                        Request::Auth { .. } => XID_AUTH,
                        _ => {
                            self.xid = self.xid.wrapping_add(1).max(1);
                            self.xid
                        }
                    };
                    request.encode(xid, &mut self.out);
                    self.waiting.push_back(Waiting { xid, op: request.op(), answer });
                }
                _ = ping.tick() => Request::Ping.encode(XID_PING, &mut self.out),
            }
        }
    }
}

/// Hands every whole answer to whoever waits for it.
fn answer_all(buffer: &mut BytesMut, waiting: &mut VecDeque<Waiting>) -> Result<(), String> {
    while let Some(frame) = split_frame(buffer, REPLY_BYTES_MAX).map_err(|error| format!("it sent {error}"))? {
        let broken = |error| format!("it sent what is no answer: {error}");
        let mut decoder = Decoder::new(&frame);
        let header = ReplyHeader::decode(&mut decoder).map_err(broken)?;
        if matches!(header.xid, XID_PING | XID_EVENT) {
            continue;
        }
        match waiting.pop_front() {
            Some(Waiting { xid, op, answer }) if xid == header.xid => {
                let said = match header.error {
                    ErrorCode::OK => Ok(Response::decode(op, &mut decoder).map_err(broken)?),
                    code => Err(code),
                };
                // Whoever asked may have given up.
                let _ = answer.send(said);
            }
            _ => return Err(format!("it answered {}, which is not its turn", header.xid)),
        }
    }
    Ok(())
}
