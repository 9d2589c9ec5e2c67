//! Services that register and find each other, in the layout of Curator and Spring Cloud Zookeeper.
//!
//! An instance is an ephemeral node `/services/<service>/<id>` with a JSON object that Java applications read and
//! write as well.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
//! # let endpoints = ensemble.endpoints();
//! use std::{net::SocketAddr, time::Duration};
//!
//! use quorate::Client;
//! use quorate_recipes::discovery::{Discovery, Instance, Registry, RoundRobin};
//!
//! // In the service:
//! let client = Client::builder(&endpoints).connect().await?;
//! let address: SocketAddr = "10.0.0.7:8080".parse()?;
//! let registration = Registry::spring(&client)
//!     .register(Instance::builder("payments").http(address).zone("eu-1").weight(10))
//!     .await?;
//!
//! // In whoever calls it:
//! let caller = Client::builder(&endpoints).connect().await?;
//! let payments = Discovery::spring(&caller).service("payments").watch().await?;
//! payments.wait_for(1, Duration::from_secs(10)).await?;
//! let balancer = payments.balancer(RoundRobin);
//! let pick = balancer.pick()?;
//! assert_eq!(pick.instance().uri(), "http://10.0.0.7:8080");
//! pick.success();
//!
//! // When the service ends: callers first, then the node.
//! registration.drain(Duration::from_millis(50)).await?;
//! registration.deregister().await?;
//! # drop(payments);
//! # ensemble.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! **What is promised.** A registered instance is listed as long as its session lives: lost connections and dead
//! members do not take it away, and make no writes. A crashed one leaves when its session has expired, and not
//! before. After a lost session it is registered again, under the same id. A view never misses the newest state
//! of a service, and one instance that cannot be read harms no other.
//!
//! What this is not: it does not check whether an instance is well, and opens no connection to it.

mod actor;
mod balancer;
mod error;
mod instance;
mod json;
mod payload;
mod protection;
mod registration;
mod registry;
mod uri;
mod view;

use std::sync::Arc;

pub use balancer::{Balancer, Pick, Random, RoundRobin, Strategy};
pub use error::{DiscoveryError, NoInstances};
pub use instance::{Instance, InstanceBuilder, InstanceError, ServiceType, Status};
pub use payload::{Payload, PayloadProfile};
use quorate::Client;
pub use registration::{Registration, RegistrationState};
pub use registry::{OnConflict, Registry};
pub use uri::{UriSpec, UriSpecError};
pub use view::{Change, ServiceBuilder, ServiceView};

pub use crate::mirror::Freshness;
use crate::mirror::join;

/// Where Spring Cloud Zookeeper registers.
const SPRING_ROOT: &str = "/services";

/// Finds services below one root.
#[derive(Debug, Clone)]
pub struct Discovery {
    client: Client,
    base: Arc<str>,
}

impl Discovery {
    /// Where Spring Cloud Zookeeper registers: below `/services`.
    pub fn spring(client: &Client) -> Self {
        Self::curator(client, SPRING_ROOT)
    }

    /// Another root.
    pub fn curator(client: &Client, base: impl Into<String>) -> Self {
        Self { client: client.clone(), base: base.into().into() }
    }

    /// The instances of a service.
    pub fn service(&self, name: &str) -> ServiceBuilder {
        let name = name.trim_start_matches('/');
        ServiceBuilder::new(&self.client, join(&self.base, name), name)
    }

    /// The names of services, in order. Of names with slashes only the first part; some may have no instance
    /// any more.
    ///
    /// # Errors
    /// The client could not read them.
    ///
    /// # Cancel safety
    /// It changes nothing, so it may be dropped at any time.
    pub async fn services(&self) -> Result<Vec<String>, DiscoveryError> {
        Ok(self.client.children(&self.base).opt().await?.map_or_else(Vec::new, |list| list.names))
    }
}
