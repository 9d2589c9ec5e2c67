//! Sessions, lanes and write numbers.

use quorate_tree::{Applied, Command, CreateMode, Lane, Limits, MemberId, Op, Refusal, Reply, SessionId, Tree};

use crate::driver::{Driver, PASSWORD, author, create, numbered};

#[test]
fn a_closed_session_takes_its_ephemerals_along() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/b", CreateMode::Ephemeral);
    driver.create(&alice, "/a", CreateMode::EphemeralSequential);

    let done = driver.apply(&alice, Op::CloseSession);

    assert_eq!(done.outcome, Ok(Reply::Done));
    assert_eq!(done.changes.len(), 3);
    assert!(!driver.exists("/b"));
    assert_eq!(driver.tree.session_count(), 0);
    driver.refused(&alice, Op::Create(create("/c", CreateMode::Persistent)), Refusal::SessionExpired);
}

#[test]
fn a_write_sent_again_gets_the_outcome_it_had() {
    let mut driver = Driver::new();
    let alice = driver.open();
    let op = Op::Create(create("/a-", CreateMode::PersistentSequential));
    let first = driver.apply(&numbered(&alice, 1, 0), op.clone());
    let attach = Op::AttachSession { session: alice.session, password: PASSWORD, timeout_ms: 5_000 };
    assert_eq!(driver.own(attach).outcome, Ok(Reply::Attached { timeout_ms: 5_000, attachment: 2, next_write: 2 }));

    let again = driver.apply(&numbered(&author(alice.session, 2), 1, 0), op);

    assert_eq!((again.zxid, again.outcome), (first.zxid, first.outcome));
    assert_eq!(again.changes, []);
}

#[test]
fn a_lane_takes_its_turns_once_each() {
    let mut tree = Tree::new(Limits::DEFAULT);
    let mut apply = |incarnation, seq| {
        let lane = Lane { member: MemberId(7), incarnation, seq };
        let op = Op::ExpireSession { session: SessionId(1), attachment: 1 };
        tree.apply(&Command { lane, stamp_ms: 0, author: Default::default(), op })
    };

    assert_eq!(apply(3, 2), Applied::Gap);
    assert!(matches!(apply(3, 1), Applied::Fresh { .. }));
    assert_eq!(apply(3, 1), Applied::Repeat);
    assert_eq!(apply(3, 3), Applied::Gap);
    assert!(matches!(apply(3, 2), Applied::Fresh { .. }));
    assert_eq!(apply(2, 3), Applied::Repeat);
    assert!(matches!(apply(9, 1), Applied::Fresh { .. }));
    assert_eq!(apply(3, 3), Applied::Repeat);
}
