//! The client on real members: every operation, and what goes on when members die.

use std::{future::Future, time::Duration};

use futures_util::{StreamExt, future::join_all};
use quorate::{
    Acl, Admin, ChildrenEvent, Client, CreateMode, DataEvent, Error, LostReason, Permissions, Role, SessionState,
    TreeEvent,
};
use quorate_sidecar::testing::TestEnsemble;

const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

async fn one() -> (TestEnsemble, Client) {
    let ensemble = TestEnsemble::start(1).await.unwrap();
    let client = Client::builder(ensemble.endpoints()).connect().await.unwrap();
    (ensemble, client)
}

#[tokio::test]
async fn a_node_lives_as_it_is_told() {
    let (ensemble, client) = one().await;

    let created = client.create("/a").data("one").await.unwrap();
    assert_eq!((created.path.as_str(), created.stat.version), ("/a", 0));
    let again = client.create("/a").await.unwrap_err();
    assert!(matches!(&again, Error::NodeExists { path } if path == "/a"), "{again:?}");
    assert_eq!(again.code(), -110);

    let stat = client.set("/a", "two").version(0).await.unwrap();
    assert_eq!((stat.version, stat.czxid), (1, created.stat.czxid));
    assert!(matches!(client.set("/a", "three").version(0).await, Err(Error::BadVersion { .. })));
    let node = client.get("/a").linearizable().await.unwrap();
    assert_eq!((&node.data[..], node.stat), (&b"two"[..], stat));
    assert_eq!(client.exists("/a").await.unwrap(), Some(stat));

    let orphan = client.create("/x/y").await.unwrap_err();
    assert!(matches!(&orphan, Error::NoNode { .. }), "{orphan:?}");
    let read_only = Acl::world(Permissions::READ);
    client.create("/x/y/z").acl([read_only.clone()]).parents().await.unwrap();
    assert_eq!(client.get_acl("/x/y/z").await.unwrap().acl, [read_only]);
    client.create("/x/y/beside").await.unwrap();
    assert!(matches!(client.delete("/x").await, Err(Error::NotEmpty { .. })));
    client.delete("/x").recursive().await.unwrap();
    assert_eq!(client.exists("/x").await.unwrap(), None);
    assert_eq!(client.get("/x").opt().await.unwrap(), None);
    assert_eq!(client.children("/x").opt().await.unwrap(), None);

    client.sync("/").await.unwrap();
    client.delete("/a").version(1).await.unwrap();
    assert!(matches!(client.get("/a").await, Err(Error::NoNode { .. })));
    assert!(client.close(PATIENCE).await.unwrap().is_complete());
    ensemble.shutdown().await;
}

#[tokio::test]
async fn or_create_sets_what_is_there_and_creates_what_is_not() {
    let (_ensemble, client) = one().await;

    assert_eq!(client.set("/deep/down", "one").or_create().await.unwrap().version, 0);
    assert_eq!(client.set("/deep/down", "two").or_create().await.unwrap().version, 1);

    assert_eq!(client.get("/deep/down").await.unwrap().data, "two");
}

#[tokio::test]
async fn sequential_names_count_up_and_ephemerals_go_with_their_session() {
    let (ensemble, client) = one().await;
    let other = Client::builder(ensemble.endpoints()).connect().await.unwrap();
    client.create("/q").await.unwrap();

    let mut last = -1;
    for _ in 0..3 {
        let created = other.create("/q/item-").ephemeral().sequential().await.unwrap();
        assert_eq!(created.stat.ephemeral_owner, other.session().map(|session| session.id()));
        assert!(created.sequence().unwrap() > last);
        last = created.sequence().unwrap();
    }
    let locked = other.create("/q/lock-").mode(CreateMode::EphemeralSequential).protected().await.unwrap();
    assert!(locked.name().starts_with("_c_"));
    assert_eq!(client.children("/q").linearizable().await.unwrap().names.len(), 4);
    let child = other.create(&format!("{}/child", locked.path)).await.unwrap_err();
    assert!(matches!(child, Error::NoChildrenForEphemerals { .. }), "{child:?}");

    assert!(other.close(PATIENCE).await.unwrap().is_complete());

    assert_eq!(client.children("/q").linearizable().await.unwrap().names, [""; 0]);
}

#[tokio::test]
async fn a_namespace_is_a_world_of_its_own() {
    let (ensemble, client) = one().await;
    let app = Client::builder(ensemble.endpoints()).namespace("teams/app").create_chroot(true).connect().await.unwrap();

    assert_eq!(app.create("/a").await.unwrap().path, "/a");
    let below = app.namespace("sub").unwrap();
    assert_eq!(below.create("/b").parents().await.unwrap().path, "/b");

    assert!(client.exists("/teams/app/a").linearizable().await.unwrap().is_some());
    assert!(client.exists("/teams/app/sub/b").linearizable().await.unwrap().is_some());
    assert_eq!(app.children("/").await.unwrap().names, ["a", "sub"]);
    let missing = below.get("/missing").await.unwrap_err();
    assert!(matches!(&missing, Error::NoNode { path } if path == "/missing"), "{missing:?}");
}

