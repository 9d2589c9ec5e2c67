//! Sessions, lanes and write numbers.

use bytes::Bytes;
use quorate_tree::{
    Acl, Applied, Author, Change, Command, CreateMode, Lane, Limits, MemberId, Op, Refusal, Refused, Reply, SessionEnd,
    SessionId, SessionView, Tree, Zxid,
};

use crate::driver::{Driver, PASSWORD, author, create, delete, numbered, set};

fn sequential(path: &str) -> Op {
    Op::Create(create(path, CreateMode::PersistentSequential))
}

fn attach(session: SessionId, password: Bytes) -> Op {
    Op::AttachSession { session, password, timeout_ms: 5_000 }
}

#[test]
fn a_session_is_named_after_the_member_and_the_zxid_that_opened_it() {
    let mut driver = Driver::new();
    let alice = driver.open();

    assert_eq!(alice.session, SessionId::opened_by(MemberId(1), Zxid(1)));
    let expected = SessionView {
        session: alice.session,
        timeout_ms: 10_000,
        attachment: 1,
        member: MemberId(1),
        next_write: 1,
        ephemerals: 0,
        client_name: "test".into(),
    };
    assert_eq!(driver.tree.session(alice.session), Some(expected.clone()));
    assert_eq!(driver.tree.sessions().collect::<Vec<_>>(), [expected]);
}

#[test]
fn no_more_sessions_open_than_the_limit_says() {
    let mut driver = Driver::with_limits(Limits { sessions_max: 1, client_name_bytes_max: 4, ..Limits::DEFAULT });
    let open = |password| Op::OpenSession { timeout_ms: 1, password, client_name: "žluť".into() };

    assert_eq!(driver.own(open(Bytes::from_static(b"short"))).outcome, Err(Refusal::BadArguments.into()));
    assert!(driver.own(open(PASSWORD)).outcome.is_ok());
    assert_eq!(driver.own(open(PASSWORD)).outcome, Err(Refusal::LimitExceeded.into()));
    assert_eq!(driver.tree.sessions().next().unwrap().client_name, "žlu");
}

#[test]
fn an_attachment_makes_the_older_ones_stale() {
    let mut driver = Driver::new();
    let alice = driver.open();

    let done = driver.own(attach(alice.session, PASSWORD));

    assert_eq!(done.outcome, Ok(Reply::Attached { timeout_ms: 5_000, attachment: 2, next_write: 1 }));
    assert_eq!(done.changes, [Change::SessionAttached { session: alice.session, attachment: 2 }]);
    driver.refused(&alice, sequential("/a-"), Refusal::SessionMoved);
    driver.refused(&alice, Op::CloseSession, Refusal::SessionMoved);
    driver.refused(&author(alice.session, 3), sequential("/a-"), Refusal::SessionMoved);
    driver.accepted(&author(alice.session, 2), sequential("/a-"));
}

#[test]
fn who_does_not_know_the_password_disturbs_nobody() {
    let mut driver = Driver::new();
    let alice = driver.open();

    for password in [&b""[..], b"0123456789abcdeF", b"0123456789abcde", b"0123456789abcdef0"] {
        let done = driver.own(attach(alice.session, Bytes::from_static(password)));
        assert_eq!((done.outcome, done.changes), (Err(Refusal::WrongPassword.into()), vec![]));
        assert!(!driver.tree.password_matches(alice.session, password));
    }
    assert!(driver.tree.password_matches(alice.session, &PASSWORD));
    driver.accepted(&alice, sequential("/a-"));
    let done = driver.own(attach(SessionId(77), PASSWORD));
    assert_eq!(done.outcome, Err(Refusal::SessionExpired.into()));
}

#[test]
fn a_closed_session_takes_its_ephemerals_along_in_the_order_of_their_paths() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/p", CreateMode::Persistent);
    for path in ["/p/b", "/p-", "/p/a"] {
        driver.create(&alice, path, CreateMode::Ephemeral);
    }

    let done = driver.apply(&alice, Op::CloseSession);

    let deleted = |path: &str| Change::Deleted { path: path.into(), acl: [Acl::open()].into() };
    let ended = Change::SessionEnded { session: alice.session, end: SessionEnd::Closed };
    assert_eq!(done.outcome, Ok(Reply::Done));
    assert_eq!(done.changes, [deleted("/p-"), deleted("/p/a"), deleted("/p/b"), ended]);
    assert_eq!((driver.stat("/p").pzxid, driver.stat("/").pzxid), (done.zxid, done.zxid));
    assert_eq!(driver.tree.session(alice.session), None);
    assert!(driver.exists("/p"));
    driver.refused(&alice, sequential("/a-"), Refusal::SessionExpired);
}

