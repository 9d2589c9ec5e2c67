//! An ensemble of real `quorate serve` processes on this machine, and everything that may happen to it.
//!
//! Each member has its doors on free ports, its data in a directory of the cluster, and one file with the output of
//! all its starts. When a test fails the ends of these files are printed and the directory stays. Dropping the
//! cluster kills what still runs.
//!
//! One cluster runs at a time in a process ([`on_processes`]): tests that count on a share of the machine would
//! disturb each other.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{ExitStatus, Output},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use quorate_sidecar::testing::free_port;
use tempfile::TempDir;
use tokio::{runtime, time::timeout};

use crate::{
    ensemble::Ensemble,
    eventually::{SOON, eventually},
    process::{self, Process},
    proxy::{Proxies, Side},
};

/// A scenario that takes longer hangs.
pub(crate) const SCENARIO_MAX: Duration = Duration::from_secs(300);

/// Lines of each member's output that a failed test prints.
const LINES_SHOWN: usize = 80;

/// How a cluster is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many members.
    pub members: u8,
    /// The session clock: sessions last from 2 to 20 ticks.
    pub tick_ms: u64,
    /// A silent leader is replaced within this.
    pub election_timeout_ms: u64,
    /// Whether the doors stand behind proxies that can be cut.
    pub proxied: bool,
    /// Further arguments of every member.
    pub arguments: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        // An election that ends well within the shortest session, on a machine with other things to do.
        Self { members: 3, tick_ms: 500, election_timeout_ms: 600, proxied: false, arguments: Vec::new() }
    }
}

/// An ensemble of processes.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    directory: Option<TempDir>,
    members: BTreeMap<u8, Member>,
    proxies: Proxies,
    failed: bool,
}

/// One member, whether it runs or not.
#[derive(Debug)]
struct Member {
    process: Option<Process>,
    data: PathBuf,
    log: PathBuf,
    /// Where its doors are.
    client: SocketAddr,
    peer: SocketAddr,
    admin: SocketAddr,
    zookeeper: SocketAddr,
    /// Where others find them: the same, or proxies.
    client_found_at: SocketAddr,
    peer_found_at: SocketAddr,
}

/// Runs a scenario on processes, all of them ready when it begins. Panics if it fails, with what the members said.
///
/// # Panics
/// If the scenario fails or does not end.
pub fn on_processes(options: Options, scenario: impl AsyncFnOnce(&mut Cluster) -> Result<()>) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);

    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let mut cluster = Cluster::new(options).await?;
        let run = async {
            cluster.start_all().await?;
            cluster.all_ready().await?;
            scenario(&mut cluster).await
        };
        let outcome =
            timeout(SCENARIO_MAX, run).await.unwrap_or_else(|_| Err(anyhow!("it hangs for {SCENARIO_MAX:?}")));
        cluster.failed = outcome.is_err();
        outcome
    });
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}

impl Cluster {
    /// A cluster whose members do not run yet.
    pub async fn new(options: Options) -> Result<Self> {
        let directory = TempDir::with_prefix("quorate-")?;
        let mut proxies = Proxies::default();
        let mut members = BTreeMap::new();
        for id in 1..=options.members {
            let [client, peer, admin, zookeeper] = [(); 4].map(|()| free_address());
            let (mut client_found_at, mut peer_found_at) = (client, peer);
            if options.proxied {
                (client_found_at, peer_found_at) = (free_address(), free_address());
                proxies.open(client_found_at, id, client, true).await?;
                proxies.open(peer_found_at, id, peer, false).await?;
            }
            let data = directory.path().join(format!("member-{id}"));
            let log = directory.path().join(format!("member-{id}.log"));
            let member =
                Member { process: None, data, log, client, peer, admin, zookeeper, client_found_at, peer_found_at };
            members.insert(id, member);
        }
        Ok(Self { options, directory: Some(directory), members, proxies, failed: false })
    }

    /// How it was set up.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The proxies of the links, if the options ask for them.
    pub fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// The clients' door of a member, past the proxy.
    pub fn client_door(&self, id: u8) -> SocketAddr {
        self.member(id).client
    }

