//! What only the leader does, in one task, so that proposals, touches and the end of sessions have one order.
//!
//! - Proposals of all members, as they come, into log entries of at most 1 MiB; a few entries are in flight.
//! - Touches and barriers: all that wait share the next confirmation of leadership by a majority.
//! - Sessions that are not heard from are ended; container and ttl nodes that are due are deleted.
//!
//! The leader's own commands form a lane of their own, [`LEADER_LANE`], whose incarnation is the term: a decision of
//! one leader is never carried into the term of another, who may have given a session a new promise.
//!
//! When an entry is refused (the lease has lapsed, another leads), every stream is ended and all that waits is dropped:
//! the members send again what is open, in order. Bounds: see `docs/limits.md`.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use openraft::{
    Instant as _, ReadPolicy, async_runtime::watch::WatchReceiver, impls::OneshotResponder, raft::ClientWriteResult,
};
use quorate_proto::peer;
use quorate_tree::{Author, MemberId, Op, SessionId, Tree};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{Span, debug, error, info, warn};

use super::{
    command_codec::{BatchWriter, check_proposal, decode_head},
    config::Timing,
    deadlines::{ExpiryQueue, Overdue},
    disks::DiskTable,
    lane::OpenLane,
    leader_door::{Event, LeaderDoor, LeaderQueue, Sender, StreamId},
    leadership::Leadership,
    machine::Raft,
    types::{BatchBytes, Types},
};
use crate::{
    clock::Clock,
    replica::{Completion, Replica},
    telemetry::traces,
};

/// The lane of the leader's own commands: no member has this id.
pub(crate) const LEADER_LANE: MemberId = MemberId(0);

/// One log entry carries at most this many bytes of proposals, or a single proposal.
pub(crate) const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// Log entries that are not applied yet. There is a second one only while little is in flight, or while much waits (see
/// [`Reign::may_propose`]).
pub(crate) const ENTRIES_IN_FLIGHT_MAX: usize = 4;

/// So little in flight holds nothing up: what comes meanwhile goes at once.
const PROPOSALS_FEW: usize = 2;

/// So much makes an entry worth its cost, whatever else is in flight.
const PROPOSALS_MANY: usize = 512;

/// How often sessions are looked at.
const EXPIRY_PERIOD: Duration = Duration::from_millis(50);

/// Sessions that are being ended at the same time. The rest follow when those are applied.
const EXPIRING_MAX: usize = 10_000;

/// Nodes reaped in a minute at most, as ZooKeeper's `maxPerMinute`.
const REAPED_PER_MINUTE_MAX: u64 = 10_000;

/// The leader's task: idle on members that do not lead.
pub(crate) struct LeaderTask {
    pub(crate) member: MemberId,
    pub(crate) raft: Raft,
    pub(crate) replica: Arc<Replica>,
    pub(crate) disks: Arc<DiskTable>,
    pub(crate) door: LeaderDoor,
    pub(crate) queue: LeaderQueue,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) timing: Timing,
    pub(crate) reap_period: Duration,
}

/// What there is only while this member leads.
struct Reign {
    term: u64,
    /// The leader's own commands.
    own: Arc<OpenLane>,
    own_unsent: VecDeque<Bytes>,
    pending: VecDeque<Pending>,
    in_flight: FuturesUnordered<Pin<Box<dyn Future<Output = EntryEnd> + Send>>>,
    proposals_in_flight: usize,
    /// Counts the restarts after a refusal.
    restarts: u64,
    /// Asked since the confirmation under way began.
    asked: Vec<Question>,
    confirmation: Option<Confirmation>,
    /// Whether the first entry of the term has been applied here.
    settled: bool,
    /// This leader is new, or an entry was refused: nothing is proposed until a majority has confirmed it.
    doubted: bool,
    /// The last confirmation failed: the next one is not tried at once.
    unconfirmed: bool,
    /// Nothing is proposed before: leadership is being handed over.
    held_until: Option<Instant>,
    deadlines: ExpiryQueue,
    /// Sessions whose end was proposed, with the place of that proposal in the own lane.
    expiring: HashMap<SessionId, u64>,
    overdue: VecDeque<Overdue>,
}

struct Pending {
    stream: StreamId,
    proposal: Bytes,
    /// From here until a majority has it, as a part of the caller's trace; disabled where there is none.
    span: Span,
}

/// What becomes one log entry.
struct NextEntry {
    batch: BatchWriter,
    proposals: usize,
    spans: Vec<Span>,
}

struct Confirmation {
    questions: Vec<Question>,
    answer: Pin<Box<dyn Future<Output = Result<u64, Unconfirmed>> + Send>>,
}

