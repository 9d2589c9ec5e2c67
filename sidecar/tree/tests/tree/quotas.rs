//! Quotas: what they count, what they refuse, and what is shown of them.

use bytes::Bytes;
use quorate_tree::{
    Author, Change, Create, CreateMode, Delete, Limits, MultiOp, Op, Permissions, Reap, Refusal, SetData, Tree,
    TreeLoader,
};

use crate::driver::{Driver, create, delete, entry, set, set_acl};

const PERSISTENT: CreateMode = CreateMode::Persistent;

fn with_data(path: &str, data: &'static str) -> Create {
    Create { data: Some(Bytes::from_static(data.as_bytes())), ..create(path, PERSISTENT) }
}

fn limits_of(subtree: &str) -> String {
    format!("/zookeeper/quota{subtree}/zookeeper_limits")
}

fn usage_of(subtree: &str) -> String {
    format!("/zookeeper/quota{subtree}/zookeeper_stats")
}

fn shown(tree: &Tree, subtree: &str) -> String {
    let (data, stat) = tree.get(&usage_of(subtree), &[]).unwrap();
    let data = data.unwrap();
    assert_eq!(stat.data_length as usize, data.len());
    String::from_utf8(data.to_vec()).unwrap()
}

/// Makes a quota as ZooKeeper's command line does: its directories, its limits, and where it shows the usage.
fn limit(driver: &mut Driver, author: &Author, subtree: &str, limits: &'static str) {
    let mut path = "/zookeeper/quota".to_owned();
    for name in subtree[1..].split('/') {
        path = format!("{path}/{name}");
        if !driver.exists(&path) {
            driver.create(author, &path, PERSISTENT);
        }
    }
    driver.accepted(author, Op::Create(with_data(&limits_of(subtree), limits)));
    driver.accepted(author, Op::Create(with_data(&usage_of(subtree), "count=0,bytes=0")));
}

/// `/a` with a child of three bytes, and limits for it.
fn limited(limits: &'static str) -> (Driver, Author) {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/a", PERSISTENT);
    driver.accepted(&alice, Op::Create(with_data("/a/b", "123")));
    limit(&mut driver, &alice, "/a", limits);
    (driver, alice)
}

#[test]
fn usage_is_counted_with_the_root_of_the_subtree_and_shown_without_a_trace() {
    let (mut driver, alice) = limited("count=-1,bytes=-1");
    assert_eq!(shown(&driver.tree, "/a"), "count=2,bytes=3");
    let before = driver.stat(&usage_of("/a"));

    let done = driver.apply(&alice, Op::Create(with_data("/a/b/c", "4567")));
    assert_eq!(done.changes, [Change::Created { path: "/a/b/c".into() }]);
    assert_eq!(shown(&driver.tree, "/a"), "count=3,bytes=7");
    driver.accepted(&alice, Op::SetData(set("/a", "x", -1)));
    assert_eq!(shown(&driver.tree, "/a"), "count=3,bytes=8");
    driver.accepted(&alice, Op::SetData(SetData { data: None, ..set("/a/b/c", "", -1) }));
    assert_eq!(shown(&driver.tree, "/a"), "count=3,bytes=4");
    driver.create(&alice, "/ab", PERSISTENT);
    driver.accepted(&alice, Op::Delete(delete("/a/b/c", -1)));
    assert_eq!(shown(&driver.tree, "/a"), "count=2,bytes=4");

    assert_eq!(driver.stat(&usage_of("/a")), before);
}

#[test]
fn what_goes_by_itself_is_counted_too() {
    let (mut driver, alice) = limited("count=-1,bytes=-1");
    driver.create(&alice, "/a/e", CreateMode::Ephemeral);
    driver.create(&alice, "/a/t", CreateMode::PersistentWithTtl { ttl_ms: 1 });
    assert_eq!(shown(&driver.tree, "/a"), "count=4,bytes=3");

    driver.now_ms += 10;
    let czxid = driver.stat("/a/t").czxid;
    driver.own(Op::Reap(Reap { path: "/a/t".into(), czxid })).outcome.unwrap();
    driver.accepted(&alice, Op::CloseSession);

    assert_eq!(shown(&driver.tree, "/a"), "count=2,bytes=3");
}

#[test]
fn a_hard_limit_on_nodes_refuses_the_first_beyond_it() {
    let mut driver = Driver::new();
    let alice = driver.open();
    limit(&mut driver, &alice, "/a", "count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=3");
    assert_eq!(shown(&driver.tree, "/a"), "count=0,bytes=0");
    for path in ["/a", "/a/1", "/a/2"] {
        driver.create(&alice, path, PERSISTENT);
    }

    driver.refused(&alice, Op::Create(create("/a/3", PERSISTENT)), Refusal::QuotaExceeded);
    driver.accepted(&alice, Op::SetData(set("/a/1", "any number of bytes", -1)));
    driver.accepted(&alice, Op::Delete(delete("/a/2", -1)));
    driver.create(&alice, "/a/3", PERSISTENT);
}

