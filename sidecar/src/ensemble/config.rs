//! What an ensemble is started with, and the times and bounds that follow from it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use openraft::{Config, SnapshotPolicy};
use quorate_tree::{Limits, MemberId};

use super::{EnsembleError, faults::Faults};
use crate::telemetry::metrics::EnsembleMetrics;

/// The shortest election timeout: below it, one slow flush looks like a dead leader.
pub(crate) const ELECTION_TIMEOUT_MS_MIN: u64 = 50;

/// What an ensemble is started with.
#[derive(Clone, Debug)]
pub(crate) struct EnsembleConfig {
    /// This member.
    pub(crate) member: MemberId,
    /// The peer address of every configured member, this one included.
    pub(crate) peers: BTreeMap<MemberId, String>,
    /// Where clients of ZooKeeper connect to this member, if they may.
    pub(crate) zookeeper_address: Option<String>,
    /// A silent leader is replaced within this time.
    pub(crate) election_timeout_ms: u64,
    /// Must be the same everywhere.
    pub(crate) limits: Limits,
    /// How often the leader looks for container and ttl nodes to delete.
    pub(crate) reap_period: Duration,
    /// A snapshot is due when the log has grown by more than this, or by more than the last snapshot has.
    pub(crate) snapshot_log_bytes_min: u64,
    /// What a test does to this member's peer traffic; `None` outside of tests.
    pub(crate) faults: Option<Arc<Faults>>,
    /// What operators are told of how agreement goes.
    pub(crate) metrics: EnsembleMetrics,
}

/// The times that follow from the election timeout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timing {
    election: Duration,
}

impl EnsembleConfig {
    pub(crate) fn check(&self) -> Result<(), EnsembleError> {
        let refuse = |reason: String| Err(EnsembleError::Refused(reason));
        if self.member.0 == 0 || self.peers.keys().any(|member| member.0 == 0 || member.0 == 255) {
            return refuse("a member id is a number from 1 to 254".into());
        }
        if !self.peers.contains_key(&self.member) {
            return refuse(format!("member {} is not in the ensemble's list: {}", self.member, self.list()));
        }
        if self.election_timeout_ms < ELECTION_TIMEOUT_MS_MIN {
            return refuse(format!("an election timeout must be at least {ELECTION_TIMEOUT_MS_MIN} ms"));
        }
        Ok(())
    }

    pub(crate) fn timing(&self) -> Timing {
        Timing { election: Duration::from_millis(self.election_timeout_ms) }
    }

    /// The members and the limits as a text that is equal on members that agree.
    pub(crate) fn list(&self) -> String {
        let members: Vec<String> = self.peers.iter().map(|(member, address)| format!("{member}={address}")).collect();
        members.join(",")
    }

    /// Hash of what members must agree on, for a quick comparison.
    pub(crate) fn list_hash(&self) -> u64 {
        // All of them, by name: a new one must come in here.
        let Limits {
            node_bytes_max,
            path_bytes_max,
            multi_ops_max,
            sessions_max,
            session_outcomes_max,
            session_outcome_bytes_max,
            acl_entries_max,
            client_name_bytes_max,
        } = self.limits;
        let limits = [
            node_bytes_max,
            path_bytes_max,
            multi_ops_max,
            sessions_max,
            session_outcomes_max,
            session_outcome_bytes_max,
            acl_entries_max,
            client_name_bytes_max,
        ];
        xxhash_rust::xxh3::xxh3_64(format!("{} {limits:?}", self.list()).as_bytes())
    }

    /// The Raft crate's settings.
    pub(crate) fn raft(&self) -> Config {
        let election_ms = self.election_timeout_ms;
        Config {
            cluster_name: "quorate".into(),
            // The crate takes the upper bound for the length of the leader's lease as well, and lets a follower
            // campaign only after the lease and a random wait between the bounds. So the leader's lease is N/2, and
            // a silent leader is replaced after N/2 + N/3 to N/2 + N/2.
            election_timeout_min: election_ms / 3,
            election_timeout_max: election_ms / 2,
            heartbeat_interval: election_ms / 10,
            enable_pre_vote: Some(true),
            // Allowed once this disk may vote.
            enable_elect: false,
            // A restarted leader has lost what it knew to be committed, so it must be elected again.
            enable_leader_restore: Some(false),
            // Our own trigger and our own purge, both by bytes.
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            replication_lag_threshold: u64::MAX,
            // A whole snapshot is sent in one call.
            install_snapshot_timeout: Duration::from_secs(60 * 60).as_millis() as u64,
            max_payload_entries: 1024,
            api_batch_linger_ms: 0,
            ..Config::default()
        }
    }
}

impl Timing {
    /// How long a majority's answer keeps the leader's lease.
    pub(crate) fn lease(self) -> Duration {
        self.election / 2
    }

    /// How long a connection may take to be made.
    pub(crate) fn connect_timeout(self) -> Duration {
        self.election / 2
    }

    /// How soon after a failure to speak to a peer it is tried again.
    pub(crate) fn retry(self) -> Duration {
        self.election / 20
    }

    /// Those who campaign because the leader is gone follow each other at this distance: more than an election takes.
    pub(crate) fn turn(self) -> Duration {
        self.election / 20
    }

    /// A connection on which nothing is heard for this long is asked for a sign of life.
    pub(crate) fn ping(self) -> Duration {
        self.election / 2
    }

    /// A connection that gives no sign of life within this is closed.
    pub(crate) fn ping_timeout(self) -> Duration {
        self.election
    }

    /// What was sent to a peer must reach its system within this, and its process where the system has no more room: as
    /// long as a connection for calls may be silent.
    pub(crate) fn silence_max(self) -> Duration {
        self.ping() + self.ping_timeout()
    }

    /// How long a call that should be answered at once may take.
    pub(crate) fn call_timeout(self) -> Duration {
        self.election / 2
    }

    /// Touches follow each other no closer than this, so that many sessions share one.
    pub(crate) fn touch_spacing(self) -> Duration {
        self.election / 30
    }

    /// A member that has nothing to say touches the leader this often.
    pub(crate) fn contact_every(self) -> Duration {
        self.election / 4
    }

    /// A member that the leader has not answered for this long has lost it.
    pub(crate) fn contact_lost(self) -> Duration {
        self.election
    }

    /// How long a gap in the own lane may stay before everything is sent again.
    pub(crate) fn gap_patience(self) -> Duration {
        self.election / 2
    }

    /// How often things that should be are compared with what is.
    pub(crate) fn reconcile_every(self) -> Duration {
        self.election / 6
    }
}
