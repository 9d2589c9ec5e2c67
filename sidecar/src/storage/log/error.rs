//! What can go wrong with a log, by what can be done about it.

use std::{io, path::PathBuf, sync::Arc};

/// Why a log is not opened. Nothing has been changed, except that leftovers of unfinished files are gone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(
        "{} is damaged at byte {offset}: {what}; entries that were acknowledged may be lost, so move the data \
         directory away and start with an empty one, the member then joins again as a new disk",
        file.display()
    )]
    Damaged { file: PathBuf, offset: u64, what: String },
    #[error(
        "{} is {found} bytes long instead of {expected}: it was cut, so move the data directory away and start with \
         an empty one, the member then joins again as a new disk",
        file.display()
    )]
    WrongLength { file: PathBuf, found: u64, expected: u64 },
    #[error(
        "{} is missing: move the data directory away and start with an empty one, the member then joins again as a \
         new disk",
        file.display()
    )]
    Missing { file: PathBuf },
    #[error(
        "entries {first} to {last} are missing from the log in {}: move the data directory away and start with an \
         empty one, the member then joins again as a new disk",
        dir.display()
    )]
    EntriesMissing { dir: PathBuf, first: u64, last: u64 },
    #[error(
        "{} has format {found}, this version reads format {known}: start the version that wrote it",
        file.display()
    )]
    UnknownFormat { file: PathBuf, found: u32, known: u32 },
    #[error("{} belongs to another log: the files of different data directories were mixed", file.display())]
    OtherLog { file: PathBuf },
    #[error("{} is not part of the log: remove it if it is yours", file.display())]
    Foreign { file: PathBuf },
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    /// Whether something that was written is not there any more as it was.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::WrongLength { .. } | Self::Missing { .. } | Self::EntriesMissing { .. } => {
                true
            }
            Self::UnknownFormat { .. } | Self::OtherLog { .. } | Self::Foreign { .. } | Self::Io { .. } => false,
        }
    }
}

/// Why a request to the log was refused. The log is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error("entry {found} does not follow: {expected} comes next")]
    Hole { found: u64, expected: u64 },
    #[error("entry {index} lies below {purged}, up to which all is purged")]
    Purged { index: u64, purged: u64 },
    #[error("entry {index} has {bytes} bytes, more than {bytes_max}")]
    TooLarge { index: u64, bytes: usize, bytes_max: usize },
}

/// Why the log takes nothing any more. It stays so until the process starts again: after a failed write or sync
/// nobody knows what is on disk.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum LogFailure {
    #[error("{action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: Arc<io::Error>,
    },
    #[error("the thread that writes the log panicked")]
    Panicked,
    #[error("the log is closed")]
    Closed,
}

impl LogFailure {
    pub(super) fn io(action: &'static str, path: &std::path::Path, source: io::Error) -> Self {
        Self::Io { action, path: path.to_owned(), source: Arc::new(source) }
    }
}

impl From<LogFailure> for io::Error {
    fn from(failure: LogFailure) -> Self {
        let kind = match &failure {
            LogFailure::Io { source, .. } => source.kind(),
            LogFailure::Panicked => io::ErrorKind::Other,
            LogFailure::Closed => io::ErrorKind::BrokenPipe,
        };
        Self::new(kind, failure)
    }
}

impl From<LogError> for io::Error {
    fn from(error: LogError) -> Self {
        Self::new(io::ErrorKind::InvalidInput, error)
    }
}
