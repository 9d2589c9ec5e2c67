//! What is asked and what is answered, operation by operation.

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_wire::{
    Acl, AddWatchMode, CreateKind, ErrorCode, OpCode, Reconfig, Request, Response, SetAcl, SetData, Stat, WatcherType,
    create_flags,
};

use crate::client::{Client, Heard, create, creation, delete, exists, get, get_data, member, open_acl, set};

async fn client() -> (quorate_sidecar::testing::TestEnsemble, Client) {
    let ensemble = member().await;
    let client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    (ensemble, client)
}

#[tokio::test]
async fn a_creation_and_a_ping_look_byte_for_byte_like_zookeepers() {
    let (_ensemble, mut client) = client().await;
    let asked =
        "0000003100000001000000010000000 22f6100000000000000010000001f00000005776f726c6400000006616e796f6e6500000000";
    client.raw.send(&bytes_of(&asked.replace(' ', ""))).await;

    let reply = client.raw.frame().await.unwrap();
    let zxid = reply[4..12].to_vec();
    assert_eq!(hex(&reply), format!("00000001{}00000000000000022f61", hex(&zxid)));

    client.raw.send(&bytes_of("00000008fffffffe0000000b")).await;
    assert_eq!(hex(&client.raw.frame().await.unwrap()), format!("fffffffe{}00000000", hex(&zxid)));
}

#[tokio::test]
async fn a_node_lives_through_its_operations() {
    let (_ensemble, mut client) = client().await;

    assert_eq!(client.create("/a", "one", create_flags::PERSISTENT).await.unwrap(), "/a");
    let Ok(Response::Data { data, stat: created }) = client.ask(get_data("/a", false)).await else { panic!() };
    assert_eq!(data.as_deref(), Some(&b"one"[..]));
    let Ok(Response::Stat(set_stat)) = client.ask(set("/a", "three", 0)).await else { panic!() };
    let Ok(Response::Stat(acl_stat)) = client.ask(set_acl("/a", open_acl(), 0)).await else { panic!() };
    client.plant("/a/b").await;
    let Ok(Response::NamesStat { names, stat }) = client.ask(Request::GetChildren2(get("/a", false))).await else {
        panic!()
    };

    assert_eq!(names, ["b"]);
    let expected = Stat {
        mzxid: set_stat.mzxid,
        pzxid: stat.pzxid,
        mtime: set_stat.mtime,
        version: 1,
        cversion: 1,
        aversion: 1,
        data_length: 5,
        num_children: 1,
        ..created
    };
    assert_eq!(stat, expected);
    assert!(created.czxid == created.mzxid && created.czxid == created.pzxid && created.ctime == created.mtime);
    assert!(created.czxid < set_stat.mzxid && set_stat.mzxid < stat.pzxid);
    assert_eq!((acl_stat.mzxid, acl_stat.aversion), (set_stat.mzxid, 1));

    assert_eq!(client.ask(delete("/a", 1)).await, Err(ErrorCode::NOT_EMPTY));
    assert_eq!(client.ask(delete("/a/b", 0)).await, Ok(Response::Empty));
    assert_eq!(client.stat("/a").await.unwrap().cversion, 2);
    assert_eq!(client.ask(delete("/a", -1)).await, Ok(Response::Empty));
    assert_eq!(client.stat("/a").await, Err(ErrorCode::NO_NODE));
}

#[tokio::test]
async fn a_fresh_tree_is_zookeepers() {
    let (_ensemble, mut client) = client().await;

    let root = client.stat("/").await.unwrap();
    let inner = client.stat("/zookeeper").await.unwrap();

    assert_eq!((root.czxid, root.ctime, root.cversion, root.num_children), (0, 0, -1, 1));
    assert_eq!((inner.czxid, inner.cversion, inner.num_children), (0, -2, 2));
    assert_eq!(client.children("/zookeeper").await, ["config", "quota"]);
    assert_eq!(client.ask(Request::GetAllChildrenNumber { path: "/".into() }).await, Ok(Response::Count(3)));
}

