//! What a member is told before it starts: default, then zoo.cfg, then file, then environment, then flag, the later
//! one wins.
//!
//! Parsing is done by clap (flags, environment), serde (file) and [`zoo_cfg`]; [`Config`] is what remains, typed and checked.
//! It knows no part's inside: the composition root gives each part what concerns it.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use quorate_tree::MemberId;

use crate::telemetry::{self, LogFormat};

mod address;
mod check;
mod file;
mod four_letter_words;
mod layer;
pub(crate) mod limits;
mod super_digest;
mod voters;
mod zoo_cfg;

pub use address::{Address, NotAnAddress};
pub use check::{CheckError, CheckWarning};
pub(crate) use file::FileError;
pub use four_letter_words::{FourLetterWord, FourLetterWords, NotAWord};
pub(crate) use layer::Layer;
pub use super_digest::{NotADigest, SuperDigest};
pub use voters::{NotVoters, Voters};
pub(crate) use zoo_cfg::ZooCfgError;

/// All settings of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who it is.
    pub id: MemberId,
    /// Where its log, snapshots and identity are.
    pub data_dir: PathBuf,
    /// The first voters and where they find each other.
    pub ensemble: Voters,
    /// The door for clients; `None` leaves it closed.
    pub client_addr: Option<Address>,
    /// The door for the other members.
    pub peer_addr: Address,
    /// The door for operators; `None` leaves it closed.
    pub admin_addr: Option<Address>,
    /// The door for clients of ZooKeeper; closed unless given.
    pub zookeeper_addr: Option<Address>,
    /// What that door answers in plain text.
    pub four_letter_words: FourLetterWords,
    /// Whether doors may be open to other machines without TLS.
    pub insecure: bool,
    /// Open client connections from one address; 0 is unlimited.
    pub connections_per_address: usize,
    /// Sessions opened or resumed a second; 0 is unlimited.
    pub sessions_per_second: u32,
    /// Of them at once; as many as a second unless given.
    pub sessions_burst: Option<u32>,
    /// The identity that passes every ACL.
    pub super_digest: Option<SuperDigest>,
    /// The session clock.
    pub tick: Duration,
    /// The shortest session timeout; two ticks unless given.
    pub session_timeout_min: Option<Duration>,
    /// The longest session timeout; twenty ticks unless given.
    pub session_timeout_max: Option<Duration>,
    /// A silent leader is replaced within this time.
    pub election_timeout: Duration,
    /// How often the leader looks for container and TTL nodes that are due.
    pub reap_period: Duration,
}

/// Everything the process is told: the member's settings and its own.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) member: Config,
    pub(crate) telemetry: telemetry::Options,
    pub(crate) warnings: Vec<CheckWarning>,
    /// What a zoo.cfg gives reason to say; one line each.
    pub(crate) notes: Vec<String>,
}

