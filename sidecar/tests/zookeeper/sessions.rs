//! Sessions that outlive connections and members.

use std::time::Duration;

use quorate_sidecar::testing::TestEnsemble;
use quorate_wire::{AddWatchMode, ConnectRequest, ErrorCode, EventType, Request, Response, SetWatches, create_flags};

use crate::client::{Client, PATIENCE, ensemble, eventually, exists, get_data, member, new_session, set};

#[tokio::test]
async fn a_session_that_is_silent_expires_with_its_ephemerals() {
    let ensemble = TestEnsemble::builder().members(1).tick(Duration::from_millis(100)).start().await.unwrap();
    let address = ensemble.zookeeper_endpoint(1);
    let request = ConnectRequest { timeout_ms: 200, ..new_session() };
    let mut silent = Client::connect(&address, &request).await.unwrap();
    silent.create("/e", "", create_flags::EPHEMERAL).await.unwrap();

    silent.ended().await;

    eventually("the end of the session", async || {
        let mut other = Client::open(&address).await;
        other.stat("/e").await == Err(ErrorCode::NO_NODE)
    })
    .await;
    let dead = Client::connect(&address, &silent.resumption()).await.unwrap();
    assert_eq!((dead.granted.timeout_ms, dead.granted.session_id), (0, 0));
}

#[tokio::test]
async fn requests_alone_keep_a_session_alive() {
    let ensemble = TestEnsemble::builder().members(1).tick(Duration::from_secs(1)).start().await.unwrap();
    let address = ensemble.zookeeper_endpoint(1);
    let request = ConnectRequest { timeout_ms: 2_000, ..new_session() };
    let mut client = Client::connect(&address, &request).await.unwrap();
    client.create("/e", "", create_flags::EPHEMERAL).await.unwrap();

    let until = tokio::time::Instant::now() + Duration::from_millis(5_000);
    while tokio::time::Instant::now() < until {
        client.ask(exists("/e", false)).await.unwrap();
        tokio::task::yield_now().await;
    }

    assert!(client.stat("/e").await.is_ok());
}

#[tokio::test]
async fn a_session_moves_between_members_with_its_ephemerals_and_its_watches() {
    let ensemble = ensemble(3).await;
    let mut old = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let mut other = Client::open(&ensemble.zookeeper_endpoint(3)).await;
    old.create("/e", "", create_flags::EPHEMERAL).await.unwrap();
    old.plant("/w").await;
    old.ask(get_data("/w", true)).await.unwrap();

    let mut new = Client::connect(&ensemble.zookeeper_endpoint(2), &old.resumption()).await.unwrap();
    let watches = SetWatches { relative_zxid: old.zxid, data: vec!["/w".into()], ..SetWatches::default() };
    new.ask(Request::SetWatches(watches)).await.unwrap();

    assert_eq!(new.granted.session_id, old.granted.session_id);
    assert_eq!(new.stat("/e").await.unwrap().ephemeral_owner, new.granted.session_id);
    assert_eq!(new.told(), []);
    other.ask(Request::Sync { path: None }).await.unwrap();
    other.ask(set("/w", "x", -1)).await.unwrap();
    assert_eq!(new.event().await, (EventType::NodeDataChanged, "/w".into()));
    old.ended().await;
}

#[tokio::test]
async fn a_write_through_the_member_a_session_left_is_neither_done_nor_answered() {
    let ensemble = ensemble(3).await;
    let mut old = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let mut new = Client::connect(&ensemble.zookeeper_endpoint(2), &old.resumption()).await.unwrap();
    new.create("/new", "", create_flags::EPHEMERAL).await.unwrap();

    // The connection may be closed already; then this is not even heard.
    let mut frame = bytes::BytesMut::new();
    crate::client::create("/old", "", 0).encode(1, &mut frame);
    let _ = tokio::io::AsyncWriteExt::write_all(&mut old.raw.stream, &frame).await;
    assert_eq!(old.raw.rest().await, b"");

    new.ask(Request::Sync { path: None }).await.unwrap();
    assert_eq!(new.stat("/old").await, Err(ErrorCode::NO_NODE));
}