#[tokio::test]
async fn null_data_is_kept_apart_from_empty_data() {
    let (_ensemble, mut client) = client().await;
    let mut null = creation(CreateKind::Create, "/null", "", 0);
    null.data = None;
    client.ask(Request::Create(null)).await.unwrap();
    client.create("/empty", "", 0).await.unwrap();

    let mut data = Vec::new();
    for path in ["/null", "/empty"] {
        let Ok(Response::Data { data: got, stat }) = client.ask(get_data(path, false)).await else { panic!() };
        assert_eq!(stat.data_length, 0);
        data.push(got);
    }
    assert_eq!(data, [None, Some(Bytes::new())]);

    client.ask(Request::SetData(SetData { path: "/empty".into(), data: None, version: -1 })).await.unwrap();
    assert!(matches!(client.ask(get_data("/empty", false)).await, Ok(Response::Data { data: None, .. })));
}

#[tokio::test]
async fn each_way_to_create_makes_what_it_says() {
    let (_ensemble, mut client) = client().await;
    let me = client.granted.session_id;
    client.plant("/p").await;

    for (flags, path, owner) in [
        (create_flags::PERSISTENT, "/p/a", 0),
        (create_flags::EPHEMERAL, "/p/b", me),
        (create_flags::PERSISTENT_SEQUENTIAL, "/p/c0000000002", 0),
        (create_flags::EPHEMERAL_SEQUENTIAL, "/p/d0000000003", me),
        (create_flags::CONTAINER, "/p/e", 0),
    ] {
        let asked = path.trim_end_matches(|digit: char| digit.is_ascii_digit());
        assert_eq!(client.create(asked, "", flags).await.unwrap(), path);
        assert_eq!(client.stat(path).await.unwrap().ephemeral_owner, owner, "{path}");
    }
    for (kind, flags) in [
        (CreateKind::Create2, create_flags::PERSISTENT),
        (CreateKind::Container, create_flags::PERSISTENT),
        (CreateKind::Container, create_flags::CONTAINER),
        (CreateKind::Ttl, create_flags::PERSISTENT_WITH_TTL),
        (CreateKind::Ttl, create_flags::PERSISTENT_SEQUENTIAL_WITH_TTL),
    ] {
        let mut create = creation(kind, "/p/x", "", flags);
        create.ttl_ms = 1_000;
        let Ok(Response::PathStat { path, stat }) = client.ask(Request::Create(create)).await else {
            panic!("{kind:?}")
        };
        assert_eq!(client.stat(&path).await.unwrap(), stat);
        assert_eq!(stat.ephemeral_owner, 0);
        client.ask(delete(&path, -1)).await.unwrap();
    }
}

#[tokio::test]
async fn numbers_count_every_creation_below_a_parent() {
    let (_ensemble, mut client) = client().await;
    client.plant("/s").await;
    let sequential = create_flags::PERSISTENT_SEQUENTIAL;

    assert_eq!(client.create("/s/a-", "", sequential).await.unwrap(), "/s/a-0000000000");
    assert_eq!(client.create("/s/b-", "", sequential).await.unwrap(), "/s/b-0000000001");
    client.plant("/s/plain").await;
    client.ask(delete("/s/plain", -1)).await.unwrap();
    assert_eq!(client.create("/s/a-0000000000", "", 0).await, Err(ErrorCode::NODE_EXISTS));
    assert_eq!(client.create("/s/a-", "", sequential).await.unwrap(), "/s/a-0000000003");
    assert_eq!(client.create("/s/", "", sequential).await.unwrap(), "/s/0000000004");
}

