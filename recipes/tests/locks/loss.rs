//! What becomes of holders and waiters when sessions end, nodes are deleted, members die and machines sleep.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use quorate::{LostReason, clock::Clock};
use quorate_recipes::{Error, HoldState, Mutex, lock::WaitEvent};
use quorate_sidecar::testing::TestEnsemble;

use crate::support::{
    PATIENCE, Waiter, builder, client, eventually, expire, in_time, member_of, patient_ensemble, places, reaches,
    reconnected,
};

const PATH: &str = "/locks/lost";

/// Says when it is dropped.
struct OnDrop(Arc<AtomicBool>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_holder_whose_session_expires_is_told_and_the_next_one_gets_it() {
    let ensemble = patient_ensemble(3).await;
    let (one, other) = (client(&ensemble).await, client(&ensemble).await);
    let guard = Mutex::new(&one, PATH).unwrap().lock().await.unwrap();
    let cancellation = guard.cancellation();
    let waiter = Waiter::queued(&other, PATH).await;

    expire(&ensemble, &one).await;

    let (next, _) = waiter.granted().await;
    assert!(next.token() > guard.token());
    assert_eq!(in_time(guard.lost()).await, LostReason::SessionExpired);
    assert!(!guard.is_held());
    assert!(cancellation.is_cancelled());
    assert_eq!(*guard.state().borrow(), HoldState::Lost(LostReason::SessionExpired));
    let verified = guard.verify().await;
    assert!(matches!(verified, Err(Error::Lost { reason: LostReason::SessionExpired, .. })));
    // It did not hold to the end, and it harms nobody by letting go.
    let released = guard.release().await;
    assert!(matches!(released, Err(Error::Lost { reason: LostReason::SessionExpired, .. })));
    in_time(one.janitor().idle()).await;
    next.verify().await.unwrap();
}

#[tokio::test]
async fn a_holder_whose_node_is_deleted_is_told_and_the_next_one_gets_it() {
    let ensemble = patient_ensemble(1).await;
    let (one, other) = (client(&ensemble).await, client(&ensemble).await);
    let guard = Mutex::new(&one, PATH).unwrap().lock().await.unwrap();
    let waiter = Waiter::queued(&other, PATH).await;
    guard.verify().await.unwrap();

    other.delete(guard.path()).await.unwrap();

    assert_eq!(in_time(guard.lost()).await, LostReason::NodeDeleted);
    assert!(!guard.is_held());
    let _granted = waiter.granted().await;
}

#[tokio::test]
async fn verifying_finds_a_deleted_node_before_anybody_has_told() {
    let ensemble = patient_ensemble(3).await;
    let (one, other) = (client(&ensemble).await, client(&ensemble).await);
    let guard = Mutex::new(&one, PATH).unwrap().lock().await.unwrap();

    other.delete(guard.path()).await.unwrap();

    // At whichever member, and before the event.
    let verified = guard.verify().await;
    assert!(matches!(verified, Err(Error::Lost { reason: LostReason::NodeDeleted, .. })));
    assert!(!guard.is_held());
}

#[tokio::test]
async fn a_release_that_finds_no_node_says_that_it_was_lost() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();

    // One after the other on one stream: the deletion is not told before it is done.
    let (path, deleting) = (guard.path().to_owned(), client.clone());
    let delete = async move { deleting.delete(&path).await };
    let (deleted, released) = tokio::join!(delete, guard.release());

    deleted.unwrap();
    assert!(matches!(released, Err(Error::Lost { reason: LostReason::NodeDeleted, .. })), "{released:?}");
}

