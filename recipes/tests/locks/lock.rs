//! What a lock does while nothing breaks.

use std::time::Duration;

use quorate::CreateMode;
use quorate_recipes::{Error, HoldState, Mutex, lock::WaitEvent};
use tokio_util::sync::CancellationToken;

use crate::support::{Waiter, assert_line_is_empty, client, in_time, patient_ensemble, places};

const PATH: &str = "/locks/orders/42";

#[tokio::test]
async fn a_holders_node_is_curators() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();

    let guard = mutex.lock().data("10.0.0.7").await.unwrap();

    let name = guard.path().strip_prefix("/locks/orders/42/").unwrap();
    let id = name.strip_prefix("_c_").and_then(|rest| rest.strip_suffix("-lock-0000000000")).unwrap();
    assert_eq!(uuid::Uuid::parse_str(id).unwrap().to_string(), id);
    let node = client.get(guard.path()).await.unwrap();
    assert_eq!(node.data, "10.0.0.7");
    assert_eq!(node.stat.ephemeral_owner, Some(guard.session().id()));
    assert_eq!(node.stat.czxid, guard.token().get());
    // The line goes when nobody stands in it, as only containers do.
    let parent = client.exists(PATH).await.unwrap().unwrap();
    assert_eq!((parent.ephemeral_owner, parent.num_children), (None, 1));
}

#[tokio::test]
async fn a_holder_says_who_it_is_unless_it_is_revocable() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();

    let guard = mutex.lock().await.unwrap();
    let info = mutex.holder().await.unwrap().unwrap().info().unwrap();
    assert_eq!((info.v, info.pid), (1, Some(std::process::id())));
    guard.release().await.unwrap();

    let guard = mutex.lock().revocable(true).await.unwrap();
    assert_eq!(client.get(guard.path()).await.unwrap().data, "");
}

#[tokio::test]
async fn waiters_get_it_in_order_with_growing_tokens_and_one_wakes_for_each_release() {
    let ensemble = patient_ensemble(3).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(client(&ensemble).await);
    }
    let mut guard = Mutex::new(&clients[0], PATH).unwrap().lock().await.unwrap();
    let mut waiters = Vec::new();
    for number in 0..6 {
        waiters.push(Waiter::queued(&clients[number % 3], PATH).await);
    }

    for (number, waiter) in waiters.into_iter().enumerate() {
        let last = guard.token();
        guard.release().await.unwrap();
        let events;
        (guard, events) = waiter.granted().await;

        assert!(guard.token() > last, "waiter {number}");
        // It has looked once when it came, and once when it was its turn: no release further ahead woke it.
        assert_eq!(events, [], "waiter {number}");
    }
}

#[tokio::test]
async fn a_waiter_whose_predecessor_gives_up_waits_for_the_one_before() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let second = Waiter::queued(&client, PATH).await;
    let mut third = Waiter::queued(&client, PATH).await;

    second.task.abort();
    let looked_again = in_time(third.events.recv()).await;
    assert_eq!(looked_again, Some(WaitEvent::Queued { position: 1 }));
    assert!(!third.task.is_finished());

    guard.release().await.unwrap();
    let _granted = third.granted().await;
}

#[tokio::test]
async fn the_queue_tells_who_holds_and_who_waits() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();
    assert!(mutex.queue().await.unwrap().is_empty());
    assert!(mutex.holder().await.unwrap().is_none());

    let guard = mutex.lock().data("first").await.unwrap();
    let _waiter = Waiter::queued(&client, PATH).await;

    let queue = mutex.queue().await.unwrap();
    assert_eq!(queue.len(), 2);
    assert_eq!((queue[0].path.as_str(), queue[0].token, &*queue[0].data), (guard.path(), guard.token(), &b"first"[..]));
    assert_eq!(queue[1].session, Some(guard.session().id()));
    assert!(queue[1].token > queue[0].token);
    assert_eq!(mutex.holder().await.unwrap().as_ref(), Some(&queue[0]));
}

#[tokio::test]
async fn trying_takes_a_free_lock_and_does_not_enter_the_line_of_a_held_one() {
    let ensemble = patient_ensemble(3).await;
    let (one, other) = (client(&ensemble).await, client(&ensemble).await);
    let (mutex, others) = (Mutex::new(&one, PATH).unwrap(), Mutex::new(&other, PATH).unwrap());

    let guard = mutex.try_lock().await.unwrap().unwrap();
    let children_before = one.exists(PATH).await.unwrap().unwrap().cversion;
    assert!(others.try_lock().await.unwrap().is_none());
    assert!(matches!(others.lock().timeout(Duration::ZERO).await, Err(Error::Timeout { .. })));
    assert_eq!(one.exists(PATH).await.unwrap().unwrap().cversion, children_before);

    // A release that was confirmed is seen by everybody who tries after it, at whichever member.
    guard.release().await.unwrap();
    assert!(others.try_lock().await.unwrap().is_some());
}

