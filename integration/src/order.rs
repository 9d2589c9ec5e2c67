//! What zxids tell beyond single objects: one order of all changes, which real time never contradicts.
//!
//! `linearizable` judges each node by itself and believes no zxid. This check believes them and sees across nodes:
//! together they leave little room for a fault to hide.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use crate::history::{ClientId, Stamp};

/// An answered operation and the zxid that came with the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// Who asked.
    pub client: ClientId,
    /// Not later than the request left.
    pub invoked: Stamp,
    /// Not earlier than the reply arrived.
    pub returned: Stamp,
    /// Of the change, for a write; of the last change of what was read, for a read.
    pub zxid: u64,
    /// What it was.
    pub kind: Kind,
}

/// What an operation promises about its zxid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Made the change: nobody else has this zxid, and every change acknowledged before has a smaller one.
    Write,
    /// Read a node.
    Read,
}

/// Checks that writes have zxids of their own, in the order of real time, and that nobody saw a change before it was
/// asked for.
pub fn check(operations: &[Stamped]) -> Result<()> {
    let mut writes: Vec<_> = operations.iter().filter(|operation| operation.kind == Kind::Write).collect();
    let by_zxid: HashMap<u64, &Stamped> = writes.iter().map(|write| (write.zxid, *write)).collect();
    ensure!(by_zxid.len() == writes.len(), "{} writes share {} zxids", writes.len(), by_zxid.len());

    // In the order of invocation, each write must lie beyond all that had returned before.
    let mut returns = writes.clone();
    returns.sort_by_key(|write| write.returned);
    writes.sort_by_key(|write| write.invoked);
    let mut returned = returns.into_iter().peekable();
    let mut last: Option<&Stamped> = None;
    for write in writes {
        while let Some(earlier) = returned.next_if(|earlier| earlier.returned < write.invoked) {
            last = last.filter(|last| last.zxid > earlier.zxid).or(Some(earlier));
        }
        if let Some(last) = last {
            ensure!(write.zxid > last.zxid, "{write:?} came after {last:?} had been acknowledged, and lies before it");
        }
    }

    for read in operations.iter().filter(|operation| operation.kind == Kind::Read) {
        if let Some(write) = by_zxid.get(&read.zxid) {
            ensure!(write.invoked <= read.returned, "{read:?} saw {write:?} before it was asked for");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(invoked: u64, returned: u64, zxid: u64, kind: Kind) -> Stamped {
        Stamped { client: ClientId(1), invoked: Stamp(invoked), returned: Stamp(returned), zxid, kind }
    }

    fn write(invoked: u64, returned: u64, zxid: u64) -> Stamped {
        operation(invoked, returned, zxid, Kind::Write)
    }

    #[test]
    fn writes_at_the_same_time_may_come_in_any_order() {
        check(&[write(0, 10, 2), write(5, 15, 1), write(16, 20, 3)]).unwrap();
    }

    #[test]
    fn a_write_that_comes_after_another_lies_beyond_it() {
        check(&[write(0, 10, 2), write(11, 15, 1)]).unwrap_err();
        check(&[write(0, 10, 5), write(2, 3, 4), write(11, 15, 3)]).unwrap_err();
    }

    #[test]
    fn two_writes_never_have_one_zxid() {
        check(&[write(0, 10, 2), write(5, 15, 2)]).unwrap_err();
    }

    #[test]
    fn nobody_sees_the_future() {
        let read = operation(0, 4, 2, Kind::Read);

        check(&[write(5, 15, 2), read]).unwrap_err();
        check(&[write(4, 15, 2), read]).unwrap();
    }
}
