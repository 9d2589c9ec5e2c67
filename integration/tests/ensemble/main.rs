//! What an ensemble promises, shown on ensembles that are killed, cut, paused and wiped.
//!
//! One binary: linking is most of what building these tests costs. Scenarios that make sense on both run in this
//! process and on real processes; those that need signals, file limits or links of their own, on processes only.
//! `QUORATE_LONG=1` repeats the random ones many times over.

mod bad_input;
mod cuts;
mod disks;
mod failover;
mod linearizability;
mod locks;
mod pauses;
mod restart;
mod sessions;
mod snapshots;
mod wiped_disk;

/// How often a scenario with chances in it is repeated.
fn rounds() -> u64 {
    if std::env::var_os("QUORATE_LONG").is_some() { 20 } else { 1 }
}