    /// The peers' door of a member, past the proxy.
    pub fn peer_door(&self, id: u8) -> SocketAddr {
        self.member(id).peer
    }

    /// The door of a member for ZooKeeper's clients.
    pub fn zookeeper_door(&self, id: u8) -> SocketAddr {
        self.member(id).zookeeper
    }

    /// Those of all members, as ZooKeeper's clients are told of them.
    pub fn zookeeper_doors(&self) -> String {
        let doors: Vec<_> = self.members.values().map(|member| member.zookeeper.to_string()).collect();
        doors.join(",")
    }

    /// The data directory of a member.
    pub fn data(&self, id: u8) -> PathBuf {
        self.member(id).data.clone()
    }

    /// The processes that run, by member.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.members.values().filter_map(|member| member.process.as_ref()).map(Process::id)
    }

    /// What a member has said, over all its starts.
    pub fn log(&self, id: u8) -> String {
        fs::read_to_string(&self.member(id).log).unwrap_or_default()
    }

    /// The arguments with which a member is started.
    pub fn arguments(&self, id: u8) -> Vec<String> {
        let member = self.member(id);
        let ensemble: Vec<_> = self.members.iter().map(|(id, other)| format!("{id}={}", other.peer_found_at)).collect();
        let mut arguments = vec!["serve".into()];
        let mut flag = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        flag("id", id.to_string());
        flag("data-dir", member.data.display().to_string());
        flag("ensemble", ensemble.join(","));
        flag("client-addr", member.client.to_string());
        flag("peer-addr", member.peer.to_string());
        flag("admin-addr", member.admin.to_string());
        flag("zookeeper-addr", member.zookeeper.to_string());
        flag("tick-ms", self.options.tick_ms.to_string());
        flag("election-timeout-ms", self.options.election_timeout_ms.to_string());
        flag("log-format", "human".into());
        arguments.extend(self.options.arguments.iter().cloned());
        arguments
    }

    /// Starts a member with a command of the test's own.
    pub fn start_with(&mut self, id: u8, command: std::process::Command) -> Result<()> {
        let member = self.member_mut(id);
        ensure!(member.process.is_none(), "member {id} runs already");
        let process = Process::start(command, &member.log)?;
        let process_id = process.id();
        member.process = Some(process);
        self.proxies.know(id, process_id);
        Ok(())
    }

    /// Asks a member to end (SIGTERM), and waits until it has.
    pub async fn terminate(&mut self, id: u8) -> Result<ExitStatus> {
        self.process(id)?.terminate()?;
        self.ended(id).await
    }

    /// Waits until a member has ended by itself.
    pub async fn ended(&mut self, id: u8) -> Result<ExitStatus> {
        let mut process = self.take(id)?;
        let ended = eventually(format!("member {id} has ended"), SOON, || {
            std::future::ready(match process.ended() {
                Ok(Some(status)) => Ok(Ok(status)),
                Ok(None) => Err("it runs"),
                Err(error) => Ok(Err(error)),
            })
        });
        ended.await?
    }

    /// Lets the disk of a member refuse writes: no file may grow beyond so many bytes.
    ///
    /// The member must have been started so that it does not mind SIGXFSZ, see [`process::unlimited_by_signal`].
    pub fn limit_files(&self, id: u8, bytes: u64) -> Result<()> {
        self.process(id)?.limit_files(bytes)
    }

    fn links(&self, id: u8) -> Result<Vec<(Side, u8)>> {
        ensure!(self.options.proxied, "only a cluster behind proxies can be cut");
        let others = self.ids().into_iter().filter(|other| *other != id);
        Ok(others.flat_map(|other| [(Side::Member(id), other), (Side::Member(other), id)]).collect())
    }

    fn process(&self, id: u8) -> Result<&Process> {
        self.member(id).process.as_ref().with_context(|| format!("member {id} does not run"))
    }

    fn take(&mut self, id: u8) -> Result<Process> {
        self.member_mut(id).process.take().with_context(|| format!("member {id} does not run"))
    }

    fn member(&self, id: u8) -> &Member {
        self.members.get(&id).expect("the test names a member of its cluster")
    }

    fn member_mut(&mut self, id: u8) -> &mut Member {
        self.members.get_mut(&id).expect("the test names a member of its cluster")
    }

    fn report(&self) -> String {
        let mut report = String::new();
        for (id, member) in &self.members {
            let log = self.log(*id);
            let lines: Vec<_> = log.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
            let _ = writeln!(
                report,
                "--- member {id}, {} of {} lines of {}",
                shown.len(),
                lines.len(),
                member.log.display()
            );
            for line in shown {
                let _ = writeln!(report, "{line}");
            }
        }
        report
    }
}

