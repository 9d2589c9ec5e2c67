//! What must be known of a request to answer it, packed into the tag that comes back with the answer.

use quorate_wire::{ErrorCode, OpCode};

/// Stands in the place of an operation that this protocol does not have.
const UNKNOWN_OP: u8 = 0xff;

/// The client's number of a request, its operation, and the error the door itself answers with, if any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) xid: i32,
    /// `None` for an operation that is unknown.
    pub(super) op: Option<OpCode>,
    /// Whatever the answer is, the client is told this.
    pub(super) refusal: Option<ErrorCode>,
}

impl Tag {
    pub(super) fn of(xid: i32, op: OpCode) -> Self {
        Self { xid, op: Some(op), refusal: None }
    }

    pub(super) fn refused(xid: i32, op: Option<OpCode>, error: ErrorCode) -> Self {
        Self { xid, op, refusal: Some(error) }
    }

    pub(super) fn pack(self) -> u64 {
        let op = self.op.map_or(UNKNOWN_OP, |op| op.code() as u8);
        // All codes of the protocol fit.
        let refusal = self.refusal.map_or(0, |error| error.0 as u16);
        u64::from(self.xid as u32) | u64::from(op) << 32 | u64::from(refusal) << 40
    }

    pub(super) fn unpack(packed: u64) -> Self {
        let op = (packed >> 32) as u8;
        let refusal = (packed >> 40) as u16;
        Self {
            xid: packed as u32 as i32,
            op: OpCode::of(i32::from(op)).or_else(|| OpCode::of(i32::from(op as i8))),
            refusal: (refusal != 0).then_some(ErrorCode(i32::from(refusal as i16))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_number_and_error_comes_back() {
        for xid in [0, 1, -1, -2, -8, i32::MAX, i32::MIN] {
            for op in OpCode::ALL {
                let tag = Tag::of(xid, op);
                assert_eq!(Tag::unpack(tag.pack()), tag);
                let tag = Tag::refused(xid, Some(op), ErrorCode::THROTTLED_OP);
                assert_eq!(Tag::unpack(tag.pack()), tag);
            }
            let tag = Tag::refused(xid, None, ErrorCode::UNIMPLEMENTED);
            assert_eq!(Tag::unpack(tag.pack()), tag);
        }
    }
}
