//! What a client is answered.

use bytes::{Bytes, BytesMut};

use crate::{
    Acl, ClientInfo, DecodeError, Decoder, Encoder as _, ErrorCode, OpCode, OpResult, ReplyHeader, Stat, frame, multi,
};

/// The body of a reply to a request that was not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing but the header.
    Empty,
    /// Of create and sync; sync echoes also a null.
    Path(Option<String>),
    /// Of create2, createContainer and createTTL.
    PathStat {
        /// The node's final path.
        path: String,
        /// As it was created.
        stat: Stat,
    },
    /// Of exists, setData and setACL.
    Stat(Stat),
    /// Of getData and reconfig.
    Data {
        /// Null is kept apart from empty.
        data: Option<Bytes>,
        /// The node's.
        stat: Stat,
    },
    /// Of getACL.
    Acl {
        /// The list.
        acl: Vec<Acl>,
        /// The node's.
        stat: Stat,
    },
    /// Of getChildren, names, and of getEphemerals, paths.
    Names(Vec<String>),
    /// Of getChildren2.
    NamesStat {
        /// Without their parent's path.
        names: Vec<String>,
        /// The parent's.
        stat: Stat,
    },
    /// Of multi and multiRead: one for each operation.
    Multi(Vec<OpResult>),
    /// Of sasl.
    Token(Option<Bytes>),
    /// Of getAllChildrenNumber.
    Count(i32),
    /// Of addWatch: an error code that is always 0.
    Watching,
    /// Of whoAmI.
    Clients(Vec<ClientInfo>),
}

impl Response {
    /// Reads the body of a reply to `op` whose header says no error.
    ///
    /// # Errors
    /// If the frame ends, or a value is outside its set.
    pub fn decode(op: OpCode, from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create | OpCode::Sync => Self::Path(from.text()?.map(Into::into)),
            OpCode::Create2 | OpCode::CreateContainer | OpCode::CreateTtl => {
                Self::PathStat { path: from.some_text()?.into_owned(), stat: Stat::decode(from)? }
            }
            OpCode::Exists | OpCode::SetData | OpCode::SetAcl => Self::Stat(Stat::decode(from)?),
            OpCode::GetData | OpCode::Reconfig => Self::Data { data: from.buffer()?, stat: Stat::decode(from)? },
            OpCode::GetAcl => Self::Acl { acl: Acl::decode_list(from)?, stat: Stat::decode(from)? },
            OpCode::GetChildren | OpCode::GetEphemerals => Self::Names(multi::decode_names(from)?),
            OpCode::GetChildren2 => Self::NamesStat { names: multi::decode_names(from)?, stat: Stat::decode(from)? },
            OpCode::Multi | OpCode::MultiRead => Self::Multi(multi::decode_results(from)?),
            OpCode::Sasl => Self::Token(from.buffer()?),
            OpCode::GetAllChildrenNumber => Self::Count(from.int()?),
            OpCode::AddWatch => {
                let _always_ok = from.int()?;
                Self::Watching
            }
            OpCode::WhoAmI => Self::Clients(ClientInfo::decode_list(from)?),
            OpCode::Delete
            | OpCode::Ping
            | OpCode::CheckWatches
            | OpCode::RemoveWatches
            | OpCode::Auth
            | OpCode::SetWatches
            | OpCode::SetWatches2
            | OpCode::CloseSession => Self::Empty,
        })
    }

    /// Appends the body.
    fn encode(&self, to: &mut BytesMut) {
        match self {
            Self::Empty => {}
            Self::Path(path) => to.buffer(path.as_ref().map(String::as_bytes)),
            Self::PathStat { path, stat } => {
                to.text(path);
                stat.encode(to);
            }
            Self::Stat(stat) => stat.encode(to),
            Self::Data { data, stat } => {
                to.buffer(data.as_deref());
                stat.encode(to);
            }
            Self::Acl { acl, stat } => {
                Acl::encode_list(acl, to);
                stat.encode(to);
            }
            Self::Names(names) => multi::encode_names(names, to),
            Self::NamesStat { names, stat } => {
                multi::encode_names(names, to);
                stat.encode(to);
            }
            Self::Multi(results) => multi::encode_results(results, to),
            Self::Token(token) => to.buffer(token.as_deref()),
            Self::Count(count) => to.int(*count),
            Self::Watching => to.int(0),
            Self::Clients(clients) => ClientInfo::encode_list(clients, to),
        }
    }
}

/// Appends the whole frame of an answer.
pub fn encode_reply(xid: i32, zxid: i64, response: &Response, to: &mut BytesMut) {
    frame(to, |to| {
        ReplyHeader { xid, zxid, error: ErrorCode::OK }.encode(to);
        response.encode(to);
    });
}

/// Appends the whole frame of a refusal: a header alone.
pub fn encode_refusal(xid: i32, zxid: i64, error: ErrorCode, to: &mut BytesMut) {
    frame(to, |to| ReplyHeader { xid, zxid, error }.encode(to));
}
