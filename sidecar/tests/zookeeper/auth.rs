//! Who a connection is, and what it may do.

use std::time::Duration;

use quorate_sidecar::testing::TestEnsemble;
use quorate_wire::{Acl, ClientInfo, CreateKind, ErrorCode, Request, Response, SetAcl, create_flags};

use crate::client::{Client, Heard, auth, create, creation, delete, exists, get, get_data, member, set};

const U_P: &str = "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=";

fn acl(permissions: i32, scheme: &str, id: &str) -> Acl {
    Acl { permissions, scheme: scheme.into(), id: Some(id.into()) }
}

fn guarded(path: &'static str, acl: Vec<Acl>) -> Request<'static> {
    let mut create = creation(CreateKind::Create, path, "", create_flags::PERSISTENT);
    create.acl = acl;
    Request::Create(create)
}

async fn acl_of(client: &mut Client, path: &str) -> Result<Vec<Acl>, ErrorCode> {
    match client.ask(Request::GetAcl { path: path.into() }).await? {
        Response::Acl { acl, .. } => Ok(acl),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connection_is_its_address_and_what_it_authenticated_as() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let info = |scheme: &str, user: &str| ClientInfo { scheme: scheme.into(), user: user.into() };
    client.ask(auth("digest", "u:p")).await.unwrap();
    client.ask(auth("digest", "u:p")).await.unwrap();
    client.ask(auth("ip", "")).await.unwrap();

    let Ok(Response::Clients(clients)) = client.ask(Request::WhoAmI).await else { panic!() };

    assert_eq!(clients, [info("ip", "127.0.0.1"), info("digest", "u")]);
}

#[tokio::test]
async fn a_credential_is_answered_in_its_turn_and_shows_no_change() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;

    client.send_all(&[create("/a", "", 0), auth("digest", "u:p"), exists("/a", false)]).await;

    assert!(client.reply().await.is_ok());
    let Some(Heard::Reply { xid: -4, zxid: 0, result: Ok(Response::Empty) }) = client.hear().await else { panic!() };
    assert!(client.reply().await.is_ok());
}

#[tokio::test]
async fn a_refused_credential_ends_the_connection_and_what_was_behind_it_is_not_done() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    for scheme in ["world", "x509", "sasl", "nonsense", ""] {
        let mut client = Client::open(&address).await;
        client.send_all(&[create("/before", "", 0), auth(scheme, "x"), create("/behind", "", 0)]).await;

        let _ = client.reply().await;
        let heard = client.hear().await;
        assert_eq!(heard, Some(Heard::Reply { xid: -4, zxid: 0, result: Err(ErrorCode::AUTH_FAILED) }));
        client.ended().await;

        let mut again = Client::connect(&address, &client.resumption()).await.unwrap();
        assert!(again.stat("/before").await.is_ok(), "the session lives on");
        assert_eq!(again.stat("/behind").await, Err(ErrorCode::NO_NODE));
    }
}

#[tokio::test]
async fn each_permission_guards_its_operations() {
    let ensemble = member().await;
    let mut owner = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    owner.ask(auth("digest", "u:p")).await.unwrap();
    let mut stranger = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let set_acl = |path: &'static str| {
        Request::SetAcl(SetAcl { path: path.into(), acl: vec![acl(31, "world", "anyone")], version: 7 })
    };
    let [read, write, create_, delete_, admin] = [1, 2, 4, 8, 16];

    for (path, permission) in
        [("/r", read), ("/w", write), ("/c", create_), ("/d", delete_), ("/a", admin), ("/none", 0)]
    {
        let list = vec![acl(31, "digest", U_P), acl(permission, "world", "anyone")];
        owner.ask(guarded(path, list)).await.unwrap();
        let child = format!("{path}/child");
        owner.plant(&child).await;

        let may = |needed: i32| permission & needed != 0;
        let check = |answer: Result<Response, ErrorCode>, needed: i32, what: &str| {
            assert_eq!(answer != Err(ErrorCode::NO_AUTH), may(needed), "{what} {path}: {answer:?}");
        };
        check(stranger.ask(exists(path, false)).await, read, "exists");
        check(stranger.ask(get_data(path, false)).await, read, "getData");
        check(stranger.ask(Request::GetChildren(get(path, false))).await, read, "getChildren");
        check(stranger.ask(Request::GetChildren2(get(path, false))).await, read, "getChildren2");
        check(stranger.ask(Request::GetAllChildrenNumber { path: path.into() }).await, read, "number");
        check(stranger.ask(Request::GetAcl { path: path.into() }).await, read | admin, "getACL");
        check(stranger.ask(set(path, "x", 7)).await, write, "setData");
        check(stranger.ask(create(&child, "", 0)).await, create_, "create");
        check(stranger.ask(delete(&child, 7)).await, delete_, "delete");
        check(stranger.ask(set_acl(path)).await, admin, "setACL");
        assert!(stranger.ask(Request::Sync { path: Some(path.into()) }).await.is_ok());
    }
}

