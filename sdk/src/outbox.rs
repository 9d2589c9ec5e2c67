//! What is to be sent and what is sent but not answered, in order.
//!
//! Requests wait in `waiting` until the stream takes them, all that are there in one frame, and stay in `sent`
//! until their reply comes. When a stream ends, what it left unanswered goes back to the front of `waiting`:
//! writes under their old numbers, reads as if new. Numbers are given when a request is first sent.
//!
//! Bounds: `under_way_max` requests are sent and not answered (each counts for one, and one more for every 16 KiB of
//! data). What waits are the requests of callers who wait for them, one each; those of callers who have left go with
//! the next [`Outbox::sweep`]. What the client adds by itself is bounded by its watches and credentials.
//!
//! Why callers do not wait for room before their requests come in here: whoever is told that there is room has to be
//! polled before it can use it, and another may be polled first. So a pipeline would not leave in its order.
//!
//! Lock order: `flight`, then the watch table, then `waiting`.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures_core::Stream;
use parking_lot::{Mutex, MutexGuard};
use prost::Message;
use quorate_proto::v1::{self, reply, request::Op};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    clock::{BootInstant, Clock},
    error::{Error, LostReason, Result},
    op,
};

/// More do not make a frame cheaper, and a member begins with the first when it has the last.
const FRAME_REQUESTS_MAX: usize = 256;
/// A frame is closed when it has grown to this; one request may be larger and then goes alone.
const FRAME_BYTES_SOFT_MAX: usize = 256 * 1024;
/// What numbers and tags add to a request, at most.
const REQUEST_OVERHEAD_BYTES: usize = 48;
/// Field 2 of `ClientFrame`, length-delimited.
const REQUESTS_TAG: u8 = 0x12;

/// Who waits for a request, and what becomes of it when the stream ends.
#[derive(Debug)]
pub(crate) enum Waiter {
    /// A caller. A read whose caller has left is not sent; a write that was sent stays.
    Caller(oneshot::Sender<Result<v1::Reply>>),
    /// The client itself, for this stream only: credentials, watches to set again or to take away.
    Stream,
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) request: v1::Request,
    pub(crate) waiter: Waiter,
    pub(crate) submitted: Instant,
}

impl Entry {
    pub(crate) fn new(op: Op, waiter: Waiter) -> Self {
        let request = v1::Request { op: Some(op), ..v1::Request::default() };
        Self { request, waiter, submitted: Instant::now() }
    }

    pub(crate) fn op(&self) -> &Op {
        self.request.op.as_ref().expect("`new` sets it")
    }

    /// What it counts for among the requests under way.
    fn cost(&self) -> u64 {
        1 + op::data_bytes(self.op()) as u64 / (16 * 1024)
    }

    /// A write that was sent at least once.
    fn is_numbered(&self) -> bool {
        self.request.write != 0
    }

    /// Nobody waits for it, and leaving it out makes no gap.
    fn is_abandoned(&self) -> bool {
        !self.is_numbered() && matches!(&self.waiter, Waiter::Caller(caller) if caller.is_closed())
    }

    pub(crate) fn answer(self, answer: Result<v1::Reply>) {
        if let Waiter::Caller(caller) = self.waiter {
            // A caller that has left does not want to know.
            let _ = caller.send(answer);
        }
    }
}

/// Why nothing is taken in any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shut {
    Closed,
    Lost(LostReason),
}

impl Shut {
    pub(crate) fn error(self, ambiguous: bool) -> Error {
        match self {
            Self::Lost(LostReason::Auth) => Error::AuthFailed,
            Self::Lost(reason) => Error::SessionLost { reason, ambiguous },
            Self::Closed if ambiguous => Error::SessionLost { reason: LostReason::ClientClosed, ambiguous },
            Self::Closed => Error::Closed,
        }
    }
}

#[derive(Debug)]
pub(crate) struct Outbox {
    flight: Mutex<Flight>,
    waiting: Mutex<Waiting>,
    clock: Clock,
}

#[derive(Debug)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// Of a stream that found nothing to send.
    waker: Option<Waker>,
    shut: Option<Shut>,
}

/// What the current stream has taken.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Counts streams; an older one takes nothing more.
    stream: u64,
    /// Whether the session is attached, so that requests may be sent.
    open: bool,
    sent: VecDeque<Entry>,
    /// What those count for.
    under_way: u64,
    under_way_max: u64,
    /// Outside of the order: their number on the stream and when they left.
    heartbeats: Vec<(u64, BootInstant)>,
    heartbeat_due: bool,
    /// Of a stream that may not send now.
    waker: Option<Waker>,
    next_seq: u64,
    next_write: u64,
    answered: u64,
    /// The first write that was declined before it had a turn (the disks are nearly full). Its number is not used
    /// up, and all writes in flight are declined too: nothing is sent until they have been, then it is given anew.
    declined: Option<u64>,
    window: usize,
    frame_bytes_max: usize,
    /// Size of the last frame, as a guess for the next.
    frame_bytes: usize,
}