#[tokio::test]
async fn work_in_the_scope_of_a_hold_is_dropped_with_it() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let is_dropped = Arc::new(AtomicBool::new(false));
    let on_drop = OnDrop(is_dropped.clone());
    let begun = guard.scope(async { 7 }).await.unwrap();
    assert_eq!(begun, 7);

    let work = async move {
        let _on_drop = on_drop;
        std::future::pending::<()>().await;
    };
    let path = guard.path().to_owned();
    let delete = async { client.delete(&path).await };
    let (ended, deleted) = in_time(async { tokio::join!(guard.scope(work), delete) }).await;

    deleted.unwrap();
    assert!(matches!(ended, Err(Error::Lost { reason: LostReason::NodeDeleted, .. })));
    assert!(is_dropped.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_waiter_whose_session_expires_takes_a_new_place_and_says_so() {
    let ensemble = patient_ensemble(1).await;
    let (holder, waiting) = (client(&ensemble).await, client(&ensemble).await);
    let guard = Mutex::new(&holder, PATH).unwrap().lock().await.unwrap();
    let mut waiter = Waiter::queued(&waiting, PATH).await;
    let first_session = waiting.session().unwrap().id();

    expire(&ensemble, &waiting).await;

    let mut requeued = false;
    while let Some(event) = in_time(waiter.events.recv()).await {
        match event {
            WaitEvent::Requeued { reason } => {
                assert_eq!(reason, LostReason::SessionExpired);
                requeued = true;
            }
            WaitEvent::Queued { position } if requeued => {
                assert_eq!(position, 1);
                break;
            }
            _ => {}
        }
    }
    guard.release().await.unwrap();
    let (guard, _) = waiter.granted().await;
    assert_ne!(guard.session().id(), first_session);
    guard.verify().await.unwrap();
}

#[tokio::test]
async fn a_waiter_whose_node_is_deleted_takes_a_new_place() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let mut waiter = Waiter::queued(&client, PATH).await;
    let evicted = places(&client, PATH).await[1].clone();

    client.delete(&format!("{PATH}/{evicted}")).await.unwrap();

    let told = in_time(waiter.events.recv()).await;
    assert_eq!(told, Some(WaitEvent::Requeued { reason: LostReason::NodeDeleted }));
    let told = in_time(waiter.events.recv()).await;
    assert_eq!(told, Some(WaitEvent::Queued { position: 1 }));
    guard.release().await.unwrap();
    let _granted = waiter.granted().await;
}

#[tokio::test]
async fn a_waiter_that_expires_lets_nobody_past_the_holder() {
    let ensemble = patient_ensemble(1).await;
    let (holder, second, third) = (client(&ensemble).await, client(&ensemble).await, client(&ensemble).await);
    let guard = Mutex::new(&holder, PATH).unwrap().lock().await.unwrap();
    let _second = Waiter::queued(&second, PATH).await;
    let mut third = Waiter::queued(&third, PATH).await;

    expire(&ensemble, &second).await;

    let looked_again = in_time(third.events.recv()).await;
    assert_eq!(looked_again, Some(WaitEvent::Queued { position: 1 }));
    assert!(guard.is_held());
    guard.release().await.unwrap();
    let _granted = third.granted().await;
}

#[tokio::test]
async fn a_hold_outlives_the_member_that_served_its_client() {
    let mut ensemble = patient_ensemble(3).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();
    let guard = mutex.lock().await.unwrap();
    let mut state = guard.state();
    let (token, path) = (guard.token(), guard.path().to_owned());

    // Whichever leads, at the latest the second time it is the leader or the follower that dies.
    for _ in 0..2 {
        let member = member_of(&client).await;
        let epoch = client.epoch();
        ensemble.kill(member);
        reconnected(&client, epoch).await;
        reaches(&mut state, |state| state == HoldState::Held).await;

        assert_ne!(member_of(&client).await, member);
        assert!(guard.is_held());
        in_time(guard.verify()).await.unwrap();
        assert_eq!((guard.token(), guard.path()), (token, path.as_str()));
        ensemble.restart(member).await.unwrap();
        ensemble.ready().await.unwrap();
    }
    assert!(mutex.try_lock().await.unwrap().is_none());
    in_time(guard.release()).await.unwrap();
}

#[tokio::test]
async fn a_hold_is_suspended_while_no_member_serves_and_goes_on_with_its_token() {
    let mut ensemble = patient_ensemble(3).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let mut state = guard.state();
    let token = guard.token();

    for member in 1..=3 {
        ensemble.kill(member);
    }
    reaches(&mut state, |state| matches!(state, HoldState::Suspended { .. })).await;
    // Nobody else can have it before the lease is over, and that is known without asking.
    assert!(guard.is_held());
    for member in 1..=3 {
        ensemble.restart(member).await.unwrap();
    }
    reaches(&mut state, |state| state == HoldState::Held).await;

    in_time(guard.verify()).await.unwrap();
    assert_eq!(guard.token(), token);
}

