//! Micro benches: what one operation costs, in instructions and in time.
//!
//! Instructions are what tells a regression on a machine that does other things besides: they hardly differ between
//! two runs. They are counted by valgrind (callgrind), under which the program runs itself once more. Time is the best of
//! many short rounds. Where there is no valgrind, that is said, and only time is measured.
//!
//! What it is not: no load on an ensemble, which is `quorate bench`. Nothing of a release uses it.
//!
//! With `QUORATE_MICRO_RECORD=<directory>` the figures are appended to `<suite>.csv` there; with or without it, what is
//! printed compares with the last line of each case in `docs/bench-history`. What takes over a twentieth more
//! instructions than there is said in lines that begin with `GREW`. `QUORATE_MICRO_ONLY=<words>` chooses cases by
//! parts of their names, separated by commas.

mod count;
mod history;

use std::{
    env,
    time::{Duration, Instant},
};

use count::Counter;
use history::History;

/// Rounds of a case, at the least, and how long they may take together beyond those.
const ROUNDS_MIN: u32 = 5;
const ROUNDS_MAX: u32 = 200;
const ROUNDS_TIME: Duration = Duration::from_millis(300);

/// A case may take so many times the instructions that it took when it was last recorded.
const GROWTH_MAX: f64 = 1.05;

/// Begins a line on a case that takes more; `.ci/micro` collects them.
const GREW: &str = "*** GREW: ";

/// The measured cases of one suite, in the order in which they are run.
pub struct Suite {
    name: &'static str,
    only: Vec<String>,
    mode: Mode,
    measured: Vec<Measured>,
}

enum Mode {
    Time,
    /// Run by valgrind: each case once.
    Count,
}

/// What one operation of a case costs.
#[derive(Clone, Debug, PartialEq)]
struct Measured {
    case: String,
    instructions: Option<f64>,
    ns: f64,
}

impl Measured {
    /// A sentence, if this takes more instructions than it may.
    fn growth_over(&self, before: &Self) -> Option<String> {
        let (then, now) = (before.instructions?, self.instructions?);
        (now > then * GROWTH_MAX).then(|| {
            format!("{then:.0} instructions when last recorded, {now:.0} now ({})", change(Some(then), Some(now)))
        })
    }
}

/// One round of a case.
pub struct Round {
    counted: bool,
    took: Option<(u64, Duration)>,
}

/// Runs the cases of a suite and says what they cost.
pub fn suite(name: &'static str, cases: impl FnOnce(&mut Suite)) {
    let only = env::var("QUORATE_MICRO_ONLY").unwrap_or_default();
    let only = only.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let mode = if count::is_counted() { Mode::Count } else { Mode::Time };
    let mut suite = Suite { name, only, mode, measured: Vec::new() };
    cases(&mut suite);
    if matches!(suite.mode, Mode::Count) {
        return;
    }
    match Counter::run() {
        Ok(counted) => suite.take_counts(&counted),
        Err(why) => println!("\n*** {name}: INSTRUCTIONS ARE NOT COUNTED, times alone tell little: {why}\n"),
    }
    suite.report();
}

impl Suite {
    /// Runs a case: `round` prepares, and measures once. It is called for as many rounds as it takes.
    pub fn case(&mut self, name: &str, mut round: impl FnMut(&mut Round)) {
        if !self.only.is_empty() && !self.only.iter().any(|word| name.contains(word)) {
            return;
        }
        let mut run = |counted| {
            let mut one = Round { counted, took: None };
            round(&mut one);
            one.took.expect("a round measures")
        };
        // The first round pays for what is made once: tables that grow, memory that is taken from the system.
        run(false);
        if matches!(self.mode, Mode::Count) {
            let (operations, _) = run(true);
            count::say(name, operations);
            return;
        }
        let started = Instant::now();
        let mut best_ns = f64::INFINITY;
        let mut rounds = 0;
        while rounds < ROUNDS_MIN || (rounds < ROUNDS_MAX && started.elapsed() < ROUNDS_TIME) {
            let (operations, took) = run(false);
            best_ns = best_ns.min(took.as_nanos() as f64 / operations as f64);
            rounds += 1;
        }
        self.measured.push(Measured { case: name.to_owned(), instructions: None, ns: best_ns });
    }

    fn take_counts(&mut self, counted: &[(String, f64)]) {
        for measured in &mut self.measured {
            measured.instructions =
                counted.iter().find(|(case, _)| *case == measured.case).map(|(_, instructions)| *instructions);
        }
    }

    fn report(&self) {
        let history = History::read(self.name);
        println!("{:<44} {:>14} {:>9} {:>12} {:>9}", self.name, "instructions", "before", "ns", "before");
        for measured in &self.measured {
            let before = history.last(&measured.case);
            println!(
                "{:<44} {:>14} {:>9} {:>12.1} {:>9}",
                measured.case,
                measured.instructions.map_or_else(|| "-".to_owned(), |count| format!("{count:.0}")),
                change(before.and_then(|before| before.instructions), measured.instructions),
                measured.ns,
                change(before.map(|before| before.ns), Some(measured.ns)),
            );
        }
        for measured in &self.measured {
            if let Some(growth) = history.last(&measured.case).and_then(|before| measured.growth_over(before)) {
                println!("{GREW}{}: {}: {growth}", self.name, measured.case);
            }
        }
        if let Some(directory) = env::var_os("QUORATE_MICRO_RECORD") {
            history::append(directory.as_ref(), self.name, &self.measured).expect("the history can be written");
        }
    }
}

impl Round {
    /// Runs what is measured: `operations` of them.
    pub fn measure<T>(&mut self, operations: u64, body: impl FnOnce() -> T) -> T {
        assert!(self.took.is_none(), "a round measures once");
        let mut body = Some(body);
        let mut result = None;
        let mut act = || result = body.take().map(|body| body());
        let started = Instant::now();
        if self.counted {
            count::quorate_counted(&mut act);
        } else {
            act();
        }
        self.took = Some((operations, started.elapsed()));
        result.expect("it was just run")
    }
}

fn change(before: Option<f64>, now: Option<f64>) -> String {
    match (before, now) {
        (Some(before), Some(now)) if before > 0.0 => format!("{:+.1} %", (now / before - 1.0) * 100.0),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(instructions: Option<f64>) -> Measured {
        Measured { case: "a".into(), instructions, ns: 1.0 }
    }

    #[test]
    fn only_a_growth_of_more_than_a_twentieth_is_told() {
        let before = measured(Some(1000.0));

        let told = measured(Some(1060.0)).growth_over(&before);

        assert_eq!(told.as_deref(), Some("1000 instructions when last recorded, 1060 now (+6.0 %)"));
        for now in [Some(1050.0), Some(10.0), None] {
            assert_eq!(measured(now).growth_over(&before), None);
        }
        assert_eq!(measured(Some(1.0)).growth_over(&measured(None)), None);
    }
}
