//! A socket between two members: TCP that can be hung up from outside, and on which tests can lay faults.
//!
//! Why not a plain socket: streams between members never end by themselves, so a graceful shutdown of the HTTP/2
//! layer would wait for ever; hanging up ends it at once on both sides.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use hyper_util::rt::TokioIo;
use quorate_tree::MemberId;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, ToSocketAddrs, lookup_host},
};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    codegen::{Service, http::Uri},
    transport::server::Connected,
};

use super::faults::{FaultState, Faults};
use crate::net::Connection;

/// What sockets of one member have in common.
#[derive(Clone, Debug)]
pub(crate) struct PeerSockets {
    hangup: CancellationToken,
    faults: Option<Arc<Faults>>,
    connect_timeout: Duration,
}

/// One socket.
#[derive(Debug)]
pub(crate) struct PeerIo<S> {
    socket: S,
    hangup: Pin<Box<WaitForCancellationFutureOwned>>,
    gate: Option<Gate>,
    peer: PeerAtSocket,
}

/// What carries the bytes: a socket of our own making, or one that came in by a door.
pub(crate) trait PeerSocket: AsyncRead + AsyncWrite + Unpin {
    /// Makes the other end see a reset when this one is dropped, as from a process that is no more.
    fn reset_on_drop(&self);
}

/// Who is at the other end; an accepted socket learns it from the first call.
#[derive(Clone, Debug, Default)]
pub(crate) struct PeerAtSocket(Arc<AtomicU8>);

#[derive(Debug)]
struct Gate {
    changes: WatchStream<FaultState>,
    state: FaultState,
    /// How many resets there had been when the socket was made.
    born: u64,
}

/// Makes sockets to one peer for tonic's client.
#[derive(Clone, Debug)]
pub(crate) struct PeerConnector {
    sockets: PeerSockets,
    peer: MemberId,
    address: Arc<str>,
}

impl PeerSockets {
    pub(crate) fn new(hangup: CancellationToken, faults: Option<Arc<Faults>>, connect_timeout: Duration) -> Self {
        Self { hangup, faults, connect_timeout }
    }

    pub(crate) fn faults(&self) -> Option<&Faults> {
        self.faults.as_deref()
    }

    pub(crate) fn connector(&self, peer: MemberId, address: &str) -> PeerConnector {
        PeerConnector { sockets: self.clone(), peer, address: address.into() }
    }

    /// Puts an accepted socket to use.
    pub(crate) fn accepted(&self, connection: Connection) -> PeerIo<Connection> {
        self.wrap(connection, PeerAtSocket::default())
    }

    fn wrap<S>(&self, socket: S, peer: PeerAtSocket) -> PeerIo<S> {
        let gate = self.faults.as_ref().map(|faults| {
            let changes = faults.subscribe();
            let state = changes.borrow().clone();
            let born = state.count_of_resets();
            Gate { changes: WatchStream::from_changes(changes), state, born }
        });
        PeerIo { socket, hangup: Box::pin(self.hangup.clone().cancelled_owned()), gate, peer }
    }
}

impl PeerAtSocket {
    pub(crate) fn set(&self, peer: MemberId) {
        self.0.store(peer.0, Ordering::Relaxed);
    }

    fn get(&self) -> Option<MemberId> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            peer => Some(MemberId(peer)),
        }
    }
}

impl PeerSocket for TcpStream {
    fn reset_on_drop(&self) {
        // Without it the peer sees an ordinary end, which does as well.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl PeerSocket for Connection {
    fn reset_on_drop(&self) {
        Connection::reset_on_drop(self);
    }
}

impl<S: PeerSocket> PeerIo<S> {
    /// Whether bytes may pass now. Wakes the task when that changes.
    fn poll_passable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hangup.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let Some(gate) = &mut self.gate else { return Poll::Ready(Ok(())) };
        while let Poll::Ready(Some(state)) = Pin::new(&mut gate.changes).poll_next(cx) {
            gate.state = state;
        }
        if gate.state.resets(gate.born, self.peer.get()) {
            self.socket.reset_on_drop();
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if gate.state.holds(self.peer.get()) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }
}

impl<S: PeerSocket> AsyncRead for PeerIo<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        std::task::ready!(self.poll_passable(cx))?;
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<S: PeerSocket> AsyncWrite for PeerIo<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_passable(cx))?;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.poll_passable(cx))?;
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl Connected for PeerIo<Connection> {
    type ConnectInfo = PeerAtSocket;

    fn connect_info(&self) -> PeerAtSocket {
        self.peer.clone()
    }
}

impl Service<Uri> for PeerConnector {
    type Response = TokioIo<PeerIo<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<PeerIo<TcpStream>>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Connects anew, and asks for the address anew: a peer may have moved.
    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let timeout = connector.sockets.connect_timeout;
            tokio::time::timeout(timeout, connector.connect())
                .await
                .unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

impl PeerConnector {
    /// Whether connections are refused by the system at the peer's address, wherever its name leads. Silence, and what
    /// the network between says, is no refusal.
    pub(crate) async fn is_refused(&self) -> bool {
        let ask = async {
            let Ok(addresses) = lookup_host(&*self.address).await else { return false };
            let mut refused = false;
            for address in addresses {
                match self.dial(address).await {
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => refused = true,
                    Ok(_) | Err(_) => return false,
                }
            }
            refused
        };
        tokio::time::timeout(self.sockets.connect_timeout, ask).await.unwrap_or(false)
    }

    async fn dial(&self, address: impl ToSocketAddrs) -> io::Result<TcpStream> {
        if let Some(faults) = self.sockets.faults() {
            faults.connect_to(self.peer).await?;
        }
        TcpStream::connect(address).await
    }

    async fn connect(&self) -> io::Result<TokioIo<PeerIo<TcpStream>>> {
        let socket = self.dial(&*self.address).await?;
        socket.set_nodelay(true)?;
        let peer = PeerAtSocket::default();
        peer.set(self.peer);
        Ok(TokioIo::new(self.sockets.wrap(socket, peer)))
    }
}
