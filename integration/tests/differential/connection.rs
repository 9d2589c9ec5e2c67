//! One connection to one of the servers, by hand: what is sent is any bytes, what comes is kept in its order.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::{Bytes, BytesMut};
use quorate_wire::{
    ConnectRequest, ConnectResponse, Decoder, ErrorCode, ReplyHeader, WatchEvent, XID_EVENT, frame, split_frame,
};

/// A server that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than any reply of a test.
const REPLY_BYTES_MAX: usize = 64 << 20;

#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    inbox: BytesMut,
    closed: bool,
}

/// What a server sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Event { zxid: i64, kind: i32, path: String },
    Reply { xid: i32, zxid: i64, error: ErrorCode, body: Bytes },
    Closed,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        Ok(Self { socket, inbox: BytesMut::new(), closed: false })
    }

    /// Asks for a session. `None` if the connection was closed without an answer.
    pub(crate) fn handshake(&mut self, request: &ConnectRequest) -> Result<Option<ConnectResponse>> {
        let mut bytes = BytesMut::new();
        frame(&mut bytes, |to| request.encode(to));
        self.send(&bytes)?;
        match self.frame()? {
            None => Ok(None),
            Some(frame) => {
                let expected = if request.read_only.is_some() { 37 } else { 36 };
                if frame.len() != expected {
                    bail!("a handshake is answered with {} bytes: {frame:?}", frame.len());
                }
                Ok(Some(ConnectResponse::decode(&frame)?))
            }
        }
    }

    /// Sends bytes as they are. That the server has gone shows when reading.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.socket.write_all(bytes) {
            Ok(()) => Ok(()),
            Err(error) if gone(&error) => Ok(()),
            Err(error) => Err(error).context("sending"),
        }
    }

    /// The next thing that comes.
    pub(crate) fn next(&mut self) -> Result<Incoming> {
        let Some(frame) = self.frame()? else { return Ok(Incoming::Closed) };
        let mut from = Decoder::new(&frame);
        let header = ReplyHeader::decode(&mut from).with_context(|| format!("a header in {frame:?}"))?;
        if header.xid == XID_EVENT {
            let kind = Decoder::new(&frame.slice(16..)).int()?;
            let event = WatchEvent::decode(&mut from).with_context(|| format!("an event in {frame:?}"))?;
            return Ok(Incoming::Event { zxid: header.zxid, kind, path: event.path.into_owned() });
        }
        Ok(Incoming::Reply { xid: header.xid, zxid: header.zxid, error: header.error, body: frame.slice(16..) })
    }

    fn frame(&mut self) -> Result<Option<Bytes>> {
        let deadline = Instant::now() + PATIENCE;
        let mut chunk = [0; 64 * 1024];
        loop {
            if let Some(frame) = split_frame(&mut self.inbox, REPLY_BYTES_MAX)? {
                return Ok(Some(frame));
            }
            if self.closed {
                return Ok(None);
            }
            match self.socket.read(&mut chunk) {
                Ok(0) => self.closed = true,
                Ok(read) => self.inbox.extend_from_slice(&chunk[..read]),
                Err(error) if gone(&error) => self.closed = true,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if Instant::now() > deadline {
                        bail!("nothing came for {PATIENCE:?}");
                    }
                }
                Err(error) => return Err(error).context("receiving"),
            }
        }
    }
}

fn gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}
