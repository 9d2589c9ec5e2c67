//! The two servers that are compared: each a process of its own on free ports, with fast disks if they like.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use quorate_integration::{
    peers,
    process::{self, Process},
};
use quorate_sidecar::testing::free_port;
use tempfile::TempDir;

/// The session clock of both: timeouts are from 2 of it.
pub(crate) const TICK_MS: u64 = 1000;
/// The longest timeout: longer than anything that keeps a session of this test waiting, on any machine.
pub(crate) const TIMEOUT_MS_MAX: u64 = 600_000;

/// When nodes go that wait for nothing but time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reaping {
    /// Not while the test runs: when one goes is not to be compared.
    Never,
    /// Within a moment. Random requests leave such nodes alone then.
    Soon,
}

impl Reaping {
    fn period_ms(self) -> u64 {
        match self {
            Self::Never => 86_400_000,
            Self::Soon => 100,
        }
    }
}

/// Passes every access control list, on both.
pub(crate) const SUPER: &str = "super:secret";
const SUPER_DIGEST: &str = "super:lK75jTNcA+U9vtVEw5vB51mj/w4=";

/// A server to compare.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    process: Process,
    directory: TempDir,
}

impl Server {
    /// A real ZooKeeper, alone.
    pub(crate) fn zookeeper(peer: &Path, reaping: Reaping) -> Result<Self> {
        let directory = TempDir::with_prefix("quorate-zookeeper-")?;
        let port = free_port();
        let config = directory.path().join("zoo.cfg");
        let settings = format!(
            "tickTime={TICK_MS}\ndataDir={}\nclientPortAddress=127.0.0.1\nclientPort={port}\nmaxClientCnxns=0\n\
             admin.enableServer=false\n4lw.commands.whitelist=*\nextendedTypesEnabled=true\nenforceQuota=true\n\
             snapCount=10000000\nmaxSessionTimeout={TIMEOUT_MS_MAX}\n",
            directory.path().join("data").display()
        );
        fs::write(&config, settings)?;
        let mut command = peers::java(peer, None);
        command.arg(format!("-Dznode.container.checkIntervalMs={}", reaping.period_ms()));
        // It may lose its data.
        command.arg("-Dzookeeper.forceSync=no");
        command.arg(format!("-Dzookeeper.DigestAuthenticationProvider.superDigest={SUPER_DIGEST}"));
        command.args(["org.apache.zookeeper.server.quorum.QuorumPeerMain", &config.display().to_string()]);
        Self::start("zookeeper", command, port, directory)
    }

    /// Ours, as an ensemble of one.
    pub(crate) fn quorate(reaping: Reaping) -> Result<Self> {
        let directory = TempDir::with_prefix("quorate-")?;
        let [port, client, peer, admin] = [(); 4].map(|()| free_port());
        let mut command = process::command()?;
        command.args(["serve", "--id", "1", "--log-format", "human"]);
        command.args(["--reap-period-ms", &reaping.period_ms().to_string()]);
        command.args(["--session-timeout-max-ms", &TIMEOUT_MS_MAX.to_string()]);
        command.args(["--four-letter-words", "*", "--tick-ms", &TICK_MS.to_string()]);
        command.args(["--super-digest", SUPER_DIGEST]);
        command.args(["--data-dir", &directory.path().join("data").display().to_string()]);
        command.args(["--ensemble", &format!("1=127.0.0.1:{peer}"), "--peer-addr", &format!("127.0.0.1:{peer}")]);
        command.args(["--client-addr", &format!("127.0.0.1:{client}"), "--admin-addr", &format!("127.0.0.1:{admin}")]);
        command.args(["--zookeeper-addr", &format!("127.0.0.1:{port}")]);
        Self::start("quorate", command, port, directory)
    }

    fn start(name: &'static str, command: Command, port: u16, directory: TempDir) -> Result<Self> {
        let process = Process::start(command, &directory.path().join("log"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self { name, address, process, directory };
        let deadline = Instant::now() + Duration::from_secs(120);
        while !server.serves() {
            if let Some(status) = server.process.ended()? {
                bail!("{name} ended with {status}:\n{}", server.log());
            }
            if Instant::now() > deadline {
                bail!("{name} does not serve:\n{}", server.log());
            }
            pause();
        }
        Ok(server)
    }

    /// The end of what it said.
    pub(crate) fn log(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// Whether it takes sessions.
    fn serves(&self) -> bool {
        self.word("srvr").is_ok_and(|answer| answer.contains("Mode: "))
    }

    /// The answer to a four-letter word.
    pub(crate) fn word(&self, word: &str) -> Result<String> {
        let mut socket = TcpStream::connect(self.address)?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        socket.write_all(word.as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).context("the answer to a word")?;
        Ok(answer)
    }
}

/// Between two looks at a condition that has a deadline.
#[expect(clippy::disallowed_methods, reason = "nothing else waits in this thread")]
pub(crate) fn pause() {
    thread::sleep(Duration::from_millis(20));
}
