//! Snapshots: written while commands are applied, loaded at start, sent to those that lag.

use super::*;

/// Writes about `bytes` in total through a member.
async fn write_bytes(running: &Running, session: SessionId, bytes: usize) {
    const EACH: usize = 10_000;
    for _ in 0..bytes / EACH {
        running.write(session, set("/big", EACH)).await;
    }
}

async fn with_small_snapshots() -> (Cluster, SessionId) {
    let mut cluster = Cluster::new(3);
    cluster.snapshot_log_bytes_min = 200_000;
    cluster.start_all().await;
    let session = cluster.member(1).open_session(40_000).await;
    cluster.member(1).write(session, create("/big")).await;
    (cluster, session)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshots_are_written_by_the_bytes_of_the_log_and_started_from() {
    let (mut cluster, session) = with_small_snapshots().await;

    write_bytes(cluster.member(1), session, 2_000_000).await;
    for member in 1..=3 {
        cluster.eventually("a snapshot", || (cluster.member(member).status().snapshot_index > 0).then_some(())).await;
    }
    for member in 1..=3 {
        cluster.kill(member).await;
    }
    cluster.start_all().await;

    assert!(cluster.agreed("/").await.contains(&"big".to_owned()));
    assert!(cluster.member(2).has_session(session));
    assert!(cluster.member(2).status().snapshot_index > 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_member_writes_a_snapshot_before_the_log_is_full() {
    let (cluster, session) = with_small_snapshots().await;

    write_bytes(cluster.member(1), session, 150_000).await;

    for member in 1..=3 {
        cluster.eventually("a snapshot", || (cluster.member(member).status().snapshot_index > 0).then_some(())).await;
        assert!(cluster.member(member).status().log_bytes < 200_000);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lagging_member_catches_up_by_snapshot_and_its_open_proposals_are_settled() {
    let (mut cluster, session) = with_small_snapshots().await;
    let leader = cluster.leader().await;
    let lagging = cluster.followers(leader)[0];

    // Away, not dead: it has an open proposal when the snapshot comes.
    cluster.cut_off(lagging);
    let open = cluster.member(lagging).propose(session, create("/late"));
    cluster.without_leader(lagging).await;
    write_bytes(cluster.member(leader), session, 2_000_000).await;
    let behind = cluster.member(lagging).status().last_log_index;
    cluster
        .eventually("a purged log", || {
            let purged = cluster.member(leader).ensemble.parts.log.state().purged?;
            (purged.index > behind).then_some(())
        })
        .await;
    cluster.heal(lagging);
    cluster.ready().await;

    assert!(matches!(settled(open).await, Reply::Created { .. }));
    assert!(cluster.agreed("/").await.contains(&"late".to_owned()));
    assert!(cluster.member(lagging).status().snapshot_index > behind);
    // And it goes on from there on its own disk.
    cluster.kill(lagging).await;
    cluster.start(lagging).await;
    cluster.ready().await;
    cluster.agreed("/").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn snapshot_on_demand_says_what_it_holds() {
    let cluster = Cluster::started(1).await;
    let session = cluster.member(1).open_session(40_000).await;
    cluster.member(1).write(session, create("/a")).await;
    let zxid = cluster.member(1).replica.read(Tree::zxid);

    let (at, bytes) = timeout(PATIENCE, cluster.member(1).ensemble.take_snapshot()).await.unwrap().unwrap();

    assert!(at >= zxid);
    assert!(bytes > 0);
    assert!(cluster.member(1).status().snapshot_index > 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damaged_newest_snapshot_is_set_aside_for_an_older_one() {
    let mut cluster = Cluster::started(1).await;
    let session = cluster.member(1).open_session(40_000).await;
    for i in 0..2 {
        cluster.member(1).write(session, create(&format!("/n{i}"))).await;
        cluster.member(1).ensemble.take_snapshot().await.unwrap();
    }
    cluster.kill(1).await;
    let folder = cluster.places[&1].data_dir.path().join("snapshots");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let newest = files.last().unwrap();
    let mut bytes = std::fs::read(newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(newest, bytes).unwrap();

    cluster.start(1).await;
    cluster.ready().await;

    let names = cluster.agreed("/").await;
    assert!(names.contains(&"n0".to_owned()) && names.contains(&"n1".to_owned()), "{names:?}");
    cluster.stop().await;
}
