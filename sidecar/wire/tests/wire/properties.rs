//! Random records come back as they were; random bytes do no harm.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use proptest::{
    collection::vec,
    option,
    prelude::*,
    sample::{Index, select},
};
use quorate_wire::{
    Acl, AddWatchMode, ClientInfo, ConnectRequest, ConnectResponse, Create, CreateKind, Decoder, Delete, ErrorCode,
    EventType, FRAME_BYTES_MAX, GetPath, MultiOp, MultiRead, OpCode, OpResult, Reconfig, ReplyHeader, Request,
    RequestHeader, Response, SetAcl, SetData, SetWatches, Stat, WatchEvent, WatcherType, XID_EVENT, encode_reply,
    frame, split_frame,
};

fn text() -> impl Strategy<Value = String> + Clone {
    // Also what no path may contain: that is not the codec's business.
    "\\PC{0,12}|/[a-z/]{0,12}|[\\x00-\\x1f]{1,3}"
}

fn path() -> impl Strategy<Value = Cow<'static, str>> + Clone {
    text().prop_map(Cow::Owned)
}

fn data() -> impl Strategy<Value = Option<Bytes>> + Clone {
    option::of(vec(any::<u8>(), 0..40).prop_map(Bytes::from))
}

fn acl() -> impl Strategy<Value = Vec<Acl>> + Clone {
    let entry = (any::<i32>(), text(), option::of(text()));
    vec(entry.prop_map(|(permissions, scheme, id)| Acl { permissions, scheme, id }), 0..4)
}

fn stat() -> impl Strategy<Value = Stat> + Clone {
    (any::<[i64; 6]>(), any::<[i32; 5]>()).prop_map(|(longs, ints)| Stat {
        czxid: longs[0],
        mzxid: longs[1],
        ctime: longs[2],
        mtime: longs[3],
        version: ints[0],
        cversion: ints[1],
        aversion: ints[2],
        ephemeral_owner: longs[4],
        data_length: ints[3],
        num_children: ints[4],
        pzxid: longs[5],
    })
}

fn create(flags: impl Strategy<Value = i32>) -> impl Strategy<Value = Create<'static>> {
    let kind = select(vec![CreateKind::Create, CreateKind::Create2, CreateKind::Container, CreateKind::Ttl]);
    (kind, path(), data(), acl(), flags, any::<i64>()).prop_map(|(kind, path, data, acl, flags, ttl_ms)| Create {
        kind,
        path,
        data,
        acl,
        flags,
        ttl_ms: if kind == CreateKind::Ttl { ttl_ms } else { 0 },
    })
}

fn delete() -> impl Strategy<Value = Delete<'static>> {
    (path(), any::<i32>()).prop_map(|(path, version)| Delete { path, version })
}

fn get() -> impl Strategy<Value = GetPath<'static>> {
    (path(), any::<bool>()).prop_map(|(path, watch)| GetPath { path, watch })
}

fn set_data() -> impl Strategy<Value = SetData<'static>> {
    (path(), data(), any::<i32>()).prop_map(|(path, data, version)| SetData { path, data, version })
}

fn multi_op() -> impl Strategy<Value = MultiOp<'static>> {
    prop_oneof![
        (create(any::<i32>()), 0..=4).prop_map(|(mut create, flags)| {
            // Others can be read only where there is a time to live.
            create.flags = if create.kind == CreateKind::Ttl { create.flags } else { flags };
            MultiOp::Create(create)
        }),
        delete().prop_map(MultiOp::Delete),
        set_data().prop_map(MultiOp::SetData),
        (path(), any::<i32>()).prop_map(|(path, version)| MultiOp::Check { path, version }),
    ]
}

fn multi_read() -> impl Strategy<Value = MultiRead<'static>> {
    prop_oneof![get().prop_map(MultiRead::GetData), get().prop_map(MultiRead::GetChildren)]
}

fn set_watches() -> impl Strategy<Value = SetWatches<'static>> {
    let paths = || vec(path(), 0..4);
    (any::<i64>(), paths(), paths(), paths(), paths(), paths()).prop_map(
        |(relative_zxid, data, exist, child, persistent, recursive)| SetWatches {
            relative_zxid,
            data,
            exist,
            child,
            persistent,
            recursive,
        },
    )
}

fn watcher() -> impl Strategy<Value = WatcherType> {
    select(vec![
        WatcherType::Children,
        WatcherType::Data,
        WatcherType::Any,
        WatcherType::Persistent,
        WatcherType::Recursive,
    ])
}