/// What a reply turned out to be.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are answers, and it is taken apart at once")]
pub(crate) enum Settled {
    /// The answer to the oldest request.
    Answer(Entry, v1::Reply),
    /// The answer to a heartbeat that left at this moment.
    Heartbeat(BootInstant),
    /// The session is attached elsewhere, or numbers are out of step: attach again.
    Again,
    /// The session is gone.
    Expired,
    /// Not the next one, or to nothing.
    OutOfOrder { expected: u64 },
}

impl Outbox {
    pub(crate) fn new(under_way_max: u32, clock: Clock) -> Self {
        Self {
            flight: Mutex::new(Flight {
                stream: 0,
                open: false,
                sent: VecDeque::new(),
                under_way: 0,
                under_way_max: under_way_max.into(),
                heartbeats: Vec::new(),
                heartbeat_due: false,
                waker: None,
                next_seq: 1,
                next_write: 1,
                answered: 0,
                declined: None,
                window: 0,
                frame_bytes_max: 0,
                frame_bytes: 0,
            }),
            waiting: Mutex::new(Waiting { entries: VecDeque::new(), waker: None, shut: None }),
            clock,
        }
    }

    pub(crate) fn shut(&self) -> Option<Shut> {
        self.waiting.lock().shut
    }

    /// Puts a request at the end.
    pub(crate) fn push(&self, entry: Entry) -> Result<()> {
        let waker = {
            let mut waiting = self.waiting.lock();
            if let Some(shut) = waiting.shut {
                return Err(shut.error(false));
            }
            waiting.entries.push_back(entry);
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        Ok(())
    }

    /// Lets the stream send a heartbeat before anything else.
    pub(crate) fn heartbeat(&self) {
        self.flight.lock().heartbeat_due = true;
        self.wake();
    }

    fn wake(&self) {
        let first = self.flight.lock().waker.take();
        let second = self.waiting.lock().waker.take();
        for waker in [first, second].into_iter().flatten() {
            waker.wake();
        }
    }

    /// What a new stream is fed from. It yields `attach` first and nothing more until [`Outbox::open`].
    pub(crate) fn begin_stream(self: &Arc<Self>, attach: v1::AttachRequest) -> Outgoing {
        let mut flight = self.flight.lock();
        flight.stream += 1;
        (flight.next_seq, flight.open, flight.heartbeat_due) = (1, false, false);
        let attach = v1::ClientFrame { attach: Some(attach), requests: Vec::new() };
        Outgoing {
            outbox: self.clone(),
            stream: flight.stream,
            attach: Some(attach.encode_to_vec().into()),
            yielded: false,
        }
    }

    /// The session is attached: `setup` goes first, then what an earlier stream left unanswered, then the rest.
    ///
    /// The server names the number it expects next. Nothing from that number on was applied, and nothing from
    /// an older stream can be any more, so numbers that lie too high are given anew.
    pub(crate) fn open(&self, attached: &v1::Attached, setup: Vec<Entry>) -> Result<(), LostReason> {
        let mut flight = self.flight.lock();
        let mut waiting = self.waiting.lock();
        let expected = attached.next_write;
        if expected > flight.next_write {
            return Err(LostReason::Protocol);
        }
        let mut next = expected;
        for entry in waiting.entries.iter_mut().filter(|entry| entry.request.write >= expected) {
            entry.request.write = next;
            next += 1;
        }
        flight.next_write = next;
        flight.answered = flight.answered.min(expected.saturating_sub(1));
        flight.declined = None;
        for entry in setup.into_iter().rev() {
            waiting.entries.push_front(entry);
        }
        // Two places are left for heartbeats.
        flight.window = (attached.inflight_max as usize).saturating_sub(2).max(1);
        flight.frame_bytes_max = attached.frame_bytes_max as usize;
        flight.open = true;
        drop((flight, waiting));
        self.wake();
        Ok(())
    }

    /// The current stream is over: it ends, and what it left unanswered waits for the next one.
    pub(crate) fn end_stream(&self) {
        let mut flight = self.flight.lock();
        let mut waiting = self.waiting.lock();
        flight.stream += 1;
        flight.open = false;
        flight.heartbeats.clear();
        waiting.entries.retain(|entry| !matches!(entry.waiter, Waiter::Stream));
        let sent = std::mem::take(&mut flight.sent);
        flight.under_way = 0;
        for entry in sent.into_iter().rev() {
            if !matches!(entry.waiter, Waiter::Stream) && !entry.is_abandoned() {
                waiting.entries.push_front(entry);
            }
        }
        drop((flight, waiting));
        self.wake();
    }

    /// The session is gone: writes that were sent have an unknown outcome. What was not sent, and reads, go on
    /// in the next session, or fail if there is to be none.
    pub(crate) fn lose_session(&self, reason: LostReason, shut: Option<Shut>) {
        self.end_stream();
        let mut failed = Vec::new();
        {
            let mut flight = self.flight.lock();
            let mut waiting = self.waiting.lock();
            (flight.next_write, flight.answered) = (1, 0);
            waiting.shut = waiting.shut.or(shut);
            let all = std::mem::take(&mut waiting.entries);
            for entry in all {
                let is_close = matches!(entry.op(), Op::Close(_));
                if shut.is_some() || entry.is_numbered() || is_close {
                    failed.push(entry);
                } else {
                    waiting.entries.push_back(entry);
                }
            }
        }
        for entry in failed {
            let ambiguous = entry.is_numbered();
            let error = match shut {
                Some(shut) => shut.error(ambiguous),
                None => Error::SessionLost { reason, ambiguous },
            };
            entry.answer(Err(error));
        }
    }

    /// Answers what has waited longer than `timeout`, and forgets what nobody waits for.
    pub(crate) fn sweep(&self, timeout: Duration) {
        let now = Instant::now();
        let late = |entry: &Entry| now.duration_since(entry.submitted) >= timeout;
        let mut gone = Vec::new();
        let mut told = Vec::new();
        {
            let mut flight = self.flight.lock();
            let mut waiting = self.waiting.lock();
            if flight.sent.front().is_some_and(late) || waiting.entries.iter().any(|e| late(e) || e.is_abandoned()) {
                // What was sent keeps its place, for its reply will come; only its caller is told.
                let resent = waiting.entries.iter_mut().filter(|entry| entry.is_numbered());
                for entry in flight.sent.iter_mut().chain(resent).filter(|entry| late(entry)) {
                    if let Waiter::Caller(caller) = &mut entry.waiter {
                        let (closed, _) = oneshot::channel();
                        let caller = std::mem::replace(caller, closed);
                        told.push((caller, op::name(entry.op()), entry.is_numbered()));
                    }
                }
                let all = std::mem::take(&mut waiting.entries);
                for entry in all {
                    if !entry.is_numbered() && (late(&entry) || entry.is_abandoned()) {
                        gone.push(entry);
                    } else {
                        waiting.entries.push_back(entry);
                    }
                }
            }
        }
        for (caller, op, ambiguous) in told {
            let _ = caller.send(Err(Error::Timeout { op, after: timeout, ambiguous }));
        }
        for entry in gone {
            let op = op::name(entry.op());
            entry.answer(Err(Error::Timeout { op, after: timeout, ambiguous: false }));
        }
    }

    pub(crate) fn flight(&self) -> MutexGuard<'_, Flight> {
        self.flight.lock()
    }

