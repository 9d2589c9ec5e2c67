//! What watch streams promise: the newest state, over reconnects and lost sessions, and no watch left behind.

mod peer;

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use peer::{Conn, Peer, path, soon};
use quorate::{ChildrenEvent, DataEvent, Error, TreeEvent, WatchStream};
use quorate_proto::v1::{self, EventKind, goodbye::Reason, request::Op, unwatch_request::Kind};

async fn next<T>(watch: &mut WatchStream<T>) -> T {
    soon("an item", watch.next()).await.expect("the watch goes on").expect("it is no error")
}

fn data(event: DataEvent) -> Option<String> {
    match event {
        DataEvent::Value(node) => Some(String::from_utf8(node.data.to_vec()).unwrap()),
        DataEvent::Absent => None,
        other => panic!("{other:?}"),
    }
}

/// Polls a watch in the background, so that it sends what it has to send.
fn background<T: Send + 'static>(mut watch: WatchStream<T>) -> tokio::task::JoinHandle<(T, WatchStream<T>)> {
    tokio::spawn(async move {
        let item = next(&mut watch).await;
        (item, watch)
    })
}

async fn answer_get(conn: &mut Conn, value: &str, mzxid: u64) {
    let get = conn.request().await;
    assert!(matches!(&get.op, Some(Op::Get(get)) if get.watch), "{get:?}");
    conn.at_zxid(mzxid);
    conn.node(&get, value, mzxid).await;
}

fn rearm(request: &v1::Request) -> &v1::RearmRequest {
    match &request.op {
        Some(Op::Rearm(rearm)) => rearm,
        other => panic!("{other:?}"),
    }
}

fn unwatched(request: &v1::Request) -> (&str, Kind) {
    match &request.op {
        Some(Op::Unwatch(unwatch)) => (&unwatch.path, unwatch.kind()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_data_watch_starts_with_the_state_and_gives_each_change() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().namespace("app")).await;

    let watch = background(client.watch("/a").data());
    answer_get(&mut conn, "one", 5).await;
    let (event, watch) = watch.await.unwrap();
    assert_eq!(data(event).as_deref(), Some("one"));

    conn.event(6, EventKind::DataChanged, "/app/a").await;
    let watch = background(watch);
    answer_get(&mut conn, "two", 6).await;
    let (event, _watch) = watch.await.unwrap();
    assert_eq!(data(event).as_deref(), Some("two"));
}

#[tokio::test]
async fn a_slow_consumer_gets_the_newest_state_and_no_backlog() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let watch = background(client.watch("/a").data());
    answer_get(&mut conn, "one", 5).await;
    let (_, mut watch) = watch.await.unwrap();

    for zxid in 6..10 {
        conn.event(zxid, EventKind::DataChanged, "/a").await;
    }
    conn.stays_silent(Duration::from_millis(20)).await;
    let next = tokio::spawn(async move {
        let event = next(&mut watch).await;
        (data(event), watch.next().now_or_never().is_none())
    });
    answer_get(&mut conn, "five", 9).await;

    let (value, nothing_more) = next.await.unwrap();
    assert_eq!(value.as_deref(), Some("five"));
    assert!(nothing_more);
}

#[tokio::test]
async fn a_node_that_is_not_there_is_watched_for_its_creation() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;

    let watch = background(client.watch("/a").data());
    let get = conn.request().await;
    conn.refused(&get, v1::Refusal::NoNode).await;
    let exists = conn.request().await;
    assert!(matches!(&exists.op, Some(Op::Exists(exists)) if exists.watch), "{exists:?}");
    conn.exists(&exists, None).await;
    let (event, watch) = watch.await.unwrap();
    assert_eq!(data(event), None);

    conn.event(8, EventKind::Created, "/a").await;
    let watch = background(watch);
    answer_get(&mut conn, "born", 8).await;
    assert_eq!(data(watch.await.unwrap().0).as_deref(), Some("born"));
}

