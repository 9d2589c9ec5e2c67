//! The state of the log: which entries there are and where they stand, in memory.
//!
//! Changed by the same calls when the log is read at a start and while it runs. Knows no file and no payload.
//! 16 bytes an entry.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{EntryId, LogEntry, LogError};

/// The state of the log.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    vote: Option<Bytes>,
    purged: Option<EntryId>,
    /// The entry right before the first one here. Equals `purged`, except while a log is read whose first segments
    /// are gone already.
    floor: Option<EntryId>,
    /// Index of the first slot, or of the entry that comes next.
    first: u64,
    slots: VecDeque<Slot>,
    /// Where terms begin, over the same entries as `slots`.
    terms: VecDeque<TermStart>,
    /// Payload bytes of all entries before the first slot.
    bytes_before: u64,
}

/// Where an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// Queued under this ticket. Tickets may repeat after 2^32, when their entries are long written.
    Queued(u32),
    Written {
        segment: u32,
        offset: u32,
    },
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// 0 while the entry is queued.
    segment: u32,
    /// The ticket while the entry is queued.
    offset: u32,
    /// Payload bytes of all entries up to this one.
    bytes_upto: u64,
}

#[derive(Clone, Copy, Debug)]
struct TermStart {
    first: u64,
    term: u64,
}

impl Ledger {
    /// The state of a log whose segments before its first checkpoint are gone.
    pub(super) fn from_checkpoint(vote: Option<Bytes>, purged: Option<EntryId>, last: Option<EntryId>) -> Self {
        let floor = last.max_by_index(purged);
        Self { vote, purged, floor, first: floor.map_or(0, |floor| floor.index + 1), ..Self::default() }
    }

    pub(super) fn vote(&self) -> Option<&Bytes> {
        self.vote.as_ref()
    }

    pub(super) fn purged(&self) -> Option<EntryId> {
        self.purged
    }

    /// The last entry, or what was purged last if there is none.
    pub(super) fn last(&self) -> Option<EntryId> {
        match self.terms.back() {
            Some(last) => Some(EntryId { index: self.next_index() - 1, term: last.term }),
            None => self.floor,
        }
    }

    /// Index of the first entry, or of the one that comes next.
    pub(super) fn first_index(&self) -> u64 {
        self.first
    }

    pub(super) fn next_index(&self) -> u64 {
        self.first + self.slots.len() as u64
    }

    /// Entries that were never purged and are not there, if any.
    pub(super) fn missing(&self) -> Option<(u64, u64)> {
        let floor = self.floor?;
        let purged_next = self.purged.map_or(0, |purged| purged.index + 1);
        (purged_next <= floor.index).then_some((purged_next, floor.index))
    }

    pub(super) fn spot(&self, index: u64) -> Option<Spot> {
        self.slot(index).map(|slot| match slot.segment {
            0 => Spot::Queued(slot.offset),
            segment => Spot::Written { segment, offset: slot.offset },
        })
    }

    /// Payload bytes of one entry.
    pub(super) fn payload_bytes(&self, index: u64) -> Option<u64> {
        Some(self.slot(index)?.bytes_upto - self.bytes_upto(index.checked_sub(1)))
    }

    /// The term of an entry, or of the one purged last.
    pub(super) fn term(&self, index: u64) -> Option<u64> {
        if self.slot(index).is_none() {
            return self.floor.filter(|floor| floor.index == index).map(|floor| floor.term);
        }
        let after = self.terms.partition_point(|start| start.first <= index);
        Some(self.terms[after - 1].term)
    }

    /// Payload bytes of all entries after `index`.
    pub(super) fn bytes_after(&self, index: Option<u64>) -> u64 {
        let all = self.bytes_upto(self.next_index().checked_sub(1));
        if index >= self.next_index().checked_sub(1) { 0 } else { all - self.bytes_upto(index) }
    }

    pub(super) fn set_vote(&mut self, vote: Bytes) {
        self.vote = Some(vote);
    }

    /// Refuses entries that do not follow the last one and each other.
    pub(super) fn check(&self, entries: &[LogEntry]) -> Result<(), LogError> {
        let Some(first) = entries.first() else { return Ok(()) };
        self.follows(first.id.index)?;
        match entries.windows(2).find(|pair| pair[0].id.index + 1 != pair[1].id.index) {
            Some(pair) => Err(LogError::Hole { found: pair[1].id.index, expected: pair[0].id.index + 1 }),
            None => Ok(()),
        }
    }

    /// Refuses an entry that does not follow the last. An empty log takes any first entry.
    pub(super) fn append(&mut self, id: EntryId, payload_bytes: u32, spot: Spot) -> Result<(), LogError> {
        self.follows(id.index)?;
        if self.slots.is_empty() {
            self.first = id.index;
        }
        if self.terms.back().is_none_or(|last| last.term != id.term) {
            self.terms.push_back(TermStart { first: id.index, term: id.term });
        }
        let bytes_upto = self.bytes_upto(id.index.checked_sub(1)) + u64::from(payload_bytes);
        let (segment, offset) = spot.encode();
        self.slots.push_back(Slot { segment, offset, bytes_upto });
        Ok(())
    }