/// Why a member cannot start with these settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file is at fault.
    #[error(transparent)]
    File(#[from] FileError),
    /// The zoo.cfg is at fault.
    #[error(transparent)]
    ZooCfg(#[from] ZooCfgError),
    /// A setting without a default was given nowhere.
    #[error("{what} is missing: give --{flag}, or set {env}, or `{key}` in the configuration file")]
    Missing {
        /// The thing.
        what: &'static str,
        /// How to say it as a flag.
        flag: &'static str,
        /// In the environment.
        env: &'static str,
        /// In the file.
        key: &'static str,
    },
    /// A relation does not hold.
    #[error(transparent)]
    Check(#[from] CheckError),
}

impl Config {
    /// Default settings of member `id`.
    #[must_use]
    pub fn new(id: MemberId, data_dir: impl Into<PathBuf>, ensemble: Voters) -> Self {
        Self {
            id,
            data_dir: data_dir.into(),
            ensemble,
            client_addr: Some(Address::loopback(7101)),
            peer_addr: Address::loopback(7201),
            admin_addr: Some(Address::loopback(7301)),
            zookeeper_addr: None,
            four_letter_words: FourLetterWords::default(),
            insecure: false,
            connections_per_address: 0,
            sessions_per_second: 0,
            sessions_burst: None,
            super_digest: None,
            tick: Duration::from_millis(limits::TICK_MS),
            session_timeout_min: None,
            session_timeout_max: None,
            election_timeout: Duration::from_millis(limits::ELECTION_TIMEOUT_MS),
            reap_period: limits::REAP_PERIOD,
        }
    }

    /// The session timeouts that clients are granted, shortest and longest.
    #[must_use]
    pub fn session_timeouts(&self) -> RangeInclusive<Duration> {
        let ticks = |n: u64| self.tick * u32::try_from(n).expect("a few ticks");
        let min = self.session_timeout_min.unwrap_or_else(|| ticks(limits::SESSION_TICKS_MIN));
        let max = self.session_timeout_max.unwrap_or_else(|| ticks(limits::SESSION_TICKS_MAX));
        min..=max
    }
}

/// Puts the layers over each other and checks what comes out.
pub(crate) fn resolve(
    flags_and_env: Layer,
    file: Option<&Path>,
    zoo_cfg: Option<&Path>,
) -> Result<Resolved, ConfigError> {
    let below = match file {
        Some(path) => file::read(path)?,
        None => Layer::default(),
    };
    let telemetry_env = Layer { log_level: telemetry::log_level_of_env(), ..Layer::default() };
    let mut layer = flags_and_env.over(telemetry_env).over(below);
    let mut notes = Vec::new();
    if let Some(path) = zoo_cfg {
        let zoo = zoo_cfg::read(path, &layer)?;
        layer = layer.over(zoo.layer);
        notes = zoo.notes;
    }
    let (mut member, telemetry) = settle(layer.clone())?;
    if zoo_cfg.is_some() {
        // Several members of one machine come with their files, and ZooKeeper has no such doors: open where named.
        member.client_addr = layer.client_addr;
        member.admin_addr = layer.admin_addr;
        notes.insert(0, format!("member {} of {}, data in {}", member.id, member.ensemble, member.data_dir.display()));
    }
    let warnings = member.check()?;
    Ok(Resolved { member, telemetry, warnings, notes })
}

/// Puts the defaults below everything.
fn settle(layer: Layer) -> Result<(Config, telemetry::Options), ConfigError> {
    // Taken apart without `..`: a setting that nobody reads does not compile.
    let Layer {
        id,
        data_dir,
        ensemble,
        client_addr,
        peer_addr,
        admin_addr,
        insecure,
        connections_per_address,
        sessions_per_second,
        sessions_burst,
        tick_ms,
        session_timeout_min_ms,
        session_timeout_max_ms,
        election_timeout_ms,
        reap_period_ms,
        log_level,
        log_format,
        otlp_endpoint,
        zookeeper_addr,
        four_letter_words,
        super_digest,
    } = layer;

    let missing = |what, flag, env, key| ConfigError::Missing { what, flag, env, key };
    let id = id.ok_or_else(|| missing("the member's id", "id N", "QUORATE_ID", "id"))?;
    let data_dir =
        data_dir.ok_or_else(|| missing("the data directory", "data-dir DIR", "QUORATE_DATA_DIR", "data_dir"))?;
    let ensemble = ensemble
        .ok_or_else(|| missing("the list of voters", "ensemble 1=HOST:PORT,2=...", "QUORATE_ENSEMBLE", "[ensemble]"))?;
    let default = Config::new(MemberId(id), data_dir, ensemble);
    let member = Config {
        client_addr: client_addr.or(default.client_addr),
        peer_addr: peer_addr.unwrap_or(default.peer_addr),
        admin_addr: admin_addr.or(default.admin_addr),
        zookeeper_addr,
        four_letter_words: four_letter_words.unwrap_or(default.four_letter_words),
        insecure: insecure.unwrap_or(default.insecure),
        connections_per_address: connections_per_address.unwrap_or(default.connections_per_address),
        sessions_per_second: sessions_per_second.unwrap_or(default.sessions_per_second),
        sessions_burst,
        super_digest,
        tick: tick_ms.map_or(default.tick, Duration::from_millis),
        session_timeout_min: session_timeout_min_ms.map(Duration::from_millis),
        session_timeout_max: session_timeout_max_ms.map(Duration::from_millis),
        election_timeout: election_timeout_ms.map_or(default.election_timeout, Duration::from_millis),
        reap_period: reap_period_ms.map_or(default.reap_period, Duration::from_millis),
        ..default
    };
    let telemetry = telemetry::Options {
        log_level: log_level.unwrap_or_else(|| "info".into()),
        log_format: log_format.unwrap_or(LogFormat::Auto),
        otlp_endpoint,
    };
    Ok((member, telemetry))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn smallest() -> Layer {
        Layer {
            id: Some(1),
            data_dir: Some("data".into()),
            ensemble: Some("1=127.0.0.1:7201".parse().unwrap()),
            ..Layer::default()
        }
    }

    #[test]
    fn defaults_fill_what_no_layer_says() {
        let resolved = resolve(smallest(), None, None).unwrap();

        let expected = Config::new(MemberId(1), "data", "1=127.0.0.1:7201".parse().unwrap());
        assert_eq!(resolved.member, expected);
        assert_eq!(resolved.warnings, [CheckWarning::Alone]);
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"tick_ms = 500\nelection_timeout_ms = 300\nclient_addr = '127.0.0.1:1'").unwrap();
        let flags = Layer { tick_ms: Some(1000), ..smallest() };

        let member = resolve(flags, Some(file.path()), None).unwrap().member;

        assert_eq!(member.tick, Duration::from_secs(1));
        assert_eq!(member.election_timeout, Duration::from_millis(300));
        assert_eq!(member.client_addr, Some(Address::loopback(1)));
        assert_eq!(member.peer_addr, Address::loopback(7201));
    }

    #[test]
    fn what_is_missing_is_named_with_every_way_to_give_it() {
        let error = resolve(Layer { id: None, ..smallest() }, None, None).unwrap_err();

        assert_eq!(
            error.to_string(),
            "the member's id is missing: give --id N, or set QUORATE_ID, or `id` in the configuration file"
        );
    }
}
