//! `quorate serve` and `quorate dev` as processes: what they print, how they end.

mod cli;

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use cli::{Running, free_port, free_ports, http_get, quorate, run, start};
use rustix::process::Signal;
use tempfile::TempDir;

/// A member that is an ensemble of its own, on free ports.
fn serve_alone(data_dir: &Path) -> Command {
    let peer = format!("127.0.0.1:{}", free_port());
    serve(data_dir, &format!("1={peer}"), &peer)
}

/// Member 1 of `ensemble`. The rest is told through the environment, where flags of a test win over it.
fn serve(data_dir: &Path, ensemble: &str, peer: &str) -> Command {
    let mut command = quorate(["serve", "--ensemble", ensemble, "--data-dir"]);
    command.arg(data_dir).env("QUORATE_ID", "1").env("QUORATE_PEER_ADDR", peer);
    command.env("QUORATE_CLIENT_ADDR", "127.0.0.1:0").env("QUORATE_ADMIN_ADDR", "127.0.0.1:0");
    command
}

fn started(data_dir: &TempDir) -> Running {
    start(&mut serve_alone(data_dir.path()))
}

#[test]
fn a_member_says_its_doors_then_that_it_is_ready_and_nothing_as_data() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = started(&dir);

    let client = member.err("client door: ");
    let peer = member.err("peer door: ");
    let admin = member.err("admin door: http://");
    assert!(client.starts_with("127.0.0.1:") && client.ends_with(" (gRPC, no TLS)"), "{client}");
    assert!(peer.ends_with(" (no TLS)"), "{peer}");
    member.err("ready");

    assert_eq!(http_get(&admin, "/livez").unwrap().0, 200);
    assert_eq!(http_get(&admin, "/readyz").unwrap().0, 200);
    member.signal(Signal::TERM);
    let said = member.end();
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{said:?}");
}

/// The command, in a process that may have so many files open.
fn with_open_files(files: u32, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.arg("-c").arg(format!(r#"ulimit -n {files}; exec "$0" "$@""#));
    limited.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

/// A connection with a session of ZooKeeper, which it keeps for half a minute.
fn zookeeper_session(address: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(cli::WITHIN)).unwrap();
    let mut handshake = 44_i32.to_be_bytes().to_vec();
    // Version, zxid, timeout, session, password.
    handshake.extend([[0; 4], [0; 4], [0; 4], 40_000_i32.to_be_bytes(), [0; 4], [0; 4]].concat());
    handshake.extend([&16_i32.to_be_bytes()[..], &[0; 16]].concat());
    socket.write_all(&handshake).unwrap();
    socket.read_exact(&mut [0; 40]).expect("a session");
    socket
}

#[test]
fn clients_beyond_the_files_that_may_be_open_wait_until_others_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut serve = serve_alone(dir.path());
    serve.args(["--zookeeper-addr", "127.0.0.1:0"]);
    let mut member = start(&mut with_open_files(256, &serve));
    let door = member.err("zookeeper door: ");
    let address = door.split(' ').next().unwrap();
    member.err("ready");

    // A quarter of the files, shared with the other door of clients.
    let mut sessions: Vec<_> = (0..32).map(|_| zookeeper_session(address)).collect();
    let mut waiting = TcpStream::connect(address).unwrap();
    waiting.write_all(b"ruok").unwrap();
    waiting.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let early = waiting.read(&mut [0; 4]);
    assert!(early.is_err(), "it was taken in: {early:?}");

    sessions.pop();
    let mut answer = String::new();
    waiting.set_read_timeout(Some(cli::WITHIN)).unwrap();
    waiting.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "imok");
}

#[test]
fn both_signals_end_a_member_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = tempfile::tempdir().unwrap();
        let mut member = started(&dir);
        member.err("ready");

        member.signal(signal);

        let said = member.end();
        assert_eq!(said.code, Some(0), "{said:?}");
    }
}

