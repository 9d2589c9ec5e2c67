//! Sessions outlive members, and end with their clients.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::StreamExt;
use quorate::{Client, DataEvent};
use quorate_integration::{
    admin,
    cluster::{Options, on_processes},
    ensemble::Ensemble,
    eventually::{SOON, eventually},
    load::{close, connect},
    local::in_process,
    raw::{RawSession, status_of},
};
use tokio::{runtime, time::timeout};
use tonic::Code;

/// The member that serves a client's session.
async fn serving(ensemble: &impl Ensemble, client: &Client) -> Result<u8> {
    let session = client.session().context("the client has no session")?.id().to_string();
    for id in ensemble.running() {
        let (_, body) = admin::get(ensemble.admin_door(id), "/api/v1/sessions").await?;
        let answer: serde_json::Value = serde_json::from_str(&body)?;
        let sessions = answer["sessions"].as_array().context("a list of sessions")?;
        if sessions.iter().any(|entry| entry["id"] == session && entry["connected_here"] == true) {
            return Ok(id);
        }
    }
    bail!("no member serves session {session}")
}

/// The member that serves a session dies; the client goes on at another, as if nothing had happened.
async fn session_moves(ensemble: &mut impl Ensemble) -> Result<()> {
    let timeout_max = ensemble.tick() * 20;
    let client = connect(ensemble.endpoints(), timeout_max).await?;
    let session = client.session().context("it is connected")?.id();
    let home = serving(ensemble, &client).await?;
    let elsewhere = ensemble.running().into_iter().find(|id| *id != home).context("there are others")?;
    let observer = connect(vec![ensemble.endpoint(elsewhere)], timeout_max).await?;
    observer.create("/news").data("0").await?;
    client.create("/mine").ephemeral().await?;
    let mut news = client.watch("/news").data();
    timeout(SOON, news.next()).await?.context("the watch has ended")??;
    observer.sync("/").await?;
    let mut gone = std::pin::pin!(observer.watch("/mine").once_deleted());

    // While the client looks for another member, the world goes on; what it sees must never go back.
    ensemble.kill(home).await?;
    let written = observer.set("/news", "1").await?;
    let seen = async {
        let mut last = 0;
        while last < written.mzxid {
            let stat = client.exists("/news").await?.context("it exists")?;
            ensure!(stat.mzxid >= last, "{} was seen after {last}", stat.mzxid);
            last = stat.mzxid;
        }
        anyhow::Ok(())
    };
    timeout(SOON, seen).await.context("the client does not see what was written")??;
    let event = timeout(SOON, news.next()).await.context("the event is missing")?.context("the watch has ended")??;

    ensure!(matches!(&event, DataEvent::Value(node) if node.data == "1"), "{event:?}");
    ensure!(client.session().map(|session| session.id()) == Some(session), "the session is another one");
    let owner = client.exists("/mine").await?.and_then(|stat| stat.ephemeral_owner);
    ensure!(owner == Some(session), "the ephemeral node belongs to {owner:?}");
    ensure!(timeout(Duration::ZERO, &mut gone).await.is_err(), "others saw the ephemeral node go");
    close(client).await?;
    timeout(SOON, gone).await.context("the end of the session was not seen")??;
    close(observer).await
}

#[test]
fn a_session_whose_member_vanishes_goes_on_elsewhere_with_its_ephemerals_and_its_watches() {
    in_process(async |local| session_moves(local).await);
}

#[test]
fn a_session_whose_member_is_killed_goes_on_elsewhere_with_its_ephemerals_and_its_watches() {
    on_processes(Options::default(), async |cluster| session_moves(cluster).await);
}

