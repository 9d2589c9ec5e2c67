//! What a log promises, tried on real files. Damage has its own file, `damage`; so have killed processes, `killed`.

mod damage;
mod killed;
mod speed;

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::*;

const LOG_ID: u64 = 0x1234_5678;
/// Only reached when something hangs.
const DEADLINE: Duration = Duration::from_secs(60);

fn options() -> LogOptions {
    LogOptions { sync: false, segment_bytes: 64 << 10, ..LogOptions::default() }
}

/// Fail points carry the directory of their log: tests do not disturb each other.
fn point(name: &str, dir: &Path) -> String {
    format!("{name}@{}", dir.display())
}

/// Segments that a few entries fill.
fn small() -> LogOptions {
    LogOptions { segment_bytes: 512, ..options() }
}

fn open(dir: &Path, options: LogOptions) -> Result<Log, OpenError> {
    Log::open(dir, LOG_ID, None, options)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(DEADLINE, future).await.expect("hangs") })
}

fn id(term: u64, index: u64) -> EntryId {
    EntryId { index, term }
}

/// An entry whose payload tells what it is.
fn entry(term: u64, index: u64) -> LogEntry {
    LogEntry { id: id(term, index), payload: format!("entry {index} of term {term}").into_bytes().into() }
}

fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<LogEntry> {
    indexes.map(|index| entry(term, index)).collect()
}

/// Options that count flushes.
fn counted(options: LogOptions) -> (LogOptions, Arc<AtomicU64>) {
    let flushes = Arc::<AtomicU64>::default();
    let counter = flushes.clone();
    let on_flush: FlushObserver = Arc::new(move |_report| _ = counter.fetch_add(1, Ordering::Relaxed));
    (LogOptions { on_flush: Some(on_flush), ..options }, flushes)
}

/// Appends, and waits until it is acknowledged.
async fn append(log: &Log, entries: Vec<LogEntry>) -> io::Result<()> {
    let (done, acknowledged) = oneshot::channel();
    log.append(entries, |result| done.send(result).unwrap()).await?;
    acknowledged.await.unwrap()
}

async fn save_vote(log: &Log, vote: &'static str) -> io::Result<()> {
    let (done, acknowledged) = oneshot::channel();
    log.save_vote(vote.into(), |result| done.send(result).unwrap()).await;
    acknowledged.await.unwrap()
}

async fn read_all(log: &Log) -> Vec<LogEntry> {
    log.read(0..u64::MAX, usize::MAX).await.unwrap()
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn appended_entries_can_be_read_before_they_are_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let (options, flushes) = counted(options());
    let log = open(dir.path(), options).unwrap();
    let before_write = point("log-before-write", dir.path());
    fail::cfg(&before_write, "pause").unwrap();

    run(async {
        log.append(entries(1, 1..=3), |_| {}).await.unwrap();

        assert_eq!(read_all(&log).await, entries(1, 1..=3));
        assert_eq!(log.state().last, Some(id(1, 3)));
    });
    assert_eq!(flushes.load(Ordering::Relaxed), 0);
    fail::remove(before_write);
}

#[test]
fn everything_acknowledged_is_there_when_the_log_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    for sync in [true, false] {
        let path = dir.path().join(sync.to_string());
        let options = || LogOptions { sync, ..small() };
        let log = open(&path, options()).unwrap();
        run(async {
            append(&log, entries(1, 1..=20)).await.unwrap();
            save_vote(&log, "for two").await.unwrap();
            log.truncate_after(Some(15)).await.unwrap();
            append(&log, entries(2, 16..=40)).await.unwrap();
            log.purge(id(1, 7)).await;
            append(&log, entries(2, 41..=41)).await.unwrap();
            log.abandon().await;
        });
        drop(log);

        let log = open(&path, options()).unwrap();

        let expected = [entries(1, 8..=15), entries(2, 16..=41)].concat();
        assert_eq!(run(read_all(&log)), expected);
        let state = LogState { vote: Some("for two".into()), purged: Some(id(1, 7)), last: Some(id(2, 41)) };
        assert_eq!(log.state(), state);
        assert_eq!((log.term(7), log.term(15), log.term(16)), (Some(1), Some(1), Some(2)));
        run(append(&log, entries(3, 42..=42))).unwrap();
    }
}

