//! Snapshots: the whole replicated state as a sequence of parts, and back.
//!
//! A part is a sequence of length-delimited items ([`format`]); the first one of the snapshot says its format, the
//! last one what must have come out. Freezing takes no time that depends on the size of the tree: nodes and
//! sessions keep images of themselves when they change before the walk has passed them. Files, checksums of files
//! and the transport between members are not the work of this crate.

mod format;
mod load;
mod stored;
mod walk;

pub use load::{LoadError, TreeLoader};
pub(crate) use walk::Walk;
