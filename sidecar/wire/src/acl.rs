//! Who may do what.

use bytes::BytesMut;

use crate::{DecodeError, Decoder, Encoder as _};

/// One entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// READ 1, WRITE 2, CREATE 4, DELETE 8, ADMIN 16.
    pub permissions: i32,
    /// `world`, `auth`, `digest`, `ip`, ...; empty for null.
    pub scheme: String,
    /// Whom, by the rules of the scheme. Null is kept apart: some clients write an empty text so, and `world` must
    /// not have it.
    pub id: Option<String>,
}

/// An entry is no shorter than this.
const ACL_BYTES_MIN: usize = 12;
const CLIENT_INFO_BYTES_MIN: usize = 8;

impl Acl {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            permissions: from.int()?,
            scheme: from.text()?.unwrap_or_default().into_owned(),
            id: from.text()?.map(Into::into),
        })
    }

    /// Reads a list; a null one is empty, for both are refused alike.
    pub(crate) fn decode_list(from: &mut Decoder<'_>) -> Result<Vec<Self>, DecodeError> {
        Ok(from.vector(ACL_BYTES_MIN, Self::decode)?.unwrap_or_default())
    }

    /// Appends a list.
    pub(crate) fn encode_list(list: &[Self], to: &mut BytesMut) {
        to.count(list.len());
        for entry in list {
            to.int(entry.permissions);
            to.text(&entry.scheme);
            to.buffer(entry.id.as_ref().map(String::as_bytes));
        }
    }
}

/// What a connection is authenticated as, as whoAmI tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The scheme.
    pub scheme: String,
    /// The user, without secrets.
    pub user: String,
}

impl ClientInfo {
    pub(crate) fn decode_list(from: &mut Decoder<'_>) -> Result<Vec<Self>, DecodeError> {
        let one = |from: &mut Decoder<'_>| {
            Ok(Self {
                scheme: from.text()?.unwrap_or_default().into_owned(),
                user: from.text()?.unwrap_or_default().into_owned(),
            })
        };
        Ok(from.vector(CLIENT_INFO_BYTES_MIN, one)?.unwrap_or_default())
    }

    pub(crate) fn encode_list(list: &[Self], to: &mut BytesMut) {
        to.count(list.len());
        for info in list {
            to.text(&info.scheme);
            to.text(&info.user);
        }
    }
}
