//! What ZooKeeper's clients ask, in the words of the session layer.

use bytes::Bytes;
use quorate_tree::{
    Acl, Check, Create, CreateMode, Delete, Identity, MultiOp, Op, Permissions, SessionId, SetAcl, SetData, Zxid,
};
use quorate_wire::{
    self as wire, AddWatchMode, CreateKind, Decoder, ErrorCode, MultiRead, OpCode, RequestHeader, WatcherType,
    create_flags,
};

use super::tag::Tag;
use crate::{
    replica::{Answer, Read, Rearm, WatchKind},
    session::{Request, RequestKind},
};

/// What is needed for an answer and has no room in its tag. Kept by the connection, in the order of the requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Aside {
    /// A sync answers with the path it was asked with.
    Echo(Option<String>),
    /// What each operation of a multi is.
    Multi(Box<[MultiKind]>),
}

/// How the result of an operation of a multi looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MultiKind {
    /// The path alone.
    Create,
    /// Path and stat.
    CreateWithStat,
    Delete,
    SetData,
    Check,
}

/// A request, and what its answer needs besides.
pub(super) struct Asked {
    pub(super) request: Request,
    /// `None` for what is no operation.
    pub(super) op: Option<OpCode>,
    /// Of its frame.
    pub(super) bytes: usize,
    pub(super) aside: Option<Aside>,
    pub(super) then: Then,
}

/// What becomes of the requests behind one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    Continue,
    /// They wait for its answer, after which there may be none.
    Wait,
    /// They are not looked at: its answer is the last.
    Ignore,
}

/// A frame of `session` in the words of the session layer. What cannot be understood is answered in its place.
pub(super) fn of_frame(frame: &Bytes, session: SessionId) -> Asked {
    let mut from = Decoder::new(frame);
    let Ok(RequestHeader { xid, op: code }) = RequestHeader::decode(&mut from) else { return unreadable() };
    let Some(op) = OpCode::of(code) else {
        return Asked { then: Then::Ignore, ..refusal(xid, None, ErrorCode::UNIMPLEMENTED) };
    };
    let Ok(request) = wire::Request::decode(op, &mut from) else {
        return refusal(xid, Some(op), ErrorCode::MARSHALLING_ERROR);
    };
    let then = match op {
        OpCode::Auth => Then::Wait,
        OpCode::CloseSession => Then::Ignore,
        _ => Then::Continue,
    };
    match convert(request, session) {
        Ok((kind, aside)) => {
            Asked { request: request_of(Tag::of(xid, op), kind), op: Some(op), bytes: frame.len(), aside, then }
        }
        Err(error) => refusal(xid, Some(op), error),
    }
}

/// What is not even a frame with a header: those before it are answered, and that is the end.
pub(super) fn unreadable() -> Asked {
    let tag = Tag { xid: 0, op: None, refusal: None };
    let request = request_of(tag, RequestKind::Answered(Answer::Done));
    Asked { request, op: None, bytes: 0, aside: None, then: Then::Ignore }
}

fn refusal(xid: i32, op: Option<OpCode>, error: ErrorCode) -> Asked {
    let request = request_of(Tag::refused(xid, op, error), RequestKind::Answered(Answer::Done));
    // Nothing of the frame is kept.
    Asked { request, op, bytes: 0, aside: None, then: Then::Continue }
}

fn request_of(tag: Tag, kind: RequestKind) -> Request {
    Request { tag: tag.pack(), write: None, traceparent: String::new(), kind }
}

