//! `quorate bench`: load for a running ensemble, over gRPC or over the ZooKeeper protocol.
//!
//! Closed loop unless `--rate` is given: then operations are due at fixed times whatever the answers do, and an
//! answer's time counts from when the operation was due, so that a stall is seen by all that should have happened
//! in it.

use std::{
    io::IsTerminal as _,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use clap::Args;
use tokio::{runtime, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{
    ensemble::{Ensemble, duration},
    exit::{Exit, Failure},
    output::{self, Format},
};
use crate::net::raise_open_files;

mod assertion;
mod churn;
mod drive;
mod failover;
mod fan_out;
mod grpc;
mod idle;
mod lock;
mod measure;
mod memory;
mod stall;
mod target;
mod usage;
mod workload;
mod zookeeper;

use assertion::Assertion;
use measure::{Live, Measured, Window};
use target::Target;
use usage::Servers;
use workload::{Kind, Workload};

/// Load an ensemble and measure its answers
///
/// Workloads: set-lat, set, create, get-lat, get, lget-lat, lget, mixed, mixed-d1, eph, lock1, lock8, lock64, churn,
/// watch1000, watch5000; without any, all of these. Heavy ones: memory loads a million nodes, idle keeps ten thousand
/// sessions, failover kills the leader; children, ephemerals and watches do something with very many of these, and measure
/// what others wait meanwhile. The nodes of a run are below /bench and deleted at its end.
#[derive(Args, Debug)]
pub(super) struct Bench {
    /// What to do
    #[arg(value_name = "WORKLOAD", value_parser = workload::parse)]
    workloads: Vec<Workload>,

    /// Speak ZooKeeper's protocol with these servers instead, HOST:PORT,...
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',')]
    zookeeper: Vec<String>,

    /// Sessions, each with a connection of its own [default: the workload's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sessions: Option<u32>,

    /// Operations of a session that wait for an answer [default: the workload's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    in_flight: Option<u32>,

    /// Bytes of a node's data [default: the workload's]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    value_size: Option<u32>,

    /// Nodes that are read and set, or loaded [default: the workload's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    keys: Option<u32>,

    /// Operations per second of all sessions together, due at fixed times [default: as many as are answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,

    /// How long to measure
    #[arg(long, value_name = "DURATION", default_value = "4s", value_parser = duration)]
    duration: Duration,

    /// How long to load before that
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration)]
    warm_up: Duration,

    /// Of watch1000, watch5000 and failover [default: the workload's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    rounds: Option<u16>,

    /// What kills the leader and prints when, in nanoseconds since 1970 (failover)
    #[arg(long, value_name = "COMMAND", requires = "restart_cmd")]
    kill_cmd: Option<String>,

    /// What starts it again and comes back when the ensemble is whole (failover)
    #[arg(long, value_name = "COMMAND", requires = "kill_cmd")]
    restart_cmd: Option<String>,

    /// Members on this machine by their process ids: their CPU and memory are measured too
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    server_pids: Vec<u32>,

    /// Threads of the generator; it shares the machine with what it loads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,

    /// Leave the nodes of the run behind
    #[arg(long)]
    keep: bool,

    /// What must hold of every workload, like 'p99<20ms,errors=0,ops>1000'; otherwise the command ends with 1
    #[arg(long, value_name = "CONDITIONS", value_delimiter = ',')]
    assert: Vec<Assertion>,

    #[command(flatten)]
    ensemble: Ensemble,
}

/// How a workload is run.
#[derive(Clone, Debug)]
struct Plan {
    sessions: usize,
    in_flight: usize,
    value_size: usize,
    keys: usize,
    /// Between two operations of one session that are due, in an open loop.
    pace: Option<Duration>,
    warm_up: Duration,
    duration: Duration,
    servers: Servers,
}

/// Transactions that make the nodes to read and set, at a time.
const FILLING: usize = 8;

