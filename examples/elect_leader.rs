//! Two candidates elect a leader; when it resigns, the other leads.
//!
//! `cargo run --example elect_leader`

use futures_util::StreamExt as _;
use quorate::Client;
use quorate_recipes::{Election, election::LeaderEvent};
use quorate_sidecar::testing::TestEnsemble;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ensemble = TestEnsemble::start(3).await?;
    let first = Client::builder(ensemble.endpoints()).connect().await?;
    let second = Client::builder(ensemble.endpoints()).connect().await?;

    let ada = Election::builder(&first, "/orders/leader").id("ada").build()?;
    let grace = Election::builder(&second, "/orders/leader").id("grace").build()?;
    let mut leaders = ada.observe();

    let term = ada.campaign().await?;
    println!("ada leads: {}, token {}", ada.is_leader(), term.token());

    let waiting = tokio::spawn(async move { grace.campaign().await });
    term.resign().await?;
    let term = waiting.await??;
    println!("grace leads now, token {}", term.token());

    // Whoever asks is told who leads, also that nobody does in between.
    while let Some(event) = leaders.next().await {
        match event? {
            LeaderEvent::Leader { id, .. } => {
                println!("observed: {id}");
                if id == "grace" {
                    break;
                }
            }
            LeaderEvent::NoLeader => println!("observed: nobody"),
            other => println!("observed: {other:?}"),
        }
    }
    term.resign().await?;
    ensemble.shutdown().await;
    Ok(())
}
