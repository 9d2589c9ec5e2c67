//! Follow a node and its children, over the loss of the member that served the watch.
//!
//! `cargo run --example watch_node`

use futures_util::StreamExt as _;
use quorate::{ChildrenEvent, Client, DataEvent};
use quorate_sidecar::testing::TestEnsemble;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut ensemble = TestEnsemble::start(3).await?;
    let client = Client::builder(ensemble.endpoints()).connect().await?;
    let writer = Client::builder(ensemble.endpoints()).connect().await?;

    // A watch is a stream of states: first as it is, then after each change.
    let mut price = client.watch("/price").data();
    println!("at first: {}", describe(price.next().await));

    writer.create("/price").data("100").await?;
    println!("created:  {}", describe(price.next().await));

    // The watch arms itself again on another member and misses nothing that matters: the newest state.
    let leader = ensemble.leader().await?;
    ensemble.kill(leader);
    writer.set("/price", "120").await?;
    println!("set while member {leader} died: {}", describe(price.next().await));

    let mut children = client.watch("/").children();
    if let Some(Ok(ChildrenEvent::Set(list))) = children.next().await {
        println!("children of the root: {:?}", list.names);
    }
    ensemble.shutdown().await;
    Ok(())
}

fn describe(event: Option<quorate::Result<DataEvent>>) -> String {
    match event {
        Some(Ok(DataEvent::Value(node))) => format!("{:?}", node.data),
        Some(Ok(DataEvent::Absent)) => "no node".into(),
        Some(Ok(other)) => format!("{other:?}"),
        Some(Err(error)) => format!("failed: {error}"),
        None => "ended".into(),
    }
}
