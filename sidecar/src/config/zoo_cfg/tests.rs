use std::path::Path;

use tempfile::TempDir;

use super::*;

/// A dataDir with a myid, and a zoo.cfg beside it. `DIR` in texts stands for the directory.
struct Home(TempDir);

impl Home {
    fn of(myid: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("myid"), myid).unwrap();
        Self(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn fill(&self, text: &str) -> String {
        text.replace("DIR", self.path().to_str().unwrap())
    }

    fn read_below(&self, text: &str, above: &Layer) -> Result<ZooCfg, String> {
        let file = self.path().join("zoo.cfg");
        fs::write(&file, self.fill(&format!("dataDir=DIR\n{text}"))).unwrap();
        read(&file, above).map_err(|error| error.to_string().replace(self.path().to_str().unwrap(), "DIR"))
    }

    fn read(&self, text: &str) -> Result<ZooCfg, String> {
        self.read_below(text, &Layer::default())
    }
}

const THREE: &str = "server.1=zk1:2888:3888\nserver.2=zk2:2888:3888\nserver.3=zk3:2888:3888\n";

#[track_caller]
fn refused(text: &str, told: &str) {
    let error = Home::of("1").read(text).unwrap_err();

    assert!(error.starts_with("DIR/zoo.cfg") && error.contains(told), "{text}: {error}");
}

#[test]
fn the_file_of_a_server_makes_a_member() {
    let home = Home::of("2\n");

    let zoo = home
        .read(&format!(
            "tickTime=500\nclientPort=2181\nclientPortAddress=zk2\nmaxClientCnxns=7\nminSessionTimeout=1500\n\
             maxSessionTimeout=60000\nznode.container.checkIntervalMs=30000\n4lw.commands.whitelist=*\n\
             DigestAuthenticationProvider.superDigest=super:xQJmxLMiHGwaqBvst5y6rkB6HQs=\n{THREE}"
        ))
        .unwrap();

    let layer = zoo.layer;
    assert_eq!((layer.id, layer.tick_ms, layer.connections_per_address), (Some(2), Some(500), Some(7)));
    assert_eq!(layer.ensemble.unwrap().to_string(), "1=zk1:2888,2=zk2:2888,3=zk3:2888");
    assert_eq!(layer.peer_addr.unwrap().to_string(), "zk2:2888");
    assert_eq!(layer.zookeeper_addr.unwrap().to_string(), "zk2:2181");
    assert_eq!(layer.data_dir.unwrap(), home.path().join("quorate"));
    assert_eq!((layer.session_timeout_min_ms, layer.session_timeout_max_ms), (Some(1500), Some(60_000)));
    assert_eq!(layer.reap_period_ms, Some(30_000));
    assert_eq!(layer.super_digest.unwrap().as_str(), "super:xQJmxLMiHGwaqBvst5y6rkB6HQs=");
    assert!(layer.four_letter_words.unwrap().allow(FourLetterWord::Wchp));
    assert_eq!((layer.client_addr, layer.admin_addr), (None, None));
    assert_eq!(zoo.notes, Vec::<String>::new());
}

#[test]
fn a_bucket_of_tokens_bounds_how_fast_sessions_come() {
    let home = Home::of("1\n");
    let check = |text: &str, expected: (Option<u32>, Option<u32>)| {
        let zoo = home.read(&format!("clientPort=2181\nclientPortAddress=zk1\n{text}\n{THREE}")).unwrap();
        assert_eq!((zoo.layer.sessions_per_second, zoo.layer.sessions_burst), expected, "{text}");
        assert_eq!(zoo.notes, Vec::<String>::new(), "{text}");
    };

    check("", (None, None));
    check("connection_throttle_tokens=0\nconnection_throttle_fill_count=5", (None, None));
    check("connection_throttle_tokens=200", (Some(1000), Some(200)));
    let filled = "connection_throttle_tokens=200\nconnection_throttle_fill_time=20\nconnection_throttle_fill_count=2";
    check(filled, (Some(100), Some(200)));
    check("connection_throttle_tokens=1\nconnection_throttle_fill_time=60000", (Some(1), Some(1)));
    let told = home.read(&format!("clientPort=2181\nconnection_throttle_freeze_time=100\n{THREE}")).unwrap().notes;
    assert!(told.iter().any(|note| note.starts_with("ignored connection_throttle_freeze_time")), "{told:?}");
}

#[test]
fn a_server_that_stands_alone_needs_no_myid_and_no_server_lines() {
    let home = Home::of("");
    fs::remove_file(home.path().join("myid")).unwrap();

    let zoo = home.read("clientPort=2181").unwrap();

    assert_eq!(zoo.layer.id, Some(1));
    assert_eq!(zoo.layer.ensemble.unwrap().to_string(), "1=127.0.0.1:7201");
    assert_eq!(zoo.layer.tick_ms, Some(3000), "ZooKeeper's default");
    assert!(zoo.notes[0].starts_with("no server lines: this member is an ensemble of its own"), "{:?}", zoo.notes);
}

#[test]
fn what_is_said_above_wins_and_is_not_asked_of_the_file() {
    let home = Home::of("9");
    fs::create_dir(home.path().join("version-2")).unwrap();
    let above = Layer {
        id: Some(1),
        data_dir: Some("/elsewhere".into()),
        zookeeper_addr: Some(Address::loopback(1)),
        ..Layer::default()
    };

    let layer = home.read_below(&format!("clientPort=2181\n{THREE}"), &above).unwrap().layer;

    assert_eq!((layer.id, layer.data_dir, layer.zookeeper_addr), (Some(1), None, None));
}

#[test]
fn keys_of_our_own_say_what_the_toml_file_says() {
    let home = Home::of("1");

    let layer = home
        .read("quorate.client_addr=127.0.0.1:7101\nquorate.insecure=true\nquorate.tick_ms=100\ntickTime=2000")
        .unwrap()
        .layer;

    assert_eq!(layer.client_addr, Some(Address::loopback(7101)));
    assert_eq!((layer.insecure, layer.tick_ms), (Some(true), Some(100)));
    refused(
        "quorate.client_adress=127.0.0.1:1",
        "line 2: there is no key `quorate.client_adress`; did you mean `quorate.client_addr`?",
    );
    refused("quorate.tick_ms=fast", "line 2: quorate.tick_ms: ");
    refused("quorate.ensemble=1=a:1", "line 2: there is no key `quorate.ensemble`");
}

#[test]
fn the_client_port_is_open_to_others_only_where_that_is_wanted() {
    let home = Home::of("1");
    let open = |text: &str, insecure| {
        let above = Layer { insecure, ..Layer::default() };
        home.read_below(text, &above).unwrap().layer.zookeeper_addr.map(|address| address.to_string())
    };

    assert_eq!(open("clientPort=2181", None).unwrap(), "127.0.0.1:2181");
    assert_eq!(open("clientPort=2181", Some(true)).unwrap(), "0.0.0.0:2181");
    assert_eq!(open("clientPort=2181\nclientPortAddress=::1", None).unwrap(), "[::1]:2181");
    assert_eq!(open("server.1=a:1:2;10.0.0.1:2181", None).unwrap(), "10.0.0.1:2181");
    assert_eq!(open("clientPort=2181\nserver.1=a:1:2;10.0.0.1:2181", None).unwrap(), "10.0.0.1:2181");
    assert_eq!(open("server.1=a:1:2", None), None);
    assert_eq!(open("clientPort=0", Some(true)), None, "ZooKeeper's word for none");
    assert_eq!(open("clientPort=0\nserver.1=a:1:2;10.0.0.1:2181", None).unwrap(), "10.0.0.1:2181");
}

#[test]
fn members_of_a_dynamic_file_are_read() {
    let home = Home::of("3");
    fs::write(home.path().join("dynamic"), format!("{THREE}version=100000000\nweight.1=2\n")).unwrap();

    let zoo = home.read("dynamicConfigFile=DIR/dynamic").unwrap();

    assert_eq!(zoo.layer.ensemble.unwrap().to_string(), "1=zk1:2888,2=zk2:2888,3=zk3:2888");
    assert_eq!(zoo.notes, ["ignored weight.1: each voter counts as one, and more than half of them decide"]);
    let beside = home.read("dynamicConfigFile=DIR/dynamic\nserver.1=a:1:2").unwrap_err();
    assert!(beside.contains("server.1 may not stand beside dynamicConfigFile: move it into DIR/dynamic"), "{beside}");
    fs::write(home.path().join("more"), format!("{THREE}clientPort=2181\n")).unwrap();
    let more = home.read("dynamicConfigFile=DIR/more").unwrap_err();
    let told = "DIR/more, line 4: clientPort has no place in a file that dynamicConfigFile names: move it into ";
    assert_eq!(more, format!("{told}DIR/zoo.cfg"));
    fs::write(home.path().join("empty"), "").unwrap();
    let empty = home.read("dynamicConfigFile=DIR/empty").unwrap_err();
    assert!(empty.starts_with("DIR/empty: there are no server lines"), "{empty}");
    let gone = home.read("dynamicConfigFile=DIR/gone").unwrap_err();
    assert!(gone.starts_with("DIR/gone: cannot be read: "), "{gone}");
}

#[test]
fn what_is_ignored_is_told_by_reason() {
    let home = Home::of("1");

    let notes = home
        .read(
            "initLimit=10\nsyncLimit=5\nautopurge.purgeInterval=1\nmy.plugin=x\nsecureClientPort=2281\n\
             4lw.commands.whitelist=ruok,reqs\nserver.1=a:1:2\nserver.2=b:1:2:observer",
        )
        .unwrap()
        .notes;

    assert_eq!(
        notes,
        [
            "ignored server.2: there are no observers yet",
            "4lw.commands.whitelist: ignored reqs, which this door does not know",
            "ignored initLimit, syncLimit: agreement has its own timing and transport; --election-timeout-ms sets the \
             one bound there is",
            "ignored autopurge.purgeInterval: every write is synced, and the log and the snapshots are purged, without \
             being told",
            "ignored secureClientPort: there is no TLS yet, so no such port is opened",
            "ignored my.plugin: neither ZooKeeper nor Quorate knows it",
        ]
    );
}

#[test]
fn a_server_must_know_which_one_it_is() {
    let home = Home::of("");
    let told = |myid: Option<&str>| {
        match myid {
            Some(text) => fs::write(home.path().join("myid"), text).unwrap(),
            None => fs::remove_file(home.path().join("myid")).unwrap(),
        }
        home.read(THREE).unwrap_err()
    };

    let list = "1=zk1:2888,2=zk2:2888,3=zk3:2888";
    let four = told(Some("4"));
    assert_eq!(
        four,
        format!("DIR/zoo.cfg: this is server 4, and the servers are {list}; correct myid or --id, or add server.4")
    );
    let none = told(Some("one"));
    assert!(none.contains("DIR/myid says `one`, which is no number from 1 to 254"), "{none}");
    let missing = told(None);
    assert!(missing.contains("DIR/myid cannot be read (") && missing.contains(list), "{missing}");
}

#[test]
fn a_directory_that_zookeeper_has_used_is_refused() {
    let home = Home::of("1");
    fs::create_dir(home.path().join("version-2")).unwrap();

    let error = home.read("clientPort=2181").unwrap_err();

    assert!(error.contains("DIR holds the data of a ZooKeeper server (version-2)"), "{error}");
    assert!(error.contains("`quorate import zookeeper://HOST:PORT/`"), "{error}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    refused("tickTime=fast", "line 2: tickTime=fast is not a number");
    refused("tickTime=1\ntickTime=2", "line 3: tickTime stands there twice, first in line 2");
    refused("server.1=a:1:2\nserver.1=b:1:2", "line 3: server.1 stands there twice");
    refused("server.1=a:1:2\nserver.2=a:1:3", "server.1 and server.2 are both a:1: give each server its own address");
    refused("server.1=a:1:1", "line 2: server.1: peer port and election port are both 1");
    refused("server.1=a:1", "line 2: server.1: `a:1` is not HOST:PEERPORT:ELECTIONPORT");
    refused("server.0=a:1:2", "line 2: `server.0`: member ids go from 1 to 254");
    refused("server.255=a:1:2", "`server.255`: member ids go from 1 to 254");
    refused("server.1=a:1:2:observer", "all its servers are observers");
    refused("server.1=a:1:2:observer\nserver.2=b:1:2", "server.1, which this is by its myid, is an observer");
    refused("server.1=0.0.0.0:1:2\nserver.2=b:1:2", "server.1 is 0.0.0.0:1, where the other servers cannot find it");
    refused("clientPort=2181\nserver.1=a:1:2;2182", "clientPort says 2181, and server.1 says 2182: leave one of them");
    refused("clientPort=70000", "clientPort=70000 is not a port");
    refused("clientPortAddress=a", "clientPortAddress needs a clientPort");
    refused("minSessionTimeout=90\nmaxSessionTimeout=80", "line 3: maxSessionTimeout=80 is not from 90 to 86400000");
    refused("tickTime=0", "line 2: tickTime=0 is not from 10 to 60000");
    refused("tickTime=2000\nmaxSessionTimeout=3000", "line 3: maxSessionTimeout=3000 is not from 4000 to 86400000");
    refused("tickTime=2000\nminSessionTimeout=50000", "line 3: minSessionTimeout=50000 is not from 20 to 40000");
    refused("minSessionTimeout=0", "line 2: minSessionTimeout=0 is not from 20 to 86400000");
    refused("znode.container.checkIntervalMs=5", "line 2: znode.container.checkIntervalMs=5 is not from 100 to");
    refused("standaloneEnabled=false", "there are no server lines, and this server is not to stand alone");
    refused("clientport=2181", "line 2: there is no key `clientport`; did you mean `clientPort`?");
    refused("maxSesionTimeout=1", "did you mean `maxSessionTimeout`?");
    refused("a=\\u12", "line 2: `\\u` must be followed");
    refused(
        "DigestAuthenticationProvider.superDigest=super:secret",
        "line 2: DigestAuthenticationProvider.superDigest: a super digest is",
    );
}

#[test]
fn a_protection_that_is_not_there_is_not_ignored() {
    for key in keys::PROTECTION {
        refused(
            &format!("{key}=true"),
            &format!("line 2: {key}=true demands a protection that Quorate does not have yet"),
        );
        Home::of("1").read(&format!("{key}=false")).unwrap();
    }
    refused("DigestAuthenticationProvider.digestAlg=SHA-256", "Quorate knows SHA1 alone");
}
