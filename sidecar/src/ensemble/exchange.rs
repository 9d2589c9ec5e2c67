//! Streams between two members that never end by themselves: the log, and what goes to the leader.
//!
//! Each has a TCP connection of its own, on which messages stand behind their lengths (the form is in `peer.proto`).
//! HTTP/2 carries the calls, not these: on a connection with one stream its windows, frames and pings have nothing to
//! decide, and each message would pass through a task more on either side (decision 0009). Whoever polls a stream also
//! writes to its socket and reads from it. A peer that has vanished is found out by the system, which gives the
//! connection up when what was sent is not acknowledged ([`PeerSockets`](super::peer_io::PeerSockets)).

use std::{
    io,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, BytesMut};
use futures_util::{Sink, SinkExt, Stream, StreamExt, stream::Fuse};
use prost::Message;
use quorate_proto::peer::{StreamAnswer, StreamKind, StreamOpening};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::codec::{Decoder, Encoder, Framed};
use tonic::{Code, Status};

use super::link::MESSAGE_BYTES_MAX;

/// How a connection that carries a stream begins. HTTP/2 begins with a `P`.
pub(crate) const MAGIC: &[u8; 8] = b"QUORATE\n";

/// An opening and its answer are no larger.
const OPENING_BYTES_MAX: usize = 64 * 1024;

/// The length before a message.
const LENGTH_BYTES: usize = 4;

/// Room for a message is made in steps of this size at most, so that a length alone takes no memory.
const RESERVE_BYTES_MAX: usize = 1024 * 1024;

/// So much is collected before it is written although more may follow.
const WRITE_BYTES: usize = 256 * 1024;

/// Messages behind their lengths: `Out` is written, `In` is read.
#[derive(Debug)]
pub(crate) struct Messages<Out, In> {
    bytes_max: usize,
    direction: PhantomData<fn(Out) -> In>,
}

impl<Out, In> Messages<Out, In> {
    fn new(bytes_max: usize) -> Self {
        Self { bytes_max, direction: PhantomData }
    }
}

impl<Out: Message, In> Encoder<Out> for Messages<Out, In> {
    type Error = io::Error;

    fn encode(&mut self, message: Out, buffer: &mut BytesMut) -> io::Result<()> {
        let bytes = message.encoded_len();
        if bytes > self.bytes_max {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a message of {bytes} bytes is too large"),
            ));
        }
        buffer.reserve(LENGTH_BYTES + bytes);
        buffer.put_u32(bytes as u32);
        message.encode(buffer).expect("room was made for it");
        Ok(())
    }
}

impl<Out, In: Message + Default> Decoder for Messages<Out, In> {
    type Item = In;
    type Error = io::Error;

    /// What is inside a message shares the memory of `buffer`.
    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<In>> {
        let Some(length) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let bytes = u32::from_be_bytes(*length) as usize;
        if bytes > self.bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {bytes} bytes is too large")));
        }
        let missing = (LENGTH_BYTES + bytes).saturating_sub(buffer.len());
        if missing > 0 {
            buffer.reserve(missing.min(RESERVE_BYTES_MAX));
            return Ok(None);
        }
        buffer.advance(LENGTH_BYTES);
        let message = In::decode(buffer.split_to(bytes).freeze());
        message.map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// Opens a stream on a new connection to a peer: sends what `outgoing` gives, and yields what comes back.
///
/// # Cancel safety
/// Cancel safe: the connection is closed.
pub(crate) async fn open<Io, S, In>(
    mut socket: Io,
    opening: StreamOpening,
    outgoing: S,
) -> Result<Exchange<Io, S, In>, Status>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Stream + Unpin,
    S::Item: Message,
    In: Message + Default,
{
    socket.write_all(MAGIC).await?;
    let mut frames = Framed::new(socket, Messages::<StreamOpening, StreamAnswer>::new(OPENING_BYTES_MAX));
    frames.send(opening).await?;
    let answer = frames.next().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
    match Code::from_i32(answer.code) {
        Code::Ok => {}
        code => return Err(Status::new(code, answer.reason)),
    }
    let mut frames = frames.map_codec(|_| Messages::new(MESSAGE_BYTES_MAX));
    frames.set_backpressure_boundary(WRITE_BYTES);
    Ok(Exchange { frames, outgoing: outgoing.fuse() })
}

/// A stream to a peer, seen from the member that opened it. Ends when the peer ends it.
#[derive(Debug)]
pub(crate) struct Exchange<Io, S: Stream, In> {
    frames: Framed<Io, Messages<S::Item, In>>,
    outgoing: Fuse<S>,
}

impl<Io, S, In> Exchange<Io, S, In>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Stream + Unpin,
    S::Item: Message,
    In: Message + Default,
{
    /// Writes what there is to send, as far as the socket takes it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(room) = Pin::new(&mut self.frames).poll_ready(cx) {
            room?;
            match self.outgoing.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => Pin::new(&mut self.frames).start_send(message)?,
                // The peer ends its side when it sees that ours has ended.
                Poll::Ready(None) => return ready_or_later(Pin::new(&mut self.frames).poll_close(cx)),
                Poll::Pending => return ready_or_later(Pin::new(&mut self.frames).poll_flush(cx)),
            }
        }
        Ok(())
    }
}

