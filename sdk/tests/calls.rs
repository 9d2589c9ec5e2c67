//! What it means to drop a call, to share the outbox, and to be sure of a create or a delete.

mod peer;

use std::time::Duration;

use futures_util::FutureExt;
use peer::{Conn, PATIENCE, Peer, eventually, path, soon};
use quorate::{Acl, CreateMode, Error, Permissions, Release};
use quorate_proto::v1::{self, goodbye::Reason, request::Op};

fn created(request: &v1::Request) -> &v1::CreateRequest {
    match &request.op {
        Some(Op::Create(create)) => create,
        other => panic!("{other:?}"),
    }
}

async fn next_create(conn: &mut Conn) -> (v1::Request, v1::CreateRequest) {
    let request = conn.request().await;
    let create = created(&request).clone();
    (request, create)
}

#[tokio::test]
async fn nothing_is_sent_before_the_first_poll() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;

    drop(client.set("/a", "1"));
    drop(std::future::IntoFuture::into_future(client.set("/b", "2")));

    conn.stays_silent(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn a_call_dropped_while_it_waits_for_a_stream_is_never_sent() {
    let mut peer = Peer::start().await;
    let client = peer.client().build().unwrap();
    let conn = peer.stream().await;
    assert!(std::future::IntoFuture::into_future(client.set("/dropped", "1")).now_or_never().is_none());
    let kept = tokio::spawn({
        let client = client.clone();
        async move { client.set("/kept", "2").await }
    });
    tokio::task::yield_now().await;

    conn.attached(1).await;

    let mut conn = conn;
    let (number, set) = conn.write().await;
    assert_eq!((number, path(&set)), (1, "/kept"));
    conn.stat(&set, 1).await;
    soon("the answer", kept).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_write_dropped_after_it_was_sent_keeps_its_number() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.set("/dropped", "1").await }
    });
    conn.write().await;
    call.abort();
    let kept = tokio::spawn(async move { client.set("/kept", "2").await });
    let (number, _) = conn.write().await;
    assert_eq!(number, 2);

    drop(conn);
    let mut conn = peer.stream().await;
    conn.attached(1).await;

    for (expected, at) in [(1, "/dropped"), (2, "/kept")] {
        let (number, set) = conn.write().await;
        assert_eq!((number, path(&set)), (expected, at));
        conn.stat(&set, 1).await;
    }
    soon("the answer", kept).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_read_dropped_after_it_was_sent_is_not_sent_again() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.get("/dropped").await }
    });
    conn.request().await;
    call.abort();
    assert!(call.await.is_err());

    drop(conn);
    let mut conn = peer.stream().await;
    conn.attached(1).await;

    conn.stays_silent(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn a_full_outbox_takes_the_next_call_when_one_is_answered() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().in_flight_max(2)).await;
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("/a").await })
        })
        .collect();

    for _ in 0..2 {
        conn.request().await;
    }
    conn.stays_silent(Duration::from_millis(20)).await;
    drop(conn);
    let mut conn = peer.stream().await;
    conn.attached(1).await;
    for _ in 0..5 {
        let get = conn.request().await;
        conn.node(&get, "x", 1).await;
    }

    for call in calls {
        soon("the answer", call).await.unwrap().unwrap();
    }
}

/// Whoever is given room has to be polled before it can use it: a later call that is polled first must not overtake it.
#[tokio::test]
async fn calls_leave_in_the_order_of_their_first_poll_whatever_is_polled_next() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().in_flight_max(2)).await;
    let call = |path| Box::pin(client.set(path, "x").into_future());
    let (mut first, mut second, mut third, mut fourth) = (call("/1"), call("/2"), call("/3"), call("/4"));
    for call in [&mut first, &mut second, &mut third] {
        assert!(futures_util::poll!(call).is_pending());
    }
    for _ in 0..2 {
        let (_, set) = conn.write().await;
        conn.stat(&set, 1).await;
    }
    soon("both answers", async { (first.await.unwrap(), second.await.unwrap()) }).await;

    assert!(futures_util::poll!(&mut fourth).is_pending());

    for expected in ["/3", "/4"] {
        let set = tokio::select! {
            (_, set) = conn.write() => set,
            answered = futures_util::future::join(&mut third, &mut fourth) => panic!("{answered:?}"),
        };
        assert_eq!(path(&set), expected);
        conn.stat(&set, 2).await;
    }
    soon("the answers", async { (third.await.unwrap(), fourth.await.unwrap()) }).await;
}

