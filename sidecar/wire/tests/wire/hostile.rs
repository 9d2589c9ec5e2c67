//! Bytes that nobody should send: refused with the right error, never a panic, never memory for what is not there.

use bytes::{Bytes, BytesMut};
use quorate_wire::{
    ConnectRequest, ConnectResponse, DecodeError, Decoder, FrameError, OpCode, Request, RequestHeader, Response,
    WatchEvent, split_frame,
};

use crate::samples::{self, bytes};

/// Decodes a request with its header.
fn decode(frame: &Bytes) -> Result<Request<'_>, DecodeError> {
    let mut from = Decoder::new(frame);
    let header = RequestHeader::decode(&mut from)?;
    Request::decode(OpCode::of(header.op).ok_or(DecodeError::Operation(header.op))?, &mut from)
}

fn refused(text: &str) -> DecodeError {
    decode(&bytes(text)).unwrap_err()
}

#[test]
fn a_request_that_ends_early_is_refused_wherever_it_ends() {
    for (golden, request) in samples::requests() {
        for length in 0..golden.len() {
            assert_eq!(decode(&golden.slice(..length)), Err(DecodeError::Truncated), "{length} bytes of {request:?}");
        }
    }
}

#[test]
fn a_response_that_ends_early_is_refused_wherever_it_ends() {
    for (op, golden, response) in samples::responses() {
        for length in 0..golden.len() {
            let cut = golden.slice(..length);
            let read = Response::decode(op, &mut Decoder::new(&cut));
            assert_eq!(read, Err(DecodeError::Truncated), "{length} bytes of {response:?}");
        }
    }
    for (golden, ..) in samples::events() {
        for length in 16..golden.len() {
            let cut = golden.slice(16..length);
            assert_eq!(WatchEvent::decode(&mut Decoder::new(&cut)), Err(DecodeError::Truncated));
        }
    }
}

#[test]
fn a_handshake_that_ends_early_is_refused_wherever_it_ends() {
    let zeros = Bytes::from_static(&[0; 12]);
    let request =
        bytes("00000000 0000000000000000 00007530 0000000000000000 00000010 00112233445566778899aabbccddeeff");
    let response = bytes("00000000 00007530 0000000000000001 00000010 00112233445566778899aabbccddeeff");
    assert_eq!((request.len(), response.len()), (44, 36));
    for length in 0..request.len() {
        assert_eq!(ConnectRequest::decode(&request.slice(..length)), Err(DecodeError::Truncated), "{length}");
    }
    for length in 0..response.len() {
        assert_eq!(ConnectResponse::decode(&response.slice(..length)), Err(DecodeError::Truncated), "{length}");
    }
    assert_eq!(ConnectRequest::decode(&zeros), Err(DecodeError::Truncated));
}

#[test]
fn what_follows_a_request_is_ignored() {
    for (golden, request) in samples::requests() {
        let longer = Bytes::from([&golden[..], b"and more"].concat());
        assert_eq!(decode(&longer), Ok(request));
    }
}

#[test]
fn no_length_takes_memory_before_its_bytes_are_there() {
    // As many elements would be more than any machine has: asking for their memory would end the process.
    for number in [i32::MAX, i32::MAX - 1, 0x7f00_0000, 0x00ff_ffff] {
        for (golden, _) in samples::requests() {
            for at in 8..golden.len().saturating_sub(3) {
                let _any_but_a_crash = decode(&with_number(&golden, at, number)).is_ok();
            }
        }
        for (op, golden, _) in samples::responses() {
            for at in 0..golden.len().saturating_sub(3) {
                let _any_but_a_crash =
                    Response::decode(op, &mut Decoder::new(&with_number(&golden, at, number))).is_ok();
            }
        }
    }
}

#[test]
fn a_length_below_null_is_named() {
    assert_eq!(refused("00000001 00000004 fffffffe 00"), DecodeError::Length(-2));
    assert_eq!(refused("00000001 00000005 00000002 '/a' 80000000 00000000"), DecodeError::Length(i32::MIN));
    assert_eq!(refused("00000001 00000007 00000002 '/a' fffffffe 00000000"), DecodeError::Length(-2));
    assert_eq!(refused("fffffff8 00000065 0000000000000000 fffffffe"), DecodeError::Length(-2));
}

#[test]
fn counts_beyond_the_frame_are_refused_at_once() {
    let acl = "00000001 00000007 00000002 '/a' 00000002 0000001f 00000005 'world' 00000006 'anyone' 00000000";
    assert_eq!(refused(acl), DecodeError::Truncated);
    assert_eq!(refused("fffffff8 00000065 0000000000000000 7fffffff"), DecodeError::Truncated);
}

#[test]
fn null_vectors_are_empty_ones() {
    let acl = bytes("00000001 00000007 00000002 '/a' ffffffff 00000000");
    assert!(matches!(decode(&acl), Ok(Request::SetAcl(set)) if set.acl.is_empty()));

    let watches = bytes("fffffff8 00000065 0000000000000000 ffffffff ffffffff ffffffff");
    assert!(matches!(decode(&watches), Ok(Request::SetWatches(watches)) if watches.data.is_empty()));

    let names = bytes("ffffffff");
    assert_eq!(Response::decode(OpCode::GetChildren, &mut Decoder::new(&names)), Ok(Response::Names(vec![])));
}

