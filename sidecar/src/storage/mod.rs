//! What one member keeps on disk: its log, its snapshots and who it is, in one data directory.
//!
//! ```text
//! DIR/lock                    held while a process uses the directory
//! DIR/identity                who this member is; see `identity`
//! DIR/diverged                present when this copy was found to differ from the others
//! DIR/log/00000001.log ...    segments of the log; see `log`
//! DIR/snapshots/T-I.snap ...  the last snapshots; see `snapshots`
//! ```
//!
//! Knows no Raft type and no meaning of what it keeps: payloads, votes and snapshot heads are bytes. Every format
//! carries a version and checksums; what cannot be read is refused with a sentence, never repaired by guess.
//!
//! Without disk (tests, `dev`): the same code on a temporary directory with `sync: false`. It survives a killed
//! process, as the kernel keeps what was written, and promises nothing after a power loss.

mod data_dir;
mod durable;
mod identity;
mod log;
#[cfg(test)]
mod micro;
mod snapshots;
mod space;

pub(crate) use data_dir::{DataDir, DataDirError};
pub(crate) use log::{EntryId, FlushObserver, FlushReport, Log, LogEntry, LogOptions, OpenError};
pub(crate) use snapshots::{SnapshotError, SnapshotReader, SnapshotWriter, Snapshots};
pub(crate) use space::DiskSpace;
