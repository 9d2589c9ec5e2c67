//! What a client does when its member, its stream or its session is gone.

mod peer;

use std::time::Duration;

use futures_util::StreamExt;
use peer::{PATIENCE, Peer, eventually, path, soon};
use quorate::{ChangeReason, Client, Error, LostReason, SessionId, SessionState, StateStream, clock::Clock};
use quorate_proto::v1::{self, goodbye::Reason, request::Op};
use tonic::Status;

async fn next(states: &mut StateStream) -> (SessionState, ChangeReason) {
    let change = soon("a change of state", states.next()).await.expect("the client lives");
    (change.to, change.reason)
}

fn connected(session: u64) -> SessionState {
    SessionState::Connected { session: SessionId(session) }
}

#[tokio::test]
async fn a_lease_is_counted_from_before_the_attachment_was_asked_for() {
    let mut peer = Peer::start().await;
    let client = peer.client().build().unwrap();
    let conn = peer.stream().await;
    let before = client.clock().now();
    // However long the answer takes, the lease does not start later.
    tokio::time::sleep(Duration::from_millis(50)).await;
    conn.attached(1).await;
    client.ready(PATIENCE).await.unwrap();

    let session = client.session().unwrap();

    let lease = session.lease_until().saturating_duration_since(before);
    assert!(lease <= Duration::from_secs(18), "{lease:?}");
    assert!(session.is_live());
}

#[tokio::test]
async fn a_broken_stream_is_followed_by_another_for_the_same_session() {
    let mut peer = Peer::start().await;
    let client = peer.client().client_name("tester").build().unwrap();
    let mut states = client.states();
    let conn = peer.stream().await;
    assert_eq!(conn.attach.client_name, "tester");
    assert_eq!(conn.attach.timeout_ms, 20_000);
    conn.attached(1).await;
    assert_eq!(next(&mut states).await, (connected(7), ChangeReason::Opened));

    drop(conn);

    let conn = peer.stream().await;
    let key = conn.attach.resume.clone().unwrap();
    assert_eq!((key.session_id, &key.password[..]), (7, &[7; 16][..]));
    conn.attached(1).await;
    let (suspended, reason) = next(&mut states).await;
    assert!(matches!(suspended, SessionState::Suspended { session: SessionId(7), .. }), "{suspended:?}");
    assert_eq!(reason, ChangeReason::ConnectionLost);
    assert_eq!(next(&mut states).await, (connected(7), ChangeReason::Resumed));
    assert_eq!(client.epoch(), 3);
}

#[tokio::test]
async fn unanswered_requests_go_out_again_in_order_and_writes_under_their_old_numbers() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let calls = tokio::spawn(async move {
        tokio::join!(
            async { client.set("/a", "1").await.unwrap().version },
            async { client.set("/b", "2").await.unwrap().version },
            async { client.get("/c").await.unwrap().data },
            async { client.set("/d", "3").await.unwrap().version },
        )
    });
    let (first, a) = conn.write().await;
    assert_eq!((first, path(&a)), (1, "/a"));
    conn.stat(&a, 11).await;
    let (second, b) = conn.write().await;
    assert_eq!((second, path(&b)), (2, "/b"));
    let c = conn.request().await;
    assert_eq!((c.write, path(&c)), (0, "/c"));
    let (third, d) = conn.write().await;
    assert_eq!((third, path(&d)), (3, "/d"));
    assert_eq!((a.seq, b.seq, c.seq, d.seq), (1, 2, 3, 4));

    drop(conn);
    let mut conn = peer.stream().await;
    // The second was applied and its reply was lost, the third never arrived.
    conn.attached(3).await;

    let (again, b) = conn.write().await;
    assert_eq!((again, path(&b), b.seq, b.answered), (2, "/b", 1, 1));
    conn.stat(&b, 22).await;
    let c = conn.request().await;
    assert_eq!(path(&c), "/c");
    conn.node(&c, "data", 5).await;
    let (again, d) = conn.write().await;
    assert_eq!((again, path(&d)), (3, "/d"));
    conn.stat(&d, 33).await;
    let answers = soon("the answers", calls).await.unwrap();
    assert_eq!(answers, (11, 22, "data".into(), 33));
}