    fn poll_frame(&self, stream: u64, yielded: &mut bool, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut flight = self.flight.lock();
        if flight.stream != stream {
            return Poll::Ready(None);
        }
        let room = flight.room();
        if !flight.open || (room == 0 && !flight.heartbeat_due) {
            flight.waker = Some(cx.waker().clone());
            *yielded = false;
            return Poll::Pending;
        }
        let mut waiting = self.waiting.lock();
        if waiting.entries.front().is_some_and(|next| !flight.takes(next)) && !flight.heartbeat_due {
            flight.waker = Some(cx.waker().clone());
            *yielded = false;
            return Poll::Pending;
        }
        if waiting.entries.is_empty() && !flight.heartbeat_due {
            waiting.waker = Some(cx.waker().clone());
            *yielded = false;
            return Poll::Pending;
        }
        if !*yielded {
            // Whoever else is ready to run may have a request for the same frame.
            *yielded = true;
            drop((flight, waiting));
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        *yielded = false;
        let taken = room.min(FRAME_REQUESTS_MAX).min(waiting.entries.len());
        let mut batch: VecDeque<Entry> = if taken == waiting.entries.len() {
            std::mem::take(&mut waiting.entries)
        } else {
            waiting.entries.drain(..taken).collect()
        };
        drop(waiting);
        let (frame, refused) = flight.encode(&mut batch, &self.clock);
        if !batch.is_empty() {
            let mut waiting = self.waiting.lock();
            for entry in batch.into_iter().rev() {
                waiting.entries.push_front(entry);
            }
        }
        drop(flight);
        for (entry, error) in refused {
            match error {
                Some(error) => entry.answer(Err(error)),
                None => drop(entry),
            }
        }
        if frame.is_empty() {
            // All that waited was taken back or refused.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(frame))
    }
}

impl Flight {
    /// Moves entries from the front of `batch` to `sent` and encodes them, until the frame is large enough.
    /// Also returns those that are not sent: abandoned ones, and those too large.
    fn encode(&mut self, batch: &mut VecDeque<Entry>, clock: &Clock) -> (Bytes, Vec<(Entry, Option<Error>)>) {
        let mut frame = BytesMut::with_capacity((self.frame_bytes + self.frame_bytes / 4).max(512));
        let mut refused = Vec::new();
        if std::mem::take(&mut self.heartbeat_due) {
            let request = v1::Request {
                seq: self.next_seq,
                op: Some(Op::Heartbeat(v1::HeartbeatRequest {})),
                ..v1::Request::default()
            };
            // Before the bytes leave, so that the lease is never counted from too late.
            self.heartbeats.push((self.next_seq, clock.now()));
            self.next_seq += 1;
            put(&mut frame, &request);
        }
        while let Some(mut entry) = batch.pop_front() {
            if entry.is_abandoned() {
                refused.push((entry, None));
                continue;
            }
            let bytes = entry.request.encoded_len() + REQUEST_OVERHEAD_BYTES;
            if bytes > self.frame_bytes_max && !entry.is_numbered() {
                let error = Error::RequestTooLarge { bytes, bytes_max: self.frame_bytes_max };
                refused.push((entry, Some(error)));
                continue;
            }
            if !self.takes(&entry)
                || !frame.is_empty() && frame.len() + bytes > FRAME_BYTES_SOFT_MAX.min(self.frame_bytes_max)
            {
                batch.push_front(entry);
                break;
            }
            if entry.request.write == 0 && op::is_write(entry.op()) {
                entry.request.write = self.next_write;
                self.next_write += 1;
            }
            entry.request.seq = self.next_seq;
            entry.request.answered = self.answered;
            self.next_seq += 1;
            put(&mut frame, &entry.request);
            self.under_way += entry.cost();
            self.sent.push_back(entry);
        }
        self.frame_bytes = frame.len();
        (frame.freeze(), refused)
    }

    /// Takes one reply in.
    pub(crate) fn settle(&mut self, reply: v1::Reply) -> Settled {
        let expected = self.sent.front().map_or(self.next_seq, |entry| entry.request.seq);
        if reply.seq != expected || self.sent.is_empty() {
            let Some(at) = self.heartbeats.iter().position(|(seq, _)| *seq == reply.seq) else {
                return Settled::OutOfOrder { expected };
            };
            let (_, asked_at) = self.heartbeats.swap_remove(at);
            return match reply.result {
                Some(reply::Result::Refused(refused)) => match refused.reason() {
                    v1::Refusal::SessionExpired => Settled::Expired,
                    _ => Settled::Again,
                },
                _ => Settled::Heartbeat(asked_at),
            };
        }
        if let Some(reply::Result::Refused(refused)) = &reply.result {
            // Neither is an answer to the request: it stays, and is sent again where it can be answered.
            match refused.reason() {
                v1::Refusal::SessionMoved | v1::Refusal::Gap => return Settled::Again,
                v1::Refusal::SessionExpired => return Settled::Expired,
                _ => {}
            }
        }
        let declined = matches!(&reply.result, Some(reply::Result::Refused(refused))
            if refused.reason() == v1::Refusal::DiskFull);
        let entry = self.sent.pop_front().expect("it has a front");
        self.under_way -= entry.cost();
        if entry.is_numbered() {
            if declined {
                self.declined.get_or_insert(entry.request.write);
            } else {
                self.answered = entry.request.write;
            }
        }
        if let Some(first) = self.declined
            && !self.sent.iter().any(Entry::is_numbered)
        {
            self.next_write = first;
            self.declined = None;
        }
        Settled::Answer(entry, reply)
    }

    /// The stream that waits for room, if there is room now.
    pub(crate) fn take_waker(&mut self) -> Option<Waker> {
        if self.room() > 0 { self.waker.take() } else { None }
    }

    /// How many requests may be sent now.
    fn room(&self) -> usize {
        let may_send = self.open && self.declined.is_none() && self.under_way < self.under_way_max;
        if may_send { self.window.saturating_sub(self.sent.len()) } else { 0 }
    }

    /// Whether a request may be sent next. One that is larger than all may be goes alone.
    fn takes(&self, next: &Entry) -> bool {
        self.sent.is_empty() || self.under_way + next.cost() <= self.under_way_max
    }
}

fn put(frame: &mut BytesMut, request: &v1::Request) {
    frame.put_u8(REQUESTS_TAG);
    request.encode_length_delimited(frame).expect("a growing buffer has room");
}

/// The frames of one stream, encoded.
#[derive(Debug)]
pub(crate) struct Outgoing {
    outbox: Arc<Outbox>,
    stream: u64,
    attach: Option<Bytes>,
    yielded: bool,
}

impl Stream for Outgoing {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Some(attach) = self.attach.take() {
            return Poll::Ready(Some(attach));
        }
        let Self { outbox, stream, yielded, .. } = &mut *self;
        outbox.poll_frame(*stream, yielded, cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::StreamExt as _;

    use super::*;

    fn outbox() -> (Arc<Outbox>, Outgoing) {
        let outbox = Arc::new(Outbox::new(100, Clock::default()));
        let mut stream = outbox.begin_stream(v1::AttachRequest::default());
        assert!(next_frame(&mut stream).attach.is_some());
        outbox.open(&attached(1), Vec::new()).unwrap();
        (outbox, stream)
    }

    fn attached(next_write: u64) -> v1::Attached {
        v1::Attached { next_write, inflight_max: 64, frame_bytes_max: 1 << 20, ..v1::Attached::default() }
    }

    fn set(outbox: &Outbox) {
        let op = Op::SetData(v1::SetDataRequest { path: "/a".into(), ..v1::SetDataRequest::default() });
        outbox.push(Entry::new(op, Waiter::Stream)).unwrap();
    }

    fn next_frame(stream: &mut Outgoing) -> v1::ClientFrame {
        try_frame(stream).expect("there is something to send")
    }

    /// Polls twice: the first poll lets others add to the frame.
    fn try_frame(stream: &mut Outgoing) -> Option<v1::ClientFrame> {
        let frame = stream.next().now_or_never().or_else(|| stream.next().now_or_never())?;
        Some(v1::ClientFrame::decode(frame.expect("the stream goes on")).unwrap())
    }

    fn writes(frame: &v1::ClientFrame) -> Vec<u64> {
        frame.requests.iter().map(|request| request.write).collect()
    }

    fn disk_full(seq: u64) -> v1::Reply {
        let refused = v1::RefusedReply { reason: v1::Refusal::DiskFull.into(), ..v1::RefusedReply::default() };
        v1::Reply { seq, zxid: 1, result: Some(reply::Result::Refused(refused)) }
    }

    #[test]
    fn a_declined_write_gives_its_number_to_the_next_once_all_in_flight_are_answered() {
        let (outbox, mut stream) = outbox();
        (0..3).for_each(|_| set(&outbox));
        assert_eq!(writes(&next_frame(&mut stream)), [1, 2, 3]);
        let done = v1::Reply { seq: 1, zxid: 1, result: Some(reply::Result::Stat(v1::Stat::default())) };
        drop(outbox.flight().settle(done));

        drop(outbox.flight().settle(disk_full(2)));
        set(&outbox);
        assert_eq!(try_frame(&mut stream), None, "write 3 is in flight, and will be declined as well");
        drop(outbox.flight().settle(disk_full(3)));

        let frame = next_frame(&mut stream);
        assert_eq!((writes(&frame), frame.requests[0].answered), (vec![2], 1));
    }

    #[test]
    fn what_was_in_flight_behind_a_declined_write_is_numbered_anew_on_the_next_stream() {
        let (outbox, mut stream) = outbox();
        let mut answers = Vec::new();
        for _ in 0..3 {
            let op = Op::SetData(v1::SetDataRequest { path: "/a".into(), ..v1::SetDataRequest::default() });
            let (caller, answer) = oneshot::channel();
            outbox.push(Entry::new(op, Waiter::Caller(caller))).unwrap();
            answers.push(answer);
        }
        assert_eq!(writes(&next_frame(&mut stream)), [1, 2, 3]);
        drop(outbox.flight().settle(disk_full(1)));

        outbox.end_stream();
        let mut stream = outbox.begin_stream(v1::AttachRequest::default());
        drop(next_frame(&mut stream));
        outbox.open(&attached(1), Vec::new()).unwrap();

        assert_eq!(writes(&next_frame(&mut stream)), [1, 2]);
    }
}
