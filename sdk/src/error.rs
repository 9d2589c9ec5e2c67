//! What can go wrong, sorted by what the caller can do about it.

use std::time::Duration;

use quorate_proto::v1;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call did not do what was asked.
///
/// A lost connection is no error here: requests wait for the next connection, and writes are sent again under
/// their old numbers, so that each is applied once. Errors are what the rules of the tree said, and what is
/// left when the session ends or time runs out. [`Error::is_unknown_outcome`] tells the few cases where a
/// write may or may not have happened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The node, or the parent of the node to create, does not exist.
    #[error("no node {path}")]
    NoNode {
        /// The node that was asked for.
        path: String,
    },
    /// A node exists already at this path.
    #[error("node {path} exists")]
    NodeExists {
        /// The node that was to be created.
        path: String,
    },
    /// The node has another version than the one required.
    #[error("node {path} has another version")]
    BadVersion {
        /// The node whose version differs.
        path: String,
    },
    /// The node has children, so it cannot be deleted.
    #[error("node {path} has children")]
    NotEmpty {
        /// The node that was to be deleted.
        path: String,
    },
    /// The parent is ephemeral, and ephemeral nodes have no children.
    #[error("the parent of {path} is ephemeral")]
    NoChildrenForEphemerals {
        /// The node that was to be created.
        path: String,
    },
    /// No identity of this client has the permission.
    #[error("no permission on {path}")]
    NoAuth {
        /// The node that is protected.
        path: String,
    },
    /// The access control list is empty, or an entry of it is malformed.
    #[error("the access control list for {path} is malformed")]
    InvalidAcl {
        /// The node that was to get the list.
        path: String,
    },
    /// This is not a path. Nothing was sent.
    #[error("{path:?} is no path: {reason}")]
    InvalidPath {
        /// What was given.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An argument makes no sense, for instance a time to live on an ephemeral node.
    #[error("bad arguments: {message}")]
    BadArguments {
        /// What is wrong.
        message: String,
    },
    /// A quota of the tree would be passed.
    #[error("the quota above {path} is used up")]
    QuotaExceeded {
        /// The node that was to be written.
        path: String,
    },
    /// A bound of the ensemble would be passed (the server's `docs/limits.md`).
    #[error("a limit of the ensemble would be passed: {message}")]
    LimitExceeded {
        /// Which one, in the server's words.
        message: String,
    },
    /// The disks of the ensemble are nearly full: writes are refused, reads go on.
    #[error("the ensemble's disks are nearly full")]
    DiskFull,
    /// The answer would be larger than a frame may be.
    #[error("the answer for {path} is larger than a frame")]
    ResponseTooLarge {
        /// The node that was read.
        path: String,
    },
    /// The request is larger than a frame may be. Nothing was sent.
    #[error("a request of {bytes} bytes is larger than the {bytes_max} that a frame may have")]
    RequestTooLarge {
        /// Its size.
        bytes: usize,
        /// The largest the ensemble takes.
        bytes_max: usize,
    },
    /// The ensemble did not accept a credential of this client. The client stops.
    #[error("a credential was not accepted")]
    AuthFailed,
    /// One operation of a transaction was refused, and so nothing of it was done.
    #[error("operation {index} of the transaction was refused")]
    Txn {
        /// The operation to blame, counted from 0.
        index: usize,
        /// Why it was refused.
        source: Box<Error>,
    },
    /// The call took longer than it may.
    #[error("{op} was not answered within {after:?}")]
    Timeout {
        /// What was asked.
        op: &'static str,
        /// The bound that was reached.
        after: Duration,
        /// Whether a write may have happened, or may happen yet.
        ambiguous: bool,
    },
    /// The session ended before the request was answered.
    #[error("the session was lost: {reason}")]
    SessionLost {
        /// Why it ended.
        reason: LostReason,
        /// Whether a write may have happened. It cannot happen any more once the next session is there.
        ambiguous: bool,
    },
    /// No member could be reached, or none would serve.
    #[error("no member serves this client: {message}")]
    Unreachable {
        /// What the last attempt said.
        message: String,
    },
    /// This client was closed.
    #[error("the client is closed")]
    Closed,
    /// The builder was given something that cannot work.
    #[error("configuration: {message}")]
    Config {
        /// What cannot work.
        message: String,
    },
    /// The server broke the protocol.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

impl Error {
    /// Whether the same call may succeed if it is made again later, without doing anything twice.
    ///
    /// Never true when the outcome of a write is unknown: what to do then depends on the write.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Timeout { ambiguous, .. } | Self::SessionLost { ambiguous, .. } => !ambiguous,
            Self::DiskFull | Self::LimitExceeded { .. } | Self::Unreachable { .. } => true,
            _ => false,
        }
    }

    /// Whether it is certain that the call changed nothing.
    pub fn definitely_not_applied(&self) -> bool {
        !self.is_unknown_outcome()
    }

    /// Whether a write may have happened although it was not acknowledged.
    pub fn is_unknown_outcome(&self) -> bool {
        match self {
            Self::Timeout { ambiguous, .. } | Self::SessionLost { ambiguous, .. } => *ambiguous,
            Self::Txn { source, .. } => source.is_unknown_outcome(),
            Self::Protocol(_) => true,
            _ => false,
        }
    }

    /// The code by which ZooKeeper names this error.
    pub fn code(&self) -> i32 {
        match self {
            Self::NoNode { .. } => -101,
            Self::NoAuth { .. } => -102,
            Self::BadVersion { .. } => -103,
            Self::NoChildrenForEphemerals { .. } => -108,
            Self::NodeExists { .. } => -110,
            Self::NotEmpty { .. } => -111,
            Self::SessionLost { .. } | Self::Closed => -112,
            Self::InvalidAcl { .. } => -114,
            Self::AuthFailed => -115,
            Self::QuotaExceeded { .. } => -125,
            Self::LimitExceeded { .. } => -127,
            Self::InvalidPath { .. } | Self::BadArguments { .. } | Self::Config { .. } => -8,
            Self::Timeout { .. } => -7,
            Self::RequestTooLarge { .. } | Self::ResponseTooLarge { .. } => -5,
            Self::Unreachable { .. } => -4,
            Self::Txn { source, .. } => source.code(),
            Self::DiskFull | Self::Protocol(_) => -1,
        }
    }

    /// What the server said no to. `path` is the node the request was about.
    pub(crate) fn from_refusal(path: &str, refused: v1::RefusedReply) -> Self {
        let path = || path.to_owned();
        match refused.reason() {
            v1::Refusal::NoNode => Self::NoNode { path: path() },
            v1::Refusal::NodeExists => Self::NodeExists { path: path() },
            v1::Refusal::BadVersion => Self::BadVersion { path: path() },
            v1::Refusal::NotEmpty => Self::NotEmpty { path: path() },
            v1::Refusal::NoChildrenForEphemerals => Self::NoChildrenForEphemerals { path: path() },
            v1::Refusal::NoAuth => Self::NoAuth { path: path() },
            v1::Refusal::InvalidAcl => Self::InvalidAcl { path: path() },
            v1::Refusal::QuotaExceeded => Self::QuotaExceeded { path: path() },
            v1::Refusal::BadArguments => Self::BadArguments { message: refused.message },
            v1::Refusal::LimitExceeded => Self::LimitExceeded { message: refused.message },
            v1::Refusal::DiskFull => Self::DiskFull,
            v1::Refusal::ReplyTooLarge => Self::ResponseTooLarge { path: path() },
            v1::Refusal::AuthFailed => Self::AuthFailed,
            v1::Refusal::SessionExpired => Self::SessionLost { reason: LostReason::SessionExpired, ambiguous: false },
            v1::Refusal::Unspecified
            | v1::Refusal::RolledBack
            | v1::Refusal::SessionMoved
            | v1::Refusal::WrongPassword
            | v1::Refusal::Gap
            | v1::Refusal::NoWatch => {
                Self::Protocol(format!("{} is no answer to this request", refused.reason().as_str_name()))
            }
        }
    }

    /// Replaces the path by what the caller called it.
    pub(crate) fn map_path(mut self, f: &dyn Fn(&str) -> String) -> Self {
        match &mut self {
            Self::NoNode { path }
            | Self::NodeExists { path }
            | Self::BadVersion { path }
            | Self::NotEmpty { path }
            | Self::NoChildrenForEphemerals { path }
            | Self::NoAuth { path }
            | Self::InvalidAcl { path }
            | Self::QuotaExceeded { path }
            | Self::ResponseTooLarge { path } => *path = f(path),
            Self::Txn { index, source } => {
                let inner = std::mem::replace(&mut **source, Self::Closed);
                return Self::Txn { index: *index, source: Box::new(inner.map_path(f)) };
            }
            _ => {}
        }
        self
    }
}

