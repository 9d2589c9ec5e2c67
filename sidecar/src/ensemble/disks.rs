//! Which disk is registered for which member: the applied part of the tree's member table, at hand without its lock.
//!
//! An acknowledgement counts only if it comes from the disk that is registered, because a member that lost its disk has
//! lost what it acknowledged before. Until a majority of disks is registered no client write is taken, so until then
//! there is nothing to lose and everybody is fed.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use quorate_tree::{MemberId, Tree};

/// The registered disks.
#[derive(Debug)]
pub(crate) struct DiskTable {
    members: Vec<MemberId>,
    table: RwLock<Table>,
}

#[derive(Debug, Default)]
struct Table {
    registered: BTreeMap<MemberId, u64>,
    writes_open: bool,
}

impl DiskTable {
    /// For the configured members.
    pub(crate) fn new(members: Vec<MemberId>) -> Self {
        Self { members, table: RwLock::default() }
    }

    /// Takes over what the tree says after it changed.
    pub(crate) fn refresh(&self, tree: &Tree) {
        let registered: BTreeMap<MemberId, u64> =
            self.members.iter().filter_map(|member| Some((*member, tree.disk_of(*member)?))).collect();
        let writes_open = registered.len() > self.members.len() / 2;
        // Both at once: who sees that writes are taken sees also whom it may not feed any more.
        *self.table.write() = Table { registered, writes_open };
    }

    /// Whether a majority of disks is registered, so that client writes may be taken.
    pub(crate) fn writes_open(&self) -> bool {
        self.table.read().writes_open
    }

    pub(crate) fn registered(&self, member: MemberId) -> Option<u64> {
        self.table.read().registered.get(&member).copied()
    }

    /// Whether a disk may be given the log.
    pub(crate) fn may_feed(&self, member: MemberId, disk_id: u64) -> bool {
        let table = self.table.read();
        match table.registered.get(&member) {
            Some(registered) => *registered == disk_id,
            None => !table.writes_open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(registered: &[(u8, u64)]) -> DiskTable {
        let disks = DiskTable::new(vec![MemberId(1), MemberId(2), MemberId(3)]);
        let registered: BTreeMap<_, _> = registered.iter().map(|(member, disk)| (MemberId(*member), *disk)).collect();
        let writes_open = registered.len() > 1;
        *disks.table.write() = Table { registered, writes_open };
        disks
    }

    #[test]
    fn everybody_is_fed_until_client_writes_are_taken() {
        let disks = table(&[(1, 11)]);

        assert!(disks.may_feed(MemberId(2), 22));
        assert!(!disks.may_feed(MemberId(1), 12), "but not another disk than the registered one");
    }

    #[test]
    fn only_registered_disks_are_fed_once_client_writes_are_taken() {
        let disks = table(&[(1, 11), (2, 22)]);

        assert!(disks.may_feed(MemberId(2), 22));
        assert!(!disks.may_feed(MemberId(2), 23));
        assert!(!disks.may_feed(MemberId(3), 33));
    }
}