#[test]
fn the_end_of_a_session_may_be_begun_ahead_and_comes_to_the_same() {
    let ended = |ahead_max: Option<usize>| {
        let mut driver = Driver::new();
        let alice = driver.open();
        driver.create(&alice, "/p", CreateMode::Persistent);
        for at in 0..10 {
            driver.create(&alice, &format!("/p/{at}"), CreateMode::Ephemeral);
        }
        let close = driver.next_command(&alice, Op::CloseSession);
        let before = driver.tree.zxid();
        let mut left = Vec::new();
        while let Some((zxid, changes)) = ahead_max.and_then(|max| driver.tree.apply_ahead(&close, max)) {
            assert_eq!((zxid, driver.tree.zxid(), changes.len()), (Zxid(before.0 + 1), before, ahead_max.unwrap()));
            assert_eq!(driver.stat("/p").pzxid, zxid, "whoever has seen less looks again");
            assert!(driver.tree.session(alice.session).is_some());
            left.push(driver.stat("/p").num_children);
        }
        let done = driver.apply(&alice, Op::CloseSession);
        assert_eq!(driver.tree.apply_ahead(&close, 1), None, "its turn is past");
        (left, done.zxid, done.outcome, driver.stat("/p"), driver.tree.digest())
    };

    let (left, zxid, outcome, stat, digest) = ended(Some(4));
    assert_eq!((left, &outcome), (vec![6, 2], &Ok(Reply::Done)));
    assert_eq!(ended(None), (vec![], zxid, outcome, stat, digest));
}

#[test]
fn only_the_end_of_a_session_in_its_turn_is_begun_ahead() {
    let mut driver = Driver::new();
    let alice = driver.open();
    for at in 0..3 {
        driver.create(&alice, &format!("/{at}"), CreateMode::Ephemeral);
    }
    let none = |driver: &mut Driver, author: &Author, op, behind| {
        let mut command = driver.next_command(author, op);
        command.lane.seq += behind;
        assert_eq!(driver.tree.apply_ahead(&command, 1), None, "{command:?}");
    };

    none(&mut driver, &alice, Op::CloseSession, 1);
    none(&mut driver, &author(alice.session, 2), Op::CloseSession, 0);
    none(&mut driver, &alice, Op::Delete(delete("/0", -1)), 0);
    none(&mut driver, &Author::default(), Op::ExpireSession { session: alice.session, attachment: 0 }, 0);
    let expire = driver.next_command(&Author::default(), Op::ExpireSession { session: alice.session, attachment: 1 });
    assert!(driver.tree.apply_ahead(&expire, 1).is_some());
}

#[test]
fn a_session_that_was_attached_again_does_not_expire() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.create(&alice, "/e", CreateMode::Ephemeral);
    let expire = |attachment| Op::ExpireSession { session: alice.session, attachment };
    driver.own(attach(alice.session, PASSWORD));

    let done = driver.own(expire(1));
    assert_eq!((done.outcome, done.changes), (Ok(Reply::Done), vec![]));
    assert!(driver.exists("/e"));

    let done = driver.own(expire(2));
    let ended = Change::SessionEnded { session: alice.session, end: SessionEnd::Expired };
    assert_eq!((done.outcome, done.changes.last()), (Ok(Reply::Done), Some(&ended)));
    assert!(!driver.exists("/e"));

    let done = driver.own(expire(2));
    assert_eq!((done.outcome, done.changes), (Ok(Reply::Done), vec![]));
}

