//! The ZooKeeper door against ZooKeeper itself: the same random requests to both, and every reply, stat and event
//! compared, in their order.
//!
//! `QUORATE_DIFFERENTIAL_STEPS` and `QUORATE_DIFFERENTIAL_SEED` say how much and which; the seed is printed.
//! `QUORATE_DIFFERENTIAL_LOG` names a file for all that is asked. What differs on purpose is written down in `differences`.

mod ask;
mod compare;
mod connection;
mod differences;
mod servers;
mod world;

use std::{
    env,
    io::{self, Write as _},
    str::FromStr,
};

use anyhow::{Context, Result, ensure};
use quorate_integration::peers;

use crate::{
    servers::{Reaping, Server},
    world::World,
};

/// Steps of a run that nobody asked more of.
const STEPS: usize = 3000;

/// The gate is not decided by luck: whoever looks for differences gives other seeds, and more steps.
const SEED: u64 = 1;

fn setting<T: FromStr>(name: &str, default: T) -> T {
    env::var(name).ok().map_or(default, |text| text.parse().ok().expect("the variable holds a number"))
}

fn compare(reaping: Reaping, steps: usize, start: impl Fn() -> Result<[Server; 2]>) -> Result<()> {
    let seed = setting("QUORATE_DIFFERENTIAL_SEED", SEED);
    let [first, second] = start()?;
    let say = |text: String| {
        // Not by a macro: the test harness would keep it to itself.
        let _ = writeln!(io::stderr(), "{text}");
    };
    say(format!("{} against {}, reaping {reaping:?}: {steps} steps with seed {seed}", first.name, second.name));
    let mut world = World::new([&first, &second], reaping, seed)?;
    let outcome = world.run(steps);
    say(format!("seed {seed}, reaping {reaping:?}: compared {:?}", world.counts));
    outcome.with_context(|| format!("QUORATE_DIFFERENTIAL_SEED={seed} QUORATE_DIFFERENTIAL_STEPS={}", all_steps()))?;
    // Who meets nothing of a kind has compared nothing of it. Other seeds and fewer steps may be so unlucky.
    let is_gate = (seed, all_steps()) == (SEED, STEPS);
    ensure!(!is_gate || world.counts.has_met_all(reaping), "not everything was met: {:?}", world.counts);
    Ok(())
}

fn all_steps() -> usize {
    setting("QUORATE_DIFFERENTIAL_STEPS", STEPS)
}

/// Fewer, for they wait for what is reaped.
fn reaping_steps() -> usize {
    all_steps() / 10
}

/// So that a difference that is found is one of ours, not one of this test.
#[test]
fn zookeeper_does_not_differ_from_itself() {
    let Some(peer) = peers::find(peers::ZOOKEEPER).unwrap() else { return };

    for (reaping, steps) in [(Reaping::Soon, reaping_steps()), (Reaping::Never, all_steps())] {
        compare(reaping, steps, || Ok([Server::zookeeper(&peer, reaping)?, Server::zookeeper(&peer, reaping)?]))
            .unwrap_or_else(|error| panic!("{error:#}"));
    }
}

#[test]
fn quorate_does_not_differ_from_zookeeper() {
    let Some(peer) = peers::find(peers::ZOOKEEPER).unwrap() else { return };

    for (reaping, steps) in [(Reaping::Soon, reaping_steps()), (Reaping::Never, all_steps())] {
        compare(reaping, steps, || Ok([Server::zookeeper(&peer, reaping)?, Server::quorate(reaping)?]))
            .unwrap_or_else(|error| panic!("{error:#}"));
    }
}
