//! The rules of single writes: what they change, and which refusal wins.

use bytes::Bytes;
use quorate_tree::{
    Acl, Author, Change, Create, CreateMode, Limits, Op, Permissions, Refusal, Reply, SessionId, Stat, Zxid,
};

use crate::driver::{Driver, create, delete, entry, set, set_acl};

const RESERVED: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

fn with_acl(path: &str, acl: Vec<Acl>) -> Op {
    Op::Create(Create { acl, ..create(path, CreateMode::Persistent) })
}

#[test]
fn a_new_tree_has_the_reserved_nodes_and_counts_the_root_twice() {
    let driver = Driver::new();

    assert_eq!(driver.tree.node_count(), 5);
    assert_eq!(driver.children("/"), ["zookeeper"]);
    assert_eq!(driver.children("/zookeeper"), ["config", "quota"]);
    assert_eq!(driver.stat("/"), Stat { cversion: -1, num_children: 1, ..Stat::default() });
    assert_eq!(driver.stat("/zookeeper"), Stat { cversion: -2, num_children: 2, ..Stat::default() });
    let (config, _) = driver.tree.acl("/zookeeper/config", &[]).unwrap();
    assert_eq!(config, [entry(Permissions::READ, "world", "anyone")]);
}

#[test]
fn reserved_nodes_cannot_be_deleted_but_others_beside_them_can_be_made() {
    let mut driver = Driver::new();
    let alice = driver.open();

    for path in RESERVED {
        driver.refused(&alice, Op::Delete(delete(path, -1)), Refusal::BadArguments);
        driver.refused(&alice, Op::Create(create(path, CreateMode::Persistent)), Refusal::NodeExists);
    }
    driver.refused(&alice, Op::SetData(set("/zookeeper/config", "x", -1)), Refusal::NoAuth);
    driver.create(&alice, "/zookeeper/foo", CreateMode::Persistent);
    driver.accepted(&alice, Op::SetData(set("/zookeeper", "x", 0)));
    driver.accepted(&alice, Op::SetData(set("/", "x", 0)));
}

#[test]
fn a_stat_tells_what_happened_to_a_node() {
    let mut driver = Driver::new();
    let alice = driver.open();

    let Reply::Created { path, stat } = driver.accepted(
        &alice,
        Op::Create(Create { data: Some(Bytes::from_static(b"abc")), ..create("/a", CreateMode::Persistent) }),
    ) else {
        panic!("created")
    };
    let (czxid, ctime_ms) = (driver.tree.zxid(), driver.now_ms);
    let fresh =
        Stat { czxid, mzxid: czxid, pzxid: czxid, ctime_ms, mtime_ms: ctime_ms, data_length: 3, ..Stat::default() };
    assert_eq!((path.as_str(), stat), ("/a", fresh));

    let reply = driver.accepted(&alice, Op::SetData(set("/a", "abcd", 0)));
    let (mzxid, mtime_ms) = (driver.tree.zxid(), driver.now_ms);
    let after_set = Stat { mzxid, mtime_ms, version: 1, data_length: 4, ..fresh };
    assert_eq!(reply, Reply::Stat(after_set));

    let reply = driver.accepted(&alice, Op::SetAcl(set_acl("/a", vec![Acl::open()], 0)));
    let after_acl = Stat { aversion: 1, ..after_set };
    assert_eq!(reply, Reply::Stat(after_acl));

    driver.create(&alice, "/a/b", CreateMode::Persistent);
    driver.accepted(&alice, Op::SetData(set("/a/b", "x", -1)));
    let after_child = Stat { pzxid: Zxid(driver.tree.zxid().0 - 1), cversion: 1, num_children: 1, ..after_acl };
    assert_eq!(driver.stat("/a"), after_child);

    driver.accepted(&alice, Op::Delete(delete("/a/b", 1)));
    let after_delete = Stat { pzxid: driver.tree.zxid(), cversion: 2, num_children: 0, ..after_child };
    assert_eq!(driver.stat("/a"), after_delete);
}

#[test]
fn setting_equal_data_counts_and_is_reported() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.accepted(&alice, Op::SetData(set("/", "x", -1)));

    let done = driver.apply(&alice, Op::SetData(set("/", "x", -1)));

    assert_eq!(done.changes, [Change::DataChanged { path: "/".into() }]);
    assert_eq!(driver.stat("/").version, 2);
}

