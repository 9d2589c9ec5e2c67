//! Four-letter words, as the tools read them that ask them.

use std::{collections::BTreeMap, time::Duration};

use quorate_sidecar::testing::TestEnsemble;
use quorate_wire::{AddWatchMode, Request, Response, create_flags};
use tokio::io::AsyncReadExt as _;

use crate::client::{Client, Raw, auth, ensemble, eventually, exists, get_data, member, new_session, set};

async fn every_word() -> TestEnsemble {
    let builder = TestEnsemble::builder().members(1).tick(Duration::from_secs(2));
    builder.settings(|config| config.four_letter_words = "*".parse().unwrap()).start().await.unwrap()
}

async fn word(address: &str, word: &str) -> String {
    let mut raw = Raw::connect(address).await;
    raw.send(word.as_bytes()).await;
    String::from_utf8(raw.rest().await).unwrap()
}

#[tokio::test]
async fn a_word_is_answered_at_once_and_the_connection_closed() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);

    assert_eq!(word(&address, "ruok").await, "imok");
    assert_eq!(word(&address, "ruok\n").await, "imok");
    assert_eq!(word(&address, "isro").await, "rw");
}

#[tokio::test]
async fn an_answer_comes_in_one_piece() {
    let ensemble = member().await;
    for asked in ["ruok", "srvr", "stat", "mntr", "conf"] {
        let mut raw = Raw::connect(&ensemble.zookeeper_endpoint(1)).await;
        raw.send(asked.as_bytes()).await;

        // As a client that reads once.
        let mut piece = vec![0; 64 * 1024];
        let length = raw.stream.read(&mut piece).await.unwrap();

        assert!(length > 0);
        assert_eq!(raw.rest().await, b"", "{asked}");
    }
}

#[tokio::test]
async fn a_word_that_is_not_allowed_is_told_so_and_an_unknown_one_is_closed() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);

    assert_eq!(word(&address, "wchp").await, "wchp is not executed because it is not in the whitelist.\n");
    for unknown in ["nope", "RUOK", "\0\u{7f}\u{7f}\u{7f}"] {
        assert_eq!(word(&address, unknown).await, "");
    }
}

#[tokio::test]
async fn srvr_has_the_lines_that_clients_match() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut client = Client::open(&address).await;
    client.plant("/a").await;
    client.ask(exists("/a", false)).await.unwrap();

    let text = word(&address, "srvr").await;

    let lines: Vec<_> = text.lines().collect();
    let names: Vec<_> = lines.iter().map(|line| line.split(": ").next().unwrap()).collect();
    let expected = [
        "Zookeeper version",
        "Latency min/avg/max",
        "Received",
        "Sent",
        "Connections",
        "Outstanding",
        "Zxid",
        "Mode",
        "Node count",
    ];
    assert_eq!(names, expected);
    let value = |nth: usize| lines[nth].split(": ").nth(1).unwrap();
    let version = value(0);
    assert!(version.starts_with("3.9.5-quorate-") && version.contains(", built on "), "{version}");
    let latency: Vec<f64> = value(1).split('/').map(|number| number.parse().unwrap()).collect();
    assert!(latency.len() == 3 && latency[0] <= latency[1] && value(1).split('/').nth(1).unwrap().contains('.'));
    // The handshake and two requests.
    assert_eq!((value(2), value(3), value(5)), ("3", "3", "0"));
    assert_eq!(value(4), "2", "the client and whoever asks");
    assert_eq!(value(6), format!("0x{:x}", client.zxid));
    assert_eq!((value(7), value(8)), ("standalone", "6"));
    assert!(text.ends_with('\n'));
}

#[tokio::test]
async fn an_ensemble_names_its_leader_and_its_followers() {
    let ensemble = ensemble(3).await;
    let leader = ensemble.leader().await.unwrap();

    for member in 1..=3 {
        let address = ensemble.zookeeper_endpoint(member);
        let text = word(&address, "srvr").await;
        let mode = if member == leader { "leader" } else { "follower" };
        assert!(text.contains(&format!("\nMode: {mode}\n")), "{text}");

        let numbers = numbers(&word(&address, "mntr").await);
        assert_eq!(numbers["zk_server_state"], mode);
        assert_eq!(numbers["zk_quorum_size"], "3");
        assert_eq!(numbers.get("zk_learners").map(String::as_str), (member == leader).then_some("2"));
    }
}

#[tokio::test]
async fn conf_names_the_members_as_their_node_does() {
    let ensemble = ensemble(3).await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut client = Client::open(&address).await;

    // The leader writes it soon after it leads, and again when it has heard where the doors of the others are.
    eventually("both say the same", async || {
        let conf = word(&address, "conf").await;
        let Ok(Response::Data { data: Some(data), .. }) = client.ask(get_data("/zookeeper/config", false)).await else {
            return false;
        };
        let node = String::from_utf8(data.to_vec()).unwrap();
        let Some((servers, _)) = node.split_once("\nversion=") else { return false };
        servers.lines().count() == 3 && conf.ends_with(&format!("\npeerType=0\nmembership: \n{servers}\n"))
    })
    .await;
}

