//! What can go wrong in discovery.

use std::{sync::Arc, time::Duration};

use quorate::SessionId;

use super::InstanceError;

/// Why something of discovery did not happen.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DiscoveryError {
    /// The client could not do it.
    #[error(transparent)]
    Client(Arc<quorate::Error>),
    /// The instance is not complete.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// Somebody else holds the path of the instance.
    #[error("{path} is held by {}", holder(.owner))]
    Conflict {
        /// The path.
        path: String,
        /// Their session; none if the node belongs to no session.
        owner: Option<SessionId>,
    },
    /// The registration has ended.
    #[error("the registration has ended")]
    Ended,
    /// There are fewer instances than were waited for.
    #[error("{service} has {present} of {wanted} instances after {within:?}")]
    TooFew {
        /// The service.
        service: String,
        /// How many were waited for.
        wanted: usize,
        /// How many there are.
        present: usize,
        /// How long it was waited.
        within: Duration,
    },
}

impl From<quorate::Error> for DiscoveryError {
    fn from(error: quorate::Error) -> Self {
        Self::Client(Arc::new(error))
    }
}

fn holder(owner: &Option<SessionId>) -> String {
    match owner {
        Some(session) => format!("session {session}"),
        None => "a node that belongs to no session".to_owned(),
    }
}

/// There is no instance that could be picked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service} has no instance that is up ({listed} are listed)")]
#[non_exhaustive]
pub struct NoInstances {
    /// The service.
    pub service: String,
    /// Instances that are listed, whether up or not.
    pub listed: usize,
}
