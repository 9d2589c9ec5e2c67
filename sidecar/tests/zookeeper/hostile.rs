//! Clients that mean no good, or that are broken. They cost nobody else anything.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use quorate_sidecar::testing::TestEnsemble;
use quorate_wire::{
    Acl, ConnectRequest, CreateKind, ErrorCode, MultiOp, MultiRead, OpCode, Request, Response, create_flags,
};
use tokio::time::timeout;

use crate::client::{
    Client, Heard, PATIENCE, Raw, auth, connect_frame, create, creation, eventually, exists, get, get_data, member,
    new_session, open_acl, set,
};

#[tokio::test]
async fn lengths_that_no_frame_has_close_the_connection_without_a_word() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    for length in [-1, i32::MIN, 0x10_0000, i32::MAX] {
        // Before the handshake and after it.
        let mut raw = Raw::connect(&address).await;
        raw.send(&length.to_be_bytes()).await;
        assert_eq!(raw.rest().await, b"", "{length}");

        let mut client = Client::open(&address).await;
        client.raw.send(&length.to_be_bytes()).await;
        assert_eq!(client.raw.rest().await, b"", "{length}");
    }
}

#[tokio::test]
async fn what_came_before_garbage_is_answered() {
    let ensemble = member().await;
    for garbage in [&[0, 0, 0, 4, 0, 0, 0, 1][..], &[0, 0, 0, 0], &[0x7f, 0xff, 0xff, 0xff]] {
        let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
        let mut out = BytesMut::new();
        create("/n-", "", create_flags::EPHEMERAL_SEQUENTIAL).encode(1, &mut out);
        out.put_slice(garbage);

        client.raw.send(&out).await;

        let answer = client.raw.frame().await.unwrap();
        assert_eq!(answer[..4], [0, 0, 0, 1]);
        assert_eq!(client.raw.frame().await, None);
    }
}

#[tokio::test]
async fn the_largest_frame_passes_and_a_larger_one_does_not() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let data: &'static str = Box::leak("x".repeat(1_020_000).into_boxed_str());
    client.create("/large", data, 0).await.unwrap();
    let Ok(quorate_wire::Response::Data { data: got, .. }) = client.ask(get_data("/large", false)).await else {
        panic!()
    };
    assert_eq!(got.unwrap().len(), data.len());

    let data: &'static str = Box::leak("x".repeat(1_048_600).into_boxed_str());
    let mut frame = BytesMut::new();
    create("/larger", data, 0).encode(9, &mut frame);
    // It may be closed before all of it is sent.
    let _ = tokio::io::AsyncWriteExt::write_all(&mut client.raw.stream, &frame).await;

    assert_eq!(client.raw.rest().await, b"");
}

#[tokio::test]
async fn every_request_cut_short_is_refused_or_answered_and_nothing_breaks() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let mut ttl = creation(CreateKind::Ttl, "/t", "data", create_flags::PERSISTENT_WITH_TTL);
    ttl.ttl_ms = 1_000_000;
    let bodies: Vec<BytesMut> = [
        Request::Create(creation(CreateKind::Create, "/c", "data", 0)),
        Request::Create(ttl),
        Request::SetAcl(quorate_wire::SetAcl { path: "/c".into(), acl: crate::client::open_acl(), version: -1 }),
        crate::client::set("/c", "data", -1),
        crate::client::delete("/c", -1),
    ]
    .iter()
    .map(|request| {
        let mut frame = BytesMut::new();
        request.encode(1, &mut frame);
        frame.split_off(12)
    })
    .collect();

    for op in OpCode::ALL {
        if matches!(op, OpCode::Ping | OpCode::CloseSession | OpCode::Auth) {
            continue;
        }
        for body in &bodies {
            let mut sent = 0;
            for length in 0..body.len() {
                client.send_code(op.code(), &body[..length]).await;
                // And with a length in it that is larger than the rest.
                let mut wild = body[..length].to_vec();
                wild.extend_from_slice(&[0x7f, 0xff, 0xff, 0xf0, 1, 2, 3]);
                client.send_code(op.code(), &wild).await;
                sent += 2;
            }
            for _ in 0..sent {
                // Answered in order, whatever the answer is; not all of them can be decoded as one of this operation.
                client.raw.frame().await.expect("the connection stays");
            }
        }
    }
    let mut other = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    assert!(other.stat("/").await.is_ok());
}

