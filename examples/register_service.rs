//! Two instances of a service register; a caller finds them and spreads its calls.
//!
//! `cargo run --example register_service`

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use quorate::Client;
use quorate_recipes::discovery::{Discovery, Instance, Registry, RoundRobin};
use quorate_sidecar::testing::TestEnsemble;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ensemble = TestEnsemble::start(3).await?;

    let mut registrations = Vec::new();
    for port in [8081, 8082] {
        // One client an instance, as they would be processes of their own.
        let client = Client::builder(ensemble.endpoints()).connect().await?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let instance = Instance::builder("payments").http(address).zone("eu-1").version("1.4");
        registrations.push(Registry::spring(&client).register(instance).await?);
    }

    let caller = Client::builder(ensemble.endpoints()).connect().await?;
    let payments = Discovery::spring(&caller).service("payments").watch().await?;
    payments.wait_for(2, Duration::from_secs(10)).await?;

    let balancer = payments.balancer(RoundRobin);
    let mut calls = BTreeMap::new();
    for _ in 0..10 {
        let pick = balancer.pick()?;
        *calls.entry(pick.instance().uri()).or_insert(0) += 1;
        pick.success();
    }
    println!("calls: {calls:?}");

    for registration in registrations {
        registration.deregister().await?;
    }
    ensemble.shutdown().await;
    Ok(())
}