enum Question {
    Touch {
        stream: StreamId,
        number: u64,
        sessions: Vec<u64>,
    },
    Barrier {
        stream: StreamId,
        number: u64,
    },
    /// Whether this member leads, at the beginning and after a refusal.
    Doubt,
}

struct OpenStream {
    from: Sender,
    answers: mpsc::Sender<peer::LeaderFrame>,
    /// The member's disk is below its reserve.
    disk_low: bool,
}

/// Something under way came to its end.
enum Turn {
    Entry(EntryEnd),
    Confirmed((Vec<Question>, Result<u64, Unconfirmed>)),
}

/// What became of an entry, and of how many proposals it was.
struct EntryEnd {
    proposals: usize,
    end: End,
}

enum End {
    Applied,
    /// It may be applied or not; the members send its proposals again.
    Refused {
        restarts: u64,
        reason: String,
    },
}

/// No majority stood behind this leader.
struct Unconfirmed(String);

impl LeaderTask {
    /// Runs until stopped.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut streams: HashMap<StreamId, OpenStream> = HashMap::new();
        let mut reign: Option<Reign> = None;
        let mut expiry = interval(EXPIRY_PERIOD);
        expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reaping = interval(self.reap_period);
        reaping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.leadership.mark_changed();
        loop {
            if let Some(reign) = &mut reign {
                self.propose_batches(reign).await;
                self.begin_confirmation(reign);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // The sender lives as long as the ensemble, which stops this task first.
                Ok(()) = self.leadership.changed() => {
                    let now = *self.leadership.borrow_and_update();
                    if reign.as_ref().map(|reign| reign.term) != now.leads.then_some(now.term) {
                        streams.clear();
                        self.end_reign(reign.take());
                        reign = now.leads.then(|| self.begin_reign(now.term));
                    }
                }
                Some((reign, turn)) = next_turn(&mut reign) => match turn {
                    Turn::Entry(EntryEnd { proposals, end }) => {
                        reign.proposals_in_flight -= proposals;
                        // The entries behind a refused one are refused as well, mostly: one restart is for all of them.
                        if let End::Refused { restarts, reason } = end && restarts == reign.restarts {
                            debug!(term = reign.term, reason, "a log entry was refused: the members send again");
                            streams.clear();
                            reign.restart();
                        }
                    }
                    Turn::Confirmed(answer) => self.answer(reign, &mut streams, answer),
                },
                _ = expiry.tick() => {
                    if let Some(reign) = &mut reign {
                        self.expire(reign);
                    }
                }
                _ = reaping.tick() => {
                    if let Some(reign) = &mut reign {
                        self.reap(reign);
                    }
                }
                Some(event) = self.queue.0.recv() => {
                    self.take(event, &mut reign, &mut streams);
                    // All that has come shares the next entry and the next confirmation.
                    while let Ok(event) = self.queue.0.try_recv() {
                        self.take(event, &mut reign, &mut streams);
                    }
                }
            }
        }
        self.end_reign(reign);
    }

    fn begin_reign(&self, term: u64) -> Reign {
        info!(term, "this member leads");
        let own = Arc::new(OpenLane::new(LEADER_LANE, term));
        self.door.news().begin(&own);
        let now = Clock::now();
        let mut deadlines = ExpiryQueue::new(now, EXPIRY_PERIOD, self.timing.lease() / 2);
        // After the news began: whatever the tree does not show yet will be told.
        self.replica.read(|tree| {
            for view in tree.sessions() {
                deadlines.grant(view.session, view.attachment, timeout(view.timeout_ms), now);
            }
        });
        Reign {
            term,
            own,
            own_unsent: VecDeque::new(),
            pending: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            proposals_in_flight: 0,
            restarts: 0,
            // It has no lease before a majority has answered it, so an entry would be refused.
            asked: vec![Question::Doubt],
            confirmation: None,
            settled: false,
            doubted: true,
            unconfirmed: false,
            held_until: None,
            deadlines,
            expiring: HashMap::new(),
            overdue: VecDeque::new(),
        }
    }

    fn end_reign(&self, reign: Option<Reign>) {
        if let Some(reign) = reign {
            info!(term = reign.term, "this member leads no more");
            self.door.news().end();
            reign.own.close();
        }
    }

    fn take(&self, event: Event, reign: &mut Option<Reign>, streams: &mut HashMap<StreamId, OpenStream>) {
        match event {
            // Without a reign the answers are dropped, which ends the stream: its member looks for the leader again.
            Event::Opened { stream, from, answers } => {
                if reign.is_some() {
                    streams.insert(stream, OpenStream { from, answers, disk_low: false });
                }
            }
            Event::Closed { stream } => {
                streams.remove(&stream);
                if let Some(reign) = reign {
                    reign.drop_stream(stream);
                }
            }
            Event::Frame { stream, frame } => {
                // The frame may have been under way when the stream was ended.
                let (Some(reign), Some(open)) = (reign, streams.get_mut(&stream)) else { return };
                open.disk_low = frame.disk_low;
                if let Err(reason) = self.take_frame(reign, stream, open.from, frame) {
                    error!(member = %open.from.member, reason, "a member sent what cannot be");
                    streams.remove(&stream);
                    reign.drop_stream(stream);
                }
            }
            Event::Own { term, op, taken } => {
                if let Some(reign) = reign.as_mut().filter(|reign| reign.term == term) {
                    reign.propose_own(op);
                    // Whoever gave up waiting finds out when it is applied.
                    let _ = taken.send(());
                } else {
                    debug!(term, "a command of the leader's own came while this member does not lead in that term");
                }
            }
            Event::Hold(hold) => {
                if let Some(reign) = reign {
                    reign.held_until = Some(Instant::now() + hold);
                }
            }
        }
    }

    fn take_frame(
        &self,
        reign: &mut Reign,
        stream: StreamId,
        from: Sender,
        frame: peer::ForwardFrame,
    ) -> Result<(), String> {
        let now = Clock::now();
        for proposal in frame.proposals {
            let head = decode_head(&proposal).map_err(|error| error.to_string())?;
            let lane = head.lane;
            if (lane.member, lane.incarnation) != (from.member, from.incarnation) {
                return Err(format!("a proposal of member {} in another's stream", lane.member));
            }
            if from.member != self.member {
                check_proposal(&proposal).map_err(|error| error.to_string())?;
            }
            reign.deadlines.touch(head.session, now);
            let span = append_span(&head.traceparent);
            reign.pending.push_back(Pending { stream, proposal, span });
        }
        if let Some(peer::Touch { number, sessions }) = frame.touch {
            for session in &sessions {
                self.touch(reign, SessionId(*session));
            }
            reign.asked.push(Question::Touch { stream, number, sessions });
        }
        if let Some(peer::Barrier { number }) = frame.barrier {
            reign.asked.push(Question::Barrier { stream, number });
        }
        Ok(())
    }

    fn touch(&self, reign: &mut Reign, session: SessionId) {
        let now = Clock::now();
        if reign.deadlines.touch(session, now) || reign.expiring.contains_key(&session) {
            return;
        }
        // Applied, and its news not taken yet.
        if let Some(view) = self.replica.read(|tree| tree.session(session)) {
            reign.deadlines.grant(session, view.attachment, timeout(view.timeout_ms), now);
        }
    }

    /// Hands to Raft what waits, in as many entries as may be in flight.
    async fn propose_batches(&self, reign: &mut Reign) {
        if reign.held_until.is_some_and(|until| Instant::now() < until) {
            return;
        }
        let open = self.disks.writes_open();
        while reign.may_propose() {
            let Some(NextEntry { batch, proposals, spans }) = reign.next_entry(open) else { return };
            let (responder, end) = OneshotResponder::<Types, ClientWriteResult<Types>>::new_pair();
            if let Err(fatal) = self.raft.client_write_ff(BatchBytes(batch.finish()), Some(responder)).await {
                // The core has ended; whoever follows it ends this member.
                warn!(%fatal, "cannot propose");
                reign.doubted = true;
                return;
            }
            let restarts = reign.restarts;
            reign.proposals_in_flight += proposals;
            reign.in_flight.push(Box::pin(async move {
                let _open = spans;
                let end = match end.await {
                    Ok(Ok(_applied)) => End::Applied,
                    Ok(Err(refused)) => End::Refused { restarts, reason: refused.to_string() },
                    Err(_dropped) => End::Refused { restarts, reason: "the core has ended".into() },
                };
                EntryEnd { proposals, end }
            }));
        }
    }

    /// Asks a majority whether this member still leads, for all who wait to know.
    fn begin_confirmation(&self, reign: &mut Reign) {
        if reign.confirmation.is_some() || reign.asked.is_empty() {
            return;
        }
        let questions = std::mem::take(&mut reign.asked);
        let raft = self.raft.clone();
        let mut applied = (!reign.settled).then(|| self.replica.applied());
        // A refusal can be immediate while another leads and the news of it is still under way.
        let delay = if reign.unconfirmed { self.timing.retry() } else { Duration::ZERO };
        let answer = Box::pin(async move {
            // A sleep of nothing would still take until the timer's next millisecond.
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            let confirmed = raft.get_read_linearizer(ReadPolicy::ReadIndex).await;
            let confirmed = confirmed.map_err(|error| Unconfirmed(error.to_string()))?;
            let index = confirmed.read_log_id().index();
            if let Some(applied) = &mut applied {
                // The read index is not below the first entry of the term.
                let _ = applied.wait_for(|applied| applied.log_index >= index).await;
            }
            Ok(index)
        });
        reign.confirmation = Some(Confirmation { questions, answer });
    }

    fn answer(
        &self,
        reign: &mut Reign,
        streams: &mut HashMap<StreamId, OpenStream>,
        (questions, answer): (Vec<Question>, Result<u64, Unconfirmed>),
    ) {
        let log_index = match answer {
            Ok(log_index) => log_index,
            Err(Unconfirmed(reason)) => {
                debug!(term = reign.term, reason, "no majority stands behind this leader");
                reign.asked.splice(0..0, questions);
                reign.unconfirmed = true;
                return;
            }
        };
        reign.settled = true;
        reign.unconfirmed = false;
        let writes_refused = self.too_few_have_room(streams);
        for question in questions {
            let (stream, frame) = match question {
                Question::Doubt => {
                    reign.doubted = false;
                    continue;
                }
                Question::Touch { stream, number, sessions } => {
                    let lapsed = self.lapsed(reign, sessions);
                    (stream, peer::LeaderFrame { touched: Some(number), lapsed, writes_refused, barrier: None })
                }
                Question::Barrier { stream, number } => {
                    let barrier = Some(peer::BarrierReply { number, log_index });
                    (stream, peer::LeaderFrame { barrier, writes_refused, touched: None, lapsed: Vec::new() })
                }
            };
            let Some(open) = streams.get(&stream) else { continue };
            if open.answers.try_send(frame).is_err() {
                streams.remove(&stream);
                reign.drop_stream(stream);
            }
        }
    }

    /// Whether the leader, or so many members that no majority is left, have disks below their reserve.
    fn too_few_have_room(&self, streams: &HashMap<StreamId, OpenStream>) -> bool {
        let low: HashSet<MemberId> =
            streams.values().filter(|stream| stream.disk_low).map(|stream| stream.from.member).collect();
        low.contains(&self.member) || low.len() > (self.voters() - 1) / 2
    }

    fn voters(&self) -> usize {
        self.raft.metrics().borrow_watched().membership_config.voter_ids().count().max(1)
    }

    /// Which of the touched sessions have no new promise: they have ended, or their end is decided.
    fn lapsed(&self, reign: &Reign, mut sessions: Vec<u64>) -> Vec<u64> {
        if sessions.is_empty() {
            return sessions;
        }
        let overdue: HashSet<SessionId> = reign.overdue.iter().map(|overdue| overdue.session).collect();
        self.replica.read(|tree| {
            sessions.retain(|session| {
                let session = SessionId(*session);
                reign.expiring.contains_key(&session) || overdue.contains(&session) || has_ended(tree, session)
            });
        });
        sessions
    }

    fn expire(&self, reign: &mut Reign) {
        let now = Clock::now();
        for session in self.door.news().take() {
            match self.replica.read(|tree| tree.session(session)) {
                Some(view) => {
                    reign.deadlines.grant(session, view.attachment, timeout(view.timeout_ms), now);
                    reign.overdue.retain(|overdue| overdue.session != session);
                }
                None => reign.deadlines.forget(session),
            }
        }
        // An end that was applied and ended nothing met a newer attachment, which the news told of.
        let oldest = reign.own.oldest();
        reign.expiring.retain(|_, seq| oldest.is_some_and(|oldest| oldest <= *seq));
        reign.overdue.extend(reign.deadlines.tick(now, self.silent_for()));
        while reign.expiring.len() < EXPIRING_MAX {
            let Some(Overdue { session, attachment }) = reign.overdue.pop_front() else { break };
            info!(%session, attachment, "session was not heard from within its timeout");
            let seq = reign.propose_own(Op::ExpireSession { session, attachment });
            reign.expiring.insert(session, seq);
        }
    }

    /// How long ago a majority last answered this leader. Without one, no member's touches count.
    fn silent_for(&self) -> Option<Duration> {
        if self.voters() == 1 {
            return Some(Duration::ZERO);
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.last_quorum_acked.map(|acked| acked.elapsed())
    }

    fn reap(&self, reign: &mut Reign) {
        // Those that were found due before would be found again.
        if !reign.settled || reign.own.oldest().is_some() {
            return;
        }
        let share = REAPED_PER_MINUTE_MAX * self.reap_period.as_millis().min(60_000) as u64 / 60_000;
        let limit = usize::try_from(share.max(1)).expect("it is at most the number for a minute");
        let due = self.replica.read(|tree| tree.due_for_reaping(Clock::wall_ms(), limit));
        for reap in due {
            reign.propose_own(Op::Reap(reap));
        }
    }
}

