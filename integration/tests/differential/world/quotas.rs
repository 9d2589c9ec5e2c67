//! Quotas, as ZooKeeper's own tool sets and removes them.

use anyhow::Result;
use quorate_wire::OpCode;
use rand::{Rng as _, seq::IndexedRandom as _};

use super::{KEEPER, World};
use crate::ask::{QUOTA_LIMITS, QUOTA_SUBTREES, QUOTA_USAGE, QUOTAS, create, delete, set_data};

impl World<'_> {
    /// Gives a subtree a quota, another one, or none.
    pub(super) fn change_quota(&mut self) -> Result<()> {
        let subtree = *QUOTA_SUBTREES.choose(&mut self.rng).expect("there are some");
        let node = |name: &str| format!("{QUOTAS}{subtree}/{name}");
        if self.quotas.contains_key(subtree) && self.rng.random_bool(0.5) {
            self.quotas.remove(subtree);
            self.exchange(KEEPER, vec![delete(&node(QUOTA_USAGE))])?;
            return self.exchange(KEEPER, vec![delete(&node(QUOTA_LIMITS))]);
        }
        let (limits, hard) = self.limits();
        self.counts.quotas += 1;
        if self.quotas.insert(subtree, hard).is_some() {
            return self.exchange(KEEPER, vec![set_data(&node(QUOTA_LIMITS), &limits)]);
        }
        for (at, _) in subtree.match_indices('/').skip(1) {
            self.exchange(KEEPER, vec![create(OpCode::Create, &format!("{QUOTAS}{}", &subtree[..at]), "", 0)])?;
        }
        self.exchange(KEEPER, vec![create(OpCode::Create, &format!("{QUOTAS}{subtree}"), "", 0)])?;
        self.exchange(KEEPER, vec![create(OpCode::Create, &node(QUOTA_LIMITS), &limits, 0)])?;
        self.exchange(KEEPER, vec![create(OpCode::Create, &node(QUOTA_USAGE), "count=0,bytes=0", 0)])
    }

    /// Limits that are often reached, and whether they refuse what is more.
    fn limits(&mut self) -> (String, bool) {
        let [nodes, nodes_hard] = [(); 2].map(|()| self.limit(6));
        let [bytes, bytes_hard] = [(); 2].map(|()| self.limit(60));
        let soft = format!("count={nodes},bytes={bytes}");
        let limits = match self.rng.random_range(0..4) {
            0 => return (soft, false),
            1 => format!("{soft}=;countHardLimit={nodes_hard}"),
            2 => format!("{soft}=;byteHardLimit={bytes_hard}"),
            _ => format!("{soft}=;byteHardLimit={bytes_hard};countHardLimit={nodes_hard}"),
        };
        (limits, true)
    }

    fn limit(&mut self, below: i64) -> i64 {
        self.rng.random_range(-1..below)
    }
}
