//! One layer of settings: what the flags and the environment say, or what a file says. A value it does not name is
//! left to the layer below.

use std::path::PathBuf;

use clap::{Args, builder::BoolishValueParser, value_parser};
use serde::Deserialize;

use super::{address::Address, four_letter_words::FourLetterWords, super_digest::SuperDigest, voters::Voters};
use crate::telemetry::LogFormat;

/// The fields are the flags and, with `_` for `-`, the keys of the file: there is no second list of either.
#[derive(Args, Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Layer {
    /// This member's id, 1 to 254
    #[arg(long, env = "QUORATE_ID", value_name = "N", value_parser = value_parser!(u8).range(1..=254))]
    pub(crate) id: Option<u8>,

    /// Directory of the log, the snapshots and the identity
    #[arg(long, env = "QUORATE_DATA_DIR", value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,

    /// Peer addresses of the first voters; the same list for every member
    #[arg(long, env = "QUORATE_ENSEMBLE", value_name = "1=HOST:PORT,2=...")]
    pub(crate) ensemble: Option<Voters>,

    /// Door for clients: gRPC, with health and reflection [default: 127.0.0.1:7101]
    #[arg(long, env = "QUORATE_CLIENT_ADDR", value_name = "HOST:PORT", help_heading = "Doors")]
    pub(crate) client_addr: Option<Address>,

    /// Door for the other members [default: 127.0.0.1:7201]
    #[arg(long, env = "QUORATE_PEER_ADDR", value_name = "HOST:PORT", help_heading = "Doors")]
    pub(crate) peer_addr: Option<Address>,

    /// Door for operators: HTTP /livez /readyz /metrics /api/v1/... [default: 127.0.0.1:7301]
    #[arg(long, env = "QUORATE_ADMIN_ADDR", value_name = "HOST:PORT", help_heading = "Doors")]
    pub(crate) admin_addr: Option<Address>,

    /// Door for clients of ZooKeeper, 2181 by convention [default: closed]
    #[arg(long, env = "QUORATE_ZOOKEEPER_ADDR", value_name = "HOST:PORT", help_heading = "Doors")]
    pub(crate) zookeeper_addr: Option<Address>,

    /// Four-letter words that the ZooKeeper door answers, or * for all [default: ruok,srvr,stat,mntr,isro,conf]
    #[arg(long, env = "QUORATE_FOUR_LETTER_WORDS", value_name = "LIST", help_heading = "Doors")]
    pub(crate) four_letter_words: Option<FourLetterWords>,

    /// Allow doors beyond loopback without TLS
    #[arg(
        long,
        env = "QUORATE_INSECURE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        help_heading = "Doors"
    )]
    pub(crate) insecure: Option<bool>,

    /// Open connections from one address; 0 is unlimited [default: 0]
    #[arg(long, env = "QUORATE_CONNECTIONS_PER_ADDRESS", value_name = "N", help_heading = "Doors")]
    pub(crate) connections_per_address: Option<usize>,

    /// Sessions opened or resumed a second; clients beyond that are turned away and come back; 0 is unlimited [default: 0]
    #[arg(long, env = "QUORATE_SESSIONS_PER_SECOND", value_name = "N", help_heading = "Doors")]
    pub(crate) sessions_per_second: Option<u32>,

    /// Of them at once [default: as many as a second]
    #[arg(long, env = "QUORATE_SESSIONS_BURST", value_name = "N", help_heading = "Doors")]
    pub(crate) sessions_burst: Option<u32>,

    /// Digest identity that passes every ACL: USER and the base64 of sha1(USER:PASSWORD)
    #[arg(long, env = "QUORATE_SUPER_DIGEST", value_name = "USER:BASE64", hide_env_values = true)]
    pub(crate) super_digest: Option<SuperDigest>,

    /// Session clock [default: 2000]
    #[arg(long, env = "QUORATE_TICK_MS", value_name = "N", help_heading = "Timing")]
    pub(crate) tick_ms: Option<u64>,

    /// The shortest session timeout that clients are granted [default: 2 ticks]
    #[arg(long, env = "QUORATE_SESSION_TIMEOUT_MIN_MS", value_name = "N", help_heading = "Timing")]
    pub(crate) session_timeout_min_ms: Option<u64>,

    /// The longest session timeout that clients are granted [default: 20 ticks]
    #[arg(long, env = "QUORATE_SESSION_TIMEOUT_MAX_MS", value_name = "N", help_heading = "Timing")]
    pub(crate) session_timeout_max_ms: Option<u64>,

    /// A silent leader is replaced within this time [default: 600]
    #[arg(long, env = "QUORATE_ELECTION_TIMEOUT_MS", value_name = "N", help_heading = "Timing")]
    pub(crate) election_timeout_ms: Option<u64>,

    /// How often the leader looks for container and TTL nodes that are due [default: 60000]
    #[arg(long, env = "QUORATE_REAP_PERIOD_MS", value_name = "N", help_heading = "Timing")]
    pub(crate) reap_period_ms: Option<u64>,

    /// What is logged: a level, or filters like `info,quorate_sidecar=debug` (RUST_LOG too) [default: info]
    #[arg(long, env = "QUORATE_LOG_LEVEL", value_name = "FILTER", help_heading = "Telemetry")]
    pub(crate) log_level: Option<String>,

    /// How it is logged [default: human on a terminal, json otherwise]
    #[arg(long, env = "QUORATE_LOG_FORMAT", value_name = "FORMAT", help_heading = "Telemetry")]
    pub(crate) log_format: Option<LogFormat>,

    /// Send traces to this OTLP/gRPC collector (OTEL_EXPORTER_OTLP_ENDPOINT too)
    #[arg(long, env = "QUORATE_OTLP_ENDPOINT", value_name = "URL", help_heading = "Telemetry")]
    pub(crate) otlp_endpoint: Option<String>,
}

