//! Discovery on real members: what is registered is found, stays while its session lives, and goes with it.

use std::{future::Future, time::Duration};

use futures_util::{Stream, StreamExt, future::join_all};
use quorate::{ChangeReason, Client, DataEvent, Node, SessionId};
use quorate_recipes::discovery::{
    Change, Discovery, DiscoveryError, Instance, InstanceBuilder, OnConflict, PayloadProfile, Random, Registration,
    RegistrationState, Registry, RoundRobin, ServiceView, Status,
};
use quorate_sidecar::testing::TestEnsemble;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// An ensemble whose sessions can be short and can be long.
async fn ensemble(members: u8) -> TestEnsemble {
    TestEnsemble::builder().members(members).tick(Duration::from_millis(500)).start().await.unwrap()
}

async fn client(ensemble: &TestEnsemble) -> Client {
    Client::builder(ensemble.endpoints()).session_timeout(Duration::from_secs(10)).connect().await.unwrap()
}

fn payments(id: &str, port: u16) -> InstanceBuilder {
    Instance::builder("payments").id(id).address("10.0.0.7").port(port)
}

fn path(id: &str) -> String {
    format!("/services/payments/{id}")
}

async fn view(client: &Client) -> ServiceView {
    Discovery::spring(client).service("payments").watch().await.unwrap()
}

/// Waits until the node is as it should be.
async fn node_when(client: &Client, id: &str, what: &str, is_right: impl Fn(Option<&Node>) -> bool) -> Option<Node> {
    let path = path(id);
    let mut states = client.watch(&path).data();
    soon(what, async {
        loop {
            let node = match states.next().await.unwrap() {
                Ok(DataEvent::Value(node)) => Some(node),
                Ok(_) => None,
                Err(error) => panic!("{error}"),
            };
            if is_right(node.as_ref()) {
                return node;
            }
        }
    })
    .await
}

async fn state_when(registration: &Registration, wanted: impl Fn(RegistrationState) -> bool) -> RegistrationState {
    let mut states = registration.states();
    soon("a state of the registration", async {
        loop {
            let state = states.next().await.expect("the registration goes on");
            if wanted(state) {
                return state;
            }
        }
    })
    .await
}

async fn next(changes: &mut (impl Stream<Item = Change> + Unpin)) -> Change {
    soon("a change", changes.next()).await.expect("the view goes on")
}

fn added(change: &Change) -> &str {
    match change {
        Change::Added(instance) => instance.id(),
        other => panic!("{other:?} is not what was expected"),
    }
}

fn json(node: &Node) -> Value {
    serde_json::from_slice(&node.data).unwrap()
}

fn session(client: &Client) -> SessionId {
    client.session().unwrap().id()
}

/// A client and its registrations that can be dropped as a process that dies drops them: without a word.
struct Provider {
    runtime: Option<tokio::runtime::Runtime>,
    session: SessionId,
}

