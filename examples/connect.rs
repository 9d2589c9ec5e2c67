//! Connect, write, read, and do several things at once.
//!
//! `cargo run --example connect`

use quorate::{Client, CreateMode};
use quorate_sidecar::testing::TestEnsemble;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // Real members in this process. Against an ensemble that runs already: `Client::builder("http://host:7101")`.
    let ensemble = TestEnsemble::start(3).await?;
    let client = Client::builder(ensemble.endpoints()).client_name("connect example").connect().await?;

    client.create("/shop/cart").data("empty").parents().await?;
    let node = client.get("/shop/cart").await?;
    println!("/shop/cart is {:?}, version {}", node.data, node.stat.version);

    // A version makes a write conditional: nobody has changed it since we read.
    client.set("/shop/cart", "one apple").version(node.stat.version).await?;
    let stale = client.set("/shop/cart", "one pear").version(node.stat.version).await;
    println!("with the old version: {}", stale.expect_err("the version has moved on"));

    // Numbered by the ensemble; gone with this session.
    let first = client.create("/shop/visit-").mode(CreateMode::EphemeralSequential).await?;
    let second = client.create("/shop/visit-").mode(CreateMode::EphemeralSequential).await?;
    println!("visits: {} and {}", first.path, second.path);

    // All or nothing, under one zxid.
    let done =
        client.txn().check("/shop/cart", 1).create("/shop/order", "one apple").delete("/shop/cart").commit().await?;
    println!("ordered at zxid {}", done.zxid());

    // Sees every write that was acknowledged to anybody before now.
    let children = client.children("/shop").linearizable().await?;
    println!("/shop has {:?}", children.names);

    let _ = client.close(std::time::Duration::from_secs(5)).await?;
    ensemble.shutdown().await;
    Ok(())
}
