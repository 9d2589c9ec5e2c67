//! The Quorate sidecar: a member of a replicated coordination ensemble.
//!
//! Layers, top to bottom: the composition root, `front`, `session`, `ensemble`, `replica` and
//! `storage`. Each imports only downwards. ARCHITECTURE.md is the map.

mod clock;
mod ensemble;
mod front;
mod replica;
mod session;
mod storage;
