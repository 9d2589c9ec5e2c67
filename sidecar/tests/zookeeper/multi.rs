//! Several operations in one request, with the exact bytes that clients count on.

use bytes::{Bytes, BytesMut};
use quorate_wire::{CreateKind, ErrorCode, MultiOp, MultiRead, OpResult, Request, Response, create_flags};

use crate::client::{Client, creation, get, member};

fn create(path: &str, flags: i32) -> MultiOp<'_> {
    MultiOp::Create(creation(CreateKind::Create, path, "", flags))
}

fn of_kind(kind: CreateKind, path: &str, flags: i32) -> MultiOp<'_> {
    MultiOp::Create(creation(kind, path, "", flags))
}

fn delete(path: &str, version: i32) -> MultiOp<'_> {
    MultiOp::Delete(quorate_wire::Delete { path: path.into(), version })
}

fn set(path: &str, version: i32) -> MultiOp<'_> {
    MultiOp::SetData(quorate_wire::SetData { path: path.into(), data: Some(Bytes::from_static(b"y")), version })
}

fn check(path: &str, version: i32) -> MultiOp<'_> {
    MultiOp::Check { path: path.into(), version }
}

async fn multi(client: &mut Client, ops: Vec<MultiOp<'_>>) -> Result<Vec<OpResult>, ErrorCode> {
    match client.ask(Request::Multi(ops)).await? {
        Response::Multi(results) => Ok(results),
        other => panic!("{other:?}"),
    }
}

/// What follows the header of the next reply, in hex.
async fn body_in_hex(client: &mut Client) -> String {
    let reply = client.raw.frame().await.unwrap();
    assert_eq!(reply[12..16], [0; 4], "the header says no error");
    reply[16..].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn each_operation_sees_those_before_it_and_all_share_one_change() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;

    let results = multi(
        &mut client,
        vec![
            create("/p", create_flags::PERSISTENT),
            of_kind(CreateKind::Create2, "/p/c", create_flags::PERSISTENT),
            set("/p", 0),
            set("/p", 1),
            check("/p", 2),
            create("/p/s-", create_flags::PERSISTENT_SEQUENTIAL),
            delete("/p/c", 0),
        ],
    )
    .await
    .unwrap();

    let [
        OpResult::Created { path: p, stat: None },
        OpResult::Created { path: c, stat: Some(c_stat) },
        OpResult::Set(first),
        OpResult::Set(second),
        OpResult::Checked,
        OpResult::Created { path: s, stat: None },
        OpResult::Deleted,
    ] = &results[..]
    else {
        panic!("{results:?}")
    };
    assert_eq!((&**p, &**c, &**s), ("/p", "/p/c", "/p/s-0000000001"));
    assert_eq!((first.version, second.version), (1, 2));
    let stat = client.stat("/p").await.unwrap();
    assert_eq!([c_stat.czxid, first.mzxid, second.mzxid, stat.czxid, stat.pzxid], [stat.mzxid; 5]);
    assert_eq!(stat.num_children, 1);
}

#[tokio::test]
async fn a_failed_multi_says_which_operation_failed_in_zookeepers_bytes() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    client.plant("/p").await;

    client
        .send(&Request::Multi(vec![
            create("/p/x-", create_flags::PERSISTENT_SEQUENTIAL),
            delete("/p", 7),
            create("/q", create_flags::PERSISTENT),
        ]))
        .await;

    let expected = "ffffffff000000000000000000ffffffff00ffffff99ffffff99ffffffff00fffffffefffffffeffffffff01ffffffff";
    assert_eq!(body_in_hex(&mut client).await, expected);
}

#[tokio::test]
async fn a_failed_multi_changes_nothing() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    client.plant("/p").await;
    let before = client.stat("/p").await.unwrap();

    let ops = vec![create("/p/x-", create_flags::PERSISTENT_SEQUENTIAL), set("/p", -1), check("/nothing", -1)];
    let results = multi(&mut client, ops).await.unwrap();

    let failed = [ErrorCode::OK, ErrorCode::OK, ErrorCode::NO_NODE].map(OpResult::Failed);
    assert_eq!(results, failed);
    assert_eq!(client.stat("/p").await.unwrap(), before);
    let next = client.create("/p/x-", "", create_flags::PERSISTENT_SEQUENTIAL).await.unwrap();
    assert_eq!(next, "/p/x-0000000000");
}

#[tokio::test]
async fn an_empty_multi_is_answered_by_its_end_alone() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;

    client.send(&Request::Multi(vec![])).await;

    assert_eq!(body_in_hex(&mut client).await, "ffffffff01ffffffff");
}