    fn follows(&self, index: u64) -> Result<(), LogError> {
        let may_begin_anywhere = self.slots.is_empty() && self.floor.is_none();
        if index == self.next_index() || may_begin_anywhere {
            return Ok(());
        }
        Err(LogError::Hole { found: index, expected: self.next_index() })
    }

    /// Says where a queued entry stands now, unless it has been truncated or purged since.
    pub(super) fn written(&mut self, index: u64, ticket: u32, segment: u32, offset: u32) {
        let Some(at) = index.checked_sub(self.first) else { return };
        let Some(slot) = self.slots.get_mut(at as usize) else { return };
        if slot.segment == 0 && slot.offset == ticket {
            (slot.segment, slot.offset) = (segment, offset);
        }
    }

    /// The id of the last entry that a truncation keeps. Refuses to truncate what is purged.
    pub(super) fn truncation(&self, keep: Option<u64>) -> Result<Option<EntryId>, LogError> {
        if keep >= self.last().map(|last| last.index) {
            return Ok(self.last());
        }
        if let Some(purged) = self.purged.filter(|purged| keep.is_none_or(|keep| keep < purged.index)) {
            return Err(LogError::Purged { index: keep.map_or(0, |keep| keep + 1), purged: purged.index });
        }
        // An index before the first entry of a log that did not begin at 0 keeps nothing.
        Ok(keep.and_then(|index| Some(EntryId { index, term: self.term(index)? })))
    }

    /// Forgets the entries after `keep`.
    pub(super) fn truncate_after(&mut self, keep: Option<EntryId>) {
        let next = keep.map_or(0, |keep| keep.index + 1);
        self.slots.truncate(next.saturating_sub(self.first) as usize);
        while self.terms.back().is_some_and(|start| start.first >= next) {
            self.terms.pop_back();
        }
        if next < self.first {
            self.first = next;
            self.floor = keep;
        }
    }

