//! Members that stand still.

use anyhow::{Result, ensure};
use quorate_integration::{
    cluster::{Options, on_processes},
    ensemble::Ensemble,
    eventually::SOON,
    load::{Registers, close, connect},
    raw::{RawSession, create, get, heartbeat},
};
use quorate_proto::v1::{CreateMode, reply::Result as Answer};
use tokio::time::sleep;

/// Sessions live while somebody was there to hear them and did not: a whole ensemble that stood still (a suspended
/// laptop, a snapshot of all virtual machines) has no right to call its clients dead.
#[test]
fn no_session_expires_when_all_members_were_paused_for_longer_than_its_timeout() {
    let options = Options { tick_ms: 200, ..Options::default() };
    on_processes(options, async |cluster| {
        let session_timeout = cluster.tick() * 20;
        let mut sessions = Vec::new();
        for id in cluster.ids() {
            // By hand: the SDK would rightly take its session for lost, for it did not stand still.
            let mut session = RawSession::open(&cluster.endpoint(id), session_timeout.as_millis() as u32).await?;
            session.write(create(&format!("/of-{id}"), CreateMode::Ephemeral)).await?;
            session.ask(heartbeat()).await?;
            sessions.push((id, session));
        }

        for id in cluster.ids() {
            cluster.pause(id).await?;
        }
        // What is waited for is time itself.
        sleep(session_timeout * 3 / 2).await;
        for id in cluster.ids() {
            cluster.resume(id).await?;
        }

        for (id, session) in sessions {
            let mut session = go_on(cluster, id, session).await?;
            session.ask(heartbeat()).await?;
            for other in cluster.ids() {
                let reply = session.ask(get(&format!("/of-{other}"))).await?;
                ensure!(matches!(reply.result, Some(Answer::Get(_))), "session of member {id}: {reply:?}");
            }
        }
        Ok(())
    });
}

/// The stream may have been ended by the member that slept: the session is resumed then, there or elsewhere.
async fn go_on(cluster: &mut impl Ensemble, id: u8, mut session: RawSession) -> Result<RawSession> {
    if session.ask(heartbeat()).await.is_ok() {
        return Ok(session);
    }
    cluster.ready(id).await?;
    RawSession::resume(&cluster.endpoint(id), &session.attached).await
}

/// The leader sleeps through an election and wakes up believing to lead.
#[test]
fn a_leader_that_slept_acknowledges_nothing_and_serves_nothing_old() {
    let options = Options { tick_ms: 200, election_timeout_ms: 300, ..Options::default() };
    on_processes(options, async |cluster| {
        let registers = Registers::start(cluster, 4, 2, 7).await?;
        for _ in 0..3 {
            registers.more(100).await?;
            let leader = cluster.leader().await?;
            cluster.pause(leader).await?;
            let others: Vec<_> = cluster.ids().into_iter().filter(|id| *id != leader).collect();
            cluster.successor(leader, &others).await?;
            registers.more(50).await?;
            cluster.resume(leader).await?;
        }
        registers.more(100).await?;
        registers.finish().await?.check()?;
        cluster.converged().await?;
        Ok(())
    });
}

/// One member of three sleeps for longer than the session timeouts: its clients go elsewhere, the others notice nothing.
#[test]
fn a_follower_that_sleeps_costs_its_clients_a_move_and_nobody_a_session() {
    on_processes(Options::default(), async |cluster| {
        let follower = cluster.follower().await?;
        let mut endpoints = vec![cluster.endpoint(follower)];
        endpoints.extend(cluster.endpoints());
        let client = connect(endpoints, cluster.tick() * 4).await?;
        let session = client.session().map(|session| session.id());
        client.create("/mine").ephemeral().await?;

        cluster.pause(follower).await?;
        client.set("/mine", "from elsewhere").await?;
        sleep(cluster.tick() * 6).await;
        cluster.resume(follower).await?;

        cluster.ready(follower).await?;
        ensure!(client.session().map(|session| session.id()) == session, "the session is another one");
        let node = client.get("/mine").linearizable().await?;
        ensure!(node.stat.ephemeral_owner == session, "{node:?}");
        tokio::time::timeout(SOON, close(client)).await??;
        Ok(())
    });
}