#[tokio::test]
async fn a_call_dropped_while_the_outbox_is_full_gives_its_place_back() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().in_flight_max(1)).await;
    let call = |path: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.get(path).await })
    };
    let first = call("/first");
    let get = conn.request().await;
    let dropped = call("/dropped");
    tokio::task::yield_now().await;
    dropped.abort();
    assert!(dropped.await.is_err());
    let last = call("/last");

    conn.node(&get, "x", 1).await;
    let get = conn.request().await;
    assert_eq!(path(&get), "/last");
    conn.node(&get, "x", 1).await;

    soon("the answers", async { (first.await.unwrap().unwrap(), last.await.unwrap().unwrap()) }).await;
}

#[tokio::test]
async fn much_data_takes_more_places() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().in_flight_max(8)).await;
    let set = |path: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.set(path, vec![0; 100 * 1024]).await })
    };
    let (first, second) = (set("/a"), set("/b"));

    // Seven of eight places are taken, so the second waits.
    let (_, request) = conn.write().await;
    conn.stays_silent(Duration::from_millis(20)).await;
    conn.stat(&request, 1).await;
    let (_, request) = conn.write().await;
    conn.stat(&request, 1).await;

    soon("the answers", async { (first.await.unwrap().unwrap(), second.await.unwrap().unwrap()) }).await;
}

#[tokio::test]
async fn creates_carry_what_they_were_told() {
    let mut peer = Peer::start().await;
    let everybody = vec![Acl::world(Permissions::READ)];
    let (client, mut conn) = peer.opened(peer.client().namespace("app").acl(everybody)).await;
    let call =
        tokio::spawn(async move { client.create("/q/item-").data("x").sequential().ttl(Duration::from_secs(2)).await });

    let (request, create) = next_create(&mut conn).await;
    assert_eq!(create.path, "/app/q/item-");
    assert_eq!(create.mode(), v1::CreateMode::PersistentSequentialWithTtl);
    assert_eq!((create.ttl_ms, &create.data[..]), (2000, &b"x"[..]));
    assert_eq!((create.acl.len(), create.acl[0].permissions), (1, 1));
    conn.created(&request, "/app/q/item-0000000003", v1::Stat::default()).await;

    let created = soon("the answer", call).await.unwrap().unwrap();
    assert_eq!(
        (created.path.as_str(), created.name(), created.sequence()),
        ("/q/item-0000000003", "item-0000000003", Some(3))
    );
}

#[tokio::test]
async fn missing_parents_are_made_as_containers_from_the_top() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn(async move { client.create("/a/b/c").ephemeral().parents().await });

    let (request, _) = next_create(&mut conn).await;
    conn.refused(&request, v1::Refusal::NoNode).await;
    for (at, found) in [("/a/b", None), ("/a", None)] {
        let exists = conn.request().await;
        assert_eq!(path(&exists), at);
        conn.exists(&exists, found).await;
    }
    for at in ["/a", "/a/b"] {
        let (request, create) = next_create(&mut conn).await;
        assert_eq!((create.path.as_str(), create.mode()), (at, v1::CreateMode::Container));
        // Somebody else was faster with the first.
        match at {
            "/a" => conn.refused(&request, v1::Refusal::NodeExists).await,
            _ => conn.created(&request, at, v1::Stat::default()).await,
        }
    }
    let (request, create) = next_create(&mut conn).await;
    assert_eq!((create.path.as_str(), create.mode()), ("/a/b/c", v1::CreateMode::Ephemeral));
    conn.created(&request, "/a/b/c", v1::Stat::default()).await;

    assert_eq!(soon("the answer", call).await.unwrap().unwrap().path, "/a/b/c");
}

