//! What a watch tells.

use std::borrow::Cow;

use bytes::BytesMut;

use crate::{DecodeError, Decoder, Encoder as _, ErrorCode, ReplyHeader, XID_EVENT, frame};

/// What happened to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names are the protocol's")]
pub enum EventType {
    NodeCreated = 1,
    NodeDeleted = 2,
    NodeDataChanged = 3,
    NodeChildrenChanged = 4,
}

/// The client is connected: the only state a server tells.
const SYNC_CONNECTED: i32 = 3;

/// A notification; its frame comes unasked between the replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchEvent<'a> {
    /// What happened.
    pub event: EventType,
    /// To which node.
    pub path: Cow<'a, str>,
}

impl<'a> WatchEvent<'a> {
    /// Reads what follows the header of a notification.
    ///
    /// # Errors
    /// If the frame ends, the path is null or the event unknown.
    pub fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let event = match from.int()? {
            1 => EventType::NodeCreated,
            2 => EventType::NodeDeleted,
            3 => EventType::NodeDataChanged,
            4 => EventType::NodeChildrenChanged,
            value => return Err(DecodeError::Value { what: "event of a server", value }),
        };
        let _state = from.int()?;
        Ok(Self { event, path: from.some_text()? })
    }

    /// Appends the whole frame. `zxid` is that of the change, -1 where it was found when watches were set again.
    pub fn encode(&self, zxid: i64, to: &mut BytesMut) {
        frame(to, |to| {
            ReplyHeader { xid: XID_EVENT, zxid, error: ErrorCode::OK }.encode(to);
            to.int(self.event as i32);
            to.int(SYNC_CONNECTED);
            to.text(&self.path);
        });
    }
}