#[tokio::test]
async fn a_node_that_appears_between_two_questions_is_not_missed() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;

    let watch = background(client.watch("/a").data());
    let get = conn.request().await;
    conn.refused(&get, v1::Refusal::NoNode).await;
    let exists = conn.request().await;
    conn.exists(&exists, Some(v1::Stat::default())).await;
    answer_get(&mut conn, "born", 8).await;

    assert_eq!(data(watch.await.unwrap().0).as_deref(), Some("born"));
}

#[tokio::test]
async fn children_are_watched_from_before_their_parent_exists() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;

    let watch = background(client.watch("/svc").children());
    let list = conn.request().await;
    conn.refused(&list, v1::Refusal::NoNode).await;
    let exists = conn.request().await;
    conn.exists(&exists, None).await;
    let (event, watch) = watch.await.unwrap();
    assert_eq!(event, ChildrenEvent::Absent);

    conn.event(8, EventKind::Created, "/svc").await;
    let watch = background(watch);
    let list = conn.request().await;
    assert!(matches!(&list.op, Some(Op::Children(list)) if list.watch), "{list:?}");
    conn.names(&list, &["a", "b"], 9).await;
    let (ChildrenEvent::Set(list), watch) = watch.await.unwrap() else { panic!("there are children") };
    assert_eq!(list.names, ["a", "b"]);

    // The watch for the creation has fired, so only the one on the children is left.
    drop(watch);
    let unwatch = conn.request().await;
    assert_eq!(unwatched(&unwatch), ("/svc", Kind::Children));
    conn.stays_silent(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn what_was_armed_is_set_again_relative_to_what_was_seen() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().auth("digest", "a:b")).await;
    let auth = conn.request().await;
    conn.done(&auth).await;
    let watch = background(client.watch("/a").data());
    answer_get(&mut conn, "one", 40).await;
    let (_, watch) = watch.await.unwrap();
    let absent = background(client.watch("/gone").data());
    let get = conn.request().await;
    conn.refused(&get, v1::Refusal::NoNode).await;
    let exists = conn.request().await;
    conn.at_zxid(42);
    conn.exists(&exists, None).await;
    let (_, absent) = absent.await.unwrap();
    let fired = background(watch);
    let waiting = background(absent);

    drop(conn);
    let mut conn = peer.stream().await;
    conn.attached(1).await;

    let auth = conn.request().await;
    assert!(matches!(auth.op, Some(Op::Auth(_))));
    conn.at_zxid(50);
    conn.done(&auth).await;
    let request = conn.request().await;
    let again = rearm(&request);
    assert_eq!(
        (again.since_zxid, &again.data[..], &again.exists[..]),
        (42, &["/a".to_owned()][..], &["/gone".to_owned()][..])
    );
    // What was missed fires before the answer.
    conn.event(45, EventKind::DataChanged, "/a").await;
    conn.done(&request).await;
    answer_get(&mut conn, "two", 45).await;
    let (event, _watch) = fired.await.unwrap();
    assert_eq!(data(event).as_deref(), Some("two"));
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test]
async fn a_stream_that_breaks_before_the_watches_are_set_does_not_move_the_mark() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let watch = background(client.watch("/a").data());
    answer_get(&mut conn, "one", 40).await;
    let (_, _watch) = watch.await.unwrap();
    drop(conn);

    let mut conn = peer.stream().await;
    conn.attached(1).await;
    assert_eq!(rearm(&conn.request().await).since_zxid, 40);
    drop(conn);

    let mut conn = peer.stream().await;
    conn.attached(1).await;
    assert_eq!(rearm(&conn.request().await).since_zxid, 40);
}

#[tokio::test]
async fn a_lost_session_is_no_reason_to_miss_anything() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let watch = background(client.watch("/a").data());
    answer_get(&mut conn, "one", 40).await;
    let (_, watch) = watch.await.unwrap();
    let watch = background(watch);

    conn.goodbye(Reason::Expired).await;
    let mut conn = peer.stream().await;
    conn.attached_as(8, 1).await;
    let request = conn.request().await;
    assert_eq!(rearm(&request).since_zxid, 40);
    conn.event(41, EventKind::DataChanged, "/a").await;
    conn.done(&request).await;
    answer_get(&mut conn, "two", 41).await;

    assert_eq!(data(watch.await.unwrap().0).as_deref(), Some("two"));
}

