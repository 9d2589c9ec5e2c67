//! What a session's stream promises about order, on the real tree.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use quorate_tree::{
    Acl, Author, Command, Create, CreateMode, Delete, Identity, Lane, Limits, MemberId, Op, Permissions, Reply,
    SessionEnd, SessionId, SetData, Tree, Zxid,
};
use tokio::sync::Semaphore;

use super::*;
use crate::telemetry::metrics::Metrics;

const ME: MemberId = MemberId(1);
const OTHER: MemberId = MemberId(2);

const LIMITS: QueueLimits = QueueLimits {
    outbox_events_max: 100,
    outbox_bytes_max: 1 << 20,
    reply_bytes_max: 1 << 19,
    run_work_max: 1000,
    waiting_bytes_max: 1 << 30,
};

/// A replica, its lanes, and one log entry per command.
struct Member {
    replica: Replica,
    own_seq: u64,
    other_seq: u64,
    log_index: u64,
    permits: Arc<Semaphore>,
    /// A session of the other member, which writes what this one watches.
    other: Author,
}

impl Member {
    fn new() -> Self {
        Self::with_limits(LIMITS)
    }

    fn with_limits(limits: QueueLimits) -> Self {
        let watch_limits = WatchLimits {
            watches_max: 1000,
            watches_per_session_max: 100,
            path_bytes_max: 1 << 20,
            path_bytes_per_session_max: 1 << 20,
        };
        Self::with_watch_limits(limits, watch_limits)
    }

    fn with_watch_limits(limits: QueueLimits, watch_limits: WatchLimits) -> Self {
        let mut member = Self {
            replica: Replica::new(ME, Tree::new(Limits::DEFAULT), 0, limits, watch_limits, Metrics::new(ME).sessions),
            own_seq: 0,
            other_seq: 0,
            log_index: 0,
            permits: Arc::new(Semaphore::new(1000)),
            other: Author::default(),
        };
        let open = member.command(OTHER, Author::default(), open());
        member.other = Author { session: SessionId::opened_by(OTHER, Zxid(1)), attachment: 1, ..Author::default() };
        member.apply(open, Completion::Nobody);
        member
    }

    fn command(&mut self, member: MemberId, author: Author, op: Op) -> Command {
        let seq = if member == ME { &mut self.own_seq } else { &mut self.other_seq };
        *seq += 1;
        Command { lane: Lane { member, incarnation: 1, seq: *seq }, stamp_ms: 1000, author, op }
    }

    fn apply(&mut self, command: Command, completion: Completion) -> ApplyReport {
        self.log_index += 1;
        let mut completion = Some(completion);
        self.replica.apply(self.log_index, &[command], &mut |_| completion.take())
    }

    fn by_other(&mut self, op: Op) {
        let own = matches!(op, Op::AttachSession { .. } | Op::ExpireSession { .. });
        let author = if own { Author::default() } else { self.other.clone() };
        let command = self.command(OTHER, author, op);
        self.apply(command, Completion::Nobody);
    }

    fn open(&mut self) -> Arc<SessionQueue> {
        let command = self.command(ME, Author::default(), open());
        let (ticket, mut opened) = oneshot::channel();
        self.apply(command, Completion::Ticket(ticket));
        let settled = opened.try_recv().unwrap();
        let Ok(Reply::Opened { session, attachment, .. }) = settled.outcome else { panic!("{settled:?}") };
        self.replica.attach(session, attachment).unwrap()
    }

    /// A session that reads, without a command.
    fn open_here(&self) -> Arc<SessionQueue> {
        self.replica.attach_here(SessionId(1))
    }

    /// Puts a write into the queue without applying it.
    fn begin(&mut self, queue: &Arc<SessionQueue>, tag: u64, op: Op) -> (Command, Completion) {
        let slot = self.replica.submit(queue, vec![Submit { tag, kind: SubmitKind::Write }]);
        let author = Author { session: queue.session, attachment: 1, ..Author::default() };
        let permit = self.permits.clone().try_acquire_owned().unwrap();
        (self.command(ME, author, op), Completion::Write { queue: queue.clone(), slot, permit })
    }

    fn read(&self, queue: &SessionQueue, tag: u64, read: Read, barrier: bool) -> SlotId {
        let kind = SubmitKind::Read { read, identities: Arc::from([]), barrier };
        self.replica.submit(queue, vec![Submit { tag, kind }])
    }
}

fn open() -> Op {
    Op::OpenSession { timeout_ms: 4000, password: Bytes::from_static(&[7; 16]), client_name: "t".into() }
}

fn create(path: &str) -> Op {
    let mode = CreateMode::Persistent;
    Op::Create(Create { path: path.into(), data: Some(Bytes::new()), mode, acl: vec![Acl::open()] })
}

fn set(path: &str, data: &'static str) -> Op {
    Op::SetData(SetData { path: path.into(), data: Some(data.into()), version: -1 })
}

