//! `mntr`: the numbers that dashboards for ZooKeeper read, as far as they have a meaning here. `docs/compatibility.md`
//! says which are left out.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    sync::atomic::Ordering::Relaxed,
};

use super::{
    super::ZookeeperService,
    server::{mode, size_of, trimmed, version},
};
use crate::{
    front::admin::{Role, StatusSource as _},
    net,
    telemetry::metrics::{Summary, Watchers},
};

/// Quotas that are looked at: clients may set as many as they like, and nothing is applied meanwhile.
const QUOTAS_MAX: usize = 1_000;

/// What summaries of durations count, in a millisecond.
const MICROSECONDS: u64 = 1_000;

pub(super) fn all(service: &ZookeeperService) -> String {
    let status = service.member.status();
    let levels = service.member.levels();
    let totals = service.connections.totals();
    let (received, sent) = (totals.received.load(Relaxed), totals.sent.load(Relaxed));
    let mut lines = Lines(String::new());
    lines.add("version", version());
    lines.add("server_state", mode(service, &status));
    if status.members.len() > 1 {
        let peer_state = match status.role {
            Role::Leader => "leading - broadcast",
            Role::Follower => "following - broadcast",
            Role::Observer => "observing - broadcast",
            Role::Candidate => "looking",
        };
        lines.add("peer_state", peer_state);
    }
    let latency = totals.latency();
    lines.add("avg_latency", trimmed(latency.average() / MICROSECONDS as f64));
    lines.add("max_latency", latency.max / MICROSECONDS);
    lines.add("min_latency", latency.min / MICROSECONDS);
    lines.add("packets_received", received);
    lines.add("packets_sent", sent);
    lines.add("num_alive_connections", service.connections.count());
    lines.add("outstanding_requests", service.connections.outstanding());
    lines.add("znode_count", status.znodes);
    lines.add("watch_count", status.watches);
    lines.add("ephemerals_count", levels.ephemerals);
    lines.add("approximate_data_size", levels.node_bytes);
    lines.add("global_sessions", status.sessions);
    lines.add("local_sessions", service.member.replica().sessions_here_alone());
    if let Some(open) = open_files() {
        lines.add("open_file_descriptor_count", open);
    }
    if let Some(max) = net::open_files_max() {
        lines.add("max_file_descriptor_count", max);
    }
    lines.add("uptime", service.member.uptime().as_millis());
    lines.add("data_dir_size", size_of(&service.settings.data_dir.join("snapshots")));
    lines.add("log_dir_size", size_of(&service.settings.data_dir.join("log")));
    let voters = status.members.iter().filter(|member| member.voter).count();
    lines.add("quorum_size", voters);
    if status.role == Role::Leader && status.members.len() > 1 {
        let followers = status.members.iter().filter(|member| member.id != status.id);
        let (voting, others): (Vec<_>, Vec<_>) = followers.partition(|member| member.voter);
        let synced = |members: &[&crate::front::admin::MemberStatus]| {
            members
                .iter()
                .filter(|member| member.matched_index.is_some_and(|index| index >= levels.commit_index))
                .count()
        };
        lines.add("learners", voting.len() + others.len());
        lines.add("synced_followers", synced(&voting));
        lines.add("synced_observers", synced(&others));
    }
    add_traffic(&mut lines, service);
    add_durations(&mut lines, service);
    add_quotas(&mut lines, service);
    lines.0
}

/// `srst`: what is read here and counted elsewhere begins anew.
pub(super) fn reset(service: &ZookeeperService) {
    let (storage, ensemble) = (&service.metrics.storage, &service.metrics.ensemble);
    for durations in [&storage.fsync, &ensemble.snapshot, &ensemble.leaderless] {
        durations.summary().reset();
    }
    let Watchers { created, deleted, data_changed, children_changed } = &*service.metrics.sessions.watchers;
    [created, deleted, data_changed, children_changed].into_iter().for_each(Summary::reset);
}