#[tokio::test]
async fn modes_that_do_not_fit_their_operation_are_refused() {
    let (_ensemble, mut client) = client().await;
    let ttl = |flags, ttl_ms| {
        let mut create = creation(CreateKind::Ttl, "/t", "", flags);
        create.ttl_ms = ttl_ms;
        Request::Create(create)
    };
    let plain = |kind, flags| Request::Create(creation(kind, "/t", "", flags));

    for request in [
        plain(CreateKind::Create, 5),
        plain(CreateKind::Create, 6),
        plain(CreateKind::Create, 7),
        plain(CreateKind::Create, -1),
        plain(CreateKind::Create2, 5),
        plain(CreateKind::Create2, i32::MAX),
        plain(CreateKind::Container, 5),
        plain(CreateKind::Container, 9),
        ttl(5, 0),
        ttl(5, -1),
        ttl(5, 1 << 40),
        ttl(0, 1_000),
        // This one ends a ZooKeeper for good.
        ttl(0, -1),
        ttl(4, -1),
        ttl(7, 1_000),
    ] {
        assert_eq!(client.ask(request.clone()).await, Err(ErrorCode::BAD_ARGUMENTS), "{request:?}");
    }
    assert_eq!(client.stat("/t").await, Err(ErrorCode::NO_NODE));
    assert!(client.ask(ttl(5, (1 << 40) - 1)).await.is_ok());
}

#[tokio::test]
async fn errors_have_zookeepers_precedence() {
    let (_ensemble, mut client) = client().await;
    client.plant("/t").await;
    client.plant("/t/child").await;
    client.create("/e", "", create_flags::EPHEMERAL).await.unwrap();
    let with_acl = |path: &'static str, acl: Vec<Acl>, flags| {
        let mut create = creation(CreateKind::Create, path, "", flags);
        create.acl = acl;
        Request::Create(create)
    };

    for (request, error) in [
        (create("/no/..", "", 0), ErrorCode::NO_NODE),
        (create("/t/..", "", 0), ErrorCode::BAD_ARGUMENTS),
        (create("", "", 0), ErrorCode::BAD_ARGUMENTS),
        (create("t", "", 0), ErrorCode::BAD_ARGUMENTS),
        (create("/no/x", "", 9), ErrorCode::BAD_ARGUMENTS),
        (with_acl("/no/x", vec![], 0), ErrorCode::INVALID_ACL),
        (with_acl("/no/x", vec![], 9), ErrorCode::BAD_ARGUMENTS),
        (create("/", "", 0), ErrorCode::NODE_EXISTS),
        (create("/t", "", 0), ErrorCode::NODE_EXISTS),
        (create("/e/x", "", 0), ErrorCode::NO_CHILDREN_FOR_EPHEMERALS),
        (delete("/t", 7), ErrorCode::BAD_VERSION),
        (delete("/t", 0), ErrorCode::NOT_EMPTY),
        (delete("/no/x", 7), ErrorCode::NO_NODE),
        (delete("/", -1), ErrorCode::BAD_ARGUMENTS),
        (delete("/zookeeper", -1), ErrorCode::BAD_ARGUMENTS),
        (delete("/zookeeper/quota", -1), ErrorCode::BAD_ARGUMENTS),
        (delete("/zookeeper/config", -1), ErrorCode::BAD_ARGUMENTS),
        (set("/no", "", 7), ErrorCode::NO_NODE),
        (set("/t", "", 7), ErrorCode::BAD_VERSION),
        (set("/t/", "", -1), ErrorCode::BAD_ARGUMENTS),
        (set("/zookeeper/config", "", -1), ErrorCode::NO_AUTH),
        (set_acl("/t", vec![], 7), ErrorCode::INVALID_ACL),
        (set_acl("/no", open_acl(), 7), ErrorCode::NO_NODE),
        (set_acl("/t", open_acl(), 7), ErrorCode::BAD_VERSION),
        (exists("zz/", false), ErrorCode::NO_NODE),
        (exists("/a\0b", false), ErrorCode::BAD_ARGUMENTS),
        (get_data("/no", true), ErrorCode::NO_NODE),
        (Request::GetChildren2(get("//", false)), ErrorCode::NO_NODE),
        (Request::GetAcl { path: "/no".into() }, ErrorCode::NO_NODE),
        (Request::GetAllChildrenNumber { path: "/no".into() }, ErrorCode::NO_NODE),
    ] {
        assert_eq!(client.ask(request.clone()).await, Err(error), "{request:?}");
    }
}

