//! Sockets: listening, taking connections in, and the bounds on both. Knows no protocol.

mod accept;
mod files;

pub use accept::BindError;
pub(crate) use accept::{Bounds, Connection, Door};
pub(crate) use files::{affordable_connections, open_files_max, raise_open_files};
