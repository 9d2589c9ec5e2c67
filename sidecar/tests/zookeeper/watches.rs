//! Which watch hears of what, in which order.

use quorate_wire::{
    Acl, AddWatchMode, CreateKind, ErrorCode, EventType, MultiOp, Request, Response, SetWatches, WatcherType,
    create_flags,
};

use crate::client::{Client, Heard, auth, create, creation, delete, exists, get, get_data, member, set};

async fn pair() -> (quorate_sidecar::testing::TestEnsemble, Client, Client) {
    let ensemble = member().await;
    let watcher = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    let writer = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    (ensemble, watcher, writer)
}

/// What a client has heard by now: its next reply comes after all of it.
async fn heard(client: &mut Client) -> Vec<(EventType, String)> {
    client.ask(Request::Sync { path: None }).await.unwrap();
    client.told()
}

fn events(list: &[(EventType, &str)]) -> Vec<(EventType, String)> {
    list.iter().map(|(event, path)| (*event, (*path).to_owned())).collect()
}

use EventType::{
    NodeChildrenChanged as Children, NodeCreated as Created, NodeDataChanged as Data, NodeDeleted as Deleted,
};

#[derive(Clone, Copy, Debug)]
enum Arm {
    Exists,
    Get,
    List,
    Persistent,
    Recursive,
}

async fn arm(client: &mut Client, how: Arm, path: &str) {
    let request = match how {
        Arm::Exists => exists(path, true),
        Arm::Get => get_data(path, true),
        Arm::List => Request::GetChildren2(get(path, true)),
        Arm::Persistent => Request::AddWatch { path: path.into(), mode: AddWatchMode::Persistent },
        Arm::Recursive => Request::AddWatch { path: path.into(), mode: AddWatchMode::Recursive },
    };
    let answer = client.ask(request).await;
    assert!(matches!((how, &answer), (_, Ok(_)) | (Arm::Exists, Err(ErrorCode::NO_NODE))), "{how:?} {answer:?}");
}

#[tokio::test]
async fn each_watch_hears_what_zookeepers_table_says() {
    let (_ensemble, mut watcher, mut writer) = pair().await;

    for (nth, (arms, expected)) in [
        (&[Arm::Exists][..], &[(Data, "")][..]),
        (&[Arm::Get], &[(Data, "")]),
        (&[Arm::Exists, Arm::Get], &[(Data, "")]),
        (&[Arm::List], &[(Children, "")]),
        (&[Arm::Get, Arm::List], &[(Data, ""), (Children, "")]),
        (&[Arm::Persistent], &[(Data, ""), (Children, ""), (Data, ""), (Children, ""), (Deleted, ""), (Created, "")]),
        (
            &[Arm::Recursive],
            &[
                (Data, ""),
                (Created, "/c"),
                (Data, "/c"),
                (Created, "/c/d"),
                (Deleted, "/c/d"),
                (Data, ""),
                (Deleted, "/c"),
                (Deleted, ""),
                (Created, ""),
            ],
        ),
        (
            &[Arm::Recursive, Arm::Persistent, Arm::Get],
            &[
                (Data, ""),
                (Created, "/c"),
                (Children, ""),
                (Data, "/c"),
                (Created, "/c/d"),
                (Deleted, "/c/d"),
                (Data, ""),
                (Deleted, "/c"),
                (Children, ""),
                (Deleted, ""),
                (Created, ""),
            ],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let root = format!("/w{nth}");
        writer.plant(&root).await;
        for how in arms {
            arm(&mut watcher, *how, &root).await;
        }
        let (child, grandchild) = (format!("{root}/c"), format!("{root}/c/d"));

        writer.ask(set(&root, "x", -1)).await.unwrap();
        writer.plant(&child).await;
        writer.ask(set(&child, "x", -1)).await.unwrap();
        writer.plant(&grandchild).await;
        writer.ask(delete(&grandchild, -1)).await.unwrap();
        // The same once more: data that does not differ counts.
        writer.ask(set(&root, "x", -1)).await.unwrap();
        writer.ask(delete(&child, -1)).await.unwrap();
        writer.ask(delete(&root, -1)).await.unwrap();
        writer.plant(&root).await;

        let expected: Vec<_> = expected.iter().map(|(event, path)| (*event, format!("{root}{path}"))).collect();
        assert_eq!(heard(&mut watcher).await, expected, "{arms:?}");
    }
}

#[tokio::test]
async fn a_deletion_is_told_once_to_who_watches_data_and_children() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    writer.plant("/d").await;
    arm(&mut watcher, Arm::Get, "/d").await;
    arm(&mut watcher, Arm::List, "/d").await;
    arm(&mut watcher, Arm::List, "/").await;

    writer.ask(delete("/d", -1)).await.unwrap();

    assert_eq!(heard(&mut watcher).await, events(&[(Deleted, "/d"), (Children, "/")]));
}