#[tokio::test]
async fn a_watch_that_cannot_be_set_again_reads_for_itself() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let watch = background(client.watch("/a").data());
    answer_get(&mut conn, "one", 40).await;
    let (_, watch) = watch.await.unwrap();
    let watch = background(watch);
    drop(conn);

    let mut conn = peer.stream().await;
    conn.attached(1).await;
    let request = conn.request().await;
    conn.refused(&request, v1::Refusal::LimitExceeded).await;
    answer_get(&mut conn, "two", 44).await;

    assert_eq!(data(watch.await.unwrap().0).as_deref(), Some("two"));
}

#[tokio::test]
async fn an_older_state_is_never_given_after_a_newer_one() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let watch = background(client.watch("/a").data());
    answer_get(&mut conn, "new", 9).await;
    let (_, watch) = watch.await.unwrap();
    let watch = background(watch);

    conn.event(10, EventKind::DataChanged, "/a").await;
    answer_get(&mut conn, "old", 8).await;
    conn.event(11, EventKind::DataChanged, "/a").await;
    answer_get(&mut conn, "newest", 11).await;

    assert_eq!(data(watch.await.unwrap().0).as_deref(), Some("newest"));
}

#[tokio::test]
async fn streams_share_a_watch_and_the_last_one_takes_it_away() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let (one, two) = (background(client.watch("/a").data()), background(client.watch("/a").data()));
    answer_get(&mut conn, "one", 5).await;
    answer_get(&mut conn, "one", 5).await;
    let ((_, one), (_, two)) = (one.await.unwrap(), two.await.unwrap());

    drop(one);
    conn.stays_silent(Duration::from_millis(20)).await;
    drop(two);

    let unwatch = conn.request().await;
    assert_eq!(unwatched(&unwatch), ("/a", Kind::Data));
}

#[tokio::test]
async fn a_watch_dropped_before_its_answer_is_taken_away_when_it_comes() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let watch = background(client.watch("/a").data());
    let get = conn.request().await;

    watch.abort();
    assert!(watch.await.is_err());
    conn.node(&get, "x", 5).await;

    let unwatch = conn.request().await;
    assert_eq!(unwatched(&unwatch), ("/a", Kind::Data));
}

#[tokio::test]
async fn errors_are_items_and_the_watch_goes_on() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().namespace("app")).await;
    let mut watch = client.watch("/a").data();
    let watch = tokio::spawn(async move {
        let error = soon("an item", watch.next()).await.unwrap().unwrap_err();
        (error, watch)
    });
    let get = conn.request().await;
    conn.refused(&get, v1::Refusal::NoAuth).await;
    let (error, watch) = watch.await.unwrap();
    assert!(matches!(&error, Error::NoAuth { path } if path == "/a"), "{error:?}");

    let watch = background(watch);
    answer_get(&mut conn, "one", 5).await;
    assert_eq!(data(watch.await.unwrap().0).as_deref(), Some("one"));
}

#[tokio::test]
async fn a_watch_on_no_path_says_so_once() {
    let peer = Peer::start().await;
    let client = peer.client().build().unwrap();
    let mut watch = client.watch("nonsense").children();

    assert!(matches!(watch.next().await, Some(Err(Error::InvalidPath { .. }))));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_when_the_client_is_closed() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let watch = background(client.watch("/a").data());
    answer_get(&mut conn, "one", 5).await;
    let (_, mut watch) = watch.await.unwrap();
    let end = tokio::spawn(async move { (watch.next().await.unwrap(), watch.next().await.is_none()) });

    let closing = tokio::spawn(client.close(peer::PATIENCE));
    let close = conn.request().await;
    conn.done(&close).await;
    assert!(closing.await.unwrap().unwrap().is_complete());

    let (last, ended) = soon("the end", end).await.unwrap();
    assert!(matches!(last, Err(Error::Closed)), "{last:?}");
    assert!(ended);
}

