//! Bytes of every operation, each beside what it means.
//!
//! Written from the description of the protocol, not by the code under test; the record classes of ZooKeeper 3.9.5 read
//! all of them and write the same (but for the watch flag in a multiRead, which they drop). A word in quotes stands for its bytes,
//! the rest is hexadecimal. Frames are without their length.

use bytes::Bytes;
use quorate_wire::{
    Acl, AddWatchMode, ClientInfo, Create, CreateKind, Delete, ErrorCode, EventType, GetPath, MultiOp, MultiRead,
    OpCode, OpResult, Reconfig, Request, Response, SetAcl, SetData, SetWatches, Stat, WatchEvent, WatcherType,
    create_flags,
};

/// What stands for bytes in this file, as bytes.
pub(crate) fn bytes(text: &str) -> Bytes {
    let mut all = Vec::new();
    for word in text.split_whitespace() {
        match word.strip_prefix('\'').and_then(|word| word.strip_suffix('\'')) {
            Some(quoted) => all.extend_from_slice(quoted.as_bytes()),
            None => {
                assert!(word.len() % 2 == 0, "half a byte in {word}");
                all.extend((0..word.len()).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16).unwrap()));
            }
        }
    }
    all.into()
}

/// `world:anyone` may everything.
pub(crate) const OPEN_ACL: &str = "00000001 0000001f 00000005 'world' 00000006 'anyone'";

/// The stat of [`stat`].
pub(crate) const STAT: &str =
    "0000000000000010 0000000000000011 0000000000000012 0000000000000013 00000014 00000015 00000016
    0000000000000017 00000018 00000019 000000000000001a";

pub(crate) fn stat() -> Stat {
    Stat {
        czxid: 0x10,
        mzxid: 0x11,
        ctime: 0x12,
        mtime: 0x13,
        version: 0x14,
        cversion: 0x15,
        aversion: 0x16,
        ephemeral_owner: 0x17,
        data_length: 0x18,
        num_children: 0x19,
        pzxid: 0x1a,
    }
}

pub(crate) fn open_acl() -> Vec<Acl> {
    vec![Acl { permissions: 31, scheme: "world".into(), id: Some("anyone".into()) }]
}

fn create(kind: CreateKind, flags: i32, ttl_ms: i64) -> Create<'static> {
    Create { kind, path: "/a".into(), data: Some(Bytes::from_static(b"xy")), acl: open_acl(), flags, ttl_ms }
}

fn get(path: &'static str, watch: bool) -> GetPath<'static> {
    GetPath { path: path.into(), watch }
}

fn set() -> SetData<'static> {
    SetData { path: "/a".into(), data: Some(Bytes::from_static(b"xy")), version: 3 }
}