#[test]
fn purge_removes_whole_segments_and_only_those() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    run(append(&log, entries(1, 1..=60))).unwrap();
    let before = segments(dir.path());

    run(async {
        log.purge(id(1, 30)).await;
        append(&log, entries(1, 61..=61)).await.unwrap();
        // The thread removes files after it has told whoever waits.
        log.close().await;
    });

    let after = segments(dir.path());
    assert!(after.len() < before.len() && after.len() > 1, "{before:?} {after:?}");
    assert_eq!(after.last(), before.last());
    let log = open(dir.path(), small()).unwrap();
    assert_eq!(run(read_all(&log)), entries(1, 31..=61));
}

#[test]
fn purge_beyond_the_last_entry_leaves_one_segment_and_goes_on_there() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    run(async {
        append(&log, entries(1, 1..=60)).await.unwrap();
        log.purge(id(4, 1000)).await;
        save_vote(&log, "for two").await.unwrap();
        log.close().await;
    });
    assert_eq!(segments(dir.path()).len(), 1);

    let log = open(dir.path(), small()).unwrap();

    assert_eq!(log.state().last, Some(id(4, 1000)));
    let hole = run(log.append(entries(4, 61..=61), |_| {}));
    assert!(matches!(hole, Err(LogError::Hole { found: 61, expected: 1001 })));
    run(append(&log, entries(4, 1001..=1001))).unwrap();
    assert_eq!(run(read_all(&log)), entries(4, 1001..=1001));
}

#[test]
fn log_can_be_emptied_and_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    run(async {
        append(&log, entries(1, 0..=30)).await.unwrap();
        log.truncate_after(None).await.unwrap();
        append(&log, entries(2, 0..=1)).await.unwrap();
        log.close().await;
    });

    let log = open(dir.path(), small()).unwrap();

    assert_eq!(run(read_all(&log)), entries(2, 0..=1));
}

#[test]
fn entry_larger_than_a_segment_gets_one_of_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    let large = LogEntry { id: id(1, 2), payload: vec![7; 10_000].into() };
    let all = [entries(1, 1..=1), vec![large], entries(1, 3..=3)].concat();

    run(async {
        append(&log, all.clone()).await.unwrap();
        log.close().await;
    });

    assert_eq!(run(read_all(&open(dir.path(), small()).unwrap())), all);
}

#[test]
fn entry_beyond_all_bounds_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), options()).unwrap();
    let huge = LogEntry { id: id(1, 1), payload: vec![0; PAYLOAD_BYTES_MAX + 1].into() };

    let refused = run(log.append(vec![huge], |_| panic!("told although refused")));

    assert!(matches!(refused, Err(LogError::TooLarge { index: 1, .. })));
    assert_eq!(log.state().last, None);
}

#[test]
fn refused_append_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), options()).unwrap();
    run(append(&log, entries(1, 1..=3))).unwrap();

    let holes = [entries(1, 5..=5), entries(1, 3..=3), vec![entry(1, 4), entry(1, 6)]];
    for hole in holes {
        let refused = run(log.append(hole, |_| panic!("told although refused")));
        assert!(matches!(refused, Err(LogError::Hole { .. })));
    }

    assert_eq!(run(read_all(&log)), entries(1, 1..=3));
    run(append(&log, entries(1, 4..=4))).unwrap();
}