#[tokio::test]
async fn a_killed_member_is_survived_and_what_was_missed_is_told() {
    let mut ensemble = ensemble(3).await;
    let leader = ensemble.leader().await.unwrap();
    let follower = (1..=3).find(|member| *member != leader).unwrap();
    let mut writer = Client::open(&ensemble.zookeeper_endpoint(follower)).await;

    let mut watcher = Client::open(&ensemble.zookeeper_endpoint(leader)).await;
    watcher.create("/e", "", create_flags::EPHEMERAL).await.unwrap();
    watcher.plant("/w").await;
    watcher.ask(get_data("/w", true)).await.unwrap();
    watcher.ask(Request::AddWatch { path: "/r".into(), mode: AddWatchMode::Recursive }).await.unwrap();
    let acknowledged = watcher.zxid;
    ensemble.kill(leader);
    watcher.ended().await;
    // Waits for the next leader.
    writer.ask(set("/w", "missed", -1)).await.unwrap();

    let last = (1..=3).find(|member| *member != leader && *member != follower).unwrap();
    let mut watcher = reconnect(&ensemble.zookeeper_endpoint(last), &watcher.resumption()).await;
    watcher
        .ask(Request::SetWatches2(SetWatches {
            relative_zxid: acknowledged,
            data: vec!["/w".into()],
            exist: vec!["/x".into()],
            recursive: vec!["/r".into()],
            ..SetWatches::default()
        }))
        .await
        .unwrap();
    assert_eq!(watcher.told(), [(EventType::NodeDataChanged, "/w".into())]);
    assert_eq!(watcher.stat("/e").await.unwrap().ephemeral_owner, watcher.granted.session_id);

    writer.plant("/x").await;
    writer.plant("/r").await;
    assert_eq!(watcher.event().await, (EventType::NodeCreated, "/x".into()));
    assert_eq!(watcher.event().await, (EventType::NodeCreated, "/r".into()));
}

#[tokio::test]
async fn acknowledged_writes_outlive_the_restart_of_everybody() {
    let mut ensemble = ensemble(3).await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    client.create("/e", "kept", create_flags::EPHEMERAL).await.unwrap();
    for member in 1..=3 {
        ensemble.kill(member);
    }
    for member in 1..=3 {
        ensemble.restart(member).await.unwrap();
    }
    ensemble.ready().await.unwrap();

    let mut client = reconnect(&ensemble.zookeeper_endpoint(2), &client.resumption()).await;

    let Ok(Response::Data { data, stat }) = client.ask(get_data("/e", false)).await else { panic!() };
    assert_eq!((data.as_deref(), stat.ephemeral_owner), (Some(&b"kept"[..]), client.granted.session_id));
}

#[tokio::test]
async fn a_member_that_ends_in_order_says_nothing_wrong_and_leaves_its_sessions() {
    let mut ensemble = ensemble(3).await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    client.create("/e", "", create_flags::EPHEMERAL).await.unwrap();

    let stopped = tokio::time::timeout(Duration::from_secs(9), ensemble.stop(1));
    stopped.await.expect("clients do not hold up the end").unwrap();

    client.ended().await;
    let mut client = reconnect(&ensemble.zookeeper_endpoint(2), &client.resumption()).await;
    assert!(client.stat("/e").await.is_ok());
}

/// As a client does that is closed without a word: once more.
async fn reconnect(address: &str, request: &ConnectRequest) -> Client {
    let connected = async {
        let mut poll = tokio::time::interval(Duration::from_millis(10));
        loop {
            if let Some(client) = Client::connect(address, request).await {
                return client;
            }
            poll.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.expect("the session is served again")
}

#[tokio::test]
async fn writes_and_reads_of_both_doors_meet() {
    let ensemble = member().await;
    let mut zookeeper = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let native = quorate::Client::builder(ensemble.endpoint(1)).connect().await.unwrap();
    zookeeper.create("/z", "from zookeeper", 0).await.unwrap();
    zookeeper.ask(exists("/n", true)).await.unwrap_err();

    let node = native.get("/z").await.unwrap();
    native.create("/n").data("from the sdk").await.unwrap();

    assert_eq!(&node.data[..], b"from zookeeper");
    assert_eq!(zookeeper.event().await, (EventType::NodeCreated, "/n".into()));
}

#[tokio::test]
async fn sessions_that_come_too_fast_are_turned_away_and_come_back() {
    let few = |config: &mut quorate_sidecar::Config| {
        (config.sessions_per_second, config.sessions_burst) = (2, Some(3));
    };
    let ensemble = TestEnsemble::builder().members(1).settings(few).start().await.unwrap();
    let address = ensemble.zookeeper_endpoint(1);
    let mut first = Client::open(&address).await;

    let request = new_session();
    let all = futures_util::future::join_all((0..60).map(|_| Client::connect(&address, &request))).await;

    // More than these come in a second, on any machine that can connect at all.
    let (granted, refused) = (all.iter().flatten().count(), all.iter().filter(|client| client.is_none()).count());
    assert!(granted >= 2 && refused >= 1, "{granted} were let in, {refused} not");
    assert!(all.iter().flatten().all(|client| client.granted.session_id != 0), "nobody is told that it has expired");
    // Who is there is not concerned.
    assert!(first.stat("/").await.is_ok());
    drop(first);
    eventually("a session that was turned away is let in", async || {
        Client::connect(&address, &request).await.is_some()
    })
    .await;
}
