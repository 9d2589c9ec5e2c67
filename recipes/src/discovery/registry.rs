//! Where instances are registered, and in which form.

use std::sync::Arc;

use quorate::Client;

use super::{
    DiscoveryError, InstanceBuilder, PayloadProfile, Registration, SPRING_ROOT,
    actor::{self, Desired},
    instance::{key, process_nonce},
};
use crate::mirror::join;

/// What to do when the path of an instance is held by somebody else. It can only come to that with ids of one's
/// own: the default ids are unique.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// Wait until it is free. What a run that died has left goes with its session; a live holder may keep it for
    /// long, so put a timeout around the registering.
    #[default]
    WaitForExpiry,
    /// Fail with [`DiscoveryError::Conflict`]. What an earlier session of this very process has left at the same
    /// address is waited for nevertheless, for as long as it can outlive it.
    Fail,
    /// Take it from whoever holds it when the instance is registered first. If it is taken from us later, wait
    /// until it is free.
    Steal,
}

/// Registers instances below one root.
#[derive(Debug, Clone)]
pub struct Registry {
    client: Client,
    base: Arc<str>,
    profile: Arc<PayloadProfile>,
    on_conflict: OnConflict,
}

impl Registry {
    /// Where Spring Cloud Zookeeper registers, and as it does: below `/services`.
    pub fn spring(client: &Client) -> Self {
        Self::curator(client, SPRING_ROOT, PayloadProfile::Spring)
    }

    /// Another root, and the payload that all who register below it agree on.
    pub fn curator(client: &Client, base: impl Into<String>, profile: PayloadProfile) -> Self {
        Self {
            client: client.clone(),
            base: base.into().into(),
            profile: Arc::new(profile),
            on_conflict: OnConflict::default(),
        }
    }

    /// What to do when the path is held by somebody else.
    #[must_use]
    pub fn on_conflict(mut self, policy: OnConflict) -> Self {
        self.on_conflict = policy;
        self
    }

    /// Registers an instance and waits until it can be found. From then on the registration keeps it there:
    /// through lost connections without any write, after a lost session by creating it again.
    ///
    /// # Errors
    /// The instance is not complete, the path is held by somebody else and the policy is to fail, or the
    /// ensemble refuses.
    ///
    /// # Cancel safety
    /// Dropping the future takes back in the background what was done.
    pub async fn register(&self, instance: InstanceBuilder) -> Result<Registration, DiscoveryError> {
        let mut instance = instance.build_for(&self.profile)?;
        instance.set_metadata(key::NONCE, Some(&process_nonce()));
        let path = join(&join(&self.base, instance.name()), instance.id());
        let registration = Registration::start(
            &self.client,
            path,
            self.profile.clone(),
            actor::Options { on_conflict: self.on_conflict },
            Desired::first(instance),
        );
        registration.registered().await?;
        Ok(registration)
    }
}