#[test]
fn all_that_waits_during_a_flush_shares_the_next_one() {
    let dir = tempfile::tempdir().unwrap();
    let (options, flushes) = counted(LogOptions { sync: true, ..options() });
    let log = open(dir.path(), options).unwrap();
    let before_sync = point("log-before-sync", dir.path());
    fail::cfg(&before_sync, "pause").unwrap();

    run(async {
        let (done, first) = oneshot::channel();
        log.append(entries(1, 1..=1), |result| done.send(result).unwrap()).await.unwrap();
        // The first flush is in the air once its request has left the queue.
        while !log.shared.inner.lock().queue.is_empty() {
            tokio::task::yield_now().await;
        }
        let mut waiting = Vec::new();
        for index in 2..=101 {
            let (done, acknowledged) = oneshot::channel();
            log.append(entries(1, index..=index), |result| done.send(result).unwrap()).await.unwrap();
            waiting.push(acknowledged);
        }
        fail::remove(&before_sync);
        first.await.unwrap().unwrap();
        for acknowledged in waiting {
            acknowledged.await.unwrap().unwrap();
        }
    });

    assert_eq!(flushes.load(Ordering::Relaxed), 2);
}

#[test]
fn callbacks_come_in_the_order_of_the_requests() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));

    run(async {
        for at in 0..200 {
            let told = told.clone();
            let done = move |_| told.lock().push(at);
            match at % 3 {
                0 => log.save_vote("vote".into(), done).await,
                _ => log.append(vec![entry(1, log.state().last.map_or(1, |last| last.index + 1))], done).await.unwrap(),
            }
        }
        log.close().await;
    });

    assert_eq!(*told.lock(), (0..200).collect::<Vec<_>>());
}

#[test]
fn full_queue_makes_senders_wait_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LogOptions { queue_bytes: 2000, ..options() }).unwrap();
    let before_write = point("log-before-write", dir.path());
    fail::cfg(&before_write, "pause").unwrap();

    run(async {
        let mut index = 0;
        let blocked = loop {
            index += 1;
            let mut appended = Box::pin(log.append(vec![entry(1, index)], |_| {}));
            // The queue is in this process: an append that is not ready at once waits for room.
            if futures_util::poll!(&mut appended).is_pending() {
                break appended;
            }
            assert!(index < 1000, "the queue has no bound");
        };
        assert_eq!(log.state().last, Some(id(1, index - 1)), "what waits is not appended yet");

        fail::remove(&before_write);
        blocked.await.unwrap();

        assert_eq!(log.state().last, Some(id(1, index)));
    });
}

#[test]
fn append_larger_than_the_queue_waits_its_turn_and_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LogOptions { queue_bytes: 100, ..options() }).unwrap();

    run(async {
        append(&log, entries(1, 1..=100)).await.unwrap();
        append(&log, entries(1, 101..=200)).await.unwrap();
    });

    assert_eq!(run(read_all(&log)).len(), 200);
}

#[test]
fn failed_write_or_sync_ends_the_log_for_ever() {
    for name in ["log-before-write", "log-before-sync", "log-after-sync"] {
        let dir = tempfile::tempdir().unwrap();
        let point = point(name, dir.path());
        let log = open(dir.path(), small()).unwrap();
        run(async {
            append(&log, entries(1, 1..=3)).await.unwrap();
            fail::cfg(&point, "return").unwrap();

            let failed = append(&log, entries(1, 4..=4)).await.unwrap_err();
            fail::remove(&point);

            assert!(failed.to_string().starts_with("writing "), "{failed}");
            assert!(matches!(log.failed().await, LogFailure::Io { .. }));
            // The disk works again; that changes nothing.
            append(&log, entries(1, 5..=5)).await.unwrap_err();
            save_vote(&log, "for two").await.unwrap_err();
            log.close().await;
        });
        drop(log);

        let found = run(read_all(&open(dir.path(), small()).unwrap()));
        assert!(found == entries(1, 1..=3) || found == entries(1, 1..=4), "{found:?}");
    }
}