fn numbers(mntr: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| {
        let (name, value) = line.split_once('\t').unwrap();
        (name.to_owned(), value.to_owned())
    };
    mntr.lines().map(pair).collect()
}

#[tokio::test]
async fn mntr_counts_what_there_is() {
    let ensemble = member().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut client = Client::open(&address).await;
    client.create("/e", "12345", create_flags::EPHEMERAL).await.unwrap();
    client.ask(get_data("/e", true)).await.unwrap();
    client.ask(Request::AddWatch { path: "/".into(), mode: AddWatchMode::Recursive }).await.unwrap();

    let text = word(&address, "mntr").await;

    let numbers = numbers(&text);
    for (name, value) in [
        ("zk_server_state", "standalone"),
        ("zk_znode_count", "6"),
        ("zk_ephemerals_count", "1"),
        ("zk_watch_count", "2"),
        ("zk_global_sessions", "1"),
        ("zk_num_alive_connections", "2"),
        ("zk_outstanding_requests", "0"),
        ("zk_packets_received", "4"),
        ("zk_packets_sent", "4"),
    ] {
        assert_eq!(numbers[name], value, "{name}");
    }
    assert!(text.lines().next().unwrap().starts_with("zk_version\t3.9.5-"));
    // What parsers take for a number is one.
    for (name, value) in &numbers {
        let is_text = ["zk_version", "zk_server_state", "zk_peer_state"].contains(&name.as_str());
        assert!(is_text || value.parse::<f64>().is_ok(), "{name} {value}");
    }
}

#[tokio::test]
async fn lists_name_connections_sessions_and_watches() {
    let ensemble = every_word().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut client = Client::open(&address).await;
    client.create("/e", "", create_flags::EPHEMERAL).await.unwrap();
    client.ask(get_data("/e", true)).await.unwrap();
    let session = format!("0x{:x}", client.granted.session_id);
    let peer = client.raw.stream.local_addr().unwrap();

    let stat = word(&address, "stat").await;
    assert!(stat.lines().nth(1) == Some("Clients:"), "{stat}");
    assert!(stat.contains(&format!(" /{peer}[1](queued=0,recved=3,sent=3)\n")), "{stat}");
    assert!(stat.contains("\n\nLatency min/avg/max: "), "{stat}");

    let cons = word(&address, "cons").await;
    let line = cons.lines().find(|line| line.contains(&peer.to_string())).unwrap();
    let start = format!(" /{peer}[1](queued=0,recved=3,sent=3,sid={session},lop=GETD,est=");
    assert!(line.starts_with(&start) && line.ends_with(')'), "{line}");
    for field in [",to=30000,", ",lcxid=0x2,", ",lzxid=0x", ",lresp=", ",llat=", ",minlat=", ",avglat=", ",maxlat="] {
        assert!(line.contains(field), "{field} {line}");
    }
    assert!(cons.ends_with("\n\n"));

    let dump = word(&address, "dump").await;
    assert!(dump.starts_with("SessionTracker dump:\n"), "{dump}");
    assert!(dump.contains(&format!("{session}\t30000ms\n")) && dump.contains(&format!("{session}:\n\t/e\n")), "{dump}");

    assert_eq!(word(&address, "wchs").await, "1 connections watching 1 paths\nTotal watches:1\n");
    assert_eq!(word(&address, "wchc").await, format!("{session}\n\t/e\n\n"));
    assert_eq!(word(&address, "wchp").await, format!("/e\n\t{session}\n\n"));
}

#[tokio::test]
async fn the_other_words_have_their_shapes() {
    let ensemble = every_word().await;
    let address = ensemble.zookeeper_endpoint(1);
    let port = address.rsplit(':').next().unwrap();

    let conf = word(&address, "conf").await;
    for line in [
        &*format!("clientPort={port}"),
        "tickTime=2000",
        "minSessionTimeout=4000",
        "maxSessionTimeout=40000",
        "serverId=1",
    ] {
        assert!(conf.lines().any(|is| is == line), "{line}: {conf}");
    }
    let envi = word(&address, "envi").await;
    assert!(envi.starts_with("Environment:\nzookeeper.version=3.9.5-quorate-"), "{envi}");
    let dirs = word(&address, "dirs").await;
    assert!(dirs.starts_with("datadir_size: ") && dirs.contains("\nlogdir_size: "), "{dirs}");
    let hash = word(&address, "hash").await;
    let (zxid, digest) = hash.trim_end().split_once(": ").unwrap();
    assert!(u64::from_str_radix(zxid, 16).is_ok() && digest.parse::<u64>().is_ok(), "{hash}");
    assert_eq!(word(&address, "gtmk").await, "0");
}