#[tokio::test]
async fn results_of_newer_creations_carry_their_stat() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let mut ttl = creation(CreateKind::Ttl, "/t", "", create_flags::PERSISTENT_WITH_TTL);
    ttl.ttl_ms = 1_000_000;

    let results = multi(
        &mut client,
        vec![
            create("/o", create_flags::PERSISTENT),
            create("/oc", create_flags::CONTAINER),
            of_kind(CreateKind::Create2, "/n", create_flags::EPHEMERAL),
            of_kind(CreateKind::Container, "/c", create_flags::CONTAINER),
            MultiOp::Create(ttl),
        ],
    )
    .await
    .unwrap();

    let with_stat: Vec<bool> =
        results.iter().map(|result| matches!(result, OpResult::Created { stat: Some(_), .. })).collect();
    assert_eq!(with_stat, [false, true, true, true, true]);
}

#[tokio::test]
async fn an_operation_that_is_refused_for_its_arguments_is_blamed_in_its_place() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let mut no_acl = creation(CreateKind::Create, "/a", "", 0);
    no_acl.acl.clear();

    for (op, error) in [
        (MultiOp::Create(no_acl), ErrorCode::INVALID_ACL),
        (create("/a//b", 0), ErrorCode::NO_NODE),
        (create("/a/", 0), ErrorCode::NO_NODE),
        (create("/b/", 0), ErrorCode::NO_NODE),
        (create("/.", 0), ErrorCode::BAD_ARGUMENTS),
        (delete("/zookeeper", -1), ErrorCode::BAD_ARGUMENTS),
        (create("/zookeeper", 0), ErrorCode::NODE_EXISTS),
    ] {
        let told = format!("{op:?}");
        let results = multi(&mut client, vec![check("/", -1), op, check("/", -1)]).await.unwrap();

        let expected = [ErrorCode::OK, error, ErrorCode::RUNTIME_INCONSISTENCY].map(OpResult::Failed);
        assert_eq!(results, expected, "{told}");
    }
}

#[tokio::test]
async fn what_no_multi_may_contain_is_answered_as_undecodable() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let end = "ffffffff01ffffffff";
    let get_data = "0000000400ffffffff000000022f6100";
    let set_acl = "0000000700ffffffff000000022f6100000000ffffffff";
    let delete = "0000000200ffffffff000000022f61ffffffff";
    let bad_flag = "0000000100ffffffff000000022f61000000000000000000000009";
    let ttl_without_one = "0000000100ffffffff000000022f61000000000000000000000005";

    for (code, body) in [
        (14, format!("{get_data}{end}")),
        (14, format!("{set_acl}{end}")),
        (14, format!("{bad_flag}{end}")),
        (14, format!("{ttl_without_one}{end}")),
        (14, format!("{delete}{get_data}{end}")),
        (14, delete.to_owned()),
        (22, format!("{delete}{end}")),
        (22, format!("{get_data}{delete}{end}")),
    ] {
        client.send_code(code, &bytes_of(&body)).await;
        assert_eq!(client.reply().await, Err(ErrorCode::MARSHALLING_ERROR), "{code} {body}");
    }
    assert!(client.stat("/").await.is_ok(), "the connection stays");
}

#[tokio::test]
async fn each_read_of_several_is_answered_for_itself() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    client.create("/a", "x", create_flags::PERSISTENT).await.unwrap();
    client.plant("/a/b").await;

    let reads = vec![
        MultiRead::GetData(get("/nothing", true)),
        MultiRead::GetData(get("/a", true)),
        MultiRead::GetChildren(get("/a", true)),
    ];
    let Ok(Response::Multi(results)) = client.ask(Request::MultiRead(reads)).await else { panic!() };

    let [OpResult::Failed(ErrorCode::NO_NODE), OpResult::Data { data, stat }, OpResult::Children(names)] = &results[..]
    else {
        panic!("{results:?}")
    };
    assert_eq!((data.as_deref(), stat.num_children), (Some(&b"x"[..]), 1));
    assert_eq!(names, &["b"]);
    // Their watch flag is ignored.
    client.ask(crate::client::set("/a", "z", -1)).await.unwrap();
    assert_eq!(client.told(), []);
}

#[tokio::test]
async fn a_multi_of_many_operations_has_as_many_results() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    client.plant("/p").await;

    let ops = vec![create("/p/n-", create_flags::EPHEMERAL_SEQUENTIAL); 2_000];
    let results = multi(&mut client, ops).await.unwrap();

    assert_eq!(results.len(), 2_000);
    assert_eq!(results[1_999], OpResult::Created { path: "/p/n-0000001999".into(), stat: None });
}

fn bytes_of(hex: &str) -> BytesMut {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
