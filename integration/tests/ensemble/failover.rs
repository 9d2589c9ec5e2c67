//! The leader goes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{FutureExt, StreamExt, stream::FuturesOrdered};
use quorate::{DataEvent, WatchStream};
use quorate_integration::{
    admin,
    cluster::{Options, on_processes},
    ensemble::Ensemble,
    eventually::{SOON, never},
    load::{close, connect},
    local::in_process,
    proxy::Side,
};
use tokio::time::{Instant, timeout};

use crate::rounds;

/// What the promise is, in election timeouts: the broken connection tells, and nobody waits for silence.
const PROMISED: f64 = 0.4;
/// What fails a test, in election timeouts: something is broken, not slow.
const BROKEN: f64 = 40.0;

/// The leader dies while a client of a survivor writes. The time until the next acknowledgement is reported beside
/// what is promised; only a figure far beyond it fails, for the machine may be busy.
async fn writes_go_on(ensemble: &mut impl Ensemble) -> Result<()> {
    let mut worst = Duration::ZERO;
    for round in 0..3 {
        let (leader, survivor) = (ensemble.leader().await?, ensemble.follower().await?);
        let client = connect(vec![ensemble.endpoint(survivor)], ensemble.tick() * 20).await?;
        let session = client.session().context("it is connected")?.id();
        let path = format!("/round-{round}");
        client.create(&path).ephemeral().await?;
        let mut watch = client.watch(&path).data();
        next_value(&mut watch).await?;
        let mut changes = client.states();

        ensemble.kill(leader).await?;
        let died = Instant::now();
        let stat = client.set(&path, "after").await?;
        worst = worst.max(died.elapsed());

        ensure!(next_value(&mut watch).await? == "after", "the watch did not survive");
        ensure!(stat.ephemeral_owner == Some(session), "the ephemeral node changed hands: {stat:?}");
        let change = changes.next().now_or_never();
        ensure!(change.is_none(), "the connection to a survivor was not left alone: {change:?}");
        close(client).await?;
        ensemble.start(leader).await?;
        ensemble.ready(leader).await?;
    }
    let timeouts = worst.as_secs_f64() / ensemble.election_timeout().as_secs_f64();
    eprintln!("failover: {worst:?}, that is {timeouts:.2} election timeouts; promised are {PROMISED}");
    ensure!(timeouts < BROKEN, "writes went on only after {worst:?}, {timeouts:.1} election timeouts");
    Ok(())
}

async fn next_value(watch: &mut WatchStream<DataEvent>) -> Result<String> {
    match timeout(SOON, watch.next()).await.context("the watch is silent")?.context("the watch has ended")?? {
        DataEvent::Value(node) => Ok(String::from_utf8(node.data.to_vec())?),
        other => anyhow::bail!("the node is gone: {other:?}"),
    }
}

#[test]
fn writes_go_on_soon_after_the_leader_vanished_and_survivors_keep_their_clients() {
    in_process(async |local| writes_go_on(local).await);
}

#[test]
fn writes_go_on_soon_after_kill_9_of_the_leader_and_survivors_keep_their_clients() {
    on_processes(Options::default(), async |cluster| writes_go_on(cluster).await);
}

/// Nobody campaigns because of silence: a leader's lease ends after ten seconds.
fn patient() -> Options {
    Options { tick_ms: 2000, election_timeout_ms: 20_000, ..Options::default() }
}

#[test]
fn a_leader_killed_with_9_is_succeeded_long_before_its_lease_ends() {
    on_processes(patient(), async |cluster| {
        let (leader, survivor) = (cluster.leader().await?, cluster.follower().await?);
        let client = connect(vec![cluster.endpoint(survivor)], cluster.tick() * 20).await?;
        client.create("/node").await?;

        cluster.kill(leader).await?;

        let written = timeout(cluster.election_timeout() / 2, client.set("/node", "after")).await;
        written.context("the lease of the dead was waited for")??;
        close(client).await
    });
}

/// All connections to and from the leader break, again and again, while it lives and is written to.
#[test]
fn connections_that_are_reset_cost_no_election_while_the_leader_lives() {
    on_processes(Options { proxied: true, ..patient() }, async |cluster| {
        let (leader, survivor) = (cluster.leader().await?, cluster.follower().await?);
        let term = cluster.status(leader).await?.term;
        let client = connect(vec![cluster.endpoint(survivor)], cluster.tick() * 20).await?;
        client.create("/node").await?;

        for round in 0..5 {
            for other in cluster.ids().into_iter().filter(|id| *id != leader) {
                cluster.proxies().reset(Side::Member(leader), other);
                cluster.proxies().reset(Side::Member(other), leader);
            }
            client.set("/node", format!("after {round}")).await?;
        }

        for id in cluster.ids() {
            let status = cluster.status(id).await?;
            ensure!((status.leader, status.term) == (Some(leader), term), "{leader} led in {term}, and now {status:?}");
        }
        close(client).await
    });
}

