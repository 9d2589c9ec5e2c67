//! What the process takes of the machine, under the names every Prometheus client library gives them.

use std::{fs, sync::LazyLock};

use opentelemetry::metrics::Meter;
use rustix::{
    param::page_size,
    time::{ClockId, clock_gettime},
};

use crate::clock::Clock;

/// Close enough to the start of the process: the first member reads it while it is built.
static STARTED_AT: LazyLock<f64> = LazyLock::new(|| Clock::wall_ms() as f64 / 1e3);

/// Registers the instruments; they are read when somebody asks.
pub(super) fn observe(meter: &Meter) {
    let started_at = *STARTED_AT;
    let start =
        meter.f64_observable_gauge("process_start_time_seconds").with_description("Start, in seconds since 1970.");
    start.with_callback(move |observer| observer.observe(started_at, &[])).build();

    let cpu =
        meter.f64_observable_counter("process_cpu").with_unit("s").with_description("CPU time spent, user and system.");
    cpu.with_callback(|observer| observer.observe(cpu_seconds(), &[])).build();

    let resident =
        meter.u64_observable_gauge("process_resident_memory").with_unit("By").with_description("Resident memory.");
    let resident = resident.with_callback(|observer| {
        if let Some(bytes) = resident_bytes() {
            observer.observe(bytes, &[]);
        }
    });
    resident.build();

    let files = meter.u64_observable_gauge("process_open_fds").with_description("Open file descriptors.");
    let files = files.with_callback(|observer| {
        if let Some(count) = open_files() {
            observer.observe(count, &[]);
        }
    });
    files.build();
}

fn cpu_seconds() -> f64 {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// The second number of /proc/self/statm counts resident pages. Absent where there is no /proc.
fn resident_bytes() -> Option<u64> {
    let pages: u64 = fs::read_to_string("/proc/self/statm").ok()?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size() as u64)
}

fn open_files() -> Option<u64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}