impl Reign {
    fn propose_own(&mut self, op: Op) -> u64 {
        let seq = self.own.propose(Author::default(), op, String::new(), Completion::Nobody);
        self.own_unsent.extend(self.own.next_frame());
        seq
    }

    /// Whether what waits goes now, or shares an entry with what comes until those in flight are applied.
    ///
    /// An entry costs every member the same, however little is in it, so under load there is one at a time and each
    /// takes along all that came during the one before. A few proposals in flight are no load: a lock that is handed
    /// over would only wait.
    fn may_propose(&self) -> bool {
        let (entries, waiting) = (self.in_flight.len(), self.pending.len());
        let now = self.proposals_in_flight <= PROPOSALS_FEW || waiting >= PROPOSALS_MANY;
        !self.doubted && (entries == 0 || now && entries < ENTRIES_IN_FLIGHT_MAX)
    }

    /// The next entry: the leader's own commands first, then those of members if they may be taken.
    fn next_entry(&mut self, open: bool) -> Option<NextEntry> {
        let mut batch: Option<BatchWriter> = None;
        let mut spans = Vec::new();
        let mut proposals = 0;
        loop {
            let own = self.own_unsent.front();
            let next = own.or_else(|| self.pending.front().filter(|_| open).map(|pending| &pending.proposal));
            let Some(proposal) = next else { break };
            let is_own = own.is_some();
            if batch.as_ref().is_some_and(|batch| batch.bytes_len() + proposal.len() > ENTRY_BYTES_MAX) {
                break;
            }
            batch.get_or_insert_with(|| BatchWriter::new(Clock::wall_ms())).add(proposal);
            proposals += 1;
            if is_own {
                self.own_unsent.pop_front();
            } else {
                spans.extend(self.pending.pop_front().map(|pending| pending.span).filter(|span| !span.is_disabled()));
            }
        }
        batch.map(|batch| NextEntry { batch, proposals, spans })
    }