#[tokio::test]
async fn lists_are_checked_and_stored_as_zookeeper_does() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    client.ask(auth("digest", "u:p")).await.unwrap();
    client.ask(auth("digest", "v:q")).await.unwrap();
    let null_id = Acl { permissions: 31, scheme: "auth".into(), id: None };

    for (list, error) in [
        (vec![acl(31, "world", "somebody")], ErrorCode::INVALID_ACL),
        (vec![acl(31, "nonsense", "x")], ErrorCode::INVALID_ACL),
        (vec![acl(31, "", "")], ErrorCode::INVALID_ACL),
        (vec![acl(31, "digest", "u")], ErrorCode::INVALID_ACL),
        (vec![acl(31, "digest", "a:b:c")], ErrorCode::INVALID_ACL),
        (vec![acl(31, "ip", "300.1.1.1")], ErrorCode::INVALID_ACL),
        (vec![acl(31, "ip", "10.0.0.0/33")], ErrorCode::INVALID_ACL),
        (vec![Acl { id: None, ..acl(31, "world", "") }], ErrorCode::MARSHALLING_ERROR),
    ] {
        assert_eq!(client.ask(guarded("/x", list.clone())).await, Err(error), "{list:?}");
    }

    client.ask(guarded("/auth", vec![null_id])).await.unwrap();
    let stored = acl_of(&mut client, "/auth").await.unwrap();
    let users: Vec<_> = stored.iter().map(|entry| entry.id.as_deref().unwrap().split(':').next().unwrap()).collect();
    assert_eq!(users, ["u", "v"]);

    let twice = vec![acl(1, "world", "anyone"), acl(31, "digest", U_P), acl(1, "world", "anyone")];
    client.ask(guarded("/twice", twice)).await.unwrap();
    let expected = [acl(1, "world", "anyone"), acl(31, "digest", U_P)];
    assert_eq!(acl_of(&mut client, "/twice").await.unwrap(), expected);

    let mut stranger = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let redacted = [acl(1, "world", "anyone"), acl(31, "digest", "u:x")];
    assert_eq!(acl_of(&mut stranger, "/twice").await.unwrap(), redacted);
    assert_eq!(acl_of(&mut stranger, "/auth").await, Err(ErrorCode::NO_AUTH));
    let nobody = Acl { permissions: 31, scheme: "auth".into(), id: None };
    assert_eq!(stranger.ask(guarded("/mine", vec![nobody])).await, Err(ErrorCode::INVALID_ACL));
}

#[tokio::test]
async fn addresses_are_matched_by_their_prefix() {
    let ensemble = member().await;
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;

    for (path, id, allowed) in [
        ("/1", "127.0.0.1", true),
        ("/2", "127.0.0.0/8", true),
        ("/3", "10.0.0.0/8", false),
        ("/4", "127.0.0.2", false),
        ("/5", "::1", false),
        ("/6", "0.0.0.0/0", true),
    ] {
        client.ask(guarded(path, vec![acl(31, "ip", id)])).await.unwrap();
        assert_eq!(client.ask(get_data(path, false)).await.is_ok(), allowed, "{id}");
    }
}

#[tokio::test]
async fn credentials_belong_to_the_connection_and_not_to_the_session() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut client = Client::open(&address).await;
    client.ask(auth("digest", "u:p")).await.unwrap();
    client.ask(guarded("/mine", vec![acl(31, "digest", U_P)])).await.unwrap();

    let mut again = Client::connect(&address, &client.resumption()).await.unwrap();

    assert_eq!(again.ask(get_data("/mine", false)).await, Err(ErrorCode::NO_AUTH));
    again.send_all(&[auth("digest", "u:p"), get_data("/mine", false)]).await;
    assert!(again.reply().await.is_ok() && again.reply().await.is_ok());
}

#[tokio::test]
async fn the_super_user_may_do_everything() {
    let ensemble = TestEnsemble::builder()
        .members(1)
        .tick(Duration::from_secs(2))
        .settings(|config| config.super_digest = Some(U_P.parse().unwrap()))
        .start()
        .await
        .unwrap();
    let mut client = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    client.ask(guarded("/locked", vec![acl(0, "world", "anyone")])).await.unwrap();
    assert_eq!(client.ask(get_data("/locked", false)).await, Err(ErrorCode::NO_AUTH));
    assert_eq!(client.ask(set("/zookeeper/config", "", -1)).await, Err(ErrorCode::NO_AUTH));

    client.ask(auth("digest", "u:p")).await.unwrap();

    assert!(client.ask(get_data("/locked", false)).await.is_ok());
    let Ok(Response::Clients(clients)) = client.ask(Request::WhoAmI).await else { panic!() };
    let schemes: Vec<_> = clients.iter().map(|client| (client.scheme.as_str(), client.user.as_str())).collect();
    assert_eq!(schemes, [("ip", "127.0.0.1"), ("super", ""), ("digest", "u")]);
}
