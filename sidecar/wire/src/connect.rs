//! The handshake: the first frame of each side, without a header.

use bytes::{Bytes, BytesMut};

use crate::{DecodeError, Decoder, Encoder as _};

/// A session's password has exactly this many bytes, also where there is no session: the C client reads as many.
pub const PASSWORD_BYTES: usize = 16;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Ignored by servers; 0.
    pub protocol_version: i32,
    /// The greatest zxid the client has seen.
    pub last_zxid_seen: i64,
    /// The timeout it wants.
    pub timeout_ms: i32,
    /// The session to resume; 0 opens one.
    pub session_id: i64,
    /// The proof that it is the client's; null and empty are one.
    pub password: Bytes,
    /// Whether a server without a quorum will do. `None` from clients older than 3.4, who must not be answered with
    /// that field either.
    pub read_only: Option<bool>,
}

impl ConnectRequest {
    /// Reads it.
    ///
    /// # Errors
    /// If the frame ends or a length is negative.
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(frame);
        Ok(Self {
            protocol_version: from.int()?,
            last_zxid_seen: from.long()?,
            timeout_ms: from.int()?,
            session_id: from.long()?,
            password: from.buffer()?.unwrap_or_default(),
            read_only: if from.remaining() == 0 { None } else { Some(from.boolean()?) },
        })
    }

    /// Appends it, without its frame.
    pub fn encode(&self, to: &mut BytesMut) {
        to.int(self.protocol_version);
        to.long(self.last_zxid_seen);
        to.int(self.timeout_ms);
        to.long(self.session_id);
        to.buffer(Some(&self.password));
        if let Some(read_only) = self.read_only {
            to.boolean(read_only);
        }
    }
}

/// The server's first word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// What was granted; 0 says that there is no such session.
    pub timeout_ms: i32,
    /// The session; 0 with it.
    pub session_id: i64,
    /// Its password; zeros with it.
    pub password: [u8; PASSWORD_BYTES],
    /// Whether the server has no quorum. `None` if the client did not say the like.
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    /// There is no such session: it has expired, or it is not the client's.
    #[must_use]
    pub fn no_session(read_only: Option<bool>) -> Self {
        Self { timeout_ms: 0, session_id: 0, password: [0; PASSWORD_BYTES], read_only }
    }

    /// Reads it.
    ///
    /// # Errors
    /// If the frame ends, or the password has another length.
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(frame);
        let _protocol_version = from.int()?;
        Ok(Self {
            timeout_ms: from.int()?,
            session_id: from.long()?,
            password: {
                let password = from.slice()?.ok_or(DecodeError::Null)?;
                password.try_into().map_err(|_length| DecodeError::Length(password.len() as i32))?
            },
            read_only: if from.remaining() == 0 { None } else { Some(from.boolean()?) },
        })
    }

    /// Appends it, without its frame.
    pub fn encode(&self, to: &mut BytesMut) {
        to.int(0);
        to.int(self.timeout_ms);
        to.long(self.session_id);
        to.buffer(Some(&self.password));
        if let Some(read_only) = self.read_only {
            to.boolean(read_only);
        }
    }
}
