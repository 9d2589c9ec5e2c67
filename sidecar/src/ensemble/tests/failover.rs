//! Leaders go, connections break, and what was proposed arrives complete, in order and once.

use std::collections::VecDeque;

use super::*;

/// Proposes numbered sequential creates through one member, several at a time, and gives their names in the order of
/// proposal. `at` is called when as many are settled as it says.
async fn load(running: &Running, session: SessionId, count: usize, in_flight: usize) -> Vec<String> {
    let mut tickets = VecDeque::new();
    let mut names = Vec::new();
    for i in 0..count {
        tickets.push_back(running.propose(session, create_as("/q/n-", CreateMode::PersistentSequential)));
        if i + 1 < in_flight {
            continue;
        }
        names.push(created(tickets.pop_front().unwrap()).await);
    }
    for ticket in tickets {
        names.push(created(ticket).await);
    }
    names
}

async fn created(ticket: oneshot::Receiver<Settled>) -> String {
    match settled(ticket).await {
        Reply::Created { path, .. } => path,
        other => panic!("{other:?}"),
    }
}

/// Every proposal has made exactly one node, and each lane's are in the order of its proposals.
async fn complete_in_order_and_once(cluster: &Cluster, lanes: &[Vec<String>]) {
    let made = cluster.agreed("/q").await;
    for names in lanes {
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "out of order");
    }
    assert_eq!(made.len(), lanes.iter().map(Vec::len).sum::<usize>(), "some were lost or made twice");
}

async fn started_with_queue() -> (Cluster, u8, SessionId) {
    with_queue(Cluster::new(3)).await
}

/// Members of which nobody campaigns because of silence.
async fn started_not_minding_silence() -> (Cluster, u8, SessionId) {
    let (cluster, ..) = started_with_queue().await;
    not_minding_silence(cluster).await
}

/// Members of which nobody campaigns because of silence, and whose turns are long enough for a busy machine.
async fn started_with_long_turns(members: u8) -> (Cluster, u8, SessionId) {
    let (cluster, ..) = with_queue(Cluster { election_timeout_ms: 20_000, ..Cluster::new(members) }).await;
    not_minding_silence(cluster).await
}

async fn not_minding_silence(cluster: Cluster) -> (Cluster, u8, SessionId) {
    cluster.mind_no_silence();
    // Until then somebody may have campaigned.
    cluster.ready().await;
    let leader = cluster.leader().await;
    let session = cluster.member(leader).open_session(40_000).await;
    (cluster, leader, session)
}

async fn with_queue(mut cluster: Cluster) -> (Cluster, u8, SessionId) {
    cluster.start_all().await;
    let leader = cluster.leader().await;
    let session = cluster.member(leader).open_session(40_000).await;
    cluster.member(leader).write(session, create("/q")).await;
    (cluster, leader, session)
}