#[tokio::test]
async fn statistics_start_anew_when_they_are_reset() {
    let ensemble = every_word().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut client = Client::open(&address).await;
    for _ in 0..10 {
        client.ask(exists("/", false)).await.unwrap();
    }

    assert_eq!(word(&address, "srst").await, "Server stats reset.\n");
    let text = word(&address, "srvr").await;
    assert!(text.contains("\nReceived: 0\nSent: 0\n"), "{text}");

    assert_eq!(word(&address, "crst").await, "Connection stats reset.\n");
    let peer = client.raw.stream.local_addr().unwrap();
    let text = word(&address, "cons").await;
    assert!(text.contains(&format!(" /{peer}[1](queued=0,recved=0,sent=0,")), "{text}");
}

#[tokio::test]
async fn mntr_tells_timings_sizes_and_quotas() {
    let ensemble = every_word().await;
    let address = ensemble.zookeeper_endpoint(1);
    let mut client = Client::open(&address).await;
    for (path, data) in [("/app", ""), ("/app/x", "12345"), ("/zookeeper/quota/app", "")] {
        client.create(path, data, create_flags::PERSISTENT).await.unwrap();
    }
    let limits = "count=7,bytes=-1=;byteHardLimit=100";
    client.create("/zookeeper/quota/app/zookeeper_limits", limits, create_flags::PERSISTENT).await.unwrap();
    client.ask(get_data("/app/x", true)).await.unwrap();
    client.ask(set("/app/x", "123456", -1)).await.unwrap();

    let asked = numbers(&word(&address, "mntr").await);

    for (name, value) in [
        ("zk_cnt_readlatency", "1"),
        ("zk_cnt_updatelatency", "5"),
        ("zk_cnt_node_changed_watch_count", "1"),
        ("zk_max_node_changed_watch_count", "1"),
        ("zk_avg_node_changed_watch_count", "1.0"),
        ("zk_cnt_node_created_watch_count", "0"),
        ("zk_cnt_election_time", "1"),
        ("zk_connection_request_count", "1"),
        ("zk_connection_revalidate_count", "0"),
        ("zk_connection_rejected", "0"),
        ("zk_auth_failed_count", "0"),
        ("zk_app_quota_count_limit_per_namespace", "7"),
        ("zk_app_quota_bytes_limit_per_namespace", "100"),
        ("zk_app_quota_count_usage_per_namespace", "2"),
        ("zk_app_quota_bytes_usage_per_namespace", "6"),
        // A header and a stat, with the length before them.
        ("zk_last_client_response_size", "88"),
    ] {
        assert_eq!(asked[name], value, "{name}");
    }
    let number = |name: &str| asked[name].parse::<f64>().unwrap();
    assert!(number("zk_cnt_fsynctime") >= 1.0);
    assert!(number("zk_p50_updatelatency") <= number("zk_p999_updatelatency"));
    assert!(number("zk_p999_updatelatency") <= number("zk_max_updatelatency"));
    assert!(number("zk_watch_bytes") > 0.0 && number("zk_watch_bytes") < number("zk_response_bytes"));
    // Lengths and all: the handshake is 45 bytes and its length.
    assert!(number("zk_bytes_received_count") > 49.0 + 6.0 * 12.0);

    word(&address, "srst").await;
    let anew = numbers(&word(&address, "mntr").await);
    for name in ["zk_cnt_updatelatency", "zk_max_updatelatency", "zk_p999_updatelatency", "zk_cnt_fsynctime"] {
        assert_eq!(anew[name], "0", "{name}");
    }
}

#[tokio::test]
async fn mntr_tells_who_was_turned_away_who_went_and_who_lied() {
    let one_by_one = |config: &mut quorate_sidecar::Config| {
        (config.sessions_per_second, config.sessions_burst) = (1, Some(2));
    };
    let ensemble = TestEnsemble::builder().members(1).settings(one_by_one).start().await.unwrap();
    let address = ensemble.zookeeper_endpoint(1);
    let mut liar = Client::open(&address).await;
    let _ = liar.ask(auth("nobody", "x")).await;
    liar.ended().await;

    let mut refused = 0;
    while refused == 0 {
        let request = new_session();
        let all = futures_util::future::join_all((0..40).map(|_| Client::connect(&address, &request))).await;
        refused = all.iter().filter(|client| client.is_none()).count();
    }

    eventually("all are counted", async || {
        let numbers = numbers(&word(&address, "mntr").await);
        let is = |name: &str, value: usize| numbers[name] == value.to_string();
        is("zk_connection_rejected", refused)
            && is("zk_auth_failed_count", 1)
            && numbers["zk_connection_drop_count"] != "0"
    })
    .await;
}