#[tokio::test]
async fn numbers_the_ensemble_does_not_know_are_given_anew() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn(async move {
        // Answered by the member alone, without a trace in the log.
        let refused = client.set("/a", "1").await;
        assert!(matches!(refused, Err(Error::LimitExceeded { .. })), "{refused:?}");
        client.set("/b", "2").await.unwrap().version
    });
    let (_, a) = conn.write().await;
    conn.refused(&a, v1::Refusal::LimitExceeded).await;
    let (number, b) = conn.write().await;
    assert_eq!((number, b.answered), (2, 1));
    conn.refused(&b, v1::Refusal::Gap).await;

    let mut conn = peer.stream().await;
    conn.attached(1).await;

    let (number, b) = conn.write().await;
    assert_eq!((number, b.answered, path(&b)), (1, 0, "/b"));
    conn.stat(&b, 5).await;
    assert_eq!(soon("the answer", call).await.unwrap(), 5);
}

#[tokio::test]
async fn a_declined_write_leaves_its_number_to_the_next_once_all_are_answered() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let set = |path: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.set(path, "x").await })
    };
    let ok = set("/ok");
    let (_, request) = conn.write().await;
    conn.stat(&request, 1).await;
    soon("the answer", ok).await.unwrap().unwrap();
    let (first, second) = (set("/2"), set("/3"));
    let (two, three) = (conn.write().await, conn.write().await);
    assert_eq!((two.0, three.0), (2, 3));

    conn.refused(&two.1, v1::Refusal::DiskFull).await;
    assert!(matches!(soon("the answer", first).await.unwrap(), Err(Error::DiskFull)));
    // Held back, and what stands behind it too, while a write is under way.
    let held = set("/4");
    conn.stays_silent(Duration::from_millis(30)).await;
    conn.refused(&three.1, v1::Refusal::DiskFull).await;
    assert!(matches!(soon("the answer", second).await.unwrap(), Err(Error::DiskFull)));

    let (number, request) = conn.write().await;
    assert_eq!((number, path(&request), request.answered), (2, "/4", 1));
    conn.stat(&request, 1).await;
    soon("the answer", held).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_that_breaks_among_declined_writes_goes_on_from_the_declined_number() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let set = |path: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.set(path, "x").await })
    };
    let (first, second) = (set("/1"), set("/2"));
    let one = conn.write().await.1;
    conn.write().await;
    conn.refused(&one, v1::Refusal::DiskFull).await;
    assert!(matches!(soon("the answer", first).await.unwrap(), Err(Error::DiskFull)));

    drop(conn);
    let mut conn = peer.stream().await;
    conn.attached(1).await;

    let (number, request) = conn.write().await;
    assert_eq!((number, path(&request)), (1, "/2"));
    conn.stat(&request, 1).await;
    soon("the answer", second).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_session_that_has_done_more_than_this_client_is_given_up() {
    let mut peer = Peer::start().await;
    let (client, conn) = peer.opened(peer.client()).await;
    let session = client.session().unwrap();
    drop(conn);

    let conn = peer.stream().await;
    conn.attached(99).await;

    assert_eq!(soon("the loss", session.lost()).await, LostReason::Protocol);
}

#[tokio::test]
async fn last_words_are_understood() {
    for (reason, expected) in [
        (Reason::GoElsewhere, ChangeReason::MemberLeft),
        (Reason::Moved, ChangeReason::ConnectionLost),
        (Reason::TooSlow, ChangeReason::ConnectionLost),
        (Reason::Protocol, ChangeReason::ConnectionLost),
        (Reason::Expired, ChangeReason::Lost(LostReason::SessionExpired)),
        (Reason::Closed, ChangeReason::Lost(LostReason::SessionExpired)),
    ] {
        let mut peer = Peer::start().await;
        let (client, conn) = peer.opened(peer.client()).await;
        let mut states = client.states();

        conn.goodbye(reason).await;

        assert_eq!(next(&mut states).await.1, expected, "{reason:?}");
        let resumes = !matches!(expected, ChangeReason::Lost(_));
        assert_eq!(peer.stream().await.attach.resume.is_some(), resumes, "{reason:?}");
    }
}

#[tokio::test]
async fn a_member_that_leaves_is_tried_last() {
    // The order is random.
    for _ in 0..5 {
        let (mut leaving, mut staying) = (Peer::start().await, Peer::start().await);
        let endpoints = [leaving.endpoint(), staying.endpoint()];
        let client = Client::builder(&endpoints[..]).session_timeout(Duration::from_secs(20)).build().unwrap();
        let (conn, other) = tokio::select! {
            conn = leaving.stream() => (conn, &mut staying),
            conn = staying.stream() => (conn, &mut leaving),
        };
        conn.attached(1).await;
        client.ready(PATIENCE).await.unwrap();

        conn.goodbye(Reason::GoElsewhere).await;

        let conn = other.stream().await;
        assert!(conn.attach.resume.is_some());
        conn.attached(1).await;
        eventually("being connected", || client.state().is_connected()).await;
    }
}

