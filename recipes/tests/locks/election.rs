//! Elections: one leads, all know which, and leader code runs while it does and no longer.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
    mpsc as std_mpsc,
};

use futures_util::StreamExt;
use quorate::{Client, LostReason};
use quorate_recipes::{
    Election, Error, FencingToken, Leadership,
    election::{CandidateState, LeaderEvent, LeaderStream},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{
    PATIENCE, assert_line_is_empty, client, eventually, expire, in_time, member_of, patient_ensemble, places,
    reconnected,
};

const PATH: &str = "/orders/leader";

fn candidate(client: &Client, id: &str) -> Election {
    Election::builder(client, PATH).id(id).build().unwrap()
}

/// A campaign in a task, once it stands in the line behind somebody.
async fn queued(election: &Election) -> JoinHandle<quorate_recipes::Result<Leadership>> {
    let mut state = election.state();
    let campaign = tokio::spawn({
        let election = election.clone();
        async move { election.campaign().await }
    });
    let queued = |state: &CandidateState| matches!(state, CandidateState::Waiting { position: Some(1..) });
    in_time(state.wait_for(queued)).await.unwrap();
    campaign
}

async fn next(leaders: &mut LeaderStream) -> LeaderEvent {
    in_time(leaders.next()).await.unwrap().unwrap()
}

fn leader(id: &str, token: FencingToken) -> LeaderEvent {
    LeaderEvent::Leader { id: id.into(), token }
}

/// A candidate that runs leader code: it says with which token it leads, and goes on until it is told to stop.
struct Running {
    terms: mpsc::Receiver<FencingToken>,
    shutdown: CancellationToken,
    run: JoinHandle<quorate_recipes::Result<()>>,
}

fn run(election: &Election) -> Running {
    let (tell, terms) = mpsc::channel(64);
    let shutdown = CancellationToken::new();
    let (election, stop) = (election.clone(), shutdown.clone());
    let run = tokio::spawn(async move {
        let lead = |lease: Leadership| {
            let tell = tell.clone();
            async move {
                tell.send(lease.token()).await.unwrap();
                lease.cancellation().cancelled().await;
            }
        };
        election.run(stop, lead).await
    });
    Running { terms, shutdown, run }
}

impl Running {
    async fn leads(&mut self) -> FencingToken {
        in_time(self.terms.recv()).await.unwrap()
    }

    async fn ends(self) {
        self.shutdown.cancel();
        in_time(self.run).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_candidates_node_is_curators() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;

    let leadership = candidate(&client, "orders-1").campaign().await.unwrap();

    let name = leadership.path().strip_prefix("/orders/leader/").unwrap();
    let id = name.strip_prefix("_c_").and_then(|rest| rest.strip_suffix("-latch-0000000000")).unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().to_string(), id);
    let node = client.get(leadership.path()).await.unwrap();
    assert_eq!(node.data, "orders-1");
    assert_eq!(node.stat.ephemeral_owner, Some(leadership.session().id()));
    assert_eq!(node.stat.czxid, leadership.token().get());
}

#[tokio::test]
async fn one_leads_and_the_next_does_when_it_resigns() {
    let ensemble = patient_ensemble(3).await;
    let (one, other) = (candidate(&client(&ensemble).await, "a"), candidate(&client(&ensemble).await, "b"));
    assert!(one.leader().await.unwrap().is_none());
    assert_eq!(*one.state().borrow(), CandidateState::Idle);

    let first = one.campaign().await.unwrap();
    let campaign = queued(&other).await;
    assert!(one.is_leader() && !other.is_leader());
    assert_eq!(*one.state().borrow(), CandidateState::Leading { token: first.token() });
    let ids: Vec<_> = other.participants().await.unwrap().iter().map(|participant| participant.id()).collect();
    assert_eq!(ids, ["a", "b"]);
    assert_eq!(other.leader().await.unwrap().unwrap().id(), "a");

    let token = first.token();
    first.resign().await.unwrap();
    assert!(!one.is_leader());
    assert_eq!(*one.state().borrow(), CandidateState::Idle);
    let second = in_time(campaign).await.unwrap().unwrap();
    assert!(second.token() > token);
    assert!(other.is_leader());
    assert_eq!(one.leader().await.unwrap().unwrap().token, second.token());
}

#[tokio::test]
async fn observers_see_each_term_each_proclamation_and_that_nobody_leads() {
    let ensemble = patient_ensemble(1).await;
    let (one, observer) = (candidate(&client(&ensemble).await, "a"), candidate(&client(&ensemble).await, "x"));
    let mut leaders = observer.observe();
    assert_eq!(next(&mut leaders).await, LeaderEvent::NoLeader);

    let first = one.campaign().await.unwrap();
    assert_eq!(next(&mut leaders).await, leader("a", first.token()));
    first.proclaim("a at 10.0.0.7").await.unwrap();
    assert_eq!(next(&mut leaders).await, leader("a at 10.0.0.7", first.token()));
    let token = first.token();
    first.resign().await.unwrap();
    assert_eq!(next(&mut leaders).await, LeaderEvent::NoLeader);

    // The same candidate again is another term.
    let second = one.campaign().await.unwrap();
    assert!(second.token() > token);
    assert_eq!(next(&mut leaders).await, leader("a", second.token()));
}

#[tokio::test]
async fn observers_do_not_hear_of_candidates_that_only_wait() {
    let ensemble = patient_ensemble(1).await;
    let (one, other) = (candidate(&client(&ensemble).await, "a"), candidate(&client(&ensemble).await, "b"));
    let mut leaders = one.observe();
    assert_eq!(next(&mut leaders).await, LeaderEvent::NoLeader);
    let first = one.campaign().await.unwrap();
    assert_eq!(next(&mut leaders).await, leader("a", first.token()));

    queued(&other).await.abort();
    let campaign = queued(&other).await;
    first.resign().await.unwrap();

    let second = in_time(campaign).await.unwrap().unwrap();
    assert_eq!(next(&mut leaders).await, leader("b", second.token()));
}

#[tokio::test]
async fn an_observer_that_lost_its_session_says_so_and_who_leads_now() {
    let ensemble = patient_ensemble(1).await;
    let (candidates, observing) = (client(&ensemble).await, client(&ensemble).await);
    let mut leaders = candidate(&observing, "x").observe();
    let first = candidate(&candidates, "a").campaign().await.unwrap();
    let seen = async { while next(&mut leaders).await != leader("a", first.token()) {} };
    seen.await;

    expire(&ensemble, &observing).await;

    assert_eq!(next(&mut leaders).await, LeaderEvent::Resync);
    assert_eq!(next(&mut leaders).await, leader("a", first.token()));
}

#[tokio::test]
async fn the_observers_of_a_closed_client_come_to_an_end() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mut leaders = candidate(&client, "x").observe();
    assert_eq!(next(&mut leaders).await, LeaderEvent::NoLeader);

    let _drained = in_time(client.close(PATIENCE)).await.unwrap();

    assert!(matches!(in_time(leaders.next()).await, Some(Err(Error::Client(_)))));
    assert!(in_time(leaders.next()).await.is_none());
}

