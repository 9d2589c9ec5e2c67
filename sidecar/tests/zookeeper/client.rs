//! A client that does only what it is told: frames out, frames in. It neither pings nor reconnects, and what it reads
//! is what the server sent, in that order.

use std::{collections::VecDeque, time::Duration};

use bytes::{Bytes, BytesMut};
use quorate_sidecar::testing::TestEnsemble;
use quorate_wire::{
    Acl, ConnectRequest, ConnectResponse, Create, CreateKind, Decoder, Delete, ErrorCode, EventType, FRAME_BYTES_MAX,
    GetPath, OpCode, ReplyHeader, Request, Response, SetData, WatchEvent, XID_AUTH, XID_EVENT, XID_PING,
    XID_SET_WATCHES, create_flags, frame, split_frame,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Whatever is waited for; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked for, before clamping; the tests' ensembles grant it.
pub(crate) const SESSION_TIMEOUT_MS: i32 = 30_000;

/// A member whose sessions outlive every hiccup of the machine the test runs on.
pub(crate) async fn member() -> TestEnsemble {
    ensemble(1).await
}

/// Several of them.
pub(crate) async fn ensemble(members: u8) -> TestEnsemble {
    let builder = TestEnsemble::builder().members(members).tick(Duration::from_secs(2));
    builder.start().await.expect("an ensemble starts")
}

/// Bytes in both directions.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    inbox: BytesMut,
}

impl Raw {
    pub(crate) async fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).await.expect("the door is open");
        stream.set_nodelay(true).expect("an open socket");
        Self { stream, inbox: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("the server reads").expect("an open connection");
    }

    /// The content of the next frame; `None` at the end.
    pub(crate) async fn frame(&mut self) -> Option<Bytes> {
        loop {
            if let Some(frame) = split_frame(&mut self.inbox, 64 * FRAME_BYTES_MAX).expect("a frame of the server") {
                return Some(frame);
            }
            let read =
                timeout(PATIENCE, self.stream.read_buf(&mut self.inbox)).await.expect("the server says something");
            if read.unwrap_or(0) == 0 {
                assert!(self.inbox.is_empty(), "half a frame: {:?}", self.inbox);
                return None;
            }
        }
    }

    /// Everything up to the end.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = self.inbox.split().to_vec();
        // A reset is an end as well.
        let _ = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await.expect("the server closes");
        rest
    }
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Event { zxid: i64, event: EventType, path: String },
    Reply { xid: i32, zxid: i64, result: Result<Response, ErrorCode> },
}

/// A session and its connection.
pub(crate) struct Client {
    pub(crate) raw: Raw,
    pub(crate) granted: ConnectResponse,
    xid: i32,
    /// Of the requests whose replies come in order.
    asked: VecDeque<(i32, OpCode)>,
    /// What was heard while a reply was waited for.
    pub(crate) events: VecDeque<Heard>,
    /// Of the last reply.
    pub(crate) zxid: i64,
}

pub(crate) fn new_session() -> ConnectRequest {
    ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms: SESSION_TIMEOUT_MS,
        session_id: 0,
        password: Bytes::from_static(&[0; 16]),
        read_only: Some(false),
    }
}

pub(crate) fn connect_frame(request: &ConnectRequest) -> BytesMut {
    let mut out = BytesMut::new();
    frame(&mut out, |out| request.encode(out));
    out
}

impl Client {
    pub(crate) async fn open(address: &str) -> Self {
        Self::connect(address, &new_session()).await.expect("a session")
    }

    /// `None` if the server closes without a word.
    pub(crate) async fn connect(address: &str, request: &ConnectRequest) -> Option<Self> {
        let mut raw = Raw::connect(address).await;
        raw.send(&connect_frame(request)).await;
        let granted = ConnectResponse::decode(&raw.frame().await?).expect("a handshake");
        Some(Self { raw, granted, xid: 0, asked: VecDeque::new(), events: VecDeque::new(), zxid: 0 })
    }

    /// How this session is resumed.
    pub(crate) fn resumption(&self) -> ConnectRequest {
        ConnectRequest {
            last_zxid_seen: self.zxid,
            session_id: self.granted.session_id,
            password: Bytes::copy_from_slice(&self.granted.password),
            ..new_session()
        }
    }

    /// Sends a request without waiting for its reply; its xid.
    pub(crate) async fn send(&mut self, request: &Request<'_>) -> i32 {
        let mut out = BytesMut::new();
        let xid = self.write(request, &mut out);
        self.raw.send(&out).await;
        xid
    }

