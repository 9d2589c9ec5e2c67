//! What can go wrong with what is held, beside what can go wrong in the client.

use std::time::Duration;

use quorate::LostReason;

/// The result of what locks and elections do.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a recipe did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The time given for it was over before it was acquired. Nothing is left behind.
    #[error("{path} was not acquired within {after:?}")]
    Timeout {
        /// What was to be acquired.
        path: String,
        /// The time given.
        after: Duration,
    },
    /// The token given for it was cancelled before it was acquired. Nothing is left behind.
    #[error("waiting for {path} was cancelled")]
    Cancelled {
        /// What was to be acquired.
        path: String,
    },
    /// What was held is not held any more: somebody else may hold it now.
    #[error("{path} is lost: {reason}")]
    Lost {
        /// The node that stood for it.
        path: String,
        /// Why it was lost.
        reason: LostReason,
    },
    /// What was held has been given up by its holder.
    #[error("{path} was released before")]
    Released {
        /// The node that stood for it.
        path: String,
    },
    /// The counter that gives contenders their order is about to leave the range in which Java and Rust agree
    /// on the order. Use another path, or let the node be deleted while nobody contends: that resets it.
    #[error("the counter of {path} has come to {sequence}, which is too near to its end")]
    SequenceNearOverflow {
        /// The node whose children are counted.
        path: String,
        /// How far it has come.
        sequence: i64,
    },
    /// The client said no.
    #[error(transparent)]
    Client(#[from] quorate::Error),
}