#[tokio::test]
async fn a_leadership_that_is_lost_and_one_that_is_won_again_are_two() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let election = candidate(&client, "a");
    let first = election.campaign().await.unwrap();

    expire(&ensemble, &client).await;
    let second = in_time(election.campaign()).await.unwrap();

    assert_eq!(in_time(first.lost()).await, LostReason::SessionExpired);
    assert!(second.token() > first.token());
    assert!(second.is_held() && !first.is_held());
    // The end of the old one does not end the new one.
    drop(first);
    assert!(election.is_leader());
    assert_eq!(*election.state().borrow(), CandidateState::Leading { token: second.token() });
    assert!(matches!(second.verify().await, Ok(())));
}

#[tokio::test]
async fn a_candidate_keeps_its_place_when_the_one_before_it_vanishes() {
    let ensemble = patient_ensemble(1).await;
    let clients = [client(&ensemble).await, client(&ensemble).await, client(&ensemble).await];
    let leadership = candidate(&clients[0], "a").campaign().await.unwrap();
    let second = candidate(&clients[1], "b");
    let third = candidate(&clients[2], "c");
    let vanishing = queued(&second).await;
    let campaign = queued(&third).await;
    let place = places(&clients[0], PATH).await[2].clone();

    vanishing.abort();
    eventually("it has looked again", async || {
        *third.state().borrow() == CandidateState::Waiting { position: Some(1) }
    })
    .await;

    assert_eq!(places(&clients[0], PATH).await[1], place);
    assert!(leadership.is_held());
    leadership.resign().await.unwrap();
    assert!(in_time(campaign).await.unwrap().unwrap().path().ends_with(&place));
}

