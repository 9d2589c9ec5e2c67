//! Every operation, byte for byte, in both directions.

use bytes::{Bytes, BytesMut};
use quorate_wire::{
    ConnectRequest, ConnectResponse, Create, CreateKind, Decoder, ErrorCode, EventType, FRAME_BYTES_MAX, OpCode,
    ReplyHeader, Request, RequestHeader, Response, WatchEvent, XID_AUTH, XID_EVENT, XID_PING, XID_SET_WATCHES,
    create_flags, encode_refusal, encode_reply, frame, split_frame,
};

use crate::samples::{self, bytes};

/// What `write` appends, as one frame without its length.
fn content(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut stream = BytesMut::new();
    write(&mut stream);
    let content = split_frame(&mut stream, FRAME_BYTES_MAX).unwrap().expect("a whole frame");
    assert!(stream.is_empty(), "more than one frame");
    content
}

#[test]
fn requests_are_written_and_read_by_their_bytes() {
    for (golden, request) in samples::requests() {
        let mut from = Decoder::new(&golden);
        let header = RequestHeader::decode(&mut from).unwrap();

        let op = OpCode::of(header.op).unwrap();
        assert_eq!(Request::decode(op, &mut from).as_ref(), Ok(&request));
        assert_eq!(from.remaining(), 0, "{request:?}");

        assert_eq!(content(|out| request.encode(header.xid, out)), golden, "{request:?}");
    }
}

#[test]
fn responses_are_written_and_read_by_their_bytes() {
    for (op, golden, response) in samples::responses() {
        let mut from = Decoder::new(&golden);
        assert_eq!(Response::decode(op, &mut from).as_ref(), Ok(&response));
        assert_eq!(from.remaining(), 0, "{response:?}");

        let written = content(|out| encode_reply(7, 0x123, &response, out));
        assert_eq!(written[..16], bytes("00000007 0000000000000123 00000000"), "{response:?}");
        assert_eq!(written[16..], golden, "{response:?}");
    }
}

#[test]
fn events_are_written_and_read_by_their_bytes() {
    for (golden, zxid, event) in samples::events() {
        let mut from = Decoder::new(&golden);
        let header = ReplyHeader::decode(&mut from).unwrap();
        assert_eq!(header, ReplyHeader { xid: XID_EVENT, zxid, error: ErrorCode::OK });
        assert_eq!(WatchEvent::decode(&mut from).as_ref(), Ok(&event));
        assert_eq!(from.remaining(), 0);

        assert_eq!(content(|out| event.encode(zxid, out)), golden, "{event:?}");
    }
}

#[test]
fn every_operation_has_a_sample_in_each_direction() {
    for op in OpCode::ALL {
        assert!(samples::requests().iter().any(|(_, request)| request.op() == op), "{op:?}");
        assert!(samples::responses().iter().any(|(answered, ..)| *answered == op), "{op:?}");
    }
}

#[test]
fn a_new_session_is_asked_for_in_45_bytes_and_granted_in_37() {
    let golden = bytes(
        "0000002d 00000000 0000000000000000 00007530 0000000000000000
        00000010 00000000000000000000000000000000 00",
    );
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms: 30_000,
        session_id: 0,
        password: Bytes::from_static(&[0; 16]),
        read_only: Some(false),
    };
    let mut written = BytesMut::new();
    frame(&mut written, |out| request.encode(out));
    assert_eq!(written, golden);
    assert_eq!(ConnectRequest::decode(&golden.slice(4..)), Ok(request));

    let golden = bytes(
        "00000025 00000000 00007530 01000011c7c40000
        00000010 000102030405060708090a0b0c0d0e0f 00",
    );
    let response = ConnectResponse {
        timeout_ms: 30_000,
        session_id: 0x0100_0011_c7c4_0000,
        password: std::array::from_fn(|at| at as u8),
        read_only: Some(false),
    };
    let mut written = BytesMut::new();
    frame(&mut written, |out| response.encode(out));
    assert_eq!(written, golden);
    assert_eq!(ConnectResponse::decode(&golden.slice(4..)), Ok(response));
}

#[test]
fn clients_that_know_no_read_only_servers_say_44_bytes_and_are_answered_36() {
    let golden = bytes("00000000 0000000000000005 00001388 0100000000000007 00000003 'pwd'");
    let request = ConnectRequest::decode(&golden).unwrap();
    assert_eq!((request.last_zxid_seen, request.session_id), (5, 0x0100_0000_0000_0007));
    assert_eq!((&*request.password, request.read_only), (&b"pwd"[..], None));
    let mut written = BytesMut::new();
    request.encode(&mut written);
    assert_eq!(written, golden);

    let mut written = BytesMut::new();
    ConnectResponse::no_session(request.read_only).encode(&mut written);
    assert_eq!(written, bytes("00000000 00000000 0000000000000000 00000010 00000000000000000000000000000000"));
    assert_eq!(written.len(), 36);
    assert_eq!(ConnectResponse::decode(&written.freeze()), Ok(ConnectResponse::no_session(None)));
}

