use super::*;

fn id(term: u64, index: u64) -> EntryId {
    EntryId { index, term }
}

fn open(dir: &Path) -> Snapshots {
    Snapshots::open(dir, false).unwrap()
}

const CHUNKS: [&[u8]; 3] = [b"first", b"s", b"the third chunk"];

fn write(snapshots: &Snapshots, id: EntryId) -> SnapshotInfo {
    let mut writer = snapshots.begin(id, b"meta").unwrap();
    for chunk in CHUNKS {
        writer.write(chunk).unwrap();
    }
    writer.finish().unwrap()
}

fn read(snapshots: &Snapshots, id: EntryId) -> Result<Vec<Bytes>, SnapshotError> {
    let mut reader = snapshots.read(id)?;
    std::iter::from_fn(|| reader.next_chunk().transpose()).collect()
}

fn listed(snapshots: &Snapshots) -> Vec<EntryId> {
    snapshots.list().unwrap().into_iter().map(|info| info.id).collect()
}

#[test]
fn snapshot_reads_as_written_in_the_same_chunks() {
    for sync in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(&dir.path().join("new"), sync).unwrap();

        let info = write(&snapshots, id(2, 70));

        let expected = SnapshotInfo { id: id(2, 70), meta: "meta".into(), bytes: 21 };
        assert_eq!(info, expected);
        assert_eq!(snapshots.list().unwrap(), [expected]);
        assert_eq!(read(&snapshots, id(2, 70)).unwrap(), CHUNKS);
    }
}

#[test]
fn snapshot_of_nothing_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());

    snapshots.begin(id(1, 1), b"").unwrap().finish().unwrap();

    assert_eq!(read(&snapshots, id(1, 1)).unwrap(), [] as [Bytes; 0]);
    assert_eq!(listed(&snapshots), [id(1, 1)]);
}

#[test]
fn three_newest_by_term_then_index_stay() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());

    for (term, index) in [(1, 500), (1, 60), (3, 7), (2, 1000), (0x10, 8)] {
        write(&snapshots, id(term, index));
    }

    assert_eq!(listed(&snapshots), [id(0x10, 8), id(3, 7), id(2, 1000)]);
    assert_eq!(paths(dir.path()).unwrap().len(), 3);
}

#[test]
fn unfinished_snapshot_is_not_there_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    let mut writer = snapshots.begin(id(1, 1), b"meta").unwrap();
    writer.write(b"chunk").unwrap();
    assert_eq!(listed(&snapshots), []);

    drop(writer);

    assert_eq!(paths(dir.path()).unwrap(), [] as [PathBuf; 0]);
}

#[test]
fn leftover_of_a_killed_process_is_removed_at_open() {
    let dir = tempfile::tempdir().unwrap();
    write(&open(dir.path()), id(1, 1));
    fs::write(dir.path().join("0.tmp"), "half a snapshot").unwrap();

    let snapshots = open(dir.path());

    assert_eq!(paths(dir.path()).unwrap().len(), 1);
    assert_eq!(listed(&snapshots), [id(1, 1)]);
}

#[test]
fn snapshots_written_at_the_same_time_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    let mut own = snapshots.begin(id(1, 1), b"own").unwrap();
    let mut received = snapshots.begin(id(1, 1), b"received").unwrap();
    own.write(b"own").unwrap();
    received.write(b"received").unwrap();

    received.finish().unwrap();
    assert_eq!(read(&snapshots, id(1, 1)).unwrap(), ["received"]);
    own.finish().unwrap();
    assert_eq!(read(&snapshots, id(1, 1)).unwrap(), ["own"]);
}

#[test]
fn removed_snapshot_can_be_read_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    write(&snapshots, id(1, 1));
    let mut reader = snapshots.read(id(1, 1)).unwrap();

    (2..=5).for_each(|index| drop(write(&snapshots, id(1, index))));

    assert!(snapshots.read(id(1, 1)).is_err());
    let chunks: Vec<_> = std::iter::from_fn(|| reader.next_chunk().unwrap()).collect();
    assert_eq!(chunks, CHUNKS);
}

#[test]
fn every_flipped_bit_and_every_cut_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    write(&snapshots, id(2, 70));
    let path = snapshots.path(id(2, 70));
    let bytes = fs::read(&path).unwrap();

    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, flipped).unwrap();
        assert!(read(&snapshots, id(2, 70)).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        fs::write(&path, &bytes[..len]).unwrap();
        assert!(read(&snapshots, id(2, 70)).is_err(), "cut at {len}");
        assert_eq!(listed(&snapshots), [], "cut at {len}");
    }
}

#[test]
fn damaged_newest_leaves_the_older_ones_to_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    (1..=3).for_each(|index| drop(write(&snapshots, id(1, index))));
    let newest = snapshots.path(id(1, 3));
    let mut bytes = fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&newest, bytes).unwrap();

    // Head and end are in order, so only reading it shows the damage.
    assert_eq!(listed(&snapshots), [id(1, 3), id(1, 2), id(1, 1)]);
    assert!(matches!(read(&snapshots, id(1, 3)), Err(SnapshotError::Damaged { .. })));
    snapshots.set_aside(id(1, 3)).unwrap();

    assert_eq!(listed(&snapshots), [id(1, 2), id(1, 1)]);
    assert!(newest.with_extension(DAMAGED).exists());
}

#[test]
fn snapshot_of_a_later_format_is_refused_and_not_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    write(&snapshots, id(1, 1));
    let path = snapshots.path(id(1, 1));
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 2;
    fs::write(&path, bytes).unwrap();

    assert!(matches!(snapshots.list(), Err(SnapshotError::UnknownFormat { found: 2, .. })));
}

#[test]
fn renamed_snapshot_does_not_pass_for_another() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    write(&snapshots, id(1, 1));

    fs::rename(snapshots.path(id(1, 1)), snapshots.path(id(1, 9))).unwrap();

    assert!(matches!(snapshots.read(id(1, 9)), Err(SnapshotError::Damaged { .. })));
}

#[test]
fn chunk_of_a_size_that_cannot_be_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    let mut writer = snapshots.begin(id(1, 1), b"").unwrap();

    for bytes in [0, CHUNK_BYTES_MAX + 1] {
        assert!(matches!(writer.write(&vec![0; bytes]), Err(SnapshotError::ChunkSize { .. })));
    }
    writer.write(&vec![0; CHUNK_BYTES_MAX]).unwrap();
    writer.finish().unwrap();

    assert_eq!(read(&snapshots, id(1, 1)).unwrap()[0].len(), CHUNK_BYTES_MAX);
}

#[test]
fn failure_before_the_rename_leaves_the_older_ones_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = open(dir.path());
    write(&snapshots, id(1, 1));
    let point = format!("snapshot-before-rename@{}", dir.path().display());
    fail::cfg(&point, "return").unwrap();

    let failed = snapshots.begin(id(1, 2), b"meta").unwrap().finish();
    fail::remove(point);

    assert!(matches!(failed, Err(SnapshotError::Io { action: "finishing", .. })));
    assert_eq!(listed(&snapshots), [id(1, 1)]);
    assert_eq!(paths(dir.path()).unwrap().len(), 1);
}
