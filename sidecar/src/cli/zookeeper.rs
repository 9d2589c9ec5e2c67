//! A client of ZooKeeper's protocol: one connection with its session, requests in order, answers in that order.
//!
//! It has no task, no timer and no second attempt: whoever holds it decides when to read and write, when to send a sign
//! of life, and how long that may take. What it has to send and what is not answered yet is bounded by its holder too.

use std::{collections::VecDeque, io};

use bytes::{Bytes, BytesMut};
use quorate_wire::{
    ConnectRequest, ConnectResponse, Decoder, ErrorCode, OpCode, PASSWORD_BYTES, ReplyHeader, Request, Response,
    WatchEvent, XID_AUTH, XID_EVENT, XID_PING, frame, split_frame,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, ToSocketAddrs},
};

/// One answer. A list of children may be longer than a frame of a client.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
const READ_BYTES: usize = 32 * 1024;

/// A session and its connection. With each request goes a note, which comes back with its answer.
#[derive(Debug)]
pub(super) struct Connection<N> {
    stream: TcpStream,
    inbox: BytesMut,
    outbox: BytesMut,
    xid: i32,
    /// Not answered yet.
    asked: VecDeque<Asked<N>>,
}

#[derive(Debug)]
struct Asked<N> {
    xid: i32,
    op: OpCode,
    note: N,
}

/// What a server says.
#[derive(Debug)]
pub(super) enum Heard<N> {
    Answer(N, Result<Response, ErrorCode>),
    Event,
    /// To a sign of life.
    Pong,
}

impl<N> Connection<N> {
    /// A new session, and what was granted: possibly one that only reads, if that will do.
    pub(super) async fn open(
        server: impl ToSocketAddrs,
        timeout_ms: i32,
        read_only_will_do: bool,
    ) -> io::Result<(Self, ConnectResponse)> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let (inbox, outbox, asked) = (BytesMut::new(), BytesMut::new(), VecDeque::new());
        let mut connection = Self { stream, inbox, outbox, xid: 0, asked };
        let hello = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms,
            session_id: 0,
            password: Bytes::from_static(&[0; PASSWORD_BYTES]),
            read_only: Some(read_only_will_do),
        };
        frame(&mut connection.outbox, |out| hello.encode(out));
        let granted = loop {
            if let Some(frame) = split_frame(&mut connection.inbox, ANSWER_BYTES_MAX).map_err(garbled)? {
                break ConnectResponse::decode(&frame)
                    .map_err(|error| garbled(format!("this is no ZooKeeper: {error}")))?;
            }
            connection.exchange().await.map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::other(format!("{error}; it may have no quorum")),
                _ => error,
            })?;
        };
        if granted.timeout_ms <= 0 {
            return Err(io::Error::other("the server gave no session"));
        }
        Ok((connection, granted))
    }

    /// Puts a request behind those that wait to be sent.
    pub(super) fn ask(&mut self, request: &Request<'_>, note: N) {
        let op = request.op();
        let xid = if op == OpCode::Auth {
            XID_AUTH
        } else {
            self.xid = self.xid.wrapping_add(1).max(1);
            self.xid
        };
        request.encode(xid, &mut self.outbox);
        self.asked.push_back(Asked { xid, op, note });
    }

    /// A sign of life.
    pub(super) fn ping(&mut self) {
        Request::Ping.encode(XID_PING, &mut self.outbox);
    }

    /// How many requests are not answered.
    pub(super) fn unanswered(&self) -> usize {
        self.asked.len()
    }

    /// Sends of what is to be sent, or reads of what has come: some of it.
    ///
    /// Cancel safe.
    pub(super) async fn exchange(&mut self) -> io::Result<()> {
        let (mut from, mut to) = self.stream.split();
        self.inbox.reserve(READ_BYTES);
        tokio::select! {
            biased;
            written = to.write_buf(&mut self.outbox), if !self.outbox.is_empty() => written.map(drop),
            read = from.read_buf(&mut self.inbox) => match read? {
                0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection")),
                _ => Ok(()),
            },
        }
    }

    /// The next thing that has come as a whole.
    pub(super) fn hear(&mut self) -> io::Result<Option<Heard<N>>> {
        let Some(frame) = split_frame(&mut self.inbox, ANSWER_BYTES_MAX).map_err(garbled)? else { return Ok(None) };
        let mut from = Decoder::new(&frame);
        let header = ReplyHeader::decode(&mut from).map_err(garbled)?;
        match header.xid {
            XID_PING => return Ok(Some(Heard::Pong)),
            XID_EVENT => {
                WatchEvent::decode(&mut from).map_err(garbled)?;
                return Ok(Some(Heard::Event));
            }
            _ => {}
        }
        match self.asked.pop_front() {
            Some(Asked { xid, op, note }) if xid == header.xid => {
                let result = match header.error {
                    ErrorCode::OK => Ok(Response::decode(op, &mut from).map_err(garbled)?),
                    code => Err(code),
                };
                Ok(Some(Heard::Answer(note, result)))
            }
            _ => Err(garbled(format!("request {} is answered, whose turn it is not", header.xid))),
        }
    }
}

fn garbled(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
