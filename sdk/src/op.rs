//! The requests of the session stream, as the rest of the client needs to see them.

use quorate_proto::v1::{self, request::Op, transaction_op};

use crate::error::Error;

/// Whether the session numbers it, so that it is applied once.
pub(crate) fn is_write(op: &Op) -> bool {
    matches!(op, Op::Create(_) | Op::SetData(_) | Op::SetAcl(_) | Op::Delete(_) | Op::Transaction(_))
}

/// The node it is about; empty where there is none.
pub(crate) fn path(op: &Op) -> &str {
    match op {
        Op::Get(r) => &r.path,
        Op::Exists(r) => &r.path,
        Op::Children(r) => &r.path,
        Op::GetAcl(r) => &r.path,
        Op::Create(r) => &r.path,
        Op::SetData(r) => &r.path,
        Op::SetAcl(r) => &r.path,
        Op::Delete(r) => &r.path,
        Op::Watch(r) => &r.path,
        Op::Unwatch(r) => &r.path,
        Op::Transaction(_) | Op::Sync(_) | Op::Rearm(_) | Op::Auth(_) | Op::Heartbeat(_) | Op::Close(_) => "",
    }
}

pub(crate) fn name(op: &Op) -> &'static str {
    match op {
        Op::Get(_) => "get",
        Op::Exists(_) => "exists",
        Op::Children(_) => "children",
        Op::GetAcl(_) => "get_acl",
        Op::Sync(_) => "sync",
        Op::Create(_) => "create",
        Op::SetData(_) => "set",
        Op::SetAcl(_) => "set_acl",
        Op::Delete(_) => "delete",
        Op::Transaction(_) => "txn",
        Op::Watch(_) => "watch",
        Op::Unwatch(_) => "unwatch",
        Op::Rearm(_) => "rearm",
        Op::Auth(_) => "auth",
        Op::Heartbeat(_) => "heartbeat",
        Op::Close(_) => "close",
    }
}

/// Bytes of user data that travel with it.
pub(crate) fn data_bytes(op: &Op) -> usize {
    match op {
        Op::Create(r) => r.data.len(),
        Op::SetData(r) => r.data.len(),
        Op::Transaction(r) => r
            .ops
            .iter()
            .map(|op| match &op.op {
                Some(transaction_op::Op::Create(r)) => r.data.len(),
                Some(transaction_op::Op::SetData(r)) => r.data.len(),
                _ => 0,
            })
            .sum(),
        _ => 0,
    }
}

/// The error of a refused request.
pub(crate) fn refused(op: &Op, refused: v1::RefusedReply) -> Error {
    let Op::Transaction(txn) = op else { return Error::from_refusal(path(op), refused) };
    let Some(index) = refused.failed_op else { return Error::from_refusal("", refused) };
    let path = match txn.ops.get(index as usize).and_then(|op| op.op.as_ref()) {
        Some(transaction_op::Op::Create(r)) => &r.path,
        Some(transaction_op::Op::SetData(r)) => &r.path,
        Some(transaction_op::Op::Delete(r)) => &r.path,
        Some(transaction_op::Op::Check(r)) => &r.path,
        None => return Error::Protocol(format!("operation {index} of the transaction does not exist")),
    };
    Error::Txn { index: index as usize, source: Box::new(Error::from_refusal(path, refused)) }
}
