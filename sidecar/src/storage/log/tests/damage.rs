//! Damage to every bit, a cut at every byte, a crash at every byte of a write.

use std::os::unix::fs::FileExt;

use super::*;

/// What was acknowledged by a log whose process then died.
struct Acknowledged {
    state: LogState,
    entries: Vec<LogEntry>,
}

/// Everything a log does, in two segments or a few, acknowledged; then the process dies without a goodbye.
fn scenarios() -> Vec<(&'static str, tempfile::TempDir, Acknowledged)> {
    vec![
        scenario("one entry", async |log| append(log, entries(1, 0..=0)).await.unwrap()),
        scenario("a vote alone", async |log| save_vote(log, "for two").await.unwrap()),
        scenario("many small batches", async |log| {
            for index in 1..=10 {
                append(log, entries(1, index..=index)).await.unwrap();
            }
        }),
        scenario("one batch over two segments", async |log| append(log, entries(1, 1..=16)).await.unwrap()),
        scenario("everything", async |log| {
            save_vote(log, "for one").await.unwrap();
            append(log, entries(1, 1..=4)).await.unwrap();
            save_vote(log, "for two").await.unwrap();
            log.truncate_after(Some(2)).await.unwrap();
            append(log, entries(2, 3..=7)).await.unwrap();
            log.purge(id(1, 1)).await;
            append(log, entries(2, 8..=8)).await.unwrap();
        }),
        scenario("ends with a truncation", async |log| {
            append(log, entries(1, 1..=4)).await.unwrap();
            log.truncate_after(Some(2)).await.unwrap();
            save_vote(log, "for two").await.unwrap();
        }),
        scenario("first segments purged", async |log| {
            append(log, entries(1, 1..=30)).await.unwrap();
            log.purge(id(1, 25)).await;
            append(log, entries(2, 31..=32)).await.unwrap();
        }),
        scenario("purged beyond the end", async |log| {
            append(log, entries(1, 1..=3)).await.unwrap();
            log.purge(id(2, 9)).await;
            append(log, entries(2, 10..=10)).await.unwrap();
        }),
    ]
}

fn scenario(name: &'static str, play: impl AsyncFnOnce(&Log)) -> (&'static str, tempfile::TempDir, Acknowledged) {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    let acknowledged = run(async {
        play(&log).await;
        log.abandon().await;
        Acknowledged { state: log.state(), entries: read_all(&log).await }
    });
    (name, dir, acknowledged)
}

/// The files of a log, to be put back after each try.
struct Image(Vec<(PathBuf, Vec<u8>)>);

impl Image {
    fn of(dir: &Path) -> Self {
        Self(segments(dir).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect())
    }

    fn restore(&self) {
        for (path, bytes) in &self.0 {
            overwrite(path, bytes);
        }
    }
}

/// Unlike `fs::write`, does not truncate first, upon which some file systems wait for the disk.
fn overwrite(path: &Path, bytes: &[u8]) {
    let file = fs::File::options().write(true).create(true).truncate(false).open(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
}

impl Acknowledged {
    /// Opens and reads the log: what is refused loses nothing.
    fn check(&self, dir: &Path, what: &str) -> Result<(), OpenError> {
        let log = open(dir, LogOptions { cache_bytes: 0, ..small() })?;
        assert_eq!(log.state(), self.state, "{what}");
        assert_eq!(run(read_all(&log)), self.entries, "{what}");
        run(log.abandon());
        Ok(())
    }
}

#[test]
fn mark_that_ends_with_a_zero_proves_its_flush_too() {
    // Checksums are salted anew in each log: one in 256 ends so.
    loop {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path(), small()).unwrap();
        run(append(&log, entries(1, 0..=0))).unwrap();
        run(log.abandon());
        let path = segments(dir.path()).remove(0);
        let mut bytes = fs::read(&path).unwrap();
        let mark = bytes.windows(4).rposition(|magic| magic == b"QFLU").unwrap();
        if bytes[mark + 15] != 0 {
            continue;
        }

        bytes[mark - 1] ^= 1;
        overwrite(&path, &bytes);

        let opened = open(dir.path(), small());
        assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{:?}", opened.map(|log| log.state()));
        return;
    }
}

#[test]
fn whatever_bit_is_flipped_the_log_is_refused_or_loses_nothing() {
    for (name, dir, acknowledged) in scenarios() {
        let image = Image::of(dir.path());
        let mut refused = 0;
        for (path, bytes) in &image.0 {
            for bit in 0..bytes.len() * 8 {
                image.restore();
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                overwrite(path, &flipped);

                if let Err(error) = acknowledged.check(dir.path(), &format!("{name}: {} bit {bit}", path.display())) {
                    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
                    refused += 1;
                }
            }
        }
        // Every bit of a batch counts.
        assert!(refused > 8 * 40, "{name}: {refused}");
        image.restore();
        acknowledged.check(dir.path(), name).unwrap();
    }
}

