//! Keeps instances in view that have vanished in a way that speaks of trouble with the registry rather than with
//! them: all of them when our own session was lost as well, or most of them at once.
//!
//! When an ensemble was away for long, the sessions of providers expire although the providers are well. They
//! register again within seconds; whoever believed in the empty list would have failed until then.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::Instance;

/// Instances by the names of their nodes.
pub(super) type Listed = BTreeMap<String, Arc<Instance>>;

/// What was listed last, and what is kept although it is not listed any more.
#[derive(Debug)]
pub(super) struct Protection {
    listed: Listed,
    held: Listed,
    /// Since when something is held, and when it is let go.
    since: Option<Instant>,
    until: Option<Instant>,
    grace: Duration,
}

impl Protection {
    pub(super) fn new(grace: Duration) -> Self {
        Self { listed: Listed::new(), held: Listed::new(), since: None, until: None, grace }
    }

    /// Takes in what is listed now. `shaken` says that our own session was lost a short time ago.
    pub(super) fn list(&mut self, listed: Listed, shaken: bool, now: Instant) {
        let were_up = self.listed.values().filter(|instance| instance.is_up()).count();
        let vanished = self.listed.iter().filter(|(node, instance)| instance.is_up() && !listed.contains_key(*node));
        let vanished: Vec<_> = vanished.map(|(node, instance)| (node.clone(), instance.clone())).collect();
        let all_at_once = listed.is_empty() && shaken;
        let most_at_once = vanished.len() > 1 && vanished.len() * 2 > were_up;
        if !vanished.is_empty() && (all_at_once || most_at_once) && !self.grace.is_zero() {
            self.held.extend(vanished);
            self.since.get_or_insert(now);
            self.until = Some(now + self.grace);
        }
        self.held.retain(|node, _| !listed.contains_key(node));
        self.listed = listed;
        self.release(now);
    }

    /// Lets go of what was held long enough.
    pub(super) fn release(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.held.clear();
        }
        if self.held.is_empty() {
            (self.since, self.until) = (None, None);
        }
    }

    /// Since when something is in view that is not listed any more.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// When [`Protection::release`] has something to do; none if nothing is held.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// What is listed, and what is held.
    pub(super) fn in_view(&self) -> Listed {
        self.held.iter().chain(&self.listed).map(|(node, instance)| (node.clone(), instance.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Status, *};

    const GRACE: Duration = Duration::from_secs(10);

    fn listed(nodes: &[&str]) -> Listed {
        let instance = |node: &&str| {
            let instance = Instance::builder("orders").id(*node).address("h").port(1).registered_at_ms(0).build();
            (node.to_string(), Arc::new(instance.unwrap()))
        };
        nodes.iter().map(instance).collect()
    }

    fn in_view(protection: &Protection) -> Vec<String> {
        protection.in_view().into_keys().collect()
    }

    fn protection(nodes: &[&str], now: Instant) -> Protection {
        let mut protection = Protection::new(GRACE);
        protection.list(listed(nodes), false, now);
        protection
    }

    #[test]
    fn one_that_leaves_is_gone_at_once() {
        let now = Instant::now();
        let mut protection = protection(&["a", "b", "c"], now);

        protection.list(listed(&["a", "c"]), false, now);
        assert_eq!(in_view(&protection), ["a", "c"]);

        protection.list(listed(&["a"]), false, now);
        protection.list(listed(&[]), false, now);
        assert!(in_view(&protection).is_empty());
        assert_eq!(protection.until(), None);
    }

    #[test]
    fn most_that_vanish_at_once_are_held_for_the_grace() {
        let now = Instant::now();
        let mut protection = protection(&["a", "b", "c"], now);

        protection.list(listed(&["b"]), false, now);
        assert_eq!(in_view(&protection), ["a", "b", "c"]);
        assert_eq!((protection.since(), protection.until()), (Some(now), Some(now + GRACE)));

        protection.release(now + GRACE / 2);
        assert_eq!(in_view(&protection), ["a", "b", "c"]);

        protection.release(now + GRACE);
        assert_eq!(in_view(&protection), ["b"]);
        assert_eq!((protection.since(), protection.until()), (None, None));
    }

    #[test]
    fn the_last_that_vanishes_with_our_session_is_held() {
        let now = Instant::now();
        let mut protection = protection(&["a"], now);

        protection.list(listed(&[]), true, now);

        assert_eq!(in_view(&protection), ["a"]);
    }

    #[test]
    fn those_that_come_back_are_not_held_any_more() {
        let now = Instant::now();
        let mut protection = protection(&["a", "b"], now);
        protection.list(listed(&[]), false, now);

        protection.list(listed(&["a"]), false, now);
        assert_eq!(in_view(&protection), ["a", "b"]);
        protection.list(listed(&["a", "b"]), false, now);

        assert_eq!(protection.until(), None);
        protection.list(listed(&["a"]), false, now);
        assert_eq!(in_view(&protection), ["a"]);
    }

    #[test]
    fn those_that_said_goodbye_are_not_held() {
        let now = Instant::now();
        let mut nodes = listed(&["a", "b"]);
        for instance in nodes.values_mut() {
            Arc::make_mut(instance).set_status(Status::OutOfService);
        }
        let mut protection = Protection::new(GRACE);
        protection.list(nodes, false, now);

        protection.list(listed(&[]), false, now);

        assert!(in_view(&protection).is_empty());
    }

    #[test]
    fn without_a_grace_nothing_is_held() {
        let now = Instant::now();
        let mut protection = Protection::new(Duration::ZERO);
        protection.list(listed(&["a", "b"]), false, now);

        protection.list(listed(&[]), true, now);

        assert!(in_view(&protection).is_empty());
    }
}
