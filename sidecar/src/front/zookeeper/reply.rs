//! What a session answers, as ZooKeeper's clients read it.

use std::collections::VecDeque;

use bytes::BytesMut;
use quorate_tree::{Acl, Identity, Refusal, Refused, Reply, Stat, Zxid};
use quorate_wire::{self as wire, ErrorCode, EventType, OpCode, OpResult, Response, WatchEvent};

use super::{
    request::{Aside, MultiKind},
    tag::Tag,
};
use crate::{
    replica::{Answer, Declined, Event, EventKind},
    telemetry::metrics::DetachReason,
};

/// What the connection does after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Continue,
    /// That was the last: the connection is closed.
    Close(DetachReason),
}

/// Appends the answer to a request. `asides` holds what is kept of those that have not been answered yet.
pub(super) fn encode(tag: Tag, zxid: Zxid, answer: Answer, asides: &mut VecDeque<Aside>, out: &mut BytesMut) -> After {
    let zxid = zxid.0 as i64;
    if let Some(error) = tag.refusal {
        // ZooKeeper's answer to an unknown operation shows -1.
        let (zxid, after) = match error {
            ErrorCode::UNIMPLEMENTED => (-1, After::Close(DetachReason::Protocol)),
            _ => (zxid, After::Continue),
        };
        wire::encode_refusal(tag.xid, zxid, error, out);
        return after;
    }
    // What could not be read has no answer.
    let Some(op) = tag.op else { return After::Close(DetachReason::Protocol) };
    let aside = match op {
        OpCode::Sync | OpCode::Multi => asides.pop_front(),
        _ => None,
    };
    // Credentials are outside the order of changes.
    let zxid = if matches!(op, OpCode::Auth | OpCode::Sasl) { 0 } else { zxid };
    match response(op, answer, aside) {
        Ok(response) => {
            wire::encode_reply(tag.xid, zxid, &response, out);
            if op == OpCode::CloseSession { After::Close(DetachReason::Closed) } else { After::Continue }
        }
        // Not even this is told: the session is served elsewhere.
        Err(ErrorCode::SESSION_MOVED) => After::Close(DetachReason::Moved),
        Err(error) => {
            wire::encode_refusal(tag.xid, zxid, error, out);
            if error == ErrorCode::AUTH_FAILED { After::Close(DetachReason::Protocol) } else { After::Continue }
        }
    }
}

/// Appends a notification; a mark that only native clients know is left out.
pub(super) fn encode_event(event: &Event, out: &mut BytesMut) {
    let kind = match event.kind {
        EventKind::Created => EventType::NodeCreated,
        EventKind::Deleted => EventType::NodeDeleted,
        EventKind::DataChanged => EventType::NodeDataChanged,
        EventKind::ChildrenChanged => EventType::NodeChildrenChanged,
        EventKind::Resync => return,
    };
    // Clients expect no change behind what they missed.
    let zxid = if event.caught_up { -1 } else { event.zxid.0 as i64 };
    WatchEvent { event: kind, path: (&*event.path).into() }.encode(zxid, out);
}

fn response(op: OpCode, answer: Answer, aside: Option<Aside>) -> Result<Response, ErrorCode> {
    Ok(match answer {
        Answer::Get { data, stat: s } => Response::Data { data, stat: stat(&s) },
        Answer::Exists(Some(s)) => Response::Stat(stat(&s)),
        Answer::Exists(None) => return Err(ErrorCode::NO_NODE),
        Answer::Children { names, .. } if op == OpCode::GetChildren => Response::Names(names),
        Answer::Children { names, stat: s } => Response::NamesStat { names, stat: stat(&s) },
        Answer::Acl { acl, stat: s } => Response::Acl { acl: acl.into_iter().map(acl_entry).collect(), stat: stat(&s) },
        Answer::Names(names) => Response::Names(names),
        Answer::Unsorted { .. } => unreachable!("an attachment gives out answers that are in order"),
        Answer::Count(count) => Response::Count(count as i32),
        Answer::Identities(identities) => Response::Clients(identities.into_iter().map(client_info).collect()),
        Answer::Many(answers) => Response::Multi(answers.into_iter().map(read_result).collect()),
        Answer::Wrote(reply) => wrote(op, reply, aside),
        Answer::Done => match op {
            OpCode::Sync => match aside {
                Some(Aside::Echo(path)) => Response::Path(path),
                _ => Response::Path(None),
            },
            OpCode::AddWatch => Response::Watching,
            OpCode::Sasl => Response::Token(None),
            _ => Response::Empty,
        },
        Answer::Refused(Refused { reason, failed_op: Some(failed) }) => {
            let ops = match &aside {
                Some(Aside::Multi(kinds)) => kinds.len(),
                _ => failed as usize + 1,
            };
            Response::Multi(blame(ops, failed as usize, refusal(reason)))
        }
        Answer::Refused(Refused { reason, failed_op: None }) => return Err(refusal(reason)),
        Answer::Declined(declined) => return Err(decline(declined)),
    })
}