#[tokio::test]
async fn a_term_outlives_the_member_that_served_the_leader() {
    let mut ensemble = patient_ensemble(3).await;
    let client = client(&ensemble).await;
    let mut running = run(&candidate(&client, "a"));
    let token = running.leads().await;

    let (member, epoch) = (member_of(&client).await, client.epoch());
    ensemble.kill(member);
    reconnected(&client, epoch).await;

    let leader = in_time(candidate(&client, "x").leader()).await.unwrap().unwrap();
    assert_eq!(leader.token, token);
    assert!(running.terms.try_recv().is_err());
    running.ends().await;
}

/// Sessions are ended here by decree, in the middle of what was promised to them: whose turn it is may be heard before
/// the one before hears that it is over. That nobody leads beyond its own time is shown where time ends the sessions.
#[tokio::test]
async fn leaders_follow_each_other_while_their_sessions_end() {
    let ensemble = patient_ensemble(3).await;
    let clients = [client(&ensemble).await, client(&ensemble).await, client(&ensemble).await];
    // Every leadership there was, kept beyond its end.
    let leaderships = Arc::new(std::sync::Mutex::new(Vec::<Arc<Leadership>>::new()));
    let (tell, mut terms) = mpsc::channel(64);
    let shutdown = CancellationToken::new();
    let mut runs = Vec::new();
    for (number, client) in clients.iter().enumerate() {
        let election = candidate(client, &number.to_string());
        let (leaderships, tell, stop) = (leaderships.clone(), tell.clone(), shutdown.clone());
        runs.push(tokio::spawn(async move {
            let lead = |lease: Leadership| {
                let lease = Arc::new(lease);
                leaderships.lock().unwrap().push(lease.clone());
                let tell = tell.clone();
                async move {
                    tell.send((number, lease.token())).await.unwrap();
                    lease.cancellation().cancelled().await;
                }
            };
            election.run(stop, lead).await
        }));
    }

    let mut last = FencingToken(0);
    for _ in 0..8 {
        let (number, token) = in_time(terms.recv()).await.unwrap();
        assert!(token > last);
        last = token;
        let leader = candidate(&clients[0], "x").leader().await.unwrap().unwrap();
        assert_eq!((leader.token, leader.id()), (token, number.to_string()));
        let over = leaderships.lock().unwrap().last().unwrap().clone();
        assert_eq!(over.token(), token);
        expire(&ensemble, &clients[number]).await;
        eventually("the leader knows that its time is over", async || !over.is_held()).await;
    }
    shutdown.cancel();
    for run in runs {
        in_time(run).await.unwrap().unwrap();
    }
    // No place was given up by the end of a term alone: each leadership is over, though somebody keeps it.
    assert!(leaderships.lock().unwrap().iter().all(|leadership| !leadership.is_held()));
}

