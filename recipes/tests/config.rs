//! Settings on real members: changes arrive once, typed and whole, and a bad one changes nothing.

use std::{future::Future, time::Duration};

use futures_util::{Stream, StreamExt};
use quorate::Client;
use quorate_recipes::config::{Config, ConfigError, ConfigEvent, Env, Live, Origin};
use quorate_sidecar::testing::TestEnsemble;
use serde::Deserialize;

const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

async fn ensemble(members: u8) -> TestEnsemble {
    TestEnsemble::builder().members(members).tick(Duration::from_millis(500)).start().await.unwrap()
}

async fn client(ensemble: &TestEnsemble) -> Client {
    Client::builder(ensemble.endpoints()).session_timeout(Duration::from_secs(10)).connect().await.unwrap()
}

async fn put(client: &Client, path: &str, value: impl ToString) {
    client.set(path, value.to_string()).or_create().await.unwrap();
}

async fn orders(client: &Client) -> Config {
    Config::spring(client).application("orders").profiles(["prod"]).debounce(Duration::ZERO).build().await.unwrap()
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Pool {
    max: u32,
    #[serde(default)]
    hosts: Vec<String>,
}

async fn live(config: &Config) -> Live<Pool> {
    config.live::<Pool>("pool").validate(|pool: &Pool| pool.max > 0).await.unwrap()
}

async fn next<T>(events: &mut (impl Stream<Item = T> + Unpin)) -> T {
    soon("an event", events.next()).await.expect("the configuration goes on")
}

#[tokio::test]
async fn stronger_contexts_win_and_the_environment_wins_over_all() {
    let ensemble = ensemble(1).await;
    let client = client(&ensemble).await;
    put(&client, "/config/application/server/port", 1).await;
    put(&client, "/config/application/db.url", "shared").await;
    put(&client, "/config/application,prod/server.port", 2).await;
    put(&client, "/config/orders/server/port", 3).await;
    put(&client, "/config/orders,test/server/port", 4).await;
    put(&client, "/config/orders,prod/db/maxSize", 5).await;

    let env = Env::of("ORDERS_", [("ORDERS_DB_MAX_SIZE".to_owned(), "6".to_owned())]);
    let config =
        Config::spring(&client).application("orders").profiles(["prod"]).override_with(env).build().await.unwrap();

    assert_eq!(config.get::<u16>("server.port").unwrap(), 3);
    assert_eq!(config.get::<String>("db.url").unwrap(), "shared");
    assert_eq!(config.get::<u16>("db.max-size").unwrap(), 6);
    assert_eq!(config.get::<Option<u16>>("nothing").unwrap(), None);
    let expected = Origin::Node { path: "/config/orders/server/port".into() };
    assert_eq!(config.origin("server.port"), Some(expected));
    let wrong = config.get::<bool>("db.url").unwrap_err();
    assert_eq!(wrong.to_string(), "db.url: is neither true nor false (from /config/application/db.url)");
    assert!(config.freshness().is_fresh());
}

#[tokio::test]
async fn a_change_arrives_once_and_typed_and_a_reconnect_is_none() {
    let mut ensemble = ensemble(3).await;
    let (reader, writer) = (client(&ensemble).await, client(&ensemble).await);
    put(&writer, "/config/orders/pool/max", 1).await;
    let config = orders(&reader).await;
    let live = live(&config).await;
    let (mut values, mut changes) = (live.changes(), config.changes());
    assert_eq!(live.load().max, 1);

    put(&writer, "/config/orders/pool/max", 2).await;
    assert_eq!(next(&mut values).await.max, 2);
    let change = next(&mut changes).await;
    assert_eq!((change.added.len(), change.changed, change.removed.len()), (0, vec!["pool.max".to_owned()], 0));
    assert!(live.revision() >= change.revision);

    // The same value is none, nor is reading everything again after a lost connection.
    put(&writer, "/config/orders/pool/max", 2).await;
    let mut states = reader.states();
    let sessions = reader.admin().sessions().await.unwrap();
    let mine = reader.session().unwrap().id();
    let serving = sessions.iter().find(|info| info.id == mine).unwrap().member as u8;
    ensemble.kill(serving);
    soon("the session to be resumed", async { while !states.next().await.unwrap().to.is_connected() {} }).await;
    soon("a look", config.refresh()).await.unwrap();

    put(&writer, "/config/orders/pool/max", 3).await;
    assert_eq!(next(&mut values).await.max, 3);
    assert_eq!(next(&mut changes).await.changed, ["pool.max"]);
    assert_eq!(live.load().max, 3);
}

#[tokio::test]
async fn a_bad_change_is_reported_and_keeps_the_last_good_value() {
    let ensemble = ensemble(1).await;
    let client = client(&ensemble).await;
    put(&client, "/config/orders/pool/max", 1).await;
    let config = orders(&client).await;
    let live = live(&config).await;
    let mut events = live.events();

    // Not of the type, then not valid: both keep what was good.
    for (value, reason) in [("many", "is no u32"), ("0", "the check says no")] {
        put(&client, "/config/orders/pool/max", value).await;
        match next(&mut events).await {
            ConfigEvent::Rejected { error, revision } => {
                assert!(error.to_string().contains(reason), "{error}");
                assert!(revision > live.revision());
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(live.load().max, 1);
        assert!(live.rejected().is_some());
    }

    put(&client, "/config/orders/pool/max", 2).await;
    assert!(matches!(next(&mut events).await, ConfigEvent::Changed { value, .. } if value.max == 2));
    assert!(live.rejected().is_none());

    // A missing one is bad as well, and a check that panics does no harm.
    let fragile = config.live::<Pool>("pool").validate(|pool: &Pool| -> bool {
        assert!(pool.max < 5);
        true
    });
    let fragile = fragile.await.unwrap();
    client.delete("/config/orders/pool/max").await.unwrap();
    assert!(matches!(next(&mut events).await, ConfigEvent::Rejected { .. }));
    let mut fragile_events = fragile.events();
    put(&client, "/config/orders/pool/max", 7).await;
    assert!(matches!(next(&mut events).await, ConfigEvent::Changed { value, .. } if value.max == 7));
    match next(&mut fragile_events).await {
        ConfigEvent::Rejected { error, .. } => assert!(matches!(error, ConfigError::Invalid { .. }), "{error:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(fragile.load().max, 2);
}

#[tokio::test]
async fn the_first_value_must_be_good() {
    let ensemble = ensemble(1).await;
    let config = orders(&client(&ensemble).await).await;

    let missing = config.live::<Pool>("pool").await.unwrap_err();
    assert_eq!(missing.to_string(), "pool.max: is not set");

    config.edit().set("pool.max", 0).commit().await.unwrap();
    let bad = config.live::<Pool>("pool").validate(|_: &Pool| Err::<(), _>("never")).await.unwrap_err();
    assert_eq!(bad.to_string(), "pool was rejected: never");
}

#[tokio::test]
async fn keys_that_are_changed_in_one_step_change_as_one() {
    // More than are read at a time, and several steps while they are read.
    const KEYS: usize = 200;
    const BURSTS: usize = 8;
    const STEPS: usize = 4;
    let ensemble = ensemble(3).await;
    let (reader, writer) = (client(&ensemble).await, client(&ensemble).await);
    let keys = (0..KEYS).map(|key| format!("batch.k{key}"));
    let first = keys.clone().fold(orders(&writer).await.edit(), |edit, key| edit.set(key, 0));
    first.commit().await.unwrap();
    let config = orders(&reader).await;
    let mut changes = config.changes();

    let mut last = 0;
    for _ in 0..BURSTS {
        let writing = async {
            for _ in 0..STEPS {
                last += 1;
                let paths = keys.clone().map(|key| format!("/config/orders/{key}"));
                let step = paths.fold(writer.txn(), |txn, path| txn.set(path, last.to_string()));
                soon("a step", step.commit()).await.unwrap();
            }
        };
        let reading = async {
            loop {
                let change = next(&mut changes).await;
                let snapshot = config.snapshot();
                let values: Vec<usize> = keys.clone().map(|key| snapshot.get(&key).unwrap()).collect();
                assert!(values.iter().all(|value| *value == values[0]), "half of a step: {values:?}");
                assert_eq!((change.added.len(), change.changed.len(), change.removed.len()), (0, KEYS, 0));
                if values[0].is_multiple_of(STEPS) {
                    break;
                }
            }
        };
        tokio::join!(writing, reading);
    }
    assert_eq!(config.get::<usize>("batch.k0").unwrap(), BURSTS * STEPS);
}

#[tokio::test]
async fn the_newest_state_is_not_missed_when_members_die() {
    let mut ensemble = ensemble(3).await;
    let (reader, writer) = (client(&ensemble).await, client(&ensemble).await);
    put(&writer, "/config/orders/pool/max", 1).await;
    let config = orders(&reader).await;
    let live = live(&config).await;
    let mut values = live.changes();

    let mut max = 1;
    for round in 0..3 {
        let member = match round {
            0 => soon("a leader", ensemble.leader()).await.unwrap(),
            // Whoever serves the reader.
            _ => {
                let mine = reader.session().unwrap().id();
                let sessions = soon("the sessions", reader.admin().sessions()).await.unwrap();
                sessions.iter().find(|info| info.id == mine).unwrap().member as u8
            }
        };
        let writing = async {
            for _ in 0..20 {
                max += 1;
                put(&writer, "/config/orders/pool/max", max).await;
            }
        };
        let killing = async { ensemble.kill(member) };
        tokio::join!(writing, killing);
        soon("the newest value", async { while values.next().await.unwrap().max != max {} }).await;
        assert_eq!(live.load().max, max);
        ensemble.restart(member).await.unwrap();
        soon("all members", ensemble.ready()).await.unwrap();
    }
}

#[tokio::test]
async fn what_changed_while_the_session_was_lost_is_seen() {
    let ensemble = ensemble(1).await;
    let (reader, writer) = (client(&ensemble).await, client(&ensemble).await);
    put(&writer, "/config/orders/pool/max", 1).await;
    put(&writer, "/config/orders/pool/hosts", "a,b").await;
    let config = orders(&reader).await;
    let live = live(&config).await;
    let mut values = live.changes();

    ensemble.expire_session(reader.session().unwrap().id().0).await.unwrap();
    let edit = writer.txn().set("/config/orders/pool/max", "2").delete("/config/orders/pool/hosts").commit();
    let revision = soon("the edit", edit).await.unwrap().zxid();

    assert_eq!(*next(&mut values).await, Pool { max: 2, hosts: Vec::new() });
    assert!(live.revision() >= revision);
}

#[tokio::test]
async fn two_who_edit_one_key_do_not_overwrite_each_other() {
    let ensemble = ensemble(1).await;
    let (one, two) = (orders(&client(&ensemble).await).await, orders(&client(&ensemble).await).await);
    one.edit().set("pool.max", 1).commit().await.unwrap();
    two.refresh().await.unwrap();

    let begun = two.edit().set("pool.max", 3).set("pool.other", 3);
    one.edit().set("pool.max", 2).commit().await.unwrap();
    let conflict = begun.commit().await.unwrap_err();
    assert!(matches!(&conflict, ConfigError::Conflict { key } if key == "pool.max"), "{conflict:?}");
    assert_eq!(two.get::<Option<u8>>("pool.other").unwrap(), None);

    // After a conflict the newest is known, so that trying again makes sense.
    assert_eq!(two.get::<u8>("pool.max").unwrap(), 2);
    two.edit().set("pool.max", 3).commit().await.unwrap();
    one.refresh().await.unwrap();
    assert_eq!(one.get::<u8>("pool.max").unwrap(), 3);

    // Two that create one key.
    let begun = one.edit().set("new", 1);
    two.edit().set("new", 2).commit().await.unwrap();
    assert!(matches!(begun.commit().await, Err(ConfigError::Conflict { .. })));
}

#[tokio::test]
async fn edits_reach_the_context_they_are_meant_for_and_leave_nothing_behind() {
    let ensemble = ensemble(1).await;
    let client = client(&ensemble).await;
    put(&client, "/config/orders/db/pool/max", 1).await;
    let config = orders(&client).await;

    let revision = config.edit().profile("prod").set("db.pool.max", 2).commit().await.unwrap();
    // Whoever made it sees it at once.
    assert!(config.revision() >= revision);
    assert_eq!(client.get("/config/orders,prod/db.pool.max").await.unwrap().data, "2");
    assert_eq!(config.get::<u8>("db.pool.max").unwrap(), 2);

    config.edit().shared().set("shared", "x").commit().await.unwrap();
    assert_eq!(client.get("/config/application/shared").await.unwrap().data, "x");
    let unknown = config.edit().profile("test").set("a", 1).commit().await.unwrap_err();
    assert!(matches!(unknown, ConfigError::Profile { .. }), "{unknown:?}");

    let mut changes = config.changes();
    config.edit().remove("db.pool.max").commit().await.unwrap();
    assert_eq!(config.get::<u8>("db.pool.max").unwrap(), 2);
    assert_eq!(client.exists("/config/orders/db").await.unwrap(), None);
    config.edit().profile("prod").remove("db.pool.max").commit().await.unwrap();
    assert_eq!(next(&mut changes).await.removed, ["db.pool.max"]);

    // A whole context can go.
    let before = config.revision();
    client.delete("/config/application").recursive().await.unwrap();
    assert_eq!(next(&mut changes).await.removed, ["shared"]);
    soon("a look", config.refresh()).await.unwrap();
    assert!(config.revision() > before);
    config.edit().shared().set("shared", "y").commit().await.unwrap();
    assert_eq!(config.get::<String>("shared").unwrap(), "y");
}

#[tokio::test]
async fn streams_end_with_the_client() {
    let ensemble = ensemble(1).await;
    let client = client(&ensemble).await;
    put(&client, "/config/orders/pool/max", 1).await;
    let config = orders(&client).await;
    let live = live(&config).await;
    let (mut values, mut changes) = (live.changes(), config.changes());

    assert!(soon("the close", client.close(PATIENCE)).await.unwrap().is_complete());

    assert!(soon("the end", values.next()).await.is_none());
    assert!(soon("the end", changes.next()).await.is_none());
    assert_eq!(live.load().max, 1);
    assert!(config.live::<Pool>("pool").await.unwrap().changes().next().await.is_none());
    assert!(matches!(soon("an answer", config.refresh()).await, Err(ConfigError::Client(_))));
}