#[tokio::test]
async fn paths_are_those_of_zookeeper() {
    let (_ensemble, mut client) = client().await;

    for path in ["/...", "/.a", "/a..b", "/a b", "/a:b=c", "/\u{20ac}", "/~", "/\u{f900}"] {
        assert_eq!(client.create(path, "", 0).await.as_deref(), Ok(path));
    }
    for path in ["/.", "/..", "/\u{1}", "/\u{1f}", "/\u{7f}", "/\u{9f}", "/\u{e000}", "/\u{fff0}", "/\u{10000}"] {
        assert_eq!(client.create(path, "", 0).await, Err(ErrorCode::BAD_ARGUMENTS), "{path:?}");
    }
}

#[tokio::test]
async fn text_that_is_none_is_refused_and_harms_nobody() {
    let (_ensemble, mut client) = client().await;
    // A character outside the basic plane, as the Java writer has it.
    for path in [&b"/\xed\xa0\xbd\xed\xb8\x80"[..], b"/\xff", b"/\xc3"] {
        let mut body = BytesMut::new();
        body.put_u32(path.len() as u32);
        body.put_slice(path);
        body.put_i32(0);
        body.put_slice(&bytes_of("000000010000001f00000005776f726c6400000006616e796f6e6500000000"));

        client.send_code(1, &body).await;

        assert_eq!(client.reply().await, Err(ErrorCode::BAD_ARGUMENTS));
    }
}

#[tokio::test]
async fn what_cannot_be_decoded_is_answered_in_its_place_and_the_connection_stays() {
    let (_ensemble, mut client) = client().await;
    let null_path = bytes_of("ffffffff00");
    let watch_of_no_kind = bytes_of("000000022f6100000006");
    let mode_of_no_watch = bytes_of("000000022f6100000002");
    let negative = bytes_of("fffffff000");
    let too_long = bytes_of("7fffffff2f61");
    let many_acls = bytes_of("000000022f6100000000 7fffffff".replace(' ', "").as_str());

    client.send(&create("/before", "", 0)).await;
    let mut wrong = 0;
    for (op, body) in [
        (OpCode::Exists, &null_path),
        (OpCode::GetData, &null_path),
        (OpCode::GetChildren, &null_path),
        (OpCode::Delete, &null_path),
        (OpCode::CheckWatches, &watch_of_no_kind),
        (OpCode::RemoveWatches, &watch_of_no_kind),
        (OpCode::AddWatch, &mode_of_no_watch),
        (OpCode::GetData, &negative),
        (OpCode::GetData, &too_long),
        (OpCode::Create, &many_acls),
        (OpCode::Create, &BytesMut::new()),
    ] {
        client.send_code(op.code(), body).await;
        wrong += 1;
    }
    client.send(&exists("/before", false)).await;

    assert!(client.reply().await.is_ok());
    for _ in 0..wrong {
        assert_eq!(client.reply().await, Err(ErrorCode::MARSHALLING_ERROR));
    }
    assert!(client.reply().await.is_ok());
}

#[tokio::test]
async fn what_follows_a_request_in_its_frame_is_ignored() {
    let (_ensemble, mut client) = client().await;

    client.send_code(OpCode::Exists.code(), &bytes_of("000000012f00ffffffffffffffff")).await;

    assert!(client.reply().await.is_ok());
}

#[tokio::test]
async fn operations_of_servers_and_unknown_ones_end_the_connection_in_their_turn() {
    let (ensemble, mut observer) = client().await;
    observer.plant("/kept").await;
    // The path of deleteContainer, as a server would send it to itself.
    let kept = bytes_of("000000052f6b657074");

    for code in [0, 10, 13, 20, 23, 108, 500, 999, -1, -10, i32::MIN] {
        let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
        let session = client.granted.session_id;
        client.send(&exists("/", false)).await;
        client.send_code(code, &kept).await;
        client.send(&create("/behind", "", 0)).await;

        assert!(client.reply().await.is_ok());
        let Some(Heard::Reply { zxid: -1, result: Err(ErrorCode::UNIMPLEMENTED), .. }) = client.hear().await else {
            panic!("{code}")
        };
        assert_eq!(client.raw.frame().await, None);

        // The session lives on.
        let again = Client::connect(&ensemble.zookeeper_endpoint(1), &client.resumption()).await.unwrap();
        assert_eq!(again.granted.session_id, session);
    }
    assert!(observer.stat("/kept").await.is_ok());
    assert_eq!(observer.stat("/behind").await, Err(ErrorCode::NO_NODE), "nothing behind it is done");
}