    /// Forgets the entries up to `upto`, which may lie beyond the last.
    pub(super) fn purge(&mut self, upto: EntryId) {
        let gone = (upto.index + 1).saturating_sub(self.first).min(self.slots.len() as u64);
        self.bytes_before = self.bytes_upto((self.first + gone).checked_sub(1));
        self.slots.drain(..gone as usize);
        self.first = self.first.max(upto.index + 1);
        while self.terms.get(1).is_some_and(|second| second.first <= self.first) {
            self.terms.pop_front();
        }
        match self.terms.front_mut() {
            Some(start) if !self.slots.is_empty() => start.first = start.first.max(self.first),
            _ => self.terms.clear(),
        }
        self.purged = Some(upto);
        self.floor = self.floor.max_by_index(Some(upto));
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        self.slots.get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    fn bytes_upto(&self, index: Option<u64>) -> u64 {
        index.and_then(|index| self.slot(index)).map_or(self.bytes_before, |slot| slot.bytes_upto)
    }
}

impl Spot {
    fn encode(self) -> (u32, u32) {
        match self {
            Self::Queued(ticket) => (0, ticket),
            Self::Written { segment, offset } => (segment, offset),
        }
    }
}

trait MaxByIndex {
    fn max_by_index(self, other: Self) -> Self;
}

impl MaxByIndex for Option<EntryId> {
    fn max_by_index(self, other: Self) -> Self {
        if other.map(|id| id.index) > self.map(|id| id.index) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(term: u64, index: u64) -> EntryId {
        EntryId { index, term }
    }

    /// Entries of `term` with the payload bytes of their index.
    fn append(ledger: &mut Ledger, term: u64, indexes: std::ops::RangeInclusive<u64>) {
        for index in indexes {
            let spot = Spot::Written { segment: 1, offset: index as u32 };
            ledger.append(id(term, index), index as u32, spot).unwrap();
        }
    }

    /// 1 to 3 in term 1, 4 to 6 in term 2.
    fn six() -> Ledger {
        let mut ledger = Ledger::default();
        append(&mut ledger, 1, 1..=3);
        append(&mut ledger, 2, 4..=6);
        ledger
    }

    #[test]
    fn every_entry_has_the_term_it_was_appended_in() {
        let ledger = six();

        let terms: Vec<_> = (0..=7).map(|index| ledger.term(index)).collect();

        assert_eq!(terms, [None, Some(1), Some(1), Some(1), Some(2), Some(2), Some(2), None]);
        assert_eq!(ledger.last(), Some(id(2, 6)));
    }

    #[test]
    fn empty_log_takes_any_first_entry_and_then_no_hole() {
        let mut ledger = Ledger::default();
        append(&mut ledger, 1, 5..=5);

        let hole = ledger.append(id(1, 7), 0, Spot::Queued(0));
        let again = ledger.append(id(1, 5), 0, Spot::Queued(0));

        assert!(matches!(hole, Err(LogError::Hole { found: 7, expected: 6 })));
        assert!(matches!(again, Err(LogError::Hole { found: 5, expected: 6 })));
    }

    #[test]
    fn truncation_forgets_what_comes_after_and_its_terms() {
        let mut ledger = six();

        let keep = ledger.truncation(Some(3)).unwrap();
        ledger.truncate_after(keep);
        append(&mut ledger, 3, 4..=4);

        assert_eq!(keep, Some(id(1, 3)));
        assert_eq!(ledger.last(), Some(id(3, 4)));
        assert_eq!(ledger.bytes_after(None), 1 + 2 + 3 + 4);
    }

    #[test]
    fn truncation_of_everything_leaves_an_empty_log() {
        let mut ledger = six();

        let keep = ledger.truncation(None).unwrap();
        ledger.truncate_after(keep);

        assert_eq!((ledger.last(), ledger.first_index() == ledger.next_index()), (None, true));
        append(&mut ledger, 3, 0..=0);
    }

    #[test]
    fn truncation_beyond_the_end_keeps_everything() {
        assert_eq!(six().truncation(Some(6)).unwrap(), Some(id(2, 6)));
        assert_eq!(six().truncation(Some(9)).unwrap(), Some(id(2, 6)));
        assert_eq!(Ledger::default().truncation(Some(9)).unwrap(), None);
    }

    #[test]
    fn purge_keeps_the_id_of_the_last_purged_entry() {
        let mut ledger = six();

        ledger.purge(id(2, 4));

        assert_eq!((ledger.first_index(), ledger.last()), (5, Some(id(2, 6))));
        assert_eq!((ledger.term(4), ledger.term(3)), (Some(2), None));
        assert_eq!((ledger.payload_bytes(5), ledger.bytes_after(None), ledger.bytes_after(Some(5))), (Some(5), 11, 6));
    }

    #[test]
    fn purge_beyond_the_last_entry_moves_the_log_there() {
        let mut ledger = six();

        ledger.purge(id(4, 20));

        assert_eq!((ledger.first_index(), ledger.last(), ledger.term(20)), (21, Some(id(4, 20)), Some(4)));
        assert!(ledger.append(id(4, 7), 0, Spot::Queued(0)).is_err());
        append(&mut ledger, 4, 21..=21);
    }

    #[test]
    fn truncation_down_to_what_is_purged_leaves_its_id_and_below_is_refused() {
        let mut ledger = six();
        ledger.purge(id(2, 4));

        assert!(matches!(ledger.truncation(Some(3)), Err(LogError::Purged { index: 4, purged: 4 })));
        assert!(matches!(ledger.truncation(None), Err(LogError::Purged { .. })));
        let keep = ledger.truncation(Some(4)).unwrap();
        ledger.truncate_after(keep);

        assert_eq!(ledger.last(), Some(id(2, 4)));
        append(&mut ledger, 3, 5..=5);
    }

    #[test]
    fn queued_entry_that_was_replaced_is_not_placed_by_the_write_of_the_old_one() {
        let mut ledger = six();
        ledger.append(id(2, 7), 7, Spot::Queued(70)).unwrap();
        ledger.truncate_after(Some(id(2, 6)));
        ledger.append(id(3, 7), 7, Spot::Queued(71)).unwrap();

        ledger.written(7, 70, 2, 700);
        assert_eq!(ledger.spot(7), Some(Spot::Queued(71)));

        ledger.written(7, 71, 2, 800);
        assert_eq!(ledger.spot(7), Some(Spot::Written { segment: 2, offset: 800 }));
    }

    #[test]
    fn checkpoint_alone_misses_entries_until_they_are_purged() {
        let mut ledger = Ledger::from_checkpoint(None, Some(id(1, 2)), Some(id(1, 5)));
        append(&mut ledger, 1, 6..=8);
        assert_eq!(ledger.missing(), Some((3, 5)));

        ledger.purge(id(1, 6));

        assert_eq!(ledger.missing(), None);
        assert_eq!(ledger.first_index(), 7);
    }

    #[test]
    fn truncation_behind_a_checkpoint_moves_back_what_is_missing() {
        let mut ledger = Ledger::from_checkpoint(None, None, Some(id(1, 5)));

        ledger.truncate_after(Some(id(1, 3)));
        append(&mut ledger, 2, 4..=5);

        assert_eq!(ledger.missing(), Some((0, 3)));
        assert_eq!(ledger.last(), Some(id(2, 5)));
    }
}