#[tokio::test]
async fn random_bytes_after_the_handshake_end_at_most_their_own_connection() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..100 {
        let mut client = Client::open(&address).await;
        let mut out = BytesMut::new();
        for _ in 0..20 {
            let length = (random() % 64) as u32;
            out.put_u32(length + 8);
            out.put_u32(1);
            let op = OpCode::ALL[(random() % OpCode::ALL.len() as u64) as usize];
            out.put_i32(if random().is_multiple_of(8) { random() as i32 } else { op.code() });
            for _ in 0..length {
                out.put_u8(if random().is_multiple_of(2) { 0 } else { random() as u8 });
            }
        }
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.raw.stream, &out).await;
        tokio::io::AsyncWriteExt::shutdown(&mut client.raw.stream).await.unwrap();
        client.raw.rest().await;
    }

    let mut other = Client::open(&address).await;
    assert!(other.stat("/").await.is_ok());
}

#[tokio::test]
async fn half_a_frame_does_not_hold_up_others() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut halves = Vec::new();
    for _ in 0..50 {
        let mut client = Client::open(&address).await;
        // A megabyte is announced.
        client.raw.send(&[0, 0x0f, 0xff, 0xf0, 0, 0]).await;
        halves.push(client);
        let mut raw = Raw::connect(&address).await;
        raw.send(&connect_frame(&new_session())[..20]).await;
    }

    let mut other = Client::open(&address).await;
    assert!(other.stat("/").await.is_ok());
}

#[tokio::test]
async fn frames_that_never_end_take_no_more_memory_than_they_may_together() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut other = Client::open(&address).await;
    let mut half = BytesMut::new();
    half.put_i32(1_048_575);
    half.put_bytes(b'x', 1_000_000);
    let mut clients = Vec::new();
    for _ in 0..290 {
        let mut client = Client::open(&address).await;
        // It may be closed meanwhile.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.raw.stream, &half).await;
        clients.push(client);
    }

    assert_eq!(clients.pop().unwrap().raw.rest().await, b"", "the last ones are let go");
    assert!(other.ask(create("/a", "", 0)).await.is_ok());
    clients.clear();
    let data: &'static str = Box::leak("x".repeat(1_000_000).into_boxed_str());
    eventually("memory that is free again", async || {
        let mut client = Client::open(&address).await;
        client.send(&set("/a", data, -1)).await;
        matches!(client.hear().await, Some(Heard::Reply { result: Ok(_), .. }))
    })
    .await;
}

#[tokio::test]
async fn who_says_nothing_is_let_go_after_ten_seconds() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let begun = tokio::time::Instant::now();
    let mut silent = Raw::connect(&address).await;
    let mut half = Raw::connect(&address).await;
    half.send(&[0, 0, 0, 45, 0]).await;

    assert_eq!((silent.frame().await, half.stream.readable().await.is_ok()), (None, true));

    assert!(begun.elapsed() >= Duration::from_millis(9_900), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_not_read_and_costs_nobody_else_anything() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut writer = Client::open(&address).await;
    let data: &'static str = Box::leak("x".repeat(500_000).into_boxed_str());
    writer.create("/large", data, 0).await.unwrap();
    let request = ConnectRequest { timeout_ms: 4_000, ..new_session() };
    let mut stuck = Client::connect(&address, &request).await.unwrap();
    let mut requests = BytesMut::new();
    for xid in 1..=100_000 {
        get_data("/large", false).encode(xid, &mut requests);
    }

    // Fifty gigabytes of answers: no buffer takes that.
    let _ = timeout(Duration::from_millis(500), async {
        tokio::io::AsyncWriteExt::write_all(&mut stuck.raw.stream, &requests).await
    })
    .await;

    for _ in 0..100 {
        assert!(writer.stat("/large").await.is_ok());
    }
    eventually("the end of the connection", async || {
        let mut raw = Raw::connect(&address).await;
        raw.send(b"srvr").await;
        String::from_utf8(raw.rest().await).unwrap().contains("\nConnections: 2\n")
    })
    .await;
    assert!(stuck.raw.rest().await.len() < 100_000_000);
    assert!(writer.stat("/large").await.is_ok());
}