fn get(path: &str, watch: bool) -> Read {
    Read::Get { path: path.into(), watch }
}

/// Items as short texts: `tag=answer` or `kind path`.
fn said(queue: &SessionQueue) -> Vec<String> {
    queue
        .take()
        .items
        .into_iter()
        .map(|item| match item {
            Item::Reply { tag, answer: Answer::Get { data, .. }, .. } => {
                format!("{tag}={}", String::from_utf8(data.unwrap().to_vec()).unwrap())
            }
            Item::Reply { tag, answer: Answer::Refused(refused), .. } => format!("{tag}={:?}", refused.reason),
            Item::Reply { tag, answer: Answer::Declined(declined), .. } => format!("{tag}={declined:?}"),
            Item::Reply { tag, .. } => format!("{tag}=ok"),
            Item::Event(event) => format!("{:?} {}", event.kind, event.path),
        })
        .collect()
}

#[test]
fn a_read_with_nothing_before_it_runs_at_once() {
    let mut member = Member::new();
    let queue = member.open();
    member.by_other(create("/a"));

    member.read(&queue, 1, get("/a", false), false);

    assert_eq!(said(&queue), ["1="]);
}

#[test]
fn a_read_sees_the_write_before_it_and_not_the_write_after_it() {
    let mut member = Member::new();
    let queue = member.open();
    member.by_other(create("/a"));
    let (first, first_done) = member.begin(&queue, 1, set("/a", "one"));
    member.read(&queue, 2, get("/a", false), false);
    let (second, second_done) = member.begin(&queue, 3, set("/a", "two"));
    assert_eq!(said(&queue), Vec::<String>::new());

    let mut completions = [Some(first_done), Some(second_done)];
    member.log_index += 1;
    let first_seq = first.lane.seq;
    member.replica.apply(member.log_index, &[first, second], &mut |lane| {
        completions[usize::try_from(lane.seq - first_seq).unwrap()].take()
    });

    assert_eq!(said(&queue), ["1=ok", "2=one", "3=ok"]);
}

#[test]
fn a_linearizable_read_waits_for_its_barrier() {
    let mut member = Member::new();
    let queue = member.open();
    member.by_other(create("/a"));
    let slot = member.read(&queue, 1, get("/a", false), true);
    member.read(&queue, 2, get("/a", false), false);
    member.by_other(set("/a", "later"));
    assert_eq!(said(&queue), Vec::<String>::new());

    member.replica.release(&queue, slot);

    assert_eq!(said(&queue), ["1=later", "2=later"]);
}

#[test]
fn a_linearizable_read_does_not_see_a_later_write_of_its_own_session() {
    let mut member = Member::new();
    let queue = member.open();
    member.by_other(create("/a"));
    member.read(&queue, 1, get("/a", false), true);
    let (write, done) = member.begin(&queue, 2, set("/a", "mine"));

    member.apply(write, done);

    assert_eq!(said(&queue), ["1=", "2=ok"]);
}

#[test]
fn an_event_comes_after_the_read_that_armed_it_and_before_the_reply_that_shows_it() {
    let mut member = Member::new();
    let queue = member.open();
    member.by_other(create("/a"));
    member.read(&queue, 1, get("/a", true), false);
    member.by_other(set("/a", "new"));

    member.read(&queue, 2, get("/a", false), false);

    assert_eq!(said(&queue), ["1=", "DataChanged /a", "2=new"]);
}

#[test]
fn a_clients_own_write_sends_its_event_before_its_reply() {
    let mut member = Member::new();
    let queue = member.open();
    member.by_other(create("/a"));
    member.read(&queue, 1, get("/a", true), false);
    let (write, done) = member.begin(&queue, 2, set("/a", "new"));

    member.apply(write, done);

    assert_eq!(said(&queue), ["1=", "DataChanged /a", "2=ok"]);
}

#[test]
fn a_watch_armed_behind_a_pending_write_is_armed_at_its_place() {
    let mut member = Member::new();
    let queue = member.open();
    member.by_other(create("/a"));
    let (write, done) = member.begin(&queue, 1, set("/a", "one"));
    member.read(&queue, 2, get("/a", true), false);

    member.apply(write, done);
    member.by_other(set("/a", "two"));

    assert_eq!(said(&queue), ["1=ok", "2=one", "DataChanged /a"]);
}

#[test]
fn closing_a_session_answers_before_it_ends() {
    let mut member = Member::new();
    let queue = member.open();
    let (close, done) = member.begin(&queue, 1, Op::CloseSession);

    member.apply(close, done);

    let taken = queue.take();
    assert_eq!(taken.items.len(), 1);
    assert_eq!(taken.end, Some(QueueEnd::Session(SessionEnd::Closed)));
}