    /// Sends requests in one write.
    pub(crate) async fn send_all(&mut self, requests: &[Request<'_>]) -> Vec<i32> {
        let mut out = BytesMut::new();
        let xids = requests.iter().map(|request| self.write(request, &mut out)).collect();
        self.raw.send(&out).await;
        xids
    }

    /// Sends a header with any code and any body.
    pub(crate) async fn send_code(&mut self, code: i32, body: &[u8]) -> i32 {
        let mut out = BytesMut::new();
        self.xid += 1;
        let xid = self.xid;
        frame(&mut out, |out| {
            out.extend_from_slice(&xid.to_be_bytes());
            out.extend_from_slice(&code.to_be_bytes());
            out.extend_from_slice(body);
        });
        // What no operation is has no body in its reply.
        self.asked.push_back((xid, OpCode::of(code).unwrap_or(OpCode::Delete)));
        self.raw.send(&out).await;
        xid
    }

    fn write(&mut self, request: &Request<'_>, out: &mut BytesMut) -> i32 {
        let op = request.op();
        let xid = match op {
            OpCode::Ping => XID_PING,
            OpCode::Auth => XID_AUTH,
            OpCode::SetWatches | OpCode::SetWatches2 => XID_SET_WATCHES,
            _ => {
                self.xid += 1;
                self.xid
            }
        };
        request.encode(xid, out);
        if op != OpCode::Ping {
            self.asked.push_back((xid, op));
        }
        xid
    }

    /// The next thing the server says, `None` at the end. A reply out of order fails the test.
    pub(crate) async fn hear(&mut self) -> Option<Heard> {
        let content = self.raw.frame().await?;
        let mut from = Decoder::new(&content);
        let header = ReplyHeader::decode(&mut from).expect("a header");
        if header.xid == XID_EVENT {
            let event = WatchEvent::decode(&mut from).expect("an event");
            return Some(Heard::Event { zxid: header.zxid, event: event.event, path: event.path.into_owned() });
        }
        let op = match header.xid {
            XID_PING => OpCode::Ping,
            xid => {
                let (expected, op) = self.asked.pop_front().expect("a reply was waited for");
                assert_eq!(xid, expected, "replies come in the order of the requests");
                op
            }
        };
        let result = if header.error == ErrorCode::OK {
            Ok(Response::decode(op, &mut from).expect("a response"))
        } else {
            Err(header.error)
        };
        assert_eq!(from.remaining(), 0, "nothing behind the reply of {op:?}");
        if header.zxid > 0 {
            assert!(header.zxid >= self.zxid || header.xid == XID_PING, "replies never go back in time");
            self.zxid = self.zxid.max(header.zxid);
        }
        Some(Heard::Reply { xid: header.xid, zxid: header.zxid, result })
    }

    /// The next reply; events that come before it are kept.
    pub(crate) async fn reply(&mut self) -> Result<Response, ErrorCode> {
        loop {
            match self.hear().await.expect("a reply") {
                Heard::Reply { result, .. } => return result,
                event => self.events.push_back(event),
            }
        }
    }

    pub(crate) async fn ask(&mut self, request: Request<'_>) -> Result<Response, ErrorCode> {
        self.send(&request).await;
        self.reply().await
    }

    /// The next event, which may have come already.
    pub(crate) async fn event(&mut self) -> (EventType, String) {
        let heard = match self.events.pop_front() {
            Some(heard) => heard,
            None => self.hear().await.expect("an event"),
        };
        match heard {
            Heard::Event { event, path, .. } => (event, path),
            Heard::Reply { .. } => panic!("a reply where an event is due: {heard:?}"),
        }
    }

    /// The events that came before the replies so far.
    pub(crate) fn told(&mut self) -> Vec<(EventType, String)> {
        let told = self.events.drain(..).map(|heard| match heard {
            Heard::Event { event, path, .. } => (event, path),
            Heard::Reply { .. } => unreachable!("only events are kept"),
        });
        told.collect()
    }

    /// Fails unless nothing more comes and the connection ends.
    pub(crate) async fn ended(&mut self) {
        let heard = self.hear().await;
        assert_eq!(heard, None);
    }

    pub(crate) async fn create(&mut self, path: &str, data: &'static str, flags: i32) -> Result<String, ErrorCode> {
        match self.ask(create(path, data, flags)).await? {
            Response::Path(Some(path)) => Ok(path),
            other => panic!("{other:?}"),
        }
    }

    /// A node that lasts.
    pub(crate) async fn plant(&mut self, path: &str) {
        self.create(path, "", create_flags::PERSISTENT).await.expect("a new node");
    }

    pub(crate) async fn stat(&mut self, path: &str) -> Result<quorate_wire::Stat, ErrorCode> {
        match self.ask(exists(path, false)).await? {
            Response::Stat(stat) => Ok(stat),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn children(&mut self, path: &str) -> Vec<String> {
        match self.ask(Request::GetChildren(get(path, false))).await {
            Ok(Response::Names(names)) => names,
            other => panic!("{other:?}"),
        }
    }
}

pub(crate) fn open_acl() -> Vec<Acl> {
    vec![Acl { permissions: 31, scheme: "world".into(), id: Some("anyone".into()) }]
}

pub(crate) fn create<'a>(path: &'a str, data: &'static str, flags: i32) -> Request<'a> {
    Request::Create(creation(CreateKind::Create, path, data, flags))
}

pub(crate) fn creation<'a>(kind: CreateKind, path: &'a str, data: &'static str, flags: i32) -> Create<'a> {
    Create {
        kind,
        path: path.into(),
        data: Some(Bytes::from_static(data.as_bytes())),
        acl: open_acl(),
        flags,
        ttl_ms: 0,
    }
}

pub(crate) fn get(path: &str, watch: bool) -> GetPath<'_> {
    GetPath { path: path.into(), watch }
}

pub(crate) fn exists(path: &str, watch: bool) -> Request<'_> {
    Request::Exists(get(path, watch))
}

pub(crate) fn get_data(path: &str, watch: bool) -> Request<'_> {
    Request::GetData(get(path, watch))
}

pub(crate) fn set<'a>(path: &'a str, data: &'static str, version: i32) -> Request<'a> {
    Request::SetData(SetData { path: path.into(), data: Some(Bytes::from_static(data.as_bytes())), version })
}

pub(crate) fn delete(path: &str, version: i32) -> Request<'_> {
    Request::Delete(Delete { path: path.into(), version })
}

pub(crate) fn auth<'a>(scheme: &'a str, credential: &'static str) -> Request<'a> {
    Request::Auth { scheme: scheme.into(), credential: Bytes::from_static(credential.as_bytes()) }
}

/// Waits until something is so.
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let waited = async {
        let mut poll = tokio::time::interval(Duration::from_millis(10));
        while !check().await {
            poll.tick().await;
        }
    };
    assert!(timeout(PATIENCE, waited).await.is_ok(), "{what} did not come to pass");
}