#[tokio::test]
async fn a_dead_address_among_others_does_no_harm() {
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };

    // The order is random.
    for _ in 0..5 {
        let mut peer = Peer::start().await;
        let builder = Client::builder([dead.clone(), peer.endpoint()]);
        peer.opened(builder).await;
    }
}

#[tokio::test]
async fn connecting_to_nobody_says_what_was_met() {
    let dead = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    let client = Client::builder(dead.as_str()).build().unwrap();

    let error = client.ready(Duration::from_millis(300)).await.unwrap_err();

    let Error::Unreachable { message } = &error else { panic!("{error:?}") };
    assert!(message.contains(dead.trim_start_matches("http://")), "{message}");
    assert!(message.contains("refused"), "{message}");
}

#[tokio::test]
async fn a_member_that_does_not_answer_heartbeats_is_left_before_the_lease_ends() {
    let (mut one, mut two) = (Peer::start().await, Peer::start().await);
    let endpoints = [one.endpoint(), two.endpoint()];
    let client = Client::builder(&endpoints[..]).session_timeout(Duration::from_secs(3)).build().unwrap();
    let (conn, other) = tokio::select! {
        conn = one.stream() => (conn, &mut two),
        conn = two.stream() => (conn, &mut one),
    };
    conn.attached(1).await;
    client.ready(PATIENCE).await.unwrap();
    let session = client.session().unwrap();
    let mut states = client.states();

    conn.mute(true);

    assert_eq!(next(&mut states).await.1, ChangeReason::ConnectionLost);
    assert!(session.is_live());
    let conn = other.stream().await;
    assert_eq!(conn.attach.resume.as_ref().unwrap().session_id, 7);
    conn.attached(1).await;
    assert_eq!(next(&mut states).await, (connected(7), ChangeReason::Resumed));
}

#[tokio::test]
async fn heartbeats_keep_a_session_that_does_nothing_else() {
    let mut peer = Peer::start().await;
    let builder = peer.client().session_timeout(Duration::from_millis(600));
    let (client, _conn) = peer.opened(builder).await;
    let session = client.session().unwrap();
    let first = session.lease_until();

    eventually("a lease renewed several times", || {
        session.lease_until().saturating_duration_since(first) > Duration::from_millis(1500)
    })
    .await;

    assert!(session.is_live());
    assert_eq!(client.epoch(), 1);
}

#[tokio::test]
async fn a_session_given_up_by_the_clients_own_clock_is_closed_before_the_next_is_opened() {
    let mut peer = Peer::start().await;
    let (clock, skew) = Clock::skewed();
    let (client, mut conn) = peer.opened(peer.client().clock(clock)).await;
    let session = client.session().unwrap();
    let mut states = client.states();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.set("/a", "1").await }
    });
    conn.write().await;

    skew.sleep(Duration::from_secs(60));

    // At once, whatever the link has noticed.
    assert!(!session.is_live());
    assert_eq!(soon("the loss", session.lost()).await, LostReason::LocalDeadline);
    let lost = SessionState::Lost { reason: LostReason::LocalDeadline };
    assert_eq!(next(&mut states).await, (lost, ChangeReason::Lost(LostReason::LocalDeadline)));
    assert_eq!(next(&mut states).await, (SessionState::Connecting, ChangeReason::Reopening));
    let unknown = soon("the answer", call).await.unwrap().unwrap_err();
    assert!(unknown.is_unknown_outcome(), "{unknown}");

    let mut old = peer.stream().await;
    assert_eq!(old.attach.resume.as_ref().unwrap().session_id, 7);
    old.attached(2).await;
    let close = old.request().await;
    assert!(matches!(close.op, Some(Op::Close(_))), "{close:?}");
    peer.stays_alone(Duration::from_millis(50)).await;
    old.done(&close).await;

    let conn = peer.stream().await;
    assert_eq!(conn.attach.resume, None);
    conn.attached_as(8, 1).await;
    assert_eq!(next(&mut states).await, (connected(8), ChangeReason::Opened));
    assert!(!session.is_live());
    assert!(client.session().unwrap().is_live());
}

#[tokio::test]
async fn an_answer_that_comes_after_the_lease_does_not_bring_it_back() {
    let mut peer = Peer::start().await;
    let (clock, skew) = Clock::skewed();
    let (client, mut conn) = peer.opened(peer.client().clock(clock)).await;
    let session = client.session().unwrap();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.get("/a").await }
    });
    let get = conn.request().await;

    skew.sleep(Duration::from_secs(60));
    conn.node(&get, "old", 5).await;

    assert_eq!(soon("the loss", session.lost()).await, LostReason::LocalDeadline);
    // The read is made again, in the next session.
    let mut old = peer.stream().await;
    old.attached(1).await;
    let close = old.request().await;
    old.done(&close).await;
    let mut conn = peer.stream().await;
    conn.attached_as(8, 1).await;
    let get = conn.request().await;
    conn.node(&get, "new", 6).await;
    assert_eq!(soon("the answer", call).await.unwrap().unwrap().data, "new");
}