    /// Forgets all that came from members, and begins the own lane anew. Nothing is proposed until a majority has
    /// confirmed this leader: as long as its lease has lapsed, the next entry would be refused as well.
    fn restart(&mut self) {
        self.restarts += 1;
        self.pending.clear();
        self.own.rewind();
        self.own_unsent =
            std::iter::from_fn(|| Some(self.own.next_frame()).filter(|frame| !frame.is_empty())).flatten().collect();
        self.asked.retain(|question| matches!(question, Question::Doubt));
        if !self.doubted {
            self.doubted = true;
            self.asked.push(Question::Doubt);
        }
    }

    fn drop_stream(&mut self, gone: StreamId) {
        self.pending.retain(|pending| pending.stream != gone);
        self.asked.retain(|question| match question {
            Question::Touch { stream, .. } | Question::Barrier { stream, .. } => *stream != gone,
            Question::Doubt => true,
        });
    }
}

/// A proposal's way into the log of a majority, as a part of its caller's trace.
fn append_span(caller: &str) -> Span {
    if caller.is_empty() {
        return Span::none();
    }
    let span = tracing::info_span!(target: "quorate", "quorate.append");
    traces::continue_from(&span, caller);
    span
}

/// What happens next to what is under way. Never resolves when nothing is. Cancel safe: all of it stays.
async fn next_turn(reign: &mut Option<Reign>) -> Option<(&mut Reign, Turn)> {
    let Some(reign) = reign else { return std::future::pending().await };
    let turn = {
        let confirmation = async {
            match &mut reign.confirmation {
                Some(confirmation) => confirmation.answer.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(end) = reign.in_flight.next() => return Some((reign, Turn::Entry(end))),
            answer = confirmation => answer,
        }
    };
    let questions = reign.confirmation.take().map_or_else(Vec::new, |confirmation| confirmation.questions);
    Some((reign, Turn::Confirmed((questions, turn))))
}

/// Whether a session was there and is no more. One that was opened after what this copy shows is not there yet.
fn has_ended(tree: &Tree, session: SessionId) -> bool {
    let opened_at = session.0 & 0x00ff_ffff_ffff_ffff;
    opened_at <= tree.zxid().0 && tree.session(session).is_none()
}

fn timeout(timeout_ms: u32) -> Duration {
    Duration::from_millis(timeout_ms.into())
}