#[tokio::test]
async fn a_watch_on_what_is_not_there_is_set_by_exists_alone() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    arm(&mut watcher, Arm::Exists, "/x").await;
    assert_eq!(watcher.ask(get_data("/y", true)).await, Err(ErrorCode::NO_NODE));
    assert_eq!(watcher.ask(Request::GetChildren(get("/z", true))).await, Err(ErrorCode::NO_NODE));

    for path in ["/x", "/y", "/z"] {
        writer.plant(path).await;
    }

    assert_eq!(heard(&mut watcher).await, events(&[(Created, "/x")]));
}

#[tokio::test]
async fn an_event_carries_its_change_and_comes_before_every_answer_that_shows_it() {
    let (_ensemble, mut client, mut writer) = pair().await;
    client.plant("/own").await;
    client.ask(get_data("/own", true)).await.unwrap();
    client.send(&set("/own", "x", -1)).await;

    let Some(Heard::Event { zxid, event: Data, path }) = client.hear().await else { panic!() };
    let Some(Heard::Reply { zxid: of_reply, result: Ok(Response::Stat(stat)), .. }) = client.hear().await else {
        panic!()
    };
    assert_eq!((path.as_str(), zxid, of_reply), ("/own", stat.mzxid, stat.mzxid));

    for round in 0..200 {
        client.ask(get_data("/own", true)).await.unwrap();
        writer.send(&set("/own", "x", -1)).await;
        // The read may come before or after the write; what it shows has been told.
        let Ok(Response::Data { stat, .. }) = client.ask(get_data("/own", false)).await else { panic!() };
        writer.reply().await.unwrap();
        if stat.version == round + 2 {
            assert_eq!(client.told(), events(&[(Data, "/own")]));
        } else {
            assert_eq!(client.event().await, (Data, "/own".into()));
        }
    }
}

#[tokio::test]
async fn operations_of_a_multi_fire_one_by_one() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    arm(&mut watcher, Arm::Exists, "/m").await;
    arm(&mut watcher, Arm::List, "/").await;
    arm(&mut watcher, Arm::Recursive, "/n").await;
    let create = |path| MultiOp::Create(creation(CreateKind::Create, path, "", 0));
    let delete = |path: &'static str| MultiOp::Delete(quorate_wire::Delete { path: path.into(), version: -1 });

    writer.ask(Request::Multi(vec![create("/m"), delete("/m"), create("/n"), delete("/n")])).await.unwrap();

    let expected = [(Created, "/m"), (Children, "/"), (Created, "/n"), (Deleted, "/n")];
    assert_eq!(heard(&mut watcher).await, events(&expected));
}

#[tokio::test]
async fn what_cannot_be_read_is_not_told() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    writer.ask(auth("digest", "w:w")).await.unwrap();
    let secret = Acl { permissions: 31, scheme: "auth".into(), id: None };
    arm(&mut watcher, Arm::Recursive, "/r").await;
    arm(&mut watcher, Arm::Exists, "/r/hidden").await;
    writer.plant("/r").await;

    let mut hidden = creation(CreateKind::Create, "/r/hidden", "", 0);
    hidden.acl = vec![secret];
    writer.ask(Request::Create(hidden)).await.unwrap();
    writer.ask(set("/r/hidden", "x", -1)).await.unwrap();
    writer.plant("/r/open").await;
    writer.ask(delete("/r/hidden", -1)).await.unwrap();

    assert_eq!(heard(&mut watcher).await, events(&[(Created, "/r"), (Created, "/r/open")]));
    assert_eq!(watcher.ask(exists("/r", true)).await.map(|_| ()), Ok(()));
}

#[tokio::test]
async fn what_cannot_be_read_is_not_told_either_when_it_comes_and_goes_at_once() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    writer.plant("/r").await;
    arm(&mut watcher, Arm::Recursive, "/r").await;
    for permissions in [0x1e, 0x1f] {
        let mut node = creation(CreateKind::Create, "/r/n", "", 0);
        node.acl[0].permissions = permissions;
        let set = quorate_wire::SetData { path: "/r/n".into(), data: None, version: -1 };
        let gone = quorate_wire::Delete { path: "/r/n".into(), version: -1 };
        let ops = vec![MultiOp::Create(node), MultiOp::SetData(set), MultiOp::Delete(gone)];

        writer.ask(Request::Multi(ops)).await.unwrap();
    }

    let once = [(Created, "/r/n"), (Data, "/r/n"), (Deleted, "/r/n")];
    assert_eq!(heard(&mut watcher).await, events(&once), "only what may be read");
}

