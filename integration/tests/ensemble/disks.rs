//! Disks that are full, and disks that refuse.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, stream::FuturesOrdered};
use quorate::{Client, Error};
use quorate_integration::{
    cluster::{Options, on_processes},
    ensemble::Ensemble,
    eventually::{SOON, eventually},
    load::{Creators, close, connect},
    local::{Local, in_process},
    process,
};
use tokio::time::{Instant, timeout};

/// Writes of one session, sent without waiting.
const PIPELINE: usize = 200;

/// What became of numbered creates of one session, in the order in which they were sent.
#[derive(Default)]
struct Pipeline {
    sent: usize,
    /// Number sent, and number given.
    acknowledged: BTreeMap<usize, i64>,
    declined: BTreeSet<usize>,
}

impl Pipeline {
    /// Sends a number of creates at once and waits for all answers. Returns how many were declined.
    async fn send(&mut self, client: &Client) -> Result<usize> {
        let first = self.sent;
        self.sent += PIPELINE;
        let create = |index: usize| client.create("/pipeline/w-").sequential().data(index.to_string()).into_future();
        let mut answers: FuturesOrdered<_> = (first..self.sent).map(create).collect();
        let before = self.declined.len();
        for index in first..self.sent {
            match timeout(SOON, answers.next()).await.context("no answer")?.context("an answer each")? {
                Ok(created) => {
                    let number = created.sequence().context("it has a number")?;
                    self.acknowledged.insert(index, number);
                }
                Err(Error::DiskFull) => _ = self.declined.insert(index),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.declined.len() - before)
    }

    /// Sends pipelines until the answers are as wanted.
    async fn send_until(&mut self, client: &Client, wanted: impl Fn(usize) -> bool) -> Result<()> {
        let deadline = Instant::now() + SOON;
        while !wanted(self.send(client).await?) {
            ensure!(Instant::now() < deadline, "the answers do not change");
        }
        Ok(())
    }

    /// What was acknowledged is there, once and in the order of sending; what was declined is not.
    async fn check(&self, client: &Client) -> Result<()> {
        let numbers: Vec<_> = self.acknowledged.values().collect();
        ensure!(numbers.is_sorted_by(|a, b| a < b), "writes overtook each other: {numbers:?}");
        let mut found = BTreeSet::new();
        for name in client.children("/pipeline").linearizable().await?.names {
            let node = client.get(&format!("/pipeline/{name}")).await?;
            let index: usize = std::str::from_utf8(&node.data)?.parse()?;
            ensure!(found.insert(index), "write {index} was applied twice");
        }
        let acknowledged: BTreeSet<_> = self.acknowledged.keys().copied().collect();
        ensure!(found == acknowledged, "other writes were applied than were acknowledged");
        Ok(())
    }
}

/// The disk of the leader fills up while a client sends pipelines of writes, and is cleared again.
async fn full_disk_declines_writes_and_keeps_everything_else(local: &mut Local) -> Result<()> {
    let (leader, follower) = (local.leader().await?, local.follower().await?);
    let client = connect(vec![local.endpoint(follower)], local.tick() * 20).await?;
    let session = client.session().context("it is connected")?.id();
    client.create("/pipeline").await?;
    client.create("/mine").ephemeral().await?;
    let mut pipeline = Pipeline::default();

    local.kit().fill_disk(leader)?;
    pipeline.send_until(&client, |declined| declined == PIPELINE).await?;

    let refused = client.set("/mine", "2").await;
    ensure!(matches!(refused, Err(Error::DiskFull)), "{refused:?}");
    ensure!(client.get("/mine").linearizable().await?.stat.version == 0, "a declined write took effect");
    let newcomer = connect(vec![local.endpoint(leader)], local.tick() * 20).await?;
    ensure!(newcomer.exists("/mine").await?.is_some(), "reads are served");
    close(newcomer).await?;
    // Longer than the session lasts without a promise.
    let long_ago = Instant::now();
    let lives = eventually("the session has lived on", SOON, || async {
        client.exists("/mine").await?.context("the ephemeral node is gone")?;
        ensure!(long_ago.elapsed() > local.tick() * 24, "not for long enough");
        anyhow::Ok(())
    });
    lives.await?;

    local.kit().clear_disk(leader)?;
    pipeline.send_until(&client, |declined| declined == 0).await?;

    ensure!(client.session().map(|now| now.id()) == Some(session), "the session is another one");
    pipeline.check(&client).await?;
    close(client).await?;
    local.converged().await?;
    Ok(())
}

#[test]
fn a_full_disk_declines_writes_in_order_keeps_reads_and_sessions_and_costs_nothing_acknowledged() {
    in_process(async |local| full_disk_declines_writes_and_keeps_everything_else(local).await);
}

/// No write is declined for the sake of one follower: the others are a majority.
#[test]
fn a_full_disk_of_one_follower_declines_nothing() {
    in_process(async |local| {
        let follower = local.follower().await?;
        let client = connect(vec![local.endpoint(follower)], local.tick() * 20).await?;
        client.create("/pipeline").await?;
        let mut pipeline = Pipeline::default();
        local.kit().fill_disk(follower)?;

        for _ in 0..5 {
            ensure!(pipeline.send(&client).await? == 0, "writes were declined");
        }

        pipeline.check(&client).await?;
        close(client).await
    });
}

/// The disk of the leader refuses to write while clients create nodes: that member ends and says why, the others go on.
#[test]
fn a_member_whose_disk_refuses_ends_and_nothing_acknowledged_is_lost() {
    on_processes(Options::default(), async |cluster| {
        for id in cluster.ids() {
            cluster.stop(id).await?;
            cluster.start_with(id, process::unlimited_by_signal(cluster.arguments(id))?)?;
        }
        cluster.all_ready().await?;
        let creators = Creators::start(cluster, "/created", 4).await?;
        // What a member says goes into a file as well: the limit lies beyond that, and behind the end of the log.
        let filler = connect(cluster.endpoints(), cluster.tick() * 20).await?;
        filler.create("/filler").await?;
        for _ in 0..10 {
            filler.set("/filler", vec![7; 100 * 1024]).await?;
        }
        creators.more(50).await?;

        for _ in 0..2 {
            let leader = cluster.leader().await?;
            cluster.limit_files(leader, 512 * 1024)?;
            let status = cluster.ended(leader).await?;

            ensure!(!status.success(), "a member whose disk refused ended with {status}");
            let said = cluster.log(leader);
            ensure!(said.contains("File too large"), "member {leader} did not say why it ended");
            creators.more(50).await?;
            cluster.start_with(leader, process::unlimited_by_signal(cluster.arguments(leader))?)?;
            cluster.ready(leader).await?;
        }

        close(filler).await?;
        creators.finish().await?.check(cluster).await
    });
}
