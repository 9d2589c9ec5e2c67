//! Members that die and come back.

use anyhow::Result;
use quorate_integration::{
    cluster::{Options, on_processes},
    ensemble::Ensemble,
    load::{Creators, close, connect},
    local::in_process,
};

const CREATES: usize = 1000;

/// Members are killed in turn and then all at once, while clients create nodes.
async fn creates_survive(ensemble: &mut impl Ensemble) -> Result<()> {
    let creators = Creators::start(ensemble, "/created", 4).await?;

    for id in ensemble.ids() {
        creators.more(100).await?;
        ensemble.kill(id).await?;
        creators.more(100).await?;
        ensemble.start(id).await?;
        ensemble.ready(id).await?;
    }
    creators.total(CREATES - 100).await?;
    ensemble.kill_all().await?;
    ensemble.start_all().await?;
    ensemble.all_ready().await?;
    creators.total(CREATES).await?;

    creators.finish().await?.check(ensemble).await
}

#[test]
fn acknowledged_creates_survive_members_that_vanish_in_turn_and_all_at_once() {
    in_process(async |local| creates_survive(local).await);
}

#[test]
fn acknowledged_creates_survive_kill_9_of_members_in_turn_and_all_at_once() {
    on_processes(Options::default(), async |cluster| creates_survive(cluster).await);
}

/// Members are told to end one after the other, the leader too, while clients create nodes.
async fn orderly_restarts_lose_nothing(ensemble: &mut impl Ensemble) -> Result<()> {
    let creators = Creators::start(ensemble, "/created", 4).await?;

    for id in ensemble.ids() {
        creators.more(50).await?;
        ensemble.stop(id).await?;
        creators.more(50).await?;
        ensemble.start(id).await?;
        ensemble.ready(id).await?;
    }

    let creations = creators.finish().await?;
    creations.check(ensemble).await?;
    anyhow::ensure!(
        creations.history.answered() == creations.history.operations.len(),
        "a create was left unanswered although nobody died"
    );
    Ok(())
}

#[test]
fn members_that_are_stopped_in_order_cost_clients_nothing_but_a_reconnect() {
    in_process(async |local| orderly_restarts_lose_nothing(local).await);
}

#[test]
fn sigterm_ends_a_member_with_0_and_costs_clients_nothing_but_a_reconnect() {
    on_processes(Options::default(), async |cluster| orderly_restarts_lose_nothing(cluster).await);
}

#[test]
fn data_is_there_after_everything_was_off() {
    on_processes(Options::default(), async |cluster| {
        let client = connect(cluster.endpoints(), cluster.tick() * 20).await?;
        client.create("/kept").data("as it was").await?;
        close(client).await?;
        let before = cluster.converged().await?;

        for id in cluster.ids() {
            cluster.stop(id).await?;
        }
        cluster.start_all().await?;
        cluster.all_ready().await?;

        let client = connect(cluster.endpoints(), cluster.tick() * 20).await?;
        let node = client.get("/kept").await?;
        anyhow::ensure!(node.data == "as it was" && node.stat.czxid <= before.zxid, "{node:?}");
        close(client).await
    });
}