/// Requests with their headers.
pub(crate) fn requests() -> Vec<(Bytes, Request<'static>)> {
    let body = format!("00000002 '/a' 00000002 'xy' {OPEN_ACL}");
    let watches = "0000000000000100 00000002 00000002 '/a' 00000002 '/b' 00000000 00000001 00000002 '/c'";
    let set_watches = SetWatches {
        relative_zxid: 0x100,
        data: vec!["/a".into(), "/b".into()],
        exist: vec![],
        child: vec!["/c".into()],
        ..SetWatches::default()
    };
    let sample = |text: &str, request| (bytes(text), request);
    vec![
        sample(
            &format!("00000001 00000001 {body} 00000003"),
            Request::Create(create(CreateKind::Create, create_flags::EPHEMERAL_SEQUENTIAL, 0)),
        ),
        sample(
            &format!("00000001 00000001 00000002 '/a' ffffffff {OPEN_ACL} 00000000"),
            Request::Create(Create { data: None, ..create(CreateKind::Create, create_flags::PERSISTENT, 0) }),
        ),
        sample(
            &format!("00000001 0000000f {body} 00000001"),
            Request::Create(create(CreateKind::Create2, create_flags::EPHEMERAL, 0)),
        ),
        sample(
            &format!("00000001 00000013 {body} 00000004"),
            Request::Create(create(CreateKind::Container, create_flags::CONTAINER, 0)),
        ),
        sample(
            &format!("00000001 00000015 {body} 00000005 00000000000003e8"),
            Request::Create(create(CreateKind::Ttl, create_flags::PERSISTENT_WITH_TTL, 1000)),
        ),
        // Flags are a matter of the tree, except in a multi.
        sample(&format!("00000001 00000001 {body} 000003e7"), Request::Create(create(CreateKind::Create, 999, 0))),
        sample("00000001 00000002 00000002 '/a' ffffffff", Request::Delete(Delete { path: "/a".into(), version: -1 })),
        sample("00000001 00000003 00000002 '/a' 01", Request::Exists(get("/a", true))),
        sample("00000001 00000004 00000002 '/a' 00", Request::GetData(get("/a", false))),
        sample("00000001 00000005 00000002 '/a' 00000002 'xy' 00000003", Request::SetData(set())),
        sample(
            "00000001 00000005 00000002 '/a' 00000000 00000003",
            Request::SetData(SetData { data: Some(Bytes::new()), ..set() }),
        ),
        sample("00000001 00000005 00000002 '/a' ffffffff 00000003", Request::SetData(SetData { data: None, ..set() })),
        sample("00000001 00000006 00000002 '/a'", Request::GetAcl { path: "/a".into() }),
        sample(
            &format!("00000001 00000007 00000002 '/a' {OPEN_ACL} 00000002"),
            Request::SetAcl(SetAcl { path: "/a".into(), acl: open_acl(), version: 2 }),
        ),
        // An empty text that some clients write as null.
        sample(
            "00000001 00000007 00000002 '/a' 00000001 00000001 00000004 'auth' ffffffff 00000002",
            Request::SetAcl(SetAcl {
                path: "/a".into(),
                acl: vec![Acl { permissions: 1, scheme: "auth".into(), id: None }],
                version: 2,
            }),
        ),
        sample("00000001 00000008 00000001 '/' 01", Request::GetChildren(get("/", true))),
        sample("00000001 00000009 00000002 '/a'", Request::Sync { path: Some("/a".into()) }),
        sample("00000001 00000009 ffffffff", Request::Sync { path: None }),
        sample("fffffffe 0000000b", Request::Ping),
        sample("00000001 0000000c 00000002 '/a' 00", Request::GetChildren2(get("/a", false))),
        sample("00000001 0000000e ffffffff 01 ffffffff", Request::Multi(vec![])),
        sample(
            &format!(
                "00000001 0000000e
                00000001 00 ffffffff {body} 00000000
                0000000f 00 ffffffff {body} 00000002
                00000013 00 ffffffff {body} 00000004
                00000015 00 ffffffff {body} 00000006 00000000000003e8
                00000002 00 ffffffff 00000002 '/b' 00000007
                00000005 00 ffffffff 00000002 '/a' 00000002 'xy' 00000003
                0000000d 00 ffffffff 00000002 '/c' ffffffff
                ffffffff 01 ffffffff"
            ),
            Request::Multi(vec![
                MultiOp::Create(create(CreateKind::Create, create_flags::PERSISTENT, 0)),
                MultiOp::Create(create(CreateKind::Create2, create_flags::PERSISTENT_SEQUENTIAL, 0)),
                MultiOp::Create(create(CreateKind::Container, create_flags::CONTAINER, 0)),
                MultiOp::Create(create(CreateKind::Ttl, create_flags::PERSISTENT_SEQUENTIAL_WITH_TTL, 1000)),
                MultiOp::Delete(Delete { path: "/b".into(), version: 7 }),
                MultiOp::SetData(set()),
                MultiOp::Check { path: "/c".into(), version: -1 },
            ]),
        ),
        sample(
            "00000001 00000010 00000009 'server.4=' 00000003 '2,3' ffffffff ffffffffffffffff",
            Request::Reconfig(Reconfig {
                joining: Some("server.4=".into()),
                leaving: Some("2,3".into()),
                new_members: None,
                current_config_id: -1,
            }),
        ),
        sample(
            "00000001 00000011 00000002 '/a' 00000001",
            Request::CheckWatches { path: "/a".into(), watcher: WatcherType::Children },
        ),
        sample(
            "00000001 00000011 00000002 '/a' 00000002",
            Request::CheckWatches { path: "/a".into(), watcher: WatcherType::Data },
        ),
        sample(
            "00000001 00000012 00000002 '/a' 00000003",
            Request::RemoveWatches { path: "/a".into(), watcher: WatcherType::Any },
        ),
        sample(
            "00000001 00000012 00000002 '/a' 00000004",
            Request::RemoveWatches { path: "/a".into(), watcher: WatcherType::Persistent },
        ),
        sample(
            "00000001 00000012 00000002 '/a' 00000005",
            Request::RemoveWatches { path: "/a".into(), watcher: WatcherType::Recursive },
        ),
        sample(
            "00000001 00000016 00000004 00 ffffffff 00000002 '/a' 00 00000008 00 ffffffff 00000002 '/b' 01
            ffffffff 01 ffffffff",
            Request::MultiRead(vec![MultiRead::GetData(get("/a", false)), MultiRead::GetChildren(get("/b", true))]),
        ),
        sample(
            "fffffffc 00000064 00000000 00000006 'digest' 00000003 'a:b'",
            Request::Auth { scheme: "digest".into(), credential: Bytes::from_static(b"a:b") },
        ),
        sample(&format!("fffffff8 00000065 {watches}"), Request::SetWatches(set_watches.clone())),
        sample(
            &format!("fffffff8 00000069 {watches} 00000001 00000002 '/d' 00000001 00000001 '/'"),
            Request::SetWatches2(SetWatches {
                persistent: vec!["/d".into()],
                recursive: vec!["/".into()],
                ..set_watches
            }),
        ),
        sample("00000001 00000066 00000003 010203", Request::Sasl { token: Some(Bytes::from_static(&[1, 2, 3])) }),
        sample("00000001 00000066 ffffffff", Request::Sasl { token: None }),
        sample("00000001 00000067 00000002 '/a'", Request::GetEphemerals { prefix: Some("/a".into()) }),
        sample("00000001 00000067 ffffffff", Request::GetEphemerals { prefix: None }),
        sample("00000001 00000068 00000001 '/'", Request::GetAllChildrenNumber { path: "/".into() }),
        sample(
            "00000001 0000006a 00000002 '/a' 00000000",
            Request::AddWatch { path: "/a".into(), mode: AddWatchMode::Persistent },
        ),
        sample(
            "00000001 0000006a 00000002 '/a' 00000001",
            Request::AddWatch { path: "/a".into(), mode: AddWatchMode::Recursive },
        ),
        sample("00000001 0000006b", Request::WhoAmI),
        sample("00000001 fffffff5", Request::CloseSession),
    ]
}

