//! What watches, reads and replies cost in the replica. Not a test: it measures, see `quorate-micro`.

use std::hint::black_box;

use bytes::Bytes;
use quorate_micro::suite;
use quorate_tree::{Author, Create, CreateMode, Limits, Op, Reply, SetData};
use tokio::sync::Semaphore;

use super::{read::ReadContext, *};
use crate::telemetry::metrics::Metrics;

const ME: MemberId = MemberId(1);
const ROUND: usize = 1_000;
const WATCH_LIMITS: WatchLimits = WatchLimits {
    watches_max: 10_000_000,
    watches_per_session_max: 1_000_000,
    path_bytes_max: 1 << 30,
    path_bytes_per_session_max: 1 << 30,
};
const QUEUE_LIMITS: QueueLimits = QueueLimits {
    outbox_events_max: 1 << 20,
    outbox_bytes_max: 1 << 30,
    reply_bytes_max: 8 << 20,
    run_work_max: 1 << 20,
    waiting_bytes_max: 1 << 30,
};

#[test]
#[ignore = "measures"]
fn measures() {
    suite("replica", |suite| {
        let paths: Vec<String> = (0..ROUND).map(|at| format!("/services/payments/instance-{at:010}")).collect();
        let changes: Vec<Change> = paths.iter().map(|path| Change::DataChanged { path: path.clone() }).collect();

        for (watched, name) in [(0, "none"), (ROUND, "others")] {
            suite.case(&format!("fire; watched by {name}"), |round| {
                let mut table = WatchTable::new(WATCH_LIMITS);
                for at in 0..watched {
                    table.add(ConnId(1), &format!("/elsewhere/{at}"), WatchKind::Data).unwrap();
                }
                round.measure(ROUND as u64, || {
                    for change in &changes {
                        black_box(table.fire(black_box(change), Zxid(7)));
                    }
                });
            });
        }
        for kind in [WatchKind::Data, WatchKind::Persistent] {
            suite.case(&format!("fire; watched by one {kind:?}"), |round| {
                let mut table = WatchTable::new(WATCH_LIMITS);
                for (at, path) in paths.iter().enumerate() {
                    table.add(ConnId(at as u32 % 64), path, kind).unwrap();
                }
                round.measure(ROUND as u64, || {
                    for change in &changes {
                        black_box(table.fire(black_box(change), Zxid(7)));
                    }
                });
            });
        }
        suite.case("fire; watched by one Recursive", |round| {
            let mut table = WatchTable::new(WATCH_LIMITS);
            table.add(ConnId(1), "/services", WatchKind::Recursive).unwrap();
            round.measure(ROUND as u64, || {
                for change in &changes {
                    black_box(table.fire(black_box(change), Zxid(7)));
                }
            });
        });
        suite.case("fire; watched by 1000; each watcher", |round| {
            let mut table = WatchTable::new(WATCH_LIMITS);
            for conn in 0..ROUND {
                table.add(ConnId(conn as u32), &paths[0], WatchKind::Data).unwrap();
            }
            round.measure(ROUND as u64, || black_box(table.fire(black_box(&changes[0]), Zxid(7))));
        });
        suite.case("arm", |round| {
            let mut table = WatchTable::new(WATCH_LIMITS);
            round.measure(ROUND as u64, || {
                for path in &paths {
                    table.add(ConnId(1), black_box(path), WatchKind::Data).unwrap();
                }
            });
        });
        suite.case("arm what is armed", |round| {
            let mut table = WatchTable::new(WATCH_LIMITS);
            for path in &paths {
                table.add(ConnId(1), path, WatchKind::Data).unwrap();
            }
            round.measure(ROUND as u64, || {
                for path in &paths {
                    table.add(ConnId(1), black_box(path), WatchKind::Data).unwrap();
                }
            });
        });
        suite.case("fire and arm again", |round| {
            let mut table = WatchTable::new(WATCH_LIMITS);
            for path in &paths {
                table.add(ConnId(1), path, WatchKind::Data).unwrap();
            }
            round.measure(ROUND as u64, || {
                for (change, path) in changes.iter().zip(&paths) {
                    black_box(table.fire(black_box(change), Zxid(7)));
                    table.add(ConnId(1), path, WatchKind::Data).unwrap();
                }
            });
        });
        suite.case("forget a connection; each watch", |round| {
            let mut table = WatchTable::new(WATCH_LIMITS);
            for path in &paths {
                table.add(ConnId(1), path, WatchKind::Data).unwrap();
            }
            round.measure(ROUND as u64, || table.forget(ConnId(1), ROUND));
        });
        suite.case("set watches again; each of 1000", |round| {
            let member = Member::new();
            let tree = member.replica.tree.read();
            let mut watches = WatchTable::new(WATCH_LIMITS);
            let rearm = Rearm { since: Zxid(1 << 40), data: member.paths.clone(), ..Rearm::default() };
            let read = Read::Rearm(Box::new(rearm));
            let mut fired = Vec::new();
            round.measure(ROUND as u64, || {
                let mut context = ReadContext {
                    tree: &tree,
                    watches: Some(&mut watches),
                    conn: ConnId(1),
                    reply_bytes_max: QUEUE_LIMITS.reply_bytes_max,
                    work: 0,
                };
                black_box(read.run(&mut context, &[], &mut fired));
            });
            assert_eq!((watches.count(), fired.len()), (ROUND, 0));
        });
        suite.case("apply a set of this member; entries of 64", |round| {
            let mut member = Member::new();
            let queue = member.open();
            let (commands, mut slots) = member.sets(&queue);
            round.measure(ROUND as u64, || member.apply(&commands, &mut || slots.next()));
            assert_eq!(queue.take().items.len(), ROUND);
        });
        suite.case("apply a set of another member; entries of 64", |round| {
            let mut member = Member::new();
            let queue = member.open();
            let (mut commands, _) = member.sets(&queue);
            for (seq, command) in (1..).zip(&mut commands) {
                command.lane = Lane { member: MemberId(2), incarnation: 1, seq };
            }
            round.measure(ROUND as u64, || member.apply(&commands, &mut || None));
        });
        suite.case("get; 16 in a batch", |round| {
            let mut member = Member::new();
            let queue = member.open();
            let batches: Vec<Vec<Submit>> =
                member.paths.chunks(16).map(|paths| paths.iter().map(|path| get(path)).collect()).collect();
            round.measure(ROUND as u64, || {
                for batch in batches {
                    member.replica.submit(&queue, batch);
                    black_box(queue.take());
                }
            });
        });
    });
}