/// A protected create whose session was lost before the answer.
async fn lost_create(peer: &mut Peer) -> (tokio::task::JoinHandle<quorate::Result<quorate::Created>>, Conn, String) {
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn(async move {
        let created = client.create("/locks/lock-").mode(CreateMode::EphemeralSequential).protected().await;
        // Keeps the client until the test has seen everything.
        let _ = client.sync("/").await;
        created
    });
    let (_, create) = next_create(&mut conn).await;
    let name = create.path.strip_prefix("/locks/").unwrap();
    assert!(name.starts_with("_c_") && name.ends_with("-lock-"), "{name}");
    assert_eq!(name.len(), 40 + "lock-".len());
    let prefix = name[..40].to_owned();

    conn.goodbye(Reason::Expired).await;
    let conn = peer.stream().await;
    conn.attached_as(8, 1).await;
    (call, conn, prefix)
}

#[tokio::test]
async fn a_protected_create_finds_what_it_had_created() {
    let mut peer = Peer::start().await;
    let (call, mut conn, prefix) = lost_create(&mut peer).await;
    let name = format!("{prefix}lock-0000000005");

    let list = conn.request().await;
    assert!(matches!(&list.op, Some(Op::Children(list)) if list.path == "/locks" && list.linearizable), "{list:?}");
    conn.names(&list, &["_c_other-lock-0000000004", &name], 1).await;
    let exists = conn.request().await;
    assert_eq!(path(&exists), format!("/locks/{name}"));
    conn.exists(&exists, Some(v1::Stat { czxid: 77, ephemeral_owner: 8, ..v1::Stat::default() })).await;

    let sync = conn.request().await;
    conn.done(&sync).await;
    let created = soon("the answer", call).await.unwrap().unwrap();
    assert_eq!((created.name(), created.stat.czxid), (name.as_str(), 77));
}

#[tokio::test]
async fn a_protected_create_that_left_nothing_is_made_again_under_its_mark() {
    let mut peer = Peer::start().await;
    let (call, mut conn, prefix) = lost_create(&mut peer).await;

    let list = conn.request().await;
    conn.names(&list, &["_c_other-lock-0000000004"], 1).await;
    let (request, create) = next_create(&mut conn).await;
    assert_eq!(create.path, format!("/locks/{prefix}lock-"));
    conn.created(&request, &format!("/locks/{prefix}lock-0000000006"), v1::Stat::default()).await;

    let sync = conn.request().await;
    conn.done(&sync).await;
    assert_eq!(soon("the answer", call).await.unwrap().unwrap().sequence(), Some(6));
}

#[tokio::test]
async fn a_protected_create_that_is_dropped_leaves_nothing() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.create("/locks/lock-").mode(CreateMode::EphemeralSequential).protected().await }
    });
    let (request, create) = next_create(&mut conn).await;

    call.abort();
    assert!(call.await.is_err());

    let created = format!("{}0000000005", create.path);
    conn.created(&request, &created, v1::Stat::default()).await;
    let list = conn.request().await;
    assert_eq!(path(&list), "/locks");
    conn.names(&list, &[created.strip_prefix("/locks/").unwrap(), "_c_other-lock-0000000004"], 1).await;
    let delete = conn.request().await;
    assert_eq!(path(&delete), created);
    conn.done(&delete).await;
    soon("the janitor", client.janitor().idle()).await;
    assert_eq!(client.janitor().pending(), 0);
}

#[tokio::test]
async fn a_protected_create_that_was_refused_leaves_the_janitor_alone() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.create("/locks/lock-").protected().await }
    });
    let (request, _) = next_create(&mut conn).await;
    conn.refused(&request, v1::Refusal::NoAuth).await;

    assert!(matches!(soon("the answer", call).await.unwrap(), Err(Error::NoAuth { .. })));
    conn.stays_silent(Duration::from_millis(20)).await;
    assert_eq!(client.janitor().pending(), 0);
}

