//! How fast the log is, next to what the disk allows. Not a test: it measures.

use std::{os::unix::fs::FileExt, time::Instant};

use super::*;

const PAYLOAD_BYTES: usize = 256;
const WINDOW: Duration = Duration::from_secs(3);

#[test]
#[ignore = "measures"]
fn appends_per_second() {
    println!("{PAYLOAD_BYTES} B an entry, {} s each", WINDOW.as_secs());
    for _round in 0..3 {
        let per_second = raw_writes() as f64 / WINDOW.as_secs_f64();
        println!("raw pwrite + fdatasync: {per_second:>8.0} /s");
        for waiters in [1, 64] {
            let (appends, flushes) = appends(waiters);
            let per_second = |count: u64| count as f64 / WINDOW.as_secs_f64();
            println!(
                "log, {waiters:>2} waiters:        {:>8.0} appends/s, {:>6.0} flushes/s",
                per_second(appends),
                per_second(flushes)
            );
        }
    }
}

/// One thread that writes one entry after the other into a file whose blocks are there.
fn raw_writes() -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let file = durable::create_preallocated(&dir.path().join("raw"), 256 << 20, true).unwrap();
    file.sync_all().unwrap();
    let payload = [7; PAYLOAD_BYTES];
    let started = Instant::now();
    let mut count = 0;
    while started.elapsed() < WINDOW {
        file.write_all_at(&payload, count * PAYLOAD_BYTES as u64).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    count
}

/// Tasks that append one entry each and wait until it is acknowledged.
fn appends(waiters: usize) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let (options, flushes) = counted(LogOptions::default());
    let log = open(dir.path(), options).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let next = Arc::new(tokio::sync::Mutex::new(1));
    let payload = Bytes::from_static(&[7; PAYLOAD_BYTES]);
    let started = Instant::now();
    let tasks: Vec<_> = (0..waiters)
        .map(|_| {
            let (log, next, payload) = (log.clone(), next.clone(), payload.clone());
            runtime.spawn(async move {
                let mut count = 0;
                while started.elapsed() < WINDOW {
                    let (done, acknowledged) = oneshot::channel();
                    let mut next = next.lock().await;
                    let entry = LogEntry { id: id(1, *next), payload: payload.clone() };
                    log.append(vec![entry], |result| done.send(result).unwrap()).await.unwrap();
                    *next += 1;
                    drop(next);
                    acknowledged.await.unwrap().unwrap();
                    count += 1;
                }
                count
            })
        })
        .collect();
    let appends = runtime.block_on(async {
        let mut appends = 0;
        for task in tasks {
            appends += task.await.unwrap();
        }
        appends
    });
    (appends, flushes.load(Ordering::Relaxed))
}