#[tokio::test]
async fn of_many_who_try_at_once_at_most_one_gets_it_and_the_others_leave_nothing() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();

    let tries = (0..16).map(|_| {
        let mutex = mutex.clone();
        tokio::spawn(async move { mutex.try_lock().await.unwrap() })
    });
    let mut guards = Vec::new();
    for tried in tries.collect::<Vec<_>>() {
        guards.extend(in_time(tried).await.unwrap());
    }

    assert!(guards.len() <= 1);
    assert_eq!(places(&client, PATH).await.len(), guards.len());
}

#[tokio::test]
async fn who_runs_out_of_time_or_is_cancelled_leaves_the_line() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();
    let guard = mutex.lock().await.unwrap();

    let late = mutex.lock().timeout(Duration::from_millis(30)).await;
    assert!(matches!(late, Err(Error::Timeout { path, .. }) if path == PATH));

    let token = CancellationToken::new();
    let cancel = token.clone();
    let lock = mutex.lock().cancel_on(&token).on_position(move |_| cancel.cancel());
    assert!(matches!(in_time(lock.into_future()).await, Err(Error::Cancelled { .. })));
    let already = mutex.lock().cancel_on(&token).await;
    assert!(matches!(already, Err(Error::Cancelled { .. })));

    in_time(client.janitor().idle()).await;
    let left = places(&client, PATH).await;
    assert_eq!(left.len(), 1);
    assert!(guard.path().ends_with(&left[0]));
}

#[tokio::test]
async fn foreign_children_stall_nobody() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    for name in ["stray", "lock-7", "_c_x-latch-0000000000"] {
        client.create(&format!("{PATH}/{name}")).parents().await.unwrap();
    }

    let guard = in_time(Mutex::new(&client, PATH).unwrap().lock().into_future()).await.unwrap();

    assert!(guard.is_held());
}

#[tokio::test]
async fn a_place_made_by_another_client_of_curators_layout_excludes() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let theirs = client
        .create(&format!("{PATH}/_c_00000000-0000-4000-8000-000000000000-lock-"))
        .mode(CreateMode::EphemeralSequential)
        .parents()
        .await
        .unwrap();

    let waiter = Waiter::queued(&client, PATH).await;
    assert!(Mutex::new(&client, PATH).unwrap().try_lock().await.unwrap().is_none());

    client.delete(&theirs.path).await.unwrap();
    let _granted = waiter.granted().await;
}

#[tokio::test]
async fn a_shared_guard_releases_with_its_last_owner() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();
    let first = mutex.lock().await.unwrap().share();
    let second = first.clone();

    assert!(first.into_inner().is_none());
    assert!(second.is_held());
    assert!(mutex.try_lock().await.unwrap().is_none());

    let guard = second.into_inner().unwrap();
    guard.release().await.unwrap();
    assert!(mutex.try_lock().await.unwrap().is_some());
}

#[tokio::test]
async fn a_guard_may_be_dropped_where_there_is_no_runtime() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();
    let guard = mutex.lock().await.unwrap();

    std::thread::spawn(move || drop(guard)).join().unwrap();

    let _guard = in_time(mutex.lock().into_future()).await.unwrap();
}

#[tokio::test]
async fn a_released_hold_says_so() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let (state, cancellation, fenced) = (guard.state(), guard.cancellation(), guard.fenced());
    let mut lost = std::pin::pin!(guard.lost());
    assert_eq!(*state.borrow(), HoldState::Held);
    assert!(!cancellation.is_cancelled());

    guard.release().await.unwrap();

    assert_eq!(*state.borrow(), HoldState::Released);
    assert!(cancellation.is_cancelled());
    assert!(!fenced.hold().is_held());
    // Released is not lost.
    assert!(futures_util::FutureExt::now_or_never(&mut lost).is_none());
    assert_line_is_empty(&client, PATH).await;
}

#[tokio::test]
async fn a_holder_that_is_asked_to_let_go_hears_it() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();
    let guard = mutex.lock().revocable(true).await.unwrap();
    let waiter = Waiter::queued(&client, PATH).await;

    // A waiter is asked too: it hears of it when it holds.
    for participant in mutex.queue().await.unwrap() {
        mutex.revoke(&participant).await.unwrap();
    }

    in_time(guard.revocation_requested()).await;
    assert!(guard.is_held());
    guard.release().await.unwrap();
    let (guard, _) = waiter.granted().await;
    in_time(guard.revocation_requested()).await;
}

#[tokio::test]
async fn a_bad_path_is_refused_at_once() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;

    for path in ["", "locks/a", "/locks//a", "/locks/", "/a/../b"] {
        let refused = Mutex::new(&client, path);
        assert!(matches!(refused, Err(Error::Client(quorate::Error::InvalidPath { .. }))), "{path:?}");
    }
}

#[tokio::test]
async fn more_who_wait_than_the_janitor_has_places_do_not_block_each_other() {
    let ensemble = patient_ensemble(1).await;
    let client = crate::support::builder(&ensemble).janitor_slots(2).connect().await.unwrap();
    let mutex = Mutex::new(&client, PATH).unwrap();

    let locks = (0..12).map(|_| {
        let mutex = mutex.clone();
        tokio::spawn(async move { mutex.lock().await.unwrap().release().await.unwrap() })
    });
    for lock in locks.collect::<Vec<_>>() {
        in_time(lock).await.unwrap();
    }

    assert_line_is_empty(&client, PATH).await;
}
