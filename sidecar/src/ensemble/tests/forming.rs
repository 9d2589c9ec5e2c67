//! An ensemble comes into being, and what is proposed anywhere is applied everywhere.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_of_every_member_are_applied_everywhere() {
    let cluster = Cluster::started(3).await;

    let session = cluster.member(1).open_session(10_000).await;
    for member in 1..=3 {
        let settled = cluster.member(member).create(session, &format!("/from-{member}")).await;
        assert!(settled.outcome.is_ok(), "{settled:?}");
    }

    let names = cluster.agreed().await;
    for member in 1..=3 {
        assert!(names.contains(&format!("from-{member}")), "{names:?}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ensemble_of_one_serves() {
    let cluster = Cluster::started(1).await;

    let session = cluster.member(1).open_session(10_000).await;
    let settled = cluster.member(1).create(session, "/alone").await;

    assert!(settled.outcome.is_ok());
    assert_eq!(cluster.member(1).ensemble.status().role, Role::Leader);
    cluster.stop().await;
}
