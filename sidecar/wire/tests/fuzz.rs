//! Fuzzing of the decoders, as a test like any other.
//!
//! What must pass for every change runs on stable Rust with nothing installed; `cargo fuzz` needs a nightly compiler
//! and a runtime of its own. So the fuzzer is here: it changes the samples at random, and keeps what makes a decoder
//! stop at a place, or for a reason, that it has not stopped at before, to change that further. It claims that no
//! input makes a decoder panic, and that what is read, written and read again is the same.
//!
//! It runs for two seconds; `QUORATE_FUZZ_SECONDS=600 cargo test --release -p quorate-wire --test fuzz` for more. It
//! prints its seed, and the input if one breaks a claim; `QUORATE_FUZZ_SEED` repeats a run.

#[path = "wire/samples.rs"]
mod samples;

use std::{
    collections::HashSet,
    mem::{Discriminant, discriminant},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quorate_wire::{
    ConnectRequest, ConnectResponse, DecodeError, Decoder, OpCode, ReplyHeader, Request, RequestHeader, Response,
    WatchEvent, encode_reply, frame, split_frame,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const SECONDS_DEFAULT: u64 = 2;
/// Inputs kept because they did something new; one of them makes room for a further one.
const KEPT_MAX: usize = 8192;
const PLACE_BYTES: usize = 16;
/// Longer inputs find nothing that shorter ones do not.
const INPUT_BYTES_MAX: usize = 2048;

/// What was read, why it could not be read, and where: places further apart than [`PLACE_BYTES`] are two.
type Stop = (i32, Option<Discriminant<DecodeError>>, usize);

#[test]
fn no_input_breaks_a_decoder() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seconds = number("QUORATE_FUZZ_SECONDS").unwrap_or(SECONDS_DEFAULT);
    let seed = number("QUORATE_FUZZ_SEED").unwrap_or_else(rand::random);
    println!("QUORATE_FUZZ_SEED={seed}");

    let mut chance = StdRng::seed_from_u64(seed);
    let mut kept = corpus();
    let mut known = HashSet::new();
    for input in &kept {
        known.extend(check(input));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut inputs = 0_u64;
    while Instant::now() < until {
        for _ in 0..256 {
            inputs += 1;
            let input = Bytes::from(changed(&kept, &mut chance));
            let mut is_new = false;
            for stop in check(&input) {
                is_new |= known.insert(stop);
            }
            if is_new && kept.len() < KEPT_MAX {
                kept.push(input);
            } else if is_new {
                let at = chance.random_range(0..kept.len());
                kept[at] = input;
            }
        }
    }
    println!("{inputs} inputs, {} kept, {} different stops", kept.len(), known.len());
}

/// The first byte of an input says what it is read as, the rest is the content of a frame, or a stream of them.
fn corpus() -> Vec<Bytes> {
    let tagged = |tag: u8, content: &[u8]| Bytes::from([&[tag], content].concat());
    let handshake = [0x11; 45];
    let mut all = vec![tagged(AS_CONNECT_REQUEST, &handshake), tagged(AS_CONNECT_RESPONSE, &handshake[..37])];
    all.extend(samples::requests().iter().map(|(content, _)| tagged(AS_REQUEST, content)));
    for requests in samples::requests().chunks(8) {
        let stream =
            written(|out| requests.iter().for_each(|(content, _)| frame(out, |out| out.extend_from_slice(content))));
        all.push(tagged(AS_STREAM, &stream));
    }
    all.extend(samples::events().iter().map(|(content, ..)| tagged(AS_EVENT, content)));
    for (op, content, _) in samples::responses() {
        let at = OpCode::ALL.iter().position(|known| *known == op).expect("it is one of all");
        all.push(tagged(AS_RESPONSE + at as u8, &content));
    }
    all
}

const AS_CONNECT_REQUEST: u8 = 0;
const AS_CONNECT_RESPONSE: u8 = 1;
const AS_EVENT: u8 = 2;
const AS_STREAM: u8 = 3;
const AS_REQUEST: u8 = 4;
/// And the operation's place among all.
const AS_RESPONSE: u8 = 5;
const TAGS: u8 = AS_RESPONSE + OpCode::ALL.len() as u8;

/// Reads an input, and what was read once more after it was written. Says where the decoders stopped.
fn check(input: &Bytes) -> Vec<Stop> {
    let _told = Told(input);
    let Some(&tag) = input.first() else { return Vec::new() };
    let tag = tag % TAGS;
    let content = input.slice(1..);
    let stopped = |refused: Option<DecodeError>, rest: usize| {
        vec![(i32::from(tag), refused.as_ref().map(discriminant), (content.len() - rest) / PLACE_BYTES)]
    };
    match tag {
        AS_CONNECT_REQUEST => {
            let read = ConnectRequest::decode(&content);
            if let Ok(request) = &read {
                let again = written(|out| request.encode(out));
                assert_eq!(ConnectRequest::decode(&again).as_ref(), Ok(request));
            }
            stopped(read.err(), content.len())
        }
        AS_CONNECT_RESPONSE => {
            let read = ConnectResponse::decode(&content);
            if let Ok(response) = &read {
                let again = written(|out| response.encode(out));
                assert_eq!(ConnectResponse::decode(&again).as_ref(), Ok(response));
            }
            stopped(read.err(), content.len())
        }
        AS_EVENT => {
            let mut from = Decoder::new(&content);
            let read = ReplyHeader::decode(&mut from).and_then(|_header| WatchEvent::decode(&mut from));
            if let Ok(event) = &read {
                let again = framed(|out| event.encode(-1, out)).slice(16..);
                assert_eq!(WatchEvent::decode(&mut Decoder::new(&again)).as_ref(), Ok(event));
            }
            stopped(read.err(), from.remaining())
        }
        AS_STREAM => {
            let mut stream = BytesMut::from(&content[..]);
            let mut stops = Vec::new();
            while let Ok(Some(frame)) = split_frame(&mut stream, INPUT_BYTES_MAX) {
                stops.push(request(&frame));
            }
            stops
        }
        AS_REQUEST => vec![request(&content)],
        place => {
            let op = OpCode::ALL[usize::from(place - AS_RESPONSE)];
            let mut from = Decoder::new(&content);
            let read = Response::decode(op, &mut from);
            if let Ok(response) = &read {
                let again = framed(|out| encode_reply(1, 1, response, out)).slice(16..);
                assert_eq!(Response::decode(op, &mut Decoder::new(&again)).as_ref(), Ok(response));
            }
            stopped(read.err(), from.remaining())
        }
    }
}

/// In a [`Stop`], added to the code of an operation.
const REQUESTS: i32 = 1000;

fn request(content: &Bytes) -> Stop {
    let mut from = Decoder::new(content);
    let Ok(header) = RequestHeader::decode(&mut from) else { return (REQUESTS, None, 0) };
    let Some(op) = OpCode::of(header.op) else { return (REQUESTS, None, 4) };
    let read = Request::decode(op, &mut from);
    if let Ok(request) = &read {
        assert_eq!(request.op(), op);
        let again = framed(|out| request.encode(header.xid, out)).slice(8..);
        assert_eq!(Request::decode(op, &mut Decoder::new(&again)).as_ref(), Ok(request));
    }
    (REQUESTS + op.code(), read.err().as_ref().map(discriminant), (content.len() - from.remaining()) / PLACE_BYTES)
}

fn written(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut out = BytesMut::new();
    write(&mut out);
    out.freeze()
}

/// What is written, without the length of its frame.
fn framed(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    written(write).slice(4..)
}

/// One of the inputs, changed in a few places.
fn changed(kept: &[Bytes], chance: &mut StdRng) -> Vec<u8> {
    let mut input = kept[chance.random_range(0..kept.len())].to_vec();
    for _ in 0..chance.random_range(1..=4) {
        let at = chance.random_range(0..=input.len());
        let left = input.len() - at;
        match chance.random_range(0..9) {
            0 if left > 0 => input[at] ^= 1 << chance.random_range(0..8),
            1 if left > 0 => input[at] = chance.random(),
            2 if left >= 4 => input[at..at + 4].copy_from_slice(&number(left, chance).to_be_bytes()),
            // Where the code of an operation stands.
            3 if input.len() >= 9 => {
                let op = OpCode::ALL[chance.random_range(0..OpCode::ALL.len())];
                input[5..9].copy_from_slice(&op.code().to_be_bytes());
            }
            4 => input.truncate(at),
            5 => {
                let bytes = chance.random_range(0..=left.min(32));
                input.drain(at..at + bytes);
            }
            6 => {
                let bytes: Vec<u8> = (0..chance.random_range(1..=8)).map(|_| chance.random()).collect();
                input.splice(at..at, bytes);
            }
            7 => {
                let bytes = input[at..at + chance.random_range(0..=left)].to_vec();
                input.splice(at..at, bytes);
            }
            // The end of another input, sometimes with the length that makes it a frame of a stream.
            _ => {
                let other = &kept[chance.random_range(0..kept.len())];
                let from = chance.random_range(0..=other.len());
                input.truncate(at);
                if chance.random() {
                    input.extend(((other.len() - from) as i32).to_be_bytes());
                }
                input.extend(&other[from..]);
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

/// A length or count that might hit something.
fn number(left: usize, chance: &mut StdRng) -> i32 {
    match chance.random_range(0..6) {
        0 => [i32::MIN, i32::MAX, -2, -1, 0, 1, 2, 0xf_ffff, 0x10_0000][chance.random_range(0..9)],
        1 => left as i32 + chance.random_range(-8..=8),
        2 => (left / 4) as i32 + chance.random_range(-2..=2),
        3 => chance.random_range(-3..=40),
        4 => OpCode::ALL[chance.random_range(0..OpCode::ALL.len())].code(),
        _ => chance.random(),
    }
}

/// Prints the input that broke a claim.
struct Told<'a>(&'a [u8]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("broken by {}", self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        }
    }
}
