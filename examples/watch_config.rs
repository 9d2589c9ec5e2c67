//! Typed configuration that follows the ensemble: a change arrives once, a bad one keeps the last good value.
//!
//! `cargo run --example watch_config`

use futures_util::StreamExt as _;
use quorate::Client;
use quorate_recipes::config::Config;
use quorate_sidecar::testing::TestEnsemble;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Pool {
    max: u32,
    host: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ensemble = TestEnsemble::start(3).await?;
    let client = Client::builder(ensemble.endpoints()).connect().await?;

    // Layers of Spring Cloud Zookeeper: /config/orders,prod over /config/orders over /config/application.
    let config = Config::spring(&client).application("orders").profiles(["prod"]).build().await?;
    config.edit().set("db.pool.max", "10").set("db.pool.host", "db-1").commit().await?;

    let pool = config.live::<Pool>("db.pool").validate(|pool| pool.max > 0).await?;
    println!("at first: {:?}", pool.load());

    let mut changes = pool.changes();
    config.edit().set("db.pool.max", "0").commit().await?;
    config.edit().set("db.pool.max", "20").commit().await?;
    while let Some(changed) = changes.next().await {
        println!("changed:  {changed:?}");
        if changed.max == 20 {
            break;
        }
    }
    println!("zero never arrived; the pool of {} has {}", pool.load().host, pool.load().max);
    ensemble.shutdown().await;
    Ok(())
}
