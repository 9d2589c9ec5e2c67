//! Many nodes, loaded in transactions: what they take in memory. A latency is that of the transaction that made a node.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    Plan,
    measure::{Live, Measured},
    target::Session,
};
use crate::cli::exit::Failure;

/// Inner nodes among which the others are spread.
const PARENTS: usize = 1000;

pub(super) async fn run(
    session: &mut Session,
    plan: &Plan,
    folder: &str,
    live: &Arc<Live>,
) -> Result<Measured, Failure> {
    let empty = plan.servers.memory()?;
    let watched = plan.servers.watch()?;
    let mut measured = Measured::new();
    let began = Instant::now();
    let each = plan.keys.div_ceil(PARENTS);
    for (parent, first) in (0..plan.keys).step_by(each).enumerate() {
        let below = format!("{folder}/d{parent:03}");
        session.create(&below).await?;
        let made = |nodes: usize, took| {
            measured.latencies(took, nodes as u64);
            live.done.fetch_add(nodes as u64, Ordering::Relaxed);
        };
        session.fill(&below, each.min(plan.keys - first), plan.value_size, plan.in_flight, made).await?;
    }
    measured.took(began.elapsed());
    measured.used(watched.usage()?, Some(empty));
    Ok(measured)
}