#[tokio::test]
async fn a_session_is_closed_with_its_ephemerals_and_then_the_connection() {
    let (ensemble, mut watcher) = client().await;
    let mut closer = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    closer.create("/e1", "", create_flags::EPHEMERAL).await.unwrap();
    closer.create("/e2", "", create_flags::EPHEMERAL).await.unwrap();
    watcher.ask(exists("/e1", true)).await.unwrap();

    closer.send_all(&[exists("/", false), Request::CloseSession, create("/late", "", 0)]).await;

    assert!(closer.reply().await.is_ok());
    assert_eq!(closer.reply().await, Ok(Response::Empty));
    assert_eq!(closer.raw.frame().await, None);
    assert_eq!(watcher.event().await, (quorate_wire::EventType::NodeDeleted, "/e1".into()));
    for path in ["/e1", "/e2", "/late"] {
        assert_eq!(watcher.stat(path).await, Err(ErrorCode::NO_NODE), "{path}");
    }
}

#[tokio::test]
async fn a_session_with_very_many_ephemerals_is_closed_like_any_other() {
    let (ensemble, mut other) = client().await;
    let mut owner = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    owner.plant("/p").await;
    // Their paths alone would fill more than a frame.
    let path = format!("/p/{}-", "n".repeat(100));
    let op =
        || quorate_wire::MultiOp::Create(creation(CreateKind::Create, &path, "", create_flags::EPHEMERAL_SEQUENTIAL));
    for _ in 0..10 {
        assert!(owner.ask(Request::Multi((0..1_500).map(|_| op()).collect())).await.is_ok());
    }

    assert_eq!(owner.ask(Request::CloseSession).await, Ok(Response::Empty));

    owner.ended().await;
    assert_eq!(other.stat("/p").await.unwrap().num_children, 0);
}

#[tokio::test]
async fn a_sync_echoes_its_path_whatever_it_is() {
    let (_ensemble, mut client) = client().await;

    for path in [Some("/"), Some("/no such node"), Some(""), None] {
        let echoed = client.ask(Request::Sync { path: path.map(Into::into) }).await;
        assert_eq!(echoed, Ok(Response::Path(path.map(Into::into))));
    }
}

#[tokio::test]
async fn ephemerals_are_listed_by_the_beginning_of_their_paths() {
    let (ensemble, mut client) = client().await;
    let mut other = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    other.create("/e3", "", create_flags::EPHEMERAL).await.unwrap();
    for path in ["/e1", "/e2", "/f"] {
        client.create(path, "", create_flags::EPHEMERAL).await.unwrap();
    }

    for (prefix, expected) in [
        (Some("/e"), &["/e1", "/e2"][..]),
        (Some("/e1"), &["/e1"]),
        (Some("/"), &["/e1", "/e2", "/f"]),
        (Some(" "), &["/e1", "/e2", "/f"]),
        (Some(""), &["/e1", "/e2", "/f"]),
        (None, &["/e1", "/e2", "/f"]),
        (Some("/x"), &[]),
    ] {
        let asked = client.ask(Request::GetEphemerals { prefix: prefix.map(Into::into) }).await;
        let Ok(Response::Names(mut names)) = asked else { panic!() };
        names.sort();
        assert_eq!(names, expected, "{prefix:?}");
    }
}

#[tokio::test]
async fn descendants_are_counted_without_the_node_itself() {
    let (_ensemble, mut client) = client().await;
    for path in ["/a", "/a/b", "/a/b/c", "/a/d"] {
        client.plant(path).await;
    }

    for (path, expected) in [("/a", 3), ("/a/b", 1), ("/a/d", 0), ("/", 7)] {
        assert_eq!(
            client.ask(Request::GetAllChildrenNumber { path: path.into() }).await,
            Ok(Response::Count(expected))
        );
    }
}