/// A client vanishes without a word. Its last sign of life was the creation of its node.
async fn dead_client_goes(ensemble: &mut impl Ensemble) -> Result<()> {
    let observer = connect(ensemble.endpoints(), ensemble.tick() * 20).await?;
    let session_timeout = ensemble.tick() * 4;
    let world = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let endpoints = ensemble.endpoints();
    let (asked_at, granted) = world
        .spawn(async move {
            let client = connect(endpoints, session_timeout).await?;
            let asked_at = Instant::now();
            client.create("/mine").ephemeral().await?;
            // Not dropped: that would close the session.
            let granted = client.session().context("it is connected")?.negotiated_timeout();
            std::mem::forget(client);
            anyhow::Ok((asked_at, granted))
        })
        .await??;
    world.shutdown_background();

    observer.sync("/").await?;
    timeout(SOON, observer.watch("/mine").once_deleted()).await.context("the node stays for ever")??;

    let lived = asked_at.elapsed();
    ensure!(lived >= granted, "the session was granted {granted:?} and lived {lived:?}");
    close(observer).await
}

#[test]
fn the_ephemerals_of_a_dead_client_go_after_its_timeout_and_not_before() {
    in_process(async |local| dead_client_goes(local).await);
}

/// A leader that dies takes no session with it: its successor grants each a full timeout.
async fn sessions_survive_the_leader(ensemble: &mut impl Ensemble) -> Result<()> {
    // A client holds its session by its own clock, for three quarters of a short timeout: on a busy machine an election
    // may take longer than that, and then the session is lost by the client's own word.
    let session_timeout = ensemble.tick() * 10;
    let mut clients = Vec::new();
    for index in 0..20 {
        let client = connect(ensemble.endpoints(), session_timeout).await?;
        client.create(&format!("/client-{index}")).ephemeral().await?;
        let session = client.session().context("it is connected")?.id();
        clients.push((session, client.states(), client));
    }

    for _ in 0..2 {
        let leader = ensemble.leader().await?;
        ensemble.crash(leader).await?;
    }

    let observer = connect(ensemble.endpoints(), ensemble.tick() * 20).await?;
    for (index, (session, changes, client)) in clients.into_iter().enumerate() {
        let back = eventually(format!("client {index} is connected"), SOON, || async {
            let state = client.state();
            if state.is_connected() { Ok(()) } else { Err(format!("{state:?}")) }
        });
        back.await?;
        let now = client.session().map(|session| session.id());
        if now != Some(session) {
            let changes: Vec<_> = changes.take(4).collect().await;
            bail!("client {index} had session {session} and has {now:?}: {changes:#?}");
        }
        let node = observer.exists(&format!("/client-{index}")).linearizable().await?;
        ensure!(node.is_some(), "the node of client {index} is gone");
        close(client).await?;
    }
    close(observer).await
}

#[test]
fn no_session_ends_because_leaders_die() {
    on_processes(Options::default(), async |cluster| sessions_survive_the_leader(cluster).await);
}

/// A client that comes to a member without a quorum is sent on at once, and leaves nothing behind that would be done later.
async fn member_that_is_not_ready_takes_no_session(ensemble: &mut impl Ensemble) -> Result<()> {
    let left = ensemble.follower().await?;
    for id in ensemble.ids().into_iter().filter(|id| *id != left) {
        ensemble.kill(id).await?;
    }
    let door = ensemble.admin_door(left);
    let unready = eventually(format!("member {left} is not ready"), SOON, || async {
        match admin::get(door, "/readyz").await? {
            (503, _) => Ok(()),
            answer => bail!("{answer:?}"),
        }
    });
    unready.await?;

    let refused = RawSession::open(&ensemble.endpoint(left), 4000).await.err().context("a session was granted")?;

    let status = status_of(&refused).with_context(|| format!("no status: {refused:#}"))?;
    ensure!(status.code() == Code::Unavailable && status.message().contains("no leader is known"), "{status:?}");
    ensemble.start_all().await?;
    ensemble.all_ready().await?;
    ensemble.converged().await?;
    let (_, body) = admin::get(door, "/api/v1/sessions").await?;
    ensure!(!body.contains("\"raw\""), "a refused session was opened later: {body}");
    Ok(())
}

#[test]
fn a_member_that_is_not_ready_refuses_sessions_at_once_and_says_why() {
    in_process(async |local| member_that_is_not_ready_takes_no_session(local).await);
}
