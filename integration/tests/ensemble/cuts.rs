//! Links that break.

use anyhow::{Context, Result, bail, ensure};
use quorate_integration::{
    cluster::{Options, on_processes},
    ensemble::Ensemble,
    eventually::{SOON, never},
    history::Stamp,
    load::{Creators, close, connect},
    local::in_process,
    raw::{RawSession, create, heartbeat},
};
use quorate_proto::v1::{CreateMode, server_item::Item};
use tokio::time::timeout;

/// A member is cut off from the others while a client is attached to it alone. What it says to that client must end
/// before anybody can take the session for dead, and it must take no writes.
async fn cut_off_member_falls_silent(ensemble: &mut impl Ensemble, cut: u8) -> Result<()> {
    let session_timeout = ensemble.tick() * 6;
    let mut session = RawSession::open(&ensemble.endpoint(cut), session_timeout.as_millis() as u32).await?;
    session.write(create("/mine", CreateMode::Ephemeral)).await?;
    session.ask(heartbeat()).await?;
    let others: Vec<_> = ensemble.ids().into_iter().filter(|id| *id != cut).collect();
    let observer = connect(others.iter().map(|id| ensemble.endpoint(*id)).collect(), ensemble.tick() * 20).await?;
    observer.sync("/").await?;

    ensemble.cut_off(cut).await?;
    let session_gone = async {
        observer.watch("/mine").once_deleted().await?;
        anyhow::Ok(Stamp::now())
    };
    // The client goes on asking; each answer is stamped as it comes. The write must never be answered.
    let write = session.send_write(create("/never", CreateMode::Persistent)).await?;
    let silent = async {
        let mut last_word = Stamp::now();
        loop {
            match session.next().await {
                Ok(Some(Item::Reply(reply))) if reply.seq == write => {
                    bail!("a cut-off member acknowledged a write: {reply:?}")
                }
                Ok(Some(_)) => last_word = Stamp::now(),
                Ok(None) | Err(_) => return Ok(last_word),
            }
        }
    };
    let (gone_at, last_word) = tokio::join!(timeout(SOON, session_gone), timeout(SOON, silent));
    let gone_at = gone_at.context("the session of a cut-off member never expires")??;
    let last_word = last_word.context("a cut-off member goes on serving")??;
    ensure!(
        last_word < gone_at,
        "the member still spoke {} ms after the session was gone",
        (last_word.0 - gone_at.0) / 1_000_000
    );

    ensemble.heal(cut).await?;
    ensemble.all_ready().await?;
    ensemble.converged().await?;
    let never_written = observer.exists("/never").linearizable().await?;
    ensure!(never_written.is_none(), "the write of a session that is gone took effect");
    close(observer).await
}

#[test]
fn a_follower_that_is_cut_off_falls_silent_before_its_sessions_expire_elsewhere() {
    in_process(async |local| {
        let follower = local.follower().await?;
        cut_off_member_falls_silent(local, follower).await
    });
}

#[test]
fn a_leader_that_is_cut_off_falls_silent_before_its_sessions_expire_elsewhere() {
    on_processes(proxied(), async |cluster| {
        let leader = cluster.leader().await?;
        cut_off_member_falls_silent(cluster, leader).await
    });
}

/// A follower comes back after a while of believing that nobody leads.
async fn cut_off_member_disturbs_nobody(ensemble: &mut impl Ensemble) -> Result<()> {
    let (leader, follower) = (ensemble.leader().await?, ensemble.follower().await?);
    let term = ensemble.status(leader).await?.term;
    let creators = Creators::start(ensemble, "/created", 2).await?;

    ensemble.cut_off(follower).await?;
    never("the others change their leader", ensemble.election_timeout() * 6, || async {
        let status = ensemble.status(leader).await?;
        ensure!((status.leader, status.term) != (Some(leader), term), "they keep it");
        anyhow::Ok(())
    })
    .await?;
    creators.more(50).await?;
    ensemble.heal(follower).await?;
    ensemble.ready(follower).await?;
    creators.more(50).await?;

    creators.finish().await?.check(ensemble).await?;
    let status = ensemble.status(leader).await?;
    ensure!((status.leader, status.term) == (Some(leader), term), "{follower} came back, and now {status:?}");
    Ok(())
}

#[test]
fn a_follower_that_comes_back_from_a_cut_catches_up_and_does_not_disturb_the_leader() {
    in_process(async |local| cut_off_member_disturbs_nobody(local).await);
}

#[test]
fn a_process_that_comes_back_from_a_cut_catches_up_and_does_not_disturb_the_leader() {
    on_processes(proxied(), async |cluster| cut_off_member_disturbs_nobody(cluster).await);
}

fn proxied() -> Options {
    Options { proxied: true, ..Options::default() }
}