fn request() -> impl Strategy<Value = Request<'static>> {
    let nullable = || option::of(path());
    let few = prop_oneof![
        Just(Request::Ping),
        Just(Request::WhoAmI),
        Just(Request::CloseSession),
        nullable().prop_map(|path| Request::Sync { path }),
        nullable().prop_map(|prefix| Request::GetEphemerals { prefix }),
        path().prop_map(|path| Request::GetAcl { path }),
        path().prop_map(|path| Request::GetAllChildrenNumber { path }),
        data().prop_map(|token| Request::Sasl { token }),
        (path(), data()).prop_map(|(scheme, data)| Request::Auth { scheme, credential: data.unwrap_or_default() }),
        (nullable(), nullable(), nullable(), any::<i64>()).prop_map(
            |(joining, leaving, new_members, current_config_id)| {
                Request::Reconfig(Reconfig { joining, leaving, new_members, current_config_id })
            }
        ),
    ];
    let watches = prop_oneof![
        set_watches().prop_map(|watches| {
            Request::SetWatches(SetWatches { persistent: vec![], recursive: vec![], ..watches })
        }),
        set_watches().prop_map(Request::SetWatches2),
        (path(), watcher()).prop_map(|(path, watcher)| Request::CheckWatches { path, watcher }),
        (path(), watcher()).prop_map(|(path, watcher)| Request::RemoveWatches { path, watcher }),
        (path(), select(vec![AddWatchMode::Persistent, AddWatchMode::Recursive]))
            .prop_map(|(path, mode)| Request::AddWatch { path, mode }),
    ];
    prop_oneof![
        few,
        watches,
        create(any::<i32>()).prop_map(Request::Create),
        delete().prop_map(Request::Delete),
        set_data().prop_map(Request::SetData),
        get().prop_map(Request::Exists),
        get().prop_map(Request::GetData),
        get().prop_map(Request::GetChildren),
        get().prop_map(Request::GetChildren2),
        (path(), acl(), any::<i32>()).prop_map(|(path, acl, version)| Request::SetAcl(SetAcl { path, acl, version })),
        vec(multi_op(), 0..5).prop_map(Request::Multi),
        vec(multi_read(), 0..5).prop_map(Request::MultiRead),
    ]
}

fn names() -> impl Strategy<Value = Vec<String>> {
    vec(text(), 0..6)
}

fn op_result() -> impl Strategy<Value = OpResult> {
    prop_oneof![
        (text(), option::of(stat())).prop_map(|(path, stat)| OpResult::Created { path, stat }),
        Just(OpResult::Deleted),
        stat().prop_map(OpResult::Set),
        Just(OpResult::Checked),
        (data(), stat()).prop_map(|(data, stat)| OpResult::Data { data, stat }),
        names().prop_map(OpResult::Children),
        any::<i32>().prop_map(|code| OpResult::Failed(ErrorCode(code))),
    ]
}

/// A response, and an operation that is answered so.
fn response() -> impl Strategy<Value = (OpCode, Response)> {
    let answered = |ops: &[OpCode], response: BoxedStrategy<Response>| (select(ops.to_vec()), response);
    let client = (text(), text()).prop_map(|(scheme, user)| ClientInfo { scheme, user });
    prop_oneof![
        answered(
            &[OpCode::Delete, OpCode::Ping, OpCode::Auth, OpCode::SetWatches2, OpCode::CloseSession],
            Just(Response::Empty).boxed()
        ),
        answered(&[OpCode::Create, OpCode::Sync], option::of(text()).prop_map(Response::Path).boxed()),
        answered(
            &[OpCode::Create2, OpCode::CreateContainer, OpCode::CreateTtl],
            (text(), stat()).prop_map(|(path, stat)| Response::PathStat { path, stat }).boxed()
        ),
        answered(&[OpCode::Exists, OpCode::SetData, OpCode::SetAcl], stat().prop_map(Response::Stat).boxed()),
        answered(
            &[OpCode::GetData, OpCode::Reconfig],
            (data(), stat()).prop_map(|(data, stat)| Response::Data { data, stat }).boxed()
        ),
        answered(&[OpCode::GetAcl], (acl(), stat()).prop_map(|(acl, stat)| Response::Acl { acl, stat }).boxed()),
        answered(&[OpCode::GetChildren, OpCode::GetEphemerals], names().prop_map(Response::Names).boxed()),
        answered(
            &[OpCode::GetChildren2],
            (names(), stat()).prop_map(|(names, stat)| Response::NamesStat { names, stat }).boxed()
        ),
        answered(&[OpCode::Multi, OpCode::MultiRead], vec(op_result(), 0..6).prop_map(Response::Multi).boxed()),
        answered(&[OpCode::Sasl], data().prop_map(Response::Token).boxed()),
        answered(&[OpCode::GetAllChildrenNumber], any::<i32>().prop_map(Response::Count).boxed()),
        answered(&[OpCode::AddWatch], Just(Response::Watching).boxed()),
        answered(&[OpCode::WhoAmI], vec(client, 0..3).prop_map(Response::Clients).boxed()),
    ]
}

