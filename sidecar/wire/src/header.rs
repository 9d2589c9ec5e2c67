//! What stands before every request and every reply, the handshake apart.

use bytes::BytesMut;

use crate::{DecodeError, Decoder, Encoder as _, ErrorCode};

/// Of a watch notification.
pub const XID_EVENT: i32 = -1;
/// Of a ping and its reply.
pub const XID_PING: i32 = -2;
/// Of a credential and its reply.
pub const XID_AUTH: i32 = -4;
/// Of re-armed watches and their reply.
pub const XID_SET_WATCHES: i32 = -8;

/// Before a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The client's number; the reply carries it too.
    pub xid: i32,
    /// The operation; see [`crate::OpCode::of`].
    pub op: i32,
}

impl RequestHeader {
    /// Reads it.
    ///
    /// # Errors
    /// If the frame ends.
    #[inline]
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: from.int()?, op: from.int()? })
    }

    /// Appends it.
    #[inline]
    pub fn encode(self, to: &mut BytesMut) {
        to.int(self.xid);
        to.int(self.op);
    }
}

/// Before a response, and alone where the request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's.
    pub xid: i32,
    /// The last change the answer shows; 0 or less where it shows none.
    pub zxid: i64,
    /// How it went.
    pub error: ErrorCode,
}

impl ReplyHeader {
    /// Reads it.
    ///
    /// # Errors
    /// If the frame ends.
    #[inline]
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { xid: from.int()?, zxid: from.long()?, error: ErrorCode(from.int()?) })
    }

    /// Appends it.
    #[inline]
    pub fn encode(self, to: &mut BytesMut) {
        to.int(self.xid);
        to.long(self.zxid);
        to.int(self.error.0);
    }
}
