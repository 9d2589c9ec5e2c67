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
