//! `quorate import`, from a ZooKeeper door into another ensemble.

mod cli;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Command,
};

use bytes::BytesMut;
use cli::{Said, quorate, run};
use quorate::{Acl, Client, CreateMode, Permissions};
use quorate_sidecar::testing::TestEnsemble;
use quorate_wire::{ConnectResponse, PASSWORD_BYTES};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Two ensembles of one member, and a client of each.
struct Move {
    runtime: Runtime,
    ensembles: Vec<TestEnsemble>,
    from: Client,
    to: Client,
}

impl Move {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let (ensembles, from, to) = runtime.block_on(async {
            let ensembles = vec![TestEnsemble::start(1).await.unwrap(), TestEnsemble::start(1).await.unwrap()];
            let client = async |at: &TestEnsemble| {
                Client::builder(at.endpoints()).auth("digest", "op:secret").connect().await.unwrap()
            };
            let (from, to) = (client(&ensembles[0]).await, client(&ensembles[1]).await);
            (ensembles, from, to)
        });
        Self { runtime, ensembles, from, to }
    }

    fn source(&self, path: &str) -> String {
        format!("zookeeper://{}{path}", self.ensembles[0].zookeeper_endpoint(1))
    }

    fn command(&self, path: &str, args: &[&str]) -> Command {
        let mut command = quorate(["import", &self.source(path)]);
        command.args(args).env("QUORATE_ENDPOINT", self.ensembles[1].endpoint(1));
        command
    }

    /// Imports all of it.
    fn import(&self, args: &[&str]) -> Said {
        run(&mut self.command("/", args))
    }

    /// The report of an import that ends with `code`.
    #[track_caller]
    fn report(&self, code: i32, args: &[&str]) -> Value {
        let said = self.import(&[args, &["-o", "json"]].concat());
        assert_eq!(said.code, Some(code), "{said:?}");
        serde_json::from_str(&said.out).expect("one JSON value")
    }

    fn fill(&self, nodes: &[(&str, &str)]) {
        for (path, data) in nodes {
            self.runtime.block_on(async { self.from.create(path).data(data.to_string()).await }).unwrap();
        }
    }

    fn data(&self, path: &str) -> Option<String> {
        let node = self.runtime.block_on(async { self.to.get(path).opt().await }).unwrap()?;
        Some(String::from_utf8(node.data.to_vec()).unwrap())
    }

    fn acl(&self, path: &str) -> Vec<Acl> {
        self.runtime.block_on(async { self.to.get_acl(path).await }).unwrap().acl
    }
}

impl Drop for Move {
    fn drop(&mut self) {
        for ensemble in self.ensembles.drain(..) {
            self.runtime.block_on(ensemble.shutdown());
        }
    }
}

#[test]
fn a_tree_is_copied_with_its_data_and_the_second_time_there_is_nothing_to_do() {
    let both = Move::start();
    both.fill(&[("/a", "1"), ("/a/b", "2"), ("/a/b/c", ""), ("/d", "4")]);
    both.runtime.block_on(async { both.from.create("/a/e").ephemeral().await }).unwrap();

    let first = both.report(0, &[]);

    assert_eq!((&first["created"], &first["equal"]), (&json!(4), &json!(1)), "the root was there: {first}");
    assert_eq!(first["ephemeral"], json!({"count": 1, "listed": ["/a/e"]}));
    assert_eq!(first["not_carried"]["count"], 0);
    assert_eq!(both.data("/a/b").as_deref(), Some("2"));
    assert_eq!(both.data("/a/b/c").as_deref(), Some(""));
    assert_eq!(both.data("/a/e"), None);
    let second = both.report(0, &[]);
    assert_eq!((&second["created"], &second["equal"]), (&json!(0), &json!(5)), "{second}");
    let text = both.import(&[]);
    assert!(text.out.contains("         5  there already, and equal\n"), "{text:?}");
    assert!(text.out.contains("\nephemeral:\n  /a/e\n"), "{text:?}");
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let both = Move::start();
    both.fill(&[("/a", "1"), ("/a/b", "2")]);

    let report = both.report(0, &["--dry-run"]);

    assert_eq!((&report["created"], &report["dry_run"]), (&json!(2), &json!(true)), "{report}");
    assert_eq!(both.data("/a"), None);
    assert!(both.import(&["--dry-run"]).out.contains("         2  to create\n"));
}

