use std::{net::SocketAddr, time::Duration};

use parking_lot::Mutex;
use quorate_tree::{MemberId, SessionId, Zxid};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::{config::Address, net::Bounds, telemetry::metrics::Levels};

const WITHIN: Duration = Duration::from_secs(20);

/// A member as a test wants it.
struct Member {
    failed: Mutex<Option<&'static str>>,
    sessions: u64,
}

impl StatusSource for Member {
    fn status(&self) -> Status {
        let voter = |id| MemberStatus { id, peer_address: "h:1".into(), voter: true, matched_index: None };
        Status {
            id: MemberId(2),
            role: Role::Follower,
            leader: Some(MemberId(1)),
            term: 7,
            zxid: Zxid(42),
            digest: 0xabc,
            sessions: self.sessions,
            znodes: 5,
            watches: 1,
            members: vec![voter(MemberId(1)), voter(MemberId(2))],
            log_index: 9,
            snapshot_index: 4,
            connections: 3,
        }
    }

    fn readiness(&self) -> Vec<Check> {
        let failed = *self.failed.lock();
        let leader = Check { name: "leader", ok: failed.is_none(), detail: failed.unwrap_or("member 1 leads").into() };
        vec![Check { name: "joined", ok: true, detail: "joined".into() }, leader]
    }

    fn liveness(&self) -> Vec<Check> {
        vec![Check { name: "applier", ok: true, detail: "applying".into() }]
    }

    fn sessions(&self, after: SessionId, limit: usize) -> Vec<SessionStatus> {
        let session = |id| SessionStatus {
            id: SessionId(id),
            timeout_ms: 4000,
            member: MemberId(2),
            attachment: 1,
            ephemerals: 0,
            client_name: "app".into(),
            connected_here: true,
        };
        (after.0 + 1..=self.sessions).take(limit).map(session).collect()
    }

    fn levels(&self) -> Levels {
        Levels { term: 7, ..Levels::default() }
    }
}