#[tokio::test]
async fn once_deleted_sees_a_deletion_at_once_and_asks_no_more() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let deleted = tokio::spawn(client.watch("/a").once_deleted());
    answer_get(&mut conn, "one", 5).await;

    conn.event(6, EventKind::DataChanged, "/a").await;
    answer_get(&mut conn, "two", 6).await;
    assert!(!deleted.is_finished());
    conn.event(7, EventKind::Deleted, "/a").await;

    soon("the deletion", deleted).await.unwrap().unwrap();
    conn.stays_silent(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn once_deleted_is_over_where_there_is_no_node_and_leaves_no_watch() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let deleted = tokio::spawn(client.watch("/a").once_deleted());

    let get = conn.request().await;
    conn.refused(&get, v1::Refusal::NoNode).await;

    soon("the answer", deleted).await.unwrap().unwrap();
    conn.stays_silent(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn once_deleted_takes_its_watch_away_when_it_is_dropped() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let deleted = tokio::spawn(client.watch("/a").once_deleted());
    answer_get(&mut conn, "one", 5).await;
    // Answered, so the watch is set.
    let sync = tokio::spawn(async move { client.sync("/").await });
    let request = conn.request().await;
    conn.done(&request).await;
    soon("the answer", sync).await.unwrap().unwrap();

    deleted.abort();

    let unwatch = conn.request().await;
    assert_eq!(unwatched(&unwatch), ("/a", Kind::Data));
}

#[tokio::test]
async fn a_recursive_watch_starts_with_resync_and_tells_every_change() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().namespace("app")).await;
    let watch = background(client.watch("/tree").recursive());
    let request = conn.request().await;
    assert_eq!(path(&request), "/app/tree");
    assert!(matches!(&request.op, Some(Op::Watch(watch)) if watch.mode() == v1::WatchMode::PersistentRecursive));
    conn.done(&request).await;
    let (event, mut watch) = watch.await.unwrap();
    assert_eq!(event, TreeEvent::Resync);

    conn.event(5, EventKind::Created, "/app/tree/a").await;
    conn.event(6, EventKind::DataChanged, "/app/tree/a").await;
    conn.event(7, EventKind::Deleted, "/app/tree/a").await;

    assert_eq!(next(&mut watch).await, TreeEvent::Created("/tree/a".into()));
    assert_eq!(next(&mut watch).await, TreeEvent::Changed("/tree/a".into()));
    assert_eq!(next(&mut watch).await, TreeEvent::Deleted("/tree/a".into()));
    drop(watch);
    let unwatch = conn.request().await;
    assert_eq!(unwatched(&unwatch), ("/app/tree", Kind::PersistentRecursive));
}

#[tokio::test]
async fn a_recursive_watch_says_when_changes_may_be_missing() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let watch = background(client.watch("/tree").recursive());
    let request = conn.request().await;
    conn.done(&request).await;
    let (_, mut watch) = watch.await.unwrap();

    // A gap between two streams, as the member tells it.
    drop(conn);
    let mut conn = peer.stream().await;
    conn.attached(1).await;
    let request = conn.request().await;
    assert_eq!(rearm(&request).persistent_recursive, ["/tree"]);
    conn.event(0, EventKind::Resync, "/tree").await;
    conn.done(&request).await;
    assert_eq!(next(&mut watch).await, TreeEvent::Resync);

    // A consumer that falls behind.
    for zxid in 0..1500 {
        conn.event(100 + zxid, EventKind::DataChanged, "/tree/a").await;
    }
    let sync = tokio::spawn({
        let client = client.clone();
        async move { client.sync("/").await }
    });
    let request = conn.request().await;
    conn.done(&request).await;
    soon("the answer", sync).await.unwrap().unwrap();
    assert_eq!(next(&mut watch).await, TreeEvent::Resync);
    conn.event(2000, EventKind::Created, "/tree/b").await;
    assert_eq!(next(&mut watch).await, TreeEvent::Created("/tree/b".into()));
}