#[test]
fn failure_reaches_all_that_is_queued_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), options()).unwrap();
    let point = point("log-before-sync", dir.path());
    // Holds the first until all are queued, then fails what follows.
    fail::cfg(&point, "1*pause->return").unwrap();
    let (told, failures) = mpsc::channel();

    run(async {
        for index in 1..=10 {
            let told = told.clone();
            let done = move |result: io::Result<()>| told.send((index, result.is_err())).unwrap();
            log.append(vec![entry(1, index)], done).await.unwrap();
        }
        fail::cfg(&point, "return").unwrap();
        log.failed().await;
    });

    let told: Vec<_> = (0..10).map(|_| failures.recv_timeout(DEADLINE).unwrap()).collect();
    assert!(told.iter().map(|(index, _)| *index).eq(1..=10), "{told:?}");
    // What was held goes through if the thread came to the point before the rest was queued; nothing behind it does.
    assert!(told.is_sorted_by_key(|(_, failed)| *failed) && told[9].1, "{told:?}");
    fail::remove(point);
}

#[test]
fn panicking_callback_fails_the_log_and_hangs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), options()).unwrap();

    run(async {
        log.append(entries(1, 1..=1), |_| panic!("as planned by the test")).await.unwrap();

        assert!(matches!(log.failed().await, LogFailure::Panicked));
        append(&log, entries(1, 2..=2)).await.unwrap_err();
        log.close().await;
    });
}

#[test]
fn closed_log_has_flushed_what_was_queued_and_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), options()).unwrap();
    run(async {
        for index in 1..=50 {
            log.append(vec![entry(1, index)], |result| result.unwrap()).await.unwrap();
        }

        log.close().await;

        let refused = append(&log, entries(1, 51..=51)).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
    });
    assert_eq!(run(read_all(&open(dir.path(), options()).unwrap())), entries(1, 1..=50));
}

#[test]
fn abandoned_log_tells_those_it_drops() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), options()).unwrap();
    let before_write = point("log-before-write", dir.path());
    fail::cfg(&before_write, "pause").unwrap();
    let (told, results) = mpsc::channel();

    run(async {
        for index in 1..=10 {
            let told = told.clone();
            log.append(vec![entry(1, index)], move |result| told.send(result).unwrap()).await.unwrap();
            // The first is being written, the others wait.
            while index == 1 && !log.shared.inner.lock().queue.is_empty() {
                tokio::task::yield_now().await;
            }
        }
        let mut abandoned = Box::pin(log.abandon());
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        fail::remove(&before_write);
        abandoned.await;
    });

    let results: Vec<_> = results.try_iter().map(|result| result.is_ok()).collect();
    assert_eq!(results.len(), 10, "each is told");
    assert!(!results[1..].contains(&true), "{results:?}");
}

#[test]
fn entries_beyond_the_cache_are_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = || LogOptions { cache_bytes: 300, ..small() };
    let log = open(dir.path(), options()).unwrap();
    run(append(&log, entries(1, 1..=100))).unwrap();
    run(append(&log, entries(2, 101..=102))).unwrap();
    let all = [entries(1, 1..=100), entries(2, 101..=102)].concat();

    assert!(Plan::new(&log.shared.inner.lock(), 1..103, usize::MAX).needs_disk());
    assert!(!Plan::new(&log.shared.inner.lock(), 102..103, usize::MAX).needs_disk());
    assert_eq!(run(read_all(&log)), all);

    let log = {
        run(log.close());
        open(dir.path(), options()).unwrap()
    };
    assert!(Plan::new(&log.shared.inner.lock(), 1..103, usize::MAX).needs_disk());
    assert!(!Plan::new(&log.shared.inner.lock(), 102..103, usize::MAX).needs_disk());
    assert_eq!(run(read_all(&log)), all);
    assert_eq!(run(log.read(50..60, usize::MAX)).unwrap(), entries(1, 50..=59));
}

#[test]
fn damage_to_an_entry_on_disk_is_found_when_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), LogOptions { cache_bytes: 0, ..options() }).unwrap();
    run(append(&log, entries(1, 1..=3))).unwrap();
    let file = &segments(dir.path())[0];
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.windows(7).position(|window| window == b"entry 2").unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();

    let error = run(log.read(1..4, usize::MAX)).unwrap_err();

    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(error.to_string().starts_with("entry 2 is damaged"), "{error}");
}

