//! What applications coordinate with: locks, elections, discovery and live configuration, on the Quorate client.
//!
//! Everything here is built on nothing but what is public in [`quorate`]. Names, modes and data of the nodes are
//! those of Curator and Spring Cloud Zookeeper, so that programs in Java and Rust meet on the same paths: they
//! contend for the same locks and find each other's services.
//!
//! | Recipe | Starts with | For |
//! |---|---|---|
//! | [`lock`] | [`Mutex`] | one at a time, in the order of arrival |
//! | [`election`] | [`Election`] | one of many leads, and all know which |
//! | [`discovery`] | [`Registry`], [`Discovery`] | services that register and find each other |
//! | [`config`] | [`Config`] | settings that change while a program runs |
//!
//! What is held is held by a value: a [`LockGuard`], a [`Leadership`]. Dropping it gives it up. It may be lost
//! before: a session can expire, an operator can delete a node. [`Hold`] says what a holder can ask and how it
//! is told, and [`fence`] how writes are kept from taking effect when it was told too late.

#![deny(missing_docs)]

pub mod config;
pub mod discovery;
pub mod election;
mod error;
pub mod fence;
mod line;
pub mod lock;
mod mirror;

pub use config::{Config, Live};
pub use discovery::{Discovery, Instance, Registration, Registry, ServiceView};
pub use election::{Election, Leadership};
pub use error::{Error, Result};
pub use fence::{FencedClient, FencingToken};
pub use line::{Hold, HoldState, HolderInfo, Participant};
pub use lock::{LockGuard, Mutex, SharedGuard};
pub use mirror::Freshness;
pub use quorate::LostReason;
