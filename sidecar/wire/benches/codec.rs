//! What it costs to read a request and to write its answer, an operation at a time, without a socket.
//!
//! `cargo bench -p quorate-wire`, followed by words that choose operations by their names. Prints nanoseconds an
//! operation: the best of many short rounds, for what is measured is the code and not the machine.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quorate_wire::{
    Acl, Create, CreateKind, Decoder, EventType, FRAME_BYTES_MAX, GetPath, MultiOp, OpCode, OpResult, Request,
    RequestHeader, Response, SetData, Stat, WatchEvent, create_flags, encode_refusal, encode_reply, split_frame,
};

const ROUNDS: usize = 150;
const ROUND: Duration = Duration::from_millis(3);
/// Requests that arrive in one read of the socket, and answers that leave in one write.
const BATCH: usize = 64;

const PATH: &str = "/services/payments/instance-0000000042";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    println!("{:<32} {:>10}", "operation", "ns");
    let measure = |name: &str, ns: &mut dyn FnMut() -> f64| {
        if words.is_empty() || words.iter().any(|word| name.contains(word.as_str())) {
            println!("{name:<32} {:>10.1}", ns());
        }
    };

    for (name, request) in requests() {
        measure(&format!("read {name}"), &mut || read_cost(&request));
    }
    for (name, response) in responses() {
        let write = |out: &mut BytesMut| encode_reply(7, 1 << 33, black_box(&response), out);
        measure(&format!("write {name}"), &mut || write_cost(write));
    }
    measure("write refusal", &mut || {
        write_cost(|out| encode_refusal(7, 1 << 33, quorate_wire::ErrorCode::NO_NODE, out))
    });
    let event = WatchEvent { event: EventType::NodeDataChanged, path: PATH.into() };
    measure("write event", &mut || write_cost(|out| black_box(&event).encode(1 << 33, out)));
}

/// Cuts a batch of frames off a stream, reads header and body of each.
fn read_cost(request: &Request<'_>) -> f64 {
    let mut batch = BytesMut::new();
    for xid in 0..BATCH {
        request.encode(xid as i32, &mut batch);
    }
    best(|| {
        // As a read of the socket leaves it; the copy is counted too.
        let mut stream = BytesMut::with_capacity(batch.len());
        stream.extend_from_slice(&batch);
        while let Some(frame) = split_frame(&mut stream, FRAME_BYTES_MAX).expect("it was written here") {
            let mut from = Decoder::new(&frame);
            let header = RequestHeader::decode(&mut from).expect("it was written here");
            let op = OpCode::of(header.op).expect("it was written here");
            black_box(Request::decode(op, &mut from).expect("it was written here"));
        }
    })
}

/// Writes a batch of answers into a buffer that is used again.
fn write_cost(write: impl Fn(&mut BytesMut)) -> f64 {
    let mut out = BytesMut::new();
    best(|| {
        out.clear();
        for _ in 0..BATCH {
            write(&mut out);
        }
        black_box(&out);
    })
}

/// Nanoseconds for one of a batch.
fn best(mut batch: impl FnMut()) -> f64 {
    let round = |batch: &mut dyn FnMut()| {
        let start = Instant::now();
        let mut batches = 0_u32;
        while start.elapsed() < ROUND {
            for _ in 0..8 {
                batch();
            }
            batches += 8;
        }
        start.elapsed().as_nanos() as f64 / f64::from(batches) / BATCH as f64
    };
    (0..ROUNDS).map(|_| round(&mut batch)).fold(f64::INFINITY, f64::min)
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