fn wrote(op: OpCode, reply: Reply, aside: Option<Aside>) -> Response {
    match reply {
        Reply::Created { path, .. } if op == OpCode::Create => Response::Path(Some(path)),
        Reply::Created { path, stat: s } => Response::PathStat { path, stat: stat(&s) },
        Reply::Stat(s) => Response::Stat(stat(&s)),
        Reply::Multi(replies) => {
            let kinds = match aside {
                Some(Aside::Multi(kinds)) => kinds,
                _ => Box::default(),
            };
            let result = |(reply, kind)| match (reply, kind) {
                (Reply::Created { path, .. }, MultiKind::Create) => OpResult::Created { path, stat: None },
                (Reply::Created { path, stat: s }, _) => OpResult::Created { path, stat: Some(stat(&s)) },
                (Reply::Stat(s), _) => OpResult::Set(stat(&s)),
                (_, MultiKind::Delete) => OpResult::Deleted,
                _ => OpResult::Checked,
            };
            Response::Multi(replies.into_iter().zip(kinds).map(result).collect())
        }
        Reply::Done | Reply::Opened { .. } | Reply::Attached { .. } => Response::Empty,
    }
}

fn read_result(answer: Answer) -> OpResult {
    match answer {
        Answer::Get { data, stat: s } => OpResult::Data { data, stat: stat(&s) },
        Answer::Children { names, .. } => OpResult::Children(names),
        Answer::Refused(refused) => OpResult::Failed(refusal(refused.reason)),
        Answer::Declined(declined) => OpResult::Failed(decline(declined)),
        _ => OpResult::Failed(ErrorCode::MARSHALLING_ERROR),
    }
}

/// The results of a multi of which one operation failed.
fn blame(ops: usize, failed: usize, error: ErrorCode) -> Vec<OpResult> {
    let code = |at: usize| match at.cmp(&failed) {
        std::cmp::Ordering::Less => ErrorCode::OK,
        std::cmp::Ordering::Equal => error,
        std::cmp::Ordering::Greater => ErrorCode::RUNTIME_INCONSISTENCY,
    };
    (0..ops).map(|at| OpResult::Failed(code(at))).collect()
}

fn refusal(reason: Refusal) -> ErrorCode {
    match reason {
        Refusal::NoNode => ErrorCode::NO_NODE,
        Refusal::NodeExists => ErrorCode::NODE_EXISTS,
        Refusal::BadVersion => ErrorCode::BAD_VERSION,
        Refusal::NotEmpty => ErrorCode::NOT_EMPTY,
        Refusal::NoChildrenForEphemerals => ErrorCode::NO_CHILDREN_FOR_EPHEMERALS,
        Refusal::NoAuth => ErrorCode::NO_AUTH,
        Refusal::InvalidAcl => ErrorCode::INVALID_ACL,
        // Clients know no code for a bound: it is an argument that cannot be.
        Refusal::BadArguments | Refusal::LimitExceeded => ErrorCode::BAD_ARGUMENTS,
        Refusal::QuotaExceeded => ErrorCode::QUOTA_EXCEEDED,
        Refusal::SessionExpired | Refusal::WrongPassword | Refusal::Gap => ErrorCode::SESSION_EXPIRED,
        Refusal::SessionMoved => ErrorCode::SESSION_MOVED,
    }
}

fn decline(declined: Declined) -> ErrorCode {
    match declined {
        // Not done, and worth another try later: the code that says so.
        Declined::DiskFull | Declined::TooManyWatches | Declined::Busy => ErrorCode::THROTTLED_OP,
        Declined::ReplyTooLarge => ErrorCode::MARSHALLING_ERROR,
        Declined::NoWatch => ErrorCode::NO_WATCHER,
        Declined::AuthFailed => ErrorCode::AUTH_FAILED,
        Declined::OnlyReads => ErrorCode::NOT_READ_ONLY,
    }
}

fn stat(stat: &Stat) -> wire::Stat {
    wire::Stat {
        czxid: stat.czxid.0 as i64,
        mzxid: stat.mzxid.0 as i64,
        ctime: stat.ctime_ms,
        mtime: stat.mtime_ms,
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        ephemeral_owner: stat.ephemeral_owner.0 as i64,
        data_length: stat.data_length as i32,
        num_children: stat.num_children as i32,
        pzxid: stat.pzxid.0 as i64,
    }
}

fn acl_entry(acl: Acl) -> wire::Acl {
    wire::Acl { permissions: acl.permissions.0 as i32, scheme: acl.identity.scheme, id: Some(acl.identity.id) }
}

/// The user of an identity, without what proves it.
fn client_info(identity: Identity) -> wire::ClientInfo {
    let Identity { scheme, id } = identity;
    let user = match (scheme.as_str(), id.split_once(':')) {
        ("digest", Some((user, _))) => user.to_owned(),
        _ => id,
    };
    wire::ClientInfo { scheme, user }
}
