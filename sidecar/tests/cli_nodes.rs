//! The commands on nodes and sessions, as processes against a real ensemble.

mod cli;

use std::{
    io::Write,
    process::{Command, Stdio},
};

use cli::{Said, eventually, quorate, run, start};
use quorate_sidecar::testing::TestEnsemble;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// An ensemble of one member, and commands that talk to it.
struct Ensemble {
    runtime: Runtime,
    ensemble: Option<TestEnsemble>,
    endpoint: String,
}

impl Ensemble {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let ensemble = runtime.block_on(TestEnsemble::start(1)).unwrap();
        let endpoint = ensemble.endpoint(1);
        Self { runtime, ensemble: Some(ensemble), endpoint }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = quorate(args);
        command.env("QUORATE_ENDPOINT", &self.endpoint);
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        run(&mut self.command(args))
    }

    /// What it prints, if it does what it is asked to.
    #[track_caller]
    fn out(&self, args: &[&str]) -> String {
        let said = self.run(args);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{args:?}: {said:?}");
        said.out
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        let out = self.out(&[args, &["-o", "json"]].concat());
        serde_json::from_str(&out).expect("one JSON value")
    }
}

impl Drop for Ensemble {
    fn drop(&mut self) {
        if let Some(ensemble) = self.ensemble.take() {
            self.runtime.block_on(ensemble.shutdown());
        }
    }
}

#[test]
fn what_is_created_is_read_set_listed_and_deleted() {
    let ensemble = Ensemble::start();

    assert_eq!(ensemble.out(&["create", "/app/config", "v1", "--parents"]), "/app/config\n");
    assert_eq!(ensemble.out(&["get", "/app/config"]), "v1");
    assert_eq!(ensemble.out(&["set", "/app/config", "v2"]), "1\n");
    assert_eq!(ensemble.out(&["get", "/app/config", "--linearizable"]), "v2");
    assert_eq!(ensemble.out(&["create", "/app/job-", "--sequential"]), "/app/job-0000000001\n");
    assert_eq!(ensemble.out(&["ls", "/app"]), "config\njob-0000000001\n");
    assert_eq!(ensemble.json(&["ls", "/app"]), json!(["config", "job-0000000001"]));
    assert_eq!(ensemble.out(&["ls", "/app/config"]), "");
    assert_eq!(ensemble.out(&["set", "/app/new", "x", "--create"]), "0\n");
    assert_eq!(ensemble.out(&["rm", "/app/new", "--version", "0"]), "");
    assert_eq!(ensemble.out(&["rm", "-r", "/app"]), "");

    ensemble.run(&["get", "/app"]).refused(3, "error: no node /app\n  `quorate ls /`");
}

#[test]
fn refusals_have_their_codes_and_say_what_to_do_next() {
    let ensemble = Ensemble::start();
    ensemble.out(&["create", "/a", "x"]);
    ensemble.out(&["create", "/a/b"]);

    ensemble.run(&["create", "/a"]).refused(1, "error: node /a exists\n  `quorate set /a DATA` changes its data");
    ensemble.run(&["rm", "/a"]).refused(1, "`quorate rm -r /a` deletes what is below it too");
    ensemble.run(&["set", "/a", "y", "--version", "7"]).refused(1, "`quorate stat /a` shows its version");
    ensemble
        .run(&["create", "/no/parent"])
        .refused(3, "the node above /no/parent does not exist\n  `quorate create --parents`");
    ensemble.run(&["get", "a"]).refused(2, "\"a\" is no path");
    ensemble.run(&["stat", "/none"]).refused(3, "no node /none");
    ensemble.run(&["tree", "/none"]).refused(3, "no node /none");
    let error: Value = serde_json::from_str(&ensemble.run(&["get", "/none", "-o", "json"]).err).unwrap();
    assert_eq!((&error["code"], &error["name"]), (&json!(3), &json!("not_found")));
}

#[test]
fn data_is_bytes_from_end_to_end() {
    let ensemble = Ensemble::start();
    let bytes = b"\x00\xff\n binary";

    let mut create = ensemble.command(&["create", "/bytes", "-"]);
    let mut create = create.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    create.stdin.take().unwrap().write_all(bytes).unwrap();
    assert_eq!(create.wait().unwrap().code(), Some(0));

    assert_eq!(ensemble.command(&["get", "/bytes"]).output().unwrap().stdout, bytes);
    let node = ensemble.json(&["get", "/bytes"]);
    assert_eq!((&node["path"], &node["data_base64"]), (&json!("/bytes"), &json!("AP8KIGJpbmFyeQ==")));
    assert_eq!((&node["stat"]["version"], &node["stat"]["data_length"]), (&json!(0), &json!(10)));
    assert_eq!(ensemble.json(&["stat", "/bytes"]), node["stat"]);
    let table = ensemble.out(&["stat", "/bytes"]);
    assert!(table.lines().any(|line| line.split_whitespace().collect::<Vec<_>>() == ["data_length", "10"]), "{table}");
}

#[test]
fn a_tree_shows_what_is_below() {
    let ensemble = Ensemble::start();
    for path in ["/t", "/t/a", "/t/b", "/t/b/c"] {
        ensemble.out(&["create", path, if path == "/t/b/c" { "12345" } else { "" }]);
    }

    assert_eq!(ensemble.out(&["tree", "/t"]), "/t\n├── a\n└── b\n    └── c  [5 B]\n");
    assert_eq!(ensemble.out(&["tree", "/t", "-L", "1"]), "/t\n├── a\n└── b  (1 below)\n");
    let tree = ensemble.json(&["tree", "/t"]);
    assert_eq!(tree["children"][1]["children"][0]["name"], "c");
    assert!(ensemble.out(&["tree"]).starts_with("/\n"));
}