#[test]
fn an_expired_session_is_told_after_its_ephemerals_are_gone() {
    let mut member = Member::new();
    let queue = member.open();
    let watcher = member.open();
    let mode = CreateMode::Ephemeral;
    let (write, done) = member.begin(
        &queue,
        1,
        Op::Create(Create { path: "/e".into(), data: Some(Bytes::new()), mode, acl: vec![Acl::open()] }),
    );
    member.apply(write, done);
    member.read(&watcher, 1, Read::Exists { path: "/e".into(), watch: true }, false);

    member.by_other(Op::ExpireSession { session: queue.session, attachment: 1 });

    assert_eq!(said(&watcher), ["1=ok", "Deleted /e"]);
    assert_eq!(queue.take().end, Some(QueueEnd::Session(SessionEnd::Expired)));
    assert!(member.replica.attach(queue.session, 1).is_err());
}

#[test]
fn attaching_elsewhere_ends_the_older_queue() {
    let mut member = Member::new();
    let queue = member.open();

    let password = Bytes::from_static(&[7; 16]);
    member.by_other(Op::AttachSession { session: queue.session, password, timeout_ms: 4000 });

    assert_eq!(queue.take().end, Some(QueueEnd::Moved));
}

#[test]
fn a_wrong_password_ends_nothing() {
    let mut member = Member::new();
    let queue = member.open();

    let password = Bytes::from_static(&[8; 16]);
    member.by_other(Op::AttachSession { session: queue.session, password, timeout_ms: 4000 });

    assert_eq!(queue.take().end, None);
}