#[tokio::test]
async fn an_unreadable_node_is_not_watched() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    let mut hidden = creation(CreateKind::Create, "/hidden", "", 0);
    hidden.acl[0].permissions = 0x1e;
    writer.ask(Request::Create(hidden)).await.unwrap();

    assert_eq!(watcher.ask(exists("/hidden", true)).await, Err(ErrorCode::NO_AUTH));

    let check = Request::CheckWatches { path: "/hidden".into(), watcher: WatcherType::Any };
    assert_eq!(watcher.ask(check).await, Err(ErrorCode::NO_WATCHER));
}

#[tokio::test]
async fn watches_set_again_catch_up_with_what_was_missed() {
    let (ensemble, mut watcher, mut writer) = pair().await;
    for path in ["/same", "/changed", "/gone", "/again", "/parent", "/still"] {
        writer.plant(path).await;
    }
    watcher.stat("/same").await.unwrap();
    let seen = watcher.zxid;
    writer.ask(set("/changed", "x", -1)).await.unwrap();
    writer.ask(delete("/gone", -1)).await.unwrap();
    writer.ask(delete("/again", -1)).await.unwrap();
    writer.plant("/again").await;
    writer.plant("/parent/c").await;
    writer.plant("/new").await;
    let mut watcher = Client::connect(&ensemble.zookeeper_endpoint(1), &watcher.resumption()).await.unwrap();
    let paths = |list: &[&'static str]| list.iter().map(|path| (*path).into()).collect();

    watcher
        .send(&Request::SetWatches2(SetWatches {
            relative_zxid: seen,
            data: paths(&["/same", "/changed", "/gone", "/again"]),
            exist: paths(&["/new", "/missing"]),
            child: paths(&["/parent", "/gone", "/still"]),
            persistent: paths(&["/persistent"]),
            recursive: paths(&["/recursive"]),
        }))
        .await;

    let mut told = Vec::new();
    let answer = loop {
        match watcher.hear().await.unwrap() {
            Heard::Event { zxid, event, path } => {
                assert_eq!(zxid, -1);
                told.push((event, path));
            }
            reply => break reply,
        }
    };
    assert!(matches!(answer, Heard::Reply { xid: -8, result: Ok(Response::Empty), .. }));
    let expected = [
        (Data, "/changed"),
        (Deleted, "/gone"),
        (Data, "/again"),
        (Created, "/new"),
        (Children, "/parent"),
        (Deleted, "/gone"),
    ];
    assert_eq!(told, events(&expected));

    // What was not due is armed.
    writer.ask(set("/same", "x", -1)).await.unwrap();
    writer.plant("/missing").await;
    writer.plant("/still/c").await;
    writer.plant("/persistent").await;
    writer.plant("/recursive").await;
    writer.ask(set("/changed", "x", -1)).await.unwrap();
    let expected = [
        (Data, "/same"),
        (Created, "/missing"),
        (Children, "/still"),
        (Created, "/persistent"),
        (Created, "/recursive"),
    ];
    assert_eq!(heard(&mut watcher).await, events(&expected));
}

#[tokio::test]
async fn older_clients_set_their_watches_again_likewise() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    writer.plant("/n").await;
    let watches = SetWatches { relative_zxid: 0, data: vec!["/n".into()], ..SetWatches::default() };

    assert_eq!(watcher.ask(Request::SetWatches(watches)).await, Ok(Response::Empty));

    assert_eq!(watcher.told(), events(&[(Data, "/n")]));
}

#[tokio::test]
async fn who_watches_is_told_of_as_much_as_one_multi_can_do() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    writer.plant("/r").await;
    arm(&mut watcher, Arm::Recursive, "/r").await;
    let node = || MultiOp::Create(creation(CreateKind::Create, "/r/n-", "", create_flags::PERSISTENT_SEQUENTIAL));

    writer.ask(Request::Multi((0..16_384).map(|_| node()).collect())).await.unwrap();

    assert_eq!(heard(&mut watcher).await.len(), 16_384);
}