#[tokio::test]
async fn an_expired_session_leaves_sent_writes_unknown_and_the_rest_goes_on() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = |path: &'static str| {
        let client = client.clone();
        tokio::spawn(async move { client.set(path, "x").await })
    };
    let sent = call("/sent");
    conn.write().await;
    let read = tokio::spawn({
        let client = client.clone();
        async move { client.get("/read").await }
    });
    conn.request().await;
    drop(conn);
    eventually("the suspension", || !client.state().is_connected()).await;
    let unsent = call("/unsent");
    tokio::task::yield_now().await;

    peer.stream().await.refuse(Status::not_found("expired")).await;

    let error = soon("the answer", sent).await.unwrap().unwrap_err();
    let Error::SessionLost { reason: LostReason::SessionExpired, ambiguous: true } = error else { panic!("{error:?}") };
    let mut conn = peer.stream().await;
    assert_eq!(conn.attach.resume, None);
    conn.attached_as(8, 1).await;
    let get = conn.request().await;
    assert_eq!(path(&get), "/read");
    conn.node(&get, "x", 1).await;
    let (number, set) = conn.write().await;
    assert_eq!((number, path(&set), set.answered), (1, "/unsent", 0));
    conn.stat(&set, 1).await;
    assert!(soon("the answer", read).await.unwrap().is_ok());
    assert!(soon("the answer", unsent).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_strict_client_ends_with_its_session() {
    let mut peer = Peer::start().await;
    let (client, conn) = peer.opened(peer.client().single_session(true)).await;
    let mut watch = client.watch("/a").data();

    conn.goodbye(Reason::Expired).await;

    eventually("the loss", || matches!(client.state(), SessionState::Lost { .. })).await;
    let error = client.get("/a").await.unwrap_err();
    assert!(matches!(error, Error::SessionLost { reason: LostReason::SessionExpired, ambiguous: false }), "{error:?}");
    assert!(client.ready(PATIENCE).await.is_err());
    let mut attempts = 0;
    let retried = client.retry(|| {
        attempts += 1;
        client.get("/a").into_future()
    });
    assert!(soon("an answer", retried).await.is_err());
    assert_eq!(attempts, 1, "there is nothing to try again");
    assert!(soon("the end of a watch", watch.next()).await.unwrap().is_err());
    assert!(soon("the end of a watch", watch.next()).await.is_none());
    peer.stays_alone(Duration::from_millis(50)).await;
    let drained = soon("closing", client.close(PATIENCE)).await.unwrap();
    assert!(drained.is_complete(), "{drained:?}");
}

#[tokio::test]
async fn credentials_go_first_on_every_stream() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().auth("digest", "tom:secret").auth("digest", "tim:x")).await;
    let call = tokio::spawn(async move { client.get("/a").await });
    for _ in 0..2 {
        for credential in ["tom:secret", "tim:x"] {
            let request = conn.request().await;
            let Some(Op::Auth(auth)) = &request.op else { panic!("{request:?}") };
            assert_eq!((auth.scheme.as_str(), &auth.credential[..]), ("digest", credential.as_bytes()));
            conn.done(&request).await;
        }
        let get = conn.request().await;
        assert_eq!(path(&get), "/a");

        drop(conn);
        conn = peer.stream().await;
        conn.attached(1).await;
    }
    call.abort();
}

#[tokio::test]
async fn a_credential_that_is_refused_ends_the_client() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client().auth("digest", "nonsense")).await;

    let auth = conn.request().await;
    conn.refused(&auth, v1::Refusal::AuthFailed).await;

    eventually("the end", || client.state() == SessionState::Lost { reason: LostReason::Auth }).await;
    assert!(matches!(client.get("/a").await, Err(Error::AuthFailed)));
}

