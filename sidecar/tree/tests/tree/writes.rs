//! The rules of single writes and of multis.

use quorate_tree::{CreateMode, MultiOp, Op, Refusal, Refused, Reply};

use crate::driver::{Driver, check, create, delete, set};

#[test]
fn a_failed_multi_leaves_no_trace() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/p", CreateMode::Persistent);
    driver.create(&alice, "/p/old", CreateMode::Ephemeral);
    let before = driver.stat("/p");

    let multi = vec![
        MultiOp::Create(create("/p/n-", CreateMode::EphemeralSequential)),
        MultiOp::SetData(set("/p", "x", 0)),
        MultiOp::Delete(delete("/p/old", -1)),
        MultiOp::Delete(delete("/p/n-0000000001", -1)),
        MultiOp::Delete(delete("/p", 1)),
        MultiOp::Create(create("/p", CreateMode::Persistent)),
        check("/p", 1),
    ];
    let done = driver.apply(&alice, Op::Multi(multi));

    assert_eq!(done.outcome, Err(Refused { reason: Refusal::BadVersion, failed_op: Some(6) }));
    assert_eq!(done.changes, []);
    assert_eq!(driver.stat("/p"), before);
    assert_eq!(driver.tree.ephemerals(alice.session), ["/p/old"]);
    assert_eq!(driver.create(&alice, "/p/n-", CreateMode::PersistentSequential), "/p/n-0000000001");
    assert_eq!(driver.apply(&alice, Op::Multi(vec![])).outcome, Ok(Reply::Multi(vec![])));
}
