//! A member that has lost the majority: what it still does, for whom, and for how long.

use quorate_wire::{ConnectRequest, ConnectResponse, ErrorCode, MultiOp, Request, Response, create_flags};

use crate::client::{
    Client, Raw, auth, connect_frame, create, delete, ensemble, eventually, exists, get_data, new_session, set,
};

async fn word(address: &str, word: &str) -> String {
    let mut raw = Raw::connect(address).await;
    raw.send(word.as_bytes()).await;
    String::from_utf8(raw.rest().await).unwrap()
}

fn reader() -> ConnectRequest {
    ConnectRequest { read_only: Some(true), ..new_session() }
}

#[tokio::test]
async fn without_a_majority_a_member_serves_who_only_reads_until_it_is_back() {
    let mut ensemble = ensemble(3).await;
    let mut writer = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    writer.create("/a", "kept", create_flags::PERSISTENT).await.unwrap();
    let healthy = Client::connect(&ensemble.zookeeper_endpoint(2), &reader()).await.unwrap();
    assert_eq!(healthy.granted.read_only, Some(false), "with a majority it is a session like any other");
    ensemble.agreed().await.unwrap();
    let address = ensemble.zookeeper_endpoint(3);
    ensemble.kill(1);
    ensemble.kill(2);

    // What it says of itself on the way is never anything else.
    let silent = "This ZooKeeper instance is not currently serving requests\n";
    eventually("a member that only reads", async || {
        let srvr = word(&address, "srvr").await;
        assert!(srvr == silent || srvr.contains("\nMode: "), "{srvr}");
        let isro = word(&address, "isro").await;
        assert!(["rw", "null", "ro"].contains(&&*isro), "{isro}");
        assert_eq!(word(&address, "ruok").await, "imok");
        isro == "ro"
    })
    .await;
    let srvr = word(&address, "srvr").await;
    assert_eq!(srvr.lines().nth(1), Some("READ-ONLY mode; serving only read-only clients"), "{srvr}");
    assert!(srvr.contains("\nMode: read-only\n"), "{srvr}");

    // Who wants more, and whose session is the ensemble's, is closed without a word.
    for request in [
        new_session(),
        ConnectRequest { read_only: None, ..new_session() },
        ConnectRequest { read_only: Some(true), ..writer.resumption() },
        ConnectRequest { last_zxid_seen: 1 << 40, ..reader() },
    ] {
        assert!(Client::connect(&address, &request).await.is_none(), "{request:?}");
    }

    let mut raw = Raw::connect(&address).await;
    raw.send(&connect_frame(&reader())).await;
    let answer = raw.frame().await.unwrap();
    assert_eq!(answer.len(), 37);
    let granted = ConnectResponse::decode(&answer).unwrap();
    assert!(granted.read_only == Some(true) && granted.session_id != 0 && granted.timeout_ms == 30_000);

    let mut client = Client::connect(&address, &reader()).await.unwrap();
    let Ok(Response::Data { data, .. }) = client.ask(get_data("/a", true)).await else { panic!() };
    assert_eq!(data.as_deref(), Some(&b"kept"[..]));
    assert_eq!(client.ask(exists("/b", true)).await, Err(ErrorCode::NO_NODE));
    assert!(client.ask(auth("digest", "u:p")).await.is_ok());
    for request in [
        create("/b", "", 0),
        delete("/a", -1),
        set("/a", "", -1),
        Request::Sync { path: Some("/".into()) },
        Request::Multi(vec![MultiOp::Check { path: "/a".into(), version: -1 }]),
        Request::Multi(vec![]),
    ] {
        assert_eq!(client.ask(request.clone()).await, Err(ErrorCode::NOT_READ_ONLY), "{request:?}");
    }
    assert_eq!(client.ask(Request::Ping).await, Ok(Response::Empty));

    let mut closing = Client::connect(&address, &reader()).await.unwrap();
    assert_eq!(closing.ask(Request::CloseSession).await, Ok(Response::Empty));
    closing.ended().await;

    ensemble.restart(1).await.unwrap();
    ensemble.ready().await.unwrap();

    client.ended().await;
    eventually("a member that serves", async || word(&address, "isro").await == "rw").await;
    // Nobody but this member knew the session.
    let gone = Client::connect(&address, &client.resumption()).await.unwrap();
    assert_eq!((gone.granted.timeout_ms, gone.granted.session_id), (0, 0));
    let mut writer = Client::connect(&address, &writer.resumption()).await.unwrap();
    assert!(writer.ask(set("/a", "changed", -1)).await.is_ok());
}
