//! `mntr`: the numbers that dashboards for ZooKeeper read, as far as they have a meaning here.

use std::{
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
};

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
    lines.add("avg_latency", trimmed(totals.latency.average_ms()));
    lines.add("max_latency", totals.latency.max().as_millis());
    lines.add("min_latency", totals.latency.min().as_millis());
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
    lines.0
}

struct Lines(String);

impl Lines {
    fn add(&mut self, name: &str, value: impl Display) {
        let _ = writeln!(self.0, "zk_{name}\t{value}");
    }
}

fn open_files() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}