#[test]
fn too_many_events_close_the_queue_and_leave_the_session() {
    let limits = QueueLimits {
        outbox_events_max: 3,
        outbox_bytes_max: 1 << 20,
        reply_bytes_max: 1 << 19,
        run_work_max: 1000,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let queue = member.open();
    member.read(&queue, 1, Read::Watch { path: "/".into(), recursive: true }, false);

    for n in 0..4 {
        member.by_other(create(&format!("/n{n}")));
    }

    assert_eq!(queue.take().end, Some(QueueEnd::TooSlow));
    assert!(member.replica.read(|tree| tree.session(queue.session).is_some()));
}

#[test]
fn reads_wait_in_their_slots_while_too_much_is_waiting_to_be_sent() {
    let limits = QueueLimits {
        outbox_events_max: 100,
        outbox_bytes_max: 4096,
        reply_bytes_max: 4096,
        run_work_max: 1000,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let queue = member.open();
    let data = Some(Bytes::from(vec![b'x'; 1500]));
    member.by_other(Op::Create(Create {
        path: "/big".into(),
        data,
        mode: CreateMode::Persistent,
        acl: vec![Acl::open()],
    }));

    for tag in 0..6 {
        member.read(&queue, tag, get("/big", false), false);
    }

    let mut answered = 0;
    for _ in 0..6 {
        let taken = queue.take();
        assert_eq!(taken.end, None);
        answered += taken.items.len();
        member.replica.resume(&queue);
    }
    assert_eq!(answered, 6);
}

#[test]
fn events_count_by_their_bytes_as_well() {
    let limits = QueueLimits {
        outbox_events_max: 100,
        outbox_bytes_max: 4096,
        reply_bytes_max: 4096,
        run_work_max: 1000,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let queue = member.open();
    member.read(&queue, 1, Read::Watch { path: "/".into(), recursive: true }, false);

    for n in 0..6 {
        member.by_other(create(&format!("/{n}{}", "x".repeat(1000))));
    }

    assert_eq!(queue.take().end, Some(QueueEnd::TooSlow));
}

#[test]
fn a_session_may_catch_up_with_more_than_it_may_fall_behind() {
    let limits = QueueLimits {
        outbox_events_max: 3,
        outbox_bytes_max: 1 << 20,
        reply_bytes_max: 1 << 19,
        run_work_max: 1000,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let queue = member.open();
    let gone: Vec<String> = (0..10).map(|n| format!("/gone{n}")).collect();

    member.read(&queue, 1, Read::Rearm(Box::new(Rearm { data: gone, ..Rearm::default() })), false);

    let taken = queue.take();
    assert_eq!((taken.items.len(), taken.end), (11, None));
}

#[test]
fn reads_that_take_long_let_others_have_the_lock_between_them() {
    let limits = QueueLimits {
        outbox_events_max: 100,
        outbox_bytes_max: 1 << 20,
        reply_bytes_max: 1 << 19,
        run_work_max: 30,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let queue = member.open();
    for n in 0..20 {
        member.by_other(create(&format!("/n{n}")));
    }
    let long = [
        Read::Children { path: "/".into(), watch: false },
        Read::Rearm(Box::new(Rearm { exists: vec!["/no".into(); 20], ..Rearm::default() })),
        // A bare path looks at little, a long one at much.
        get(&format!("/{}", "x".repeat(20 * 64)), false),
        Read::Many(vec![get("/no", false); 20]),
    ];

    for read in long {
        let kind = || SubmitKind::Read { read: read.clone(), identities: Arc::from([]), barrier: false };
        member.replica.submit(&queue, (0..5).map(|tag| Submit { tag, kind: kind() }).collect());

        let mut holds = Vec::new();
        loop {
            let taken = queue.take();
            holds.push(taken.items.len());
            if !taken.held_back {
                break;
            }
            member.replica.resume(&queue);
        }
        assert_eq!(holds, [2, 2, 1], "{read:?}");
    }
}

#[test]
fn very_many_watches_are_set_again_in_parts() {
    let limits = QueueLimits {
        outbox_events_max: 100,
        outbox_bytes_max: 1 << 20,
        reply_bytes_max: 1 << 19,
        run_work_max: 10,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let queue = member.open();
    member.by_other(create("/there"));
    let exists = (0..25).map(|n| format!("/no{n}")).collect();
    let rearm = Rearm { exists, data: vec!["/gone".into()], recursive: vec!["/".into()], ..Rearm::default() };

    member.read(&queue, 1, Read::Rearm(Box::new(rearm)), false);
    let mut parts = Vec::new();
    loop {
        let taken = queue.take();
        parts.push(taken.items.len());
        if !taken.held_back {
            break;
        }
        // The connection is told that there is more to do, also where there is nothing to send.
        queue.ready().now_or_never().expect("it was woken");
        member.replica.resume(&queue);
    }

    assert_eq!(parts, [1, 0, 2], "a deletion; only watches; a mark and the answer");
    assert_eq!(member.replica.watch_count(), 26);
}

#[test]
fn watches_that_are_set_again_in_parts_are_refused_as_one() {
    let limits = QueueLimits {
        outbox_events_max: 100,
        outbox_bytes_max: 1 << 20,
        reply_bytes_max: 1 << 19,
        run_work_max: 60,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let queue = member.open();
    let exists = (0..500).map(|n| format!("/no{n}")).collect();

    member.read(&queue, 1, Read::Rearm(Box::new(Rearm { exists, ..Rearm::default() })), false);
    let mut parts = 1;
    while queue.in_flight() > 0 {
        assert!(queue.take().held_back && parts < 4);
        member.replica.resume(&queue);
        parts += 1;
    }

    assert_eq!(said(&queue), ["1=TooManyWatches"]);
}

#[test]
fn reads_that_would_hold_up_the_applier_close_the_queue() {
    let limits = QueueLimits {
        outbox_events_max: 100,
        outbox_bytes_max: 1 << 20,
        reply_bytes_max: 1 << 19,
        run_work_max: 1,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let (queue, patient) = (member.open(), member.open());
    for n in 0..20 {
        member.by_other(create(&format!("/n{n}")));
    }
    let children = || Read::Children { path: "/".into(), watch: false };
    for (queue, reads, end) in [(queue, 20, Some(QueueEnd::TooSlow)), (patient, 2, None)] {
        let first = member.begin(&queue, 1, set("/n0", "x"));
        for _ in 0..reads {
            member.read(&queue, 2, children(), false);
        }
        let second = member.begin(&queue, 3, set("/n0", "y"));

        for (command, done) in [first, second] {
            member.apply(command, done);
        }

        let taken = queue.take();
        assert_eq!(taken.end, end);
        assert_eq!(taken.items.len() == reads + 2, end.is_none());
    }
}

#[test]
fn one_of_several_reads_that_is_too_large_makes_all_of_them_too_large() {
    let limits = QueueLimits {
        outbox_events_max: 100,
        outbox_bytes_max: 4096,
        reply_bytes_max: 200,
        run_work_max: 1000,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let queue = member.open();
    for n in 0..20 {
        member.by_other(create(&format!("/a-rather-long-name-{n}")));
    }
    let children = Read::Children { path: "/".into(), watch: false };

    member.read(&queue, 1, Read::Many(vec![children; 2]), false);

    assert_eq!(said(&queue), ["1=ReplyTooLarge"]);
}

#[test]
fn slow_clients_together_hold_no_more_than_the_member_may() {
    let limits = QueueLimits {
        outbox_events_max: 100,
        outbox_bytes_max: 1 << 20,
        reply_bytes_max: 1 << 19,
        run_work_max: 1000,
        waiting_bytes_max: 250_000,
    };
    let mut member = Member::with_limits(limits);
    let Op::Create(node) = create("/big") else { unreachable!("it is one") };
    let data = Some(Bytes::from(vec![b'x'; 100_000]));
    member.by_other(Op::Create(Create { data, ..node }));
    let (slow, other) = (member.open(), member.open());

    for tag in 0..4 {
        member.read(&slow, tag, get("/big", false), false);
    }
    assert_eq!(slow.take().items.len(), 2, "from half of what may wait on, one answer at a time");
    member.replica.resume(&slow);
    assert_eq!(slow.in_flight(), 2, "those are not yet sent");

    member.read(&other, 1, get("/big", false), false);
    member.read(&other, 2, get("/zookeeper", false), false);
    let third = member.open();
    member.read(&third, 1, get("/big", false), false);
    assert_eq!(said(&third), ["1=Busy"]);
    assert_eq!(said(&third), Vec::<String>::new());
    member.read(&third, 2, Read::Exists { path: "/big".into(), watch: false }, false);
    assert_eq!(said(&third), ["2=ok"], "small answers are always given");

    slow.take();
    member.replica.resume(&slow);
    assert_eq!(slow.in_flight(), 1, "what was taken before is sent");
}

#[test]
fn an_answer_that_no_frame_could_carry_is_refused() {
    let limits = QueueLimits {
        outbox_events_max: 100,
        outbox_bytes_max: 4096,
        reply_bytes_max: 200,
        run_work_max: 1000,
        waiting_bytes_max: 1 << 30,
    };
    let mut member = Member::with_limits(limits);
    let queue = member.open();
    for n in 0..20 {
        member.by_other(create(&format!("/a-rather-long-name-{n}")));
    }

    member.read(&queue, 1, Read::Children { path: "/".into(), watch: true }, false);

    assert_eq!(said(&queue), ["1=ReplyTooLarge"]);
    assert_eq!(member.replica.watch_count(), 0);
}

#[test]
fn rearming_fires_what_was_missed_and_arms_the_rest() {
    let mut member = Member::new();
    member.by_other(create("/changed"));
    member.by_other(create("/same"));
    member.by_other(create("/gone"));
    member.by_other(create("/parent"));
    let seen = member.replica.read(Tree::zxid);
    member.by_other(set("/changed", "new"));
    member.by_other(Op::Delete(Delete { path: "/gone".into(), version: -1 }));
    member.by_other(create("/appeared"));
    member.by_other(create("/parent/child"));
    let queue = member.open();

    let rearm = Rearm {
        since: seen,
        data: vec!["/changed".into(), "/same".into(), "/gone".into()],
        exists: vec!["/appeared".into(), "/absent".into()],
        children: vec!["/parent".into(), "/same".into()],
        persistent: vec!["/p".into()],
        recursive: vec![],
    };
    member.read(&queue, 1, Read::Rearm(Box::new(rearm)), false);

    let mut said = said(&queue);
    assert_eq!(said.pop().unwrap(), "1=ok");
    said.sort();
    assert_eq!(
        said,
        ["ChildrenChanged /parent", "Created /appeared", "DataChanged /changed", "Deleted /gone", "Resync /p"]
    );
    // /same twice, /absent, and the persistent one in both tables.
    assert_eq!(member.replica.watch_count(), 5);
}

#[test]
fn a_snapshot_from_elsewhere_ends_every_queue() {
    let mut member = Member::new();
    let queue = member.open();
    member.read(&queue, 1, get("/", false), false);

    member.replica.install(Tree::new(Limits::DEFAULT), 9);

    let taken = queue.take();
    assert_eq!((taken.items.len(), taken.end), (1, Some(QueueEnd::Replaced)));
    member.read(&queue, 2, get("/", false), false);
    assert_eq!(queue.take().items.len(), 0);
}

#[test]
fn a_detached_queue_leaves_no_watch() {
    let mut member = Member::new();
    let queue = member.open();
    member.read(&queue, 1, get("/", true), false);

    member.replica.detach(&queue);

    assert_eq!(member.replica.watch_count(), 0);
    assert_eq!(member.replica.attached_sessions(), []);
}

#[test]
fn an_own_gap_is_reported_and_answers_nobody() {
    let mut member = Member::new();
    let queue = member.open();
    let (lost, lost_done) = member.begin(&queue, 1, create("/lost"));
    let (late, late_done) = member.begin(&queue, 2, create("/late"));

    let mut open = [Some(lost_done), Some(late_done)];
    let first_seq = lost.lane.seq;
    let mut take = |lane: &Lane| open[usize::try_from(lane.seq - first_seq).unwrap()].take();
    let gap = member.replica.apply(90, std::slice::from_ref(&late), &mut take);
    let again = member.replica.apply(91, &[lost, late], &mut take);

    assert!(gap.own_gap);
    assert!(!again.own_gap);
    assert_eq!(said(&queue), ["1=ok", "2=ok"]);
}

#[test]
fn what_was_sent_again_is_answered_once() {
    let mut member = Member::new();
    let queue = member.open();
    let (write, done) = member.begin(&queue, 1, create("/once"));
    let again = write.clone();

    member.apply(write, done);
    member.apply(again, Completion::Nobody);

    assert_eq!(said(&queue), ["1=ok"]);
}

#[test]
fn digest_marks_are_reported_at_their_zxid() {
    let mut member = Member::new();
    let mut marks = Vec::new();
    for _ in 1..DIGEST_MARK_EVERY {
        let command = member.command(OTHER, Author::default(), set("/none", "x"));
        marks.extend(member.apply(command, Completion::Nobody).digest_marks);
    }

    assert_eq!(marks, [(Zxid(DIGEST_MARK_EVERY), member.replica.read(Tree::digest))]);
}

#[test]
fn permits_come_back_when_the_write_is_applied() {
    let mut member = Member::new();
    let queue = member.open();
    let before = member.permits.available_permits();
    let (write, done) = member.begin(&queue, 1, create("/a"));
    assert_eq!(member.permits.available_permits(), before - 1);

    member.apply(write, done);

    assert_eq!(member.permits.available_permits(), before);
}

#[test]
fn events_of_unreadable_nodes_are_not_told() {
    let mut member = Member::new();
    let queue = member.open();
    let owner = Identity { scheme: "digest".into(), id: "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=".into() };
    let secret = Create {
        path: "/secret".into(),
        data: Some(Bytes::new()),
        mode: CreateMode::Persistent,
        acl: vec![Acl { permissions: Permissions::ALL, identity: owner.clone() }],
    };
    member.other.identities = [owner.clone()].into();
    member.read(&queue, 1, Read::Watch { path: "/".into(), recursive: true }, false);

    member.by_other(Op::Create(secret.clone()));
    member.by_other(set("/secret", "x"));
    member.by_other(create("/open"));
    queue.set_identities(Arc::from([owner]));
    member.by_other(set("/secret", "y"));
    queue.set_identities(Arc::from([]));
    member.by_other(Op::Delete(Delete { path: "/secret".into(), version: -1 }));

    assert_eq!(said(&queue), ["1=ok", "Created /open", "DataChanged /secret"]);
}

/// Only the answers, in order.
fn answers(queue: &SessionQueue) -> Vec<Answer> {
    let answer = |item| match item {
        Item::Reply { answer, .. } => Some(answer),
        Item::Event(_) => None,
    };
    queue.take().items.into_iter().filter_map(answer).collect()
}

#[test]
fn a_watch_is_found_and_removed_by_its_own_kind_only() {
    use WatchKind::{Any, Children, Data, Persistent, Recursive};

    const KINDS: [WatchKind; 5] = [Data, Children, Persistent, Recursive, Any];
    let (get, children) = (get("/a", true), Read::Children { path: "/a".into(), watch: true });
    let watch = |recursive| Read::Watch { path: "/a".into(), recursive };
    for (armed, arm) in [(Data, get), (Children, children), (Persistent, watch(false)), (Recursive, watch(true))] {
        let mut member = Member::new();
        let queue = member.open();
        member.by_other(create("/a"));
        member.read(&queue, 1, arm, false);
        queue.take();

        for kind in KINDS {
            member.read(&queue, 2, Read::HasWatch { path: "/a".into(), kind }, false);
            let expected =
                if kind == armed || kind == Any { Answer::Done } else { Answer::Declined(Declined::NoWatch) };
            assert_eq!(answers(&queue), [expected], "{armed:?} looked for as {kind:?}");
        }
        for kind in KINDS.into_iter().filter(|kind| *kind != armed && *kind != Any) {
            member.read(&queue, 3, Read::Unwatch { path: "/a".into(), kind }, false);
            assert_eq!(answers(&queue), [Answer::Declined(Declined::NoWatch)], "{armed:?} removed as {kind:?}");
        }
        member.read(&queue, 4, Read::Unwatch { path: "/a".into(), kind: armed }, false);
        assert_eq!(answers(&queue), [Answer::Done], "{armed:?}");
        member.by_other(set("/a", "changed"));
        member.by_other(create("/a/b"));
        assert_eq!(said(&queue), Vec::<String>::new(), "{armed:?}");
        assert_eq!(member.replica.watch_count(), 0);
    }
}

#[test]
fn ephemerals_are_listed_by_the_text_their_paths_begin_with() {
    let mut member = Member::new();
    let queue = member.open();
    for path in ["/e", "/e1", "/f"] {
        let Op::Create(node) = create(path) else { unreachable!("it is one") };
        let (write, done) = member.begin(&queue, 1, Op::Create(Create { mode: CreateMode::Ephemeral, ..node }));
        member.apply(write, done);
    }
    queue.take();
    let other = member.other.session;

    for (session, prefix) in [(queue.session, "/e"), (queue.session, ""), (other, "")] {
        member.read(&queue, 2, Read::Ephemerals { session, prefix: prefix.into() }, false);
    }

    let names = |names: &[&str]| Answer::Names(names.iter().map(|name| (*name).to_owned()).collect());
    assert_eq!(answers(&queue), [names(&["/e", "/e1"]), names(&["/e", "/e1", "/f"]), names(&[])]);
}

#[test]
fn nodes_below_are_counted_without_the_node_itself() {
    let mut member = Member::new();
    let queue = member.open();
    for path in ["/a", "/a/b", "/a/b/c", "/ab"] {
        member.by_other(create(path));
    }

    for path in ["/a", "/a/b/c", "/", "/no"] {
        member.read(&queue, 1, Read::CountBelow { path: path.into() }, false);
    }

    let no_node = Answer::Refused(Refusal::NoNode.into());
    assert_eq!(answers(&queue), [Answer::Count(2), Answer::Count(0), Answer::Count(7), no_node]);
}

#[test]
fn several_reads_are_answered_each_for_itself() {
    let mut member = Member::new();
    let queue = member.open();
    member.by_other(create("/a"));
    member.by_other(create("/a/b"));
    let children = Read::Children { path: "/a".into(), watch: false };

    member.read(&queue, 1, Read::Many(vec![get("/no", false), children, get("/a/b", false)]), false);

    let [Answer::Many(each)] = &answers(&queue)[..] else { panic!("one answer") };
    assert!(
        matches!(&each[..], [Answer::Refused(no), Answer::Children { names, .. }, Answer::Get { .. }]
            if no.reason == Refusal::NoNode && *names == ["b"]),
        "{each:?}"
    );
}

#[test]
fn an_event_is_told_to_those_whose_network_may_read() {
    let mut member = Member::new();
    let (inside, outside) = (member.open(), member.open());
    let from = |address: &str| Identity { scheme: "ip".into(), id: address.into() };
    inside.set_identities(Arc::from([from("10.1.2.3")]));
    outside.set_identities(Arc::from([from("192.168.0.1")]));
    for queue in [&inside, &outside] {
        member.read(queue, 1, Read::Watch { path: "/".into(), recursive: true }, false);
        queue.take();
    }
    let list = vec![Acl { permissions: Permissions::ALL, identity: from("10.0.0.0/8") }];
    let Op::Create(node) = create("/office") else { unreachable!("it is one") };

    member.by_other(Op::Create(Create { acl: list, ..node }));
    member.by_other(Op::Delete(Delete { path: "/office".into(), version: -1 }));

    assert_eq!(said(&inside), ["Created /office", "Deleted /office"]);
    assert_eq!(said(&outside), Vec::<String>::new());
}

fn rearm_children(since: Zxid) -> Read {
    Read::Rearm(Box::new(Rearm { since, children: vec!["/p".into()], ..Rearm::default() }))
}

fn create_many(paths: impl Iterator<Item = String>, mode: CreateMode) -> Op {
    let node = |path| Create { path, data: None, mode, acl: vec![Acl::open()] };
    Op::Multi(paths.map(|path| quorate_tree::MultiOp::Create(node(path))).collect())
}

#[test]
fn a_session_with_very_many_ephemerals_ends_in_parts_and_readers_between_them_miss_nothing() {
    const PARTS: usize = 3;
    const OWNED: usize = PARTS * LET_GO_AT_ONCE - 1;
    let mut member = Member::with_limits(QueueLimits { outbox_events_max: 2 * OWNED, ..LIMITS });
    let watcher = member.open();
    member.by_other(create("/p"));
    member.by_other(create_many((0..OWNED).map(|at| format!("/p/{at:05}")), CreateMode::Ephemeral));
    member.read(&watcher, 1, Read::Watch { path: "/p".into(), recursive: true }, false);
    let before = member.replica.applied().borrow().zxid;
    watcher.take();
    let command = [
        member.command(OTHER, member.other.clone(), Op::CloseSession),
        member.command(OTHER, Author::default(), open()),
    ];

    let mut left = &command[..];
    let mut seen = Vec::new();
    loop {
        let report = member.replica.apply(90, left, &mut |_| None);
        left = &left[report.applied..];
        if left.is_empty() {
            break;
        }
        let late = member.open_here();
        member.read(&late, 1, Read::Children { path: "/p".into(), watch: false }, false);
        member.read(&late, 2, rearm_children(before), false);
        let items: Vec<Item> = late.take().in_order().items;
        let [
            Item::Reply { zxid, answer: Answer::Children { names, .. }, .. },
            Item::Event(Event { kind: EventKind::ChildrenChanged, .. }),
            Item::Reply { answer: Answer::Done, .. },
        ] = &items[..]
        else {
            panic!("whoever goes by the zxid looks again: {items:?}")
        };
        assert_eq!((*zxid, member.replica.applied().borrow().zxid), (before, before), "the entry is not applied yet");
        seen.push(names.len());
    }

    assert_eq!(seen, [OWNED - LET_GO_AT_ONCE, OWNED - 2 * LET_GO_AT_ONCE]);
    assert_eq!(member.replica.applied().borrow().zxid, Zxid(before.0 + 2));
    let told = watcher.take().items;
    assert_eq!(told.len(), OWNED);
    assert!(told.iter().all(|item| matches!(item, Item::Event(event) if event.zxid == Zxid(before.0 + 1))));
}

#[test]
fn what_a_session_reads_before_it_closes_shows_all_of_its_ephemerals() {
    const OWNED: usize = LET_GO_AT_ONCE + 1;
    let mut member = Member::new();
    let queue = member.open();
    let (write, done) =
        member.begin(&queue, 1, create_many((0..OWNED).map(|at| format!("/{at}")), CreateMode::Ephemeral));
    member.apply(write, done);
    queue.take();
    member.read(&queue, 2, Read::CountBelow { path: "/".into() }, true);
    let (close, done) = member.begin(&queue, 3, Op::CloseSession);
    let mut done = Some(done);

    let begun = member.replica.apply(90, std::slice::from_ref(&close), &mut |_| done.take());
    assert_eq!((begun.applied, answers(&queue)), (0, vec![Answer::Count(OWNED as u32 + 3)]));
    let ended = member.replica.apply(90, &[close], &mut |_| panic!("it was asked for"));

    assert_eq!((ended.applied, answers(&queue)), (1, vec![Answer::Wrote(Reply::Done)]));
    assert_eq!(queue.take().end, Some(QueueEnd::Session(SessionEnd::Closed)));
}

#[test]
fn very_many_children_are_sorted_after_the_copy_was_left() {
    let mut member = Member::new();
    let queue = member.open();
    let names: Vec<String> = (0..2000).map(|at| format!("{at:04}")).collect();
    member.by_other(create("/p"));
    member.by_other(create_many(names.iter().rev().map(|name| format!("/p/{name}")), CreateMode::Persistent));
    let children = Read::Children { path: "/p".into(), watch: false };

    member.read(&queue, 1, children.clone(), false);
    let taken = queue.take();
    member.read(&queue, 2, Read::Many(vec![children]), false);
    let taken_of_many = queue.take();

    assert!(!taken.is_in_order() && !taken_of_many.is_in_order());
    let bytes = |taken: &Taken| match &taken.items[..] {
        [Item::Reply { answer, .. }] => (answer.bytes(), answer.held_bytes()),
        other => panic!("one answer: {other:?}"),
    };
    let before = bytes(&taken);
    let sorted = taken.in_order();
    assert_eq!(bytes(&sorted), before, "what is counted as waiting is what is sent");
    let expected = |answer: &Answer| matches!(answer, Answer::Children { names: sorted, .. } if *sorted == names);
    assert!(matches!(&sorted.items[..], [Item::Reply { tag: 1, answer, .. }] if expected(answer)));
    assert!(matches!(
        &taken_of_many.in_order().items[..],
        [Item::Reply { tag: 2, answer: Answer::Many(each), .. }] if each.len() == 1 && expected(&each[0])
    ));
}

#[test]
fn very_many_watches_of_a_connection_that_has_gone_go_in_parts() {
    const WATCHED: usize = 4 * FORGOTTEN_AT_ONCE - 1;
    let watch_limits = WatchLimits {
        watches_max: 2 * WATCHED,
        watches_per_session_max: WATCHED,
        path_bytes_max: 1 << 30,
        path_bytes_per_session_max: 1 << 30,
    };
    let mut member = Member::with_watch_limits(QueueLimits { run_work_max: 2 * WATCHED, ..LIMITS }, watch_limits);
    let (queue, other) = (member.open(), member.open());
    let exists = (0..WATCHED).map(|at| format!("/{at}")).collect();
    member.read(&queue, 1, Read::Rearm(Box::new(Rearm { exists, ..Rearm::default() })), false);
    member.read(&other, 1, Read::Exists { path: "/7".into(), watch: true }, false);
    assert_eq!(member.replica.watch_count(), WATCHED + 1);
    queue.take();

    member.replica.detach(&queue);
    let mut left = vec![member.replica.watch_count()];
    while member.replica.sweep_some() {
        left.push(member.replica.watch_count());
    }

    assert_eq!(left, [3, 2, 1, 0].map(|parts| (parts * FORGOTTEN_AT_ONCE).saturating_sub(1) + 1));
    member.by_other(create("/7"));
    assert!(queue.take().items.is_empty(), "nobody is told any more");
    assert_eq!(said(&other), ["1=ok", "Created /7"]);
}

#[tokio::test]
async fn the_sweeper_forgets_what_is_left_and_waits_for_more() {
    let watch_limits = WatchLimits {
        watches_max: 1 << 20,
        watches_per_session_max: 1 << 20,
        path_bytes_max: 1 << 30,
        path_bytes_per_session_max: 1 << 30,
    };
    let mut member = Member::with_watch_limits(QueueLimits { run_work_max: 1 << 20, ..LIMITS }, watch_limits);
    let queues = [member.open(), member.open()];
    for queue in &queues {
        let exists = (0..2 * FORGOTTEN_AT_ONCE).map(|at| format!("/{at}")).collect();
        member.read(queue, 1, Read::Rearm(Box::new(Rearm { exists, ..Rearm::default() })), false);
    }
    let replica = &member.replica;

    let work = async {
        for (queue, left) in queues.iter().zip([2 * FORGOTTEN_AT_ONCE, 0]) {
            replica.detach(queue);
            while replica.watch_count() > left {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::select! {
        biased;
        () = work => {}
        never = replica.sweep() => match never {},
    }
}