/// What is not done yet wakes the task when it can go on.
fn ready_or_later(done: Poll<io::Result<()>>) -> io::Result<()> {
    match done {
        Poll::Ready(result) => result,
        Poll::Pending => Ok(()),
    }
}

impl<Io, S, In> Stream for Exchange<Io, S, In>
where
    Io: AsyncRead + AsyncWrite + Unpin,
    S: Stream + Unpin,
    S::Item: Message,
    In: Message + Default,
{
    type Item = Result<In, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // What has come is taken before more is asked: it answers what was asked before, and a peer that refuses says so
        // before its end of the connection is gone.
        if let Poll::Ready(answer) = self.frames.poll_next_unpin(cx) {
            return Poll::Ready(answer.map(|answer| answer.map_err(Status::from)));
        }
        match self.poll_send(cx) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }
}

/// A connection on which a peer wants to open a stream.
pub(crate) struct Caller<Io> {
    frames: Framed<Io, Messages<StreamAnswer, StreamOpening>>,
    pub(crate) opening: StreamOpening,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Caller<Io> {
    /// Reads who calls, and what for.
    pub(crate) async fn read(mut socket: Io, within: Duration) -> io::Result<Self> {
        let reading = async {
            let mut magic = [0; MAGIC.len()];
            socket.read_exact(&mut magic).await?;
            if &magic != MAGIC {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "neither HTTP/2 nor a stream of a member"));
            }
            let mut frames = Framed::new(socket, Messages::new(OPENING_BYTES_MAX));
            let opening = frames.next().await.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
            Ok(Self { frames, opening })
        };
        tokio::time::timeout(within, reading).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
    }

    /// What the stream is for; `Unspecified` for what this version does not know.
    pub(crate) fn kind(&self) -> StreamKind {
        self.opening.kind()
    }

    /// Does not open the stream, and says why.
    pub(crate) async fn refuse(mut self, status: &Status) -> io::Result<()> {
        let reason = status.message().to_owned();
        self.frames.send(StreamAnswer { code: status.code() as i32, reason }).await?;
        self.frames.close().await
    }

    /// Opens the stream: what comes, and where the answers go.
    pub(crate) async fn accept<Out: Message, In: Message + Default>(
        mut self,
    ) -> io::Result<(impl Sink<Out, Error = io::Error>, impl Stream<Item = io::Result<In>>)>
    where
        Io: 'static,
    {
        self.frames.send(StreamAnswer { code: Code::Ok as i32, reason: String::new() }).await?;
        let mut frames = self.frames.map_codec(|_| Messages::<Out, In>::new(MESSAGE_BYTES_MAX));
        frames.set_backpressure_boundary(WRITE_BYTES);
        Ok(frames.split())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use quorate_proto::peer::{BarrierReply, DigestMark, Greeting};
    use tokio::io::DuplexStream;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn opening() -> StreamOpening {
        let greeting = Greeting { member_id: 7, ..Greeting::default() };
        StreamOpening { greeting: Some(greeting), kind: StreamKind::Forward.into() }
    }

    fn marks(zxids: impl Iterator<Item = u64> + Send + 'static) -> impl Stream<Item = DigestMark> + Unpin {
        stream::iter(zxids.map(|zxid| DigestMark { zxid, digest: 1, known: true }))
    }

    async fn answer_each(socket: DuplexStream) -> io::Result<()> {
        let caller = Caller::read(socket, PATIENCE).await?;
        assert_eq!((caller.kind(), caller.opening.clone()), (StreamKind::Forward, opening()));
        let (answers, asked) = caller.accept::<BarrierReply, DigestMark>().await?;
        asked.map(|mark| Ok(BarrierReply { number: mark?.zxid, log_index: 0 })).forward(answers).await
    }

    #[tokio::test]
    async fn all_that_is_sent_is_answered_in_order_and_the_end_is_told() {
        // Smaller than a message: every one comes in pieces.
        let (near, far) = tokio::io::duplex(5);
        let answering = tokio::spawn(answer_each(far));

        let answers = open::<_, _, BarrierReply>(near, opening(), marks(1..=1_000)).await.unwrap();
        let numbers: Vec<u64> = answers.map(|answer| answer.unwrap().number).collect().await;

        assert_eq!(numbers, (1..=1_000).collect::<Vec<_>>());
        answering.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn refusal_is_told_with_its_code() {
        let (near, far) = tokio::io::duplex(1_000);
        let refusing = tokio::spawn(async {
            let caller = Caller::read(far, PATIENCE).await.unwrap();
            caller.refuse(&Status::failed_precondition("another list")).await.unwrap();
        });

        let refused = open::<_, _, BarrierReply>(near, opening(), marks(0..0)).await.map(|_| ()).unwrap_err();

        assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, "another list"));
        refusing.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_say_who_it_is_loses_the_connection() {
        for said in
            [&b"QUOTATION"[..], b"QUORATE\n\xff\xff\xff\xff", b"QUORATE\n\0\0\0\x02\xff\xff", b"QUORATE\n", b"Q"]
        {
            let (mut near, far) = tokio::io::duplex(1_000);
            near.write_all(said).await.unwrap();

            assert!(Caller::read(far, PATIENCE).await.is_err(), "{said:?}");
        }
    }

    #[test]
    fn length_alone_takes_no_memory() {
        let mut codec = Messages::<BarrierReply, DigestMark>::new(MESSAGE_BYTES_MAX);
        let mut buffer = BytesMut::from(&(MESSAGE_BYTES_MAX as u32).to_be_bytes()[..]);

        assert_eq!(codec.decode(&mut buffer).unwrap(), None);

        assert!(buffer.capacity() <= 2 * RESERVE_BYTES_MAX, "{}", buffer.capacity());
        let mut too_long = BytesMut::from(&(MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes()[..]);
        assert!(codec.decode(&mut too_long).is_err());
    }

    #[tokio::test]
    async fn what_was_answered_before_the_connection_broke_is_told() {
        let (near, far) = tokio::io::duplex(1_000);
        let answering = tokio::spawn(async {
            let caller = Caller::read(far, PATIENCE).await.unwrap();
            let (mut answers, _asked) = caller.accept::<BarrierReply, DigestMark>().await.unwrap();
            answers.send(BarrierReply { number: 7, log_index: 0 }).await.unwrap();
        });
        let endless = stream::repeat(DigestMark::default());
        let mut answers = open::<_, _, BarrierReply>(near, opening(), endless).await.unwrap();
        answering.await.unwrap();

        assert_eq!(answers.next().await.unwrap().unwrap().number, 7);
        assert!(answers.next().await.is_none_or(|ended| ended.is_err()));
    }

    #[tokio::test]
    async fn stream_that_breaks_off_is_an_error_and_garbage_too() {
        for rest in [&b"\0\0\0\x09abc"[..], b"\0\0\0\x02\xff\xff"] {
            let (near, far) = tokio::io::duplex(1_000);
            tokio::spawn(async move {
                let caller = Caller::read(far, PATIENCE).await.unwrap();
                let mut socket = caller.frames.into_inner();
                socket.write_all(b"\0\0\0\0").await.unwrap();
                socket.write_all(rest).await.unwrap();
            });

            let mut answers =
                open::<_, _, BarrierReply>(near, opening(), stream::pending::<DigestMark>()).await.unwrap();

            assert!(answers.next().await.unwrap().is_err(), "{rest:?}");
        }
    }
}