/// Why a session, or what was held through it, is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LostReason {
    /// The ensemble ended the session: nobody was heard from it for its timeout, or an operator ended it.
    SessionExpired,
    /// This client could not prove to itself that the session lives: its own deadline passed.
    LocalDeadline,
    /// The node that stood for what was held was deleted by somebody else.
    NodeDeleted,
    /// The holder was asked to let go.
    Revoked,
    /// The ensemble did not accept who this client is.
    Auth,
    /// This client was closed.
    ClientClosed,
    /// The ensemble and this client disagree on what the session has done.
    Protocol,
}

impl std::fmt::Display for LostReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SessionExpired => "it has expired",
            Self::LocalDeadline => "it could not be kept alive in time",
            Self::NodeDeleted => "its node was deleted",
            Self::Revoked => "it was revoked",
            Self::Auth => "a credential was not accepted",
            Self::ClientClosed => "the client was closed",
            Self::Protocol => "client and ensemble disagree on it",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_outcome_is_never_retryable() {
        let unknown = [
            Error::Timeout { op: "set", after: Duration::from_secs(1), ambiguous: true },
            Error::SessionLost { reason: LostReason::SessionExpired, ambiguous: true },
        ];

        for error in unknown {
            assert!(error.is_unknown_outcome(), "{error}");
            assert!(!error.definitely_not_applied(), "{error}");
            assert!(!error.is_retryable(), "{error}");
        }
    }

    #[test]
    fn a_refused_transaction_has_the_code_of_the_operation_to_blame() {
        let error = Error::Txn { index: 1, source: Box::new(Error::BadVersion { path: "/a".into() }) };

        assert_eq!(error.code(), -103);
        assert!(error.definitely_not_applied());
    }
}