#[test]
fn null_paths_are_refused() {
    for op in [1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 17, 18, 19, 21, 104, 106] {
        let mut frame = bytes(&format!("00000001 {op:08x} ffffffff")).to_vec();
        frame.extend([0; 64]);
        assert_eq!(decode(&frame.into()), Err(DecodeError::Null), "operation {op}");
    }
    assert_eq!(refused("fffffff8 00000065 0000000000000000 00000001 ffffffff 00000000 00000000"), DecodeError::Null);
}

#[test]
fn a_credential_may_be_null_and_its_scheme_not() {
    let auth = bytes("fffffffc 00000064 00000000 00000002 'ip' ffffffff");
    assert_eq!(decode(&auth), Ok(Request::Auth { scheme: "ip".into(), credential: Bytes::new() }));
    assert_eq!(refused("fffffffc 00000064 00000000 ffffffff ffffffff"), DecodeError::Null);
}

#[test]
fn values_outside_their_sets_are_named() {
    for value in [-1, 0, 6, i32::MAX] {
        for op in [17, 18] {
            let frame = format!("00000001 {op:08x} 00000002 '/a' {value:08x}");
            assert_eq!(refused(&frame), DecodeError::Value { what: "kind of watch", value });
        }
    }
    for value in [-1, 2, i32::MAX] {
        let frame = format!("00000001 0000006a 00000002 '/a' {value:08x}");
        assert_eq!(refused(&frame), DecodeError::Value { what: "mode of a watch", value });
    }
    for value in [-1, 0, 5, 7] {
        let event = bytes(&format!("{value:08x} 00000003 00000002 '/a'"));
        let read = WatchEvent::decode(&mut Decoder::new(&event));
        assert_eq!(read, Err(DecodeError::Value { what: "event of a server", value }));
    }
}

#[test]
fn booleans_are_true_unless_zero() {
    for (byte, watch) in [("00", false), ("01", true), ("02", true), ("ff", true)] {
        let frame = bytes(&format!("00000001 00000003 00000002 '/a' {byte}"));
        assert!(matches!(decode(&frame), Ok(Request::Exists(get)) if get.watch == watch), "{byte}");
    }
}

#[test]
fn a_multi_takes_writes_only_and_a_multi_read_reads_only() {
    let among = |outer: u8, inner: i32| {
        refused(&format!("00000001 000000{outer:02x} {inner:08x} 00 ffffffff 00000002 '/a' 0000000000000000"))
    };
    for inner in [-11, -10, -1, 0, 3, 4, 6, 7, 8, 9, 11, 12, 14, 16, 20, 22, 100, 999] {
        assert_eq!(among(14, inner), DecodeError::Operation(inner));
    }
    for inner in [-1, 0, 1, 2, 3, 5, 6, 7, 9, 12, 13, 14, 15, 20, 22, 100, 999] {
        assert_eq!(among(22, inner), DecodeError::Operation(inner));
    }
}

#[test]
fn a_multi_takes_no_create_mode_that_its_operation_cannot_have() {
    for (op, flags) in [(1, -1), (1, 7), (1, 999), (1, 5), (15, 6), (19, 5)] {
        let multi = format!(
            "00000001 0000000e {op:08x} 00 ffffffff 00000002 '/a' 00000000 {} {flags:08x} 0000000000000001
            ffffffff 01 ffffffff",
            samples::OPEN_ACL
        );
        assert_eq!(refused(&multi), DecodeError::Value { what: "create mode", value: flags });
    }
}

#[test]
fn a_multi_ends_at_its_first_end_mark_whatever_else_the_mark_says() {
    let multi = bytes("00000001 0000000e 00000002 00 ffffffff 00000002 '/a' ffffffff 00000063 02 00000000 00000002");

    assert!(matches!(decode(&multi), Ok(Request::Multi(ops)) if ops.len() == 1));
}

#[test]
fn text_that_is_not_utf_8_becomes_a_character_no_path_has() {
    // The last is U+1F600 as Java writes it: each half of a surrogate pair for itself.
    for wrong in ["ff", "c0af", "e28280e282", "eda0bdedb880"] {
        let frame = bytes(&format!("00000001 00000009 {:08x} '/a' {wrong}", wrong.len() / 2 + 2));

        let Ok(Request::Sync { path: Some(path) }) = decode(&frame) else { panic!("{wrong}") };

        assert!(path.starts_with("/a") && path.contains('\u{fffd}'), "{path}");
    }
}

#[test]
fn data_shares_the_memory_of_its_frame() {
    let frame = bytes("00000001 00000005 00000002 '/a' 00000004 'data' 00000000");

    let Ok(Request::SetData(set)) = decode(&frame) else { panic!() };

    assert_eq!(set.data.unwrap().as_ptr(), frame[18..].as_ptr());
}

#[test]
fn four_letters_are_no_frame() {
    for word in [b"ruok", b"srvr", b"mntr", b"isro"] {
        assert!(matches!(split_frame(&mut BytesMut::from(&word[..]), 0xf_ffff), Err(FrameError::TooLarge { .. })));
    }
}

fn with_number(golden: &Bytes, at: usize, number: i32) -> Bytes {
    let mut bytes = golden.to_vec();
    bytes[at..at + 4].copy_from_slice(&number.to_be_bytes());
    bytes.into()
}
