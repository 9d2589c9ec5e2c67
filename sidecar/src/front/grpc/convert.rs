//! Protocol messages to domain words and back.

use quorate_proto::v1 as proto;
use quorate_tree::{
    Acl, Check, Create, CreateMode, Delete, Identity, Limits, MultiOp, Op, Permissions, Refusal, Refused, Reply,
    SetAcl, SetData, Stat, WriteNumber, Zxid,
};

use crate::{
    replica::{Answer, Declined, Event, EventKind, Read, Rearm, WatchKind},
    session::{Request, RequestKind},
};

/// A message that says nothing this door understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a request has no operation this version knows")]
    NoOperation,
    #[error("create mode {0} is not known")]
    CreateMode(i32),
    #[error("watch mode {0} cannot be set by a watch request")]
    WatchMode(i32),
    #[error("watch kind {0} is not known")]
    WatchKind(i32),
    #[error("writes carry their number, from 1; this one has none")]
    Unnumbered,
}

/// The tag of a request and what it asks. A close is a write without a number.
pub(super) fn request(request: proto::Request) -> Result<Request, Malformed> {
    use proto::request::Op as Asked;

    let proto::Request { seq, write, answered, traceparent, op } = request;
    let read = |read, linearizable| RequestKind::Read { read, linearizable };
    let kind = match op.ok_or(Malformed::NoOperation)? {
        Asked::Get(r) => read(Read::Get { path: r.path, watch: r.watch }, r.linearizable),
        Asked::Exists(r) => read(Read::Exists { path: r.path, watch: r.watch }, r.linearizable),
        Asked::Children(r) => read(Read::Children { path: r.path, watch: r.watch }, r.linearizable),
        Asked::GetAcl(r) => read(Read::Acl { path: r.path }, false),
        Asked::Sync(proto::SyncRequest {}) => read(Read::Sync, true),
        Asked::Watch(r) => read(watch(r)?, false),
        Asked::Unwatch(r) => read(unwatch(r)?, false),
        Asked::Rearm(r) => read(Read::Rearm(Box::new(rearm(r))), false),
        Asked::Create(r) => RequestKind::Write(Op::Create(create(r)?)),
        Asked::SetData(r) => RequestKind::Write(Op::SetData(set_data(r))),
        Asked::SetAcl(r) => {
            RequestKind::Write(Op::SetAcl(SetAcl { path: r.path, acl: acl(r.acl), version: r.version }))
        }
        Asked::Delete(r) => RequestKind::Write(Op::Delete(delete(r))),
        Asked::Transaction(r) => {
            // One operation too many is refused as a million too many are, and does not fill the log before.
            let ops = r.ops.into_iter().take(Limits::DEFAULT.multi_ops_max + 1);
            RequestKind::Write(Op::Multi(ops.map(multi_op).collect::<Result<_, _>>()?))
        }
        Asked::Auth(r) => RequestKind::Auth { scheme: r.scheme, credential: r.credential },
        Asked::Heartbeat(proto::HeartbeatRequest {}) => RequestKind::Heartbeat,
        Asked::Close(proto::CloseRequest {}) => {
            return Ok(Request { tag: seq, write: None, traceparent, kind: RequestKind::Write(Op::CloseSession) });
        }
    };
    let write = match (&kind, write) {
        (RequestKind::Write(_), 0) => return Err(Malformed::Unnumbered),
        (RequestKind::Write(_), number) => Some(WriteNumber { number, answered }),
        _ => None,
    };
    Ok(Request { tag: seq, write, traceparent, kind })
}

fn watch(request: proto::WatchRequest) -> Result<Read, Malformed> {
    let recursive = match request.mode() {
        proto::WatchMode::Persistent => false,
        proto::WatchMode::PersistentRecursive => true,
        proto::WatchMode::Unspecified | proto::WatchMode::OneShot => return Err(Malformed::WatchMode(request.mode)),
    };
    Ok(Read::Watch { path: request.path, recursive })
}

fn unwatch(request: proto::UnwatchRequest) -> Result<Read, Malformed> {
    use proto::unwatch_request::Kind;

    let kind = match Kind::try_from(request.kind).map_err(|_unknown| Malformed::WatchKind(request.kind))? {
        Kind::Any => WatchKind::Any,
        Kind::Data => WatchKind::Data,
        Kind::Children => WatchKind::Children,
        Kind::Persistent => WatchKind::Persistent,
        Kind::PersistentRecursive => WatchKind::Recursive,
    };
    Ok(Read::Unwatch { path: request.path, kind })
}

