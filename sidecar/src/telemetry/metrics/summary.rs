//! What happened often, in a few numbers: for the words of the ZooKeeper door, whose readers know no histograms.
//!
//! Best written many values at once ([`Tally`]): then those that are alike are one step. Whoever reads while something is
//! written sees numbers that may differ by it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use hdrhistogram::Histogram;
use parking_lot::Mutex;

/// Greater values count as this one in percentiles: three days in microseconds.
const VALUE_MAX: u64 = 1 << 38;

/// Percentiles are exact to this many digits.
const DIGITS: u8 = 2;

/// Least, greatest, sum and number of some values, and how many there are of which size.
#[derive(Debug)]
pub(crate) struct Summary {
    min: AtomicU64,
    max: AtomicU64,
    sum: AtomicU64,
    count: AtomicU64,
    /// Where somebody asks for percentiles. Locked for a few steps at a time.
    sizes: Option<Box<Mutex<Histogram<u64>>>>,
}

/// What a summary says at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) sum: u64,
    pub(crate) count: u64,
}

/// Values that go into a summary together.
#[derive(Debug)]
pub(crate) struct Tally {
    figures: Figures,
    /// The last value, and how many times it came one after the other: those of a batch are much alike.
    run: (u64, u64),
}

impl Default for Summary {
    fn default() -> Self {
        let sizes = Histogram::new_with_max(VALUE_MAX, DIGITS).expect("the bounds are constant and good");
        Self { sizes: Some(Box::new(Mutex::new(sizes))), ..Self::small() }
    }
}

impl Summary {
    /// Without percentiles, which take some kilobytes.
    pub(crate) fn small() -> Self {
        Self {
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            count: AtomicU64::new(0),
            sizes: None,
        }
    }

    pub(crate) fn record(&self, value: u64) {
        let mut tally = Tally::default();
        tally.add(value, self);
        self.add(&tally);
    }

    /// All values of a tally.
    pub(crate) fn add(&self, tally: &Tally) {
        if tally.figures.count == 0 {
            return;
        }
        self.settle(tally.run);
        self.min.fetch_min(tally.figures.min, Relaxed);
        self.max.fetch_max(tally.figures.max, Relaxed);
        self.sum.fetch_add(tally.figures.sum, Relaxed);
        self.count.fetch_add(tally.figures.count, Relaxed);
    }

    fn settle(&self, (value, times): (u64, u64)) {
        if let Some(sizes) = &self.sizes {
            sizes.lock().saturating_record_n(value, times);
        }
    }

    pub(crate) fn figures(&self) -> Figures {
        Figures {
            min: match self.min.load(Relaxed) {
                u64::MAX => 0,
                min => min,
            },
            max: self.max.load(Relaxed),
            sum: self.sum.load(Relaxed),
            count: self.count.load(Relaxed),
        }
    }

    /// A value that so many thousandths of all are not above, a hundredth too large at the most.
    pub(crate) fn percentile(&self, thousandths: u32) -> u64 {
        let value =
            self.sizes.as_ref().map_or(0, |sizes| sizes.lock().value_at_quantile(f64::from(thousandths) / 1000.0));
        value.min(self.max.load(Relaxed))
    }

    /// Begins anew.
    pub(crate) fn reset(&self) {
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
        self.sum.store(0, Relaxed);
        self.count.store(0, Relaxed);
        if let Some(sizes) = &self.sizes {
            sizes.lock().reset();
        }
    }
}

impl Figures {
    /// These and others.
    pub(crate) fn and(self, others: Self) -> Self {
        match (self.count, others.count) {
            (_, 0) => self,
            (0, _) => others,
            _ => Self {
                min: self.min.min(others.min),
                max: self.max.max(others.max),
                sum: self.sum + others.sum,
                count: self.count + others.count,
            },
        }
    }

    pub(crate) fn average(self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self { figures: Figures { min: u64::MAX, ..Figures::default() }, run: (0, 0) }
    }
}

impl Tally {
    /// `into` is where it will go.
    pub(crate) fn add(&mut self, value: u64, into: &Summary) {
        let Figures { min, max, sum, count } = &mut self.figures;
        *min = (*min).min(value);
        *max = (*max).max(value);
        *sum += value;
        *count += 1;
        if value != self.run.0 {
            into.settle(self.run);
            self.run = (value, 0);
        }
        self.run.1 += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_knows_least_greatest_sum_and_number() {
        let summary = Summary::default();
        assert_eq!((summary.figures(), summary.percentile(500)), (Figures::default(), 0));

        summary.record(7);
        let mut tally = Tally::default();
        [3, 3, 100].into_iter().for_each(|value| tally.add(value, &summary));
        summary.add(&tally);
        summary.add(&Tally::default());

        let all = Figures { min: 3, max: 100, sum: 113, count: 4 };
        assert_eq!((summary.figures(), all.average()), (all, 28.25));
        assert_eq!((all.and(Figures::default()), Figures::default().and(all)), (all, all));
        assert_eq!(
            all.and(Figures { min: 1, max: 1, sum: 1, count: 1 }),
            Figures { min: 1, sum: 114, count: 5, ..all }
        );
        summary.reset();
        assert_eq!((summary.figures(), summary.percentile(999)), (Figures::default(), 0));
    }

    #[test]
    fn percentiles_are_a_hundredth_too_large_at_the_most() {
        let summary = Summary::default();
        (1..=1000).for_each(|value| summary.record(value * 10));

        for (thousandths, exact) in [(500, 5000), (950, 9500), (990, 9900), (999, 9990), (1, 10)] {
            let told = summary.percentile(thousandths);
            assert!((exact..=exact + exact / 100).contains(&told), "{thousandths}: {told}");
        }
        assert_eq!(summary.percentile(1000), 10_000);
    }

    #[test]
    fn a_value_beyond_all_bounds_counts_as_the_greatest() {
        let summary = Summary::default();
        summary.record(u64::MAX);

        assert!(summary.percentile(500) >= VALUE_MAX);
        assert_eq!(summary.figures().max, u64::MAX);
    }
}
