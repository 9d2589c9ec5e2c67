//! The payloads of the last entries, so that replication and apply do not read the disk.
//!
//! Holds a run of entries that ends with the last one. Everything that is not on disk yet is in it; beyond that it is
//! bounded in bytes, and the oldest go first.

use std::collections::VecDeque;

use bytes::Bytes;

/// What an entry costs beyond its payload, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The payloads of the last entries.
#[derive(Debug)]
pub(super) struct Cache {
    /// Index of the first payload.
    first: u64,
    payloads: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
}

impl Cache {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { first: 0, payloads: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn get(&self, index: u64) -> Option<&Bytes> {
        self.payloads.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    /// Adds the payload of the entry after the last one.
    pub(super) fn push(&mut self, index: u64, payload: Bytes) {
        if self.payloads.is_empty() {
            self.first = index;
        }
        debug_assert_eq!(index, self.first + self.payloads.len() as u64);
        self.bytes += cost(&payload);
        self.payloads.push_back(payload);
    }

    /// Forgets the entries from `next` on.
    pub(super) fn truncate(&mut self, next: u64) {
        while !self.payloads.is_empty() && self.first + self.payloads.len() as u64 > next {
            self.bytes -= self.payloads.pop_back().as_ref().map_or(0, cost);
        }
    }

    /// Forgets the entries before `first`.
    pub(super) fn purge(&mut self, first: u64) {
        while !self.payloads.is_empty() && self.first < first {
            self.pop_front();
        }
    }

    /// Forgets the oldest entries beyond the bound, as long as `may_go` says that they can be read elsewhere.
    pub(super) fn shrink(&mut self, may_go: impl Fn(u64) -> bool) {
        while self.bytes > self.bytes_max && !self.payloads.is_empty() && may_go(self.first) {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) {
        self.bytes -= self.payloads.pop_front().as_ref().map_or(0, cost);
        self.first += 1;
    }
}

fn cost(payload: &Bytes) -> usize {
    payload.len() + ENTRY_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(bytes_max: usize) -> Cache {
        let mut cache = Cache::new(bytes_max);
        for index in 5..10 {
            cache.push(index, vec![index as u8; 36].into());
        }
        cache
    }

    fn indexes(cache: &Cache) -> Vec<u64> {
        (0..20).filter(|&index| cache.get(index).is_some()).collect()
    }

    #[test]
    fn oldest_go_first_and_only_down_to_the_bound() {
        let mut cache = filled(250);

        cache.shrink(|_| true);

        assert_eq!(indexes(&cache), [8, 9]);
        assert_eq!(cache.get(9).unwrap()[..], [9; 36]);
    }

    #[test]
    fn what_can_be_read_nowhere_else_stays() {
        let mut cache = filled(0);

        cache.shrink(|index| index < 7);

        assert_eq!(indexes(&cache), [7, 8, 9]);
    }

    #[test]
    fn truncated_and_purged_entries_are_gone() {
        let mut cache = filled(1000);

        cache.truncate(8);
        cache.purge(6);
        assert_eq!(indexes(&cache), [6, 7]);

        cache.truncate(2);
        cache.push(2, Bytes::new());
        assert_eq!(indexes(&cache), [2]);
    }
}
