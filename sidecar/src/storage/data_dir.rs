//! The directory that is one member's disk: one process at a time, one member for ever.
//!
//! Opening refuses whatever could make the member take part as somebody it is not: another member's data, content
//! that is not ours, a lost identity or log, a copy that was found to differ. Each refusal says what to do next.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use quorate_tree::MemberId;
use rustix::fs::FlockOperation;

use super::{
    Log, LogOptions, OpenError, SnapshotError, Snapshots, durable,
    identity::{Identity, IdentityError},
};

const LOCK: &str = "lock";
const IDENTITY: &str = "identity";
const DIVERGED: &str = "diverged";
const LOG: &str = "log";
const SNAPSHOTS: &str = "snapshots";
/// What a file system may put into its root by itself.
const OF_THE_FILE_SYSTEM: &str = "lost+found";

/// An open data directory. Nobody else opens it while this, or the log opened from it, lives.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    lock: DirLock,
    sync: bool,
    // Held while the file is written, so that the file never falls behind the value.
    identity: Mutex<Identity>,
}

/// Keeps other processes out; shared by everything that may still write.
#[derive(Clone, Debug)]
pub(super) struct DirLock {
    // Closing the file gives the lock back.
    _file: Arc<File>,
}

/// Why a data directory is not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DataDirError {
    #[error("data directory {} is in use by {holder}; stop it, or give this member another directory", dir.display())]
    InUse { dir: PathBuf, holder: String },
    #[error(
        "data directory {} belongs to member {found}, this is member {expected}; check the id and the directory",
        dir.display()
    )]
    OtherMember { dir: PathBuf, found: MemberId, expected: MemberId },
    #[error(
        "data directory {} holds {name:?}, which is not Quorate's, and no identity; give this member an empty directory",
        dir.display()
    )]
    Foreign { dir: PathBuf, name: String },
    #[error(
        "data directory {} holds {name:?} but its identity is gone; move the directory away and start with an empty \
         one, the member then joins again as a new disk",
        dir.display()
    )]
    IdentityLost { dir: PathBuf, name: String },
    #[error(
        "data directory {} has joined an ensemble but its log is gone; move the directory away and start with an \
         empty one, the member then joins again as a new disk",
        dir.display()
    )]
    LogLost { dir: PathBuf },
    #[error(
        "{} {source}; if no other version of Quorate made it, move the data directory away and start with an empty \
         one, the member then joins again as a new disk",
        file.display()
    )]
    Identity { file: PathBuf, source: IdentityError },
    #[error(
        "data directory {} holds a copy that differs from the others ({reason}); move the directory away and start \
         with an empty one, the member then joins again as a new disk",
        dir.display()
    )]
    Diverged { dir: PathBuf, reason: String },
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl DataDirError {
    /// Whether something that was written is not there any more as it was.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::IdentityLost { .. } | Self::LogLost { .. } | Self::Diverged { .. } => true,
            Self::Identity { source, .. } => *source == IdentityError::Damaged,
            _ => false,
        }
    }
}

