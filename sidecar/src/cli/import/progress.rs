//! How far an import is, on standard error: a bar on a terminal, a line now and then otherwise.

use std::{
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

const ON_A_TERMINAL: Duration = Duration::from_millis(100);
const ELSEWHERE: Duration = Duration::from_secs(10);
const BAR_WIDTH: usize = 30;

/// What is shown while nodes are copied.
#[derive(Debug)]
pub(super) struct Progress {
    /// As many as there were at the beginning; `None` where the server cannot count them.
    total: Option<u64>,
    terminal: bool,
    began: Instant,
    shown: Instant,
}

impl Progress {
    pub(super) fn new(total: Option<u64>) -> Self {
        let now = Instant::now();
        Self { total, terminal: io::stderr().is_terminal(), began: now, shown: now }
    }

    /// Shows it, unless it was shown just now.
    pub(super) fn at(&mut self, done: u64) {
        let every = if self.terminal { ON_A_TERMINAL } else { ELSEWHERE };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let line = line(done, self.total, self.began.elapsed());
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            // Nobody is told that nobody is told.
            let _ = io::stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Takes the bar away, for what is printed next.
    pub(super) fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

fn line(done: u64, total: Option<u64>, elapsed: Duration) -> String {
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    match total {
        Some(total) => {
            // The tree may have grown since it was counted.
            let share = (done as f64 / total.max(1) as f64).min(1.0);
            let full = (share * BAR_WIDTH as f64) as usize;
            let bar = format!("{}{}", "=".repeat(full), " ".repeat(BAR_WIDTH - full));
            format!("[{bar}] {:3.0} %  {done} of {total} nodes, {rate:.0}/s", share * 100.0)
        }
        None => format!("{done} nodes, {rate:.0}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_share_count_and_rate() {
        let second = Duration::from_secs(1);

        assert_eq!(line(50, Some(100), second), "[===============               ]  50 %  50 of 100 nodes, 50/s");
        assert_eq!(line(120, Some(100), second), format!("[{}] 100 %  120 of 100 nodes, 120/s", "=".repeat(30)));
        assert_eq!(line(7, None, second), "7 nodes, 7/s");
        assert!(line(0, Some(0), Duration::ZERO).ends_with("0 of 0 nodes, 0/s"));
    }
}