/// Waits until so many nodes are made.
async fn made(cluster: &Cluster, member: u8, count: usize) {
    cluster
        .eventually("progress", || {
            let made = cluster.member(member).replica.read(|tree| tree.stat("/q", &[]).map(|stat| stat.num_children));
            made.is_ok_and(|made| made as usize >= count).then_some(())
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_leader_loses_and_repeats_nothing_and_keeps_the_order() {
    let (mut cluster, leader, session) = started_with_queue().await;
    let followers = cluster.followers(leader);
    let running = cluster.places.get_mut(&leader).unwrap().running.take().unwrap();

    let (first, second) = (cluster.member(followers[0]), cluster.member(followers[1]));
    let kill = async {
        made(&cluster, followers[0], 300).await;
        running.faults.kill();
        running.ensemble.stop().await;
    };
    let (first, second, ()) = tokio::join!(load(first, session, 1000, 100), load(second, session, 1000, 100), kill);

    complete_in_order_and_once(&cluster, &[first, second]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_leader_keeps_what_was_proposed_there_until_it_is_back() {
    let (cluster, leader, session) = started_with_queue().await;
    let other = cluster.followers(leader)[0];

    let cut = async {
        made(&cluster, leader, 100).await;
        cluster.cut_off(leader);
        // The others go on with a leader of theirs.
        cluster
            .eventually("another leader", || {
                let known = cluster.member(other).status().leader?;
                (known.0 != leader).then_some(())
            })
            .await;
        cluster.heal(leader);
    };
    let (there, elsewhere, ()) = tokio::join!(
        load(cluster.member(leader), session, 500, 50),
        load(cluster.member(other), session, 500, 50),
        cut
    );

    complete_in_order_and_once(&cluster, &[there, elsewhere]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposal_refused_in_the_middle_is_never_overtaken() {
    let (cluster, leader, session) = started_with_queue().await;
    let followers = cluster.followers(leader);

    // All traffic of the followers is held until the leader's lease has lapsed, again and again.
    let disturb = async {
        for round in 1..=4 {
            made(&cluster, leader, round * 100).await;
            for follower in &followers {
                cluster.member(*follower).faults.pause();
            }
            cluster.without_leader(leader).await;
            for follower in &followers {
                cluster.member(*follower).faults.resume();
            }
        }
    };
    let (there, elsewhere, ()) = tokio::join!(
        load(cluster.member(leader), session, 500, 50),
        load(cluster.member(followers[0]), session, 500, 50),
        disturb
    );

    complete_in_order_and_once(&cluster, &[there, elsewhere]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_member_does_not_disturb_the_leader_when_it_returns() {
    let (cluster, leader, session) = started_with_queue().await;
    let away = cluster.followers(leader)[0];
    let term = cluster.member(leader).status().term;

    cluster.cut_off(away);
    cluster.without_leader(away).await;
    load(cluster.member(leader), session, 300, 50).await;
    cluster.heal(away);
    cluster.ready().await;

    assert_eq!(cluster.agreed("/q").await.len(), 300);
    assert_eq!(cluster.member(leader).status().term, term);
    assert_eq!(cluster.member(away).status().term, term);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarted_member_begins_a_new_lane_and_is_not_confused_by_the_old_one() {
    let (mut cluster, leader, session) = started_with_queue().await;
    let member = cluster.followers(leader)[0];
    let before = load(cluster.member(member), session, 100, 20).await;

    cluster.kill(member).await;
    cluster.start(member).await;
    cluster.ready().await;
    let after = load(cluster.member(member), session, 100, 20).await;

    complete_in_order_and_once(&cluster, &[before, after]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handed_over_leadership_loses_and_repeats_nothing_and_needs_no_timeout() {
    let (cluster, leader, session) = started_with_queue().await;
    let followers = cluster.followers(leader);
    let term = cluster.member(leader).status().term;

    let hand_over = async {
        made(&cluster, leader, 100).await;
        cluster.member(leader).ensemble.hand_over(Some(MemberId(followers[1]))).await.unwrap();
    };
    let (there, elsewhere, ()) = tokio::join!(
        load(cluster.member(leader), session, 500, 50),
        load(cluster.member(followers[0]), session, 500, 50),
        hand_over
    );

    complete_in_order_and_once(&cluster, &[there, elsewhere]).await;
    assert_eq!(cluster.leader().await, followers[1]);
    assert_eq!(cluster.member(leader).status().term, term + 1, "one election, asked for by the leader");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_handed_over_only_by_the_leader_and_only_to_a_voter() {
    let cluster = Cluster::started(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.followers(leader)[0];

    let by_follower = cluster.member(follower).ensemble.hand_over(Some(MemberId(leader))).await;
    let to_nobody = cluster.member(leader).ensemble.hand_over(Some(MemberId(9))).await;

    assert!(by_follower.unwrap_err().to_string().contains("does not lead"));
    assert!(to_nobody.unwrap_err().to_string().contains("has no vote"));
    cluster.member(follower).ensemble.hand_over(None).await.unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_over_to_a_member_that_is_away_fails_and_the_leader_serves_on() {
    let (cluster, leader, session) = started_with_queue().await;
    let away = cluster.followers(leader)[0];
    cluster.cut_off(away);
    cluster.without_leader(away).await;
    load(cluster.member(leader), session, 10, 10).await;

    let refused = cluster.member(leader).ensemble.hand_over(Some(MemberId(away))).await.unwrap_err();

    assert!(refused.to_string().contains("did not take over"), "{refused}");
    load(cluster.member(leader), session, 10, 10).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_is_gone_is_succeeded_without_waiting_for_its_silence() {
    let (mut cluster, leader, session) = started_with_long_turns(3).await;
    let term = cluster.member(leader).status().term;

    cluster.kill(leader).await;
    let successor = cluster.successor(leader).await;
    let follower = cluster.followers(successor)[0];
    let names = load(cluster.member(follower), session, 100, 20).await;

    complete_in_order_and_once(&cluster, &[names]).await;
    assert_eq!(cluster.member(successor).status().term, term + 1, "one election, in which votes were not split");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaders_that_go_one_after_the_other_are_succeeded_as_long_as_there_is_a_majority() {
    let (mut cluster, first, session) = started_with_long_turns(5).await;

    cluster.kill(first).await;
    let second = cluster.successor(first).await;
    let early = load(cluster.member(second), session, 100, 20).await;
    cluster.kill(second).await;
    let third = cluster.successor(second).await;
    let late = load(cluster.member(third), session, 100, 20).await;

    complete_in_order_and_once(&cluster, &[early, late]).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_cost_no_election_while_the_leader_lives() {
    let (cluster, leader, session) = started_not_minding_silence().await;
    let follower = cluster.followers(leader)[0];
    let term = cluster.member(leader).status().term;

    let tear = async {
        for round in 1..=8 {
            made(&cluster, leader, round * 50).await;
            cluster.member(leader).faults.reset();
        }
    };
    let (there, elsewhere, ()) = tokio::join!(
        load(cluster.member(leader), session, 300, 30),
        load(cluster.member(follower), session, 300, 30),
        tear
    );

    complete_in_order_and_once(&cluster, &[there, elsewhere]).await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.member(leader).status().term, term);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_that_is_only_silent_is_not_taken_for_gone() {
    let (cluster, leader, session) = started_not_minding_silence().await;
    let followers = cluster.followers(leader);
    let term = cluster.member(leader).status().term;

    // Until the others have given its connections up, and found nobody behind new ones.
    cluster.member(leader).faults.pause();
    for follower in &followers {
        cluster.without_leader(*follower).await;
    }
    cluster.member(leader).faults.resume();
    cluster.ready().await;
    cluster.cut_off(leader);
    for follower in &followers {
        cluster.without_leader(*follower).await;
    }
    cluster.heal(leader);
    cluster.ready().await;

    let names = load(cluster.member(followers[0]), session, 100, 20).await;
    complete_in_order_and_once(&cluster, &[names]).await;
    assert_eq!(cluster.leader().await, leader);
    assert_eq!(cluster.member(leader).status().term, term);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn member_that_alone_believes_the_leader_gone_does_not_disturb_it() {
    let (cluster, leader, session) = started_not_minding_silence().await;
    let [mistaken, other] = cluster.followers(leader)[..] else { panic!("there are three") };
    let term = cluster.member(leader).status().term;

    cluster.refuse(leader, &[mistaken]);
    cluster.without_leader(mistaken).await;
    let without_it = load(cluster.member(other), session, 100, 20).await;
    cluster.heal(leader);
    cluster.heal(mistaken);
    cluster.ready().await;
    let with_it = load(cluster.member(mistaken), session, 100, 20).await;

    complete_in_order_and_once(&cluster, &[without_it, with_it]).await;
    for (member, running) in cluster.running() {
        assert_eq!(running.status().term, term, "of member {member}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn living_leader_that_all_others_believe_gone_acknowledges_nothing_any_more() {
    let (cluster, leader, session) = started_with_long_turns(3).await;
    let others = cluster.followers(leader);

    let replace = async {
        made(&cluster, leader, 100).await;
        cluster.refuse(leader, &others);
        let successor = cluster
            .eventually("a successor", || cluster.member(others[0]).status().leader.filter(|now| now.0 != leader))
            .await;
        made(&cluster, successor.0, 300).await;
        let barrier = timeout(Duration::from_millis(100), cluster.member(leader).ensemble.barrier()).await;
        assert!(barrier.is_err(), "a read was confirmed that does not see what others have written: {barrier:?}");
        for member in [leader, others[0], others[1]] {
            cluster.heal(member);
        }
    };
    let (there, elsewhere, ()) = tokio::join!(
        load(cluster.member(leader), session, 300, 30),
        load(cluster.member(others[0]), session, 500, 30),
        replace
    );

    complete_in_order_and_once(&cluster, &[there, elsewhere]).await;
    cluster.stop().await;
}
