//! Containers and nodes with a ttl, which the leader finds and the tree lets go.

use quorate_tree::{Change, CreateMode, Op, Reap, Refusal, Reply, Zxid};

use crate::driver::{Driver, create, delete, set};

fn reap(driver: &Driver, path: &str) -> Op {
    Op::Reap(Reap { path: path.into(), czxid: driver.stat(path).czxid })
}

fn due(driver: &Driver, now_ms: i64) -> Vec<String> {
    driver.tree.due_for_reaping(now_ms, usize::MAX).into_iter().map(|reap| reap.path).collect()
}

#[test]
fn a_container_is_due_when_its_last_child_has_gone_and_not_before_its_first() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/c", CreateMode::Container);
    let op = reap(&driver, "/c");

    assert_eq!(due(&driver, i64::MAX), [""; 0]);
    let done = driver.own(op.clone());
    assert_eq!((done.outcome, done.changes), (Err(Refusal::BadVersion.into()), vec![]));

    driver.create(&alice, "/c/child", CreateMode::Ephemeral);
    assert_eq!(due(&driver, i64::MAX), [""; 0]);
    assert_eq!(driver.own(op.clone()).outcome, Err(Refusal::NotEmpty.into()));

    driver.apply(&alice, Op::CloseSession);
    assert_eq!(due(&driver, i64::MIN), ["/c"]);
    let done = driver.own(op.clone());
    assert_eq!(done.outcome, Ok(Reply::Done));
    assert!(matches!(&done.changes[..], [Change::Deleted { path, .. }] if path == "/c"));
    assert_eq!(driver.stat("/").pzxid, done.zxid);
    assert_eq!(driver.own(op).outcome, Err(Refusal::NoNode.into()));
}

#[test]
fn a_node_with_a_ttl_is_due_when_it_was_not_set_for_longer_than_that() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/t", CreateMode::PersistentWithTtl { ttl_ms: 100 });
    let created_ms = driver.now_ms;
    assert_eq!(due(&driver, created_ms + 100), [""; 0]);
    assert_eq!(due(&driver, created_ms + 101), ["/t"]);

    driver.now_ms += 50;
    driver.accepted(&alice, Op::SetData(set("/t", "x", -1)));
    let set_ms = driver.now_ms;
    assert_eq!(due(&driver, set_ms + 100), [""; 0]);
    assert_eq!(due(&driver, set_ms + 101), ["/t"]);

    // Children keep it, but do not renew it.
    driver.create(&alice, "/t/child", CreateMode::Persistent);
    assert_eq!(due(&driver, i64::MAX), [""; 0]);
    driver.accepted(&alice, Op::Delete(delete("/t/child", -1)));
    assert_eq!(due(&driver, set_ms + 101), ["/t"]);

    let op = reap(&driver, "/t");
    driver.now_ms = set_ms + 99;
    assert_eq!(driver.own(op.clone()).outcome, Err(Refusal::BadVersion.into()), "100 ms are not longer than 100 ms");
    assert_eq!(driver.own(op).outcome, Ok(Reply::Done));
    assert!(!driver.exists("/t"));
}

#[test]
fn only_the_very_node_that_was_due_is_reaped() {
    let mut driver = Driver::new();
    let alice = driver.open();
    let ttl = CreateMode::PersistentWithTtl { ttl_ms: 1 };
    driver.create(&alice, "/t", ttl);
    let op = reap(&driver, "/t");
    driver.accepted(&alice, Op::Delete(delete("/t", -1)));
    driver.create(&alice, "/t", ttl);
    driver.now_ms += 1_000;

    assert_eq!(driver.own(op).outcome, Err(Refusal::NoNode.into()));
    assert!(driver.exists("/t"));
}

#[test]
fn what_is_neither_container_nor_ttl_is_never_reaped() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/p", CreateMode::Persistent);
    driver.create(&alice, "/e", CreateMode::Ephemeral);
    driver.create(&alice, "/p/child", CreateMode::Persistent);
    driver.accepted(&alice, Op::Delete(delete("/p/child", -1)));

    assert_eq!(due(&driver, i64::MAX), [""; 0]);
    for path in ["/p", "/e", "/zookeeper/quota"] {
        let op = reap(&driver, path);
        assert_eq!(driver.own(op).outcome, Err(Refusal::BadVersion.into()), "{path}");
    }
}

#[test]
fn those_due_for_longest_come_first_and_no_more_than_asked_for() {
    let mut driver = Driver::new();
    let alice = driver.open();
    for (path, ttl_ms) in [("/b", 300), ("/c", 100), ("/a", 200)] {
        driver.create(&alice, path, CreateMode::PersistentWithTtl { ttl_ms });
    }

    let paths = |limit| driver.tree.due_for_reaping(i64::MAX, limit).into_iter().map(|reap| reap.path);
    assert!(paths(2).eq(["/c", "/a"]));
    assert!(paths(9).eq(["/c", "/a", "/b"]));
    assert_eq!(driver.tree.due_for_reaping(i64::MAX, 0), []);
    assert!(driver.tree.due_for_reaping(i64::MAX, 1)[0].czxid > Zxid(0));
}

#[test]
fn the_longest_ttl_in_the_farthest_future_does_not_overflow() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.now_ms = i64::MAX - 5;

    driver.create(&alice, "/t", CreateMode::PersistentWithTtl { ttl_ms: (1 << 40) - 1 });

    assert_eq!(due(&driver, i64::MAX - 1), [""; 0]);
    driver.refused(&alice, Op::Create(create("/t", CreateMode::Persistent)), Refusal::NodeExists);
}