fn rearm(request: proto::RearmRequest) -> Rearm {
    Rearm {
        since: Zxid(request.since_zxid),
        data: request.data,
        exists: request.exists,
        children: request.children,
        persistent: request.persistent,
        recursive: request.persistent_recursive,
    }
}

fn create(request: proto::CreateRequest) -> Result<Create, Malformed> {
    use proto::CreateMode as Mode;

    let ttl_ms = request.ttl_ms;
    let mode = match Mode::try_from(request.mode).map_err(|_unknown| Malformed::CreateMode(request.mode))? {
        Mode::Persistent => CreateMode::Persistent,
        Mode::Ephemeral => CreateMode::Ephemeral,
        Mode::PersistentSequential => CreateMode::PersistentSequential,
        Mode::EphemeralSequential => CreateMode::EphemeralSequential,
        Mode::Container => CreateMode::Container,
        Mode::PersistentWithTtl => CreateMode::PersistentWithTtl { ttl_ms },
        Mode::PersistentSequentialWithTtl => CreateMode::PersistentSequentialWithTtl { ttl_ms },
    };
    Ok(Create { path: request.path, data: Some(request.data), mode, acl: acl(request.acl) })
}

fn set_data(request: proto::SetDataRequest) -> SetData {
    SetData { path: request.path, data: Some(request.data), version: request.version }
}

fn delete(request: proto::DeleteRequest) -> Delete {
    Delete { path: request.path, version: request.version }
}

fn multi_op(op: proto::TransactionOp) -> Result<MultiOp, Malformed> {
    use proto::transaction_op::Op as Asked;

    Ok(match op.op.ok_or(Malformed::NoOperation)? {
        Asked::Create(r) => MultiOp::Create(create(r)?),
        Asked::SetData(r) => MultiOp::SetData(set_data(r)),
        Asked::Delete(r) => MultiOp::Delete(delete(r)),
        Asked::Check(r) => MultiOp::Check(Check { path: r.path, version: r.version }),
    })
}

/// Empty means open to all.
fn acl(entries: Vec<proto::Acl>) -> Vec<Acl> {
    if entries.is_empty() {
        return vec![Acl::open()];
    }
    entries
        .into_iter()
        .map(|entry| Acl {
            permissions: Permissions(entry.permissions),
            identity: Identity { scheme: entry.scheme, id: entry.id },
        })
        .collect()
}

pub(super) fn reply_item(tag: u64, zxid: Zxid, answer: Answer) -> proto::ServerItem {
    use proto::reply::Result as Answered;

    let result = match answer {
        Answer::Get { data, stat: s } => {
            Answered::Get(proto::GetReply { data: data.unwrap_or_default(), stat: Some(stat(&s)) })
        }
        Answer::Exists(s) => Answered::Exists(proto::ExistsReply { stat: s.as_ref().map(stat) }),
        Answer::Children { names, stat: s } => Answered::Children(proto::ChildrenReply { names, stat: Some(stat(&s)) }),
        Answer::Acl { acl, stat: s } => {
            Answered::GetAcl(proto::GetAclReply { acl: acl.into_iter().map(acl_entry).collect(), stat: Some(stat(&s)) })
        }
        Answer::Wrote(reply) => wrote(reply),
        Answer::Done => Answered::Done(proto::Done {}),
        Answer::Names(_) | Answer::Count(_) | Answer::Identities(_) | Answer::Many(_) => {
            unreachable!("this door does not ask for these")
        }
        Answer::Unsorted { .. } => unreachable!("an attachment gives out answers that are in order"),
        Answer::Refused(refused) => Answered::Refused(refused_reply(refused)),
        Answer::Declined(declined) => Answered::Refused(declined_reply(declined)),
    };
    item(proto::server_item::Item::Reply(proto::Reply { seq: tag, zxid: zxid.0, result: Some(result) }))
}

pub(super) fn event_item(event: &Event) -> proto::ServerItem {
    let kind = match event.kind {
        EventKind::Created => proto::EventKind::Created,
        EventKind::Deleted => proto::EventKind::Deleted,
        EventKind::DataChanged => proto::EventKind::DataChanged,
        EventKind::ChildrenChanged => proto::EventKind::ChildrenChanged,
        EventKind::Resync => proto::EventKind::Resync,
    };
    let event = proto::Event { zxid: event.zxid.0, kind: kind.into(), path: event.path.to_string() };
    item(proto::server_item::Item::Event(event))
}

pub(super) fn item(item: proto::server_item::Item) -> proto::ServerItem {
    proto::ServerItem { item: Some(item) }
}

