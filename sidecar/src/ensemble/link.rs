//! The connections to one peer, and what is known of it.
//!
//! Two connections for calls, so that nothing waits behind what it is not part of: `prompt` for what must be quick (votes,
//! heartbeats, greetings), `bulk` for snapshots. Each is made when it is first used and again whenever it broke. The
//! log and what goes to the leader are streams with a connection each ([`exchange`]).

use std::sync::Arc;

use futures_util::Stream;
use parking_lot::Mutex;
use prost::Message;
use quorate_proto::peer::{Greeting, StreamKind, peer_client::PeerClient};
use quorate_tree::MemberId;
use tokio::net::TcpStream;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{
    EnsembleError,
    config::Timing,
    disks::DiskTable,
    exchange::{self, Exchange},
    peer_io::{PeerConnector, PeerIo, PeerSockets},
    standing::Standing,
};

/// No message between members is larger. An append carries at most 1 MiB of entries or one of them.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// HTTP/2 windows: wide enough that a snapshot never waits for them on a fast network.
pub(crate) const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
pub(crate) const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// The connections to one peer.
#[derive(Debug)]
pub(crate) struct PeerLink {
    peer: MemberId,
    standing: Arc<Standing>,
    disks: Arc<DiskTable>,
    timing: Timing,
    connector: PeerConnector,
    prompt: PeerClient<Channel>,
    bulk: PeerClient<Channel>,
    greeting: Mutex<Option<Greeting>>,
}

/// Why a peer cannot be spoken with now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// Not there, or gone while it was asked.
    #[error("member {peer} does not answer: {}", status.message())]
    Unreachable { peer: MemberId, status: Status },
    /// One of both does not want to.
    #[error("{reason}")]
    Refused { reason: String },
    /// Its disk is not the one that is registered for it, so what it stores does not count.
    #[error("the disk of member {peer} is not registered")]
    Unregistered { peer: MemberId },
}

impl PeerLink {
    pub(crate) fn new(
        peer: MemberId,
        address: &str,
        standing: Arc<Standing>,
        disks: Arc<DiskTable>,
        sockets: &PeerSockets,
        timing: Timing,
    ) -> Result<Self, EnsembleError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_error| {
                EnsembleError::Refused(format!("the address of member {peer}, {address}, is not host:port"))
            })?
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(timing.ping())
            .keep_alive_timeout(timing.ping_timeout())
            .keep_alive_while_idle(true);
        let connector = sockets.connector(peer, address);
        let client = || {
            let channel = endpoint.connect_with_connector_lazy(connector.clone());
            PeerClient::new(channel)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        };
        let (prompt, bulk) = (client(), client());
        Ok(Self { peer, standing, disks, timing, connector, prompt, bulk, greeting: Mutex::default() })
    }

    pub(crate) fn peer(&self) -> MemberId {
        self.peer
    }

    pub(crate) fn standing(&self) -> &Standing {
        &self.standing
    }

    pub(crate) fn prompt(&self) -> PeerClient<Channel> {
        self.prompt.clone()
    }

    pub(crate) fn bulk(&self) -> PeerClient<Channel> {
        self.bulk.clone()
    }

    /// Whether the system at the peer's address says that nobody listens there: the peer's process has ended.
    pub(crate) async fn refuses_connections(&self) -> bool {
        self.connector.is_refused().await
    }

    /// What the peer last said of itself.
    pub(crate) fn known(&self) -> Option<Greeting> {
        self.greeting.lock().clone()
    }

    /// Asks the peer who it is.
    pub(crate) async fn greet(&self, leader: Option<MemberId>) -> Result<Greeting, LinkError> {
        let ours = self.standing.greeting(leader, 0);
        let mut request = tonic::Request::new(ours);
        request.set_timeout(self.timing.call_timeout());
        let mut prompt = self.prompt();
        let asked = tokio::time::timeout(self.timing.call_timeout(), prompt.greet(request)).await;
        let answer = asked.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no greeting in time")));
        let theirs = answer.map_err(|status| self.failed(status))?.into_inner();
        let accepted = self.standing.accept(&theirs);
        let named = accepted.and_then(|named| {
            (named == self.peer)
                .then_some(())
                .ok_or_else(|| format!("at the address of member {} there is member {named}", self.peer))
        });
        if let Err(reason) = named {
            *self.greeting.lock() = None;
            self.standing.refused_by(self.peer, &reason);
            return Err(LinkError::Refused { reason });
        }
        self.standing.heard_from(self.peer);
        *self.greeting.lock() = Some(theirs.clone());
        Ok(theirs)
    }

    /// The disk the peer has; asks if it is not known yet. Calls name it, so that another disk does not take them.
    pub(crate) async fn disk_id(&self) -> Result<u64, LinkError> {
        if let Some(greeting) = self.known() {
            return Ok(greeting.disk_id);
        }
        Ok(self.greet(None).await?.disk_id)
    }

    /// The disk the peer has, if it may be given the log: what it acknowledges counts towards a majority.
    pub(crate) async fn fed_disk_id(&self) -> Result<u64, LinkError> {
        let disk_id = self.disk_id().await?;
        if self.disks.may_feed(self.peer, disk_id) {
            return Ok(disk_id);
        }
        // It may have been given another disk since it was asked.
        *self.greeting.lock() = None;
        Err(LinkError::Unregistered { peer: self.peer })
    }

    /// Whether a disk that was fed may be fed on.
    pub(crate) fn may_feed(&self, disk_id: u64) -> bool {
        self.disks.may_feed(self.peer, disk_id)
    }

    /// Opens a stream of `kind` to the disk the peer is believed to have; says why if that fails.
    pub(crate) async fn exchange<S, In>(
        &self,
        kind: StreamKind,
        disk_id: u64,
        outgoing: S,
    ) -> Result<Exchange<PeerIo<TcpStream>, S, In>, LinkError>
    where
        S: Stream + Unpin,
        S::Item: Message,
        In: Message + Default,
    {
        let opening = self.standing.opening(kind, disk_id);
        let opened = async {
            let socket = self.connector.connect().await?;
            exchange::open(socket, opening, outgoing).await
        };
        let opened = tokio::time::timeout(self.timing.call_timeout(), opened).await;
        let opened = opened.unwrap_or_else(|_elapsed| Err(Status::deadline_exceeded("no stream in time")));
        opened.map_err(|status| self.failed(status))
    }

    /// Notes why a call failed.
    pub(crate) fn failed(&self, status: Status) -> LinkError {
        // Whatever it was, the next call finds out anew who is there.
        *self.greeting.lock() = None;
        if status.code() == Code::FailedPrecondition {
            self.standing.refused_by(self.peer, status.message());
            return LinkError::Refused { reason: status.message().to_owned() };
        }
        LinkError::Unreachable { peer: self.peer, status }
    }
}
