//! Words that list connections, sessions and watches. Each is bounded: it takes time and memory in proportion.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use quorate_tree::SessionId;
use quorate_wire::OpCode;

use super::{super::ZookeeperService, server::trimmed};

/// Lines of a listing; what is beyond is left out. The member stands still while they are gathered.
const LINES_MAX: usize = 20_000;

/// The clients of `stat`.
pub(super) fn clients(service: &ZookeeperService) -> String {
    let mut text = String::from("Clients:\n");
    for connection in service.connections.connections() {
        let (received, sent) = (connection.received.load(Relaxed), connection.sent.load(Relaxed));
        let queued = connection.outstanding.load(Relaxed);
        let _ = writeln!(text, " /{}[1](queued={queued},recved={received},sent={sent})", connection.peer);
    }
    text.push('\n');
    text
}

/// `cons`.
pub(super) fn connections(service: &ZookeeperService) -> String {
    let mut text = String::new();
    for connection in service.connections.connections() {
        let (received, sent) = (connection.received.load(Relaxed), connection.sent.load(Relaxed));
        let queued = connection.outstanding.load(Relaxed);
        let _ = write!(text, " /{}[1](queued={queued},recved={received},sent={sent}", connection.peer);
        let session = connection.session.load(Relaxed);
        if session != 0 {
            let last_op = OpCode::of(connection.last_op.load(Relaxed)).map_or("NA", OpCode::short_name);
            let _ = write!(
                text,
                ",sid=0x{session:x},lop={last_op},est={},to={}",
                connection.since_ms,
                connection.timeout_ms.load(Relaxed)
            );
            let last_xid = connection.last_xid.load(Relaxed);
            if last_xid >= 0 {
                let _ = write!(text, ",lcxid=0x{last_xid:x}");
            }
            let latency = connection.latency.figures();
            let _ = write!(
                text,
                ",lzxid=0x{:x},lresp={},llat={},minlat={},avglat={},maxlat={}",
                connection.last_zxid.load(Relaxed),
                connection.last_answer_ms.load(Relaxed),
                connection.last_latency_us.load(Relaxed) / 1000,
                latency.min / 1000,
                trimmed(latency.average() / 1000.0),
                latency.max / 1000,
            );
        }
        text.push_str(")\n");
    }
    text.push('\n');
    text
}

/// `dump`: the sessions of the ensemble, those with ephemeral nodes and their nodes.
pub(super) fn sessions(service: &ZookeeperService) -> String {
    let replica = service.member.replica();
    let mut text = String::from("SessionTracker dump:\n");
    let (live, sessions, owners) = replica.read(|tree| {
        let sessions: Vec<_> =
            tree.sessions().take(LINES_MAX).map(|view| (view.session, view.timeout_ms, view.ephemerals)).collect();
        let mut lines = 0;
        let owners: Vec<_> = sessions
            .iter()
            .filter(|(_, _, ephemerals)| *ephemerals > 0)
            .take_while(|(_, _, ephemerals)| {
                lines += ephemerals;
                lines <= LINES_MAX
            })
            .map(|(session, ..)| (*session, tree.ephemerals(*session)))
            .collect();
        (tree.session_count(), sessions, owners)
    });
    let _ = writeln!(text, "Global Sessions({live}):");
    for (session, timeout_ms, _) in &sessions {
        let _ = writeln!(text, "0x{:x}\t{timeout_ms}ms", session.0);
    }
    let _ = write!(text, "ephemeral nodes dump:\nSessions with Ephemerals ({}):\n", owners.len());
    for (session, paths) in &owners {
        let _ = writeln!(text, "0x{:x}:", session.0);
        for path in paths {
            let _ = writeln!(text, "\t{path}");
        }
    }
    let connections = service.connections.connections();
    let _ = writeln!(text, "Connections dump:\nConnections Sets ({}):", connections.len());
    for connection in connections {
        let _ = writeln!(text, "\t/{}[1]", connection.peer);
    }
    text
}

/// `wchs`.
pub(super) fn watch_summary(service: &ZookeeperService) -> String {
    let (connections, paths, watches) = service.member.replica().watch_extent();
    format!("{connections} connections watching {paths} paths\nTotal watches:{watches}\n")
}

/// `wchc`.
pub(super) fn watches_by_session(service: &ZookeeperService) -> String {
    let mut by_session: BTreeMap<SessionId, Vec<Arc<str>>> = BTreeMap::new();
    for (session, path) in service.member.replica().watchers(LINES_MAX) {
        by_session.entry(session).or_default().push(path);
    }
    let mut text = String::new();
    for (session, mut paths) in by_session {
        paths.sort_unstable();
        let _ = writeln!(text, "0x{:x}", session.0);
        for path in paths {
            let _ = writeln!(text, "\t{path}");
        }
    }
    text.push('\n');
    text
}

/// `wchp`.
pub(super) fn watches_by_path(service: &ZookeeperService) -> String {
    let mut by_path: BTreeMap<Arc<str>, Vec<SessionId>> = BTreeMap::new();
    for (session, path) in service.member.replica().watchers(LINES_MAX) {
        by_path.entry(path).or_default().push(session);
    }
    let mut text = String::new();
    for (path, mut sessions) in by_path {
        sessions.sort_unstable();
        let _ = writeln!(text, "{path}");
        for session in sessions {
            let _ = writeln!(text, "\t0x{:x}", session.0);
        }
    }
    text.push('\n');
    text
}