fn wrote(reply: Reply) -> proto::reply::Result {
    use proto::reply::Result as Answered;

    match reply {
        Reply::Created { path, stat: s } => Answered::Create(proto::CreateReply { path, stat: Some(stat(&s)) }),
        Reply::Stat(s) => Answered::Stat(stat(&s)),
        Reply::Multi(replies) => Answered::Transaction(proto::TransactionReply {
            results: replies.into_iter().map(|reply| proto::TransactionResult { result: Some(part(reply)) }).collect(),
        }),
        Reply::Done | Reply::Opened { .. } | Reply::Attached { .. } => Answered::Done(proto::Done {}),
    }
}

fn part(reply: Reply) -> proto::transaction_result::Result {
    use proto::transaction_result::Result as Part;

    match reply {
        Reply::Created { path, stat: s } => Part::Create(proto::CreateReply { path, stat: Some(stat(&s)) }),
        Reply::Stat(s) => Part::Stat(stat(&s)),
        Reply::Done | Reply::Multi(_) | Reply::Opened { .. } | Reply::Attached { .. } => Part::Done(proto::Done {}),
    }
}

fn stat(stat: &Stat) -> proto::Stat {
    proto::Stat {
        czxid: stat.czxid.0,
        mzxid: stat.mzxid.0,
        pzxid: stat.pzxid.0,
        ctime_ms: stat.ctime_ms,
        mtime_ms: stat.mtime_ms,
        version: stat.version,
        cversion: stat.cversion,
        aversion: stat.aversion,
        ephemeral_owner: stat.ephemeral_owner.0,
        data_length: stat.data_length,
        num_children: stat.num_children,
    }
}

fn acl_entry(acl: Acl) -> proto::Acl {
    proto::Acl { permissions: acl.permissions.0, scheme: acl.identity.scheme, id: acl.identity.id }
}

fn refused_reply(refused: Refused) -> proto::RefusedReply {
    use proto::Refusal as Said;

    let (reason, message) = match refused.reason {
        Refusal::NoNode => (Said::NoNode, "the node, or the parent of the node to create, does not exist"),
        Refusal::NodeExists => (Said::NodeExists, "a node of this name exists"),
        Refusal::BadVersion => (Said::BadVersion, "the node has another version; read it again"),
        Refusal::NotEmpty => (Said::NotEmpty, "the node has children; delete them first"),
        Refusal::NoChildrenForEphemerals => {
            (Said::NoChildrenForEphemerals, "an ephemeral node cannot have children; use a persistent parent")
        }
        Refusal::NoAuth => {
            (Said::NoAuth, "the ACL gives no identity of this stream the permission; authenticate first")
        }
        Refusal::InvalidAcl => (Said::InvalidAcl, "the ACL is empty or names an unknown scheme or a malformed id"),
        Refusal::BadArguments => (Said::BadArguments, "a malformed path, an illegal ttl, or a reserved node"),
        Refusal::QuotaExceeded => (Said::QuotaExceeded, "a quota of an ancestor would be passed"),
        Refusal::SessionExpired => (Said::SessionExpired, "the session has ended; open a new one"),
        Refusal::SessionMoved => (Said::SessionMoved, "the session was attached elsewhere; this stream is stale"),
        Refusal::WrongPassword => (Said::WrongPassword, "the password is not the session's"),
        Refusal::Gap => (Said::Gap, "a write number before this one is missing; send that write first"),
        Refusal::LimitExceeded => (Said::LimitExceeded, "a bound of the ensemble would be passed"),
    };
    proto::RefusedReply { reason: reason.into(), message: message.into(), failed_op: refused.failed_op }
}

fn declined_reply(declined: Declined) -> proto::RefusedReply {
    use proto::Refusal as Said;

    let (reason, message) = match declined {
        Declined::DiskFull => (Said::DiskFull, "the disks of the ensemble are nearly full; free space, then try again"),
        Declined::ReplyTooLarge => {
            (Said::ReplyTooLarge, "the answer is larger than a frame may be; spread the children over more parents")
        }
        Declined::Busy => {
            (Said::LimitExceeded, "too many answers wait to be taken by slow clients of this member; try again")
        }
        Declined::NoWatch => (Said::NoWatch, "no watch of this kind is set on the path"),
        Declined::TooManyWatches => {
            (Said::LimitExceeded, "this session or this member holds as many watches as it may")
        }
        Declined::OnlyReads => unreachable!("sessions of this door are those of the ensemble"),
        Declined::AuthFailed => (
            Said::AuthFailed,
            "the credential was not accepted; the scheme is digest, and what one stream authenticates as takes at most 16 KiB",
        ),
    };
    proto::RefusedReply { reason: reason.into(), message: message.into(), failed_op: None }
}
