//! A session spoken by hand: for what the SDK, which is careful, does not let one do, and for promises about single
//! frames.

use std::{collections::VecDeque, time::Duration};

use anyhow::{Context, Result, bail};
use quorate_proto::v1::{
    AttachRequest, Attached, ClientFrame, CreateMode, CreateRequest, GetRequest, HeartbeatRequest, Reply, Request,
    ServerFrame, ServerItem, SessionKey, request::Op, server_item::Item, session_client::SessionClient,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Endpoint};

use crate::eventually::SOON;

/// Frames on their way out; a sender waits for room.
const FRAMES: usize = 16;

/// How long an attempt to connect may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// An open stream of a session. Dropping it ends the stream and not the session.
#[derive(Debug)]
pub struct RawSession {
    /// What was granted.
    pub attached: Attached,
    outgoing: mpsc::Sender<ClientFrame>,
    incoming: Streaming<ServerFrame>,
    ready: VecDeque<ServerItem>,
    seq: u64,
    write: u64,
}

impl RawSession {
    /// Opens a session through one member.
    pub async fn open(endpoint: &str, timeout_ms: u32) -> Result<Self> {
        let attach = AttachRequest { timeout_ms, client_name: "raw".into(), ..AttachRequest::default() };
        Self::attach(endpoint, attach).await
    }

    /// Resumes a session through one member, with the timeout it had.
    pub async fn resume(endpoint: &str, session: &Attached) -> Result<Self> {
        let Attached { key, timeout_ms, zxid, .. } = session.clone();
        let attach = AttachRequest { resume: key, timeout_ms, last_zxid: zxid, client_name: "raw".into() };
        Self::attach(endpoint, attach).await
    }

    /// Attaches as asked. The error is the member's status if it gave one.
    pub async fn attach(endpoint: &str, attach: AttachRequest) -> Result<Self> {
        let channel = Endpoint::from_shared(endpoint.to_owned())?.connect_timeout(CONNECT_WITHIN).connect().await?;
        let (outgoing, frames) = mpsc::channel(FRAMES);
        outgoing.send(ClientFrame { attach: Some(attach), requests: Vec::new() }).await?;
        let mut door = SessionClient::new(channel);
        let attaching = door.attach(ReceiverStream::new(frames));
        let mut incoming = timeout(SOON, attaching).await.context("no answer to attach")??.into_inner();
        let mut ready = VecDeque::from(first_frame(&mut incoming).await?.items);
        let Some(ServerItem { item: Some(Item::Attached(attached)) }) = ready.pop_front() else {
            bail!("the first item is not `attached`");
        };
        let write = attached.next_write.max(1);
        Ok(Self { attached, outgoing, incoming, ready, seq: 0, write })
    }

    /// By which the session can be resumed.
    pub fn key(&self) -> SessionKey {
        self.attached.key.clone().expect("a session has a key")
    }

    /// Sends a request that is no write. Returns its number.
    pub async fn send(&mut self, op: Op) -> Result<u64> {
        self.send_numbered(op, 0).await
    }

    /// Sends a write with the next number of the session. Returns the number of the request.
    pub async fn send_write(&mut self, op: Op) -> Result<u64> {
        let write = self.write;
        self.write += 1;
        self.send_numbered(op, write).await
    }

    /// Sends a request with a write number of the test's choice.
    pub async fn send_numbered(&mut self, op: Op, write: u64) -> Result<u64> {
        self.seq += 1;
        let request = Request { seq: self.seq, write, op: Some(op), ..Request::default() };
        self.send_frame(ClientFrame { attach: None, requests: vec![request] }).await?;
        Ok(self.seq)
    }

    /// Sends a frame of the test's making.
    pub async fn send_frame(&mut self, frame: ClientFrame) -> Result<()> {
        self.outgoing.send(frame).await.context("the stream has ended")
    }

    /// The next item, or `None` at the end of the stream. The error is the member's status.
    pub async fn next(&mut self) -> Result<Option<Item>, Status> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(item.item);
            }
            match self.incoming.message().await? {
                Some(frame) => self.ready.extend(frame.items),
                None => return Ok(None),
            }
        }
    }

    /// The reply to a request; what comes before it is dropped.
    pub async fn reply_to(&mut self, seq: u64) -> Result<Reply> {
        let reply = async {
            loop {
                match self.next().await? {
                    Some(Item::Reply(reply)) if reply.seq == seq => return Ok(reply),
                    Some(Item::Goodbye(goodbye)) => bail!("the member said goodbye: {goodbye:?}"),
                    Some(_) => {}
                    None => bail!("the stream ended"),
                }
            }
        };
        timeout(SOON, reply).await.context("no reply")?
    }

    /// Sends a write and waits for its reply.
    pub async fn write(&mut self, op: Op) -> Result<Reply> {
        let seq = self.send_write(op).await?;
        self.reply_to(seq).await
    }

    /// Sends a request that is no write and waits for its reply.
    pub async fn ask(&mut self, op: Op) -> Result<Reply> {
        let seq = self.send(op).await?;
        self.reply_to(seq).await
    }
}

/// The member's status in an error of this module.
pub fn status_of(error: &anyhow::Error) -> Option<&Status> {
    error.downcast_ref::<Status>()
}

/// Creates a node.
pub fn create(path: &str, mode: CreateMode) -> Op {
    Op::Create(CreateRequest { path: path.into(), mode: mode.into(), ..CreateRequest::default() })
}

/// Reads a node.
pub fn get(path: &str) -> Op {
    Op::Get(GetRequest { path: path.into(), ..GetRequest::default() })
}

/// Asks for the promise that the session lives.
pub fn heartbeat() -> Op {
    Op::Heartbeat(HeartbeatRequest {})
}

async fn first_frame(incoming: &mut Streaming<ServerFrame>) -> Result<ServerFrame> {
    let frame = timeout(SOON, incoming.message()).await.context("no first frame")??;
    frame.context("the stream ended before its first frame")
}