#[test]
fn wherever_a_file_is_cut_or_grown_the_log_is_refused() {
    for (name, dir, acknowledged) in scenarios() {
        let image = Image::of(dir.path());
        for (path, bytes) in &image.0 {
            for len in (0..bytes.len()).chain([bytes.len() + 1, bytes.len() * 2]) {
                image.restore();
                fs::File::options().write(true).open(path).unwrap().set_len(len as u64).unwrap();

                let error = acknowledged.check(dir.path(), name).expect_err("a cut file was taken");

                assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            }
        }
    }
}

/// The last segment before and after a write that nobody was told of, without the mark that follows its flush.
struct LastWrite {
    dir: tempfile::TempDir,
    acknowledged: Acknowledged,
    /// All entries, if the write is there.
    written: Vec<LogEntry>,
    path: PathBuf,
    before: Vec<u8>,
    after: Vec<u8>,
    /// Where the write begins and ends.
    range: Range<usize>,
}

/// As the disk may hold it: the mark before the write was not synced, so it need not be there.
fn last_write(entries_of_write: u64, mark_before: bool) -> LastWrite {
    let (_, dir, acknowledged) = scenario("", async |log| {
        save_vote(log, "for two").await.unwrap();
        append(log, entries(1, 1..=2)).await.unwrap();
    });
    let path = segments(dir.path()).pop().unwrap();
    let mut before = fs::read(&path).unwrap();
    let start = end_of(&before);
    let written = run(async {
        let log = open(dir.path(), small()).unwrap();
        append(&log, entries(3, 3..=2 + entries_of_write)).await.unwrap();
        log.abandon().await;
        read_all(&log).await
    });
    let mut after = fs::read(&path).unwrap();
    let range = start..end_of(&after) - block::MARK_BYTES;
    after[range.end..].fill(0);
    if !mark_before {
        before[start - block::MARK_BYTES..start].fill(0);
    }
    LastWrite { dir, acknowledged, written, path, before, after, range }
}

fn end_of(segment: &[u8]) -> usize {
    segment.iter().rposition(|&byte| byte != 0).unwrap() + 1
}

impl LastWrite {
    /// Opens the log as `bytes`: never refused, nothing acknowledged lost, the last write there as a whole or not at all.
    fn check(&self, bytes: &[u8], what: &str) {
        overwrite(&self.path, bytes);
        // Where the last try went on when this segment was full.
        for later in segments(self.dir.path()).iter().filter(|path| **path != self.path) {
            fs::remove_file(later).unwrap();
        }
        let complete = bytes[self.range.clone()] == self.after[self.range.clone()];
        let mut expected = if complete { self.written.clone() } else { self.acknowledged.entries.clone() };
        for opened in ["first", "second"] {
            let log = open(self.dir.path(), small()).unwrap_or_else(|error| panic!("{what}, {opened}: {error}"));
            assert_eq!(log.state().vote, self.acknowledged.state.vote, "{what}, {opened}");
            assert_eq!(run(read_all(&log)), expected, "{what}, {opened}");
            // The log goes on after it, over what may have been left there.
            let next = entry(9, log.state().last.unwrap().index + 1);
            expected.push(next.clone());
            run(append(&log, vec![next])).unwrap();
            run(log.abandon());
        }
    }
}

#[test]
fn write_cut_short_at_any_byte_is_erased_and_the_log_goes_on() {
    for mark_before in [true, false] {
        let write = last_write(3, mark_before);
        for len in 0..=write.range.len() {
            let mut bytes = write.before.clone();
            let written = write.range.start..write.range.start + len;
            bytes[written.clone()].copy_from_slice(&write.after[written]);

            write.check(&bytes, &format!("{len} bytes written"));
        }
    }
}

#[test]
fn write_of_which_any_sectors_are_missing_is_erased_and_the_log_goes_on() {
    const SECTOR: usize = 32;
    let write = last_write(4, false);
    // The sector with the mark before the write belongs to it: the mark became durable with it.
    let first = (write.range.start - block::MARK_BYTES) / SECTOR;
    let sectors = write.range.end.div_ceil(SECTOR) - first;
    assert!((6..=10).contains(&sectors), "{sectors} sectors");
    for subset in 0..1_u32 << sectors {
        let mut bytes = write.before.clone();
        for at in (0..sectors).filter(|at| subset & 1 << at != 0) {
            let sector = (first + at) * SECTOR..((first + at + 1) * SECTOR).min(bytes.len());
            bytes[sector.clone()].copy_from_slice(&write.after[sector]);
        }

        write.check(&bytes, &format!("sectors {subset:b}"));
    }
}

