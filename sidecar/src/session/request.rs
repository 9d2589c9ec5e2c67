//! The words in which both doors ask.

use bytes::Bytes;
use quorate_tree::{Op, WriteNumber};

use crate::replica::{Answer, Read};

/// One request of an attached session.
#[derive(Debug)]
pub(crate) struct Request {
    /// Comes back with the answer.
    pub(crate) tag: u64,
    /// The client's number of this write, where its protocol has numbers.
    pub(crate) write: Option<WriteNumber>,
    /// W3C trace context, where the caller's trace is sampled.
    pub(crate) traceparent: String,
    pub(crate) kind: RequestKind,
}

#[derive(Debug)]
pub(crate) enum RequestKind {
    Read {
        read: Read,
        /// Not before everything committed by now has been applied here.
        linearizable: bool,
    },
    Write(Op),
    /// Adds an identity to the connection.
    Auth {
        scheme: String,
        credential: Bytes,
    },
    /// What this connection has authenticated as.
    WhoAmI,
    /// Answered by the door itself; keeps its place among the others.
    Answered(Answer),
    /// Answered out of order, once the leader has vouched for the session.
    Heartbeat,
}
