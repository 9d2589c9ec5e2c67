//! A socket between two members: TCP that can be hung up from outside, that gives up when the other end is silent, and
//! on which tests can lay faults.
//!
//! Why not a plain socket: what is under way between members may never end by itself, so a graceful end would wait for
//! ever; hanging up ends it at once on both sides.

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
    time::{Sleep, sleep},
};
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{
    codegen::{Service, http::Uri},
    transport::server::Connected,
};

use super::{
    config::Timing,
    faults::{FaultState, Faults},
};
use crate::net::Connection;

/// What sockets of one member have in common.
#[derive(Clone, Debug)]
pub(crate) struct PeerSockets {
    hangup: CancellationToken,
    faults: Option<Arc<Faults>>,
    connect_timeout: Duration,
    /// What was sent must be acknowledged by the other end's system within this time, and taken by its process if it has
    /// no more room for it.
    silence_max: Duration,
}

/// One socket.
#[derive(Debug)]
pub(crate) struct PeerIo<S> {
    socket: S,
    /// One for each direction: different tasks may wait for them.
    reading: Passage,
    writing: Passage,
    peer: PeerAtSocket,
}

/// What bytes in one direction must pass.
#[derive(Debug)]
struct Passage {
    hangup: Pin<Box<WaitForCancellationFutureOwned>>,
    /// How long a fault may hold it before the connection breaks: a network that swallows everything breaks what has
    /// something to send.
    silence_max: Duration,
    gate: Option<Gate>,
}

/// What carries the bytes: a socket of our own making, or one that came in by a door.
pub(crate) trait PeerSocket: AsyncRead + AsyncWrite + Unpin {
    fn as_socket(&self) -> SockRef<'_>;
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
    /// Runs while bytes are held.
    patience: Option<Pin<Box<Sleep>>>,
}

/// Makes sockets to one peer, for calls and for streams.
#[derive(Clone, Debug)]
pub(crate) struct PeerConnector {
    sockets: PeerSockets,
    peer: MemberId,
    address: Arc<str>,
}

impl PeerSockets {
    pub(crate) fn new(hangup: CancellationToken, faults: Option<Arc<Faults>>, timing: Timing) -> Self {
        Self { hangup, faults, connect_timeout: timing.connect_timeout(), silence_max: timing.silence_max() }
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

    fn wrap<S: PeerSocket>(&self, socket: S, peer: PeerAtSocket) -> PeerIo<S> {
        // Elsewhere, and if it is refused, the system gives up after minutes.
        #[cfg(target_os = "linux")]
        let _ = socket.as_socket().set_tcp_user_timeout(Some(self.silence_max));
        PeerIo { socket, reading: self.passage(), writing: self.passage(), peer }
    }

    fn passage(&self) -> Passage {
        let gate = self.faults.as_ref().map(|faults| {
            let changes = faults.subscribe();
            let state = changes.borrow().clone();
            let born = state.count_of_resets();
            Gate { changes: WatchStream::from_changes(changes), state, born, patience: None }
        });
        Passage { hangup: Box::pin(self.hangup.clone().cancelled_owned()), silence_max: self.silence_max, gate }
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
    fn as_socket(&self) -> SockRef<'_> {
        SockRef::from(self)
    }
}

impl PeerSocket for Connection {
    fn as_socket(&self) -> SockRef<'_> {
        Connection::as_socket(self)
    }
}

impl<S> PeerIo<S> {
    pub(crate) fn peer(&self) -> PeerAtSocket {
        self.peer.clone()
    }
}

impl Passage {
    /// Whether bytes may pass now. Wakes the task when that changes.
    fn poll(&mut self, peer: &PeerAtSocket, socket: &impl PeerSocket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.hangup.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let Some(gate) = &mut self.gate else { return Poll::Ready(Ok(())) };
        while let Poll::Ready(Some(state)) = Pin::new(&mut gate.changes).poll_next(cx) {
            gate.state = state;
        }
        if gate.state.resets(gate.born, peer.get()) {
            // So that the other end sees a reset, as from a process that is no more; an ordinary end does as well.
            let _ = socket.as_socket().set_linger(Some(Duration::ZERO));
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if !gate.state.holds(peer.get()) {
            gate.patience = None;
            return Poll::Ready(Ok(()));
        }
        let patience = gate.patience.get_or_insert_with(|| Box::pin(sleep(self.silence_max)));
        patience.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: PeerSocket> AsyncRead for PeerIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        std::task::ready!(this.reading.poll(&this.peer, &this.socket, cx))?;
        Pin::new(&mut this.socket).poll_read(cx, buf)
    }
}

impl<S: PeerSocket> AsyncWrite for PeerIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        std::task::ready!(this.writing.poll(&this.peer, &this.socket, cx))?;
        Pin::new(&mut this.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        std::task::ready!(this.writing.poll(&this.peer, &this.socket, cx))?;
        Pin::new(&mut this.socket).poll_write_vectored(cx, bufs)
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
        self.peer()
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
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
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

    /// A new connection to the peer, with a bound on how long that takes.
    pub(crate) async fn connect(&self) -> io::Result<PeerIo<TcpStream>> {
        let dialled = tokio::time::timeout(self.sockets.connect_timeout, self.dial(&*self.address)).await;
        let socket = dialled.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))?;
        socket.set_nodelay(true)?;
        let peer = PeerAtSocket::default();
        peer.set(self.peer);
        Ok(self.sockets.wrap(socket, peer))
    }
}