impl Ensemble for Cluster {
    fn ids(&self) -> Vec<u8> {
        self.members.keys().copied().collect()
    }

    fn running(&self) -> Vec<u8> {
        self.members.iter().filter(|(_, member)| member.process.is_some()).map(|(id, _)| *id).collect()
    }

    fn endpoint(&self, id: u8) -> String {
        format!("http://{}", self.member(id).client_found_at)
    }

    fn admin_door(&self, id: u8) -> SocketAddr {
        self.member(id).admin
    }

    fn tick(&self) -> Duration {
        Duration::from_millis(self.options.tick_ms)
    }

    fn election_timeout(&self) -> Duration {
        Duration::from_millis(self.options.election_timeout_ms)
    }

    /// Returns at once: the process has begun.
    async fn start(&mut self, id: u8) -> Result<()> {
        let mut command = process::command()?;
        command.args(self.arguments(id));
        self.start_with(id, command)
    }

    /// With -9.
    async fn kill(&mut self, id: u8) -> Result<()> {
        self.take(id)?.kill();
        Ok(())
    }

    async fn stop(&mut self, id: u8) -> Result<()> {
        let status = self.terminate(id).await?;
        ensure!(status.success(), "member {id} was asked to end and ended with {status}");
        Ok(())
    }

    async fn wipe(&mut self, id: u8) -> Result<()> {
        let member = self.member(id);
        ensure!(member.process.is_none(), "member {id} runs: its disk cannot be taken");
        fs::remove_dir_all(&member.data).with_context(|| format!("wiping {}", member.data.display()))
    }

    /// With SIGSTOP.
    async fn pause(&mut self, id: u8) -> Result<()> {
        self.process(id)?.pause()
    }

    async fn resume(&mut self, id: u8) -> Result<()> {
        self.process(id)?.resume()
    }

    /// Needs [`Options::proxied`].
    async fn cut_off(&mut self, id: u8) -> Result<()> {
        self.links(id)?.into_iter().for_each(|(from, to)| self.proxies.cut(from, to));
        Ok(())
    }

    async fn heal(&mut self, id: u8) -> Result<()> {
        self.links(id)?.into_iter().for_each(|(from, to)| self.proxies.heal(from, to));
        Ok(())
    }

    fn check_alive(&mut self, id: u8) -> Result<()> {
        let process = self.member_mut(id).process.as_mut().with_context(|| format!("member {id} does not run"))?;
        match process.ended()? {
            Some(status) => bail!("member {id} ended with {status} instead of serving"),
            None => Ok(()),
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in self.members.values_mut() {
            drop(member.process.take());
        }
        if self.failed || thread::panicking() {
            eprintln!("{}", self.report());
            if let Some(directory) = self.directory.take() {
                eprintln!("--- what the members left behind is in {}", directory.keep().display());
            }
        }
    }
}

/// An address on this machine that nobody listens on.
fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// Runs a command of the binary until it ends, for starts that must be refused.
pub async fn run_to_the_end(arguments: Vec<String>) -> Result<Output> {
    let mut command = process::command()?;
    command.args(&arguments);
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    let output = timeout(SOON, command.output()).await;
    Ok(output.with_context(|| format!("{arguments:?} did not end within {SOON:?}"))??)
}