#[tokio::test]
async fn leader_code_that_panics_resigns_and_leads_again_later() {
    let ensemble = patient_ensemble(1).await;
    let (one, other) = (candidate(&client(&ensemble).await, "a"), candidate(&client(&ensemble).await, "b"));
    let (begin, begun) = tokio::sync::oneshot::channel::<()>();
    let begun = std::sync::Mutex::new(Some(begun));
    let (tell, mut terms) = mpsc::channel(4);
    let shutdown = CancellationToken::new();
    let (election, stop) = (one.clone(), shutdown.clone());
    let running = tokio::spawn(async move {
        let lead = |lease: Leadership| {
            let first_term = begun.lock().unwrap().take();
            let tell = tell.clone();
            async move {
                tell.send(lease.token()).await.unwrap();
                let Some(begun) = first_term else { return lease.cancellation().cancelled().await };
                begun.await.unwrap();
                panic!("leader code has a bug");
            }
        };
        election.run(stop, lead).await
    });
    let first = in_time(terms.recv()).await.unwrap();
    let campaign = queued(&other).await;

    begin.send(()).unwrap();

    let others = in_time(campaign).await.unwrap().unwrap();
    assert!(others.token() > first);
    others.resign().await.unwrap();
    assert!(in_time(terms.recv()).await.unwrap() > first);
    shutdown.cancel();
    in_time(running).await.unwrap().unwrap();
}

#[tokio::test]
async fn leader_code_is_dropped_when_the_leadership_is_lost() {
    struct OnDrop(mpsc::Sender<&'static str>);
    impl Drop for OnDrop {
        fn drop(&mut self) {
            self.0.try_send("dropped").unwrap();
        }
    }

    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let (tell, mut told) = mpsc::channel(8);
    let shutdown = CancellationToken::new();
    let (election, stop) = (candidate(&client, "a"), shutdown.clone());
    let running = tokio::spawn(async move {
        let lead = |_lease: Leadership| {
            let tell = tell.clone();
            async move {
                tell.try_send("leads").unwrap();
                let _on_drop = OnDrop(tell);
                // It does not listen to anything.
                std::future::pending::<()>().await;
            }
        };
        election.run(stop, lead).await
    });
    assert_eq!(in_time(told.recv()).await, Some("leads"));

    let leader = candidate(&client, "x").leader().await.unwrap().unwrap();
    client.delete(&leader.path).await.unwrap();

    assert_eq!(in_time(told.recv()).await, Some("dropped"));
    // Though the code does not keep what it was given, it leads as long as it runs.
    assert_eq!(in_time(told.recv()).await, Some("leads"));
    assert!(candidate(&client, "x").leader().await.unwrap().unwrap().token > leader.token);

    // Nor does it listen to the end: it is dropped after the grace.
    shutdown.cancel();
    assert_eq!(in_time(told.recv()).await, Some("dropped"));
    in_time(running).await.unwrap().unwrap();
    assert_line_is_empty(&client, PATH).await;
}

#[tokio::test]
async fn leader_code_that_is_told_to_stop_leads_until_it_has() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let election = Election::builder(&client, PATH).id("a").grace(PATIENCE).build().unwrap();
    let (tell, mut told) = mpsc::channel(8);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let running = tokio::spawn({
        let election = election.clone();
        async move {
            let lead = |lease: Leadership| {
                let tell = tell.clone();
                async move {
                    tell.send(true).await.unwrap();
                    lease.cancellation().cancelled().await;
                    // What must be put in order at the end, and needs the ensemble for it.
                    tell.send(lease.verify().await.is_ok()).await.unwrap();
                }
            };
            election.run(stop, lead).await
        }
    });
    assert_eq!(in_time(told.recv()).await, Some(true));

    shutdown.cancel();

    assert_eq!(in_time(told.recv()).await, Some(true));
    in_time(running).await.unwrap().unwrap();
    assert_line_is_empty(&client, PATH).await;
    assert_eq!(*election.state().borrow(), CandidateState::Idle);
}

