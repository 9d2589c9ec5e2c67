//! One connection from its first byte.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use quorate_wire::{FrameError, split_frame};
use tokio::io::{self, AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{ZookeeperService, handshake, serving, words};
use crate::net::Connection;

/// A connection without a session is dropped after this, as ZooKeeper does.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// The handshake is 44 or 45 bytes; a longer password is not one.
const HANDSHAKE_BYTES_MAX: usize = 1024;

/// What a read asks for: little while a connection is idle, more while it has much to say.
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

    /// Reads what there is.
    ///
    /// Cancel safe: what was read stays.
    pub(super) async fn fill(&mut self) -> Result<(), Broken> {
        if self.inbox.is_empty() {
            // The memory that frames were cut from goes with them.
            self.inbox = BytesMut::new();
        }
        self.inbox.reserve(self.read_bytes);
        match self.socket.read_buf(&mut self.inbox).await {
            Ok(0) | Err(_) => Err(Broken::Gone),
            Ok(read) => {
                self.read_bytes = if read >= self.read_bytes {
                    (self.read_bytes * 4).min(READ_BYTES_MAX)
                } else {
                    (read * 2).clamp(READ_BYTES_MIN, READ_BYTES_MAX)
                };
                Ok(())
            }
        }
    }

    /// Sends everything, within a time.
    pub(super) async fn send(&mut self, bytes: &[u8], within: Duration) -> Result<(), Broken> {
        match tokio::time::timeout(within, self.socket.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(Broken::Gone),
            Err(_elapsed) => Err(Broken::Stuck),
        }
    }

    /// Says that nothing more comes.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.socket.shutdown().await
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
pub(super) async fn serve(socket: Connection, service: Arc<ZookeeperService>, stop: CancellationToken) {
    let mut stream = FrameStream::new(socket);
    let peer = stream.peer();
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => return,
        first = tokio::time::timeout(HANDSHAKE_WITHIN, first(&mut stream)) => first,
    };
    match ended {
        Ok(Ok(First::Word(word))) => words::answer(word, &mut stream, &service).await,
        Ok(Ok(First::Frame(frame))) => {
            // Registered until it ends, whatever becomes of the handshake.
            let stats = service.connections.enter(peer);
            if let Some(attachment) = handshake::attach(frame, &mut stream, &service, &stats).await {
                serving::serve(attachment, &mut stream, &service, &stats, stop).await;
            }
        }
        Ok(Err(broken)) => debug!(%peer, %broken, "a connection of the ZooKeeper door ended before its handshake"),
        Err(_elapsed) => debug!(%peer, "a connection of the ZooKeeper door said nothing"),
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