#[tokio::test]
async fn a_request_that_waits_too_long_is_answered_all_the_same() {
    let mut peer = Peer::start().await;
    let builder = peer.client().request_timeout(Duration::from_millis(200));
    let (client, mut conn) = peer.opened(builder).await;

    let (write, read) = soon("the answers", async { tokio::join!(client.set("/a", "1"), client.get("/b")) }).await;

    let write = write.unwrap_err();
    assert!(matches!(write, Error::Timeout { op: "set", ambiguous: true, .. }), "{write:?}");
    let read = read.unwrap_err();
    assert!(matches!(read, Error::Timeout { op: "get", ambiguous: false, .. }), "{read:?}");
    // The number is in use, so the write goes out again on the next stream.
    conn.write().await;
    drop(conn);
    let mut conn = peer.stream().await;
    conn.attached(1).await;
    let (number, set) = conn.write().await;
    assert_eq!(number, 1);
    conn.stat(&set, 1).await;
    conn.stays_silent(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn a_request_larger_than_a_frame_is_refused_and_leaves_no_gap() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;

    let large = client.set("/a", vec![0; 2 * 1024 * 1024]).await.unwrap_err();
    assert!(matches!(large, Error::RequestTooLarge { bytes_max: 1_048_576, .. }), "{large:?}");

    let call = tokio::spawn(async move { client.set("/b", "small").await });
    let (number, set) = conn.write().await;
    assert_eq!((number, set.seq), (1, 1));
    conn.stat(&set, 1).await;
    assert!(soon("the answer", call).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_reply_out_of_order_is_not_given_to_the_wrong_caller() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn(async move { client.get("/a").await });
    let get = conn.request().await;

    conn.node(&v1::Request { seq: get.seq + 5, ..get }, "wrong", 1).await;

    let mut conn = peer.stream().await;
    conn.attached(1).await;
    let get = conn.request().await;
    conn.node(&get, "right", 1).await;
    assert_eq!(soon("the answer", call).await.unwrap().unwrap().data, "right");
}

#[tokio::test]
async fn a_closed_client_has_let_its_tasks_end_and_its_session_closed() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let mut states = client.states();
    let shutdown = client.shutdown_token();
    client.spawn({
        let client = client.clone();
        async move {
            shutdown.cancelled().await;
            client.delete("/mine").await.unwrap();
        }
    });
    let session = client.session().unwrap();
    let other = client.clone();

    let closing = tokio::spawn(client.close(PATIENCE));
    let delete = conn.request().await;
    assert_eq!(path(&delete), "/mine");
    conn.done(&delete).await;
    let close = conn.request().await;
    assert!(matches!(close.op, Some(Op::Close(_))), "{close:?}");
    conn.done(&close).await;

    let drained = soon("closing", closing).await.unwrap().unwrap();
    assert!(drained.is_complete(), "{drained:?}");
    assert_eq!(session.lost_reason(), Some(LostReason::ClientClosed));
    assert_eq!(next(&mut states).await, (SessionState::Closed, ChangeReason::Closed));
    assert!(soon("the end", states.next()).await.is_none());
    assert!(matches!(other.get("/a").await, Err(Error::Closed)));
    conn.ended().await;
}

#[tokio::test]
async fn the_last_clone_closes_the_session_behind_itself() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let clone = client.clone();

    drop(client);
    conn.stays_silent(Duration::from_millis(20)).await;
    drop(clone);

    let close = conn.request().await;
    assert!(matches!(close.op, Some(Op::Close(_))), "{close:?}");
    conn.done(&close).await;
    conn.ended().await;
}

#[tokio::test]
async fn closing_without_a_member_ends_in_its_time() {
    let client = Client::builder("http://127.0.0.1:1").build().unwrap();
    let drained = soon("closing", client.close(Duration::from_millis(100))).await.unwrap();
    assert!(drained.is_complete(), "there was no session: {drained:?}");

    let mut peer = Peer::start().await;
    let (client, conn) = peer.opened(peer.client()).await;
    drop(conn);
    peer.vanish();
    eventually("the suspension", || !client.state().is_connected()).await;
    let drained = soon("closing", client.close(Duration::from_millis(100))).await.unwrap();
    assert!(!drained.session_closed);
}

#[tokio::test]
async fn a_session_never_shows_less_than_the_client_has_seen() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.get("/a").await }
    });
    let get = conn.request().await;
    conn.at_zxid(42);
    conn.node(&get, "x", 40).await;
    soon("the answer", call).await.unwrap().unwrap();
    conn.goodbye(Reason::Expired).await;

    // Not even the next session.
    assert_eq!(peer.stream().await.attach.last_zxid, 42);
}

#[tokio::test]
async fn a_trace_travels_with_the_request() {
    let mut peer = Peer::start().await;
    let (client, mut conn) = peer.opened(peer.client()).await;
    let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    let call = tokio::spawn(async move { quorate::with_traceparent(header, client.sync("/")).await });

    let sync = conn.request().await;
    assert_eq!(sync.traceparent, header);
    conn.done(&sync).await;
    soon("the answer", call).await.unwrap().unwrap().unwrap();
}
