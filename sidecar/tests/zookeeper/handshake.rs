//! The first frame of each side.

use bytes::{BufMut as _, Bytes, BytesMut};
use quorate_wire::{ConnectRequest, ConnectResponse, ErrorCode, Request, Response, SetWatches, create_flags};

use crate::client::{Client, Raw, auth, connect_frame, create, exists, get_data, member, new_session};

#[tokio::test]
async fn a_handshake_is_answered_in_the_length_in_which_it_was_asked() {
    let ensemble = member().await;
    for (read_only, bytes) in [(Some(false), 37), (Some(true), 37), (None, 36)] {
        let mut raw = Raw::connect(&ensemble.zookeeper_endpoint(1)).await;
        raw.send(&connect_frame(&ConnectRequest { read_only, ..new_session() })).await;

        let answer = raw.frame().await.unwrap();

        assert_eq!(answer.len(), bytes);
        assert_eq!(answer[..4], [0; 4], "the version of the protocol");
        let granted = ConnectResponse::decode(&answer).unwrap();
        assert_eq!(granted.read_only, read_only.map(|_| false));
        assert_ne!(granted.password, [0; 16]);
        assert!(granted.session_id != 0 && (granted.session_id >> 56) as u8 != 0xff);
    }
}

#[tokio::test]
async fn null_and_empty_passwords_open_sessions_with_16_bytes() {
    let ensemble = member().await;
    for length in [-1, 0] {
        let mut content = BytesMut::new();
        content.put_i32(7);
        content.put_i64(0);
        content.put_i32(10_000);
        content.put_i64(0);
        content.put_i32(length);
        content.put_u8(0);
        let mut frame = BytesMut::new();
        frame.put_u32(content.len() as u32);
        frame.put_slice(&content);
        let mut raw = Raw::connect(&ensemble.zookeeper_endpoint(1)).await;
        raw.send(&frame).await;

        let answer = raw.frame().await.unwrap();

        assert_eq!(answer.len(), 37);
        assert_eq!(ConnectResponse::decode(&answer).unwrap().timeout_ms, 10_000);
    }
}

#[tokio::test]
async fn frames_behind_the_handshake_are_answered_behind_it() {
    let ensemble = member().await;
    let mut raw = Raw::connect(&ensemble.zookeeper_endpoint(1)).await;
    let mut out = connect_frame(&new_session());
    auth("digest", "u:p").encode(-4, &mut out);
    Request::SetWatches(SetWatches::default()).encode(-8, &mut out);
    create("/a", "x", create_flags::PERSISTENT).encode(1, &mut out);
    get_data("/a", false).encode(2, &mut out);

    raw.send(&out).await;

    assert_eq!(raw.frame().await.unwrap().len(), 37);
    for xid in [-4, -8, 1, 2] {
        let reply = raw.frame().await.unwrap();
        assert_eq!(reply[..4], i32::to_be_bytes(xid));
        assert_eq!(reply[12..16], [0; 4]);
    }
}

#[tokio::test]
async fn timeouts_are_clamped_at_both_ends() {
    let ensemble = member().await;
    for (asked, granted) in [(1, 4_000), (i32::MIN, 4_000), (12_345, 12_345), (100_000_000, 40_000)] {
        let request = ConnectRequest { timeout_ms: asked, ..new_session() };

        let client = Client::connect(&ensemble.zookeeper_endpoint(1), &request).await.unwrap();

        assert_eq!(client.granted.timeout_ms, granted);
    }
}

#[tokio::test]
async fn who_has_seen_a_later_change_is_closed_without_a_word() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let client = Client::open(&address).await;
    let ahead = 1 << 40;

    for request in [
        ConnectRequest { last_zxid_seen: ahead, ..new_session() },
        ConnectRequest { last_zxid_seen: ahead, ..client.resumption() },
    ] {
        assert!(Client::connect(&address, &request).await.is_none());
    }
}

