//! Picks an instance for each request.
//!
//! An instance that has failed twice is left out for half a minute, as Curator does, but never so that none is
//! left: a crashed one stays listed until its session has expired.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Instance, NoInstances, ServiceView};

/// Failures after which an instance is left out.
const FAILURES_MAX: u32 = 2;
/// For how long, from the first of them.
const LEFT_OUT_FOR: Duration = Duration::from_secs(30);

/// Which of several instances is next.
pub trait Strategy: Send + Sync + 'static {
    /// The place of one of `candidates`, of which there is at least one. `turn` counts the picks.
    fn choose(&self, turn: usize, candidates: &[Arc<Instance>]) -> usize;
}

/// One after the other.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundRobin;

impl Strategy for RoundRobin {
    fn choose(&self, turn: usize, candidates: &[Arc<Instance>]) -> usize {
        turn % candidates.len()
    }
}

/// Any.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random;

impl Strategy for Random {
    fn choose(&self, _: usize, candidates: &[Arc<Instance>]) -> usize {
        rand::random_range(0..candidates.len())
    }
}

/// Picks among the instances of a view; from [`ServiceView::balancer`].
#[derive(Debug)]
pub struct Balancer<S> {
    view: ServiceView,
    strategy: S,
    turn: AtomicUsize,
    failures: Arc<Failures>,
}

/// What is known to have failed, by the ids of instances. Bounded by the instances of a view: what is not listed
/// any more is forgotten.
#[derive(Debug, Default)]
struct Failures {
    counts: Mutex<HashMap<String, Count>>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    failures: u32,
    since: Instant,
}

impl Failures {
    fn add(&self, id: &str, now: Instant) {
        let mut counts = self.counts.lock();
        let count = counts.entry(id.to_owned()).or_insert(Count { failures: 0, since: now });
        if now.duration_since(count.since) >= LEFT_OUT_FOR {
            *count = Count { failures: 0, since: now };
        }
        count.failures += 1;
    }

    fn clear(&self, id: &str) {
        self.counts.lock().remove(id);
    }

    /// Those that are not left out; all, if none would remain.
    fn healthy(&self, instances: &Arc<[Arc<Instance>]>, now: Instant) -> Arc<[Arc<Instance>]> {
        let mut counts = self.counts.lock();
        if counts.is_empty() {
            return instances.clone();
        }
        counts.retain(|id, count| {
            now.duration_since(count.since) < LEFT_OUT_FOR && instances.iter().any(|instance| instance.id() == id)
        });
        let is_healthy =
            |instance: &&Arc<Instance>| counts.get(instance.id()).is_none_or(|count| count.failures < FAILURES_MAX);
        let healthy: Arc<[_]> = instances.iter().filter(is_healthy).cloned().collect();
        if healthy.is_empty() { instances.clone() } else { healthy }
    }
}

impl<S: Strategy> Balancer<S> {
    pub(super) fn new(view: ServiceView, strategy: S) -> Self {
        Self { view, strategy, turn: AtomicUsize::new(0), failures: Arc::default() }
    }

    /// The instance to use next.
    ///
    /// # Errors
    /// None can be used.
    pub fn pick(&self) -> Result<Pick, NoInstances> {
        let instances = self.view.instances();
        if instances.is_empty() {
            let service = self.view.service().to_owned();
            return Err(NoInstances { service, listed: self.view.all().len() });
        }
        let healthy = self.failures.healthy(&instances, Instant::now());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let instance = healthy[self.strategy.choose(turn, &healthy)].clone();
        Ok(Pick { instance, failures: self.failures.clone() })
    }

    /// What it picks from.
    pub fn view(&self) -> &ServiceView {
        &self.view
    }
}

/// An instance that was picked. Say how it went; saying nothing changes nothing.
#[derive(Debug)]
pub struct Pick {
    instance: Arc<Instance>,
    failures: Arc<Failures>,
}

impl Pick {
    /// It.
    pub fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// It has answered: earlier failures are forgotten.
    pub fn success(self) {
        self.failures.clear(self.instance.id());
    }

    /// It could not be reached, or could not do its work.
    pub fn failure(self) {
        self.failures.add(self.instance.id(), Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instances(ids: &[&str]) -> Arc<[Arc<Instance>]> {
        let instance = |id: &&str| Arc::new(Instance::builder("a").id(*id).address("h").port(1).build().unwrap());
        ids.iter().map(instance).collect()
    }

    fn ids(instances: &[Arc<Instance>]) -> Vec<&str> {
        instances.iter().map(|instance| instance.id()).collect()
    }

    #[test]
    fn round_robin_takes_all_in_turn() {
        let all = instances(&["a", "b", "c"]);

        let turns: Vec<_> = (usize::MAX - 1..=usize::MAX).chain(0..3).map(|n| RoundRobin.choose(n, &all)).collect();

        assert_eq!(turns, [2, 0, 0, 1, 2]);
    }

    #[test]
    fn random_takes_only_what_there_is() {
        let all = instances(&["a", "b", "c"]);

        assert!((0..1000).all(|turn| Random.choose(turn, &all) < 3));
    }

    #[test]
    fn what_fails_twice_is_left_out_for_a_while() {
        let (failures, now) = (Failures::default(), Instant::now());
        let all = instances(&["a", "b"]);

        failures.add("a", now);
        assert_eq!(ids(&failures.healthy(&all, now)), ["a", "b"]);

        failures.add("a", now);
        assert_eq!(ids(&failures.healthy(&all, now)), ["b"]);
        assert_eq!(ids(&failures.healthy(&all, now + LEFT_OUT_FOR)), ["a", "b"]);
    }

    #[test]
    fn an_answer_makes_up_for_failures() {
        let (failures, now) = (Failures::default(), Instant::now());
        let all = instances(&["a", "b"]);
        failures.add("a", now);
        failures.clear("a");
        failures.add("a", now);

        assert_eq!(ids(&failures.healthy(&all, now)), ["a", "b"]);
    }

    #[test]
    fn when_all_have_failed_none_is_left_out() {
        let (failures, now) = (Failures::default(), Instant::now());
        let all = instances(&["a", "b"]);
        for id in ["a", "a", "b", "b"] {
            failures.add(id, now);
        }

        assert_eq!(ids(&failures.healthy(&all, now)), ["a", "b"]);
    }

    #[test]
    fn what_is_not_listed_any_more_is_forgotten() {
        let (failures, now) = (Failures::default(), Instant::now());
        failures.add("gone", now);

        failures.healthy(&instances(&["a"]), now);

        assert!(failures.counts.lock().is_empty());
    }
}
