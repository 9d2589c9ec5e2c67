//! Other people's servers and clients, fetched by `.ci/peers`. Where one is missing, its test says so and passes, or
//! fails if `QUORATE_PEERS_REQUIRED` is set.

use std::{
    env,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// The jars of ZooKeeper 3.9.
pub const ZOOKEEPER: &str = "zookeeper";
/// The jars of Curator and its ZooKeeper client.
pub const CURATOR: &str = "curator";
/// A Python environment with kazoo.
pub const KAZOO: &str = "kazoo";

/// Where a peer was unpacked. `None`, said loudly, if it was not fetched.
pub fn find(peer: &str) -> Result<Option<PathBuf>> {
    let directory = directory()?.join(peer);
    if directory.join(".complete").is_file() {
        return Ok(Some(directory));
    }
    let required = env::var_os("QUORATE_PEERS_REQUIRED").is_some();
    ensure!(!required, "{peer} is not in {} (.ci/peers fetches it)", directory.display());
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not by a macro: the test harness would keep it to itself.
    let _ = writeln!(
        io::stderr(),
        "\n== SKIPPED: {test}, for {peer} is not in {} (.ci/peers fetches it)\n",
        directory.display()
    );
    Ok(None)
}

/// A command of Java over the jars of a peer, and over a directory of classes.
#[must_use]
pub fn java(peer: &Path, classes: Option<&Path>) -> Command {
    let mut path = format!("{}/*", peer.join("lib").display());
    if let Some(classes) = classes {
        path = format!("{}:{path}", classes.display());
    }
    let mut command = Command::new("java");
    // Small and started quickly: these are short programs, and several at a time.
    command.args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.net.preferIPv4Stack=true"]);
    command.args(["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]);
    command.arg(format!("-Dlog4j2.configurationFile={}", peer.join("log4j2.properties").display()));
    command.args(["-cp", &path]).stdin(Stdio::null());
    command
}

fn directory() -> Result<PathBuf> {
    if let Some(directory) = env::var_os("QUORATE_PEERS") {
        return Ok(directory.into());
    }
    // The test runs from target/<profile>/deps.
    let test = env::current_exe().context("the path of this test")?;
    Ok(test.ancestors().nth(3).context("a test lies in target/<profile>/deps")?.join("peers"))
}