#[tokio::test]
async fn a_guaranteed_delete_goes_on_after_its_session_and_its_caller() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.delete("/mine").guaranteed().await }
    });
    conn.write().await;
    conn.goodbye(Reason::Expired).await;
    let mut conn = peer.stream().await;
    conn.attached_as(8, 1).await;

    let error = soon("the answer", call).await.unwrap().unwrap_err();
    assert!(error.is_unknown_outcome());
    let (_, delete) = conn.write().await;
    assert_eq!(path(&delete), "/mine");
    conn.refused(&delete, v1::Refusal::DiskFull).await;
    let (_, delete) = conn.write().await;
    conn.refused(&delete, v1::Refusal::NoNode).await;
    soon("the janitor", client.janitor().idle()).await;
}

#[tokio::test]
async fn a_slot_sends_without_a_runtime() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().namespace("app")).await;
    let guard = client.janitor().reserve().await.unwrap().on_drop(Release::node("/held"));

    std::thread::spawn(move || drop(guard)).join().unwrap();

    let (_, delete) = conn.write().await;
    assert_eq!(path(&delete), "/app/held");
    conn.done(&delete).await;
    soon("the janitor", client.janitor().idle()).await;
}

#[tokio::test]
async fn slots_are_bounded_and_given_back() {
    let mut peer = Peer::start().await;
    let (client, _conn) = peer.opened(peer.client().janitor_slots(1)).await;
    let slot = client.janitor().reserve().await.unwrap();

    let mut second = Box::pin(client.janitor().reserve());
    assert!(second.as_mut().now_or_never().is_none());
    drop(slot);

    drop(soon("a slot", second).await.unwrap());
}

#[tokio::test]
async fn closing_waits_for_the_janitor() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    client.janitor().reserve().await.unwrap().send(Release::node("/held"));

    let closing = tokio::spawn(client.close(PATIENCE));
    let (_, delete) = conn.write().await;
    conn.stays_silent(Duration::from_millis(20)).await;
    conn.done(&delete).await;
    let close = conn.request().await;
    assert!(matches!(close.op, Some(Op::Close(_))));
    conn.done(&close).await;

    assert!(soon("closing", closing).await.unwrap().unwrap().is_complete());
}

#[tokio::test]
async fn a_transaction_names_the_operation_to_blame() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().namespace("app")).await;
    let call = tokio::spawn(async move {
        client.txn().check("/a", 3).create("/b", "x").mode(CreateMode::Ephemeral).delete("/c").version(7).commit().await
    });
    let (_, request) = conn.write().await;
    let Some(Op::Transaction(txn)) = &request.op else { panic!("{request:?}") };
    assert_eq!(txn.ops.len(), 3);
    let refused =
        v1::RefusedReply { reason: v1::Refusal::BadVersion.into(), message: String::new(), failed_op: Some(2) };
    conn.answer(&request, v1::reply::Result::Refused(refused)).await;

    let error = soon("the answer", call).await.unwrap().unwrap_err();

    let Error::Txn { index: 2, source } = &error else { panic!("{error:?}") };
    assert!(matches!(&**source, Error::BadVersion { path } if path == "/c"), "{source:?}");
}

#[tokio::test]
async fn a_transaction_with_a_misfit_is_not_sent() {
    let peer = Peer::start().await;
    let client = peer.client().build().unwrap();

    for txn in [
        client.txn().create("/a", "x").version(3),
        client.txn().delete("/a").mode(CreateMode::Ephemeral),
        client.txn().version(3),
    ] {
        assert!(matches!(txn.commit().await, Err(Error::BadArguments { .. })));
    }
}

#[tokio::test]
async fn a_burst_of_calls_travels_in_few_frames_and_in_order() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let calls = (0..500).map(|n| {
        let client = client.clone();
        tokio::spawn(async move { client.set("/a", n.to_string()).await.unwrap().version })
    });
    let calls: Vec<_> = calls.collect();

    for number in 1..=500 {
        let (write, request) = conn.write().await;
        assert_eq!((write, request.seq), (number, number));
        conn.stat(&request, i32::try_from(number).unwrap()).await;
    }

    for (n, call) in calls.into_iter().enumerate() {
        assert_eq!(soon("the answer", call).await.unwrap(), i32::try_from(n).unwrap() + 1);
    }
    eventually("an idle client", || client.state().is_connected()).await;
}