#[test]
fn a_write_sent_again_gets_the_outcome_it_had_also_on_a_new_attachment() {
    let mut driver = Driver::new();
    let alice = driver.open();
    let first = driver.apply(&numbered(&alice, 1, 0), sequential("/a-"));
    let refused = driver.apply(&numbered(&alice, 2, 0), Op::Delete(delete("/no", -1)));
    driver.own(attach(alice.session, PASSWORD));
    let alice = author(alice.session, 2);

    let again = driver.apply(&numbered(&alice, 1, 0), sequential("/a-"));
    assert_eq!((again.zxid, again.outcome, again.changes), (first.zxid, first.outcome, vec![]));

    // What was refused stays refused, though it would succeed now.
    driver.create(&alice, "/no", CreateMode::Persistent);
    let again = driver.apply(&numbered(&alice, 2, 1), Op::Delete(delete("/no", -1)));
    assert_eq!((again.zxid, again.outcome), (refused.zxid, Err(Refusal::NoNode.into())));

    let next = driver.apply(&numbered(&alice, 3, 2), sequential("/a-"));
    assert_eq!(next.zxid, driver.tree.zxid());
    assert!(next.outcome.is_ok());
}

#[test]
fn a_write_whose_predecessor_is_missing_waits_for_it() {
    let mut driver = Driver::new();
    let alice = driver.open();

    driver.refused(&numbered(&alice, 2, 0), sequential("/a-"), Refusal::Gap);
    driver.refused(&numbered(&alice, 0, 0), sequential("/a-"), Refusal::Gap);
    driver.refused(&numbered(&alice, u64::MAX, u64::MAX), sequential("/a-"), Refusal::Gap);
    driver.accepted(&numbered(&alice, 1, 0), sequential("/a-"));
    driver.accepted(&numbered(&alice, 2, u64::MAX), sequential("/a-"));

    assert_eq!(driver.children("/"), ["a-0000000000", "a-0000000001", "zookeeper"]);
}

#[test]
fn an_answered_write_cannot_be_asked_for_again() {
    let mut driver = Driver::new();
    let alice = driver.open();
    driver.accepted(&numbered(&alice, 1, 0), sequential("/a-"));
    driver.accepted(&numbered(&alice, 2, 1), sequential("/a-"));

    driver.refused(&numbered(&alice, 1, 1), sequential("/a-"), Refusal::Gap);
    driver.accepted(&numbered(&alice, 2, 1), sequential("/a-"));
    assert_eq!(driver.children("/").len(), 3);
}

#[test]
fn writes_whose_answers_pile_up_are_refused_and_may_be_sent_again() {
    let mut driver = Driver::with_limits(Limits { session_outcomes_max: 2, ..Limits::DEFAULT });
    let alice = driver.open();
    driver.accepted(&numbered(&alice, 1, 0), sequential("/a-"));
    driver.accepted(&numbered(&alice, 2, 0), sequential("/a-"));

    driver.refused(&numbered(&alice, 3, 0), sequential("/a-"), Refusal::LimitExceeded);
    driver.refused(&numbered(&alice, 4, 0), sequential("/a-"), Refusal::Gap);
    driver.accepted(&numbered(&alice, 3, 1), sequential("/a-"));
}

#[test]
fn writes_are_refused_for_good_while_the_replies_kept_take_too_much_memory() {
    let mut driver = Driver::with_limits(Limits { session_outcome_bytes_max: 1, ..Limits::DEFAULT });
    let alice = driver.open();
    driver.accepted(&numbered(&alice, 1, 0), sequential("/a-"));

    driver.refused(&numbered(&alice, 2, 0), sequential("/a-"), Refusal::LimitExceeded);
    driver.refused(&numbered(&alice, 2, 1), sequential("/a-"), Refusal::LimitExceeded);
    driver.accepted(&numbered(&alice, 3, 2), sequential("/a-"));
}

#[test]
fn sessions_do_not_share_their_numbers() {
    let mut driver = Driver::new();
    let (alice, bob) = (driver.open(), driver.open());

    driver.accepted(&numbered(&alice, 1, 0), sequential("/a-"));
    driver.accepted(&numbered(&bob, 1, 0), sequential("/b-"));
    driver.accepted(&alice, sequential("/a-"));

    assert_eq!(driver.tree.session(alice.session).unwrap().next_write, 2);
    assert_eq!(driver.tree.session(bob.session).unwrap().next_write, 2);
}

