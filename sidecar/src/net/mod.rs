//! Sockets: listening, taking connections in, and the bounds on both. Knows no protocol.

mod accept;
mod files;

pub(crate) use accept::{BindError, Bounds, Connection, Door};
pub(crate) use files::{affordable_connections, raise_open_files};
