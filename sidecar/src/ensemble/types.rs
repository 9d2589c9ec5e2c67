//! The Raft crate's type configuration, and our names for its types.

use std::fmt;

use bytes::Bytes;
use openraft::{BasicNode, EntryPayload, RaftTypeConfig, vote::RaftLeaderId};
use openraft_rt_tokio::TokioRuntime;

/// What the Raft crate is told about us.
#[derive(Debug, Clone, Copy, Default, Eq, PartialEq, Ord, PartialOrd)]
pub(crate) struct Types;

/// An encoded `quorate.peer.v1.Batch`: what one log entry carries.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct BatchBytes(pub(crate) Bytes);

/// Applying an entry answers nothing: the member that proposed a command completes it when it applies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EntryApplied;

pub(crate) type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, u64>;
pub(crate) type Vote = openraft::impls::Vote<LeaderId>;
pub(crate) type LogId = openraft::LogId<<LeaderId as RaftLeaderId>::Committed>;
pub(crate) type Payload = EntryPayload<BatchBytes, u64, BasicNode>;
pub(crate) type Entry = openraft::impls::Entry<<LeaderId as RaftLeaderId>::Committed, Payload>;
pub(crate) type Membership = openraft::Membership<u64, BasicNode>;

impl RaftTypeConfig for Types {
    type D = BatchBytes;
    type R = EntryApplied;
    type NodeId = u64;
    type Node = BasicNode;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = Entry;
    type AsyncRuntime = TokioRuntime;
    type Responder<T>
        = openraft::impls::OneshotResponder<Self, T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

impl fmt::Debug for BatchBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "batch of {} bytes", self.0.len())
    }
}

impl fmt::Display for BatchBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl fmt::Display for EntryApplied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("applied")
    }
}
