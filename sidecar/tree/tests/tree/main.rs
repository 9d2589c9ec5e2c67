//! What the tree promises, through its public API alone.

mod access;
mod config_node;
mod driver;
mod lifecycle;
mod model;
mod multis;
mod properties;
mod quotas;
mod sessions;
mod snapshots;
mod writes;
