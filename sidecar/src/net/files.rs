//! How many files this process may open, which bounds how many connections it may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files kept for the log, the snapshots, the peers and the other doors: a member must not stop because its clients
/// took the last one.
const FILES_RESERVED: u64 = 1024;
/// Where so few files are allowed that the reserve would take them all, clients get this share of them.
const CLIENT_SHARE: u64 = 4;

/// Raises the limit as far as the system lets us: the soft one is historical and low.
pub(crate) fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// How many files may be open; `None` is without limit.
pub(crate) fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How many of `wanted` connections can be had with `files` open files; `None` is without limit.
pub(crate) fn affordable_connections(wanted: usize, files: Option<u64>) -> usize {
    let Some(files) = files else { return wanted };
    let spare = files.saturating_sub(FILES_RESERVED).max(files / CLIENT_SHARE).max(1);
    wanted.min(usize::try_from(spare).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_the_log() {
        assert_eq!(affordable_connections(16_384, None), 16_384);
        assert_eq!(affordable_connections(16_384, Some(1_048_576)), 16_384);
        assert_eq!(affordable_connections(16_384, Some(4096)), 3072);
        assert_eq!(affordable_connections(16_384, Some(1024)), 256);
        assert_eq!(affordable_connections(16_384, Some(0)), 1);
    }
}