/// Bodies of responses, behind their headers.
pub(crate) fn responses() -> Vec<(OpCode, Bytes, Response)> {
    let sample = |op, text: &str, response| (op, bytes(text), response);
    let path = || "/a".to_owned();
    let path_stat = || Response::PathStat { path: path(), stat: stat() };
    let path_stat_bytes = format!("00000002 '/a' {STAT}");
    vec![
        sample(OpCode::Create, "00000002 '/a'", Response::Path(Some(path()))),
        sample(OpCode::Create2, &path_stat_bytes, path_stat()),
        sample(OpCode::CreateContainer, &path_stat_bytes, path_stat()),
        sample(OpCode::CreateTtl, &path_stat_bytes, path_stat()),
        sample(OpCode::Delete, "", Response::Empty),
        sample(OpCode::Exists, STAT, Response::Stat(stat())),
        sample(OpCode::SetData, STAT, Response::Stat(stat())),
        sample(OpCode::SetAcl, STAT, Response::Stat(stat())),
        sample(
            OpCode::GetData,
            &format!("00000002 'xy' {STAT}"),
            Response::Data { data: Some(Bytes::from_static(b"xy")), stat: stat() },
        ),
        sample(OpCode::GetData, &format!("00000000 {STAT}"), Response::Data { data: Some(Bytes::new()), stat: stat() }),
        sample(OpCode::GetData, &format!("ffffffff {STAT}"), Response::Data { data: None, stat: stat() }),
        sample(
            OpCode::Reconfig,
            &format!("00000009 'version=1' {STAT}"),
            Response::Data { data: Some(Bytes::from_static(b"version=1")), stat: stat() },
        ),
        sample(OpCode::GetAcl, &format!("{OPEN_ACL} {STAT}"), Response::Acl { acl: open_acl(), stat: stat() }),
        sample(
            OpCode::GetChildren,
            "00000002 00000001 'a' 00000002 'bc'",
            Response::Names(vec!["a".into(), "bc".into()]),
        ),
        sample(OpCode::GetChildren, "00000000", Response::Names(vec![])),
        sample(
            OpCode::GetChildren2,
            &format!("00000001 00000001 'a' {STAT}"),
            Response::NamesStat { names: vec!["a".into()], stat: stat() },
        ),
        sample(OpCode::Sync, "00000002 '/a'", Response::Path(Some(path()))),
        sample(OpCode::Sync, "ffffffff", Response::Path(None)),
        sample(OpCode::Ping, "", Response::Empty),
        sample(OpCode::CheckWatches, "", Response::Empty),
        sample(OpCode::RemoveWatches, "", Response::Empty),
        sample(OpCode::Auth, "", Response::Empty),
        sample(OpCode::SetWatches, "", Response::Empty),
        sample(OpCode::SetWatches2, "", Response::Empty),
        sample(OpCode::CloseSession, "", Response::Empty),
        sample(OpCode::Sasl, "ffffffff", Response::Token(None)),
        sample(OpCode::Sasl, "00000001 07", Response::Token(Some(Bytes::from_static(&[7])))),
        sample(OpCode::GetEphemerals, "00000001 00000002 '/e'", Response::Names(vec!["/e".into()])),
        sample(OpCode::GetAllChildrenNumber, "00000007", Response::Count(7)),
        sample(OpCode::AddWatch, "00000000", Response::Watching),
        sample(
            OpCode::WhoAmI,
            "00000002 00000002 'ip' 00000009 '127.0.0.1' 00000006 'digest' 00000005 'super'",
            Response::Clients(vec![
                ClientInfo { scheme: "ip".into(), user: "127.0.0.1".into() },
                ClientInfo { scheme: "digest".into(), user: "super".into() },
            ]),
        ),
        sample(OpCode::Multi, "ffffffff 01 ffffffff", Response::Multi(vec![])),
        sample(
            OpCode::Multi,
            &format!(
                "00000001 00 00000000 00000002 '/a'
                0000000f 00 00000000 00000002 '/a' {STAT}
                00000002 00 00000000
                00000005 00 00000000 {STAT}
                0000000d 00 00000000
                ffffffff 01 ffffffff"
            ),
            Response::Multi(vec![
                OpResult::Created { path: path(), stat: None },
                OpResult::Created { path: path(), stat: Some(stat()) },
                OpResult::Deleted,
                OpResult::Set(stat()),
                OpResult::Checked,
            ]),
        ),
        // The second of three fails: the first is told 0, the third -2.
        sample(
            OpCode::Multi,
            "ffffffff 00 00000000 00000000 ffffffff 00 ffffff99 ffffff99 ffffffff 00 fffffffe fffffffe
            ffffffff 01 ffffffff",
            Response::Multi(vec![
                OpResult::Failed(ErrorCode::OK),
                OpResult::Failed(ErrorCode::BAD_VERSION),
                OpResult::Failed(ErrorCode::RUNTIME_INCONSISTENCY),
            ]),
        ),
        sample(
            OpCode::MultiRead,
            &format!(
                "00000004 00 00000000 ffffffff {STAT}
                ffffffff 00 ffffff9b ffffff9b
                00000008 00 00000000 00000001 00000001 'b'
                ffffffff 01 ffffffff"
            ),
            Response::Multi(vec![
                OpResult::Data { data: None, stat: stat() },
                OpResult::Failed(ErrorCode::NO_NODE),
                OpResult::Children(vec!["b".into()]),
            ]),
        ),
    ]
}

/// Whole content of notifications, header included, and the zxid in it.
pub(crate) fn events() -> Vec<(Bytes, i64, WatchEvent<'static>)> {
    let sample = |text: &str, zxid, event| (bytes(text), zxid, WatchEvent { event, path: "/a".into() });
    vec![
        sample("ffffffff 0000000000000123 00000000 00000001 00000003 00000002 '/a'", 0x123, EventType::NodeCreated),
        sample("ffffffff 0000000000000123 00000000 00000002 00000003 00000002 '/a'", 0x123, EventType::NodeDeleted),
        // Found when watches were set again: of no change.
        sample("ffffffff ffffffffffffffff 00000000 00000003 00000003 00000002 '/a'", -1, EventType::NodeDataChanged),
        sample(
            "ffffffff 0000000000000123 00000000 00000004 00000003 00000002 '/a'",
            0x123,
            EventType::NodeChildrenChanged,
        ),
    ]
}
