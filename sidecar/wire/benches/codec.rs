//! What it costs to read a request and to write its answer, an operation at a time, without a socket.
//!
//! `cargo bench -p quorate-wire`.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use quorate_micro::{Suite, suite};
use quorate_wire::{
    Acl, Create, CreateKind, Decoder, EventType, FRAME_BYTES_MAX, GetPath, MultiOp, OpCode, OpResult, Request,
    RequestHeader, Response, SetData, Stat, WatchEvent, create_flags, encode_refusal, encode_reply, split_frame,
};

/// Requests that arrive in one read of the socket, and answers that leave in one write.
const BATCH: usize = 64;
/// Batches of a round.
const BATCHES: usize = 16;

const PATH: &str = "/services/payments/instance-0000000042";

fn main() {
    suite("wire", |suite| {
        for (name, request) in requests() {
            read(suite, &format!("read {name}"), &request);
        }
        for (name, response) in responses() {
            let one = |out: &mut BytesMut| encode_reply(7, 1 << 33, black_box(&response), out);
            write(suite, &format!("write {name}"), one);
        }
        write(suite, "write refusal", |out| encode_refusal(7, 1 << 33, quorate_wire::ErrorCode::NO_NODE, out));
        let event = WatchEvent { event: EventType::NodeDataChanged, path: PATH.into() };
        write(suite, "write event", |out| black_box(&event).encode(1 << 33, out));
    });
}

/// Cuts a batch of frames off a stream, reads header and body of each.
fn read(suite: &mut Suite, name: &str, request: &Request<'_>) {
    let mut batch = BytesMut::new();
    for xid in 0..BATCH {
        request.encode(xid as i32, &mut batch);
    }
    suite.case(name, |round| {
        round.measure((BATCH * BATCHES) as u64, || {
            for _ in 0..BATCHES {
                // As a read of the socket leaves it; the copy is counted too.
                let mut stream = BytesMut::with_capacity(batch.len());
                stream.extend_from_slice(&batch);
                while let Some(frame) = split_frame(&mut stream, FRAME_BYTES_MAX).expect("it was written here") {
                    let mut from = Decoder::new(&frame);
                    let header = RequestHeader::decode(&mut from).expect("it was written here");
                    let op = OpCode::of(header.op).expect("it was written here");
                    black_box(Request::decode(op, &mut from).expect("it was written here"));
                }
            }
        });
    });
}

/// Writes batches of answers into a buffer that is used again.
fn write(suite: &mut Suite, name: &str, one: impl Fn(&mut BytesMut)) {
    let mut out = BytesMut::new();
    suite.case(name, |round| {
        round.measure((BATCH * BATCHES) as u64, || {
            for _ in 0..BATCHES {
                out.clear();
                for _ in 0..BATCH {
                    one(&mut out);
                }
                black_box(&out);
            }
        });
    });
}

fn requests() -> Vec<(&'static str, Request<'static>)> {
    let get = || GetPath { path: PATH.into(), watch: false };
    let acl = || vec![Acl { permissions: 31, scheme: "world".into(), id: Some("anyone".into()) }];
    let data = |bytes: usize| Some(Bytes::from(vec![b'x'; bytes]));
    let create = || Create {
        kind: CreateKind::Create2,
        path: PATH.into(),
        data: data(256),
        acl: acl(),
        flags: create_flags::EPHEMERAL_SEQUENTIAL,
        ttl_ms: 0,
    };
    let set = |bytes| SetData { path: PATH.into(), data: data(bytes), version: -1 };
    vec![
        ("ping", Request::Ping),
        ("exists", Request::Exists(get())),
        ("getData", Request::GetData(get())),
        ("setData 256 B", Request::SetData(set(256))),
        ("setData 16 KiB", Request::SetData(set(16 * 1024))),
        ("create2 256 B", Request::Create(create())),
        (
            "multi of 4",
            Request::Multi(vec![
                MultiOp::Check { path: PATH.into(), version: 3 },
                MultiOp::Create(create()),
                MultiOp::SetData(set(256)),
                MultiOp::SetData(set(256)),
            ]),
        ),
    ]
}

fn responses() -> Vec<(&'static str, Response)> {
    let stat = Stat { czxid: 1 << 33, ..Stat::default() };
    let data = |bytes: usize| Some(Bytes::from(vec![b'x'; bytes]));
    let names = |count: usize| (0..count).map(|at| format!("instance-{at:010}")).collect();
    vec![
        ("nothing", Response::Empty),
        ("stat", Response::Stat(stat)),
        ("data 256 B", Response::Data { data: data(256), stat }),
        ("data 1 KiB", Response::Data { data: data(1024), stat }),
        ("path and stat", Response::PathStat { path: PATH.into(), stat }),
        ("100 names and stat", Response::NamesStat { names: names(100), stat }),
        (
            "results of 4",
            Response::Multi(vec![
                OpResult::Checked,
                OpResult::Created { path: PATH.into(), stat: Some(stat) },
                OpResult::Set(stat),
                OpResult::Set(stat),
            ]),
        ),
    ]
}
