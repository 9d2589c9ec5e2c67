//! A real ZooKeeper is moved over: the same file starts a member, an import brings the nodes, and ZooKeeper's own command
//! line sees the same tree in both. Passes with a word where ZooKeeper was not fetched.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use quorate_integration::{
    peers,
    process::{self, Process},
};
use quorate_sidecar::testing::free_port;
use serde_json::{Value, json};
use tempfile::TempDir;

const SUPER: &str = "super:secret";
const SUPER_DIGEST: &str = "super:lK75jTNcA+U9vtVEw5vB51mj/w4=";

/// Every kind of node, access lists of each scheme, and a parent that has lost children.
const NODES: &str = "\
create /app top
create /app/config a=1
create -c /app/container x
create -t 600000 /app/ttl y
create -s /app/seq- 1
create -s /app/seq- 2
delete /app/seq-0000000003
create /ip i ip:127.0.0.0/8:cdrwa
create /read r world:anyone:r,digest:op:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=:cdrwa
create /closed c digest:op:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=:cdrwa
addauth digest super:secret
create /closed/below d
create -e /app/ephemeral e
";

/// What both must answer alike.
const QUESTIONS: &str = "\
addauth digest super:secret
ls -R /app
ls /
get /app/config
get /closed/below
getAcl /ip
getAcl /read
getAcl /closed
getAcl /closed/below
getAllChildrenNumber /app
";

/// Where a server keeps its files.
struct Home {
    directory: TempDir,
    port: u16,
}

impl Home {
    fn new(more: &str) -> Result<Self> {
        let directory = TempDir::with_prefix("quorate-import-")?;
        let port = free_port();
        let data = directory.path().join("data");
        fs::create_dir(&data)?;
        let text = format!(
            "tickTime=2000\ninitLimit=10\ndataDir={}\nclientPortAddress=127.0.0.1\nclientPort={port}\n\
             admin.enableServer=false\nextendedTypesEnabled=true\n4lw.commands.whitelist=srvr\n\
             DigestAuthenticationProvider.superDigest={SUPER_DIGEST}\n{more}",
            data.display()
        );
        fs::write(directory.path().join("zoo.cfg"), text)?;
        Ok(Self { directory, port })
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("zoo.cfg")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn serves(&self) -> Result<bool> {
        let Ok(mut socket) = TcpStream::connect(("127.0.0.1", self.port)) else { return Ok(false) };
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(b"srvr")?;
        let mut answer = String::new();
        // A server that has only begun to listen may close.
        Ok(socket.read_to_string(&mut answer).is_ok() && answer.contains("Mode: "))
    }

    fn wait_until_it_serves(&self, process: &mut Process) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !self.serves()? {
            if process.ended()?.is_some() || Instant::now() > deadline {
                bail!("it does not serve: {}", fs::read_to_string(self.log())?);
            }
            thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What ZooKeeper's command line prints for `script`, without what it says of itself.
    fn ask(&self, zookeeper: &Path, script: &str) -> Result<Vec<String>> {
        let mut command = peers::java(zookeeper, None);
        command.args(["org.apache.zookeeper.ZooKeeperMain", "-server", &format!("127.0.0.1:{}", self.port)]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("java runs")?;
        child.stdin.take().context("it is piped")?.write_all(script.as_bytes())?;
        let Output { stdout, stderr, .. } = child.wait_with_output()?;
        let lines = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        let of_itself = ["Connecting", "Welcome", "JLine", "WATCHER", "WatchedEvent", "[zk:"];
        let said = |line: &&str| !line.trim().is_empty() && !of_itself.iter().any(|start| line.starts_with(start));
        Ok(lines.lines().filter(said).map(Into::into).collect())
    }
}

fn quorate(args: &[&str]) -> Result<Output> {
    process::command()?.args(args).output().context("quorate runs")
}

#[test]
fn a_zookeeper_is_moved_over_and_its_own_command_line_sees_the_same_tree() -> Result<()> {
    let Some(zookeeper) = peers::find(peers::ZOOKEEPER)? else { return Ok(()) };
    let old = Home::new("")?;
    let mut command = peers::java(&zookeeper, None);
    command.args(["org.apache.zookeeper.server.quorum.QuorumPeerMain", &old.file().display().to_string()]);
    let mut old_server = Process::start(command, &old.log())?;
    old.wait_until_it_serves(&mut old_server)?;
    old.ask(&zookeeper, NODES)?;

    // Its own file is refused while its data lies there, and works with another directory.
    let refused = quorate(&["serve", "--zoo-cfg", &old.file().display().to_string()])?;
    let told = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(refused.status.code() == Some(2) && told.contains("holds the data of a ZooKeeper server"), "{told}");
    let client = format!("127.0.0.1:{}", free_port());
    let peer = format!("127.0.0.1:{}", free_port());
    let new = Home::new(&format!("quorate.client_addr={client}\nquorate.peer_addr={peer}\n"))?;
    let mut command = process::command()?;
    command.args(["serve", "--zoo-cfg", &new.file().display().to_string()]);
    let mut new_server = Process::start(command, &new.log())?;
    new.wait_until_it_serves(&mut new_server)?;

    let source = format!("zookeeper://127.0.0.1:{}/", old.port);
    let endpoint = format!("http://{client}");
    let import =
        ["import", &source, "--endpoint", &endpoint, "--source-auth", &format!("digest:{SUPER}"), "--auth", SUPER];
    let report = |more: &[&str]| -> Result<Value> {
        let done = quorate(&[&import, more, &["-o", "json"]].concat())?;
        let told = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{:?}: {told}", done.status);
        serde_json::from_slice(&done.stdout).context("one JSON value")
    };
    let dry = report(&["--dry-run"])?;
    let first = report(&[])?;
    let second = report(&[])?;

    assert_eq!((&dry["created"], &first["created"], &second["created"]), (&json!(9), &json!(9), &json!(0)));
    assert_eq!((&second["equal"], &second["not_carried"]["count"]), (&json!(10), &json!(0)));
    assert_eq!(first["counters"], 1, "{first}");
    // The session that made it may live on for a while.
    old.ask(&zookeeper, "delete /app/ephemeral\n")?;
    let wanted = old.ask(&zookeeper, QUESTIONS)?;
    for line in ["/app/seq-0000000004", "[app, closed, ip, read, zookeeper]", "a=1"] {
        assert!(wanted.iter().any(|said| said == line), "{line}: {wanted:#?}");
    }
    assert_eq!(new.ask(&zookeeper, QUESTIONS)?, wanted);
    let next = |home: &Home| home.ask(&zookeeper, "create -s /app/seq- next\n");
    assert_eq!(next(&new)?, next(&old)?, "sequence numbers go on alike");
    Ok(())
}
