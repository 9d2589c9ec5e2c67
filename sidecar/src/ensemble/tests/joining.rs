//! Disks that are empty, wiped or of somebody else.

use super::*;

fn is_voter(cluster: &Cluster, seen_by: u8, member: u8) -> bool {
    cluster.member(seen_by).status().members.iter().any(|status| status.member.0 == member && status.voter)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_disk_rejoins_under_load_and_then_another_may_die_without_loss() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let [wiped, dying] = cluster.followers(leader)[..] else { panic!() };
    let session = cluster.member(leader).open_session(40_000).await;
    cluster.member(leader).write(session, create("/n")).await;
    let mut acknowledged = Vec::new();
    for i in 0..50 {
        cluster.member(leader).write(session, create(&format!("/n/a{i}"))).await;
        acknowledged.push(format!("a{i}"));
    }

    cluster.kill(wiped).await;
    cluster.wipe(wiped);
    cluster.start(wiped).await;
    let mut i = 0;
    while !(is_voter(&cluster, leader, wiped) && cluster.member(wiped).ensemble.readiness().borrow().is_ready()) {
        cluster.member(leader).write(session, create(&format!("/n/b{i}"))).await;
        acknowledged.push(format!("b{i}"));
        i += 1;
        let ready = cluster.member(wiped).ensemble.readiness().borrow().is_ready();
        assert!(!ready || is_voter(&cluster, wiped, wiped), "ready without a vote");
    }
    cluster.kill(dying).await;
    for i in 0..50 {
        cluster.member(wiped).write(session, create(&format!("/n/c{i}"))).await;
        acknowledged.push(format!("c{i}"));
    }

    let names = cluster.agreed("/n").await;
    for name in acknowledged {
        assert!(names.contains(&name), "{name} is gone");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wiped_disk_has_no_vote_while_the_leader_is_away() {
    let mut cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let [wiped, other] = cluster.followers(leader)[..] else { panic!() };
    let session = cluster.member(leader).open_session(40_000).await;
    // Acknowledged by the leader and the one that is wiped, at least.
    cluster.cut_off(other);
    cluster.member(leader).write(session, create("/precious")).await;

    cluster.kill(leader).await;
    cluster.kill(wiped).await;
    cluster.wipe(wiped);
    cluster.heal(other);
    cluster.start(wiped).await;
    // Long enough for several campaigns of the one that lacks the write.
    cluster.without_leader(wiped).await;
    let term = cluster.member(other).status().term;
    cluster.start(leader).await;
    cluster.ready().await;

    assert!(cluster.agreed("/").await.contains(&"precious".to_owned()), "led by term {term}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_whose_lists_differ_refuse_each_other_and_say_so() {
    let mut cluster = Cluster::new(3);
    cluster.start(1).await;
    cluster.start(2).await;
    cluster.ready().await;
    let mut other_list = cluster.peers.clone();
    other_list.insert(MemberId(1), "127.0.0.1:1".into());

    cluster.try_start(3, other_list).await.unwrap();

    for member in [2, 3] {
        let told =
            cluster.eventually("a refusal", || cluster.member(member).status().quarrels.into_iter().next()).await;
        assert!(told.contains("configured differently"), "{told}");
        assert!(told.contains("127.0.0.1:1"), "{told}");
    }
    assert!(!cluster.member(3).ensemble.readiness().borrow().is_ready());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_that_is_not_that_of_the_data_is_refused_at_start() {
    let mut cluster = Cluster::started(3).await;
    cluster.kill(3).await;
    let mut other_list = cluster.peers.clone();
    other_list.insert(MemberId(1), "127.0.0.1:1".into());

    let mut longer = cluster.peers.clone();
    longer.insert(MemberId(4), "127.0.0.1:1".into());
    let mut shorter = cluster.peers.clone();
    shorter.remove(&MemberId(1));

    for list in [other_list, longer, shorter] {
        let refused = cluster.try_start(3, list).await.unwrap_err().to_string();
        assert!(refused.contains("correct the list"), "{refused}");
    }
    cluster.start(3).await;
    cluster.ready().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_ensemble_is_refused_and_costs_the_others_nothing() {
    let mut cluster = Cluster::started(3).await;
    let mut foreign = Cluster::new(3);
    foreign.peers = cluster.peers.clone();
    let session = cluster.member(1).open_session(40_000).await;
    for member in 1..=3 {
        cluster.kill(member).await;
    }
    // The same addresses, another ensemble.
    foreign.start_all().await;
    for member in 1..=3 {
        foreign.kill(member).await;
    }
    std::mem::swap(
        &mut cluster.places.get_mut(&3).unwrap().data_dir,
        &mut foreign.places.get_mut(&3).unwrap().data_dir,
    );

    for member in 1..=3 {
        cluster.start(member).await;
    }

    let told = cluster
        .eventually("a refusal", || {
            cluster.member(3).status().quarrels.into_iter().find(|told| told.contains("foreign data directory"))
        })
        .await;
    cluster
        .eventually("the others serve", || {
            [1, 2].iter().all(|member| cluster.member(*member).ensemble.readiness().borrow().is_ready()).then_some(())
        })
        .await;
    assert!(cluster.member(1).has_session(session), "{told}");
    assert!(!cluster.member(3).ensemble.readiness().borrow().is_ready());
    cluster.stop().await;
}
