use std::collections::BTreeSet;

use super::*;

/// The value of one series, as it is served.
#[track_caller]
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.split(' ').next() == Some(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn three_milliseconds_land_in_the_bucket_of_five() {
    let metrics = Metrics::new(MemberId(1));

    metrics.storage.fsync.record(Duration::from_millis(3));

    let text = metrics.render(&Levels::default());
    assert_eq!(value(&text, r#"quorate_wal_fsync_duration_seconds_bucket{le="0.0025"}"#), 0.0);
    assert_eq!(value(&text, r#"quorate_wal_fsync_duration_seconds_bucket{le="0.005"}"#), 1.0);
    assert_eq!(value(&text, "quorate_wal_fsync_duration_seconds_sum"), 0.003);
}

#[test]
fn every_duration_has_the_same_buckets() {
    let metrics = Metrics::new(MemberId(1));

    let tick = Duration::from_millis(1);
    metrics.storage.fsync.record(tick);
    metrics.ensemble.snapshot_written(tick, tick);
    metrics.ensemble.proposal.record(tick);
    metrics.ensemble.leaderless.record(tick);
    metrics.ensemble.peer_answered(MemberId(2), tick);
    metrics.sessions.watch_delivery.record(tick);

    let text = metrics.render(&Levels::default());
    let kinds = text.matches("# TYPE").count();
    let histograms = text.lines().filter(|line| line.starts_with("# TYPE") && line.ends_with(" histogram")).count();
    let buckets = text.lines().filter(|line| line.contains("_bucket{")).count();
    assert!(kinds > histograms && histograms == 6, "{text}");
    assert_eq!(buckets, histograms * (SECONDS.len() + 1));
    for name in ["wal_fsync", "snapshot", "proposal", "leaderless", "watch_delivery"] {
        assert_eq!(value(&text, &format!(r#"quorate_{name}_duration_seconds_bucket{{le="0.001"}}"#)), 1.0);
    }
    assert_eq!(value(&text, r#"quorate_peer_rtt_seconds_bucket{peer="2",le="0.001"}"#), 1.0);
}

#[test]
fn levels_are_those_of_the_question() {
    let metrics = Metrics::new(MemberId(3));
    let before = Levels { term: 1, commit_index: 9, applied_index: 9, ..Levels::default() };
    let now = Levels {
        is_leader: true,
        term: 2,
        commit_index: 12,
        applied_index: 10,
        sessions: 5,
        sessions_here: 2,
        znodes: 7,
        ephemerals: 3,
        ..Levels::default()
    };

    metrics.render(&before);
    let text = metrics.render(&now);

    assert_eq!(value(&text, "quorate_is_leader"), 1.0);
    assert_eq!(value(&text, "quorate_term"), 2.0);
    assert_eq!(value(&text, "quorate_apply_lag_entries"), 2.0);
    assert_eq!(value(&text, r#"quorate_sessions{state="attached_here"}"#), 2.0);
    assert_eq!(value(&text, r#"quorate_znodes{kind="lasting"}"#), 4.0);
    assert_eq!(value(&text, r#"quorate_znodes{kind="ephemeral"}"#), 3.0);
}

#[test]
fn events_are_counted_under_their_labels() {
    let metrics = Metrics::new(MemberId(1));
    let client = metrics.doors.of("client");

    client.opened();
    client.opened();
    client.closed();
    client.refused();
    metrics.ensemble.leader_changed();
    metrics.ensemble.proposals_ended(ProposalEnd::SentAgain, 2);
    metrics.sessions.opened();
    metrics.sessions.detached(DetachReason::TooSlow);

    let text = metrics.render(&Levels::default());
    assert_eq!(value(&text, r#"quorate_connections{door="client"}"#), 1.0);
    assert_eq!(value(&text, r#"quorate_connections_refused_total{door="client"}"#), 1.0);
    assert_eq!(value(&text, "quorate_leader_changes_total"), 1.0);
    assert_eq!(value(&text, r#"quorate_proposals_total{result="sent_again"}"#), 2.0);
    assert_eq!(value(&text, r#"quorate_proposals_total{result="unknown"}"#), 0.0);
    assert_eq!(value(&text, r#"quorate_session_attached_total{how="opened"}"#), 1.0);
    assert_eq!(value(&text, r#"quorate_session_detached_total{reason="too_slow"}"#), 1.0);
}

#[test]
fn members_in_one_process_do_not_share_their_metrics() {
    let (one, two) = (Metrics::new(MemberId(1)), Metrics::new(MemberId(2)));

    one.ensemble.leader_changed();

    assert_eq!(value(&one.render(&Levels::default()), "quorate_leader_changes_total"), 1.0);
    assert_eq!(value(&two.render(&Levels::default()), "quorate_leader_changes_total"), 0.0);
}

#[test]
fn series_carry_no_labels_but_their_own() {
    let metrics = Metrics::new(MemberId(1));

    let text = metrics.render(&Levels::default());

    assert!(!text.contains("otel_scope") && !text.contains("target_info"), "{text}");
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(value(&text, &format!(r#"quorate_build_info{{member="1",version="{version}"}}"#)), 1.0);
    assert!(value(&text, "process_cpu_seconds_total") > 0.0);
    assert!(value(&text, "process_start_time_seconds") > 1.7e9);
    if cfg!(target_os = "linux") {
        assert!(value(&text, "process_resident_memory_bytes") > 1e6);
        assert!(value(&text, "process_open_fds") > 2.0);
    }
}

#[test]
fn what_is_documented_is_what_is_served() {
    let metrics = Metrics::new(MemberId(1));
    let tick = Duration::from_millis(1);
    let _door = metrics.doors.of("client");
    metrics.storage.fsync.record(tick);
    metrics.ensemble.snapshot_written(tick, tick);
    metrics.ensemble.proposal.record(tick);
    metrics.ensemble.leaderless.record(tick);
    metrics.ensemble.peer_answered(MemberId(2), tick);
    metrics.sessions.watch_delivery.record(tick);
    let mut requests = metrics.zookeeper.requests();
    requests.add(None);
    requests.record();
    let text = metrics.render(&Levels::default());

    let served: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let docs = include_str!("../../../../docs/operations.md");
    let section = docs.split("## Metrics").nth(1).unwrap().split("Worth an alarm").next().unwrap();
    let quoted = section.split('`').skip(1).step_by(2);
    let names = quoted.filter_map(|word| word.split('{').next()).filter(|word| word.contains('_'));
    let documented: BTreeSet<_> =
        names.filter(|name| name.starts_with("quorate_") || name.starts_with("process_")).collect();

    assert_eq!(documented, served);
}
