//! An ensemble comes into being, and what is proposed anywhere is applied everywhere.

use super::*;

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
