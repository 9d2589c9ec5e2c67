//! A disk that fails ends its member, and nobody else.

use super::*;

/// Makes the log of a member fail at its next write, at a point of `storage::log`.
fn fail_log(cluster: &Cluster, member: u8, point: &str) {
    let dir = cluster.places[&member].data_dir.path().join("log");
    fail::cfg(format!("{point}@{}", dir.display()), "return").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_whose_log_fails_must_not_go_on_and_the_others_do() {
    for point in ["log-before-write", "log-before-sync"] {
        let mut cluster = Cluster::started(3).await;
        let leader = cluster.leader().await;
        let other = cluster.followers(leader)[0];
        let session = cluster.member(other).open_session(40_000).await;

        fail_log(&cluster, leader, point);
        let meanwhile = cluster.member(other).propose(session, create("/meanwhile"));
        let failed = timeout(PATIENCE, cluster.member(leader).ensemble.failed()).await.unwrap();
        // As the process would end.
        cluster.kill(leader).await;

        assert!(matches!(failed, EnsembleError::Failed(_)), "{failed}");
        assert!(matches!(settled(meanwhile).await, Reply::Created { .. }));
        assert_eq!(cluster.agreed("/").await.iter().filter(|name| *name == "meanwhile").count(), 1);
    }
}