#[tokio::test]
async fn a_node_that_is_deleted_while_its_holder_is_away_is_missed_when_it_is_back() {
    let mut ensemble = patient_ensemble(3).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let member = member_of(&client).await;
    // Of a client that is served elsewhere.
    let elsewhere = ensemble.members().find(|other| *other != member).unwrap();
    let operator = quorate::Client::builder(ensemble.endpoint(elsewhere)).connect().await.unwrap();

    ensemble.pause(member).await.unwrap();
    in_time(async { operator.delete(guard.path()).await }).await.unwrap();
    ensemble.kill(member);

    assert_eq!(in_time(guard.lost()).await, LostReason::NodeDeleted);
}

#[tokio::test]
async fn a_holder_whose_machine_slept_knows_it_in_the_first_moment() {
    let ensemble = TestEnsemble::start(3).await.unwrap();
    let (clock, skew) = Clock::skewed();
    let sleeper = builder(&ensemble).clock(clock).connect().await.unwrap();
    let other = client(&ensemble).await;
    let guard = Mutex::new(&sleeper, PATH).unwrap().lock().await.unwrap();
    let waiter = Waiter::queued(&other, PATH).await;
    let mut scope = Box::pin(guard.scope(std::future::pending::<()>()));
    assert!(futures_util::poll!(&mut scope).is_pending());
    assert!(guard.is_held());

    skew.sleep(PATIENCE);

    // Nothing has run since then that could have told.
    assert!(!guard.is_held());
    let mut lost = std::pin::pin!(guard.lost());
    assert_eq!(futures_util::poll!(&mut lost), std::task::Poll::Ready(LostReason::LocalDeadline));
    let ended = in_time(scope).await;
    assert!(matches!(ended, Err(Error::Lost { reason: LostReason::LocalDeadline, .. })));
    let (next, _) = waiter.granted().await;
    assert!(next.token() > guard.token());
}

#[tokio::test]
async fn a_client_that_is_closed_gives_up_what_it_holds_and_says_so() {
    let ensemble = patient_ensemble(1).await;
    let (one, other) = (client(&ensemble).await, client(&ensemble).await);
    let guard = Mutex::new(&one, PATH).unwrap().lock().await.unwrap();
    let waiter = Waiter::queued(&other, PATH).await;

    let drained = in_time(one.close(PATIENCE)).await.unwrap();

    assert!(drained.is_complete(), "{drained:?}");
    assert!(!guard.is_held());
    assert_eq!(in_time(guard.lost()).await, LostReason::ClientClosed);
    let _granted = waiter.granted().await;
}

#[tokio::test]
async fn a_client_that_is_closed_ends_those_who_wait() {
    let ensemble = patient_ensemble(1).await;
    let (one, other) = (client(&ensemble).await, client(&ensemble).await);
    let _guard = Mutex::new(&one, PATH).unwrap().lock().await.unwrap();
    let waiter = Waiter::queued(&other, PATH).await;

    let _drained = in_time(other.close(PATIENCE)).await.unwrap();

    let ended = in_time(waiter.task).await.unwrap();
    assert!(matches!(ended, Err(Error::Client(quorate::Error::Closed | quorate::Error::SessionLost { .. }))));
    eventually("its place is gone", async || places(&one, PATH).await.len() == 1).await;
}

#[tokio::test]
async fn a_client_that_is_strict_about_its_session_does_not_wait_in_another() {
    let ensemble = patient_ensemble(1).await;
    let holder = client(&ensemble).await;
    let strict = builder(&ensemble).single_session(true).connect().await.unwrap();
    let _guard = Mutex::new(&holder, PATH).unwrap().lock().await.unwrap();
    let waiter = Waiter::queued(&strict, PATH).await;

    expire(&ensemble, &strict).await;

    let ended = in_time(waiter.task).await.unwrap();
    assert!(matches!(ended, Err(Error::Client(quorate::Error::SessionLost { .. }))), "{ended:?}");
}

#[tokio::test]
async fn a_lock_that_is_asked_for_while_nobody_serves_is_granted_when_somebody_does() {
    let mut ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();
    ensemble.kill(1);

    let late = mutex.lock().timeout(Duration::from_millis(30)).await;
    assert!(matches!(late, Err(Error::Timeout { .. })));
    let lock = tokio::spawn(mutex.lock().into_future());
    ensemble.restart(1).await.unwrap();

    let guard = in_time(lock).await.unwrap().unwrap();
    guard.verify().await.unwrap();
    in_time(client.janitor().idle()).await;
    assert_eq!(places(&client, PATH).await.len(), 1);
}
