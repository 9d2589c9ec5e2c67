//! The only file that names tonic: connections to members, and the frames of the session stream.
//!
//! Frames are encoded by the outbox and only copied here, so a request is never cloned to be sent.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::{BufMut, Bytes};
use futures_util::{StreamExt, stream};
use prost::Message;
use quorate_proto::v1;
use tonic::{
    Code,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming},
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
pub(crate) use tonic::{Response, Status};

use crate::{endpoints::Seed, error::Error, outbox::Outgoing};

/// What a member may send at once. The largest answer is bounded by the ensemble, and far below.
const REPLY_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The receiver advertises it; the default of 16 KiB splits larger frames, and costs a fifth of the CPU.
const HTTP2_FRAME_BYTES_MAX: u32 = 128 * 1024;
const HTTP2_WINDOW_BYTES: u32 = 2 * 1024 * 1024;

pub(crate) type AdminClient = v1::admin_client::AdminClient<Channel>;

/// Why a member could not be talked to.
#[derive(Debug)]
pub(crate) enum Failure {
    /// There is no connection, or it broke.
    Unreachable(String),
    /// The session to resume does not exist, or is not ours.
    NoSession(String),
    /// The member said no for another reason.
    Refused(Code, String),
    /// The member does not speak our protocol.
    Protocol(String),
}

impl Failure {
    /// Whether another member would say the same.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Refused(code, _) => {
                matches!(code, Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented)
            }
            Self::NoSession(_) => true,
            Self::Unreachable(_) | Self::Protocol(_) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(message) | Self::NoSession(message) | Self::Protocol(message) => f.write_str(message),
            Self::Refused(code, message) => write!(f, "{message} ({code:?})"),
        }
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::NotFound | Code::Unauthenticated => Self::NoSession(message),
            // What tonic makes of a connection that breaks.
            Code::Unavailable | Code::Cancelled | Code::Unknown => Self::Unreachable(message),
            // The server has no such service at all, so it has nothing to say about it either.
            Code::Unimplemented => Self::Refused(
                Code::Unimplemented,
                "the server at this endpoint has no sessions for clients; is it another door, or another service?"
                    .into(),
            ),
            code => Self::Refused(code, message),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(Code::Unimplemented, message) => Self::Config { message },
            Failure::Refused(_, message) | Failure::NoSession(message) => Self::BadArguments { message },
            Failure::Unreachable(message) => Self::Unreachable { message },
            Failure::Protocol(message) => Self::Protocol(message),
        }
    }
}

/// A connection to one address.
pub(crate) async fn connect(seed: &Seed, address: SocketAddr, within: Duration) -> Result<Channel, Failure> {
    let unreachable = |error: tonic::transport::Error| {
        // The cause says more than what is around it.
        let mut cause: &dyn std::error::Error = &error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Failure::Unreachable(format!("{address}: {cause}"))
    };
    Endpoint::from_shared(format!("http://{address}"))
        .map_err(unreachable)?
        .origin(seed.to_string().parse().expect("a seed was parsed from an address"))
        .connect_timeout(within)
        .tcp_nodelay(true)
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .max_frame_size(HTTP2_FRAME_BYTES_MAX)
        .connect()
        .await
        .map_err(unreachable)
}

/// A member to ask, at any of the addresses of the seed.
pub(crate) async fn admin(seed: &Seed, within: Duration) -> Result<AdminClient, Failure> {
    let mut failure = Failure::Unreachable(format!("{seed} has no address"));
    let addresses = seed.resolve().await.map_err(|error| Failure::Unreachable(error.to_string()))?;
    for address in addresses {
        match connect(seed, address, within).await {
            Ok(channel) => {
                return Ok(AdminClient::new(channel).max_decoding_message_size(REPLY_FRAME_BYTES_MAX));
            }
            Err(other) => failure = other,
        }
    }
    Err(failure)
}

/// What a member sends on a session stream.
pub(crate) struct Incoming {
    frames: Streaming<v1::ServerFrame>,
}

impl Incoming {
    /// The next frame; `None` when the member has ended the stream.
    ///
    /// Cancel-safe: a frame is taken whole or not at all.
    pub(crate) async fn next(&mut self) -> Result<Option<v1::ServerFrame>, Failure> {
        self.frames.message().await.map_err(Failure::from)
    }
}

/// Opens a session stream. Returns when the member has taken it up.
pub(crate) async fn attach(channel: &Channel, outgoing: Outgoing) -> Result<Incoming, Failure> {
    open(channel, outgoing).await
}

/// Opens a stream that carries one frame and stays open.
pub(crate) async fn attach_for(channel: &Channel, frame: v1::ClientFrame) -> Result<Incoming, Failure> {
    let frame = Bytes::from(frame.encode_to_vec());
    open(channel, stream::iter([frame]).chain(stream::pending())).await
}

async fn open(
    channel: &Channel,
    frames: impl futures_core::Stream<Item = Bytes> + Send + 'static,
) -> Result<Incoming, Failure> {
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(REPLY_FRAME_BYTES_MAX);
    grpc.ready().await.map_err(|error| Failure::Unreachable(error.to_string()))?;
    let path = PathAndQuery::from_static("/quorate.v1.Session/Attach");
    let response = grpc.streaming(tonic::Request::new(frames), path, FrameCodec).await?;
    Ok(Incoming { frames: response.into_inner() })
}

/// Frames out as they are, frames in decoded.
struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Bytes;
    type Decode = v1::ServerFrame;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for FrameCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, frame: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(frame);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = v1::ServerFrame;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<v1::ServerFrame>, Status> {
        match v1::ServerFrame::decode(buffer) {
            Ok(frame) => Ok(Some(frame)),
            Err(error) => Err(Status::internal(error.to_string())),
        }
    }
}
