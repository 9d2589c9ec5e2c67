//! `quorate serve --zoo-cfg`: the file of a ZooKeeper server starts a member in its place.

mod cli;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
};

use cli::{WITHIN, eventually, free_port, quorate, run, start};
use rustix::process::Signal;
use tempfile::TempDir;

/// A directory with a zoo.cfg that names it as dataDir.
fn home(text: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("zoo.cfg"), format!("dataDir={}\n{text}", dir.path().display())).unwrap();
    dir
}

fn serve(home: &Path) -> Command {
    let mut command = quorate(["serve", "--zoo-cfg"]);
    command.arg(home.join("zoo.cfg"));
    command
}

/// What the ZooKeeper door answers to a four-letter word; nothing while nobody listens.
fn word(port: u16, word: &str) -> String {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return String::new() };
    stream.set_read_timeout(Some(WITHIN)).unwrap();
    let mut answer = String::new();
    if stream.write_all(word.as_bytes()).is_ok() {
        let _ = stream.read_to_string(&mut answer);
    }
    answer
}

#[test]
fn the_file_of_a_lone_server_opens_the_zookeeper_door_and_no_other_for_clients() {
    let port = free_port();
    let home = home(&format!("clientPort={port}\ntickTime=2000\ninitLimit=10\nmaxSessionTimeout=90000\n"));
    let peer = format!("127.0.0.1:{}", free_port());

    let mut member = start(serve(home.path()).args(["--peer-addr", &peer]));

    let first = member.err("zoo.cfg: ");
    assert_eq!(first, format!("member 1 of 1={peer}, data in {}", home.path().join("quorate").display()));
    member.err("zoo.cfg: ignored initLimit: ");
    member.err("zookeeper door: ");
    member.err("ready");
    assert_eq!(word(port, "ruok"), "imok");
    assert!(word(port, "srvr").contains("Mode: standalone"));
    let configuration = word(port, "conf");
    assert!(configuration.contains("minSessionTimeout=4000\nmaxSessionTimeout=90000\n"), "{configuration}");
    member.signal(Signal::TERM);
    let said = member.end();
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{said:?}");
    assert!(!said.err.contains("client door") && !said.err.contains("admin door"), "{}", said.err);
    assert!(home.path().join("quorate/identity").exists());
}

#[test]
fn the_files_of_three_servers_on_one_machine_make_an_ensemble() {
    let mut lines = String::new();
    for id in 1..=3 {
        lines += &format!("server.{id}=127.0.0.1:{}:{}\n", free_port(), free_port());
    }
    let ports = [free_port(), free_port(), free_port()];
    let homes: Vec<_> = ports.iter().map(|port| home(&format!("clientPort={port}\n{lines}"))).collect();
    let mut members: Vec<_> = (1..=3)
        .zip(&homes)
        .map(|(id, home)| {
            fs::write(home.path().join("myid"), format!("{id}\n")).unwrap();
            start(&mut serve(home.path()))
        })
        .collect();

    for member in &mut members {
        member.err("ready");
    }

    let modes = eventually("one leads and two follow", || {
        let mut modes: Vec<_> = ports
            .iter()
            .filter_map(|port| {
                Some(word(*port, "srvr").lines().find_map(|line| line.strip_prefix("Mode: "))?.to_owned())
            })
            .collect();
        modes.sort();
        (modes.len() == 3 && modes[2] == "leader").then_some(modes)
    });
    assert_eq!(modes, ["follower", "follower", "leader"]);
}

#[test]
fn doors_of_our_own_open_where_the_file_or_a_flag_names_them() {
    let home = home("quorate.client_addr=127.0.0.1:0\n");
    let peer = format!("127.0.0.1:{}", free_port());

    let mut member = start(serve(home.path()).args(["--peer-addr", &peer, "--admin-addr", "127.0.0.1:0"]));

    member.err("client door: ");
    member.err("admin door: ");
    member.err("ready");
}

#[test]
fn what_cannot_work_is_said_with_the_next_step() {
    let missing = home("server.1=127.0.0.1:1:2\nserver.2=127.0.0.1:3:4\nserver.3=127.0.0.1:5:6\n");
    run(&mut serve(missing.path())).refused(2, "so this member does not know which server of 1=127.0.0.1:1,2=");

    let exposed = home("clientPort=2181\nclientPortAddress=0.0.0.0\n");
    run(&mut serve(exposed.path())).refused(2, "--zookeeper-addr 0.0.0.0:2181 can be reached from other machines");

    let foreign = home("clientPort=2181\n");
    fs::create_dir(foreign.path().join("version-2")).unwrap();
    run(&mut serve(foreign.path())).refused(2, "`quorate import zookeeper://HOST:PORT/`");
    assert!(!foreign.path().join("quorate").exists(), "nothing was made");

    run(&mut quorate(["serve", "--zoo-cfg", "/nowhere/zoo.cfg"])).refused(2, "/nowhere/zoo.cfg: cannot be read: ");
}