#[test]
fn a_node_made_again_starts_over() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/a", CreateMode::Persistent);
    driver.accepted(&alice, Op::SetData(set("/a", "x", 0)));
    driver.create(&alice, "/a/b", CreateMode::Persistent);
    driver.accepted(&alice, Op::Delete(delete("/a/b", -1)));
    let done = driver.apply(&alice, Op::Delete(delete("/a", 1)));
    assert_eq!(done.changes, [Change::Deleted { path: "/a".into(), acl: [Acl::open()].into() }]);

    driver.create(&alice, "/a", CreateMode::Persistent);

    let stat = driver.stat("/a");
    assert_eq!((stat.version, stat.cversion, stat.data_length, stat.czxid), (0, 0, 0, driver.tree.zxid()));
    assert_eq!(driver.create(&alice, "/a/", CreateMode::PersistentSequential), "/a/0000000000");
}

#[test]
fn every_child_uses_up_a_sequence_number_and_no_refusal_does() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/s", CreateMode::Persistent);
    let sequential = CreateMode::PersistentSequential;

    assert_eq!(driver.create(&alice, "/s/a-", sequential), "/s/a-0000000000");
    assert_eq!(driver.create(&alice, "/s/b-", CreateMode::EphemeralSequential), "/s/b-0000000001");
    driver.create(&alice, "/s/plain", CreateMode::Persistent);
    driver.accepted(&alice, Op::Delete(delete("/s/plain", -1)));
    driver.refused(&alice, Op::Create(create("/s/a-0000000000", CreateMode::Persistent)), Refusal::NodeExists);
    assert_eq!(driver.create(&alice, "/s/", sequential), "/s/0000000003");
    let ttl = CreateMode::PersistentSequentialWithTtl { ttl_ms: 1 };
    assert_eq!(driver.create(&alice, "/s/a-", ttl), "/s/a-0000000004");
    driver.create(&alice, "/s/a-0000000006", CreateMode::Persistent);
    driver.refused(&alice, Op::Create(create("/s/a-", sequential)), Refusal::NodeExists);
}

#[test]
fn an_ephemeral_belongs_to_its_session_and_nothing_else_does() {
    let mut driver = Driver::new();
    let alice = driver.open();
    let modes = [
        ("/e", CreateMode::Ephemeral, alice.session),
        ("/p", CreateMode::Persistent, SessionId::NONE),
        ("/c", CreateMode::Container, SessionId::NONE),
        ("/t", CreateMode::PersistentWithTtl { ttl_ms: (1 << 40) - 1 }, SessionId::NONE),
    ];

    for (path, mode, owner) in modes {
        driver.create(&alice, path, mode);
        assert_eq!(driver.stat(path).ephemeral_owner, owner, "{mode:?}");
    }
    driver.refused(&alice, Op::Create(create("/e/child", CreateMode::Persistent)), Refusal::NoChildrenForEphemerals);
    for parent in ["/p", "/c", "/t"] {
        driver.create(&alice, &format!("{parent}/child"), CreateMode::Persistent);
    }
    assert_eq!(driver.tree.ephemerals(alice.session), ["/e"]);

    let bob = driver.open();
    driver.accepted(&bob, Op::SetData(set("/e", "x", -1)));
    driver.accepted(&bob, Op::Delete(delete("/e", -1)));
    assert_eq!(driver.tree.ephemerals(alice.session), Vec::<String>::new());
}