impl Provider {
    async fn start(ensemble: &TestEnsemble, timeout: Duration, instance: InstanceBuilder) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoints = ensemble.endpoints();
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let client = Client::builder(endpoints).session_timeout(timeout).connect().await.unwrap();
            let registration = Registry::spring(&client).register(instance).await.unwrap();
            ready.send(session(&client)).unwrap();
            std::future::pending::<()>().await;
            drop(registration);
        });
        let session = soon("the provider to be registered", is_ready).await.unwrap();
        Self { runtime: Some(runtime), session }
    }

    fn crash(&mut self) {
        self.runtime.take().expect("it crashes once").shutdown_background();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[tokio::test]
async fn what_is_registered_is_found_and_balanced_over() {
    let ensemble = ensemble(1).await;
    let provider = client(&ensemble).await;
    let registry = Registry::spring(&provider);
    let first = registry.register(payments("a", 8001).zone("eu-1").weight(10)).await.unwrap();
    let second = registry.register(payments("b", 8002)).await.unwrap();

    let consumer = client(&ensemble).await;
    let view = view(&consumer).await;
    soon("both", view.wait_for(2, PATIENCE)).await.unwrap();
    let balancer = view.balancer(RoundRobin);
    let uris: Vec<_> = (0..4).map(|_| balancer.pick().unwrap().instance().uri()).collect();
    assert_eq!(uris, [8001, 8002, 8001, 8002].map(|port| format!("http://10.0.0.7:{port}")));
    assert_eq!(view.instances()[0].zone(), Some("eu-1"));
    assert!(view.freshness().is_fresh());
    assert_eq!(Discovery::spring(&consumer).services().await.unwrap(), ["payments"]);

    // As Java would see it.
    let node = consumer.get(&path("a")).await.unwrap();
    assert_eq!(node.stat.ephemeral_owner, Some(session(&provider)));
    let json = json(&node);
    assert_eq!(json["payload"]["@class"], "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance");
    assert_eq!(json["payload"]["metadata"]["instance_status"], "UP");
    assert_eq!((&json["port"], &json["sslPort"]), (&8001.into(), &Value::Null));

    // A failing one is passed over, unless it is the last.
    let random = view.balancer(Random);
    for _ in 0..2 {
        let pick = loop {
            let pick = random.pick().unwrap();
            if pick.instance().id() == "a" {
                break pick;
            }
        };
        pick.failure();
    }
    assert!((0..100).all(|_| random.pick().unwrap().instance().id() == "b"));

    first.deregister().await.unwrap();
    second.deregister().await.unwrap();
    let mut changes = view.changes();
    soon("an empty view", async {
        while !view.instances().is_empty() {
            changes.next().await;
        }
    })
    .await;
    let none = balancer.pick().unwrap_err();
    assert_eq!((none.service.as_str(), none.listed), ("payments", 0));
    ensemble.shutdown().await;
}

#[tokio::test]
async fn a_service_that_never_was_is_an_empty_view() {
    let ensemble = ensemble(1).await;
    let client = client(&ensemble).await;

    let view = view(&client).await;
    assert!(view.instances().is_empty());
    assert_eq!(Discovery::spring(&client).services().await.unwrap(), [""; 0]);
    let missing = view.wait_for(1, Duration::from_millis(1)).await.unwrap_err();
    assert!(matches!(missing, DiscoveryError::TooFew { wanted: 1, present: 0, .. }), "{missing:?}");

    // It is watched although there is nothing yet.
    let _registration = Registry::spring(&client).register(payments("a", 8001)).await.unwrap();
    soon("the first instance", view.wait_for(1, PATIENCE)).await.unwrap();
}

#[tokio::test]
async fn a_crashed_instance_leaves_with_its_session_and_not_before() {
    let ensemble = ensemble(1).await;
    let mut provider = Provider::start(&ensemble, Duration::from_secs(2), payments("a", 8001)).await;
    let consumer = client(&ensemble).await;
    let view = view(&consumer).await;
    let mut changes = view.changes();
    assert_eq!(added(&next(&mut changes).await), "a");

    provider.crash();

    // On one member the order is certain: if the instance is gone, so must be the session.
    let lives = async || {
        let sessions = consumer.admin().sessions().await.unwrap();
        sessions.iter().any(|info| info.id == provider.session)
    };
    soon("the end of the session", async {
        loop {
            let listed = !view.instances().is_empty();
            let alive = lives().await;
            assert!(listed || !alive, "the instance left before its session had ended");
            if !alive {
                break;
            }
        }
    })
    .await;
    assert!(matches!(next(&mut changes).await, Change::Removed(instance) if instance.id() == "a"));
}

#[tokio::test]
async fn a_resumed_session_never_makes_an_instance_flap() {
    let mut ensemble = ensemble(3).await;
    let provider = client(&ensemble).await;
    let registry = Registry::spring(&provider);
    let _registration = registry.register(payments("a", 8001)).await.unwrap();
    let born = provider.get(&path("a")).await.unwrap().stat;
    let consumer = client(&ensemble).await;
    let view = view(&consumer).await;
    let mut changes = view.changes();
    assert_eq!(added(&next(&mut changes).await), "a");

    for _ in 0..2 {
        let mut states = provider.states();
        let sessions = provider.admin().sessions().await.unwrap();
        let serving = sessions.iter().find(|info| info.id == session(&provider)).unwrap().member as u8;
        ensemble.kill(serving);
        soon("the session to be resumed", async {
            loop {
                let change = states.next().await.unwrap();
                assert!(!matches!(change.reason, ChangeReason::Lost(_)), "{change:?}");
                if change.reason == ChangeReason::Resumed {
                    break;
                }
            }
        })
        .await;
        ensemble.restart(serving).await.unwrap();
        soon("all members", ensemble.ready()).await.unwrap();
    }

    // Nothing happened before this, and nothing was written.
    let _mark = registry.register(payments("mark", 8002)).await.unwrap();
    assert_eq!(added(&next(&mut changes).await), "mark");
    let stat = consumer.get(&path("a")).linearizable().await.unwrap().stat;
    assert_eq!((stat.czxid, stat.mzxid), (born.czxid, born.mzxid));
}

#[tokio::test]
async fn after_a_lost_session_an_instance_is_registered_again_under_its_id() {
    let ensemble = ensemble(1).await;
    let provider = client(&ensemble).await;
    let registration = Registry::spring(&provider).register(payments("a", 8001)).await.unwrap();
    let consumer = client(&ensemble).await;
    let before = consumer.get(&path("a")).await.unwrap();

    ensemble.expire_session(session(&provider).0).await.unwrap();

    let after = node_when(&consumer, "a", "the instance to return", |node| {
        node.is_some_and(|node| node.stat.czxid > before.stat.czxid)
    });
    let after = after.await.unwrap();
    assert_eq!(after.data, before.data);
    assert_ne!(after.stat.ephemeral_owner, before.stat.ephemeral_owner);
    soon("the registration to know it", registration.registered()).await.unwrap();
    let view = view(&consumer).await;
    assert_eq!(view.instances()[0].id(), "a");
}

#[tokio::test]
async fn instances_that_vanish_together_and_come_back_are_not_missed() {
    let ensemble = ensemble(1).await;
    let provider = client(&ensemble).await;
    let registry = Registry::spring(&provider);
    let _first = registry.register(payments("a", 8001)).await.unwrap();
    let _second = registry.register(payments("b", 8002)).await.unwrap();
    let consumer = client(&ensemble).await;
    let view = Discovery::spring(&consumer).service("payments").grace(PATIENCE).watch().await.unwrap();
    let mut changes = view.changes();
    assert_eq!([added(&next(&mut changes).await), added(&next(&mut changes).await)], ["a", "b"]);
    let born = consumer.get(&path("a")).await.unwrap().stat.czxid;

    ensemble.expire_session(session(&provider).0).await.unwrap();
    for id in ["a", "b"] {
        node_when(&consumer, id, "the return", |node| node.is_some_and(|node| node.stat.czxid > born)).await;
        assert_eq!(view.instances().len(), 2);
    }

    // They had been kept in view, so nothing has changed.
    let _mark = registry.register(payments("mark", 8003)).await.unwrap();
    assert_eq!(added(&next(&mut changes).await), "mark");
    assert!(view.freshness().is_fresh());
}

#[tokio::test]
async fn what_an_operator_deletes_comes_back_unless_it_was_switched_off() {
    let ensemble = ensemble(1).await;
    let provider = client(&ensemble).await;
    let operator = client(&ensemble).await;
    let registration = Registry::spring(&provider).register(payments("a", 8001)).await.unwrap();
    let born = operator.get(&path("a")).await.unwrap().stat.czxid;

    operator.delete(&path("a")).await.unwrap();
    let node = node_when(&operator, "a", "the return", |node| node.is_some_and(|node| node.stat.czxid > born)).await;

    let mut off = json(&node.unwrap());
    off["enabled"] = false.into();
    operator.set(&path("a"), off.to_string()).await.unwrap();
    soon("the registration to hear of it", async {
        while registration.instance().is_enabled() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    operator.delete(&path("a")).await.unwrap();
    state_when(&registration, |state| state == RegistrationState::Evicted).await;
    assert_eq!(operator.exists(&path("a")).await.unwrap(), None);

    soon("the return", registration.update(|instance| instance.enabled(true))).await.unwrap();
    assert!(operator.exists(&path("a")).linearizable().await.unwrap().is_some());
    assert_eq!(registration.state(), RegistrationState::Registered);
}

#[tokio::test]
async fn what_an_operator_sets_is_kept() {
    let ensemble = ensemble(1).await;
    let provider = client(&ensemble).await;
    let operator = client(&ensemble).await;
    let registration = Registry::spring(&provider).register(payments("a", 8001).weight(10).zone("eu-1")).await.unwrap();

    let node = operator.get(&path("a")).await.unwrap();
    let mut changed = json(&node);
    changed["payload"]["metadata"]["weight"] = "1".into();
    changed["payload"]["metadata"]["instance_status"] = "OUT_OF_SERVICE".into();
    changed["payload"]["metadata"]["zone"] = "us-1".into();
    let set = operator.set(&path("a"), changed.to_string()).await.unwrap();
    soon("the registration to hear of it", async {
        while registration.instance().weight() != 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;

    soon("an update", registration.update(|instance| instance.tag("blue"))).await.unwrap();
    let node = operator.get(&path("a")).linearizable().await.unwrap();
    let metadata = &json(&node)["payload"]["metadata"];
    assert_eq!(node.stat.version, set.version + 1);
    assert_eq!(metadata["weight"], "1");
    assert_eq!(metadata["instance_status"], "OUT_OF_SERVICE");
    assert_eq!(metadata["tags"], "blue");
    assert_eq!(metadata["zone"], "eu-1");

    // The owner can say otherwise.
    soon("an update", registration.set_status(Status::Up)).await.unwrap();
    let node = operator.get(&path("a")).linearizable().await.unwrap();
    assert_eq!(json(&node)["payload"]["metadata"]["instance_status"], "UP");
}

#[tokio::test]
async fn updates_are_gathered() {
    let ensemble = ensemble(1).await;
    let client = client(&ensemble).await;
    let registration = Registry::spring(&client).register(payments("a", 8001)).await.unwrap();

    let updates = (1..=5).map(|weight| registration.update(move |instance| instance.weight(weight)));
    for outcome in soon("five updates", join_all(updates)).await {
        outcome.unwrap();
    }

    let node = client.get(&path("a")).await.unwrap();
    assert_eq!((node.stat.version, &json(&node)["payload"]["metadata"]["weight"]), (1, &"5".into()));
    let renamed = registration.update(|instance| instance.id("b")).await.unwrap_err();
    assert!(matches!(renamed, DiscoveryError::Instance(_)), "{renamed:?}");
}

#[tokio::test]
async fn a_path_that_is_held_is_refused_or_waited_for_or_taken() {
    let ensemble = ensemble(1).await;
    let (holder, other) = (client(&ensemble).await, client(&ensemble).await);
    let held = Registry::spring(&holder).register(payments("a", 8001)).await.unwrap();
    let registry = |policy| Registry::spring(&other).on_conflict(policy);

    let refused = soon("a refusal", registry(OnConflict::Fail).register(payments("a", 8002))).await.unwrap_err();
    assert!(
        matches!(&refused, DiscoveryError::Conflict { owner, .. } if *owner == Some(session(&holder))),
        "{refused:?}"
    );
    assert_eq!(json(&other.get(&path("a")).await.unwrap())["port"], 8001);

    // Taken: the holder waits until it is free again.
    let stolen = soon("the theft", registry(OnConflict::Steal).register(payments("a", 8003))).await.unwrap();
    let state = state_when(&held, |state| state != RegistrationState::Registered).await;
    assert_eq!(state, RegistrationState::Waiting { owner: Some(session(&other)) });
    assert_eq!(json(&other.get(&path("a")).await.unwrap())["port"], 8003);
    soon("the end of the theft", stolen.deregister()).await.unwrap();
    soon("the return", held.registered()).await.unwrap();

    // Waited for.
    let waiting = tokio::spawn({
        let registry = registry(OnConflict::WaitForExpiry);
        async move { registry.register(payments("a", 8004)).await }
    });
    soon("the end", held.deregister()).await.unwrap();
    let registration = soon("the path to be free", waiting).await.unwrap().unwrap();
    assert_eq!(registration.state(), RegistrationState::Registered);
    assert_eq!(json(&other.get(&path("a")).linearizable().await.unwrap())["port"], 8004);
}

#[tokio::test]
async fn what_our_own_process_left_is_waited_for_even_where_conflicts_fail() {
    let ensemble = ensemble(1).await;
    let mut predecessor = Provider::start(&ensemble, Duration::from_secs(2), payments("a", 8001)).await;
    let client = client(&ensemble).await;

    predecessor.crash();
    let registry = Registry::spring(&client).on_conflict(OnConflict::Fail);
    let registration = soon("the registration", registry.register(payments("a", 8001))).await.unwrap();

    assert_eq!(registration.state(), RegistrationState::Registered);
    assert_eq!(client.get(&path("a")).await.unwrap().stat.ephemeral_owner, Some(session(&client)));
}

#[tokio::test]
async fn a_drained_instance_leaves_callers_first_and_the_tree_last() {
    let ensemble = ensemble(1).await;
    let provider = client(&ensemble).await;
    let consumer = client(&ensemble).await;
    let registration = Registry::spring(&provider).register(payments("a", 8001)).await.unwrap();
    let view = view(&consumer).await;
    let mut changes = view.changes();
    assert_eq!(added(&next(&mut changes).await), "a");

    soon("the drain", registration.drain(Duration::ZERO)).await.unwrap();
    assert!(matches!(next(&mut changes).await, Change::Removed(_)));
    assert_eq!(view.all()[0].status(), Some("OUT_OF_SERVICE"));
    assert!(consumer.exists(&path("a")).linearizable().await.unwrap().is_some());

    soon("the end", registration.deregister()).await.unwrap();
    assert_eq!(consumer.exists(&path("a")).linearizable().await.unwrap(), None);
    // It said goodbye, so nothing is kept.
    soon("an empty list", async {
        while !view.all().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_registration_that_is_dropped_or_closed_over_takes_its_instance_away() {
    let ensemble = ensemble(1).await;
    let provider = client(&ensemble).await;
    let watcher = client(&ensemble).await;
    let registry = Registry::spring(&provider);

    drop(registry.register(payments("a", 8001)).await.unwrap());
    node_when(&watcher, "a", "the end of the dropped one", |node| node.is_none()).await;

    // The same id at once, behind the deletion.
    let again = soon("the second", registry.register(payments("a", 8001))).await.unwrap();
    drop(again);
    let kept = soon("the third", registry.register(payments("a", 8001))).await.unwrap();
    drop(registry);
    assert!(soon("the close", provider.close(PATIENCE)).await.unwrap().is_complete());
    assert_eq!(watcher.exists(&path("a")).linearizable().await.unwrap(), None);
    let ended = soon("an answer", kept.set_status(Status::Up)).await.unwrap_err();
    assert!(matches!(ended, DiscoveryError::Ended), "{ended:?}");
}

#[tokio::test]
async fn what_is_no_instance_harms_no_other() {
    let ensemble = ensemble(1).await;
    let client = client(&ensemble).await;
    let _good = Registry::spring(&client).register(payments("good", 8001)).await.unwrap();
    client.create(&path("bad")).data("{").await.unwrap();
    client.create(&path("empty")).await.unwrap();
    let dubbo = r#"{"name":"payments","id":"dubbo","address":"h","port":1,"payload":{"@class":"org.apache.dubbo.X"}}"#;
    client.create(&path("dubbo")).data(dubbo).await.unwrap();

    let view = view(&client).await;
    let ids: Vec<_> = view.instances().iter().map(|instance| instance.id().to_owned()).collect();
    assert_eq!(ids, ["dubbo", "good"]);
    assert_eq!(view.skipped(), 1);

    // It may become one.
    let mut changes = view.changes().skip(2);
    client.set(&path("bad"), r#"{"address":"h","port":2}"#).await.unwrap();
    assert_eq!(added(&next(&mut changes).await), "bad");
    assert_eq!(view.skipped(), 0);
}

#[tokio::test]
async fn a_registry_without_metadata_takes_instances_out_by_switching_them_off() {
    let ensemble = ensemble(1).await;
    let client = client(&ensemble).await;
    let registry = Registry::curator(&client, "/discovery", PayloadProfile::None);
    let registration = registry.register(payments("a", 8001)).await.unwrap();
    let view = Discovery::curator(&client, "/discovery").service("payments").watch().await.unwrap();
    soon("the instance", view.wait_for(1, PATIENCE)).await.unwrap();

    soon("the drain", registration.drain(Duration::ZERO)).await.unwrap();

    let node = client.get("/discovery/payments/a").await.unwrap();
    assert_eq!((&json(&node)["payload"], &json(&node)["enabled"]), (&Value::Null, &false.into()));
    soon("an empty view", async {
        while !view.instances().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_view_keeps_what_it_knows_while_no_member_serves_it() {
    let mut ensemble = ensemble(1).await;
    let client = client(&ensemble).await;
    let _registration = Registry::spring(&client).register(payments("a", 8001)).await.unwrap();
    let view = view(&client).await;
    soon("the instance", view.wait_for(1, PATIENCE)).await.unwrap();

    ensemble.kill(1);
    soon("the view to know", async {
        while view.freshness().is_fresh() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(view.instances().len(), 1);
    assert!(view.balancer(RoundRobin).pick().is_ok());

    ensemble.restart(1).await.unwrap();
    soon("the view to be fresh again", async {
        while !view.freshness().is_fresh() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(view.instances().len(), 1);
}