#[test]
fn reads_are_bounded_in_bytes_but_give_one_entry() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), options()).unwrap();
    run(append(&log, entries(1, 1..=9))).unwrap();
    let one = entry(1, 1).payload.len();

    for (bytes_max, expected) in [(0, 1), (one, 1), (2 * one - 1, 1), (2 * one, 2), (usize::MAX, 9)] {
        assert_eq!(run(log.read(1..100, bytes_max)).unwrap(), entries(1, 1..=expected), "{bytes_max}");
    }
    assert_eq!(run(log.read(10..100, 1)).unwrap(), []);
}

#[test]
fn observer_sees_every_flush() {
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observed = seen.clone();
    let on_flush: FlushObserver = Arc::new(move |report| observed.lock().push(report));
    let log = open(dir.path(), LogOptions { on_flush: Some(on_flush), ..options() }).unwrap();

    run(append(&log, entries(1, 1..=1))).unwrap();
    run(append(&log, entries(1, 2..=2))).unwrap();

    let seen = seen.lock();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|report| report.bytes > 0));
}

mod model {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Append(u64),
        Vote(u8),
        TruncateBack(u64),
        PurgeForward(u64),
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..8_u64).prop_map(Step::Append),
            1 => any::<u8>().prop_map(Step::Vote),
            1 => (0..6_u64).prop_map(Step::TruncateBack),
            1 => (0..8_u64).prop_map(Step::PurgeForward),
            1 => Just(Step::Reopen),
        ]
    }

    /// What a log should hold.
    #[derive(Default)]
    struct Model {
        vote: Option<Bytes>,
        purged: Option<EntryId>,
        entries: Vec<LogEntry>,
    }

    impl Model {
        fn last(&self) -> Option<EntryId> {
            self.entries.last().map(|entry| entry.id).or(self.purged)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

        #[test]
        fn log_holds_what_a_vector_would(steps in proptest::collection::vec(step(), 1..60)) {
            let dir = tempfile::tempdir().unwrap();
            let options = || LogOptions { cache_bytes: 400, ..small() };
            let mut log = open(dir.path(), options()).unwrap();
            let mut model = Model::default();
            for (term, step) in (1..).zip(steps) {
                run(async {
                    match step {
                        Step::Append(count) => {
                            let next = model.last().map_or(0, |last| last.index + 1);
                            let more = entries(term, next..=next + count - 1);
                            append(&log, more.clone()).await.unwrap();
                            model.entries.extend(more);
                        }
                        Step::Vote(vote) => {
                            let vote = Bytes::from(vec![vote; 3]);
                            // Dropped unwritten when the test ends here.
                            log.save_vote(vote.clone(), |_| {}).await;
                            model.vote = Some(vote);
                        }
                        Step::TruncateBack(count) => {
                            let kept = model.entries.len().saturating_sub(count as usize);
                            model.entries.truncate(kept);
                            log.truncate_after(model.last().map(|last| last.index)).await.unwrap();
                        }
                        Step::PurgeForward(count) => {
                            let index = model.purged.map_or(0, |purged| purged.index + 1) + count;
                            let known = model.entries.iter().find(|entry| entry.id.index == index);
                            let upto = known.map_or(id(term, index), |entry| entry.id);
                            model.entries.retain(|entry| entry.id.index > index);
                            model.purged = Some(upto);
                            log.purge(upto).await;
                        }
                        Step::Reopen => {
                            log.close().await;
                            log = open(dir.path(), options()).unwrap();
                        }
                    }
                    let state = LogState { vote: model.vote.clone(), purged: model.purged, last: model.last() };
                    assert_eq!(log.state(), state);
                    assert_eq!(read_all(&log).await, model.entries);
                });
            }
        }
    }
}