#[test]
fn a_hard_limit_on_bytes_refuses_what_leaves_too_much() {
    let (mut driver, alice) = limited("count=-1,bytes=-1=;byteHardLimit=5;countHardLimit=-1");

    driver.accepted(&alice, Op::SetData(set("/a/b", "12345", -1)));
    driver.refused(&alice, Op::SetData(set("/a", "6", -1)), Refusal::QuotaExceeded);
    driver.refused(&alice, Op::Create(with_data("/a/c", "6")), Refusal::QuotaExceeded);
    driver.create(&alice, "/a/c", PERSISTENT);
    driver.accepted(&alice, Op::SetData(set(&limits_of("/a"), "count=-1,bytes=-1=;byteHardLimit=1", -1)));
    driver.refused(&alice, Op::SetData(set("/a/b", "1234", -1)), Refusal::QuotaExceeded);
    driver.accepted(&alice, Op::SetData(set("/a/b", "abcde", -1)));
    driver.accepted(&alice, Op::SetData(set("/a/b", "1", -1)));
}

#[test]
fn a_quota_is_asked_after_everything_but_the_version() {
    let (mut driver, alice) = limited("count=-1,bytes=-1=;byteHardLimit=0;countHardLimit=0");
    driver.create(&alice, "/e", CreateMode::Ephemeral);
    driver.accepted(&alice, Op::Create(create("/closed", PERSISTENT)));

    driver.refused(&alice, Op::Create(create("/a/b", PERSISTENT)), Refusal::NodeExists);
    driver.refused(&alice, Op::Create(create("/a/x/y", PERSISTENT)), Refusal::NoNode);
    driver.refused(&alice, Op::Create(create("/a/..", PERSISTENT)), Refusal::BadArguments);
    driver.refused(&alice, Op::Create(create("/a/x", PERSISTENT)), Refusal::QuotaExceeded);
    driver.refused(&alice, Op::SetData(set("/a/x", "12", -1)), Refusal::NoNode);
    driver.refused(&alice, Op::SetData(set("/a/b", "1", 7)), Refusal::QuotaExceeded);
    driver.refused(&alice, Op::SetData(set("/a/b", "abc", 7)), Refusal::BadVersion);
    driver.accepted(&alice, Op::SetAcl(set_acl("/a/b", vec![entry(Permissions::READ, "world", "anyone")], -1)));
    driver.refused(&alice, Op::SetData(set("/a/b", "1", 7)), Refusal::NoAuth);
}

#[test]
fn a_soft_limit_is_told_and_refuses_nothing() {
    let (mut driver, alice) = limited("count=2,bytes=4");

    let done = driver.apply(&alice, Op::Create(create("/a/c", PERSISTENT)));
    let passed = Change::QuotaPassed { subtree: "/a".into(), nodes: 3, bytes: 3 };
    assert_eq!(done.changes, [Change::Created { path: "/a/c".into() }, passed]);
    let done = driver.apply(&alice, Op::SetData(set("/a/c", "1", -1)));
    assert_eq!(done.changes, [Change::DataChanged { path: "/a/c".into() }]);
    let done = driver.apply(&alice, Op::SetData(set("/a/c", "12", -1)));
    let passed = Change::QuotaPassed { subtree: "/a".into(), nodes: 3, bytes: 5 };
    assert_eq!(done.changes, [Change::DataChanged { path: "/a/c".into() }, passed]);

    // A hard limit takes its place.
    driver.accepted(&alice, Op::SetData(set(&limits_of("/a"), "count=2,bytes=-1=;countHardLimit=9", -1)));
    let done = driver.apply(&alice, Op::Create(create("/a/d", PERSISTENT)));
    assert_eq!(done.changes, [Change::Created { path: "/a/d".into() }]);
}

#[test]
fn a_multi_counts_what_it_has_done_so_far_and_takes_it_back() {
    let (mut driver, alice) = limited("count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=4");
    let fits = vec![MultiOp::Delete(delete("/a/b", -1)), MultiOp::Create(with_data("/a/c", "1234567890"))];
    driver.accepted(&alice, Op::Multi(fits));
    assert_eq!(shown(&driver.tree, "/a"), "count=2,bytes=10");

    let too_much = vec![
        MultiOp::SetData(set("/a/c", "", -1)),
        MultiOp::Create(with_data("/a/1", "1")),
        MultiOp::SetData(set(&usage_of("/a"), "mine", -1)),
        MultiOp::Delete(delete(&limits_of("/a"), -1)),
        MultiOp::Create(with_data("/a/2", "22")),
        MultiOp::Create(with_data(&limits_of("/a"), "countHardLimit=4")),
        MultiOp::Create(with_data("/a/3", "3")),
    ];
    let refused = driver.apply(&alice, Op::Multi(too_much)).outcome.unwrap_err();

    assert_eq!((refused.reason, refused.failed_op), (Refusal::QuotaExceeded, Some(6)));
    assert_eq!(shown(&driver.tree, "/a"), "count=2,bytes=10");
    driver.refused(&alice, Op::Create(with_data("/a/1", "1")), Refusal::QuotaExceeded);
    driver.accepted(&alice, Op::SetData(set("/a/c", "", -1)));
    driver.create(&alice, "/a/1", PERSISTENT);
    driver.create(&alice, "/a/2", PERSISTENT);
    driver.refused(&alice, Op::Create(create("/a/3", PERSISTENT)), Refusal::QuotaExceeded);
}