#[tokio::test]
async fn what_a_server_without_it_says_of_reconfiguration_and_sasl() {
    let (_ensemble, mut client) = client().await;
    let reconfig = Reconfig { joining: None, leaving: Some("2".into()), new_members: None, current_config_id: -1 };

    assert_eq!(client.ask(Request::Reconfig(reconfig)).await, Err(ErrorCode::RECONFIG_DISABLED));
    client.send(&Request::Sasl { token: Some(Bytes::from_static(b"hello")) }).await;
    let Some(Heard::Reply { zxid: 0, result: Ok(Response::Token(None)), .. }) = client.hear().await else { panic!() };
}

#[tokio::test]
async fn the_error_of_a_watch_that_is_none_is_told() {
    let (_ensemble, mut client) = client().await;
    client.ask(Request::AddWatch { path: "/w".into(), mode: AddWatchMode::Recursive }).await.unwrap();

    for watcher in [WatcherType::Children, WatcherType::Data, WatcherType::Persistent] {
        for request in [
            Request::CheckWatches { path: "/w".into(), watcher },
            Request::RemoveWatches { path: "/w".into(), watcher },
        ] {
            assert_eq!(client.ask(request.clone()).await, Err(ErrorCode::NO_WATCHER), "{request:?}");
        }
    }
}

#[tokio::test]
async fn ten_thousand_mixed_requests_are_answered_in_their_order() {
    let (_ensemble, mut client) = client().await;
    client.plant("/n").await;
    let mut expected = Vec::new();
    let mut requests = Vec::new();
    for round in 0..2_000 {
        requests.push(set("/n", "x", round));
        requests.push(get_data("/n", false));
        requests.push(exists("/no", false));
        requests.push(Request::Sync { path: Some("/n".into()) });
        requests.push(Request::WhoAmI);
        expected.push(round + 1);
    }

    let (mut read, mut write) = (Vec::new(), BytesMut::new());
    for (xid, request) in (1..).zip(&requests) {
        request.encode(xid, &mut write);
    }
    let (mut from, mut to) = client.raw.stream.split();
    let sent = async {
        tokio::io::AsyncWriteExt::write_all(&mut to, &write).await.unwrap();
    };
    let heard = async {
        let mut inbox = BytesMut::new();
        while read.len() < requests.len() {
            tokio::io::AsyncReadExt::read_buf(&mut from, &mut inbox).await.unwrap();
            while let Some(frame) = quorate_wire::split_frame(&mut inbox, 1 << 20).unwrap() {
                read.push(frame);
            }
        }
    };
    tokio::join!(sent, heard);

    let mut last_zxid = 0;
    for (nth, (frame, request)) in read.iter().zip(&requests).enumerate() {
        assert_eq!(frame[..4], (nth as i32 + 1).to_be_bytes());
        let zxid = i64::from_be_bytes(frame[4..12].try_into().unwrap());
        assert!(zxid >= last_zxid);
        last_zxid = zxid;
        if request.op() == OpCode::GetData {
            // Exactly the write in front of it: data of one byte, then the stat.
            let version = i32::from_be_bytes(frame[16 + 5 + 32..][..4].try_into().unwrap());
            assert_eq!(version, expected[nth / 5]);
        }
    }
}

#[tokio::test]
async fn a_ping_is_answered_while_writes_wait() {
    let (_ensemble, mut client) = client().await;
    client.send_all(&[create("/a", "", 0), Request::Ping, create("/b", "", 0), Request::Ping]).await;

    let (mut pings, mut replies) = (0, 0);
    while pings < 2 || replies < 2 {
        match client.hear().await.unwrap() {
            Heard::Reply { xid: quorate_wire::XID_PING, result, .. } => {
                assert_eq!(result, Ok(Response::Empty));
                pings += 1;
            }
            Heard::Reply { result, .. } => {
                assert!(result.is_ok());
                replies += 1;
            }
            event @ Heard::Event { .. } => panic!("{event:?}"),
        }
    }
}

fn set_acl(path: &str, acl: Vec<Acl>, version: i32) -> Request<'_> {
    Request::SetAcl(SetAcl { path: path.into(), acl, version })
}

fn bytes_of(hex: &str) -> BytesMut {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
