//! What it costs to write a command down for the log and to read it again. Not a test: it measures, see
//! `quorate-micro`.

use std::hint::black_box;

use bytes::Bytes;
use quorate_micro::suite;
use quorate_tree::{Acl, Author, Create, CreateMode, Identity, Lane, MemberId, Op, SessionId, SetData, WriteNumber};

use super::command_codec::{BatchWriter, check_proposal, decode_batch, decode_head, encode_proposal};

const BATCH: u64 = 64;

#[test]
#[ignore = "measures"]
fn measures() {
    suite("ensemble", |suite| {
        for (name, op) in [("set", set()), ("create", create())] {
            let proposals: Vec<Bytes> = (1..=BATCH).map(|seq| encoded(seq, author(), op.clone())).collect();
            suite.case(&format!("proposal of a {name} written"), |round| {
                let given: Vec<_> = (1..=BATCH).map(|seq| (seq, author(), op.clone())).collect();
                round.measure(BATCH, || {
                    for (seq, author, op) in given {
                        black_box(encoded(seq, author, op));
                    }
                });
            });
            suite.case(&format!("proposal of a {name}; its head read"), |round| {
                round.measure(BATCH, || {
                    for proposal in &proposals {
                        black_box(decode_head(black_box(proposal)).unwrap());
                    }
                });
            });
            suite.case(&format!("proposal of a {name} checked"), |round| {
                round.measure(BATCH, || {
                    for proposal in &proposals {
                        check_proposal(black_box(proposal)).unwrap();
                    }
                });
            });
            suite.case(&format!("entry of 64 times {name} read; each"), |round| {
                let mut batch = BatchWriter::new(0);
                for proposal in &proposals {
                    batch.add(proposal);
                }
                let batch = batch.finish();
                round.measure(BATCH, || black_box(decode_batch(batch).unwrap()));
            });
        }
    });
}

fn encoded(seq: u64, author: Author, op: Op) -> Bytes {
    encode_proposal(Lane { member: MemberId(1), incarnation: 1, seq }, author, op, String::new())
}

fn author() -> Author {
    let address = Identity { scheme: "ip".into(), id: "127.0.0.1".into() };
    let write = Some(WriteNumber { number: 1000, answered: 900 });
    Author { session: SessionId(1 << 56 | 77), attachment: 1, write, identities: [address].into() }
}

fn data() -> Option<Bytes> {
    Some(Bytes::from_static(&[7; 256]))
}

fn set() -> Op {
    Op::SetData(SetData { path: "/services/payments/instance-0000000042".into(), data: data(), version: -1 })
}

fn create() -> Op {
    let (path, mode) = ("/services/payments/instance-".into(), CreateMode::EphemeralSequential);
    Op::Create(Create { path, data: data(), mode, acl: vec![Acl::open()] })
}
