//! Access control lists, each distinct one once: most nodes of a tree share a handful of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Acl;
use crate::digest::acl_hash;

/// A list in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AclId(u32);

/// The lists in use and how many nodes use each.
#[derive(Debug, Default)]
pub(crate) struct AclLists {
    entries: Vec<Entry>,
    /// Indices of entries without users.
    free: Vec<u32>,
    /// Ordered, not hashed: clients choose the lists, and must not be able to choose ones that collide.
    by_list: BTreeMap<Arc<[Acl]>, AclId>,
}

#[derive(Debug)]
struct Entry {
    list: Arc<[Acl]>,
    hash: u64,
    uses: u32,
}

impl AclLists {
    /// Finds or stores a list, and counts one more user of it.
    pub(crate) fn acquire(&mut self, list: &[Acl]) -> AclId {
        if let Some(&id) = self.by_list.get(list) {
            return self.acquire_again(id);
        }
        let list: Arc<[Acl]> = list.into();
        let entry = Entry { list: Arc::clone(&list), hash: acl_hash(&list), uses: 1 };
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                u32::try_from(self.entries.len() - 1).expect("there are no more lists than nodes")
            }
        };
        self.by_list.insert(list, AclId(index));
        AclId(index)
    }

    /// Counts one more user of a list that has one.
    pub(crate) fn acquire_again(&mut self, id: AclId) -> AclId {
        self.entries[id.0 as usize].uses += 1;
        id
    }

    /// Counts one user less, and forgets a list that has none.
    pub(crate) fn release(&mut self, id: AclId) {
        let entry = &mut self.entries[id.0 as usize];
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        let list = std::mem::replace(&mut entry.list, Arc::new([]));
        self.by_list.remove(&list);
        self.free.push(id.0);
    }

    pub(crate) fn get(&self, id: AclId) -> &Arc<[Acl]> {
        &self.entries[id.0 as usize].list
    }

    pub(crate) fn hash(&self, id: AclId) -> u64 {
        self.entries[id.0 as usize].hash
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_list.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identity, Permissions};

    fn list(id: &str) -> Vec<Acl> {
        let identity = Identity { scheme: "digest".into(), id: id.into() };
        vec![Acl { permissions: Permissions::ALL, identity }]
    }

    #[test]
    fn equal_lists_are_stored_once_and_forgotten_with_their_last_user() {
        let mut lists = AclLists::default();

        let first = lists.acquire(&list("a:x"));
        let second = lists.acquire(&list("a:x"));
        let other = lists.acquire(&list("b:x"));

        assert_eq!(first, second);
        assert_ne!(first, other);
        assert_eq!(lists.len(), 2);

        lists.release(first);
        assert_eq!(**lists.get(second), list("a:x")[..]);
        lists.release(second);
        assert_eq!(lists.len(), 1);

        let third = lists.acquire(&list("c:x"));
        assert_eq!(**lists.get(third), list("c:x")[..]);
        assert_eq!(**lists.get(other), list("b:x")[..]);
    }
}
