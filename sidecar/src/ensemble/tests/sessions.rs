//! Sessions end when they are not heard from, and only then.

use super::*;
use crate::ensemble::TouchError;

/// Keeps a session alive through a member as long as the future is polled.
async fn keep_alive(running: &Running, session: SessionId) -> TouchError {
    let mut every = tokio::time::interval(Duration::from_millis(30));
    loop {
        every.tick().await;
        // One that hangs is told again by the book; the next heartbeat does not wait for it.
        if let Ok(Err(ended)) = timeout(Duration::from_millis(200), running.ensemble.touch(session)).await {
            return ended;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_session_ends_everywhere_with_its_ephemerals_and_a_living_one_does_not() {
    let cluster = Cluster::started(3).await;
    let silent = cluster.member(1).open_session(400).await;
    let living = cluster.member(2).open_session(400).await;
    cluster.member(1).write(silent, create_as("/silent", CreateMode::Ephemeral)).await;
    cluster.member(2).write(living, create_as("/living", CreateMode::Ephemeral)).await;

    let ended = cluster.eventually("the end of the silent session", || {
        cluster.running().all(|(_, running)| !running.has_session(silent)).then_some(())
    });
    tokio::select! {
        () = ended => {}
        error = keep_alive(cluster.member(2), living) => panic!("{error}"),
    }

    let names = cluster.agreed("/").await;
    assert!(!names.contains(&"silent".to_owned()));
    assert!(names.contains(&"living".to_owned()));
    assert!(cluster.member(3).has_session(living));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn touch_of_an_ended_session_is_not_acknowledged() {
    let cluster = Cluster::started(3).await;
    let session = cluster.member(1).open_session(300).await;
    cluster.eventually("its end", || (!cluster.member(1).has_session(session)).then_some(())).await;

    for member in 1..=3 {
        let touched = timeout(PATIENCE, cluster.member(member).ensemble.touch(session)).await.unwrap();
        assert_eq!(touched, Err(TouchError::Lapsed));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn touches_and_barriers_are_answered_only_with_a_majority() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let session = cluster.member(leader).open_session(40_000).await;
    timeout(PATIENCE, cluster.member(leader).ensemble.touch(session)).await.unwrap().unwrap();
    let term = cluster.member(leader).status().term;

    cluster.cut_off(leader);
    let mut touch = Box::pin(cluster.member(leader).ensemble.touch(session));
    let mut barrier = Box::pin(cluster.member(leader).ensemble.barrier());
    tokio::select! {
        biased;
        _ = &mut touch => panic!("a touch was acknowledged without a majority"),
        _ = &mut barrier => panic!("a barrier was answered without a majority"),
        () = cluster.without_leader(leader) => {}
    }
    cluster.heal(leader);

    timeout(PATIENCE, touch).await.unwrap().unwrap();
    timeout(PATIENCE, barrier).await.unwrap().unwrap();
    assert!(cluster.member(leader).status().term >= term);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_expires_because_all_members_stood_still() {
    let cluster = Cluster::started(3).await;
    // Shorter than the time after which the members notice that they stand still.
    let session = cluster.member(2).open_session(300).await;

    let stand_still = async {
        for (_, running) in cluster.running() {
            running.faults.pause();
        }
        for member in 1..=3 {
            cluster.without_leader(member).await;
        }
        for (_, running) in cluster.running() {
            running.faults.resume();
        }
        cluster.ready().await;
        timeout(PATIENCE, cluster.member(2).ensemble.touch(session)).await.unwrap().unwrap();
    };
    tokio::select! {
        () = stand_still => {}
        error = keep_alive(cluster.member(2), session) => panic!("{error}"),
    }

    assert!(cluster.member(2).has_session(session));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_leader_grants_every_session_its_full_timeout() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let member = cluster.followers(leader)[0];
    // Longer than an election takes, shorter than two of them.
    let session = cluster.member(member).open_session(1000).await;
    cluster.member(member).write(session, create_as("/here", CreateMode::Ephemeral)).await;
    let running = cluster.places.get_mut(&leader).unwrap().running.take().unwrap();

    let fail_over = async {
        running.faults.kill();
        running.ensemble.stop().await;
        cluster.leader().await;
        timeout(PATIENCE, cluster.member(member).ensemble.touch(session)).await.unwrap().unwrap();
    };
    tokio::select! {
        () = fail_over => {}
        error = keep_alive(cluster.member(member), session) => panic!("{error}"),
    }

    assert!(cluster.agreed("/").await.contains(&"here".to_owned()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_container_is_reaped() {
    let cluster = Cluster::started(3).await;
    let session = cluster.member(1).open_session(40_000).await;
    cluster.member(1).write(session, create_as("/box", CreateMode::Container)).await;
    cluster.member(1).write(session, create("/box/child")).await;
    cluster.member(1).write(session, Op::Delete(quorate_tree::Delete { path: "/box/child".into(), version: -1 })).await;

    cluster
        .eventually("the end of the container", || {
            let gone = |running: &Running| running.replica.read(|tree| tree.stat("/box", &[]).is_err());
            cluster.running().all(|(_, running)| gone(running)).then_some(())
        })
        .await;
    cluster.stop().await;
}