#[test]
fn a_lane_takes_its_turns_once_each() {
    let mut tree = Tree::new(Limits::DEFAULT);
    let mut zxid = Zxid(0);
    let mut apply = |member, incarnation, seq| {
        let lane = Lane { member: MemberId(member), incarnation, seq };
        let op = Op::ExpireSession { session: SessionId(1), attachment: 1 };
        let applied = tree.apply(&Command { lane, stamp_ms: 0, author: Author::default(), op });
        zxid = zxid.next();
        assert_eq!(tree.zxid(), zxid, "each command has its zxid");
        applied
    };
    let is_fresh = |applied| matches!(applied, Applied::Fresh { .. });

    assert_eq!(apply(7, 3, 2), Applied::Gap);
    assert!(is_fresh(apply(7, 3, 1)));
    assert_eq!(apply(7, 3, 1), Applied::Repeat);
    assert_eq!(apply(7, 3, 3), Applied::Gap);
    assert!(is_fresh(apply(7, 3, 2)));
    assert!(is_fresh(apply(8, 1, 1)), "each member has its own");
    assert_eq!(apply(7, 2, 3), Applied::Repeat, "a start that is over");
    assert_eq!(apply(7, 9, 2), Applied::Gap);
    assert!(is_fresh(apply(7, 3, 3)), "a start is over when the next one has had its first turn");
    assert!(is_fresh(apply(7, 9, 1)));
    assert_eq!(apply(7, 3, 4), Applied::Repeat);
    assert_eq!(apply(7, 9, 0), Applied::Repeat);

    let next = |incarnation| tree.next_in_lane(MemberId(7), incarnation);
    assert_eq!((next(8), next(9), next(10)), (None, Some(2), Some(1)));
    assert_eq!(tree.next_in_lane(MemberId(5), 1), Some(1));
}

#[test]
fn what_has_no_turn_changes_nothing_but_the_zxid() {
    let mut driver = Driver::new();
    let alice = driver.open();
    let lane = Lane { member: MemberId(1), incarnation: 1, seq: 1 };
    let op = Op::SetData(set("/", "x", -1));

    let applied = driver.tree.apply(&Command { lane, stamp_ms: 0, author: alice.clone(), op });

    assert_eq!(applied, Applied::Repeat);
    assert_eq!(driver.stat("/").version, 0);
    assert_eq!(driver.tree.zxid(), Zxid(2));
}

#[test]
fn a_member_has_the_disk_registered_last_and_the_ensemble_its_first_name() {
    let mut driver = Driver::new();
    let register = |member, disk_id, ensemble_id| Op::RegisterMember { member: MemberId(member), disk_id, ensemble_id };
    assert_eq!((driver.tree.ensemble_id(), driver.tree.disk_of(MemberId(2))), (None, None));

    driver.own(register(2, 20, 7));
    driver.own(register(1, 10, 8));
    let done = driver.own(register(2, 21, 9));

    assert_eq!((done.outcome, done.changes), (Ok(Reply::Done), vec![]));
    assert_eq!(driver.tree.ensemble_id(), Some(7));
    assert_eq!(driver.tree.disks().collect::<Vec<_>>(), [(MemberId(1), 10), (MemberId(2), 21)]);
    assert_eq!(driver.tree.disk_of(MemberId(2)), Some(21));
}

#[test]
fn a_new_disk_of_a_member_has_a_new_lane() {
    let mut driver = Driver::new();
    let register = |disk_id| Op::RegisterMember { member: MemberId(2), disk_id, ensemble_id: 7 };
    let alice = driver.open();
    let op = Op::Create(create("/a", CreateMode::Persistent));
    let command = |incarnation, seq| {
        let lane = Lane { member: MemberId(2), incarnation, seq };
        Command { lane, stamp_ms: 0, author: alice.clone(), op: op.clone() }
    };
    driver.own(register(20));
    assert!(matches!(driver.tree.apply(&command(9, 1)), Applied::Fresh { .. }));

    driver.own(register(20));
    assert_eq!(driver.tree.apply(&command(9, 1)), Applied::Repeat);
    driver.own(register(21));

    assert_eq!(driver.tree.next_in_lane(MemberId(2), 3), Some(1));
    assert!(matches!(driver.tree.apply(&command(3, 1)), Applied::Fresh { .. }));
}

#[test]
fn a_refusal_is_an_outcome_like_any_other() {
    let mut driver = Driver::new();
    let alice = driver.open();

    let done = driver.apply(&alice, Op::Delete(delete("/no", -1)));

    assert_eq!(done.zxid, driver.tree.zxid());
    assert_eq!(done.outcome, Err(Refused { reason: Refusal::NoNode, failed_op: None }));
}