#[test]
fn a_multi_that_fails_leaves_an_old_usage_as_it_was() {
    let (mut driver, alice) = limited("count=-1,bytes=-1");
    driver.accepted(&alice, Op::Delete(delete(&limits_of("/a"), -1)));
    driver.create(&alice, "/a/c", PERSISTENT);

    let fails = vec![MultiOp::Create(with_data(&limits_of("/a"), "count=9")), MultiOp::Delete(delete("/no", -1))];
    driver.refused(&alice, Op::Multi(fails), Refusal::NoNode);

    assert_eq!(shown(&driver.tree, "/a"), "count=2,bytes=3");
}

#[test]
fn the_innermost_quota_decides_and_the_outer_one_counts_all_the_same() {
    let (mut driver, alice) = limited("count=-1,bytes=-1=;countHardLimit=2");
    limit(&mut driver, &alice, "/a/b", "count=-1,bytes=-1");

    driver.create(&alice, "/a/b/c", PERSISTENT);
    driver.refused(&alice, Op::Create(create("/a/d", PERSISTENT)), Refusal::QuotaExceeded);

    assert_eq!(shown(&driver.tree, "/a"), "count=3,bytes=3");
    assert_eq!(shown(&driver.tree, "/a/b"), "count=2,bytes=3");
}

#[test]
fn a_quota_ends_with_its_limits() {
    let (mut driver, alice) = limited("count=-1,bytes=-1=;countHardLimit=2");
    driver.accepted(&alice, Op::Delete(delete(&limits_of("/a"), -1)));

    driver.create(&alice, "/a/c", PERSISTENT);
    assert_eq!(shown(&driver.tree, "/a"), "count=2,bytes=3", "nobody keeps it up to date");

    driver.accepted(&alice, Op::Delete(delete(&usage_of("/a"), -1)));
    driver.accepted(&alice, Op::Create(with_data(&usage_of("/a"), "mine")));
    assert_eq!(shown(&driver.tree, "/a"), "count=3,bytes=3", "but a new one is right to begin with");
    driver.accepted(&alice, Op::SetData(set(&usage_of("/a"), "mine", -1)));
    assert_eq!(shown(&driver.tree, "/a"), "mine");
    driver.accepted(&alice, Op::Create(with_data(&limits_of("/a"), "count=-1,bytes=-1")));
    assert_eq!(shown(&driver.tree, "/a"), "count=3,bytes=3");
    driver.accepted(&alice, Op::SetData(set(&usage_of("/a"), "mine", -1)));
    assert_eq!(shown(&driver.tree, "/a"), "count=3,bytes=3", "and what others write there does not stay");
}

#[test]
fn the_root_and_what_is_zookeepers_own_have_no_quota() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/zookeeper/quota/zookeeper", PERSISTENT);
    for subtree in ["", "/zookeeper"] {
        driver.accepted(&alice, Op::Create(with_data(&limits_of(subtree), "countHardLimit=0")));
    }

    driver.create(&alice, "/a", PERSISTENT);
    driver.create(&alice, "/zookeeper/quota/a", PERSISTENT);
}

#[test]
fn a_loaded_tree_goes_on_counting() {
    let (mut driver, alice) = limited("count=-1,bytes=-1=;countHardLimit=3");
    driver.tree.freeze();
    let mut loader = TreeLoader::new(Limits::DEFAULT);
    while let Some(part) = driver.tree.frozen_part(usize::MAX) {
        loader.add(&part).unwrap();
    }

    let mut loaded = loader.finish().unwrap();
    std::mem::swap(&mut driver.tree, &mut loaded);

    driver.create(&alice, "/a/c", PERSISTENT);
    assert_eq!(shown(&driver.tree, "/a"), "count=3,bytes=3");
    driver.refused(&alice, Op::Create(create("/a/d", PERSISTENT)), Refusal::QuotaExceeded);
    driver.accepted(&alice, Op::Delete(Delete { path: "/a/b".into(), version: -1 }));
    assert_eq!(shown(&driver.tree, "/a"), "count=2,bytes=0");
}
