//! Words about the member itself.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, UNIX_EPOCH},
};

use super::super::ZookeeperService;
use crate::{
    front::admin::{Role, Status, StatusSource as _},
    telemetry,
};

/// The version of ZooKeeper whose protocol this is, then our own. Clients read the digits in front.
pub(super) fn version() -> String {
    let built_s = env!("QUORATE_BUILT_UNIX_S").parse().expect("the build script writes a number");
    format!("3.9.5-quorate-{}, built on {}", telemetry::VERSION, minute_of(built_s))
}

/// A time as ZooKeeper prints that of a build. `unix_s` comes from a build script, so that it is no time of another age.
fn minute_of(unix_s: u64) -> String {
    let time = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(unix_s)).to_string();
    format!("{} UTC", time[.."2026-02-11T20:18".len()].replace('T', " "))
}

/// The role in ZooKeeper's words.
pub(super) fn mode(service: &ZookeeperService, status: &Status) -> &'static str {
    match status.role {
        _ if service.read_only().is_some() => "read-only",
        _ if status.members.len() <= 1 => "standalone",
        Role::Leader => "leader",
        Role::Follower | Role::Candidate => "follower",
        Role::Observer => "observer",
    }
}

/// `srvr`, and `stat` with the clients after the first line.
pub(super) fn summary(service: &ZookeeperService, clients: &str) -> String {
    let status = service.member.status();
    let totals = service.connections.totals();
    let load = |value: &std::sync::atomic::AtomicU64| value.load(std::sync::atomic::Ordering::Relaxed);
    let latency = totals.latency();
    let only_reads = match service.read_only() {
        Some(_) => "READ-ONLY mode; serving only read-only clients\n",
        None => "",
    };
    let mut text = format!("Zookeeper version: {}\n{only_reads}{clients}", version());
    let (min, max) = (latency.min / 1000, latency.max / 1000);
    let average = trimmed(latency.average() / 1000.0);
    let outstanding = service.connections.outstanding();
    let _ = write!(
        text,
        "Latency min/avg/max: {min}/{average}/{max}\nReceived: {}\nSent: {}\nConnections: {}\nOutstanding: \
         {outstanding}\nZxid: 0x{:x}\nMode: {}\nNode count: {}\n",
        load(&totals.received),
        load(&totals.sent),
        service.connections.count(),
        status.zxid.0,
        mode(service, &status),
        status.znodes,
    );
    text
}

/// As ZooKeeper prints it: four digits at most, at least one.
pub(super) fn trimmed(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0');
    if text.ends_with('.') { format!("{text}0") } else { text.into() }
}

/// `isro`: what a client that only reads wants to know before it moves here.
pub(super) fn read_only(service: &ZookeeperService) -> &'static str {
    match service.read_only() {
        Some(_) => "ro",
        None if service.is_serving() => "rw",
        None => "null",
    }
}

/// `envi`: what there is of ZooKeeper's keys.
pub(super) fn environment() -> String {
    let mut text = format!("Environment:\nzookeeper.version={}\n", version());
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let os_version = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    for (key, value) in [
        ("host.name", host.trim()),
        ("os.name", std::env::consts::OS),
        ("os.arch", std::env::consts::ARCH),
        ("os.version", os_version.trim()),
    ] {
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

/// `conf`: the settings that have a meaning here.
pub(super) fn configuration(service: &ZookeeperService) -> String {
    let settings = &service.settings;
    let sessions = service.sessions.limits();
    let status = service.member.status();
    let mut text = String::new();
    let dir = settings.data_dir.display();
    let _ = write!(
        text,
        "clientPort={}\nsecureClientPort=-1\ndataDir={dir}\ndataDirSize={}\ndataLogDir={dir}\ndataLogSize={}\n\
         tickTime={}\nmaxClientCnxns={}\nminSessionTimeout={}\nmaxSessionTimeout={}\nserverId={}\n",
        settings.address.port(),
        size_of(&settings.data_dir.join("snapshots")),
        size_of(&settings.data_dir.join("log")),
        settings.tick_ms,
        settings.connections_per_address,
        sessions.timeout_ms_min,
        sessions.timeout_ms_max,
        status.id,
    );
    if status.members.len() > 1 {
        let me = status.members.iter().find(|member| member.id == status.id);
        let observes = me.is_some_and(|member| !member.voter);
        let servers = service.member.replica().read(|tree| tree.published_config());
        let _ = writeln!(text, "peerType={}\nmembership: \n{servers}", u8::from(observes));
    }
    text
}

/// `dirs`.
pub(super) fn directories(service: &ZookeeperService) -> String {
    let dir = &service.settings.data_dir;
    let (snapshots, log) = (size_of(&dir.join("snapshots")), size_of(&dir.join("log")));
    format!("datadir_size: {snapshots}\nlogdir_size: {log}\n")
}

/// `hash`: of the tree as it is now.
pub(super) fn digest(service: &ZookeeperService) -> String {
    let status = service.member.status();
    format!("{:x}: {}\n", status.zxid.0, status.digest)
}

/// Bytes of the files of a directory; 0 for what is not there.
pub(super) fn size_of(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file).map(|file| file.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_has_a_minute() {
        assert_eq!(minute_of(1_770_841_139), "2026-02-11 20:18 UTC");
        assert!(version().ends_with(" UTC"), "{}", version());
    }
}