impl Bench {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) fn runtime(&self) -> runtime::Builder {
        if self.threads == 1 {
            return runtime::Builder::new_current_thread();
        }
        let mut builder = runtime::Builder::new_multi_thread();
        builder.worker_threads(self.threads.into());
        builder
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        raise_open_files();
        // Better now than when everything has been measured.
        Servers::new(&self.server_pids).memory()?;
        let target = Arc::new(self.target().await?);
        let mut workloads = self.workloads.clone();
        if workloads.is_empty() {
            workloads.extend(workload::ALL.iter().filter(|workload| workload.is_light()));
        }
        let base = format!("/bench/{:016x}", rand::random::<u64>());
        let mut results = Vec::new();
        let mut failed = None;
        for workload in &workloads {
            match self.measure(*workload, &target, &workload.folder(&base)).await {
                Ok(measured) => results.extend(measured),
                Err(failure) => {
                    failed = Some(failure);
                    break;
                }
            }
        }
        // What was measured is told, whatever comes of cleaning up.
        if !results.is_empty() {
            self.print(&results)?;
        }
        let cleaned_up = if self.keep { Ok(()) } else { self.clean_up(&target, &base, &workloads).await };
        if let Some(failure) = failed {
            return Err(failure);
        }
        cleaned_up?;
        self.judge(&results)
    }

    async fn clean_up(&self, target: &Target, base: &str, workloads: &[Workload]) -> Result<(), Failure> {
        let mut cleaner = target.connect(0).await?;
        for workload in workloads.iter().filter(|workload| workload.needs_keys()) {
            // By their names: there may be more than a member lists in one answer.
            cleaner.delete_keys(&workload.folder(base), self.plan(*workload).keys).await?;
        }
        cleaner.delete_tree(base).await?;
        cleaner.close().await;
        Ok(())
    }

    async fn target(&self) -> Result<Target, Failure> {
        if self.zookeeper.is_empty() {
            // Says at once, and in words, if there is nobody.
            self.ensemble.within(self.ensemble.admin()?.status()).await??;
            return Ok(Target::Grpc(self.ensemble.endpoint_list()));
        }
        Ok(Target::Zookeeper(self.zookeeper.clone()))
    }

    fn plan(&self, workload: Workload) -> Plan {
        let sessions = self.sessions.map_or(workload.sessions, |sessions| sessions as usize);
        Plan {
            sessions,
            in_flight: self.in_flight.map_or(workload.in_flight, |in_flight| in_flight as usize),
            value_size: self.value_size.map_or(workload.value_size, |bytes| bytes as usize),
            keys: self.keys.map_or(workload.keys, |keys| keys as usize),
            pace: self.rate.map(|rate| Duration::from_secs_f64(sessions as f64 / f64::from(rate))),
            warm_up: self.warm_up,
            duration: self.duration,
            servers: Servers::new(&self.server_pids),
        }
    }

    async fn measure(&self, workload: Workload, target: &Arc<Target>, folder: &str) -> Result<Vec<Measured>, Failure> {
        let plan = self.plan(workload);
        // A session of each workload: one that is silent while another is measured would expire over ZooKeeper's protocol.
        let mut setter = target.connect(0).await?;
        setter.make_parents(folder).await?;
        let live = Arc::new(Live::default());
        let line = self.live_line(workload.name, &live);
        let one = |measured: Result<Measured, Failure>| measured.map(|measured| vec![measured]);
        let measured = match workload.kind {
            Kind::Stall(large) => stall::run(target, &plan, large, &mut setter, folder).await,
            Kind::Lock => one(lock::run(target, &plan, folder, &live).await),
            Kind::Churn => one(churn::run(target, &plan, &live).await),
            Kind::FanOut { rounds } => one(fan_out::run(target, &plan, self.rounds(rounds), &mut setter, folder).await),
            Kind::Failover { rounds } => {
                let commands = self.commands()?;
                one(failover::run(target, &plan, self.rounds(rounds), &commands, &mut setter, folder).await)
            }
            Kind::Memory => one(memory::run(&mut setter, &plan, folder, &live).await),
            Kind::Idle => one(idle::run(target, &plan, &live).await),
            Kind::Loop(mix) => {
                if workload.needs_keys() {
                    setter.fill(folder, plan.keys, plan.value_size, FILLING, |_, _| {}).await?;
                }
                one(drive::run(target, &plan, mix, folder, &live).await)
            }
        };
        drop(line);
        setter.close().await;
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K");
        }
        Ok(measured?.into_iter().map(|measured| measured.named(workload.name, folder.into(), &plan)).collect())
    }

    fn rounds(&self, usual: usize) -> usize {
        self.rounds.map_or(usual, usize::from)
    }

    fn commands(&self) -> Result<failover::Commands, Failure> {
        match (&self.kill_cmd, &self.restart_cmd) {
            (Some(kill), Some(restart)) => Ok(failover::Commands { kill: kill.clone(), restart: restart.clone() }),
            _ => Err(Failure::new(Exit::Usage, "failover needs --kill-cmd and --restart-cmd")),
        }
    }

    /// On a terminal, what happens while it happens.
    fn live_line(&self, name: &'static str, live: &Arc<Live>) -> AbortOnDropHandle<()> {
        let live = live.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            if !std::io::stderr().is_terminal() {
                return;
            }
            let (mut before, mut at) = (0, Instant::now());
            loop {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let done = live.done.load(Ordering::Relaxed);
                let per_second = (done - before) as f64 / at.elapsed().as_secs_f64();
                let errors = live.errors.load(Ordering::Relaxed);
                eprint!("\r\x1b[K{name}: {per_second:.0} ops/s, {errors} errors");
                (before, at) = (done, Instant::now());
            }
        }))
    }

    fn print(&self, results: &[Measured]) -> Result<(), Failure> {
        if self.ensemble.output == Format::Json {
            output::json(&results)?;
            return Ok(());
        }
        let rows = results.iter().map(Measured::row).collect();
        let head = [
            "WORKLOAD",
            "SESSIONS",
            "IN FLIGHT",
            "OPS/S",
            "P50 MS",
            "P99 MS",
            "P99.9 MS",
            "MAX MS",
            "SERVER US/OP",
            "SERVER MIB",
            "ERRORS",
        ];
        let right = [false, true, true, true, true, true, true, true, true, true, true];
        output::line(&output::table(head, right, rows))?;
        Ok(())
    }

    fn judge(&self, results: &[Measured]) -> Result<ExitCode, Failure> {
        let broken: Vec<String> = results
            .iter()
            .flat_map(|measured| self.assert.iter().filter_map(|assertion| assertion.broken_by(measured)))
            .collect();
        if broken.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        Err(Failure::new(Exit::Refused, format_args!("does not hold: {}", broken.join("; "))))
    }
}

/// Waits for the tasks of all sessions and puts what they measured together.
async fn gather(
    mut tasks: JoinSet<Result<Measured, Failure>>,
    plan: &Plan,
    window: Window,
) -> Result<Measured, Failure> {
    let usage = plan.servers.during(window);
    let mut all = Measured::new();
    while let Some(done) = tasks.join_next().await {
        all.add(&done.map_err(|panicked| Failure::new(Exit::Refused, panicked))??);
    }
    all.used(usage.await.map_err(|panicked| Failure::new(Exit::Refused, panicked))??, None);
    Ok(all)
}
