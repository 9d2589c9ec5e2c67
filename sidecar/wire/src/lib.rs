//! The ZooKeeper client protocol as bytes: records, requests, responses, and frames around them.
//!
//! Pure: no sockets, no clock, no tree. Both directions are here, for a server (decodes requests, encodes responses)
//! and for a client (the other way round), so that tests and tools speak it with the same code.
//!
//! - [`split_frame`] cuts frames off a stream, within a limit.
//! - [`ConnectRequest`] and [`ConnectResponse`] are the handshake, the only frames without a header.
//! - [`RequestHeader`] and [`Request`] are what a client asks, [`ReplyHeader`] and [`Response`] what it is answered;
//!   [`WatchEvent`] comes unasked.
//!
//! No input makes it panic, and nothing is allocated for a length before its bytes are there. Integers are big-endian;
//! null and empty are kept apart where ZooKeeper does. The reference is the behaviour of ZooKeeper 3.9.
//!
//! A request on its way, and its answer:
//!
//! ```
//! use bytes::BytesMut;
//! use quorate_wire::{
//!     Decoder, ErrorCode, FRAME_BYTES_MAX, GetPath, OpCode, ReplyHeader, Request, RequestHeader, Response, Stat,
//!     encode_reply, split_frame,
//! };
//!
//! // The client asks.
//! let mut stream = BytesMut::new();
//! Request::Exists(GetPath { path: "/jobs".into(), watch: true }).encode(1, &mut stream);
//!
//! // The server reads as much as has come, and answers.
//! let frame = split_frame(&mut stream, FRAME_BYTES_MAX)?.expect("all of it has come");
//! let mut from = Decoder::new(&frame);
//! let header = RequestHeader::decode(&mut from)?;
//! let op = OpCode::of(header.op).expect("another one would be answered UNIMPLEMENTED");
//! let Request::Exists(asked) = Request::decode(op, &mut from)? else { unreachable!() };
//! assert_eq!(asked.path, "/jobs");
//! encode_reply(header.xid, 17, &Response::Stat(Stat { czxid: 5, ..Stat::default() }), &mut stream);
//!
//! // The client knows by the xid what it is an answer to.
//! let frame = split_frame(&mut stream, FRAME_BYTES_MAX)?.expect("all of it has come");
//! let mut from = Decoder::new(&frame);
//! assert_eq!(ReplyHeader::decode(&mut from)?, ReplyHeader { xid: 1, zxid: 17, error: ErrorCode::OK });
//! assert!(matches!(Response::decode(op, &mut from)?, Response::Stat(stat) if stat.czxid == 5));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod acl;
mod connect;
mod decode;
mod encode;
mod error_code;
mod event;
mod frame;
mod header;
mod multi;
mod op;
mod request;
mod response;
mod stat;

pub use acl::{Acl, ClientInfo};
pub use connect::{ConnectRequest, ConnectResponse, PASSWORD_BYTES};
pub use decode::{DecodeError, Decoder};
pub use encode::Encoder;
pub use error_code::ErrorCode;
pub use event::{EventType, WatchEvent};
pub use frame::{FRAME_BYTES_MAX, FrameError, frame, split_frame};
pub use header::{ReplyHeader, RequestHeader, XID_AUTH, XID_EVENT, XID_PING, XID_SET_WATCHES};
pub use multi::{MultiOp, MultiRead, OpResult};
pub use op::OpCode;
pub use request::{
    AddWatchMode, Create, CreateKind, Delete, GetPath, Reconfig, Request, SetAcl, SetData, SetWatches, Version,
    WatcherType, create_flags,
};
pub use response::{Response, encode_refusal, encode_reply};
pub use stat::Stat;