#[test]
fn payload_that_looks_like_a_mark_proves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), options()).unwrap();
    run(append(&log, entries(1, 1..=1))).unwrap();
    run(log.abandon());
    let path = segments(dir.path()).pop().unwrap();
    let mut before = fs::read(&path).unwrap();
    let log = open(dir.path(), options()).unwrap();
    // A client stores the log itself, at every offset.
    let stolen = &before[..end_of(&before)];
    let copy = LogEntry { id: id(1, 2), payload: [stolen, &stolen[1..], &stolen[7..]].concat().into() };
    run(append(&log, vec![copy])).unwrap();
    run(log.abandon());
    let after = fs::read(&path).unwrap();

    // The head of the write is lost, its payload is there.
    let start = end_of(&before);
    let end = end_of(&after) - block::MARK_BYTES;
    before[start + 100..end].copy_from_slice(&after[start + 100..end]);
    fs::write(&path, before).unwrap();

    assert_eq!(run(read_all(&open(dir.path(), options()).unwrap())), entries(1, 1..=1));
}

#[test]
fn missing_segment_is_refused_by_its_name_wherever_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    run(append(&log, entries(1, 1..=60))).unwrap();
    run(log.abandon());
    let image = Image::of(dir.path());
    assert!(image.0.len() >= 4);

    for (at, (path, _)) in image.0.iter().enumerate() {
        image.restore();
        fs::remove_file(path).unwrap();

        let error = open(dir.path(), small()).unwrap_err();

        match at {
            0 => assert!(matches!(error, OpenError::EntriesMissing { first: 0, .. }), "{error}"),
            _ => assert!(matches!(&error, OpenError::Missing { file } if file == path), "{error}"),
        }
    }
}

#[test]
fn foreign_files_and_segments_are_refused_by_their_name() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    run(append(&log, entries(1, 1..=20))).unwrap();
    run(log.abandon());
    let image = Image::of(dir.path());

    let other_log = Log::open(dir.path(), LOG_ID + 1, None, small()).unwrap_err();
    assert!(matches!(other_log, OpenError::OtherLog { .. }), "{other_log}");

    fs::write(dir.path().join("notes.txt"), "x").unwrap();
    let foreign = open(dir.path(), small()).unwrap_err();
    assert!(matches!(&foreign, OpenError::Foreign { file } if file.ends_with("notes.txt")), "{foreign}");
    fs::remove_file(dir.path().join("notes.txt")).unwrap();

    fs::copy(&image.0[0].0, &image.0[1].0).unwrap();
    let misplaced = open(dir.path(), small()).unwrap_err();
    assert!(matches!(&misplaced, OpenError::Damaged { what, .. } if what.contains("segment 1")), "{misplaced}");

    image.restore();
    let file = fs::File::options().write(true).open(&image.0[0].0).unwrap();
    file.write_all_at(&9_u32.to_le_bytes(), 8).unwrap();
    let later = open(dir.path(), small()).unwrap_err();
    assert!(matches!(later, OpenError::UnknownFormat { found: 9, known: 1, .. }), "{later}");
}

#[test]
fn segment_that_was_never_finished_is_removed() {
    let (_, dir, acknowledged) = scenario("", async |log| append(log, entries(1, 1..=3)).await.unwrap());
    let leftover = dir.path().join("00000002.log.tmp");
    fs::write(&leftover, "half a segm").unwrap();

    acknowledged.check(dir.path(), "").unwrap();

    assert!(!leftover.exists());
}

#[test]
fn crash_between_making_a_segment_and_writing_to_it_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), small()).unwrap();
    run(append(&log, entries(1, 1..=12))).unwrap();
    run(log.abandon());
    let [first, second] = segments(dir.path()).try_into().unwrap();
    let kept = {
        let log_bytes = fs::read(&second).unwrap();
        let mut empty = vec![0; log_bytes.len()];
        empty[..SEGMENT_HEAD_BYTES as usize].copy_from_slice(&log_bytes[..SEGMENT_HEAD_BYTES as usize]);
        fs::write(&second, empty).unwrap();
        run(read_all(&open(dir.path(), small()).unwrap()))
    };
    assert!(!kept.is_empty() && kept.len() < 12);

    // Sealed or not: the second segment proves what the first must hold.
    let mut bytes = fs::read(&first).unwrap();
    let seal = end_of(&bytes) - block::MARK_BYTES..end_of(&bytes);
    bytes[seal].fill(0);
    fs::write(&first, bytes).unwrap();
    let log = open(dir.path(), small()).unwrap();

    assert_eq!(run(read_all(&log)), kept);
    let next = kept.len() as u64 + 1;
    run(append(&log, entries(2, next..=next))).unwrap();
}