/// Both what is wrong and which of several wrong things is blamed.
#[test]
fn the_first_broken_rule_decides_the_refusal() {
    #[track_caller]
    fn check(op: Op, reason: Refusal) {
        let mut driver = Driver::new();
        let alice = driver.open();
        driver.create(&alice, "/t", CreateMode::Persistent);
        driver.create(&alice, "/t/full", CreateMode::Persistent);
        driver.create(&alice, "/t/full/child", CreateMode::Persistent);
        driver.create(&alice, "/e", CreateMode::Ephemeral);
        driver.accepted(&alice, with_acl("/closed", vec![entry(Permissions::READ, "world", "anyone")]));
        driver.accepted(&alice, with_acl("/hidden", vec![entry(Permissions(0), "world", "anyone")]));
        let digest = driver.tree.digest();

        driver.refused(&alice, op, reason);

        assert_ne!(driver.tree.digest(), digest, "a refusal takes its turn in the lane");
    }
    let ttl = |path, ttl_ms| Op::Create(create(path, CreateMode::PersistentWithTtl { ttl_ms }));
    let plain = |path| Op::Create(create(path, CreateMode::Persistent));

    // Create: ttl, slash and NUL, list, parent, permission, whole path, existence, ephemeral parent.
    check(ttl("nothing", 0), Refusal::BadArguments);
    check(ttl("/a", 1 << 40), Refusal::BadArguments);
    check(plain(""), Refusal::BadArguments);
    check(plain("a"), Refusal::BadArguments);
    check(plain("/no/a\0"), Refusal::BadArguments);
    check(with_acl("/no/where", vec![]), Refusal::InvalidAcl);
    check(plain("/no/where"), Refusal::NoNode);
    check(plain("a/b"), Refusal::NoNode);
    check(plain("/no/.."), Refusal::NoNode);
    check(plain("//a"), Refusal::BadArguments);
    check(plain("/closed/.."), Refusal::NoAuth);
    check(plain("/t/.."), Refusal::BadArguments);
    check(plain("/t/"), Refusal::BadArguments);
    check(plain("/t/\u{1}"), Refusal::BadArguments);
    check(plain("/t/full"), Refusal::NodeExists);
    check(plain("/e/x"), Refusal::NoChildrenForEphemerals);
    check(plain("/e/"), Refusal::BadArguments);

    // Delete: path, parent, permission on the parent, existence, version, children.
    check(Op::Delete(delete("no", -1)), Refusal::BadArguments);
    check(Op::Delete(delete("/t/", -1)), Refusal::NoNode);
    check(Op::Delete(delete("/t/\0", -1)), Refusal::BadArguments);
    check(Op::Delete(delete("/zookeeper", 7)), Refusal::BadArguments);
    check(Op::Delete(delete("/no/where", -1)), Refusal::NoNode);
    check(Op::Delete(delete("/closed/no", -1)), Refusal::NoAuth);
    check(Op::Delete(delete("/t/no", -1)), Refusal::NoNode);
    check(Op::Delete(delete("/t/full", 1)), Refusal::BadVersion);
    check(Op::Delete(delete("/t/full", 0)), Refusal::NotEmpty);

    // Set: path, existence, permission, version.
    check(Op::SetData(set("/t/", "", -1)), Refusal::BadArguments);
    check(Op::SetData(set("/no", "", -1)), Refusal::NoNode);
    check(Op::SetData(set("/closed", "", 5)), Refusal::NoAuth);
    check(Op::SetData(set("/t", "", 5)), Refusal::BadVersion);

    // Set the list: path, list, existence, permission, version of the list.
    check(Op::SetAcl(set_acl("/t/", vec![], -1)), Refusal::BadArguments);
    check(Op::SetAcl(set_acl("/no", vec![], -1)), Refusal::InvalidAcl);
    check(Op::SetAcl(set_acl("/no", vec![Acl::open()], -1)), Refusal::NoNode);
    check(Op::SetAcl(set_acl("/closed", vec![Acl::open()], 5)), Refusal::NoAuth);
    check(Op::SetAcl(set_acl("/t", vec![Acl::open()], 5)), Refusal::BadVersion);
}

#[test]
fn bounds_are_kept() {
    let limits = Limits { node_bytes_max: 4, path_bytes_max: 12, acl_entries_max: 1, ..Limits::DEFAULT };
    let mut driver = Driver::with_limits(limits);
    let alice = driver.open();
    let with_data = |bytes: &'static str| {
        Op::Create(Create { data: Some(Bytes::from_static(bytes.as_bytes())), ..create("/a", CreateMode::Persistent) })
    };

    driver.refused(&alice, with_data("12345"), Refusal::LimitExceeded);
    driver.accepted(&alice, with_data("1234"));
    driver.refused(&alice, Op::SetData(set("/a", "12345", -1)), Refusal::LimitExceeded);
    driver.refused(&alice, Op::Create(create("/123456789012", CreateMode::Persistent)), Refusal::LimitExceeded);
    driver.refused(&alice, Op::Create(create("/ab", CreateMode::PersistentSequential)), Refusal::LimitExceeded);
    driver.create(&alice, "/a", CreateMode::PersistentSequential);
    let two = vec![Acl::open(), entry(Permissions::READ, "world", "anyone")];
    driver.refused(&alice, with_acl("/b", two), Refusal::LimitExceeded);
}

#[test]
fn time_may_go_back() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/a", CreateMode::Persistent);
    driver.now_ms = -5;

    driver.accepted(&alice, Op::SetData(set("/a", "x", -1)));

    assert_eq!((driver.stat("/a").mtime_ms, driver.stat("/a").ctime_ms), (-4, 1_002));
}

#[test]
fn writes_are_for_sessions_only() {
    let mut driver = Driver::new();

    driver.refused(&Author::default(), Op::Create(create("/a", CreateMode::Persistent)), Refusal::SessionExpired);
    driver.refused(&Author::default(), Op::CloseSession, Refusal::SessionExpired);
}