#[test]
fn an_ephemeral_node_lives_as_long_as_its_command() {
    let ensemble = Ensemble::start();
    let mut holder = start(&mut ensemble.command(&["create", "/e", "here", "--ephemeral"]));
    assert_eq!(holder.out(""), "/e");
    let session = holder.err("held by session ");
    let session = session.split(' ').next().unwrap();

    let stat = ensemble.json(&["stat", "/e"]);
    assert_eq!(stat["ephemeral_owner"], session);
    let sessions = ensemble.json(&["session", "list"]);
    let owner = sessions.as_array().unwrap().iter().find(|row| row["id"] == session).expect("it is listed");
    assert_eq!((&owner["ephemerals"], &owner["connected_here"]), (&json!(1), &json!(true)));

    holder.signal(Signal::INT);
    assert_eq!(holder.end().code, Some(0));
    ensemble.run(&["stat", "/e"]).refused(3, "no node /e");
}

#[test]
fn a_watch_tells_states_as_they_come() {
    let ensemble = Ensemble::start();
    let mut watch = start(&mut ensemble.command(&["watch", "/w", "-o", "json"]));
    let mut next = |event: &str| loop {
        let line: Value = serde_json::from_str(&watch.out("")).unwrap();
        if line["event"] == event {
            return line;
        }
    };

    next("absent");
    ensemble.out(&["create", "/w", "one"]);
    assert_eq!(next("data")["data"], "one");
    ensemble.out(&["set", "/w", "two"]);
    assert_eq!(next("data")["version"], 1);
    ensemble.out(&["create", "/w/child"]);
    assert_eq!(next("children")["children"], json!(["child"]));
    ensemble.out(&["rm", "-r", "/w"]);
    next("absent");

    watch.signal(Signal::TERM);
    assert_eq!(watch.end().code, Some(0));
}

#[test]
fn a_recursive_watch_tells_every_change_and_ends_after_as_many_as_asked() {
    let ensemble = Ensemble::start();
    ensemble.out(&["create", "/r"]);
    let mut watch = start(&mut ensemble.command(&["watch", "-r", "/r", "-o", "json", "-n", "4"]));
    let resync: Value = serde_json::from_str(&watch.out("")).unwrap();
    assert_eq!(resync["event"], "resync");

    ensemble.out(&["create", "/r/a", "x"]);
    ensemble.out(&["set", "/r/a", "y"]);
    ensemble.out(&["rm", "/r/a"]);

    let said = watch.end();
    let events: Vec<Value> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = events.iter().map(|event| (event["event"].as_str().unwrap(), event["path"].clone())).collect();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(told[1..], [("created", json!("/r/a")), ("changed", json!("/r/a")), ("deleted", json!("/r/a"))]);
}

#[test]
fn status_answers_for_the_member_in_the_words_of_the_admin_door() {
    let ensemble = Ensemble::start();
    ensemble.out(&["create", "/s"]);

    let status = ensemble.json(&["status"]);
    let admin = ensemble.ensemble.as_ref().unwrap().config(1).admin_addr.as_ref().unwrap().to_string();
    let (_, served) = cli::http_get(&admin, "/api/v1/status").unwrap();
    let served: Value = serde_json::from_str(&served).unwrap();

    for key in ["id", "role", "leader", "term", "zxid", "digest", "sessions", "znodes", "watches", "members", "ready"] {
        assert_eq!(status[0][key], served[key], "{key}");
    }
    assert_eq!((&status[0]["role"], &status[0]["leader"]), (&json!("leader"), &json!(1)));
    let table = ensemble.out(&["status"]);
    assert_eq!(table.lines().count(), 2, "{table}");

    let more = format!("{},http://127.0.0.1:1", ensemble.endpoint);
    let partly = ensemble.run(&["status", "--endpoint", &more]);
    assert_eq!(partly.code, Some(5), "{partly:?}");
    assert!(partly.out.contains("unreachable"), "{partly:?}");
}

#[test]
fn the_metrics_of_a_member_count_what_happened() {
    let ensemble = Ensemble::start();
    ensemble.out(&["create", "/m"]);

    let admin = ensemble.ensemble.as_ref().unwrap().config(1).admin_addr.as_ref().unwrap().to_string();
    let (_, text) = cli::http_get(&admin, "/metrics").unwrap();

    let value = |series: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse::<f64>().unwrap()
    };
    for series in [
        "quorate_is_leader",
        "quorate_commit_index",
        "quorate_log_bytes",
        "quorate_leader_changes_total",
        "quorate_proposal_duration_seconds_count",
        "quorate_wal_fsync_duration_seconds_count",
        r#"quorate_session_attached_total{how="opened"}"#,
        r#"quorate_session_detached_total{reason="closed"}"#,
    ] {
        assert!(value(series) > 0.0, "{series} in\n{text}");
    }
    assert_eq!(value("quorate_ready"), 1.0);
}

#[test]
fn a_session_ends_with_its_command() {
    let ensemble = Ensemble::start();

    ensemble.out(&["create", "/x"]);

    let none = || (ensemble.json(&["session", "list"]) == json!([])).then_some(());
    eventually("no session is left", none);
}
