//! Multis: all or nothing, each operation seeing the ones before it.

use quorate_tree::{Acl, Change, CreateMode, Limits, MultiOp, Op, Permissions, Refusal, Refused, Reply, Stat};

use crate::driver::{Driver, check, create, delete, set, set_acl};

fn make(path: &str, mode: CreateMode) -> MultiOp {
    MultiOp::Create(create(path, mode))
}

#[test]
fn each_operation_sees_those_before_it_and_all_share_one_zxid() {
    let mut driver = Driver::new();
    let alice = driver.open();

    let done = driver.apply(
        &alice,
        Op::Multi(vec![
            make("/a", CreateMode::Persistent),
            make("/a/b", CreateMode::Ephemeral),
            make("/a/n-", CreateMode::PersistentSequential),
            MultiOp::SetData(set("/a", "x", 0)),
            MultiOp::SetData(set("/a", "xy", 1)),
            check("/a", 2),
            MultiOp::Delete(delete("/a/b", 0)),
        ]),
    );

    let (zxid, time_ms) = (done.zxid, driver.now_ms);
    let fresh = Stat { czxid: zxid, mzxid: zxid, pzxid: zxid, ctime_ms: time_ms, mtime_ms: time_ms, ..Stat::default() };
    let with_children = Stat { cversion: 2, num_children: 2, ..fresh };
    assert_eq!(
        done.outcome,
        Ok(Reply::Multi(vec![
            Reply::Created { path: "/a".into(), stat: fresh },
            Reply::Created { path: "/a/b".into(), stat: Stat { ephemeral_owner: alice.session, ..fresh } },
            Reply::Created { path: "/a/n-0000000001".into(), stat: fresh },
            Reply::Stat(Stat { version: 1, data_length: 1, ..with_children }),
            Reply::Stat(Stat { version: 2, data_length: 2, ..with_children }),
            Reply::Done,
            Reply::Done,
        ]))
    );
    assert_eq!(
        done.changes,
        [
            Change::Created { path: "/a".into() },
            Change::Created { path: "/a/b".into() },
            Change::Created { path: "/a/n-0000000001".into() },
            Change::DataChanged { path: "/a".into() },
            Change::DataChanged { path: "/a".into() },
            Change::Deleted { path: "/a/b".into(), acl: [Acl::open()].into() },
        ]
    );
}

#[test]
fn a_failed_multi_leaves_no_trace() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/p", CreateMode::Persistent);
    driver.create(&alice, "/p/old", CreateMode::Ephemeral);
    driver.create(&alice, "/t", CreateMode::PersistentWithTtl { ttl_ms: 10 });
    driver.create(&alice, "/c", CreateMode::Container);
    driver.create(&alice, "/c/child", CreateMode::Persistent);
    let stats = |driver: &Driver| ["/", "/p", "/p/old", "/t", "/c", "/c/child"].map(|path| driver.stat(path));
    let (before, count, due) =
        (stats(&driver), driver.tree.node_count(), driver.tree.due_for_reaping(i64::MAX, usize::MAX));

    let done = driver.apply(
        &alice,
        Op::Multi(vec![
            make("/p/n-", CreateMode::EphemeralSequential),
            MultiOp::SetData(set("/p", "x", 0)),
            MultiOp::SetData(set("/t", "x", 0)),
            MultiOp::Delete(delete("/c/child", -1)),
            MultiOp::Delete(delete("/c", -1)),
            MultiOp::Delete(delete("/p/old", -1)),
            MultiOp::Delete(delete("/p/n-0000000001", -1)),
            MultiOp::Delete(delete("/p", 1)),
            make("/p", CreateMode::Persistent),
            make("/p/old", CreateMode::Persistent),
            check("/p", 1),
        ]),
    );

    assert_eq!(done.outcome, Err(Refused { reason: Refusal::BadVersion, failed_op: Some(10) }));
    assert_eq!(done.changes, []);
    assert_eq!(stats(&driver), before);
    assert_eq!(driver.tree.node_count(), count);
    assert_eq!(driver.tree.due_for_reaping(i64::MAX, usize::MAX), due);
    assert_eq!(driver.tree.ephemerals(alice.session), ["/p/old"]);
    assert_eq!(driver.create(&alice, "/p/n-", CreateMode::PersistentSequential), "/p/n-0000000001");
}

#[test]
fn an_empty_multi_succeeds_and_a_too_long_one_is_nobodys_fault_in_particular() {
    let mut driver = Driver::with_limits(Limits { multi_ops_max: 2, ..Limits::DEFAULT });
    let alice = driver.open();

    assert_eq!(driver.accepted(&alice, Op::Multi(vec![])), Reply::Multi(vec![]));
    driver.accepted(&alice, Op::Multi(vec![check("/", -1); 2]));
    let done = driver.apply(&alice, Op::Multi(vec![check("/no", -1); 3]));
    assert_eq!(done.outcome, Err(Refused { reason: Refusal::LimitExceeded, failed_op: None }));
}

#[test]
fn a_check_asks_for_path_existence_and_version_in_this_order() {
    let mut driver = Driver::new();
    let alice = driver.open();
    let mut refusal = |op| driver.apply(&alice, Op::Multi(vec![check("/", -1), op])).outcome.unwrap_err();

    assert_eq!(refusal(check("/no/", 7)), Refused { reason: Refusal::BadArguments, failed_op: Some(1) });
    assert_eq!(refusal(check("/no", 7)), Refused { reason: Refusal::NoNode, failed_op: Some(1) });
    assert_eq!(refusal(check("/", 7)), Refused { reason: Refusal::BadVersion, failed_op: Some(1) });
}

#[test]
fn a_check_blames_the_path_then_existence_then_permission_then_version() {
    #[track_caller]
    fn refused(path: &str, version: i32, reason: Refusal) {
        let mut driver = Driver::new();
        let alice = driver.open();
        driver.create(&alice, "/t", CreateMode::Persistent);
        driver.create(&alice, "/closed", CreateMode::Persistent);
        let list = vec![Acl { permissions: Permissions::WRITE, ..Acl::open() }];
        driver.accepted(&alice, Op::SetAcl(set_acl("/closed", list, -1)));

        let done = driver.apply(&alice, Op::Multi(vec![check("/t", 0), check(path, version)]));

        assert_eq!(done.outcome, Err(Refused { reason, failed_op: Some(1) }), "{path}");
    }

    refused("/closed/", 5, Refusal::BadArguments);
    refused("/no", 5, Refusal::NoNode);
    refused("/closed", 5, Refusal::NoAuth);
    refused("/t", 5, Refusal::BadVersion);
}
