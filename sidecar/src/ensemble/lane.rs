//! The open proposals of one lane, in order.
//!
//! A proposal is open from the time it gets its seq until the member that made it applies it. Whatever happens to
//! the leader or to the stream in between, the open proposals are sent again in order; the tree applies each once.
//!
//! Bounds: none of its own. Whoever proposes holds a permit (`member_inflight_max`) that travels in the completion,
//! so the list is as long as the permits allow, and the member's own commands beside them.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_tree::{Author, Lane, MemberId, Op};
use tokio::sync::Notify;

use super::command_codec::encode_proposal;
use crate::{
    clock::{Clock, Moment},
    replica::Completion,
    telemetry::metrics::{EnsembleMetrics, ProposalEnd},
};

/// One frame carries at most this many bytes of proposals, or a single proposal.
pub(crate) const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// The open proposals of one lane.
#[derive(Debug)]
pub(crate) struct OpenLane {
    member: MemberId,
    incarnation: u64,
    open: Mutex<Open>,
    metrics: Option<EnsembleMetrics>,
    /// Rung when there is something to send.
    wake: Notify,
    /// Rung when a proposal of this lane was applied before one that comes earlier.
    gap: Notify,
}

#[derive(Debug)]
struct Open {
    /// The seq of the first in the list; the others follow without holes.
    first: u64,
    /// The seq that the present stream is to carry next.
    unsent: u64,
    proposals: VecDeque<Proposal>,
    closed: bool,
}

#[derive(Debug)]
struct Proposal {
    proposed_at: Moment,
    bytes: Bytes,
    completion: Completion,
}

impl Open {
    fn next(&self) -> u64 {
        self.first + self.proposals.len() as u64
    }

    /// Forgets all before `next`; their completions are the caller's to drop, without the lock.
    fn split_below(&mut self, next: u64) -> VecDeque<Proposal> {
        let count = next.saturating_sub(self.first).min(self.proposals.len() as u64);
        self.first += count;
        self.unsent = self.unsent.max(self.first);
        // Only what goes is touched: tens of thousands may be open, and this is done for each that is applied.
        self.proposals.drain(..usize::try_from(count).expect("it is at most a length")).collect()
    }
}

impl OpenLane {
    /// The lane of a start of a member: nothing has been proposed in it.
    pub(crate) fn new(member: MemberId, incarnation: u64) -> Self {
        let open = Open { first: 1, unsent: 1, proposals: VecDeque::new(), closed: false };
        Self { member, incarnation, open: Mutex::new(open), metrics: None, wake: Notify::new(), gap: Notify::new() }
    }

    /// The same, and what becomes of its proposals is told.
    pub(crate) fn measured(self, metrics: EnsembleMetrics) -> Self {
        Self { metrics: Some(metrics), ..self }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Puts a proposal at the end and says its seq. Never waits. A closed lane drops the completion at once.
    pub(crate) fn propose(&self, author: Author, op: Op, traceparent: String, completion: Completion) -> u64 {
        let mut open = self.open.lock();
        let seq = open.next();
        if open.closed {
            drop(open);
            drop(completion);
            return seq;
        }
        let lane = Lane { member: self.member, incarnation: self.incarnation, seq };
        // Under the lock: the order of the list is the order of the seqs.
        let bytes = encode_proposal(lane, author, op, traceparent);
        open.proposals.push_back(Proposal { proposed_at: Clock::now(), bytes, completion });
        drop(open);
        self.wake.notify_one();
        seq
    }

    /// The completion of a proposal that is being applied in its turn. `None` if it is not an open one of this lane.
    pub(crate) fn take(&self, lane: &Lane) -> Option<Completion> {
        if lane.member != self.member || lane.incarnation != self.incarnation {
            return None;
        }
        let mut open = self.open.lock();
        let passed = open.split_below(lane.seq);
        let taken = if open.first == lane.seq { open.split_below(lane.seq + 1).pop_front() } else { None };
        drop(open);
        // In its turn means that all before it were applied, and taken; a snapshot may have stepped over some.
        self.ended(ProposalEnd::Unknown, passed.len());
        drop(passed);
        let taken = taken?;
        if let Some(metrics) = &self.metrics {
            metrics.proposal.record(Clock::now().since(taken.proposed_at));
        }
        Some(taken.completion)
    }

    /// Drops what was applied without being seen: a snapshot was installed over it. What became of it is unknown.
    pub(crate) fn forget_below(&self, next: u64) {
        let passed = self.open.lock().split_below(next);
        self.ended(ProposalEnd::Unknown, passed.len());
        drop(passed);
    }

    /// Makes all open proposals unsent: a new stream begins.
    pub(crate) fn rewind(&self) {
        let mut open = self.open.lock();
        let sent = open.unsent - open.first;
        open.unsent = open.first;
        let any = !open.proposals.is_empty();
        drop(open);
        self.ended(ProposalEnd::SentAgain, usize::try_from(sent).unwrap_or(usize::MAX));
        if any {
            self.wake.notify_one();
        }
    }

    fn ended(&self, how: ProposalEnd, count: usize) {
        if let Some(metrics) = self.metrics.as_ref().filter(|_| count > 0) {
            metrics.proposals_ended(how, count as u64);
        }
    }

    /// The next unsent proposals, as many as fit in one frame; empty if there are none.
    pub(crate) fn next_frame(&self) -> Vec<Bytes> {
        let mut open = self.open.lock();
        let sent = usize::try_from(open.unsent - open.first).expect("it is at most a length");
        let mut bytes = 0;
        let mut frame = Vec::new();
        for proposal in open.proposals.iter().skip(sent) {
            bytes += proposal.bytes.len();
            if !frame.is_empty() && bytes > FRAME_BYTES_MAX {
                break;
            }
            frame.push(proposal.bytes.clone());
        }
        open.unsent += frame.len() as u64;
        frame
    }

    /// Whether there is something that the present stream has not carried.
    pub(crate) fn has_unsent(&self) -> bool {
        let open = self.open.lock();
        open.unsent < open.next()
    }

    /// The oldest open seq, if any is open.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let open = self.open.lock();
        (!open.proposals.is_empty()).then_some(open.first)
    }

