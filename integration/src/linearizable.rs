//! Decides whether a history is linearizable: whether each operation can be given one moment between its invocation
//! and its return, so that one copy that nobody shares would have answered the same in that order.
//!
//! The search is Wing and Gong's with Lowe's memory of configurations already seen, as in porcupine, with three
//! additions that keep real histories cheap:
//!
//! - an operation that fits now and changes nothing (a read) is taken at once, without alternatives: whatever order
//!   explains the rest explains it with that operation here;
//! - an operation that was never answered need not be placed at all. It is tried last, and only where it changes
//!   something;
//! - of two ways to the same state with the same answered operations placed, the one that needed fewer of the
//!   unanswered ones is enough.
//!
//! The problem is NP-complete, so the search has bounds and an answer for having met them. They count steps and
//! configurations, not seconds: the same history has the same verdict on every machine. Each object is searched by
//! itself, which is enough: linearizability is local.

use std::{collections::HashMap, fmt, sync::Arc};

use crate::{
    history::{History, Operation, Outcome, Stamp},
    model::Model,
};

/// How far a search goes before it gives up, for each object.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Operations tried.
    pub steps_max: u64,
    /// Configurations remembered; each takes about a hundred bytes.
    pub configurations_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        // Some seconds, and some hundred megabytes, in a debug build.
        Self { steps_max: 10_000_000, configurations_max: 1_000_000 }
    }
}

/// What can be said of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a verdict is there to be looked at"]
pub enum Verdict {
    /// There is an order that explains it.
    Linearizable,
    /// There is none.
    Violation {
        /// The object whose operations cannot be explained.
        key: Arc<str>,
        /// How far the best attempt came, for people.
        explanation: String,
    },
    /// The search met its bounds: nothing is known.
    TooBig {
        /// The object whose operations were too many, or too much at the same time.
        key: Arc<str>,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => write!(f, "linearizable"),
            Self::Violation { key, explanation } => write!(f, "not linearizable at {key}: {explanation}"),
            Self::TooBig { key } => write!(f, "not decided: the operations on {key} are too many at the same time"),
        }
    }
}

/// Checks each object of a history. A violation anywhere is the verdict; without one, an undecided object is.
pub fn check<M: Model>(model: &M, history: &History<M::Call, M::Reply>, bounds: Bounds) -> Verdict {
    let mut verdict = Verdict::Linearizable;
    for (key, operations) in history.by_key() {
        match Search::new(model, &operations, bounds).run() {
            Found::Order => {}
            Found::NoOrder(explanation) => return Verdict::Violation { key, explanation },
            Found::Bounds => verdict = Verdict::TooBig { key },
        }
    }
    verdict
}

/// What the search for an order came to.
enum Found {
    Order,
    NoOrder(String),
    Bounds,
}

/// An operation in a search: its place in `answered`, or in `unanswered`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Answered(u32),
    Unanswered(u32),
}

/// One level of the search: the operation that led to it, and what may come next.
struct Level<S> {
    /// `None` at the root.
    entered_by: Option<Place>,
    /// Not tried yet; the last is tried first.
    candidates: Vec<(Place, S)>,
}

/// What decides how a search can go on: which answered operations are placed, and the state.
#[derive(PartialEq, Eq, Hash)]
struct Configuration<S> {
    /// All answered operations before this one are placed, and it is not.
    first_open: u32,
    /// Those after it that are placed, in order.
    ahead: Box<[u32]>,
    state: S,
}

