//! Wherever a future is dropped, nothing of it stays behind.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use quorate_recipes::{Election, Mutex};
use tokio::sync::mpsc;

use crate::support::{assert_line_is_empty, client, in_time, patient_ensemble, places};

const PATH: &str = "/locks/dropped";

/// Drops the future when it has been polled so often; what it gave if it was ready before.
async fn polled_at_most<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polls = 0;
    poll_fn(move |cx| {
        if polls == times {
            return Poll::Ready(None);
        }
        polls += 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if polls == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[tokio::test]
async fn a_lock_that_is_dropped_at_any_await_point_leaves_no_node() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();

    for times in 0.. {
        let granted = in_time(polled_at_most(times, mutex.lock().into_future())).await;
        let is_granted = granted.is_some();
        drop(granted);
        assert_line_is_empty(&client, PATH).await;
        if is_granted {
            assert!(times > 3, "it has more await points than {times}");
            break;
        }
    }
}

#[tokio::test]
async fn a_waiter_that_is_dropped_at_any_await_point_leaves_no_node() {
    let ensemble = patient_ensemble(1).await;
    let (holder, waiter) = (client(&ensemble).await, client(&ensemble).await);
    let guard = Mutex::new(&holder, PATH).unwrap().lock().await.unwrap();
    let mutex = Mutex::new(&waiter, PATH).unwrap();

    for times in 0.. {
        let (tell, mut told) = mpsc::channel(64);
        let lock = mutex.lock().on_event(move |event| tell.try_send(event).unwrap());
        let at_rest = async {
            told.recv().await.unwrap();
            // What it sends then goes out before this, and is answered before it.
            waiter.sync(PATH).await.unwrap();
        };
        let is_at_rest = tokio::select! {
            biased;
            granted = polled_at_most(times, lock.into_future()) => {
                assert!(granted.is_none(), "it is held by another");
                false
            }
            () = at_rest => true,
        };
        in_time(waiter.janitor().idle()).await;
        assert_eq!(places(&holder, PATH).await.len(), 1, "dropped after {times} polls");
        if is_at_rest {
            assert!(times > 3, "it has more await points than {times}");
            break;
        }
    }
    assert!(guard.is_held());
}

#[tokio::test]
async fn trying_that_is_dropped_at_any_await_point_leaves_no_node() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();

    for times in 0.. {
        let tried = in_time(polled_at_most(times, mutex.try_lock())).await;
        let is_granted = tried.is_some();
        drop(tried);
        assert_line_is_empty(&client, PATH).await;
        if is_granted {
            break;
        }
    }
}

#[tokio::test]
async fn a_release_that_is_dropped_at_any_await_point_goes_on() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let mutex = Mutex::new(&client, PATH).unwrap();

    for times in 0.. {
        let guard = in_time(mutex.lock().into_future()).await.unwrap();
        let released = in_time(polled_at_most(times, guard.release())).await;
        assert_line_is_empty(&client, PATH).await;
        if let Some(released) = released {
            released.unwrap();
            break;
        }
    }
}

#[tokio::test]
async fn a_campaign_that_is_dropped_at_any_await_point_leaves_no_node() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let election = Election::builder(&client, PATH).id("a").build().unwrap();

    for times in 0.. {
        let granted = in_time(polled_at_most(times, election.campaign())).await;
        let is_granted = granted.is_some();
        drop(granted);
        assert_line_is_empty(&client, PATH).await;
        assert!(!election.is_leader());
        if is_granted {
            break;
        }
    }
}
