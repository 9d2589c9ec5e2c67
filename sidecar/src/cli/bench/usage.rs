//! What is used of this machine while a workload is measured: by the members, by the generator and by anything else.
//! It is read from /proc, so where there is none, or the members run elsewhere, nothing is said.

use std::{fs, sync::Arc, time::Instant};

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};
use serde::Serialize;
use tokio_util::task::AbortOnDropHandle;

use super::measure::Window;
use crate::cli::exit::{Exit, Failure};

/// Processes of the members, on this machine.
#[derive(Clone, Debug)]
pub(super) struct Servers(Arc<[u32]>);

/// Cores are seconds of CPU in a second.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Usage {
    /// All members together.
    pub(super) server_cores: f64,
    /// Resident, of each.
    pub(super) server_memory_bytes: Vec<u64>,
    generator_cores: f64,
    /// Whatever else runs here: a figure that was taken beside much of it says little.
    other_cores: f64,
}

/// CPU used so far, seconds.
struct Readings {
    at: Instant,
    servers: f64,
    generator: f64,
    machine: f64,
}

impl Servers {
    pub(super) fn new(pids: &[u32]) -> Self {
        Self(pids.into())
    }

    /// What is used from now on until `usage` is asked for.
    pub(super) fn watch(&self) -> Result<Watched, Failure> {
        Ok(Watched { servers: self.clone(), from: self.read()? })
    }

    /// What is used in this window.
    pub(super) fn during(&self, window: Window) -> AbortOnDropHandle<Result<Usage, Failure>> {
        let servers = self.clone();
        AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep_until(window.from.into()).await;
            let watched = servers.watch()?;
            tokio::time::sleep_until(window.to.into()).await;
            watched.usage()
        }))
    }

    /// Resident memory of each, bytes.
    pub(super) fn memory(&self) -> Result<Vec<u64>, Failure> {
        self.0.iter().map(|pid| resident_bytes(*pid).ok_or_else(|| gone(*pid))).collect()
    }

    fn read(&self) -> Result<Readings, Failure> {
        let mut servers = 0.0;
        for pid in &*self.0 {
            servers += process_seconds(*pid).ok_or_else(|| gone(*pid))?;
        }
        let spent = clock_gettime(ClockId::ProcessCPUTime);
        let generator = spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9;
        Ok(Readings { at: Instant::now(), servers, generator, machine: machine_seconds().unwrap_or(0.0) })
    }
}

/// Where the members were when it began.
pub(super) struct Watched {
    servers: Servers,
    from: Readings,
}

impl Watched {
    pub(super) fn usage(&self) -> Result<Usage, Failure> {
        let now = self.servers.read()?;
        let seconds = (now.at - self.from.at).as_secs_f64();
        let server_cores = (now.servers - self.from.servers) / seconds;
        let generator_cores = (now.generator - self.from.generator) / seconds;
        let all = (now.machine - self.from.machine) / seconds;
        Ok(Usage {
            server_cores,
            server_memory_bytes: self.servers.memory()?,
            generator_cores,
            other_cores: (all - server_cores - generator_cores).max(0.0),
        })
    }
}

fn gone(pid: u32) -> Failure {
    Failure::new(Exit::Refused, format_args!("there is no process {pid} here to measure"))
}

/// User and system time, of a process and its threads.
fn process_seconds(pid: u32) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and brackets; what follows it does not.
    let (_name, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / clock_ticks_per_second() as f64)
}

/// All but idle time and waiting for the disk; the time of guests is within that of users.
fn machine_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_ascii_whitespace().skip(1).take(8);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    let busy: f64 = ticks.iter().enumerate().filter(|(at, _)| !matches!(at, 3 | 4)).map(|(_, ticks)| ticks).sum();
    Some(busy / clock_ticks_per_second() as f64)
}

fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_and_one_that_is_not_there_is_named() {
        let this = Servers::new(&[std::process::id()]);

        let watched = this.watch().unwrap();
        let began = Instant::now();
        while watched.usage().unwrap().server_cores == 0.0 {
            assert!(began.elapsed().as_secs() < 60, "this loop takes CPU");
        }
        let usage = watched.usage().unwrap();

        assert!(usage.server_memory_bytes[0] > 100_000, "{usage:?}");
        assert!(usage.generator_cores > 0.0, "{usage:?}");
        assert!(Servers::new(&[u32::MAX]).watch().is_err());
    }
}
