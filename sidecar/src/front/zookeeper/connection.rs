//! One connection from its first byte.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use quorate_wire::{FrameError, split_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::{io::poll_read_buf, sync::CancellationToken};
use tracing::debug;

use super::{
    ZookeeperService,
    handshake::{self, Attached},
    registry::Entry,
    serving::Serving,
    words,
};
use crate::net::Connection;

/// A connection without a session is dropped after this, as ZooKeeper does.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// The handshake is 44 or 45 bytes; a longer password is not one.
const HANDSHAKE_BYTES_MAX: usize = 1024;

/// How long a client has to take our last words and close its side.
const LINGER: Duration = Duration::from_secs(1);

/// What a read asks for: little where a connection says little, more while it has much to say.
const READ_BYTES_MIN: usize = 512;
const READ_BYTES_MAX: usize = 64 * 1024;

/// A socket and what has been read of it.
pub(super) struct FrameStream {
    socket: Connection,
    inbox: BytesMut,
    read_bytes: usize,
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the client has gone")]
    Gone,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the client did not take what was sent to it")]
    Stuck,
    #[error("all clients together have sent more than there is memory for, and this one is in the middle of a frame")]
    Crowded,
}

impl FrameStream {
    fn new(socket: Connection) -> Self {
        Self { socket, inbox: BytesMut::new(), read_bytes: READ_BYTES_MIN }
    }

    pub(super) fn peer(&self) -> std::net::SocketAddr {
        self.socket.peer()
    }

    /// The next frame that has been read whole.
    pub(super) fn buffered(&mut self, bytes_max: usize) -> Result<Option<Bytes>, Broken> {
        Ok(split_frame(&mut self.inbox, bytes_max)?)
    }

    /// What has been read and is no whole frame, or not yet taken.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.inbox.len()
    }

    /// Reads what there is.
    ///
    /// Cancel safe: what was read stays.
    pub(super) async fn fill(&mut self) -> Result<(), Broken> {
        if self.inbox.is_empty() {
            // The memory that frames were cut from goes with them.
            self.inbox = BytesMut::new();
        }
        let read = poll_fn(|context| self.poll_fill(context)).await?;
        self.read_bytes = if read >= self.read_bytes {
            (self.read_bytes * 4).min(READ_BYTES_MAX)
        } else {
            (read * 2).clamp(READ_BYTES_MIN, READ_BYTES_MAX)
        };
        Ok(())
    }

    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        // A client that says nothing takes no memory to be heard.
        if ready!(self.socket.poll_read_ready(context)).is_err() {
            return Poll::Ready(Err(Broken::Gone));
        }
        self.inbox.reserve(self.read_bytes);
        match ready!(poll_read_buf(Pin::new(&mut self.socket), context, &mut self.inbox)) {
            Ok(0) | Err(_) => Poll::Ready(Err(Broken::Gone)),
            Ok(read) => Poll::Ready(Ok(read)),
        }
    }

    /// Sends everything, within a time.
    pub(super) async fn send(&mut self, bytes: &[u8], within: Duration) -> Result<(), Broken> {
        // Mostly all of it can be sent at once; what fails for good, fails again.
        let sent = self.socket.try_write(bytes).unwrap_or(0);
        if sent == bytes.len() {
            // What never waits lets others run, too.
            tokio::task::coop::consume_budget().await;
            return Ok(());
        }
        // Boxed, as what follows is rare and has a timer: an idle connection has no room for it.
        match Box::pin(tokio::time::timeout(within, self.socket.write_all(&bytes[sent..]))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Broken::Gone),
            Err(_elapsed) => Err(Broken::Stuck),
        }
    }

    /// Says that nothing more comes.
    async fn close(&mut self) {
        // A client that has gone does not hear of it.
        let _ = self.socket.shutdown().await;
    }

    /// Says that nothing more comes, and waits a little for the client to say the same: the system would answer what
    /// it still sends with a reset, which takes our last words away from it.
    pub(super) async fn finish(&mut self) {
        self.close().await;
        let mut ignored = [0; 1024];
        let until_it_ends = async { while matches!(self.socket.read(&mut ignored).await, Ok(1..)) {} };
        let _ = tokio::time::timeout(LINGER, until_it_ends).await;
    }

    async fn first_word(&mut self) -> Result<[u8; 4], Broken> {
        loop {
            if let Some(word) = self.inbox.first_chunk::<4>() {
                return Ok(*word);
            }
            self.fill().await?;
        }
    }

    async fn first_frame(&mut self) -> Result<Bytes, Broken> {
        loop {
            if let Some(frame) = self.buffered(HANDSHAKE_BYTES_MAX)? {
                return Ok(frame);
            }
            self.fill().await?;
        }
    }
}

/// Serves a connection to its end.
///
/// This future is most of what an idle connection takes: what happens once, at its beginning and its end, is boxed, and
/// nothing is moved from one place in it to another, for it would have room for both.
pub(super) fn serve(
    socket: Connection,
    service: Arc<ZookeeperService>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + Send {
    let mut stream = FrameStream::new(socket);
    async move {
        let stats = service.connections.enter(stream.peer());
        let attached = Box::pin(begin(&mut stream, &service, &stats, &stop)).await;
        let Some(mut serving) = attached.map(|attached| Serving::new(attached, &mut stream, &service, &stats, &stop))
        else {
            return;
        };
        let end = serving.run().await;
        if serving.detach(end) {
            Box::pin(stream.finish()).await;
        } else {
            stream.close().await;
        }
    }
}

/// Answers a word, or a handshake. `None` when that was all.
async fn begin(
    stream: &mut FrameStream,
    service: &Arc<ZookeeperService>,
    stats: &Entry,
    stop: &CancellationToken,
) -> Option<Attached> {
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        attached = answer_first(stream, service, stats) => attached,
    }
}

async fn answer_first(stream: &mut FrameStream, service: &Arc<ZookeeperService>, stats: &Entry) -> Option<Attached> {
    let peer = stream.peer();
    match tokio::time::timeout(HANDSHAKE_WITHIN, first(stream)).await {
        Ok(Ok(First::Word(word))) => {
            words::answer(word, stream, service).await;
            None
        }
        Ok(Ok(First::Frame(frame))) => handshake::attach(frame, stream, service, stats).await,
        Ok(Err(broken)) => {
            debug!(%peer, %broken, "a connection of the ZooKeeper door ended before its handshake");
            None
        }
        Err(_elapsed) => {
            stats.silent();
            debug!(%peer, "a connection of the ZooKeeper door said nothing");
            None
        }
    }
}

/// What a connection begins with.
enum First {
    Word(words::Word),
    Frame(Bytes),
}

async fn first(stream: &mut FrameStream) -> Result<First, Broken> {
    match words::Word::of(stream.first_word().await?) {
        Some(word) => Ok(First::Word(word)),
        None => Ok(First::Frame(stream.first_frame().await?)),
    }
}