impl Layer {
    /// This layer, and `below` where it says nothing.
    pub(crate) fn over(self, below: Self) -> Self {
        // Named one by one without `..`: a field that is forgotten does not compile.
        Self {
            id: self.id.or(below.id),
            data_dir: self.data_dir.or(below.data_dir),
            ensemble: self.ensemble.or(below.ensemble),
            client_addr: self.client_addr.or(below.client_addr),
            peer_addr: self.peer_addr.or(below.peer_addr),
            admin_addr: self.admin_addr.or(below.admin_addr),
            insecure: self.insecure.or(below.insecure),
            connections_per_address: self.connections_per_address.or(below.connections_per_address),
            sessions_per_second: self.sessions_per_second.or(below.sessions_per_second),
            sessions_burst: self.sessions_burst.or(below.sessions_burst),
            tick_ms: self.tick_ms.or(below.tick_ms),
            election_timeout_ms: self.election_timeout_ms.or(below.election_timeout_ms),
            reap_period_ms: self.reap_period_ms.or(below.reap_period_ms),
            session_timeout_min_ms: self.session_timeout_min_ms.or(below.session_timeout_min_ms),
            session_timeout_max_ms: self.session_timeout_max_ms.or(below.session_timeout_max_ms),
            log_level: self.log_level.or(below.log_level),
            log_format: self.log_format.or(below.log_format),
            otlp_endpoint: self.otlp_endpoint.or(below.otlp_endpoint),
            zookeeper_addr: self.zookeeper_addr.or(below.zookeeper_addr),
            four_letter_words: self.four_letter_words.or(below.four_letter_words),
            super_digest: self.super_digest.or(below.super_digest),
        }
    }

    /// The keys a file may have.
    pub(crate) fn keys() -> Vec<String> {
        let command = Self::augment_args(clap::Command::new("keys"));
        command.get_arguments().map(|arg| arg.get_id().to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upper_layer_wins_only_where_it_speaks() {
        let file = Layer { id: Some(1), tick_ms: Some(500), insecure: Some(true), ..Layer::default() };
        let flags = Layer { tick_ms: Some(100), insecure: Some(false), ..Layer::default() };

        let both = flags.over(file);

        assert_eq!((both.id, both.tick_ms, both.insecure), (Some(1), Some(100), Some(false)));
        assert_eq!(both.election_timeout_ms, None);
    }
}