#[tokio::test]
async fn sessions_that_are_none_are_answered_by_zeros_and_closed() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut closed = Client::open(&address).await;
    let unknown = ConnectRequest { session_id: 0x0100_1234, ..new_session() };
    closed.ask(Request::CloseSession).await.unwrap();

    for (request, bytes) in [
        (unknown.clone(), 37),
        (ConnectRequest { read_only: None, ..unknown }, 36),
        (closed.resumption(), 37),
        (ConnectRequest { session_id: -1, ..closed.resumption() }, 37),
    ] {
        let mut raw = Raw::connect(&address).await;
        raw.send(&connect_frame(&request)).await;

        let answer = raw.frame().await.unwrap();

        assert_eq!(answer.len(), bytes);
        let answer = ConnectResponse::decode(&answer).unwrap();
        assert_eq!((answer.timeout_ms, answer.session_id, answer.password), (0, 0, [0; 16]));
        assert_eq!(raw.frame().await, None);
    }
}

#[tokio::test]
async fn a_wrong_password_does_not_disturb_the_owner() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut owner = Client::open(&address).await;
    owner.create("/e", "", create_flags::EPHEMERAL).await.unwrap();

    for password in [Bytes::new(), Bytes::from_static(&[0; 16]), Bytes::from_static(&[1; 200])] {
        let guess = ConnectRequest { password, ..owner.resumption() };
        let thief = Client::connect(&address, &guess).await.unwrap();
        assert_eq!((thief.granted.timeout_ms, thief.granted.session_id), (0, 0));
    }

    assert_eq!(owner.stat("/e").await.unwrap().ephemeral_owner, owner.granted.session_id);
}

#[tokio::test]
async fn the_newest_connection_of_a_session_has_it() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut old = Client::open(&address).await;
    old.create("/e", "", create_flags::EPHEMERAL).await.unwrap();

    let mut new = Client::connect(&address, &old.resumption()).await.unwrap();

    old.ended().await;
    assert_eq!(new.granted.session_id, old.granted.session_id);
    assert_eq!(new.granted.password, old.granted.password);
    assert_eq!(new.stat("/e").await.unwrap().ephemeral_owner, new.granted.session_id);
}

#[tokio::test]
async fn a_resumption_may_change_the_timeout() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let old = Client::open(&address).await;

    let new = Client::connect(&address, &ConnectRequest { timeout_ms: 5_000, ..old.resumption() }).await.unwrap();

    assert_eq!(new.granted.timeout_ms, 5_000);
}

#[tokio::test]
async fn watches_of_a_connection_that_was_replaced_die_with_it() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut old = Client::open(&address).await;
    assert_eq!(old.ask(exists("/w", true)).await, Err(ErrorCode::NO_NODE));

    let mut new = Client::connect(&address, &old.resumption()).await.unwrap();
    new.plant("/w").await;

    assert!(matches!(new.ask(get_data("/w", false)).await, Ok(Response::Data { .. })));
    assert_eq!(new.told(), []);
}

/// What `java.util.Random` of a seed begins with.
fn java_random(seed: u64) -> [u8; 16] {
    const MASK: u64 = (1 << 48) - 1;
    let mut state = (seed ^ 0x5_deec_e66d) & MASK;
    let mut bytes = [0; 16];
    for four in bytes.chunks_exact_mut(4) {
        state = (state.wrapping_mul(0x5_deec_e66d).wrapping_add(0xb)) & MASK;
        four.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}

#[tokio::test]
async fn a_password_does_not_follow_from_the_id_of_its_session() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let (mut owner, next) = (Client::open(&address).await, Client::open(&address).await);
    // How ZooKeeper makes them.
    assert_eq!(java_random(42)[..4], [0x35, 0x9d, 0x41, 0xba], "the first number of this seed is -1170105035");
    let guess = java_random(owner.granted.session_id as u64 ^ 0xb341_5c00);
    assert!(guess != owner.granted.password && owner.granted.password != next.granted.password);

    let theft = ConnectRequest { password: Bytes::copy_from_slice(&guess), ..owner.resumption() };
    let mut thief = Client::connect(&address, &theft).await.unwrap();

    assert_eq!(thief.granted, ConnectResponse::no_session(Some(false)));
    thief.ended().await;
    assert!(owner.stat("/").await.is_ok());
}