fn one_frame(write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut stream = BytesMut::new();
    write(&mut stream);
    let content = split_frame(&mut stream, FRAME_BYTES_MAX).unwrap().expect("a whole frame");
    assert!(stream.is_empty());
    content
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn a_request_is_read_as_it_was_written(xid in any::<i32>(), request in request(), cut in any::<Index>()) {
        let content = one_frame(|out| request.encode(xid, out));

        let mut from = Decoder::new(&content);
        let header = RequestHeader::decode(&mut from).unwrap();
        prop_assert_eq!(header, RequestHeader { xid, op: request.op().code() });
        let read = Request::decode(request.op(), &mut from);
        prop_assert_eq!(read.as_ref(), Ok(&request));
        prop_assert_eq!(from.remaining(), 0);

        if content.len() > 8 {
            let cut = content.slice(8..8 + cut.index(content.len() - 8));
            prop_assert!(Request::decode(request.op(), &mut Decoder::new(&cut)).is_err());
        }
    }

    #[test]
    fn a_response_is_read_as_it_was_written(
        xid in any::<i32>(), zxid in any::<i64>(), (op, response) in response(), cut in any::<Index>(),
    ) {
        let content = one_frame(|out| encode_reply(xid, zxid, &response, out));

        let mut from = Decoder::new(&content);
        prop_assert_eq!(ReplyHeader::decode(&mut from), Ok(ReplyHeader { xid, zxid, error: ErrorCode::OK }));
        let read = Response::decode(op, &mut from);
        prop_assert_eq!(read.as_ref(), Ok(&response));
        prop_assert_eq!(from.remaining(), 0);

        if content.len() > 16 {
            let cut = content.slice(16..16 + cut.index(content.len() - 16));
            prop_assert!(Response::decode(op, &mut Decoder::new(&cut)).is_err());
        }
    }

    #[test]
    fn an_event_is_read_as_it_was_written(zxid in any::<i64>(), event in 0..4_usize, path in path()) {
        let all =
            [EventType::NodeCreated, EventType::NodeDeleted, EventType::NodeDataChanged, EventType::NodeChildrenChanged];
        let event = WatchEvent { event: all[event], path };

        let content = one_frame(|out| event.encode(zxid, out));

        let mut from = Decoder::new(&content);
        let header = ReplyHeader::decode(&mut from).unwrap();
        prop_assert_eq!(header, ReplyHeader { xid: XID_EVENT, zxid, error: ErrorCode::OK });
        prop_assert_eq!(WatchEvent::decode(&mut from), Ok(event));
    }

    #[test]
    fn a_handshake_is_read_as_it_was_written(
        longs in any::<[i64; 2]>(), ints in any::<[i32; 2]>(), password in any::<[u8; 16]>(),
        read_only in any::<Option<bool>>(),
    ) {
        let request = ConnectRequest {
            protocol_version: ints[0],
            last_zxid_seen: longs[0],
            timeout_ms: ints[1],
            session_id: longs[1],
            password: Bytes::copy_from_slice(&password),
            read_only,
        };
        let content = one_frame(|out| frame(out, |out| request.encode(out)));
        prop_assert_eq!(content.len(), if read_only.is_some() { 45 } else { 44 });
        prop_assert_eq!(ConnectRequest::decode(&content), Ok(request));

        let response = ConnectResponse { timeout_ms: ints[1], session_id: longs[1], password, read_only };
        let content = one_frame(|out| frame(out, |out| response.encode(out)));
        prop_assert_eq!(content.len(), if read_only.is_some() { 37 } else { 36 });
        prop_assert_eq!(ConnectResponse::decode(&content), Ok(response));
    }

    #[test]
    fn any_bytes_are_read_or_refused(content in vec(any::<u8>(), 0..300), op in select(OpCode::ALL.to_vec())) {
        let content = Bytes::from(content);
        let _ = ConnectRequest::decode(&content);
        let _ = ConnectResponse::decode(&content);
        let _ = WatchEvent::decode(&mut Decoder::new(&content));
        let _ = Response::decode(op, &mut Decoder::new(&content));
        let _ = Request::decode(op, &mut Decoder::new(&content));
    }

    #[test]
    fn frames_are_the_same_however_the_stream_is_cut(
        contents in vec(vec(any::<u8>(), 0..50), 0..8), cuts in vec(1..40_usize, 1..20),
    ) {
        let mut whole = BytesMut::new();
        for content in &contents {
            frame(&mut whole, |out| out.extend_from_slice(content));
        }

        let mut stream = BytesMut::new();
        let mut found = Vec::new();
        for cut in cuts.iter().cycle() {
            while let Some(content) = split_frame(&mut stream, 50).unwrap() {
                found.push(content.to_vec());
            }
            if whole.is_empty() {
                break;
            }
            let arrived = whole.split_to(whole.len().min(*cut));
            stream.extend_from_slice(&arrived);
        }

        prop_assert_eq!(found, contents);
        prop_assert!(stream.is_empty());
    }
}