fn convert(request: wire::Request<'_>, session: SessionId) -> Result<(RequestKind, Option<Aside>), ErrorCode> {
    use wire::Request as Asked;

    let kind = match request {
        Asked::Create(create) => RequestKind::Write(Op::Create(self::create(create)?)),
        Asked::Delete(delete) => RequestKind::Write(Op::Delete(self::delete(delete))),
        Asked::SetData(set) => RequestKind::Write(Op::SetData(set_data(set))),
        Asked::SetAcl(set) => {
            let op = SetAcl { path: set.path.into_owned(), acl: acl(set.acl)?, version: set.version };
            RequestKind::Write(Op::SetAcl(op))
        }
        Asked::Exists(get) => read(Read::Exists { path: get.path.into_owned(), watch: get.watch }),
        Asked::GetData(get) => read(Read::Get { path: get.path.into_owned(), watch: get.watch }),
        Asked::GetChildren(get) | Asked::GetChildren2(get) => {
            read(Read::Children { path: get.path.into_owned(), watch: get.watch })
        }
        Asked::GetAcl { path } => read(Read::Acl { path: path.into_owned() }),
        Asked::Sync { path } => {
            let kind = RequestKind::Read { read: Read::Sync, linearizable: true };
            return Ok((kind, Some(Aside::Echo(path.map(Into::into)))));
        }
        Asked::Ping => RequestKind::Heartbeat,
        Asked::Multi(ops) => {
            let kinds = ops.iter().map(multi_kind).collect();
            let ops = ops.into_iter().map(multi_op).collect::<Result<_, _>>()?;
            return Ok((RequestKind::Write(Op::Multi(ops)), Some(Aside::Multi(kinds))));
        }
        Asked::MultiRead(reads) => read(Read::Many(reads.into_iter().map(multi_read).collect())),
        // As ZooKeeper unless it is told otherwise.
        Asked::Reconfig(_) => return Err(ErrorCode::RECONFIG_DISABLED),
        Asked::CheckWatches { path, watcher } => {
            read(Read::HasWatch { path: path.into_owned(), kind: watch_kind(watcher) })
        }
        Asked::RemoveWatches { path, watcher } => {
            read(Read::Unwatch { path: path.into_owned(), kind: watch_kind(watcher) })
        }
        Asked::Auth { scheme, credential } => RequestKind::Auth { scheme: scheme.into_owned(), credential },
        Asked::SetWatches(watches) | Asked::SetWatches2(watches) => read(Read::Rearm(Box::new(rearm(watches)))),
        // As a server without SASL: an empty token, and the client goes on without.
        Asked::Sasl { token: _ } => RequestKind::Answered(Answer::Done),
        Asked::GetEphemerals { prefix } => {
            let prefix = prefix.filter(|prefix| !prefix.trim().is_empty() && prefix != "/");
            read(Read::Ephemerals { session, prefix: prefix.map(Into::into).unwrap_or_default() })
        }
        Asked::GetAllChildrenNumber { path } => read(Read::CountBelow { path: path.into_owned() }),
        Asked::AddWatch { path, mode } => {
            read(Read::Watch { path: path.into_owned(), recursive: mode == AddWatchMode::Recursive })
        }
        Asked::WhoAmI => RequestKind::WhoAmI,
        Asked::CloseSession => RequestKind::Write(Op::CloseSession),
    };
    Ok((kind, None))
}

fn read(read: Read) -> RequestKind {
    RequestKind::Read { read, linearizable: false }
}

fn create(create: wire::Create<'_>) -> Result<Create, ErrorCode> {
    let mode = mode(create.kind, create.flags, create.ttl_ms);
    Ok(Create { path: create.path.into_owned(), data: create.data, mode, acl: acl(create.acl)? })
}

