//! The Quorate sidecar: a member of a replicated coordination ensemble.
//!
//! Layers, top to bottom: the composition root, `front`, `session`, `ensemble`, `replica` and
//! `storage`. Each imports only downwards. ARCHITECTURE.md is the map.

#[doc(hidden)]
pub mod cli;
mod clock;
mod config;
mod ensemble;
mod front;
mod net;
mod replica;
mod session;
mod sidecar;
mod storage;
mod telemetry;
pub mod testing;

pub use config::{
    Address, CheckError, CheckWarning, Config, FourLetterWord, FourLetterWords, NotADigest, NotAWord, NotAnAddress,
    NotVoters, SuperDigest, Voters,
};
pub use net::BindError;
pub use sidecar::{Addresses, Running, Sidecar, SidecarError};
