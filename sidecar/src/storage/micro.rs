//! What the log and the snapshot files cost in instructions; the disk is not waited for. Not a test: it measures, see
//! `quorate-micro`.

use std::hint::black_box;

use bytes::Bytes;
use quorate_micro::suite;
use quorate_tree::MemberId;
use tokio::sync::oneshot;

use super::{DataDir, EntryId, LogEntry, LogOptions};

const PAYLOAD: &[u8] = &[7; 256];
const CHUNK: &[u8] = &[7; 64 << 10];

#[test]
#[ignore = "measures"]
fn measures() {
    suite("storage", |suite| {
        let dir = tempfile::tempdir().unwrap();
        let data_dir = DataDir::open(&dir.path().join("data"), MemberId(1), false).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let log = data_dir.open_log(LogOptions { sync: false, ..LogOptions::default() }).unwrap();
        let mut index = 0;
        for (entries, rounds) in [(1, 64), (64, 16)] {
            suite.case(&format!("log; {entries} of 256 B appended at a time; each"), |round| {
                let mut batches = Vec::with_capacity(rounds);
                for _ in 0..rounds {
                    let batch: Vec<LogEntry> = (0..entries)
                        .map(|_| {
                            index += 1;
                            LogEntry { id: EntryId { index, term: 1 }, payload: Bytes::from_static(PAYLOAD) }
                        })
                        .collect();
                    batches.push(batch);
                }
                round.measure((entries * rounds) as u64, || {
                    runtime.block_on(async {
                        for batch in batches {
                            let (done, acknowledged) = oneshot::channel();
                            log.append(batch, |result| drop(done.send(result))).await.unwrap();
                            acknowledged.await.unwrap().unwrap();
                        }
                    });
                });
            });
        }
        suite.case("log; 64 of 256 B read; each", |round| {
            let from = index - 64;
            round.measure(64, || black_box(runtime.block_on(log.read(from..from + 64, usize::MAX)).unwrap()));
        });

        let snapshots = data_dir.open_snapshots().unwrap();
        let mut id = EntryId { index: 1, term: 1 };
        suite.case("snapshot; 64 chunks of 64 KiB written; each KiB", |round| {
            id.index += 1;
            round.measure(64 * 64, || {
                let mut writer = snapshots.begin(id, b"meta").unwrap();
                for _ in 0..64 {
                    writer.write(black_box(CHUNK)).unwrap();
                }
                writer.finish().unwrap()
            });
        });
        suite.case("snapshot; 64 chunks of 64 KiB read; each KiB", |round| {
            round.measure(64 * 64, || {
                let mut reader = snapshots.read(id).unwrap();
                while let Some(chunk) = reader.next_chunk().unwrap() {
                    black_box(chunk);
                }
            });
        });
    });
}