impl DataDir {
    /// Opens the directory of `member_id`, made when missing, and counts this start. Blocks on the disk.
    pub(crate) fn open(path: &Path, member_id: MemberId, sync: bool) -> Result<Self, DataDirError> {
        create_dir(path, sync)?;
        let lock = DirLock::take(path)?;
        refuse_diverged(path)?;
        let mut identity = match read_identity(path)? {
            Some(identity) => identity,
            None => {
                refuse_content(path)?;
                // The random disk id tells a wiped disk from the one it was.
                let disk_id = rand::random_range(1..=u64::MAX);
                Identity { member_id, disk_id, incarnation: 0, joined: false, ensemble_id: 0, list: String::new() }
            }
        };
        if identity.member_id != member_id {
            let dir = path.to_owned();
            return Err(DataDirError::OtherMember { dir, found: identity.member_id, expected: member_id });
        }
        if identity.joined && is_empty(&path.join(LOG))? {
            return Err(DataDirError::LogLost { dir: path.to_owned() });
        }
        identity.incarnation += 1;
        write_identity(path, &identity, sync)?;
        Ok(Self { path: path.to_owned(), lock, sync, identity: Mutex::new(identity) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity.lock().clone()
    }

    /// Remembers that this disk has been accepted into the ensemble with this list of members. On disk when it returns;
    /// blocks on the disk.
    pub(crate) fn set_joined(&self, ensemble_id: u64, list: &str) -> Result<(), DataDirError> {
        let mut identity = self.identity.lock();
        let joined = Identity { joined: true, ensemble_id, list: list.to_owned(), ..identity.clone() };
        if *identity == joined {
            return Ok(());
        }
        write_identity(&self.path, &joined, self.sync)?;
        *identity = joined;
        Ok(())
    }

    /// Refuses every later open: this copy was found to differ from the others. Blocks on the disk.
    pub(crate) fn mark_diverged(&self, reason: &str) -> Result<(), DataDirError> {
        let path = self.path.join(DIVERGED);
        let written = durable::replace(&path, reason.as_bytes(), self.sync);
        written.map_err(|source| DataDirError::Io { action: "writing", path, source })
    }

    /// Opens the log, made when missing. Blocks on the disk, as long as reading the log takes.
    pub(crate) fn open_log(&self, options: LogOptions) -> Result<Log, OpenError> {
        let options = LogOptions { sync: self.sync, ..options };
        Log::open(&self.path.join(LOG), self.identity().disk_id, Some(self.lock.clone()), options)
    }

    /// Opens the snapshots. Blocks on the disk.
    pub(crate) fn open_snapshots(&self) -> Result<Snapshots, SnapshotError> {
        Snapshots::open(&self.path.join(SNAPSHOTS), self.sync)
    }
}

impl DirLock {
    fn take(dir: &Path) -> Result<Self, DataDirError> {
        let path = dir.join(LOCK);
        let failed = |source| DataDirError::Io { action: "locking", path: path.clone(), source };
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(failed)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let known = file.read_to_string(&mut holder).is_ok() && !holder.is_empty();
                let holder = if known { format!("process {}", holder.trim()) } else { "another process".to_owned() };
                return Err(DataDirError::InUse { dir: dir.to_owned(), holder });
            }
            Err(error) => return Err(failed(error.into())),
        }
        // Only for the message above.
        file.set_len(0).map_err(failed)?;
        writeln!(file, "{}", std::process::id()).map_err(failed)?;
        Ok(Self { _file: Arc::new(file) })
    }
}

fn create_dir(path: &Path, sync: bool) -> Result<(), DataDirError> {
    let create = || {
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(path)?;
        // The name of a directory with acknowledged data must not vanish with the power.
        if sync { durable::sync_dir(durable::parent(&path.canonicalize()?)) } else { Ok(()) }
    };
    create().map_err(|source| DataDirError::Io { action: "making the directory", path: path.to_owned(), source })
}

