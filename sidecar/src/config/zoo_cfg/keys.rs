//! The keys that ZooKeeper knows and Quorate has no use for, each with the reason.

/// Why a key is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    Agreement,
    Majority,
    Role,
    Leader,
    Sessions,
    Disk,
    Bounds,
    AlwaysOn,
    Members,
    Admin,
    Tls,
    Authentication,
    Acl,
    Audit,
    Java,
    Unknown,
}

impl Reason {
    /// A sentence about keys, which stand before it.
    pub(super) fn sentence(self) -> &'static str {
        match self {
            Self::Agreement => {
                "agreement has its own timing and transport; --election-timeout-ms sets the one bound there is"
            }
            Self::Majority => "each voter counts as one, and more than half of them decide",
            Self::Role => "the server lines say who votes",
            Self::Leader => "every member serves clients, the leader too",
            Self::Sessions => "every session belongs to the ensemble",
            Self::Disk => "every write is synced, and the log and the snapshots are purged, without being told",
            Self::Bounds => "the bounds are Quorate's own (docs/limits.md)",
            Self::AlwaysOn => "this is always on",
            Self::Members => "clients do not change the members: reconfig is refused",
            Self::Admin => {
                "the door for operators and Prometheus is another one: quorate.admin_addr or --admin-addr opens it"
            }
            Self::Tls => "there is no TLS yet, so no such port is opened",
            Self::Authentication => "clients are known by digest and by address; there are no plug-ins and no SASL",
            Self::Acl => "access lists are always checked",
            Self::Audit => "there is no audit log yet",
            Self::Java => "it belongs to the Java server",
            Self::Unknown => "neither ZooKeeper nor Quorate knows it",
        }
    }

    /// Why `key` is not used. It must not be one of those that are.
    pub(super) fn of(key: &str) -> Self {
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => key.starts_with(prefix),
            None => key == pattern,
        };
        let entry = IGNORED.iter().find(|(_, keys)| keys.iter().any(|pattern| matches(pattern)));
        entry.map_or(Self::Unknown, |(reason, _)| *reason)
    }
}

/// Keys that are used, for finding what a misspelt one meant.
pub(super) const USED: [&str; 17] = [
    "tickTime",
    "dataDir",
    "dataLogDir",
    "clientPort",
    "clientPortAddress",
    "minSessionTimeout",
    "maxSessionTimeout",
    "maxClientCnxns",
    "connection_throttle_tokens",
    "connection_throttle_fill_time",
    "connection_throttle_fill_count",
    "4lw.commands.whitelist",
    "DigestAuthenticationProvider.superDigest",
    "DigestAuthenticationProvider.digestAlg",
    "quorumListenOnAllIPs",
    "znode.container.checkIntervalMs",
    "dynamicConfigFile",
];

/// Keys that demand a protection which is not there yet, so that a member must not start without it.
pub(super) const PROTECTION: [&str; 6] = [
    "sslQuorum",
    "quorum.auth.enableSasl",
    "quorum.auth.learnerRequireSasl",
    "quorum.auth.serverRequireSasl",
    "enforce.auth.enabled",
    "sessionRequireClientSASLAuth",
];

/// `*` at the end stands for anything.
const IGNORED: [(Reason, &[&str]); 15] = [
    (
        Reason::Agreement,
        &[
            "initLimit",
            "syncLimit",
            "connectToLearnerMasterLimit",
            "electionAlg",
            "syncEnabled",
            "oraclePath",
            "multiAddress.*",
            "cnxTimeout",
            "quorumCnxnThreadsSize",
            "electionPortBindRetry",
            "tcpKeepAlive",
            "leader.*",
            "learner.*",
            "follower.*",
            "observer.*",
            "fastleader.*",
            "maxConcurrentSnapSyncs",
            "maxConcurrentDiffSyncs",
            "skipLearnerRequestToNextProcessor",
        ],
    ),
    (Reason::Majority, &["group.*", "weight.*", "standaloneEnabled"]),
    (Reason::Role, &["peerType"]),
    (Reason::Leader, &["leaderServes"]),
    (Reason::Sessions, &["localSessionsEnabled", "localSessionsUpgradingEnabled", "closeSessionTxn.enabled"]),
    (
        Reason::Disk,
        &[
            "autopurge.*",
            "snapCount",
            "snapSizeLimitInKb",
            "snapshot.*",
            "preAllocSize",
            "txnLogSizeLimitInKb",
            "commitLogCount",
            "commitProcessor.*",
            "forceSync",
            "fsync.*",
            "flushDelay",
            "maxWriteQueuePollTime",
            "maxBatchSize",
            "digest.enabled",
            "serializeLastProcessedZxid.enabled",
        ],
    ),
    (
        Reason::Bounds,
        &[
            "jute.maxbuffer",
            "maxCnxns",
            "clientPortListenBacklog",
            "globalOutstandingLimit",
            "request_throttle*",
            "requestThrottle*",
            "throttled_op_wait_time",
            "connection_throttle_freeze_time",
            "connection_throttle_drop_*",
            "connection_throttle_decrease_ratio",
            "connection_throttle_weight_enabled",
            "connection_throttle_global_*",
            "connection_throttle_local_*",
            "connection_throttle_renew_*",
            "largeRequest*",
            "maxResponseCacheSize",
            "maxGetChildrenResponseCacheSize",
            "znode.container.max*",
            "request_stale*",
        ],
    ),
    (
        Reason::AlwaysOn,
        &["extendedTypesEnabled", "enforceQuota", "DigestAuthenticationProvider.enabled", "readonlymode.enabled"],
    ),
    (Reason::Members, &["reconfigEnabled", "skipReconfig*"]),
    (Reason::Admin, &["admin.*", "metricsProvider.*"]),
    (
        Reason::Tls,
        &[
            "secureClientPort*",
            "ssl.*",
            "sslQuorum*",
            "portUnification",
            "client.portUnification",
            "client.secure",
            "netty.*",
            "fips-mode",
        ],
    ),
    (
        Reason::Authentication,
        &[
            "authProvider.*",
            "quorum.auth.*",
            "X509AuthenticationProvider.*",
            "enforce.auth.*",
            "ensembleAuthName",
            "superUser*",
            "sessionRequireClientSASLAuth",
            "allowSaslFailedClients",
            "sasl.*",
            "requireClientAuthScheme",
            "jaasLoginRenew",
            "kerberos.*",
            "allowSasl*",
        ],
    ),
    (Reason::Acl, &["skipACL", "enableEagerACLCheck"]),
    (Reason::Audit, &["audit.*"]),
    (
        Reason::Java,
        &[
            "serverCnxnFactory",
            "nio.*",
            "nioserver*",
            "globalRequest*",
            "server.*",
            "shutdown.*",
            "jmx.*",
            "testing.*",
            "pathStats.*",
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_ignored_for_its_reason() {
        for (key, reason) in [
            ("initLimit", Reason::Agreement),
            ("autopurge.purgeInterval", Reason::Disk),
            ("weight.1", Reason::Majority),
            ("peerType", Reason::Role),
            ("localSessionsEnabled", Reason::Sessions),
            ("secureClientPortAddress", Reason::Tls),
            ("metricsProvider.httpPort", Reason::Admin),
            ("authProvider.1", Reason::Authentication),
            ("frobnicate", Reason::Unknown),
            ("initLimits", Reason::Unknown),
        ] {
            assert_eq!(Reason::of(key), reason, "{key}");
        }
    }

    #[test]
    fn no_key_is_both_used_and_ignored() {
        for key in USED {
            assert_eq!(Reason::of(key), Reason::Unknown, "{key}");
        }
    }
}
