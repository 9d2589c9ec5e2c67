//! What can go wrong with settings.

use std::sync::Arc;

use super::Origin;

/// Why something of the configuration did not happen.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The client could not do it.
    #[error(transparent)]
    Client(Arc<quorate::Error>),
    /// A value is missing, or is not of the type it should be.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The values do not pass the check they were given.
    #[error("{prefix} was rejected: {message}")]
    Invalid {
        /// The key above them.
        prefix: String,
        /// What the check said.
        message: String,
    },
    /// This cannot be a key.
    #[error("{key:?} is no key: {reason}")]
    Key {
        /// What was given.
        key: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two nodes set one key, so it is open which one to change.
    #[error("{key} is set by both {first} and {second}")]
    Duplicate {
        /// The key.
        key: String,
        /// A path.
        first: String,
        /// Another.
        second: String,
    },
    /// The profile is not one of those this configuration was built with.
    #[error("{profile} is no profile of this configuration")]
    Profile {
        /// What was given.
        profile: String,
    },
    /// Somebody else has changed the key since the edit was begun.
    #[error("{key} was changed by somebody else")]
    Conflict {
        /// The key.
        key: String,
    },
    /// The edit is too large for one step.
    #[error("an edit of {bytes} bytes is larger than the {bytes_max} that one step may have")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The largest.
        bytes_max: usize,
    },
}

impl From<quorate::Error> for ConfigError {
    fn from(error: quorate::Error) -> Self {
        Self::Client(Arc::new(error))
    }
}

/// A value is missing, or is not of the type it should be. It tells the key and never the value, which may be
/// secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {message}{}", from(.origin))]
#[non_exhaustive]
pub struct BindError {
    /// The key.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// Where the value comes from, if there is one.
    pub origin: Option<Origin>,
}

fn from(origin: &Option<Origin>) -> String {
    origin.as_ref().map_or_else(String::new, |origin| format!(" (from {origin})"))
}