#[tokio::test]
async fn only_who_may_does() {
    let (ensemble, stranger) = one().await;
    let owner = Client::builder(ensemble.endpoints())
        .auth("digest", "tom:secret")
        .acl([Acl::creator(Permissions::ALL)])
        .connect()
        .await
        .unwrap();
    owner.create("/mine").data("x").await.unwrap();

    let refused = stranger.get("/mine").linearizable().await.unwrap_err();
    assert!(matches!(&refused, Error::NoAuth { path } if path == "/mine"), "{refused:?}");
    let list = owner.get_acl("/mine").await.unwrap();
    assert_eq!(list.acl, [Acl::digest(Permissions::ALL, "tom", "secret")]);

    owner.set_acl("/mine", [Acl::world(Permissions::READ)]).version(list.stat.aversion).await.unwrap();

    assert_eq!(stranger.get("/mine").linearizable().await.unwrap().data, "x");
    assert!(matches!(stranger.set("/mine", "y").await, Err(Error::NoAuth { .. })));
}

#[tokio::test]
async fn a_transaction_happens_as_a_whole_or_not_at_all() {
    let (_ensemble, client) = one().await;
    client.create("/a").data("one").await.unwrap();

    let results = client.txn().check("/a", 0).create("/b", "x").set("/a", "two").version(0).commit().await.unwrap();
    assert_eq!(results.created(1).unwrap().stat.czxid, results.zxid());
    assert_eq!(results.stat(2).unwrap().version, 1);

    let error = client.txn().delete("/b").set("/a", "three").version(0).commit().await.unwrap_err();
    let Error::Txn { index: 1, source } = &error else { panic!("{error:?}") };
    assert!(matches!(&**source, Error::BadVersion { path } if path == "/a"), "{source:?}");
    assert!(client.exists("/b").await.unwrap().is_some());
}

#[tokio::test]
async fn watches_give_what_happens() {
    let (_ensemble, client) = one().await;
    let mut data = client.watch("/dir").data();
    let mut children = client.watch("/dir").children();
    let mut tree = client.watch("/dir").recursive();
    assert_eq!(soon("a state", data.next()).await.unwrap().unwrap(), DataEvent::Absent);
    assert_eq!(soon("a state", children.next()).await.unwrap().unwrap(), ChildrenEvent::Absent);
    assert_eq!(soon("a state", tree.next()).await.unwrap().unwrap(), TreeEvent::Resync);

    client.create("/dir").data("x").await.unwrap();
    let DataEvent::Value(node) = soon("a state", data.next()).await.unwrap().unwrap() else { panic!("it exists") };
    assert_eq!(node.data, "x");
    client.create("/dir/a").await.unwrap();
    let names = loop {
        let ChildrenEvent::Set(list) = soon("a state", children.next()).await.unwrap().unwrap() else { continue };
        if !list.names.is_empty() {
            break list.names;
        }
    };
    assert_eq!(names, ["a"]);
    client.set("/dir/a", "y").await.unwrap();
    let deleted = client.watch("/dir/a").once_deleted();
    let (deleted, ()) = tokio::join!(soon("the deletion", deleted), async {
        client.delete("/dir/a").await.unwrap();
    });
    deleted.unwrap();

    for expected in [
        TreeEvent::Created("/dir".into()),
        TreeEvent::Created("/dir/a".into()),
        TreeEvent::Changed("/dir/a".into()),
        TreeEvent::Deleted("/dir/a".into()),
    ] {
        assert_eq!(soon("a change", tree.next()).await.unwrap().unwrap(), expected);
    }
}