#[test]
fn a_null_password_is_an_empty_one() {
    let null = bytes("00000000 0000000000000000 00001388 0000000000000000 ffffffff 01");

    let request = ConnectRequest::decode(&null).unwrap();

    assert_eq!((request.password, request.read_only), (Bytes::new(), Some(true)));
}

#[test]
fn an_expired_session_is_told_zeros() {
    let mut written = BytesMut::new();
    frame(&mut written, |out| ConnectResponse::no_session(Some(false)).encode(out));

    assert_eq!(
        written,
        bytes("00000025 00000000 00000000 0000000000000000 00000010 00000000000000000000000000000000 00")
    );
}

#[test]
fn the_frames_of_a_create_and_a_ping() {
    let create = Request::Create(Create {
        kind: CreateKind::Create,
        path: "/a".into(),
        data: Some(Bytes::new()),
        acl: samples::open_acl(),
        flags: create_flags::PERSISTENT,
        ttl_ms: 0,
    });
    let mut written = BytesMut::new();
    create.encode(1, &mut written);
    assert_eq!(
        written,
        bytes(
            "00000031 00000001 00000001 00000002 2f61 00000000
            00000001 0000001f 00000005 'world' 00000006 'anyone' 00000000"
        )
    );

    written.clear();
    encode_reply(1, 2, &Response::Path(Some("/a".into())), &mut written);
    assert_eq!(written, bytes("00000016 00000001 0000000000000002 00000000 00000002 2f61"));

    written.clear();
    Request::Ping.encode(XID_PING, &mut written);
    assert_eq!(written, bytes("00000008 fffffffe 0000000b"));

    written.clear();
    encode_reply(XID_PING, 2, &Response::Empty, &mut written);
    assert_eq!(written, bytes("00000010 fffffffe 0000000000000002 00000000"));
}

#[test]
fn a_refusal_is_a_header_alone() {
    let refused = |xid, zxid, error| content(|out| encode_refusal(xid, zxid, error, out));

    assert_eq!(refused(9, 5, ErrorCode::NO_NODE), bytes("00000009 0000000000000005 ffffff9b"));
    assert_eq!(refused(9, -1, ErrorCode::UNIMPLEMENTED), bytes("00000009 ffffffffffffffff fffffffa"));
    assert_eq!(refused(XID_AUTH, 0, ErrorCode::AUTH_FAILED), bytes("fffffffc 0000000000000000 ffffff8d"));
    assert_eq!(refused(XID_SET_WATCHES, 0, ErrorCode::MARSHALLING_ERROR), bytes("fffffff8 0000000000000000 fffffffb"));
}

#[test]
fn frames_are_appended_to_what_is_there() {
    let mut written = BytesMut::new();
    Request::Ping.encode(XID_PING, &mut written);
    WatchEvent { event: EventType::NodeDeleted, path: "/a".into() }.encode(3, &mut written);

    assert_eq!(split_frame(&mut written, 1024).unwrap().unwrap().len(), 8);
    assert_eq!(split_frame(&mut written, 1024).unwrap().unwrap().len(), 30);
    assert!(written.is_empty());
}

#[test]
fn error_codes_are_those_of_zookeeper() {
    for (code, error) in [
        (0, ErrorCode::OK),
        (-2, ErrorCode::RUNTIME_INCONSISTENCY),
        (-5, ErrorCode::MARSHALLING_ERROR),
        (-6, ErrorCode::UNIMPLEMENTED),
        (-8, ErrorCode::BAD_ARGUMENTS),
        (-13, ErrorCode::NEW_CONFIG_NO_QUORUM),
        (-14, ErrorCode::RECONFIG_IN_PROGRESS),
        (-101, ErrorCode::NO_NODE),
        (-102, ErrorCode::NO_AUTH),
        (-103, ErrorCode::BAD_VERSION),
        (-108, ErrorCode::NO_CHILDREN_FOR_EPHEMERALS),
        (-110, ErrorCode::NODE_EXISTS),
        (-111, ErrorCode::NOT_EMPTY),
        (-112, ErrorCode::SESSION_EXPIRED),
        (-114, ErrorCode::INVALID_ACL),
        (-115, ErrorCode::AUTH_FAILED),
        (-118, ErrorCode::SESSION_MOVED),
        (-119, ErrorCode::NOT_READ_ONLY),
        (-120, ErrorCode::EPHEMERAL_ON_LOCAL_SESSION),
        (-121, ErrorCode::NO_WATCHER),
        (-123, ErrorCode::RECONFIG_DISABLED),
        (-124, ErrorCode::SESSION_CLOSED_REQUIRE_SASL_AUTH),
        (-125, ErrorCode::QUOTA_EXCEEDED),
        (-127, ErrorCode::THROTTLED_OP),
    ] {
        assert_eq!(error.0, code, "{error}");
        assert!(error.name().is_some(), "{code}");
    }
    assert_eq!(ErrorCode(-126).name(), None);
    assert_eq!(ErrorCode(-126).to_string(), "-126");
}
