//! What is known of a node besides its data.

use bytes::{BufMut as _, BytesMut};

use crate::{DecodeError, Decoder};

/// 68 bytes, in exactly this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub struct Stat {
    pub czxid: i64,
    pub mzxid: i64,
    pub ctime: i64,
    pub mtime: i64,
    pub version: i32,
    pub cversion: i32,
    pub aversion: i32,
    pub ephemeral_owner: i64,
    pub data_length: i32,
    pub num_children: i32,
    pub pzxid: i64,
}

impl Stat {
    const BYTES: usize = 68;

    /// Reads it.
    ///
    /// # Errors
    /// If the frame ends.
    pub fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            czxid: from.long()?,
            mzxid: from.long()?,
            ctime: from.long()?,
            mtime: from.long()?,
            version: from.int()?,
            cversion: from.int()?,
            aversion: from.int()?,
            ephemeral_owner: from.long()?,
            data_length: from.int()?,
            num_children: from.int()?,
            pzxid: from.long()?,
        })
    }

    /// Appends it.
    pub fn encode(&self, to: &mut BytesMut) {
        // Room is looked for once and not for each field.
        let mut bytes = [0; Self::BYTES];
        let mut rest = &mut bytes[..];
        rest.put_i64(self.czxid);
        rest.put_i64(self.mzxid);
        rest.put_i64(self.ctime);
        rest.put_i64(self.mtime);
        rest.put_i32(self.version);
        rest.put_i32(self.cversion);
        rest.put_i32(self.aversion);
        rest.put_i64(self.ephemeral_owner);
        rest.put_i32(self.data_length);
        rest.put_i32(self.num_children);
        rest.put_i64(self.pzxid);
        to.extend_from_slice(&bytes);
    }
}