#[test]
fn a_member_that_waits_for_the_others_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let peer = format!("127.0.0.1:{}", free_port());
    let mut member = start(&mut serve(dir.path(), &format!("1={peer},2=127.0.0.1:1,3=127.0.0.1:2"), &peer));
    let admin = member.err("admin door: http://");

    assert_eq!(http_get(&admin, "/livez").unwrap().0, 200);
    member.signal(Signal::TERM);

    let said = member.end();
    assert_eq!(said.code, Some(0), "{said:?}");
}

#[test]
fn a_taken_port_ends_the_start_with_its_address_and_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    for door in ["client", "admin"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = serve_alone(dir.path());

        let said = run(command.arg(format!("--{door}-addr")).arg(address.to_string()));

        said.refused(1, &format!("error: the {door} door cannot listen on {address}: the address is already in use\n"));
        assert!(said.err.contains(&format!("--{door}-addr chooses another address")), "{}", said.err);
    }
}

#[test]
fn a_directory_of_another_member_or_another_ensemble_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let peer = format!("127.0.0.1:{}", free_port());
    let mut member = start(&mut serve(dir.path(), &format!("1={peer}"), &peer));
    member.err("ready");
    let in_use = run(&mut serve(dir.path(), &format!("1={peer}"), &format!("127.0.0.1:{}", free_port())));
    in_use.refused(1, "is in use by ");
    member.signal(Signal::TERM);
    assert_eq!(member.end().code, Some(0));

    let mut other_id = serve(dir.path(), &format!("2={peer}"), &peer);
    let other_id = other_id.args(["--id", "2"]);
    run(other_id).refused(1, "member 1");
    let other_list = run(&mut serve(dir.path(), "1=127.0.0.1:1", &peer));
    other_list.refused(1, "the ensemble's list is 1=127.0.0.1:1, but the data of member 1 is that of 1=127.0.0.1:");

    let mut again = start(&mut serve(dir.path(), &format!("1={peer}"), &peer));
    again.err("ready");
}

#[test]
fn what_is_no_data_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.txt"), "all of it").unwrap();
    run(&mut serve_alone(dir.path())).refused(1, "thesis.txt");
    assert_eq!(std::fs::read_to_string(dir.path().join("thesis.txt")).unwrap(), "all of it");

    let file = tempfile::NamedTempFile::new().unwrap();
    let said = run(&mut serve_alone(file.path()));
    said.refused(1, &file.path().display().to_string());
}

#[test]
fn a_member_without_files_left_takes_connections_again_when_there_are_some() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    let member = serve_alone(dir.path());
    command.args(["-c", "ulimit -n 100; exec \"$@\"", "sh"]).arg(member.get_program()).args(member.get_args());
    for (name, value) in member.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut member = start(&mut command);
    let peer = member.err("peer door: ");
    let peer = peer.split(' ').next().unwrap();
    let admin = member.err("admin door: http://");
    member.err("ready");

    let many: Vec<_> = (0..150).map(|_| TcpStream::connect(peer).unwrap()).collect();
    member.logged("no connection can be taken in; trying again");
    drop(many);

    assert_eq!(http_get(&admin, "/readyz").unwrap().0, 200);
    let (_, metrics) = http_get(&admin, "/metrics").unwrap();
    let failures = metrics.lines().find(|line| line.starts_with("quorate_accept_failures_total{door=\"peer\"}"));
    assert!(failures.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    member.signal(Signal::TERM);
    assert_eq!(member.end().code, Some(0));
}

#[test]
fn logs_are_json_where_no_terminal_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = started(&dir);
    member.err("ready");
    member.signal(Signal::TERM);

    let said = member.end();

    let logs: Vec<_> = said.err.lines().filter(|line| line.starts_with('{')).collect();
    assert!(!logs.is_empty(), "{}", said.err);
    for line in logs {
        let event: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(event["timestamp"].is_string() && event["level"].is_string(), "{line}");
    }
}