#[tokio::test]
async fn asking_again_and_again_for_too_much_costs_nobody_else_anything() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let (mut greedy, mut other) = (Client::open(&address).await, Client::open(&address).await);
    greedy.plant("/wide").await;
    let names: Vec<String> = (0..150).map(|n| format!("/wide/{n:060000}")).collect();
    for name in &names {
        greedy.plant(name).await;
    }
    let children = || get("/wide", false);
    // A frame full of them: minutes of work, if each was looked at.
    let many = (0..50_000).map(|_| MultiRead::GetChildren(children())).collect();
    greedy.send(&Request::MultiRead(many)).await;
    greedy.send_all(&vec![Request::GetChildren(children()); 10_000]).await;

    for _ in 0..20 {
        assert!(other.ask(set("/wide", "x", -1)).await.is_ok());
    }
    for _ in 0..10_001 {
        assert_eq!(greedy.reply().await, Err(ErrorCode::MARSHALLING_ERROR));
    }
}

#[tokio::test]
async fn long_lists_and_many_credentials_cost_nobody_else_anything() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let (mut greedy, mut other) = (Client::open(&address).await, Client::open(&address).await);
    let entry =
        |n: usize| Acl { permissions: 31, scheme: "digest".into(), id: Some(format!("u{n:03}:{}", "A".repeat(28))) };
    for n in 0..100 {
        greedy.ask(auth("digest", Box::leak(format!("u{n:03}:p").into_boxed_str()))).await.unwrap();
    }
    let mut guarded = creation(CreateKind::Create, "/guarded", "", 0);
    guarded.acl = (0..1023).map(entry).chain(open_acl()).collect();
    greedy.ask(Request::Create(guarded)).await.unwrap();
    let check = || MultiOp::Check { path: "/guarded".into(), version: -1 };
    let mut often = creation(CreateKind::Create, "/often", "", 0);
    often.acl = vec![Acl { permissions: 31, scheme: "auth".into(), id: None }; 40_000];

    // Minutes of work, if each was compared with each.
    greedy.send(&Request::Multi((0..16_384).map(|_| check()).collect())).await;
    greedy.send(&Request::Create(often)).await;

    assert!(other.ask(create("/other", "", 0)).await.is_ok());
    assert!(matches!(greedy.reply().await, Ok(Response::Multi(results)) if results.len() == 16_384));
    assert!(greedy.reply().await.is_ok());
}

#[tokio::test]
async fn watched_paths_take_no_more_memory_than_they_may() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let long = "x".repeat(1_000_000);
    let mut refused = 0;
    for n in 0..70 {
        let path = format!("/{n}{long}");
        match client.ask(exists(&path, true)).await {
            Err(ErrorCode::NO_NODE) => assert_eq!(refused, 0),
            Err(ErrorCode::THROTTLED_OP) => refused += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused > 0);
    assert_eq!(client.ask(exists("/short", false)).await, Err(ErrorCode::NO_NODE));
}

#[tokio::test]
async fn a_slow_reader_gets_everything_in_order() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let data: &'static str = Box::leak("x".repeat(200_000).into_boxed_str());
    client.create("/large", data, 0).await.unwrap();
    let requests: Vec<_> = (0..400).map(|_| get_data("/large", false)).collect();

    let first = client.send_all(&requests).await[0];
    for nth in 0..400 {
        let Some(Heard::Reply { xid, result, .. }) = client.hear().await else { panic!() };
        assert!(xid == first + nth && result.is_ok());
    }
}

#[tokio::test]
async fn an_address_has_no_more_connections_than_it_may() {
    let builder = TestEnsemble::builder().members(1).tick(Duration::from_secs(2));
    let ensemble = builder.settings(|config| config.connections_per_address = 3).start().await.unwrap();
    let address = ensemble.zookeeper_endpoint(1);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(Client::open(&address).await);
    }

    let mut over = Raw::connect(&address).await;
    assert_eq!(over.rest().await, b"");

    let mut last = clients.pop().unwrap();
    last.ask(Request::CloseSession).await.unwrap();
    last.ended().await;
    drop(last);
    let again = timeout(PATIENCE, async {
        loop {
            // The place is free once the server has seen the end of the connection.
            let mut raw = Raw::connect(&address).await;
            let sent = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &connect_frame(&new_session())).await;
            if sent.is_ok() && raw.frame().await.is_some() {
                return;
            }
        }
    });
    again.await.unwrap();
    assert!(clients[0].ask(exists("/", false)).await.is_ok());
    assert_eq!(clients[0].ask(exists("/no", false)).await, Err(ErrorCode::NO_NODE));
}
