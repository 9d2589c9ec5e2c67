//! A disk that comes back empty.

use anyhow::{Context, Result};
use quorate_integration::{
    cluster::{Options, on_processes},
    ensemble::Ensemble,
    eventually::never,
    load::Creators,
    local::in_process,
};

/// One member loses its disk under load, and as soon as it votes again another one dies. If the empty disk had voted
/// before it was filled, a majority could have forgotten what it acknowledged.
async fn wiped_disk_loses_nothing(ensemble: &mut impl Ensemble, wiped: u8) -> Result<()> {
    let creators = Creators::start(ensemble, "/created", 4).await?;
    creators.more(100).await?;

    ensemble.kill(wiped).await?;
    ensemble.wipe(wiped).await?;
    creators.more(50).await?;
    ensemble.start(wiped).await?;
    ensemble.ready(wiped).await?;
    ensemble.votes(wiped).await?;
    let other = ensemble.ids().into_iter().find(|id| *id != wiped).context("there are others")?;
    ensemble.kill(other).await?;
    creators.more(100).await?;
    ensemble.start(other).await?;
    ensemble.ready(other).await?;

    creators.finish().await?.check(ensemble).await
}

#[test]
fn a_follower_with_a_wiped_disk_loses_nothing_acknowledged_even_if_another_dies_next() {
    in_process(async |local| {
        let follower = local.follower().await?;
        wiped_disk_loses_nothing(local, follower).await
    });
}

#[test]
fn a_leader_with_a_wiped_disk_loses_nothing_acknowledged_even_if_another_dies_next() {
    on_processes(Options::default(), async |cluster| {
        let leader = cluster.leader().await?;
        wiped_disk_loses_nothing(cluster, leader).await
    });
}

/// The two others are down, so nobody can fill the empty disk: it must wait, and not begin a new ensemble.
#[test]
fn an_empty_disk_alone_serves_nobody() {
    on_processes(Options::default(), async |cluster| {
        let creators = Creators::start(cluster, "/created", 2).await?;
        creators.more(50).await?;
        let creations = creators.finish().await?;
        let [one, two, three] = [1, 2, 3];
        cluster.kill_all().await?;
        cluster.wipe(one).await?;

        // One that has data and one that has none: no majority of those who know.
        cluster.start(one).await?;
        cluster.start(two).await?;
        cluster.started(one).await?;
        cluster.started(two).await?;
        let patience = cluster.election_timeout() * 4;
        let alone = never("two members serve, one of them with an empty disk", patience, || async {
            let ready = [cluster.status(one).await?.ready, cluster.status(two).await?.ready];
            anyhow::ensure!(ready != [false, false], "neither serves");
            anyhow::Ok(())
        });
        alone.await?;

        cluster.start(three).await?;
        cluster.all_ready().await?;
        creations.check(cluster).await
    });
}
