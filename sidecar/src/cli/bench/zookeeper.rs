//! A session over ZooKeeper's protocol, with as little between it and the socket as that allows: the generator shares
//! the machine with what it loads.

use std::{
    collections::VecDeque,
    io,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quorate_wire::{
    Acl, ConnectRequest, ConnectResponse, Create, CreateKind, Decoder, Delete, ErrorCode, FRAME_BYTES_MAX, GetPath,
    ReplyHeader, Request, Response, SetData, XID_EVENT, XID_PING, create_flags, frame, split_frame,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::target::{Done, Op};

const TIMEOUT_MS: i32 = 30_000;
/// A server that says nothing for this long while an answer is due will not say anything any more.
const WITHIN: Duration = Duration::from_secs(60);
const READ_BYTES: usize = 32 * 1024;
/// Answers of servers may be larger than what they take.
const ANSWER_BYTES_MAX: usize = 16 * FRAME_BYTES_MAX;

pub(super) struct ZookeeperSession {
    stream: TcpStream,
    inbox: BytesMut,
    outbox: BytesMut,
    xid: i32,
    /// Not yet answered, in order. A linearizable read is two requests, of which the second is the answer.
    asked: VecDeque<(usize, Instant, Counts)>,
    /// Paths of events that came.
    events: VecDeque<String>,
    acl: Vec<Acl>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Counts {
    No,
    Yes,
}

fn garbled(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl ZookeeperSession {
    pub(super) async fn open(server: &str) -> io::Result<Self> {
        let mut stream = timeout(WITHIN, TcpStream::connect(server)).await??;
        stream.set_nodelay(true)?;
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: TIMEOUT_MS,
            session_id: 0,
            password: Bytes::from_static(&[0; 16]),
            read_only: Some(false),
        };
        let mut outbox = BytesMut::new();
        frame(&mut outbox, |out| hello.encode(out));
        stream.write_all(&outbox).await?;
        outbox.clear();
        let acl = vec![Acl { permissions: 31, scheme: "world".into(), id: Some("anyone".into()) }];
        let (asked, events) = (VecDeque::new(), VecDeque::new());
        let mut session = Self { stream, inbox: BytesMut::new(), outbox, xid: 0, asked, events, acl };
        let granted = ConnectResponse::decode(&session.frame().await?).map_err(garbled)?;
        if granted.session_id == 0 {
            return Err(io::Error::other("the server granted no session"));
        }
        Ok(session)
    }

    fn ask(&mut self, request: &Request<'_>) {
        self.xid = self.xid.checked_add(1).unwrap_or(1);
        let xid = if matches!(request, Request::Ping) { XID_PING } else { self.xid };
        request.encode(xid, &mut self.outbox);
    }

    pub(super) fn start(&mut self, op: &Op, slot: usize, since: Instant) {
        if let Op::Get { path, linearizable: true } = op {
            self.ask(&Request::Sync { path: Some(path.into()) });
            self.asked.push_back((slot, since, Counts::No));
        }
        let request = match op {
            Op::Create { path, data, ephemeral, sequential } => Request::Create(Create {
                kind: CreateKind::Create,
                path: path.into(),
                data: Some(data.clone()),
                acl: self.acl.clone(),
                flags: match (ephemeral, sequential) {
                    (false, false) => create_flags::PERSISTENT,
                    (true, false) => create_flags::EPHEMERAL,
                    (false, true) => create_flags::PERSISTENT_SEQUENTIAL,
                    (true, true) => create_flags::EPHEMERAL_SEQUENTIAL,
                },
                ttl_ms: 0,
            }),
            Op::Set { path, data } => {
                Request::SetData(SetData { path: path.into(), data: Some(data.clone()), version: -1 })
            }
            Op::Get { path, .. } => Request::GetData(GetPath { path: path.into(), watch: false }),
            Op::Delete { path } => Request::Delete(Delete { path: path.into(), version: -1 }),
        };
        self.ask(&request);
        self.asked.push_back((slot, since, Counts::Yes));
    }

    pub(super) async fn flush(&mut self) -> io::Result<()> {
        if !self.outbox.is_empty() {
            self.stream.write_all(&self.outbox).await?;
            self.outbox.clear();
        }
        Ok(())
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.inbox.reserve(READ_BYTES);
        match timeout(WITHIN, self.stream.read_buf(&mut self.inbox)).await? {
            Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
            other => other.map(drop),
        }
    }

    async fn frame(&mut self) -> io::Result<Bytes> {
        loop {
            if let Some(frame) = split_frame(&mut self.inbox, ANSWER_BYTES_MAX).map_err(garbled)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }

    /// An event is kept; anything else is the header and what follows it.
    fn receive(&mut self, frame: &Bytes) -> io::Result<Option<ReplyHeader>> {
        let mut from = Decoder::new(frame);
        let header = ReplyHeader::decode(&mut from).map_err(garbled)?;
        if header.xid == XID_EVENT {
            let event = quorate_wire::WatchEvent::decode(&mut from).map_err(garbled)?;
            self.events.push_back(event.path.into_owned());
            return Ok(None);
        }
        Ok((header.xid != XID_PING).then_some(header))
    }

    pub(super) async fn next(&mut self, done: &mut Vec<Done>) -> io::Result<()> {
        if self.asked.is_empty() {
            return std::future::pending().await;
        }
        let before = done.len();
        loop {
            while let Some(frame) = split_frame(&mut self.inbox, ANSWER_BYTES_MAX).map_err(garbled)? {
                let Some(header) = self.receive(&frame)? else { continue };
                let Some((slot, since, counts)) = self.asked.pop_front() else {
                    return Err(garbled("an answer to nothing"));
                };
                if counts == Counts::Yes {
                    let outcome =
                        if header.error == ErrorCode::OK { Ok(()) } else { Err(format!("{:?}", header.error)) };
                    done.push(Done { slot, since, outcome });
                }
            }
            if done.len() > before {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Asks one thing while nothing else is in flight.
    async fn call(&mut self, request: Request<'_>) -> io::Result<Result<Response, ErrorCode>> {
        let op = request.op();
        self.ask(&request);
        self.flush().await?;
        loop {
            let frame = self.frame().await?;
            let Some(header) = self.receive(&frame)? else { continue };
            if header.error != ErrorCode::OK {
                return Ok(Err(header.error));
            }
            let mut from = Decoder::new(&frame);
            ReplyHeader::decode(&mut from).map_err(garbled)?;
            return Response::decode(op, &mut from).map(Ok).map_err(garbled);
        }
    }

    pub(super) async fn children(&mut self, path: &str, watch: bool) -> io::Result<Vec<String>> {
        match self.call(Request::GetChildren(GetPath { path: path.into(), watch })).await? {
            Ok(Response::Names(names)) => Ok(names),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Makes a node with a number behind its name; its path.
    pub(super) async fn create_in_line(&mut self, path: &str) -> io::Result<String> {
        let create = Create {
            kind: CreateKind::Create,
            path: path.into(),
            data: Some(Bytes::new()),
            acl: self.acl.clone(),
            flags: create_flags::EPHEMERAL_SEQUENTIAL,
            ttl_ms: 0,
        };
        match self.call(Request::Create(create)).await? {
            Ok(Response::Path(Some(path))) => Ok(path),
            other => Err(io::Error::other(format!("{other:?}"))),
        }
    }

    /// Whether the node is there; if it is, its end will be told.
    pub(super) async fn watch(&mut self, path: &str) -> io::Result<bool> {
        let found = self.call(Request::GetData(GetPath { path: path.into(), watch: true })).await?;
        Ok(found.is_ok())
    }

    /// Waits for the next event.
    pub(super) async fn event(&mut self) -> io::Result<()> {
        while self.events.pop_front().is_none() {
            let frame = self.frame().await?;
            self.receive(&frame)?;
        }
        Ok(())
    }

    pub(super) async fn delete(&mut self, path: &str) -> io::Result<()> {
        let deleted = self.call(Request::Delete(Delete { path: path.into(), version: -1 })).await?;
        deleted.map(drop).map_err(|error| io::Error::other(format!("{error:?}")))
    }

    pub(super) async fn close(mut self) {
        // What is not closed goes with its timeout.
        let closing = async {
            self.ask(&Request::CloseSession);
            self.flush().await?;
            loop {
                let frame = self.frame().await?;
                if self.receive(&frame)?.is_some() {
                    return io::Result::Ok(());
                }
            }
        };
        let _ = timeout(Duration::from_secs(5), closing).await;
    }
}