/// A leader that stands still for less than its lease is neither dead nor replaced.
#[test]
fn a_leader_that_stands_still_for_a_moment_keeps_its_place() {
    on_processes(patient(), async |cluster| {
        let (leader, survivor) = (cluster.leader().await?, cluster.follower().await?);
        let term = cluster.status(leader).await?.term;
        let client = connect(vec![cluster.endpoint(survivor)], cluster.tick() * 20).await?;
        client.create("/node").await?;

        cluster.pause(leader).await?;
        let write = client.set("/node", "meanwhile").into_future();
        let (moment, door) = (cluster.election_timeout() / 10, cluster.admin_door(survivor));
        let stand_still = async {
            never("it is replaced", moment, || async {
                let status = admin::status(door).await?;
                ensure!((status.leader, status.term) != (Some(leader), term), "it leads");
                anyhow::Ok(())
            })
            .await?;
            cluster.resume(leader).await
        };
        let (written, kept) = tokio::join!(write, stand_still);
        kept?;
        written?;

        let status = cluster.status(leader).await?;
        ensure!((status.leader, status.term) == (Some(leader), term), "it led in {term}, and now {status:?}");
        close(client).await
    });
}

/// One session's writes, sent without waiting, while something happens to the leader.
async fn pipeline_arrives_in_order_and_once<E: Ensemble>(
    ensemble: &mut E,
    writes: usize,
    disturb: impl AsyncFnOnce(&mut E) -> Result<()>,
) -> Result<()> {
    let survivor = ensemble.follower().await?;
    let client = connect(vec![ensemble.endpoint(survivor)], ensemble.tick() * 20).await?;
    client.create("/pipeline").await?;
    // Each is sent when it is first polled, and the collection polls them in order.
    let create = |index: usize| client.create("/pipeline/w-").sequential().data(index.to_string()).into_future();
    let mut acknowledged: FuturesOrdered<_> = (0..writes).map(create).collect();
    let mut numbers = Vec::new();
    let half = async {
        while numbers.len() < writes / 10 {
            let created = acknowledged.next().await.context("the pipeline ended early")??;
            numbers.push(created.sequence().context("it has a number")?);
        }
        anyhow::Ok(())
    };
    timeout(SOON, half).await.context("the pipeline stands still")??;
    let rest = async {
        while let Some(created) = acknowledged.next().await {
            numbers.push(created?.sequence().context("it has a number")?);
        }
        anyhow::Ok(())
    };
    let (disturbed, rest) = tokio::join!(disturb(ensemble), timeout(SOON, rest));
    disturbed?;
    rest.context("the pipeline stands still")??;

    drop(acknowledged);
    let strays: Vec<_> = (0..).zip(&numbers).filter(|(index, number)| index != *number).take(10).collect();
    ensure!(
        strays.is_empty(),
        "writes overtook each other, or were lost or doubled: {strays:?} (number sent, number given)"
    );
    let children = client.children("/pipeline").linearizable().await?.names;
    ensure!(children.len() == writes, "{} nodes for {writes} writes", children.len());
    close(client).await
}

#[test]
fn pipelined_writes_arrive_complete_in_order_and_once_when_the_leader_vanishes() {
    in_process(async |local| {
        pipeline_arrives_in_order_and_once(local, 1000, async |local| {
            let leader = local.leader().await?;
            local.kill(leader).await
        })
        .await
    });
}

#[test]
fn pipelined_writes_arrive_complete_in_order_and_once_under_kill_9_of_the_leader() {
    on_processes(Options::default(), async |cluster| {
        pipeline_arrives_in_order_and_once(cluster, 1000, async |cluster| {
            let leader = cluster.leader().await?;
            cluster.kill(leader).await
        })
        .await
    });
}

/// Hand-overs refuse proposals in the middle of a pipeline: none may let a later one overtake it.
async fn leadership_is_handed_on(ensemble: &mut impl Ensemble) -> Result<()> {
    for _ in 0..4 {
        let (leader, next) = (ensemble.leader().await?, ensemble.follower().await?);
        let admin = quorate::Admin::new(vec![ensemble.endpoint(leader)])?;
        // It may have lost the leadership meanwhile: then there was a change too.
        let _ = admin.transfer(next.into()).await;
    }
    Ok(())
}

#[test]
fn pipelined_writes_arrive_complete_in_order_and_once_when_leadership_is_handed_on() {
    for _ in 0..rounds() {
        in_process(async |local| pipeline_arrives_in_order_and_once(local, 3000, leadership_is_handed_on).await);
    }
}

#[test]
fn pipelined_writes_arrive_complete_in_order_and_once_when_processes_hand_on_leadership() {
    for _ in 0..rounds() {
        on_processes(Options::default(), async |cluster| {
            pipeline_arrives_in_order_and_once(cluster, 3000, leadership_is_handed_on).await
        });
    }
}