#[test]
fn a_damaged_directory_ends_the_start_with_a_code_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let mut member = started(&dir);
    member.err("ready");
    member.signal(Signal::TERM);
    assert_eq!(member.end().code, Some(0));
    std::fs::write(dir.path().join("identity"), "quorate identity 2\n").unwrap();

    let said = run(&mut serve_alone(dir.path()));

    assert_eq!(said.code, Some(10), "{said:?}");
    assert!(said.err.contains("is damaged"), "{said:?}");
}

#[test]
fn dev_prints_its_table_then_that_it_is_ready_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut dev = start(&mut dev(temporary.path(), free_block()));

    let head = dev.out("MEMBER");
    let ready = dev.out("ready in ");

    assert_eq!(
        head.split_whitespace().collect::<Vec<_>>(),
        ["CLIENT", "(gRPC)", "PEER", "ADMIN", "(HTTP)", "ZOOKEEPER"]
    );
    assert!(ready.ends_with(" ms"), "{ready}");
    let endpoints = dev.err("  export QUORATE_ENDPOINT=");
    assert_eq!(endpoints.split(',').count(), 3);
    let status = run(quorate(["status", "-o", "json"]).env("QUORATE_ENDPOINT", &endpoints));
    let members: serde_json::Value = serde_json::from_str(&status.out).expect("status answers with JSON");
    assert_eq!(status.code, Some(0), "{status:?}");
    let ids: Vec<_> = members.as_array().unwrap().iter().map(|member| member["id"].as_u64().unwrap()).collect();
    assert_eq!(ids, [1, 2, 3]);

    dev.signal(Signal::INT);
    let said = dev.end();
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!said.err.contains("leadership could not be handed over"), "{said:?}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "temporary data is gone");
}

#[test]
fn log_lines_of_dev_say_which_member_they_are_of() {
    let temporary = tempfile::tempdir().unwrap();
    let mut dev = start(dev(temporary.path(), free_block()).env("QUORATE_LOG_LEVEL", "info"));
    dev.out("ready in ");
    dev.signal(Signal::INT);
    let said = dev.end();

    let lines = said.err.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let of_members = |message: &str| {
        let lines = lines.clone().filter(|line| line["message"] == message);
        let mut members: Vec<_> = lines.map(|line| line["span"]["member"].to_string()).collect();
        members.sort();
        members.dedup();
        members
    };
    for message in ["readiness", "shutting down"] {
        assert_eq!(of_members(message), ["\"1\"", "\"2\"", "\"3\""], "{message}: {}", said.err);
    }
    assert_eq!(of_members("this member leads").len(), 1, "{}", said.err);
}

#[test]
fn a_second_dev_on_the_same_ports_says_how_to_choose_others() {
    let temporary = tempfile::tempdir().unwrap();
    let base = free_block();
    let mut first = start(&mut dev(temporary.path(), base));
    first.out("ready in ");

    let said = run(&mut dev(temporary.path(), base));

    said.refused(
        1,
        "the address is already in use\n  is another ensemble running here? --port-base chooses other ports",
    );
}

#[test]
fn kept_data_of_dev_is_one_directory_a_member() {
    let (temporary, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut command = dev(temporary.path(), free_block());
    let mut dev = start(command.args(["--members", "1", "--data-dir"]).arg(kept.path()));
    dev.out("ready in ");

    dev.signal(Signal::TERM);

    assert_eq!(dev.end().code, Some(0));
    assert!(kept.path().join("member-1").is_dir());
}

fn dev(temporary: &Path, port_base: u16) -> Command {
    let mut command = quorate(["dev", "--port-base", &port_base.to_string()]);
    command.env("TMPDIR", temporary);
    command
}

/// The base of a block of ports whose doors for three members are free.
fn free_block() -> u16 {
    let is_free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    free_ports(400, |base| {
        let mut doors = [0, 100, 200].into_iter().flat_map(|door| (1..=3).map(move |member| base + door + member));
        doors.all(is_free)
    })
}
