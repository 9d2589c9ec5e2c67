//! How many of the member's permits a write takes while it is in flight: the more, the larger it is.

use quorate_tree::{Acl, Create, MultiOp, Op, SetData};

/// So many bytes count as one more write.
pub(super) const BYTES_PER_PERMIT: usize = 16 * 1024;

/// The permits of a write.
pub(super) fn permits(op: &Op) -> u32 {
    u32::try_from(1 + bytes(op) / BYTES_PER_PERMIT).unwrap_or(u32::MAX)
}

/// About how many bytes a write holds.
fn bytes(op: &Op) -> usize {
    match op {
        Op::Create(create) => of_create(create),
        Op::SetData(set) => of_set(set),
        Op::SetAcl(set) => set.path.len() + of_acl(&set.acl),
        Op::Delete(delete) => delete.path.len(),
        Op::Multi(ops) => {
            let one = |op: &MultiOp| match op {
                MultiOp::Create(create) => of_create(create),
                MultiOp::SetData(set) => of_set(set),
                MultiOp::Delete(delete) => delete.path.len(),
                MultiOp::Check(check) => check.path.len(),
            };
            ops.len() * size_of::<MultiOp>() + ops.iter().map(one).sum::<usize>()
        }
        _ => 0,
    }
}

fn of_create(create: &Create) -> usize {
    create.path.len() + create.data.as_ref().map_or(0, bytes::Bytes::len) + of_acl(&create.acl)
}

fn of_set(set: &SetData) -> usize {
    set.path.len() + set.data.as_ref().map_or(0, bytes::Bytes::len)
}

fn of_acl(acl: &[Acl]) -> usize {
    acl.iter().map(|entry| size_of::<Acl>() + entry.identity.scheme.len() + entry.identity.id.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_write_takes_permits_in_proportion() {
        let set = |bytes| SetData { path: "/a".into(), data: Some(vec![0; bytes].into()), version: -1 };

        assert_eq!(permits(&Op::SetData(set(100))), 1);
        assert_eq!(permits(&Op::SetData(set(1024 * 1024))), 65);
        assert_eq!(permits(&Op::Multi(vec![MultiOp::SetData(set(8 * 1024)); 4])), 3);
        assert_eq!(permits(&Op::CloseSession), 1);
    }
}
