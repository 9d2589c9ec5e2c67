//! Agreement. The only place that names the Raft crate.

mod codec;
mod types;
