//! Who may do what, and what is shown to whom.

use quorate_tree::{Acl, Create, CreateMode, Identity, Op, Permissions, Refusal, Refused};

use crate::driver::{Driver, check, create, delete, entry, identity, named, set, set_acl};

/// A node `/n` with a child, on which everybody has exactly these permissions.
fn guarded(permissions: Permissions) -> (Driver, quorate_tree::Author) {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/n", CreateMode::Persistent);
    driver.create(&alice, "/n/child", CreateMode::Persistent);
    driver.accepted(&alice, Op::SetAcl(set_acl("/n", vec![entry(permissions, "world", "anyone")], -1)));
    (driver, alice)
}

#[test]
fn each_operation_needs_its_permission_and_no_other() {
    let all = [Permissions::READ, Permissions::WRITE, Permissions::CREATE, Permissions::DELETE, Permissions::ADMIN];
    let operations = [
        (Permissions::CREATE, Op::Create(create("/n/new", CreateMode::Persistent))),
        (Permissions::DELETE, Op::Delete(delete("/n/child", -1))),
        (Permissions::WRITE, Op::SetData(set("/n", "x", -1))),
        (Permissions::ADMIN, Op::SetAcl(set_acl("/n", vec![Acl::open()], -1))),
        (Permissions::READ, Op::Multi(vec![check("/n", -1)])),
    ];

    for (needed, op) in operations {
        let (mut driver, alice) = guarded(needed);
        driver.accepted(&alice, op.clone());

        let others = all.into_iter().filter(|one| *one != needed).fold(Permissions(0), Permissions::or);
        let (mut driver, alice) = guarded(others);
        driver.refused(&alice, op.clone(), Refusal::NoAuth);
        driver.accepted(&named(&alice, &[Identity::superuser()]), op);
    }
}

#[test]
fn reads_need_read_and_the_list_read_or_admin() {
    let no_auth = Refused::from(Refusal::NoAuth);
    let all_but_read = Permissions::WRITE.or(Permissions::CREATE).or(Permissions::DELETE).or(Permissions::ADMIN);

    let (driver, _) = guarded(all_but_read);
    assert_eq!(driver.tree.get("/n", &[]), Err(no_auth));
    assert_eq!(driver.tree.stat("/n", &[]), Err(no_auth));
    assert_eq!(driver.tree.children("/n", &[]), Err(no_auth));
    assert!(driver.tree.acl("/n", &[]).is_ok());

    let (driver, _) = guarded(Permissions::READ);
    assert!(driver.tree.get("/n", &[]).is_ok());
    assert!(driver.tree.stat("/n", &[]).is_ok());
    assert!(driver.tree.children("/n", &[]).is_ok());
    assert!(driver.tree.acl("/n", &[]).is_ok());

    let (driver, _) = guarded(Permissions::WRITE);
    assert_eq!(driver.tree.acl("/n", &[]), Err(no_auth));
}

#[test]
fn reads_of_what_is_not_there_or_cannot_be_say_no_node() {
    let driver = Driver::new();

    for path in ["", "zk", "/no", "//", "/zookeeper/", "/zookeeper//quota", "/./zookeeper"] {
        let expected = Refused::from(Refusal::NoNode);
        assert_eq!(driver.tree.get(path, &[]), Err(expected), "{path:?}");
        assert_eq!(driver.tree.stat(path, &[]), Err(expected), "{path:?}");
        assert_eq!(driver.tree.children(path, &[]), Err(expected), "{path:?}");
        assert_eq!(driver.tree.acl(path, &[]), Err(expected), "{path:?}");
    }
    assert_eq!(driver.tree.stat("/a\0", &[]), Err(Refusal::BadArguments.into()));
}

#[test]
fn digests_are_hidden_from_those_who_cannot_change_them() {
    let mut driver = Driver::new();
    let alice = driver.open();
    let list = vec![entry(Permissions::ALL, "digest", "u:secret="), entry(Permissions::READ, "world", "anyone")];
    driver.accepted(&alice, Op::Create(Create { acl: list.clone(), ..create("/n", CreateMode::Persistent) }));

    let (seen_by_owner, _) = driver.tree.acl("/n", &[identity("digest", "u:secret=")]).unwrap();
    let (seen_by_others, _) = driver.tree.acl("/n", &[]).unwrap();

    assert_eq!(seen_by_owner, list);
    assert_eq!(seen_by_others, [entry(Permissions::ALL, "digest", "u:x"), list[1].clone()]);
}

#[test]
fn auth_stands_for_what_the_author_has_proved() {
    let mut driver = Driver::new();
    let alice = driver.open();
    let list = vec![entry(Permissions::ALL, "auth", "ignored")];
    let op = Op::Create(Create { acl: list.clone(), ..create("/n", CreateMode::Persistent) });

    driver.refused(&named(&alice, &[identity("ip", "10.0.0.1")]), op.clone(), Refusal::InvalidAcl);
    let proved = named(&alice, &[identity("ip", "10.0.0.1"), identity("digest", "u:p"), identity("digest", "v:q")]);
    driver.accepted(&proved, op);

    let (stored, _) = driver.tree.acl("/n", &[Identity::superuser()]).unwrap();
    assert_eq!(stored, [entry(Permissions::ALL, "digest", "u:p"), entry(Permissions::ALL, "digest", "v:q")]);
    driver.refused(&alice, Op::SetData(set("/n", "x", -1)), Refusal::NoAuth);
    driver.accepted(&named(&alice, &[identity("digest", "v:q")]), Op::SetData(set("/n", "x", -1)));
}

#[test]
fn a_child_inherits_nothing_and_a_deletion_asks_the_parent_only() {
    let mut driver = Driver::new();
    let alice = driver.open();
    let nobody = vec![entry(Permissions(0), "world", "anyone")];

    driver.accepted(&alice, Op::Create(Create { acl: nobody, ..create("/closed", CreateMode::Persistent) }));
    driver
        .accepted(&named(&alice, &[Identity::superuser()]), Op::Create(create("/closed/open", CreateMode::Persistent)));

    driver.accepted(&alice, Op::SetData(set("/closed/open", "x", -1)));
    driver.refused(&alice, Op::Delete(delete("/closed/open", -1)), Refusal::NoAuth);
    driver.accepted(&named(&alice, &[Identity::superuser()]), Op::Delete(delete("/closed/open", -1)));
    driver.accepted(&alice, Op::Delete(delete("/closed", -1)));
}
