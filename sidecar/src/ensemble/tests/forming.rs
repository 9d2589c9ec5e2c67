//! An ensemble comes into being, and what is proposed anywhere is applied everywhere.

use std::collections::HashSet;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::ensemble::{
    disks::DiskTable, leader::LeaderTask, leader_door::LeaderDoor, leadership::Leadership, membership::MembershipKeeper,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_of_every_member_are_applied_everywhere() {
    let cluster = Cluster::started(3).await;

    let session = cluster.member(1).open_session(10_000).await;
    for member in 1..=3 {
        cluster.member(member).write(session, create(&format!("/from-{member}"))).await;
    }

    let names = cluster.agreed("/").await;
    for member in 1..=3 {
        assert!(names.contains(&format!("from-{member}")), "{names:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ensemble_of_one_serves_and_comes_back() {
    let mut cluster = Cluster::started(1).await;
    let session = cluster.member(1).open_session(10_000).await;
    cluster.member(1).write(session, create("/alone")).await;
    assert_eq!(cluster.member(1).status().role, Role::Leader);

    cluster.kill(1).await;
    cluster.start(1).await;
    cluster.ready().await;

    assert!(cluster.agreed("/").await.contains(&"alone".to_owned()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn majority_founds_the_ensemble_and_the_last_joins_it() {
    let mut cluster = Cluster::new(3);
    cluster.start(2).await;
    cluster.start(3).await;
    cluster.ready().await;
    let session = cluster.member(2).open_session(10_000).await;
    cluster.member(2).write(session, create("/before")).await;

    cluster.start(1).await;
    cluster.ready().await;

    assert!(cluster.agreed("/").await.contains(&"before".to_owned()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_killed_at_once_come_back_with_everything() {
    let mut cluster = Cluster::started(3).await;
    let session = cluster.member(1).open_session(10_000).await;
    for i in 0..50 {
        cluster.member(1 + i % 3).write(session, create(&format!("/n{i}"))).await;
    }

    for member in 1..=3 {
        cluster.kill(member).await;
    }
    cluster.start_all().await;

    let names = cluster.agreed("/").await;
    for i in 0..50 {
        assert!(names.contains(&format!("n{i}")), "n{i} is gone");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_behind_a_barrier_see_what_was_written_before_it_elsewhere() {
    let cluster = Cluster::started(3).await;
    let session = cluster.member(1).open_session(10_000).await;

    for i in 0..30 {
        cluster.member(1 + i % 3).write(session, create(&format!("/n{i}"))).await;
        let reader = cluster.member(1 + (i + 1) % 3);
        let index = timeout(PATIENCE, reader.ensemble.barrier()).await.unwrap().unwrap();
        let mut applied = reader.replica.applied();
        timeout(PATIENCE, applied.wait_for(|applied| applied.log_index >= index)).await.unwrap().unwrap();

        assert!(reader.replica.read(|tree| tree.stat(&format!("/n{i}"), &[]).is_ok()), "n{i}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_member_shows_who_the_members_are() {
    let mut cluster = Cluster::started(3).await;
    let lines: Vec<String> = (1..=3)
        .map(|id| {
            let peer = &cluster.peers[&MemberId(id)];
            let port: u16 = peer.rsplit_once(':').unwrap().1.parse().unwrap();
            format!("server.{id}={peer}:{}:participant;zk{id}:2181", port + 1)
        })
        .collect();
    let expected = lines.join("\n");
    let shown = |running: &Running| running.replica.read(|tree| tree.published_config());
    cluster
        .eventually("who the members are", || cluster.running().all(|(_, r)| shown(r) == expected).then_some(()))
        .await;

    // Another leader, who has not heard of the one that is gone, says the same.
    let gone = cluster.leader().await;
    let before = cluster.member(gone).replica.read(|tree| tree.stat("/zookeeper/config", &[]).unwrap());
    cluster.kill(gone).await;
    let leads = |(member, running): (u8, &Running)| (running.status().role == Role::Leader).then_some(member);
    let leader = cluster.eventually("another leader", || cluster.running().find_map(leads)).await;
    let session = cluster.member(leader).open_session(10_000).await;
    cluster.member(leader).write(session, create("/after")).await;

    assert!(cluster.agreed("/").await.contains(&"after".to_owned()));
    let after = cluster.member(leader).replica.read(|tree| tree.stat("/zookeeper/config", &[]).unwrap());
    assert_eq!(after, before);
    cluster.stop().await;
}

/// Seen once in many starts: everybody knew the leader, and nobody was ever ready. The registrations were proposed
/// before the leader's task had learnt that it leads, and never again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disks_are_registered_also_if_the_leaders_task_learns_of_its_reign_last() {
    let cluster = Cluster::started(1).await;
    let Running { ensemble, replica, .. } = cluster.member(1);
    let parts = &ensemble.parts;
    let leads = *parts.leadership.borrow();
    let (told, leadership) = watch::channel(Leadership::default());
    let (door, queue) = LeaderDoor::new();
    // No disk is registered in this table, whatever is applied.
    let disks = Arc::new(DiskTable::new(vec![MemberId(1)]));
    let task = LeaderTask {
        member: MemberId(1),
        raft: parts.raft.clone(),
        replica: replica.clone(),
        disks: disks.clone(),
        door: door.clone(),
        queue,
        leadership,
        timing: parts.hand_over.timing,
        reap_period: PATIENCE,
    };
    let keeper = MembershipKeeper {
        raft: parts.raft.clone(),
        replica: replica.clone(),
        standing: parts.standing.clone(),
        disks,
        links: Arc::default(),
        door,
        leadership: parts.leadership.clone(),
        timing: parts.hand_over.timing,
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(task.run(stop.clone()));
    let status = || cluster.member(1).status();
    let before = status().last_log_index;
    let mut proposed = HashSet::new();

    keeper.compare(leads.term, &mut proposed).await;
    told.send_replace(leads);

    let deadline = Instant::now() + PATIENCE;
    while status().last_log_index == before {
        assert!(Instant::now() < deadline, "nothing was proposed again");
        keeper.compare(leads.term, &mut proposed).await;
        tokio::task::yield_now().await;
    }
    stop.cancel();
    task.await.unwrap();
    cluster.stop().await;
}
