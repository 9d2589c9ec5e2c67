//! Writes that take effect only while something is held.

use quorate::{CreateMode, LostReason, TxnOp};
use quorate_recipes::{Error, FencingToken, Mutex};

use crate::support::{client, expire, in_time, patient_ensemble};

const PATH: &str = "/locks/fenced";

#[tokio::test]
async fn a_holder_writes_what_it_wants() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let fenced = guard.fenced();

    let created = fenced.create("/account", "1").await.unwrap();
    assert_eq!(created.path, "/account");
    assert_eq!(fenced.set("/account", "2").await.unwrap().version, 1);
    let job = fenced.apply(TxnOp::create("/job-", "").mode(CreateMode::PersistentSequential)).await.unwrap();
    assert!(matches!(job, quorate::TxnResult::Created(_)));
    let results = fenced.transact([TxnOp::set("/account", "3"), TxnOp::check("/account", 2)]).await.unwrap();
    assert_eq!(results.len(), 2);
    fenced.delete("/account").await.unwrap();

    assert!(client.exists("/account").await.unwrap().is_none());
}

#[tokio::test]
async fn a_refusal_names_the_callers_operation() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let fenced = guard.fenced();
    client.create("/a").await.unwrap();

    let refused = fenced.set("/none", "1").await;
    assert!(matches!(refused, Err(Error::Client(quorate::Error::NoNode { path })) if path == "/none"));
    let refused = fenced.apply(TxnOp::set("/a", "1").version(7)).await;
    assert!(matches!(refused, Err(Error::Client(quorate::Error::BadVersion { .. }))));
    let refused = fenced.transact([TxnOp::set("/a", "1"), TxnOp::delete("/none")]).await;
    assert!(matches!(refused, Err(Error::Client(quorate::Error::Txn { index: 1, .. }))));

    assert!(guard.is_held());
    assert_eq!(client.get("/a").await.unwrap().data, "");
}

#[tokio::test]
async fn a_write_of_a_holder_that_does_not_know_of_its_loss_has_no_effect() {
    let ensemble = patient_ensemble(3).await;
    let (one, other) = (client(&ensemble).await, client(&ensemble).await);
    one.create("/account").data("1").await.unwrap();
    let guard = Mutex::new(&one, PATH).unwrap().lock().await.unwrap();
    let fenced = guard.fenced();

    other.delete(guard.path()).await.unwrap();
    let written = fenced.set("/account", "2").await;

    assert!(matches!(written, Err(Error::Lost { reason: LostReason::NodeDeleted, .. })));
    assert!(!guard.is_held());
    assert_eq!(other.get("/account").linearizable().await.unwrap().data, "1");
}

#[tokio::test]
async fn a_check_in_a_transaction_of_ones_own_is_refused_after_the_loss() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let txn = client.txn().create("/first", "").op(guard.check_op());
    txn.clone().commit().await.unwrap();

    client.delete(guard.path()).await.unwrap();
    let refused = client.txn().create("/second", "").op(guard.check_op()).commit().await;

    let Err(quorate::Error::Txn { index: 1, source }) = refused else { panic!("{refused:?}") };
    assert!(matches!(*source, quorate::Error::NoNode { .. }));
    assert!(client.exists("/second").await.unwrap().is_none());
}

#[tokio::test]
async fn who_has_released_writes_no_more() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let fenced = guard.fenced();

    guard.release().await.unwrap();

    assert!(matches!(fenced.create("/account", "").await, Err(Error::Released { .. })));
}

#[tokio::test]
async fn who_has_lost_its_session_writes_no_more_in_the_next() {
    let ensemble = patient_ensemble(1).await;
    let client = client(&ensemble).await;
    let guard = Mutex::new(&client, PATH).unwrap().lock().await.unwrap();
    let fenced = guard.fenced();

    expire(&ensemble, &client).await;
    let written = in_time(fenced.create("/account", "")).await;

    assert!(
        matches!(written, Err(Error::Lost { .. } | Error::Client(quorate::Error::SessionLost { .. }))),
        "{written:?}"
    );
    assert!(client.exists("/account").await.unwrap().is_none());
}

#[test]
fn a_token_is_a_number_wherever_one_is_wanted() {
    let token = FencingToken(42);

    assert_eq!(token.to_string(), "42");
    assert_eq!((token.get(), u64::from(token)), (42, 42));
    assert!(token < FencingToken(43));
}