    /// Resolves when something has become unsent since the last time.
    ///
    /// Cancel safe.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// A later proposal came to be applied before an earlier one, and was not.
    pub(crate) fn gap_seen(&self) {
        self.gap.notify_one();
    }

    /// Resolves when a gap was seen since the last time.
    ///
    /// Cancel safe.
    pub(crate) async fn gap(&self) {
        self.gap.notified().await;
    }

    /// Drops all completions, and those of later proposals: nothing will be applied here any more.
    pub(crate) fn close(&self) {
        let mut open = self.open.lock();
        open.closed = true;
        let all = std::mem::take(&mut open.proposals);
        open.first += all.len() as u64;
        open.unsent = open.first;
        drop(open);
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    use quorate_tree::{Reply, Zxid};
    use tokio::sync::oneshot::{self, error::TryRecvError};

    use super::*;
    use crate::{ensemble::command_codec::decode_head, replica::Settled};

    const ME: MemberId = MemberId(3);

    fn lane() -> OpenLane {
        OpenLane::new(ME, 7)
    }

    fn propose(lane: &OpenLane) -> oneshot::Receiver<Settled> {
        let (ticket, settled) = oneshot::channel();
        lane.propose(Author::default(), Op::CloseSession, String::new(), Completion::Ticket(ticket));
        settled
    }

    fn seqs(frame: &[Bytes]) -> Vec<u64> {
        frame.iter().map(|proposal| decode_head(proposal).unwrap().lane.seq).collect()
    }

    fn is(ticket: &mut oneshot::Receiver<Settled>, expected: TryRecvError) -> bool {
        ticket.try_recv().is_err_and(|error| error == expected)
    }

    fn of(seq: u64) -> Lane {
        Lane { member: ME, incarnation: 7, seq }
    }

    #[test]
    fn proposals_are_sent_once_and_in_order_until_rewound() {
        let lane = lane();
        let _tickets = [propose(&lane), propose(&lane), propose(&lane)];

        let first = seqs(&lane.next_frame());
        let nothing = lane.next_frame();
        drop(lane.take(&of(1)));
        lane.rewind();
        let again = seqs(&lane.next_frame());

        assert_eq!(first, [1, 2, 3]);
        assert!(nothing.is_empty());
        assert_eq!(again, [2, 3]);
    }

    #[test]
    fn application_completes_exactly_its_own_proposal() {
        let lane = lane();
        let (mut first, mut second) = (propose(&lane), propose(&lane));

        let Some(Completion::Ticket(ticket)) = lane.take(&of(1)) else { panic!() };
        ticket.send(Settled { zxid: Zxid(5), outcome: Ok(Reply::Done) }).unwrap();

        assert_eq!(first.try_recv().unwrap().zxid, Zxid(5));
        assert!(second.try_recv().is_err());
        assert!(lane.take(&of(1)).is_none(), "it is not open any more");
    }

    #[test]
    fn lane_of_an_earlier_start_completes_nothing() {
        let lane = lane();
        let _ticket = propose(&lane);

        assert!(lane.take(&Lane { member: ME, incarnation: 6, seq: 1 }).is_none());
        assert!(lane.take(&Lane { member: MemberId(1), incarnation: 7, seq: 1 }).is_none());
        assert_eq!(lane.oldest(), Some(1));
    }

    #[test]
    fn what_a_snapshot_steps_over_is_unknown_and_the_rest_stays_open() {
        let lane = lane();
        let (mut first, mut second, mut third) = (propose(&lane), propose(&lane), propose(&lane));
        lane.next_frame();

        lane.forget_below(3);

        assert!(is(&mut first, TryRecvError::Closed));
        assert!(is(&mut second, TryRecvError::Closed));
        assert!(is(&mut third, TryRecvError::Empty));
        assert_eq!(lane.oldest(), Some(3));
        assert!(!lane.has_unsent());
    }

    #[test]
    fn frame_is_bounded_but_never_stuck_on_a_large_proposal() {
        let lane = lane();
        let large = |bytes: usize| {
            Op::SetData(quorate_tree::SetData { path: "/a".into(), data: Some(vec![0; bytes].into()), version: -1 })
        };
        for bytes in [2 * FRAME_BYTES_MAX, FRAME_BYTES_MAX / 2, FRAME_BYTES_MAX / 3, FRAME_BYTES_MAX / 2] {
            lane.propose(Author::default(), large(bytes), String::new(), Completion::Nobody);
        }

        let frames: Vec<_> = std::iter::repeat_with(|| seqs(&lane.next_frame())).take(4).collect();

        assert_eq!(frames, [vec![1], vec![2, 3], vec![4], vec![]]);
    }

    #[test]
    fn closed_lane_tells_everybody_that_nothing_is_known() {
        let lane = lane();
        let mut before = propose(&lane);

        lane.close();
        let mut after = propose(&lane);

        assert!(is(&mut before, TryRecvError::Closed));
        assert!(is(&mut after, TryRecvError::Closed));
        assert!(lane.next_frame().is_empty());
    }
}