#[tokio::test]
async fn operators_are_answered() {
    let ensemble = TestEnsemble::start(3).await.unwrap();
    let client = Client::builder(ensemble.endpoints()).client_name("worker").connect().await.unwrap();
    let admin = client.admin();

    let statuses = admin.status_of_each().await;
    let leaders = statuses.iter().filter(|(_, status)| status.as_ref().is_ok_and(|s| s.role == Role::Leader)).count();
    assert_eq!((statuses.len(), leaders), (3, 1), "{statuses:?}");
    assert_eq!(admin.status().await.unwrap().members.len(), 3);

    let id = client.session().unwrap().id();
    client.sync("/").await.unwrap();
    let serving = soon("the session on some member", async {
        loop {
            for endpoint in admin.endpoints() {
                let sessions = Admin::new(endpoint).unwrap().sessions().await.unwrap();
                if let Some(found) = sessions.into_iter().find(|session| session.id == id && session.connected_here) {
                    return found;
                }
            }
        }
    })
    .await;
    assert_eq!(serving.client_name, "worker");

    admin.expire(id).await.unwrap();
    let lost = client.session().unwrap();
    if lost.id() == id {
        assert_eq!(soon("the loss", lost.lost()).await, LostReason::SessionExpired);
    }
    soon("a new session", async {
        while client.session().unwrap().id() == id {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;

    let nobody = Admin::new("http://127.0.0.1:1").unwrap().status().await.unwrap_err();
    assert!(matches!(nobody, Error::Unreachable { .. }), "{nobody:?}");
}

/// Members are killed in turn and come back while writes are under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_are_applied_once_and_in_order_while_members_die() {
    let mut ensemble = TestEnsemble::start(3).await.unwrap();
    let client = Client::builder(ensemble.endpoints())
        .session_timeout(Duration::from_secs(20))
        .request_timeout(Duration::from_secs(60))
        .connect()
        .await
        .unwrap();
    client.create("/counter").await.unwrap();
    client.create("/queue").await.unwrap();
    let session = client.session().unwrap();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for n in 0..100 {
                    client.create("/queue/n-").data(format!("{writer} {n}")).sequential().await.unwrap();
                    client.set("/counter", format!("{writer} {n}")).await.unwrap();
                }
            })
        })
        .collect();

    for round in 0..4 {
        let leader = ensemble.leader().await.unwrap();
        let victim = if round % 2 == 0 { leader } else { leader % 3 + 1 };
        ensemble.kill(victim);
        // The others go on without it.
        ensemble.leader().await.unwrap();
        let before = client.get("/counter").linearizable().await.unwrap().stat.version;
        soon("more writes", async {
            while client.get("/counter").linearizable().await.unwrap().stat.version <= before.min(799) {}
        })
        .await;
        ensemble.restart(victim).await.unwrap();
        ensemble.ready().await.unwrap();
    }

    for done in join_all(writers).await {
        done.unwrap();
    }
    // A create that was applied twice would be one child too many, a set one version too many.
    let list = client.children("/queue").linearizable().await.unwrap();
    assert_eq!(list.names.len(), 800);
    assert_eq!(client.get("/counter").await.unwrap().stat.version, 800);
    let mut last = [-1; 8];
    for name in list.names {
        let data = client.get(&format!("/queue/{name}")).await.unwrap().data;
        let text = String::from_utf8(data.to_vec()).unwrap();
        let (writer, n) = text.split_once(' ').unwrap();
        let (writer, n): (usize, i32) = (writer.parse().unwrap(), n.parse().unwrap());
        assert_eq!(n, last[writer] + 1, "writer {writer}");
        last[writer] = n;
    }
    assert!(session.is_live(), "{:?}", session.lost_reason());
    ensemble.agreed().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_moves_to_another_member_with_all_it_has() {
    let mut ensemble = TestEnsemble::start(3).await.unwrap();
    let client =
        Client::builder(ensemble.endpoints()).session_timeout(Duration::from_secs(20)).connect().await.unwrap();
    let writer =
        Client::builder(ensemble.endpoints()).session_timeout(Duration::from_secs(20)).connect().await.unwrap();
    let session = client.session().unwrap();
    client.create("/mine").mode(CreateMode::Ephemeral).await.unwrap();
    client.create("/seen").data("0").await.unwrap();
    let mut seen = client.watch("/seen").data();
    assert!(matches!(soon("a state", seen.next()).await.unwrap().unwrap(), DataEvent::Value(_)));

    for round in 1..=3 {
        let serving = serving_member(&ensemble, session.id()).await;
        ensemble.kill(serving);
        writer.set("/seen", round.to_string()).await.unwrap();

        let newest = soon("the newest state", async {
            loop {
                match seen.next().await.unwrap() {
                    Ok(DataEvent::Value(node)) if node.data == round.to_string() => return node,
                    _ => {}
                }
            }
        })
        .await;
        assert_eq!(newest.stat.version, round);
        let owner = writer.exists("/mine").linearizable().await.unwrap().unwrap().ephemeral_owner;
        assert_eq!(owner, Some(session.id()));
        ensemble.restart(serving).await.unwrap();
        ensemble.ready().await.unwrap();
    }

    assert_eq!(client.session().unwrap().id(), session.id());
    assert!(session.is_live());
}

async fn serving_member(ensemble: &TestEnsemble, session: quorate::SessionId) -> u8 {
    soon("a member that serves the session", async {
        loop {
            for member in ensemble.members() {
                let Ok(sessions) = Admin::new(ensemble.endpoint(member)).unwrap().sessions().await else { continue };
                if sessions.iter().any(|found| found.id == session && found.connected_here) {
                    return member;
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_ensemble_is_gone_says_lost_by_itself_and_comes_back() {
    let mut ensemble = TestEnsemble::builder().members(1).start().await.unwrap();
    let client = Client::builder(ensemble.endpoints()).session_timeout(Duration::from_secs(1)).connect().await.unwrap();
    let session = client.session().unwrap();
    client.create("/mine").mode(CreateMode::Ephemeral).await.unwrap();

    ensemble.kill(1);

    assert_eq!(soon("the loss", session.lost()).await, LostReason::LocalDeadline);
    assert!(!session.is_live());
    ensemble.restart(1).await.unwrap();
    soon("a new session", async {
        while client.session().unwrap().id() == session.id() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The old session was closed before the new one was opened.
    assert_eq!(client.exists("/mine").linearizable().await.unwrap(), None);
    assert!(matches!(client.state(), SessionState::Connected { .. }));
}