struct Search<'a, M: Model> {
    model: &'a M,
    bounds: Bounds,
    /// Operations with an answer, by invocation, and whether they are placed.
    answered: Vec<&'a Operation<M::Call, M::Reply>>,
    placed: Vec<bool>,
    first_open: usize,
    placed_count: usize,
    /// Operations without one, by invocation, and whether they are used.
    unanswered: Vec<&'a Operation<M::Call, M::Reply>>,
    used: Vec<bool>,
    /// For each configuration, the smallest sets of unanswered operations with which it was reached.
    seen: HashMap<Configuration<M::State>, Vec<Box<[u32]>>>,
    seen_count: usize,
    /// The longest order found, for the explanation.
    best: Vec<Place>,
    best_placed: usize,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, operations: &'a [Operation<M::Call, M::Reply>], bounds: Bounds) -> Self {
        let (unanswered, answered): (Vec<_>, Vec<_>) =
            operations.iter().partition(|operation| operation.outcome.is_unknown());
        Self {
            model,
            bounds,
            placed: vec![false; answered.len()],
            used: vec![false; unanswered.len()],
            answered,
            first_open: 0,
            placed_count: 0,
            unanswered,
            seen: HashMap::new(),
            seen_count: 0,
            best: Vec::new(),
            best_placed: 0,
        }
    }

    fn run(mut self) -> Found {
        let candidates = self.candidates(&self.model.initial());
        let mut levels = vec![Level { entered_by: None, candidates }];

        for _ in 0..self.bounds.steps_max {
            if self.placed_count == self.answered.len() {
                return Found::Order;
            }
            let Some(level) = levels.last_mut() else {
                return Found::NoOrder(self.explain());
            };
            let Some((place, state)) = level.candidates.pop() else {
                self.keep_if_best(&levels);
                if let Some(place) = levels.pop().and_then(|level| level.entered_by) {
                    self.take_back(place);
                }
                continue;
            };
            self.place(place);
            if !self.is_new(&state) {
                self.take_back(place);
                continue;
            }
            if self.seen_count > self.bounds.configurations_max {
                return Found::Bounds;
            }
            let candidates = self.candidates(&state);
            levels.push(Level { entered_by: Some(place), candidates });
        }
        Found::Bounds
    }

    /// The operations that can be next, with the states they lead to; the most promising one last.
    fn candidates(&self, state: &M::State) -> Vec<(Place, M::State)> {
        let mut changes = Vec::new();
        // The next operation must have been invoked before any open one returned.
        let mut horizon = Stamp(u64::MAX);
        for index in self.first_open..self.answered.len() {
            let operation = self.answered[index];
            if operation.invoked > horizon {
                break;
            }
            if self.placed[index] {
                continue;
            }
            let Outcome::Returned { at, reply } = &operation.outcome else { continue };
            horizon = horizon.min(*at);
            if let Some(after) = self.model.step(state, &operation.call, reply) {
                let place = Place::Answered(index as u32);
                if after == *state {
                    return vec![(place, after)];
                }
                changes.push((*at, place, after));
            }
        }
        changes.sort_by_key(|(at, ..)| *at);

        let mut candidates = Vec::new();
        for (index, operation) in self.unanswered.iter().enumerate() {
            if operation.invoked > horizon {
                break;
            }
            if !self.used[index]
                && let Some(after) = self.model.step_unseen(state, &operation.call)
            {
                candidates.push((Place::Unanswered(index as u32), after));
            }
        }
        candidates.extend(changes.into_iter().rev().map(|(_, place, after)| (place, after)));
        candidates
    }

    fn place(&mut self, place: Place) {
        match place {
            Place::Answered(index) => {
                self.placed[index as usize] = true;
                self.placed_count += 1;
                while self.placed.get(self.first_open) == Some(&true) {
                    self.first_open += 1;
                }
            }
            Place::Unanswered(index) => self.used[index as usize] = true,
        }
    }

    fn take_back(&mut self, place: Place) {
        match place {
            Place::Answered(index) => {
                self.placed[index as usize] = false;
                self.placed_count -= 1;
                self.first_open = self.first_open.min(index as usize);
            }
            Place::Unanswered(index) => self.used[index as usize] = false,
        }
    }

    /// Whether the present configuration was not reached before with as few unanswered operations, or fewer.
    fn is_new(&mut self, state: &M::State) -> bool {
        let ahead = (self.first_open..).zip(&self.placed[self.first_open..]);
        let configuration = Configuration {
            first_open: self.first_open as u32,
            // Those that are placed all lie close together: within what was asked at the same time.
            ahead: ahead.filter(|(_, placed)| **placed).map(|(index, _)| index as u32).collect(),
            state: state.clone(),
        };
        let used: Box<[u32]> = (0..).zip(&self.used).filter(|(_, used)| **used).map(|(index, _)| index).collect();

        let sets = self.seen.entry(configuration).or_default();
        if sets.iter().any(|smaller| is_subset(smaller, &used)) {
            return false;
        }
        self.seen_count -= sets.len();
        sets.retain(|larger| !is_subset(&used, larger));
        sets.push(used);
        self.seen_count += sets.len();
        true
    }

    fn keep_if_best(&mut self, levels: &[Level<M::State>]) {
        if self.placed_count > self.best_placed || self.best.is_empty() {
            self.best_placed = self.placed_count;
            self.best = levels.iter().filter_map(|level| level.entered_by).collect();
        }
    }

    /// What the longest order looked like at its end, and what could not follow.
    fn explain(&mut self) -> String {
        const SHOWN: usize = 8;
        let mut state = self.model.initial();
        let mut lines = Vec::new();
        for place in std::mem::take(&mut self.best) {
            let (operation, after) = match place {
                Place::Answered(index) => {
                    let operation = self.answered[index as usize];
                    let Outcome::Returned { reply, .. } = &operation.outcome else { continue };
                    (operation, self.model.step(&state, &operation.call, reply))
                }
                Place::Unanswered(index) => {
                    let operation = self.unanswered[index as usize];
                    (operation, self.model.step_unseen(&state, &operation.call))
                }
            };
            state = after.expect("the search took this step");
            lines.push(format!("  {operation} => {state:?}"));
            self.place(place);
        }
        let mut stuck = Vec::new();
        let mut horizon = Stamp(u64::MAX);
        for index in self.first_open..self.answered.len() {
            let operation = self.answered[index];
            if operation.invoked > horizon {
                break;
            }
            if let (false, Outcome::Returned { at, .. }) = (self.placed[index], &operation.outcome) {
                horizon = horizon.min(*at);
                stuck.push(format!("  {operation}"));
            }
        }
        let hidden = lines.len().saturating_sub(SHOWN);
        format!(
            "of {} answered operations the longest order explains {}. It ends\n{}\nand none of these can follow\n{}",
            self.answered.len(),
            self.placed_count,
            lines[hidden..].join("\n"),
            stuck.join("\n"),
        )
    }
}

/// Whether every element of `smaller` is in `larger`; both are in order.
fn is_subset(smaller: &[u32], larger: &[u32]) -> bool {
    let mut rest = larger.iter();
    smaller.len() <= larger.len() && smaller.iter().all(|element| rest.any(|other| other == element))
}

#[cfg(test)]
mod tests;