struct Served {
    address: SocketAddr,
    member: Arc<Member>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn served(sessions: u64) -> Served {
    let metrics = Metrics::new(MemberId(2));
    let bounds = Bounds { connections_max: 8, connections_per_address_max: 0 };
    let door = Door::bind("admin", &Address::loopback(0), bounds, metrics.doors.of("admin")).await.unwrap();
    let (address, stop) = (door.address(), CancellationToken::new());
    let member = Arc::new(Member { failed: Mutex::new(None), sessions });
    let task = tokio::spawn(serve(door, Arc::clone(&member) as Arc<dyn StatusSource>, metrics, stop.clone()));
    Served { address, member, stop, task }
}

impl Served {
    /// Sends bytes as they are and reads until the door closes.
    async fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(WITHIN, stream.read_to_string(&mut answer)).await.expect("the door answers").unwrap();
        answer
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        let answer = self.exchange(&request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("cache-control: no-store"), "{head}");
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn get_json(&self, path: &str) -> (u16, Value) {
        let (status, body) = self.get(path).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn readyz_says_why_not_and_livez_does_not_care() {
    let served = served(0).await;
    assert_eq!(served.get_json("/readyz").await, (200, json!({"ok": true, "reasons": []})));

    *served.member.failed.lock() = Some("no leader is known");

    assert_eq!(served.get_json("/readyz").await, (503, json!({"ok": false, "reasons": ["no leader is known"]})));
    let (status, verbose) = served.get_json("/readyz?verbose").await;
    assert_eq!(status, 503);
    assert_eq!(verbose["checks"][0], json!({"name": "joined", "ok": true, "detail": "joined"}));
    assert_eq!(verbose["checks"][1]["ok"], false);
    assert_eq!(served.get_json("/livez").await.0, 200);
    assert_eq!(served.get_json("/livez?verbose=1").await.1["checks"][0]["name"], "applier");
}

#[tokio::test]
async fn status_has_the_fields_that_scripts_rely_on() {
    let served = served(6).await;

    let (status, told) = served.get_json("/api/v1/status").await;

    assert_eq!(status, 200);
    let member = |id| json!({"id": id, "peer_address": "h:1", "voter": true, "matched_index": null});
    let expected = json!({
        "id": 2, "role": "follower", "leader": 1, "term": 7, "zxid": 42, "digest": "0x0000000000000abc",
        "sessions": 6, "znodes": 5, "watches": 1, "members": [member(1), member(2)],
        "log_index": 9, "snapshot_index": 4, "connections": 3,
        "version": telemetry_version(), "ready": true, "not_ready": [],
    });
    assert_eq!(told, expected);
}

fn telemetry_version() -> &'static str {
    crate::telemetry::VERSION
}

#[tokio::test]
async fn metrics_are_prometheus_text() {
    let served = served(0).await;

    let answer = served.exchange("GET /metrics HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n").await;

    assert!(answer.contains("content-type: text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\nquorate_term 7\n"), "{answer}");
    assert!(answer.contains("\nquorate_connections{door=\"admin\"} 1\n"), "{answer}");
}

#[tokio::test]
async fn sessions_come_in_pages() {
    let served = served(5).await;

    let (_, first) = served.get_json("/api/v1/sessions?limit=2").await;
    assert_eq!(first["sessions"][0]["id"], "0x0000000000000001");
    assert_eq!((first["sessions"].as_array().unwrap().len(), &first["next"]), (2, &json!("0x0000000000000002")));

    let (_, last) = served.get_json("/api/v1/sessions?limit=3&after=0x2").await;
    assert_eq!((last["sessions"].as_array().unwrap().len(), &last["next"]), (3, &Value::Null));

    for query in ["after=5", "after=0xg", "limit=-1"] {
        let (status, refused) = served.get_json(&format!("/api/v1/sessions?{query}")).await;
        assert_eq!(status, 400, "{refused}");
    }
}

#[tokio::test]
async fn what_is_not_there_and_what_would_change_something_is_refused() {
    let served = served(0).await;

    let (status, told) = served.get_json("/metric").await;
    assert_eq!(status, 404);
    assert!(told["error"].as_str().unwrap().starts_with("there is no /metric; there are /livez, "), "{told}");

    let request = "DELETE /api/v1/sessions HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let answer = served.exchange(request).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn garbage_and_heads_without_end_are_turned_away_and_others_are_served() {
    let served = served(0).await;

    let garbage = served.exchange("\0\0\0\u{7f}garbage\r\n\r\n").await;
    assert!(garbage.starts_with("HTTP/1.1 400 "), "{garbage}");
    let long = format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(limits::ADMIN_HEAD_BYTES_MAX));
    let long = served.exchange(&long).await;
    assert!(long.starts_with("HTTP/1.1 431 "), "{long}");
    let many = format!("GET /livez HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(limits::ADMIN_HEADERS_MAX + 1));
    let many = served.exchange(&many).await;
    assert!(many.starts_with("HTTP/1.1 431 "), "{many}");

    assert_eq!(served.get("/livez").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_ends_its_head_is_cut_off() {
    let served = served(0).await;
    let mut slow = TcpStream::connect(served.address).await.unwrap();
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: ").await.unwrap();

    let mut rest = Vec::new();
    let began = time::Instant::now();
    slow.read_to_end(&mut rest).await.unwrap();

    assert!(began.elapsed() >= limits::ADMIN_HEAD_READ_MAX && began.elapsed() < limits::ADMIN_CONNECTION_AGE_MAX);
}

#[tokio::test(start_paused = true)]
async fn a_connection_does_not_outlive_its_age_even_if_it_is_used() {
    let served = served(0).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    let began = time::Instant::now();

    let mut answers = 0;
    loop {
        let asked = stream.write_all(b"GET /version HTTP/1.1\r\nhost: h\r\n\r\n").await;
        let mut answer = [0; 1024];
        match (asked, stream.read(&mut answer).await) {
            (Ok(()), Ok(read)) if read > 0 => answers += 1,
            _ => break,
        }
        time::sleep(Duration::from_secs(1)).await;
    }

    assert!(answers > 1);
    assert!(began.elapsed() <= limits::ADMIN_CONNECTION_AGE_MAX + limits::ADMIN_CLOSE_GRACE + Duration::from_secs(1));
}

#[tokio::test]
async fn a_stopped_door_ends_its_connections_and_its_task() {
    let served = served(0).await;
    let mut idle = TcpStream::connect(served.address).await.unwrap();
    idle.write_all(b"GET /version HTTP/1.1\r\nhost: h\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();

    served.stop.cancel();

    timeout(WITHIN, served.task).await.expect("the task ends").unwrap();
    let mut rest = Vec::new();
    timeout(WITHIN, idle.read_to_end(&mut rest)).await.expect("the connection is closed").unwrap();
    assert!(TcpStream::connect(served.address).await.is_err());
}