/// Connections, and what goes over them.
fn add_traffic(lines: &mut Lines, service: &ZookeeperService) {
    let totals = service.connections.totals();
    let sizes = totals.answer_bytes.figures();
    let rejected = service.door.refusals() + service.metrics.sessions.throttled.value();
    for (name, value) in [
        ("bytes_received_count", totals.bytes_received.load(Relaxed)),
        ("response_bytes", totals.bytes_sent.load(Relaxed)),
        ("watch_bytes", totals.event_bytes.load(Relaxed)),
        ("last_client_response_size", totals.last_answer_bytes.load(Relaxed)),
        ("max_client_response_size", sizes.max),
        ("min_client_response_size", sizes.min),
        ("connection_request_count", totals.handshakes.load(Relaxed)),
        ("connection_revalidate_count", totals.resumptions.load(Relaxed)),
        ("connection_drop_count", totals.lost.load(Relaxed)),
        ("connection_rejected", rejected),
        ("sessionless_connections_expired", totals.silent.load(Relaxed)),
        ("stale_sessions_expired", service.metrics.sessions.expired.value()),
        ("auth_failed_count", totals.wrong_credentials.load(Relaxed)),
    ] {
        lines.add(name, value);
    }
    // Nothing is dropped at random.
    lines.add("connection_drop_probability", "0.0");
}

fn add_durations(lines: &mut Lines, service: &ZookeeperService) {
    let totals = service.connections.totals();
    let (storage, ensemble) = (&service.metrics.storage, &service.metrics.ensemble);
    for (name, summary) in [("readlatency", &totals.reads), ("updatelatency", &totals.updates)] {
        lines.summary(name, summary, MICROSECONDS);
        for (percentile, thousandths) in [("p50", 500), ("p95", 950), ("p99", 990), ("p999", 999)] {
            lines.add(format_args!("{percentile}_{name}"), summary.percentile(thousandths) / MICROSECONDS);
        }
    }
    lines.summary("fsynctime", storage.fsync.summary(), MICROSECONDS);
    lines.summary("snapshottime", ensemble.snapshot.summary(), MICROSECONDS);
    lines.summary("election_time", ensemble.leaderless.summary(), MICROSECONDS);
    lines.add("looking_count", ensemble.leaderless.summary().figures().count);
    let watchers = &service.metrics.sessions.watchers;
    lines.summary("node_created_watch_count", &watchers.created, 1);
    lines.summary("node_deleted_watch_count", &watchers.deleted, 1);
    lines.summary("node_changed_watch_count", &watchers.data_changed, 1);
    lines.summary("node_children_watch_count", &watchers.children_changed, 1);
}

/// Quotas, added up by the first name of their paths.
fn add_quotas(lines: &mut Lines, service: &ZookeeperService) {
    #[derive(Default)]
    struct Sums {
        nodes_max: Option<u64>,
        bytes_max: Option<u64>,
        nodes: u64,
        bytes: u64,
    }
    let add = |sum: &mut Option<u64>, more: Option<u64>| {
        if let Some(more) = more {
            *sum = Some(sum.unwrap_or(0).saturating_add(more));
        }
    };
    let quotas: Vec<_> = service.member.replica().read(|tree| tree.quotas().take(QUOTAS_MAX).collect());
    let mut namespaces = BTreeMap::<String, Sums>::new();
    for quota in quotas {
        let namespace = quota.subtree[1..].split('/').next().unwrap_or_default();
        let sums = namespaces.entry(namespace.to_owned()).or_default();
        add(&mut sums.nodes_max, quota.nodes_max);
        add(&mut sums.bytes_max, quota.bytes_max);
        sums.nodes += quota.nodes;
        sums.bytes += quota.bytes;
    }
    let limit = |limit: Option<u64>| limit.map_or("-1".into(), |limit| limit.to_string());
    for (namespace, Sums { nodes_max, bytes_max, nodes, bytes }) in namespaces {
        lines.add(format_args!("{namespace}_quota_count_limit_per_namespace"), limit(nodes_max));
        lines.add(format_args!("{namespace}_quota_bytes_limit_per_namespace"), limit(bytes_max));
        lines.add(format_args!("{namespace}_quota_count_usage_per_namespace"), nodes);
        lines.add(format_args!("{namespace}_quota_bytes_usage_per_namespace"), bytes);
    }
}

struct Lines(String);

impl Lines {
    fn add(&mut self, name: impl Display, value: impl Display) {
        let _ = writeln!(self.0, "zk_{name}\t{value}");
    }

    /// As ZooKeeper tells those. `unit` is how much of what was recorded makes one of what is told.
    fn summary(&mut self, name: &str, summary: &Summary, unit: u64) {
        let figures = summary.figures();
        self.add(format_args!("avg_{name}"), trimmed(figures.average() / unit as f64));
        self.add(format_args!("min_{name}"), figures.min / unit);
        self.add(format_args!("max_{name}"), figures.max / unit);
        self.add(format_args!("cnt_{name}"), figures.count);
        self.add(format_args!("sum_{name}"), figures.sum / unit);
    }
}

fn open_files() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}
