//! The pure replicated state machine of Quorate: znodes, sessions and the outcomes of their writes.
//!
//! [`Tree::apply`] is the only mutator, and [`Tree::apply_ahead`], which begins what takes long. Given the same commands
//! in the same order, every replica ends in the same state with the same [digest](Tree::digest); nothing here reads a
//! clock, does IO, or depends on the order of a hash table or on chance. (The one random number seeds hash tables, so that nobody can choose names that
//! collide; it shows nowhere.) Meanings are ZooKeeper's, error precedence included.
//!
//! What it is not: it knows no log, no network, no watch. It reports what changed ([`Change`]), and those who
//! care compare that with their watches.
//!
//! Bounds are in [`Limits`]; they are part of what members must agree on.

mod acl;
mod acl_lists;
mod change;
mod command;
mod config_node;
mod digest;
mod ids;
mod images;
mod limits;
mod members;
mod multi;
mod names;
mod node;
mod nodes;
mod outcome;
mod path;
mod quotas;
mod read;
mod reaping;
mod sessions;
mod snapshot;
mod stat;
mod tree;
mod usage;
mod writes;

pub use acl::{Acl, Identity, Permissions, allows};
pub use change::{Change, SessionEnd};
pub use command::{
    Author, Check, Command, Create, CreateMode, Delete, Lane, MultiOp, Op, Reap, SetAcl, SetData, WriteNumber,
};
pub use ids::{MemberId, SessionId, Zxid};
pub use limits::Limits;
pub use names::Names;
pub use outcome::{Applied, Outcome, Refusal, Refused, Reply};
pub use path::{Path, PathError};
pub use quotas::QuotaView;
pub use read::SessionView;
pub use snapshot::{LoadError, TreeLoader};
pub use stat::Stat;
pub use tree::Tree;
