//! What happened often, in a few numbers: for the words of the ZooKeeper door, whose readers know no histograms.
//!
//! Written without a lock, and best many values at once ([`Tally`]); whoever reads while something is written sees
//! numbers that may differ by it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Values up to this have a place of their own, then eight places for each power of two.
const EXACT: u64 = 16;
const VALUE_MAX: u64 = (1 << 36) - 1;
const PLACES: usize = place_of(VALUE_MAX) + 1;

/// Least, greatest, sum and number of some values, and how many there are of which size.
#[derive(Debug)]
pub(crate) struct Summary {
    min: AtomicU64,
    max: AtomicU64,
    sum: AtomicU64,
    count: AtomicU64,
    /// Empty where nobody asks for percentiles.
    places: Box<[AtomicU64]>,
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
    /// The place of the last values, and how many they are: those of a batch are much alike.
    run: (usize, u64),
}

impl Default for Summary {
    fn default() -> Self {
        Self { places: (0..PLACES).map(|_| AtomicU64::new(0)).collect(), ..Self::small() }
    }
}

impl Summary {
    /// Without percentiles, which take two kilobytes.
    pub(crate) fn small() -> Self {
        Self {
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            count: AtomicU64::new(0),
            places: Box::default(),
        }
    }

    pub(crate) fn record(&self, value: u64) {
        let mut tally = Tally::default();
        tally.add(value, self);
        self.add(&tally);
    }

    /// All values of a tally; those of its last place, too, where there are places.
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

    fn settle(&self, (place, count): (usize, u64)) {
        if let Some(total) = self.places.get(place) {
            total.fetch_add(count, Relaxed);
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

    /// A value that so many thousandths of all are not above, an eighth too large at the most.
    pub(crate) fn percentile(&self, thousandths: u64) -> u64 {
        let counts: Vec<_> = self.places.iter().map(|count| count.load(Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() * thousandths).div_ceil(1000);
        let mut seen = 0;
        let place = counts.iter().position(|count| {
            seen += count;
            wanted > 0 && seen >= wanted
        });
        place.map_or(0, |place| greatest_of(place).min(self.max.load(Relaxed)))
    }

    /// Begins anew.
    pub(crate) fn reset(&self) {
        self.min.store(u64::MAX, Relaxed);
        self.max.store(0, Relaxed);
        self.sum.store(0, Relaxed);
        self.count.store(0, Relaxed);
        self.places.iter().for_each(|count| count.store(0, Relaxed));
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
        let place = place_of(value);
        if place != self.run.0 {
            into.settle(self.run);
            self.run = (place, 0);
        }
        self.run.1 += 1;
    }
}

const fn place_of(value: u64) -> usize {
    let value = if value > VALUE_MAX { VALUE_MAX } else { value };
    if value < EXACT {
        return value as usize;
    }
    let power = value.ilog2();
    (EXACT + (power as u64 - EXACT.ilog2() as u64) * 8 + ((value >> (power - 3)) & 7)) as usize
}

fn greatest_of(place: usize) -> u64 {
    let place = place as u64;
    match place.checked_sub(EXACT) {
        None => place,
        Some(above) => ((8 + above % 8 + 1) << (u64::from(EXACT.ilog2()) + above / 8 - 3)) - 1,
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
    fn percentiles_are_an_eighth_too_large_at_the_most() {
        let summary = Summary::default();
        (1..=1000).for_each(|value| summary.record(value * 10));

        for (thousandths, exact) in [(500, 5000), (950, 9500), (990, 9900), (999, 9990), (1, 10)] {
            let told = summary.percentile(thousandths);
            assert!((exact..=exact + exact / 8).contains(&told), "{thousandths}: {told}");
        }
        assert_eq!(summary.percentile(1000), 10_000);
    }

    #[test]
    fn every_value_has_a_place_that_holds_it() {
        for value in (0..5000).chain((12..36).flat_map(|power| [(1 << power) - 1, 1 << power, (1 << power) + 1])) {
            let place = place_of(value);
            assert!(greatest_of(place) >= value, "{value}");
            assert!(place == 0 || greatest_of(place - 1) < value, "{value}");
        }
        assert_eq!(place_of(u64::MAX), PLACES - 1);
    }
}