/// How the node is to live. What no operation accepts becomes a time to live that the tree refuses in its turn, so
/// that a multi blames the right one of its operations.
fn mode(kind: CreateKind, flags: i32, ttl_ms: i64) -> CreateMode {
    let ttl_ms = u64::try_from(ttl_ms).unwrap_or(0);
    match (kind, flags) {
        (CreateKind::Create | CreateKind::Create2, create_flags::PERSISTENT) => CreateMode::Persistent,
        (CreateKind::Create | CreateKind::Create2, create_flags::EPHEMERAL) => CreateMode::Ephemeral,
        (CreateKind::Create | CreateKind::Create2, create_flags::PERSISTENT_SEQUENTIAL) => {
            CreateMode::PersistentSequential
        }
        (CreateKind::Create | CreateKind::Create2, create_flags::EPHEMERAL_SEQUENTIAL) => {
            CreateMode::EphemeralSequential
        }
        // ZooKeeper makes an ordinary node of the older operation with this flag; what is meant is a container.
        (CreateKind::Create | CreateKind::Create2, create_flags::CONTAINER) => CreateMode::Container,
        (CreateKind::Container, create_flags::PERSISTENT | create_flags::CONTAINER) => CreateMode::Container,
        (CreateKind::Ttl, create_flags::PERSISTENT_WITH_TTL) => CreateMode::PersistentWithTtl { ttl_ms },
        (CreateKind::Ttl, create_flags::PERSISTENT_SEQUENTIAL_WITH_TTL) => {
            CreateMode::PersistentSequentialWithTtl { ttl_ms }
        }
        _ => CreateMode::PersistentWithTtl { ttl_ms: 0 },
    }
}

fn multi_kind(op: &wire::MultiOp<'_>) -> MultiKind {
    match op {
        // Unlike alone, a container made by the older operation is answered with its stat.
        wire::MultiOp::Create(create)
            if create.kind == CreateKind::Create && create.flags != create_flags::CONTAINER =>
        {
            MultiKind::Create
        }
        wire::MultiOp::Create(_) => MultiKind::CreateWithStat,
        wire::MultiOp::Delete(_) => MultiKind::Delete,
        wire::MultiOp::SetData(_) => MultiKind::SetData,
        wire::MultiOp::Check { .. } => MultiKind::Check,
    }
}

fn multi_op(op: wire::MultiOp<'_>) -> Result<MultiOp, ErrorCode> {
    Ok(match op {
        wire::MultiOp::Create(create) => MultiOp::Create(self::create(create)?),
        wire::MultiOp::Delete(delete) => MultiOp::Delete(self::delete(delete)),
        wire::MultiOp::SetData(set) => MultiOp::SetData(set_data(set)),
        wire::MultiOp::Check { path, version } => MultiOp::Check(Check { path: path.into_owned(), version }),
    })
}

fn multi_read(read: MultiRead<'_>) -> Read {
    match read {
        MultiRead::GetData(get) => Read::Get { path: get.path.into_owned(), watch: false },
        MultiRead::GetChildren(get) => Read::Children { path: get.path.into_owned(), watch: false },
    }
}

fn delete(delete: wire::Delete<'_>) -> Delete {
    Delete { path: delete.path.into_owned(), version: delete.version }
}

fn set_data(set: wire::SetData<'_>) -> SetData {
    SetData { path: set.path.into_owned(), data: set.data, version: set.version }
}

fn acl(entries: Vec<wire::Acl>) -> Result<Vec<Acl>, ErrorCode> {
    let entry = |entry: wire::Acl| {
        // As ZooKeeper, which cannot compare a null.
        if entry.scheme == "world" && entry.id.is_none() {
            return Err(ErrorCode::MARSHALLING_ERROR);
        }
        let identity = Identity { scheme: entry.scheme, id: entry.id.unwrap_or_default() };
        Ok(Acl { permissions: Permissions(entry.permissions as u32), identity })
    };
    entries.into_iter().map(entry).collect()
}

fn watch_kind(watcher: WatcherType) -> WatchKind {
    match watcher {
        WatcherType::Children => WatchKind::Children,
        WatcherType::Data => WatchKind::Data,
        WatcherType::Any => WatchKind::Any,
        WatcherType::Persistent => WatchKind::Persistent,
        WatcherType::Recursive => WatchKind::Recursive,
    }
}

fn rearm(watches: wire::SetWatches<'_>) -> Rearm {
    let owned = |paths: Vec<std::borrow::Cow<'_, str>>| paths.into_iter().map(Into::into).collect();
    Rearm {
        since: Zxid(u64::try_from(watches.relative_zxid).unwrap_or(0)),
        data: owned(watches.data),
        exists: owned(watches.exist),
        children: owned(watches.child),
        persistent: owned(watches.persistent),
        recursive: owned(watches.recursive),
    }
}