#[test]
fn what_differs_is_told_and_left_unless_it_is_to_be_replaced() {
    let both = Move::start();
    both.fill(&[("/a", "theirs"), ("/a/b", "new")]);
    both.runtime.block_on(async { both.to.create("/a").data("ours").await }).unwrap();

    let left = both.import(&[]);
    assert_eq!(left.code, Some(1), "{left:?}");
    assert!(left.err.contains("error: 1 nodes were not carried"), "{left:?}");
    assert!(left.out.contains("/a: here it has other data (--overwrite replaces it)"), "{left:?}");
    assert_eq!((both.data("/a").as_deref(), both.data("/a/b").as_deref()), (Some("ours"), Some("new")));

    let dry = both.report(0, &["--overwrite", "--dry-run"]);
    assert_eq!((&dry["replaced"], both.data("/a").as_deref()), (&json!(1), Some("ours")));
    let replaced = both.report(0, &["--overwrite"]);
    assert_eq!((&replaced["replaced"], both.data("/a").as_deref()), (&json!(1), Some("theirs")));
}

#[test]
fn access_lists_are_carried_by_whoever_may_see_them() {
    let both = Move::start();
    let private = vec![Acl::digest(Permissions::ALL, "op", "secret")];
    let shown = vec![Acl::digest(Permissions::ALL, "op", "secret"), Acl::world(Permissions::READ)];
    both.runtime.block_on(async {
        both.from.create("/private").data("x").acl(private.clone()).await.unwrap();
        both.from.create("/private/below").await.unwrap();
        both.from.create("/shown").acl(shown.clone()).await.unwrap();
    });

    let stranger = both.import(&[]);
    assert_eq!(stranger.code, Some(9), "{stranger:?}");
    assert!(stranger.out.contains("/private: ZooKeeper does not let it be read (--source-auth)"), "{stranger:?}");
    assert!(stranger.out.contains("/shown: ZooKeeper hides its access list"), "a list without hashes is no list");
    assert_eq!((both.data("/private"), both.data("/shown")), (None, None));

    let report = both.report(0, &["--source-auth", "digest:op:secret", "--auth", "op:secret"]);
    assert_eq!(report["created"], 3, "{report}");
    assert_eq!((both.acl("/private"), both.acl("/shown")), (private, shown));
    assert_eq!(both.data("/private/below").as_deref(), Some(""));
    assert_eq!(both.report(0, &["--source-auth", "digest:op:secret", "--auth", "op:secret"])["equal"], 4);
}

#[test]
fn what_only_a_known_user_may_create_is_told_by_both_runs_and_ends_neither() {
    let both = Move::start();
    both.runtime.block_on(async {
        let guarded = vec![Acl::digest(Permissions::ALL, "op", "secret")];
        both.from.create("/guarded").acl(guarded).await.unwrap();
        both.from.create("/guarded/below").await.unwrap();
        both.from.create("/open").data("1").await.unwrap();
    });

    // The first time the list itself is new here, and later it hides the node as well.
    for (code, args) in [(9, &["--dry-run"][..]), (9, &[]), (9, &["--dry-run"]), (9, &[])] {
        let report = both.report(code, &[args, &["--source-auth", "digest:op:secret"]].concat());
        let not_carried = report["not_carried"]["listed"].to_string();
        assert!(not_carried.contains("not permitted here (--auth of a super user)"), "{args:?}: {report}");
    }
    assert_eq!(both.data("/open").as_deref(), Some("1"));

    let done = both.report(0, &["--source-auth", "digest:op:secret", "--auth", "op:secret"]);
    assert_eq!((&done["created"], &done["equal"]), (&json!(1), &json!(3)), "{done}");
}

#[test]
fn quotas_are_told_for_whoever_wants_them_here() {
    let both = Move::start();
    both.fill(&[("/a", ""), ("/a/b", "")]);
    let limits = "count=7,bytes=-1";
    both.runtime.block_on(async {
        let to = &both.from;
        to.create("/zookeeper/quota/a").await.unwrap();
        to.create("/zookeeper/quota/a/b").await.unwrap();
        to.create("/zookeeper/quota/a/b/zookeeper_limits").data(limits).await.unwrap();
    });

    let report = both.report(0, &["--dry-run"]);

    assert_eq!(report["quotas"], json!({"count": 1, "listed": [{"path": "/a/b", "limits": limits}]}));
    let said = run(&mut both.command("/a/b", &[]));
    assert!(said.out.contains("\n         1  quotas, not carried: set them again\n"), "{said:?}");
    assert!(said.out.contains("\nquotas:\n  /a/b: count=7,bytes=-1"), "{said:?}");
}