fn get(path: &str) -> Submit {
    let read = Read::Get { path: path.to_owned(), watch: false };
    Submit { tag: 1, kind: SubmitKind::Read { read, identities: Arc::from([]), barrier: false } }
}

/// A replica with some nodes.
struct Member {
    replica: Replica,
    seq: u64,
    log_index: u64,
    paths: Vec<String>,
    writes: Arc<Semaphore>,
}

impl Member {
    fn new() -> Self {
        let metrics = Metrics::new(ME).sessions;
        let replica = Replica::new(ME, Tree::new(Limits::DEFAULT), 0, QUEUE_LIMITS, WATCH_LIMITS, metrics);
        let paths = (0..ROUND).map(|at| format!("/instance-{at:010}")).collect();
        let mut member = Self { replica, seq: 0, log_index: 0, paths, writes: Arc::new(Semaphore::new(ROUND)) };
        let queue = member.open();
        for path in member.paths.clone() {
            let create = Create { path, data: data(), mode: CreateMode::Persistent, acl: vec![Acl::open()] };
            let command = member.command(author(&queue), Op::Create(create));
            member.apply(&[command], &mut || None);
        }
        member
    }

    fn open(&mut self) -> Arc<SessionQueue> {
        let password = Bytes::from_static(&[7; 16]);
        let open = Op::OpenSession { timeout_ms: 4000, password, client_name: "bench".into() };
        let command = self.command(Author::default(), open);
        let (ticket, mut opened) = oneshot::channel();
        let mut ticket = Some(Completion::Ticket(ticket));
        self.apply(&[command], &mut || ticket.take());
        let settled = opened.try_recv().unwrap();
        let Ok(Reply::Opened { session, attachment, .. }) = settled.outcome else { panic!("{settled:?}") };
        self.replica.attach(session, attachment).unwrap()
    }

    fn command(&mut self, author: Author, op: Op) -> Command {
        self.seq += 1;
        Command { lane: Lane { member: ME, incarnation: 1, seq: self.seq }, stamp_ms: 1000, author, op }
    }

    /// A set of each node, with their places in the queue.
    fn sets(&mut self, queue: &Arc<SessionQueue>) -> (Vec<Command>, impl Iterator<Item = Completion> + use<>) {
        let paths = self.paths.clone();
        let commands = paths
            .into_iter()
            .map(|path| self.command(author(queue), Op::SetData(SetData { path, data: data(), version: -1 })))
            .collect();
        let submits = (0..ROUND as u64).map(|tag| Submit { tag, kind: SubmitKind::Write }).collect();
        let first = self.replica.submit(queue, submits);
        let completions: Vec<Completion> = (0..ROUND as u64)
            .map(|at| Completion::Write {
                queue: queue.clone(),
                slot: SlotId(first.0 + at),
                permit: self.writes.clone().try_acquire_owned().unwrap(),
            })
            .collect();
        (commands, completions.into_iter())
    }

    fn apply(&mut self, commands: &[Command], completion: &mut dyn FnMut() -> Option<Completion>) {
        for entry in commands.chunks(64) {
            self.log_index += 1;
            black_box(self.replica.apply(self.log_index, entry, &mut |_| completion()));
        }
    }
}

fn author(queue: &SessionQueue) -> Author {
    let address = Identity { scheme: "ip".into(), id: "127.0.0.1".into() };
    Author { session: queue.session, attachment: 1, write: None, identities: [address].into() }
}

fn data() -> Option<Bytes> {
    Some(Bytes::from_static(&[7; 256]))
}
