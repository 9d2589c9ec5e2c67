//! A replica that went another way is found, and does not serve.

use super::*;

/// Makes one member's copy differ from the others', as a fault of its memory or of this program would.
fn spoil(running: &Running) {
    let lane = quorate_tree::Lane { member: MemberId(77), incarnation: 1, seq: 1 };
    let op = Op::RegisterMember { member: MemberId(77), disk_id: 1, ensemble_id: 1 };
    let command = quorate_tree::Command { lane, stamp_ms: 0, author: Author::default(), op };
    running.replica.with_tree_mut(|tree| drop(tree.apply(&command)));
}

/// Writes until every member has passed a mark.
async fn pass_a_mark(running: &Running) {
    let session = running.open_session(40_000).await;
    running.write(session, create("/n")).await;
    let mut tickets = Vec::new();
    for _ in 0..crate::replica::DIGEST_MARK_EVERY + 100 {
        tickets.push(running.propose(session, set("/n", 1)));
    }
    for ticket in tickets {
        // The one that writes may be found to be wrong, and then knows nothing of the rest.
        if timeout(PATIENCE, ticket).await.unwrap().is_err() {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_differs_from_two_stops_and_cannot_start_again_on_its_data() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let wrong = cluster.followers(leader)[0];

    spoil(cluster.member(wrong));
    let (failed, ()) =
        tokio::join!(timeout(PATIENCE, cluster.member(wrong).ensemble.failed()), pass_a_mark(cluster.member(leader)));

    let failed = failed.unwrap().to_string();
    assert!(failed.contains("differs"), "{failed}");
    cluster.kill(wrong).await;
    let path = cluster.places[&wrong].data_dir.path();
    let options = DiskOptions { unsynced: true, on_flush: None };
    let refused = EnsembleDisk::open(path, MemberId(wrong), options).await.unwrap_err().to_string();
    assert!(refused.contains("differs"), "{refused}");
    // With an empty directory it joins again.
    cluster.wipe(wrong);
    cluster.start(wrong).await;
    cluster.ready().await;
    cluster.agreed("/").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_against_one_both_stop_serving_until_a_third_decides() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let [third, wrong] = cluster.followers(leader)[..] else { panic!() };
    cluster.kill(third).await;

    spoil(cluster.member(wrong));
    let disputed = |member: u8| {
        let mut readiness = cluster.member(member).ensemble.readiness();
        async move {
            let disputed = readiness.wait_for(|readiness| readiness.missing.contains(&NotReady::Diverged)).await;
            disputed.map(drop).unwrap();
        }
    };
    tokio::select! {
        both = timeout(PATIENCE, futures_util::future::join(disputed(leader), disputed(wrong))) => drop(both.unwrap()),
        () = async { pass_a_mark(cluster.member(leader)).await; std::future::pending().await } => {}
    }

    cluster.start(third).await;
    let failed = timeout(PATIENCE, cluster.member(wrong).ensemble.failed()).await.unwrap().to_string();
    assert!(failed.contains("differs"), "{failed}");
    cluster.stop().await;
}