#[tokio::test]
async fn a_client_that_missed_very_much_is_told_all_of_it() {
    let (_ensemble, mut watcher, _writer) = pair().await;
    let data: Vec<_> = (0..12_000).map(|n| format!("/m{n}").into()).collect();

    watcher.ask(Request::SetWatches(SetWatches { data, ..SetWatches::default() })).await.unwrap();

    let told = watcher.told();
    assert_eq!(told.len(), 12_000);
    assert_eq!(told[11_999], (Deleted, "/m11999".to_owned()));
}

#[tokio::test]
async fn catching_up_does_not_tell_of_nodes_that_cannot_be_read() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    let mut hidden = creation(CreateKind::Create, "/hidden", "", 0);
    hidden.acl[0].permissions = 0x1e;
    writer.ask(Request::Create(hidden)).await.unwrap();
    let hidden = || vec!["/hidden".into()];
    let watches = SetWatches { data: hidden(), exist: hidden(), child: hidden(), ..SetWatches::default() };

    watcher.ask(Request::SetWatches2(watches)).await.unwrap();

    assert_eq!(watcher.told(), []);
}

#[tokio::test]
async fn watches_are_taken_away_by_their_kind() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    writer.plant("/w").await;
    let check = |watcher| Request::CheckWatches { path: "/w".into(), watcher };
    let remove = |watcher| Request::RemoveWatches { path: "/w".into(), watcher };

    for (how, kind, others) in [
        (Arm::Get, WatcherType::Data, [WatcherType::Children, WatcherType::Persistent, WatcherType::Recursive]),
        (Arm::List, WatcherType::Children, [WatcherType::Data, WatcherType::Persistent, WatcherType::Recursive]),
        (Arm::Persistent, WatcherType::Persistent, [WatcherType::Data, WatcherType::Children, WatcherType::Recursive]),
        (Arm::Recursive, WatcherType::Recursive, [WatcherType::Data, WatcherType::Children, WatcherType::Persistent]),
    ] {
        for remover in [kind, WatcherType::Any] {
            arm(&mut watcher, how, "/w").await;
            for other in others {
                assert_eq!(watcher.ask(remove(other)).await, Err(ErrorCode::NO_WATCHER), "{how:?} {other:?}");
            }
            assert_eq!(watcher.ask(check(kind)).await, Ok(Response::Empty));
            assert_eq!(watcher.ask(check(WatcherType::Any)).await, Ok(Response::Empty));
            assert_eq!(watcher.ask(remove(remover)).await, Ok(Response::Empty));
            assert_eq!(watcher.ask(check(WatcherType::Any)).await, Err(ErrorCode::NO_WATCHER));

            writer.ask(set("/w", "x", -1)).await.unwrap();
            writer.create("/w/c", "", create_flags::PERSISTENT).await.unwrap();
            writer.ask(delete("/w/c", -1)).await.unwrap();
            assert_eq!(heard(&mut watcher).await, [], "{how:?}");
        }
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_told_node_by_node() {
    let (ensemble, mut watcher, _writer) = pair().await;
    let mut owner = Client::open(&ensemble.zookeeper_endpoint(1)).await;
    watcher.plant("/p").await;
    for path in ["/p/a", "/p/b"] {
        owner.create(path, "", create_flags::EPHEMERAL).await.unwrap();
        arm(&mut watcher, Arm::Get, path).await;
    }
    arm(&mut watcher, Arm::Persistent, "/p").await;

    owner.ask(Request::CloseSession).await.unwrap();

    let told = heard(&mut watcher).await;
    let count =
        |wanted: (EventType, &str)| told.iter().filter(|(event, path)| (*event, path.as_str()) == wanted).count();
    assert_eq!((count((Deleted, "/p/a")), count((Deleted, "/p/b")), count((Children, "/p"))), (1, 1, 2), "{told:?}");
    assert_eq!(told.len(), 4);
}

#[tokio::test]
async fn setting_an_acl_fires_nothing() {
    let (_ensemble, mut watcher, mut writer) = pair().await;
    writer.plant("/a").await;
    for how in [Arm::Get, Arm::List, Arm::Persistent, Arm::Recursive] {
        arm(&mut watcher, how, "/a").await;
    }

    let acl = quorate_wire::SetAcl { path: "/a".into(), acl: crate::client::open_acl(), version: -1 };
    writer.ask(Request::SetAcl(acl)).await.unwrap();
    writer.ask(create("/a", "", 0)).await.unwrap_err();

    assert_eq!(heard(&mut watcher).await, []);
}