#[test]
fn sequence_numbers_go_on_where_they_were() {
    let both = Move::start();
    both.fill(&[("/queue", ""), ("/plain", "")]);
    let next = |client: &Client, path: &str| {
        let path = format!("{path}/n-");
        let created =
            both.runtime.block_on(async { client.create(&path).mode(CreateMode::PersistentSequential).await });
        created.unwrap().path
    };
    let first = next(&both.from, "/queue");
    for _ in 0..1200 {
        let path = next(&both.from, "/queue");
        both.runtime.block_on(async { both.from.delete(&path).await }).unwrap();
    }
    both.runtime.block_on(async { both.from.delete(&first).await }).unwrap();
    let kept = next(&both.from, "/queue");

    let report = both.report(0, &[]);

    assert_eq!(report["counters"], 1, "{report}");
    assert_eq!(kept, "/queue/n-0000001201");
    assert_eq!(both.data(&kept).as_deref(), Some(""));
    assert_eq!(next(&both.to, "/queue"), "/queue/n-0000001202");
    assert_eq!(next(&both.to, "/plain"), "/plain/n-0000000000");
    assert_eq!(both.report(0, &[])["counters"], 0, "the second time nothing lacks");
}

#[test]
fn a_subtree_comes_with_what_is_above_it_and_nothing_beside_it() {
    let both = Move::start();
    both.fill(&[("/a", "above"), ("/a/b", "base"), ("/a/b/c", "below"), ("/a/x", "beside")]);

    let said = run(&mut both.command("/a/b", &["-o", "json"]));

    let report: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!((said.code, &report["created"]), (Some(0), &json!(3)), "{report}");
    assert_eq!(both.data("/a").as_deref(), Some("above"));
    assert_eq!((both.data("/a/b/c").as_deref(), both.data("/a/x")), (Some("below"), None));
    run(&mut both.command("/nowhere", &[])).refused(3, "error: ZooKeeper has no node /nowhere");
    run(&mut both.command("/no/where", &[])).refused(3, "error: ZooKeeper has no node /no");
}

#[test]
fn a_large_tree_goes_through_bounded_windows() {
    let both = Move::start();
    both.runtime.block_on(async {
        both.from.create("/many").await.unwrap();
        for at in 0..20 {
            let mut txn = both.from.txn();
            for nth in 0..100 {
                txn = txn.create(format!("/many/{at}-{nth}"), "x".repeat(300));
            }
            txn.await.unwrap();
        }
    });

    assert_eq!(both.report(0, &[])["created"], 2001);
}

#[test]
fn a_zookeeper_that_goes_away_ends_the_import_and_it_can_be_run_again() {
    let both = Move::start();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let source = format!("zookeeper://{}/", other.local_addr().unwrap());
    // One connection for the import, one for the count: each gets a session, and is closed at its first request.
    let server = std::thread::spawn(move || {
        let serve = |mut stream: std::net::TcpStream| {
            let mut handshake = [0; 4 + 45];
            stream.read_exact(&mut handshake).unwrap();
            let granted = ConnectResponse {
                timeout_ms: 30_000,
                session_id: 1,
                password: [0; PASSWORD_BYTES],
                read_only: Some(false),
            };
            let mut out = BytesMut::new();
            quorate_wire::frame(&mut out, |to| granted.encode(to));
            stream.write_all(&out).unwrap();
            stream.read_exact(&mut [0; 8]).unwrap();
        };
        std::thread::scope(|threads| {
            for stream in other.incoming().take(2) {
                threads.spawn(|| serve(stream.unwrap()));
            }
        });
    });

    let said = run(quorate(["import", &source]).env("QUORATE_ENDPOINT", both.ensembles[1].endpoint(1)));

    said.refused(4, "error: the connection to ZooKeeper was lost: ");
    assert!(said.err.contains("0 nodes were done; run it again to go on"), "{said:?}");
    server.join().unwrap();
}

#[test]
fn a_source_that_is_none_is_told() {
    let unreachable = |source: &str| run(quorate(["import", source]).args(["--timeout", "500ms"]));

    unreachable("zookeeper://127.0.0.1:1/").refused(4, "error: no ZooKeeper can be reached: 127.0.0.1:1: ");
    unreachable("http://127.0.0.1:1/").refused(2, "a source reads zookeeper://HOST:PORT");
    unreachable("zookeeper://127.0.0.1:1/zookeeper").refused(2, "belongs to the server itself");

    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = other.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    unreachable(&format!("zookeeper://{address}/")).refused(4, "a frame of 1213486160 bytes");
    answers.join().unwrap();
}