fn refuse_diverged(dir: &Path) -> Result<(), DataDirError> {
    match fs::read(dir.join(DIVERGED)) {
        Ok(reason) => {
            let reason = String::from_utf8_lossy(&reason).trim().to_owned();
            Err(DataDirError::Diverged { dir: dir.to_owned(), reason })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(DataDirError::Io { action: "reading", path: dir.join(DIVERGED), source }),
    }
}

fn read_identity(dir: &Path) -> Result<Option<Identity>, DataDirError> {
    let file = dir.join(IDENTITY);
    match fs::read(&file) {
        Ok(bytes) => Identity::decode(&bytes).map(Some).map_err(|source| DataDirError::Identity { file, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DataDirError::Io { action: "reading", path: file, source }),
    }
}

fn write_identity(dir: &Path, identity: &Identity, sync: bool) -> Result<(), DataDirError> {
    let path = dir.join(IDENTITY);
    let written = durable::replace(&path, identity.encode().as_bytes(), sync);
    written.map_err(|source| DataDirError::Io { action: "writing", path, source })
}

/// A directory without identity may hold nothing but the traces of a first start that was cut short.
fn refuse_content(dir: &Path) -> Result<(), DataDirError> {
    let unfinished = durable::unfinished(Path::new(IDENTITY));
    for name in names(dir)? {
        if name == LOCK || name == OF_THE_FILE_SYSTEM || Path::new(&name) == unfinished {
            continue;
        }
        let dir = dir.to_owned();
        return Err(match name.as_str() {
            LOG | SNAPSHOTS => DataDirError::IdentityLost { dir, name },
            _ => DataDirError::Foreign { dir, name },
        });
    }
    Ok(())
}

fn is_empty(dir: &Path) -> Result<bool, DataDirError> {
    Ok(!dir.exists() || names(dir)?.is_empty())
}

fn names(dir: &Path) -> Result<Vec<String>, DataDirError> {
    let failed = |source| DataDirError::Io { action: "listing", path: dir.to_owned(), source };
    let entries = fs::read_dir(dir).map_err(failed)?;
    entries.map(|entry| Ok(entry.map_err(failed)?.file_name().to_string_lossy().into_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    const MEMBER: MemberId = MemberId(2);

    fn open(path: &Path) -> Result<DataDir, DataDirError> {
        DataDir::open(path, MEMBER, false)
    }

    #[test]
    fn missing_directory_is_made_with_a_new_disk() {
        let dir = tempfile::tempdir().unwrap();

        let one = DataDir::open(&dir.path().join("a/b"), MEMBER, true).unwrap().identity();
        let other = open(&dir.path().join("c")).unwrap().identity();

        assert_eq!((one.incarnation, one.joined, one.ensemble_id), (1, false, 0));
        assert_ne!(one.disk_id, other.disk_id);
    }

    #[test]
    fn every_open_is_a_new_incarnation_of_the_same_disk() {
        let dir = tempfile::tempdir().unwrap();
        let first = open(dir.path()).unwrap().identity();

        let second = open(dir.path()).unwrap().identity();

        assert_eq!(second, Identity { incarnation: 2, ..first });
    }

    #[test]
    fn what_was_joined_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        data.open_log(LogOptions::default()).unwrap();
        data.set_joined(7, "1=a:1").unwrap();
        drop(data);

        let identity = eventually_open(dir.path()).identity();

        assert!(identity.joined);
        assert_eq!((identity.ensemble_id, identity.list.as_str()), (7, "1=a:1"));
    }

    /// A log's own thread gives the lock back once it has ended, shortly after its last handle was dropped.
    fn eventually_open(path: &Path) -> DataDir {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            match open(path) {
                Ok(data) => return data,
                Err(DataDirError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[test]
    fn directory_in_use_is_refused_by_the_name_of_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let _holder = open(dir.path()).unwrap();

        let Err(DataDirError::InUse { holder, .. }) = open(dir.path()) else { panic!("opened twice") };

        assert_eq!(holder, format!("process {}", std::process::id()));
    }

    #[test]
    fn open_log_keeps_the_directory_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        let _log = data.open_log(LogOptions::default()).unwrap();

        drop(data);

        assert!(matches!(open(dir.path()), Err(DataDirError::InUse { .. })));
    }

    #[test]
    fn directory_of_another_member_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        let before = fs::read(dir.path().join(IDENTITY)).unwrap();

        let error = DataDir::open(dir.path(), MemberId(3), false).unwrap_err();

        assert!(matches!(error, DataDirError::OtherMember { found: MEMBER, expected: MemberId(3), .. }), "{error}");
        assert_eq!(fs::read(dir.path().join(IDENTITY)).unwrap(), before);
    }

    #[test]
    fn foreign_content_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();

        let error = open(dir.path()).unwrap_err();

        assert!(matches!(&error, DataDirError::Foreign { name, .. } if name == "thesis.tex"), "{error}");
        assert!(!dir.path().join(IDENTITY).exists());
    }

    #[test]
    fn root_of_a_fresh_file_system_is_taken_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(OF_THE_FILE_SYSTEM)).unwrap();

        open(dir.path()).unwrap();
    }

    #[test]
    fn start_cut_short_before_its_identity_stood_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("identity.tmp"), "quorate ide").unwrap();

        assert_eq!(open(dir.path()).unwrap().identity().incarnation, 1);
    }

    #[test]
    fn lost_identity_is_refused_where_a_log_is() {
        let dir = tempfile::tempdir().unwrap();
        let data = open(dir.path()).unwrap();
        data.open_log(LogOptions::default()).unwrap();
        drop(data);
        drop(eventually_open(dir.path()));
        fs::remove_file(dir.path().join(IDENTITY)).unwrap();

        let error = open(dir.path()).unwrap_err();

        assert!(matches!(error, DataDirError::IdentityLost { .. }), "{error}");
    }

    #[test]
    fn lost_log_of_a_joined_disk_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap().set_joined(7, "1=a:1").unwrap();

        let error = open(dir.path()).unwrap_err();

        assert!(matches!(error, DataDirError::LogLost { .. }), "{error}");
    }

    #[test]
    fn damaged_identity_is_refused_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()).unwrap());
        let file = dir.path().join(IDENTITY);
        let text = fs::read_to_string(&file).unwrap().replace("joined false", "joined true");
        fs::write(&file, text).unwrap();

        let error = open(dir.path()).unwrap_err();

        assert!(matches!(error, DataDirError::Identity { source: IdentityError::Damaged, .. }), "{error}");
        assert!(error.to_string().contains("identity is damaged"), "{error}");
    }

    #[test]
    fn diverged_copy_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap().mark_diverged("digest at zxid 4096").unwrap();

        let error = open(dir.path()).unwrap_err();

        assert!(error.to_string().contains("digest at zxid 4096"), "{error}");
    }
}
