//! A listening door: binds, takes connections in within bounds, survives what an accept may fail of.
//!
//! Bounds: [`Bounds`]. At `connections_max` the door stops accepting and further ones wait in the system's backlog;
//! a connection over `connections_per_address_max` is closed at once, and both are counted.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_core::Stream;
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpSocket, TcpStream, lookup_host},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::{
    config::{Address, limits},
    telemetry::metrics::DoorMetrics,
};

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`, and the head of the frame that must follow it.
const HTTP2_OPENING_BYTES: usize = 24 + 9;

/// A door that listens.
#[derive(Debug)]
pub(crate) struct Door {
    name: &'static str,
    listener: TcpListener,
    address: SocketAddr,
    places: Arc<Semaphore>,
    per_address: PerAddress,
    metrics: DoorMetrics,
    pause: Pause,
}

/// How many connections a door holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) connections_max: usize,
    /// 0 is unlimited.
    pub(crate) connections_per_address_max: usize,
}

/// A connection somebody opened, and its place among those the door holds.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    metrics: DoorMetrics,
    /// What it must have said by when, if that is not for the protocol above to see to.
    opening: Option<Opening>,
    _place: OwnedSemaphorePermit,
    _address_place: Option<AddressPlace>,
}

/// The first bytes of a connection that are still to come.
#[derive(Debug)]
struct Opening {
    bytes_missing: usize,
    deadline: Pin<Box<Sleep>>,
}

/// Why a door cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The name has no address.
    #[error("the {door} door cannot listen on {address}: the name cannot be resolved: {source}")]
    Resolve {
        /// Which door.
        door: &'static str,
        /// Where it should listen.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// Another process listens there.
    #[error("the {door} door cannot listen on {address}: the address is already in use")]
    InUse {
        /// Which door.
        door: &'static str,
        /// Where it should listen.
        address: Address,
    },
    /// Anything else.
    #[error("the {door} door cannot listen on {address}: {source}")]
    Listen {
        /// Which door.
        door: &'static str,
        /// Where it should listen.
        address: Address,
        /// Why.
        source: io::Error,
    },
}

impl Door {
    /// Listens on `address`. `name` is that of the door in logs, metrics and flags.
    pub(crate) async fn bind(
        name: &'static str,
        address: &Address,
        bounds: Bounds,
        metrics: DoorMetrics,
    ) -> Result<Self, BindError> {
        let listener = listen(name, address).await?;
        let local = listener.local_addr();
        let local = local.map_err(|source| BindError::Listen { door: name, address: address.clone(), source })?;
        Ok(Self {
            name,
            listener,
            address: local,
            places: Arc::new(Semaphore::new(bounds.connections_max.min(Semaphore::MAX_PERMITS))),
            per_address: PerAddress::new(bounds.connections_per_address_max),
            metrics,
            pause: Pause::default(),
        })
    }

    /// Where it listens, with the port the system chose if it was left to it.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is counted of its connections.
    pub(crate) fn metrics(&self) -> &DoorMetrics {
        &self.metrics
    }

    /// The next connection within the bounds.
    ///
    /// # Cancel safety
    /// A future dropped before it is ready has taken no connection.
    pub(crate) async fn accept(&mut self) -> Connection {
        loop {
            let places = Arc::clone(&self.places);
            let place = places.acquire_owned().await.expect("the semaphore is never closed");
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.failed(&error).await;
                    continue;
                }
            };
            self.pause.reset();
            // A door for both families hears IPv4 in the form of IPv6; whoever comes is known by the address he has.
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let Some(address_place) = self.per_address.take(peer.ip()) else {
                self.metrics.refused();
                tracing::debug!(door = self.name, %peer, "too many connections from this address");
                continue;
            };
            if let Err(error) = prepare(&stream) {
                tracing::debug!(door = self.name, %peer, %error, "the connection was gone at once");
                continue;
            }
            self.metrics.opened();
            let metrics = self.metrics.clone();
            return Connection { stream, peer, metrics, opening: None, _place: place, _address_place: address_place };
        }
    }

    /// The connections as a stream that never ends, as tonic's server takes them. A client that does not say the
    /// opening of HTTP/2 in time loses its place: the server's own pings begin only behind it.
    pub(crate) fn into_incoming(self) -> impl Stream<Item = io::Result<Connection>> + Send {
        futures_util::stream::unfold(self, |mut door| async move {
            let connection = door.accept().await;
            Some((Ok(connection.opening_http2()), door))
        })
    }

    async fn failed(&mut self, error: &io::Error) {
        // These tell of one connection that went away before we took it, not of us.
        let gone = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset, io::ErrorKind::Interrupted];
        if gone.contains(&error.kind()) {
            return;
        }
        self.metrics.accept_failed();
        let pause = self.pause.next();
        if pause == limits::ACCEPT_PAUSE_MIN {
            tracing::warn!(door = self.name, %error, "no connection can be taken in; trying again");
        }
        tokio::time::sleep(pause).await;
    }
}

async fn listen(door: &'static str, address: &Address) -> Result<TcpListener, BindError> {
    let resolve = |source| BindError::Resolve { door, address: address.clone(), source };
    let resolved = lookup_host((address.host(), address.port())).await.map_err(resolve)?;

    let mut last = None;
    for candidate in resolved {
        match listen_on(candidate) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = Some(error),
        }
    }
    let address = address.clone();
    Err(match last {
        Some(error) if error.kind() == io::ErrorKind::AddrInUse => BindError::InUse { door, address },
        Some(source) => BindError::Listen { door, address, source },
        None => BindError::Resolve { door, address, source: io::Error::other("it has no address") },
    })
}

fn listen_on(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the connections of the process before to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(limits::ACCEPT_BACKLOG)
}

/// Small frames go out at once, and a peer that vanished without a word is found out.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(limits::KEEPALIVE_IDLE).with_interval(limits::KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive.with_retries(limits::KEEPALIVE_PROBES))
}

/// The pause after a failed accept.
#[derive(Debug, Default)]
struct Pause(Option<Duration>);

impl Pause {
    fn next(&mut self) -> Duration {
        let next = self.0.map_or(limits::ACCEPT_PAUSE_MIN, |last| (last * 2).min(limits::ACCEPT_PAUSE_MAX));
        self.0 = Some(next);
        next
    }

    fn reset(&mut self) {
        self.0 = None;
    }
}

/// Counts the connections of each address; an address without one takes no memory.
#[derive(Debug)]
struct PerAddress {
    max: usize,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's share of its address's bound, given back when it is dropped.
#[derive(Debug)]
struct AddressPlace {
    address: IpAddr,
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl PerAddress {
    fn new(max: usize) -> Self {
        Self { max, open: Arc::default() }
    }

    /// A place for `address`; the inner `None` where there is no bound, the outer one where there is no place.
    fn take(&self, address: IpAddr) -> Option<Option<AddressPlace>> {
        if self.max == 0 {
            return Some(None);
        }
        let mut open = self.open.lock();
        let count = open.entry(address).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Some(AddressPlace { address, open: Arc::clone(&self.open) }))
    }
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

impl Connection {
    /// Who opened it.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Ends the connection unless the opening of HTTP/2 comes in time.
    pub(crate) fn opening_http2(self) -> Self {
        self.opened_within(HTTP2_OPENING_BYTES, limits::CONNECTION_OPENING_MAX)
    }

    /// Ends the connection unless its first bytes come in time.
    fn opened_within(mut self, bytes: usize, within: Duration) -> Self {
        self.opening = Some(Opening { bytes_missing: bytes, deadline: Box::pin(tokio::time::sleep(within)) });
        self
    }

    /// Whether there is something to read, or the end of it. Needs no memory to read into.
    pub(crate) fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_read_ready(context)
    }

    /// Sends what can be sent at once, and says how much.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    /// For its options.
    pub(crate) fn as_socket(&self) -> SockRef<'_> {
        SockRef::from(&self.stream)
    }

    /// The first byte of what comes, which stays to be read; `None` if nothing comes any more.
    pub(crate) async fn first_byte(&self) -> io::Result<Option<u8>> {
        let mut byte = [0];
        let read = self.stream.peek(&mut byte).await?;
        Ok((read > 0).then_some(byte[0]))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.metrics.closed();
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let filled = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let Some(opening) = &mut self.opening else { return read };
        opening.bytes_missing = opening.bytes_missing.saturating_sub(buf.filled().len() - filled);
        if opening.bytes_missing == 0 {
            self.opening = None;
        } else if read.is_pending() && opening.deadline.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use quorate_tree::MemberId;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    use super::*;
    use crate::telemetry::metrics::{Levels, Metrics};

    const WITHIN: Duration = Duration::from_secs(10);

    async fn door(bounds: Bounds) -> (Door, Metrics) {
        let metrics = Metrics::new(MemberId(1));
        let door = Door::bind("client", &Address::loopback(0), bounds, metrics.doors.of("client")).await.unwrap();
        (door, metrics)
    }

    fn bounds(connections_max: usize, connections_per_address_max: usize) -> Bounds {
        Bounds { connections_max, connections_per_address_max }
    }

    #[tokio::test]
    async fn a_taken_port_is_explained_with_its_address() {
        let (taken, metrics) = door(bounds(1, 0)).await;
        let address = Address::loopback(taken.address().port());

        let again = Door::bind("client", &address, bounds(1, 0), metrics.doors.of("client")).await;

        let told = format!("the client door cannot listen on {address}: the address is already in use");
        assert_eq!(again.unwrap_err().to_string(), told);
    }

    #[tokio::test]
    async fn a_name_that_is_none_and_an_address_of_others_are_refused() {
        let metrics = Metrics::new(MemberId(1)).doors.of("peer");
        for (address, told) in
            [("nowhere.invalid:1", "cannot be resolved"), ("192.0.2.1:1", "cannot listen on 192.0.2.1:1")]
        {
            let error = Door::bind("peer", &address.parse().unwrap(), bounds(1, 0), metrics.clone()).await.unwrap_err();

            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[tokio::test]
    async fn a_restarted_door_listens_again_at_once() {
        let (mut first, metrics) = door(bounds(4, 0)).await;
        let address = Address::loopback(first.address().port());
        let client = TcpStream::connect(first.address()).await.unwrap();
        let server = first.accept().await;

        // Closed by the server first: its side of the connection lingers in the system.
        drop((server, first));
        let again = Door::bind("client", &address, bounds(4, 0), metrics.doors.of("client")).await;

        assert!(again.is_ok(), "{again:?}");
        drop(client);
    }

    #[tokio::test]
    async fn a_door_for_both_families_knows_who_comes_by_the_address_he_has() {
        let metrics = Metrics::new(MemberId(1)).doors.of("client");
        // Where there is no IPv6 there is no such door.
        let Ok(mut door) = Door::bind("client", &"[::]:0".parse().unwrap(), bounds(1, 0), metrics).await else {
            return;
        };
        let Ok(client) = TcpStream::connect(("127.0.0.1", door.address().port())).await else { return };

        let connection = door.accept().await;

        assert_eq!(connection.peer(), client.local_addr().unwrap());
    }

    #[tokio::test]
    async fn at_its_bound_a_door_waits_for_a_place() {
        let (mut door, metrics) = door(bounds(1, 0)).await;
        let address = door.address();
        let (_one, _two) = (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let first = door.accept().await;

        let early = timeout(Duration::from_millis(1), door.accept()).await;
        assert!(early.is_err(), "a second connection was taken in");
        let open = metrics.render(&Levels::default());
        assert!(open.contains(r#"quorate_connections{door="client"} 1"#), "{open}");

        drop(first);
        timeout(WITHIN, door.accept()).await.expect("a place is free again");
    }

    #[tokio::test]
    async fn one_address_cannot_take_more_than_its_share() {
        let (mut door, metrics) = door(bounds(8, 1)).await;
        let address = door.address();
        let _one = TcpStream::connect(address).await.unwrap();
        let first = door.accept().await;

        let mut over = TcpStream::connect(address).await.unwrap();
        let refused = tokio::select! {
            biased;
            read = over.read_u8() => read,
            _ = door.accept() => panic!("a second connection was taken in"),
        };
        assert!(refused.is_err(), "it was closed");
        let text = metrics.render(&Levels::default());
        assert!(text.contains(r#"quorate_connections_refused_total{door="client"} 1"#), "{text}");

        drop(first);
        let _three = TcpStream::connect(address).await.unwrap();
        timeout(WITHIN, door.accept()).await.expect("its share is free again");
    }

    #[tokio::test]
    async fn whoever_does_not_say_the_opening_in_time_loses_its_place() {
        let (mut door, metrics) = door(bounds(1, 0)).await;
        let mut silent = TcpStream::connect(door.address()).await.unwrap();
        silent.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
        let mut first = door.accept().await.opened_within(HTTP2_OPENING_BYTES, Duration::from_millis(20));

        let mut read = Vec::new();
        let ended = timeout(WITHIN, first.read_to_end(&mut read)).await.expect("it waits for more");

        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(read, b"PRI * HTTP/2.0\r\n");
        drop((first, metrics));
    }

    #[tokio::test]
    async fn whoever_has_said_the_opening_may_be_silent() {
        let (mut door, _metrics) = door(bounds(1, 0)).await;
        let mut client = TcpStream::connect(door.address()).await.unwrap();
        client.write_all(b"opened").await.unwrap();
        let mut connection = door.accept().await.opened_within(6, Duration::from_millis(20));
        connection.read_exact(&mut [0; 6]).await.unwrap();

        let silence = timeout(Duration::from_millis(60), connection.read_u8()).await;

        assert!(silence.is_err(), "{silence:?}");
    }

    #[test]
    fn pauses_grow_to_their_bound_and_start_again() {
        let mut pause = Pause::default();

        let grown: Vec<_> = (0..12).map(|_| pause.next()).collect();
        assert!(grown.is_sorted() && grown[0] == limits::ACCEPT_PAUSE_MIN && grown[11] == limits::ACCEPT_PAUSE_MAX);

        pause.reset();
        assert_eq!(pause.next(), limits::ACCEPT_PAUSE_MIN);
    }
}
