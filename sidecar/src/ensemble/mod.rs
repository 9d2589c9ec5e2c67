//! Agreement. The only place that names the Raft crate.

mod types;