#[tokio::test]
async fn a_leader_that_is_asked_to_resign_does_and_its_id_is_not_lost_meanwhile() {
    let ensemble = patient_ensemble(1).await;
    let (client, others) = (client(&ensemble).await, client(&ensemble).await);
    let guard = candidate(&client, "a").campaign().await.unwrap();
    let observer = candidate(&others, "x");

    observer.revoke(&observer.leader().await.unwrap().unwrap()).await.unwrap();
    in_time(guard.revocation_requested()).await;
    eventually("its id is back", async || observer.leader().await.unwrap().unwrap().id() == "a").await;
    assert!(guard.is_held());
    guard.resign().await.unwrap();

    let mut running = run(&candidate(&client, "a"));
    let first = running.leads().await;
    observer.revoke(&observer.leader().await.unwrap().unwrap()).await.unwrap();
    assert!(running.leads().await > first);
    running.ends().await;
}

#[tokio::test]
async fn a_run_that_is_dropped_resigns_and_drops_its_leader_code() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let election = candidate(&client, "a");
    let mut running = run(&election);
    running.leads().await;

    running.run.abort();

    eventually("it has resigned", async || places(&client, PATH).await.is_empty()).await;
    assert!(!election.is_leader());
    // The senders of its code went with it.
    assert!(in_time(running.terms.recv()).await.is_none());
}

#[tokio::test]
async fn a_run_ends_with_its_client() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mut running = run(&candidate(&client, "a"));
    running.leads().await;

    let drained = in_time(client.close(PATIENCE)).await.unwrap();

    assert!(drained.is_complete(), "{drained:?}");
    assert!(matches!(in_time(running.run).await.unwrap(), Err(Error::Client(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leader_code_that_blocks_its_thread_keeps_nobody_else_from_leading() {
    let ensemble = patient_ensemble(1).await;
    let (one, other) = (client(&ensemble).await, client(&ensemble).await);
    let (unblock, blocked) = std_mpsc::channel::<()>();
    let blocked = Arc::new(std::sync::Mutex::new(blocked));
    let (tell, mut terms) = mpsc::channel(4);
    let is_blocked = Arc::new(AtomicBool::new(false));
    let shutdown = CancellationToken::new();
    let (election, stop, blocking) = (candidate(&one, "a"), shutdown.clone(), is_blocked.clone());
    let running = tokio::spawn(async move {
        let lead = |lease: Leadership| {
            let (tell, blocked, blocking) = (tell.clone(), blocked.clone(), blocking.clone());
            async move {
                blocking.store(true, Ordering::SeqCst);
                tell.send(lease.token()).await.unwrap();
                let _ = blocked.lock().unwrap().recv();
                blocking.store(false, Ordering::SeqCst);
                lease.cancellation().cancelled().await;
            }
        };
        election.run(stop, lead).await
    });
    let first = in_time(terms.recv()).await.unwrap();

    expire(&ensemble, &one).await;
    let others = in_time(candidate(&other, "b").campaign()).await.unwrap();
    let others_token = others.token();
    assert!(others_token > first);
    // It cannot be stopped, so no further term of it begins, though it could lead.
    others.resign().await.unwrap();
    assert!(is_blocked.load(Ordering::SeqCst));
    assert!(terms.try_recv().is_err());

    unblock.send(()).unwrap();
    drop(unblock);
    assert!(in_time(terms.recv()).await.unwrap() > others_token);
    shutdown.cancel();
    in_time(running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_campaign_that_cannot_succeed_says_why() {
    let ensemble = patient_ensemble(1).await;
    let (owner, other) = (client(&ensemble).await, client(&ensemble).await);
    let readable = vec![quorate::Acl::world(quorate::Permissions::READ)];
    owner.create("/orders").await.unwrap();
    owner.create(PATH).acl(readable).await.unwrap();
    let election = candidate(&other, "a");

    let run = in_time(election.run(CancellationToken::new(), |_| async {})).await;

    assert!(matches!(run, Err(Error::Client(quorate::Error::NoAuth { .. }))), "{run:?}");
    assert!(matches!(&*election.state().borrow(), CandidateState::Failed { .. }));
}
