//! A zoo.cfg as settings of a member, so that the file of a ZooKeeper server starts a Quorate member in its place.
//!
//! A key means what it means to ZooKeeper. One that has no meaning here is ignored and told, with the reason; what
//! contradicts itself, or demands a protection that is not there, is refused. Keys that begin with `quorate.` are those
//! of the TOML file; ZooKeeper does not mind them. The file's data directory is never shared with ZooKeeper: the data
//! goes into `quorate` below it, and a directory that ZooKeeper has used is refused.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use quorate_tree::MemberId;
use serde::Deserialize;

use super::{Address, FourLetterWord, FourLetterWords, Layer, Voters, file, limits};

mod error;
mod keys;
mod properties;
mod server_line;

use error::Problem;
pub(crate) use error::ZooCfgError;
use keys::Reason;
use properties::Property;
use server_line::ServerLine;

/// ZooKeeper's, where the file does not say it.
const TICK_MS: u64 = 3_000;
/// Where the data goes, below `dataLogDir` or `dataDir`.
const DATA: &str = "quorate";
/// Where ZooKeeper keeps its own.
const FOREIGN: &str = "version-2";
const OWN_PREFIX: &str = "quorate.";
/// Of the peer door of a server that stands alone, for which a zoo.cfg has no key.
const ALONE_PEER_PORT: u16 = 7201;
/// A key at least this much like one that is used (Jaro-Winkler, 0 to 1) is taken for a misspelling of it.
const MISSPELLING_MIN: f64 = 0.94;

/// What a file says.
#[derive(Debug)]
pub(super) struct ZooCfg {
    pub(super) layer: Layer,
    /// What whoever starts the member should know: where the data goes, what is ignored and why. One line each.
    pub(super) notes: Vec<String>,
}

/// Reads `path`. What `above` says wins, and is not asked of the file.
pub(super) fn read(path: &Path, above: &Layer) -> Result<ZooCfg, ZooCfgError> {
    let mut file = File::read(path)?;
    let own = file.own_keys()?;
    let above = above.clone().over(own.clone());
    let mut notes = Vec::new();

    file.refuse_missing_protection()?;
    let servers = file.servers(&mut notes)?;
    let data_dir = file.data_dirs(&above)?;
    let id = file.id(&above, &servers, data_dir.myid.as_deref())?;
    let everywhere = file.boolean("quorumListenOnAllIPs")?;
    let (ensemble, peer_addr) = match &above.ensemble {
        Some(_) => (None, None),
        None => ensemble(id, &servers, everywhere, &above, &mut notes),
    };
    let zookeeper_addr = file.client_addr(id, &servers, &above, &mut notes)?;
    let tick_ms = file.tick_ms(&above)?;
    let (session_timeout_min_ms, session_timeout_max_ms) = file.session_timeouts(tick_ms, &above)?;
    let (sessions_per_second, sessions_burst) = file.session_rate()?.unzip();
    let layer = Layer {
        id: Some(id),
        data_dir: data_dir.data,
        ensemble,
        peer_addr,
        zookeeper_addr,
        tick_ms: Some(tick_ms),
        session_timeout_min_ms,
        session_timeout_max_ms,
        reap_period_ms: file.reap_period_ms(&above)?,
        connections_per_address: file.number("maxClientCnxns")?.and_then(|max| usize::try_from(max).ok()),
        sessions_per_second,
        sessions_burst,
        four_letter_words: file.four_letter_words(&mut notes),
        super_digest: file.super_digest()?,
        ..Layer::default()
    };
    notes.extend(file.ignored()?);
    Ok(ZooCfg { layer: own.over(layer), notes })
}

/// The keys of a file that nobody has asked for yet.
#[derive(Debug)]
struct File {
    path: PathBuf,
    left: BTreeMap<String, Property>,
    /// The file that `dynamicConfigFile` names, and its keys.
    dynamic: Option<(PathBuf, BTreeMap<String, Property>)>,
}

/// The directories that matter.
#[derive(Debug)]
struct DataDirs {
    /// Where the data goes, unless something above says it.
    data: Option<PathBuf>,
    /// The file with this server's number.
    myid: Option<PathBuf>,
}

type Servers = BTreeMap<u8, ServerLine>;

impl File {
    fn read(path: &Path) -> Result<Self, ZooCfgError> {
        let mut file = Self { path: path.into(), left: keys_of(path)?, dynamic: None };
        if let Some(named) = file.take("dynamicConfigFile") {
            let dynamic = PathBuf::from(named.value);
            let beside = file.left.values().find(|property| is_of_members(&property.key));
            if let Some(Property { key, line, .. }) = beside.cloned() {
                return Err(file.refuse(line, Problem::BesideDynamic { key, dynamic }));
            }
            let mut keys = keys_of(&dynamic)?;
            // The zxid of the change that made the file; it counts for nobody else.
            keys.remove("version");
            if let Some(Property { key, line, .. }) = keys.values().find(|property| !is_of_members(&property.key)) {
                let problem = Problem::NotDynamic { key: key.clone(), file: path.into() };
                return Err(ZooCfgError::new(&dynamic, *line, problem));
            }
            file.dynamic = Some((dynamic, keys));
        }
        Ok(file)
    }

    fn refuse(&self, line: impl Into<Option<usize>>, problem: impl Into<Problem>) -> ZooCfgError {
        ZooCfgError::new(&self.path, line, problem)
    }

    fn take(&mut self, key: &str) -> Option<Property> {
        self.left.remove(key).filter(|property| !property.value.is_empty())
    }

    fn number(&mut self, key: &str) -> Result<Option<u64>, ZooCfgError> {
        let Some(Property { key, value, line }) = self.take(key) else { return Ok(None) };
        match value.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(self.refuse(line, Problem::Value { key, value, wanted: "a number from 0 on" })),
        }
    }

    /// A number that has its bounds, unless something `above` the file says it.
    fn number_within(
        &mut self,
        key: &str,
        above: Option<u64>,
        (min, max): (u64, u64),
    ) -> Result<Option<u64>, ZooCfgError> {
        let line = self.left.get(key).map(|property| property.line);
        match self.number(key)? {
            _ if above.is_some() => Ok(None),
            Some(given) if !(min..=max).contains(&given) => {
                Err(self.refuse(line, Problem::OutOfRange { key: key.into(), given, min, max }))
            }
            given => Ok(given),
        }
    }

    fn boolean(&mut self, key: &str) -> Result<bool, ZooCfgError> {
        let Some(Property { key, value, line }) = self.take(key) else { return Ok(false) };
        match value.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(self.refuse(line, Problem::Value { key, value, wanted: "true or false" })),
        }
    }

    /// The keys that begin with `quorate.`, as the TOML file would say them.
    fn own_keys(&mut self) -> Result<Layer, ZooCfgError> {
        let (own, others) =
            std::mem::take(&mut self.left).into_iter().partition(|(key, _)| key.starts_with(OWN_PREFIX));
        self.left = others;
        let own: BTreeMap<String, Property> = own;
        let known = Layer::keys();
        let mut table = toml::Table::new();
        for Property { key, value, line } in own.into_values() {
            let name = &key[OWN_PREFIX.len()..];
            if name == "ensemble" || !known.iter().any(|known| known == name) {
                let nearest = file::nearest(name, known.clone()).filter(|_| name != "ensemble");
                return Err(self.refuse(
                    line,
                    match nearest {
                        Some(meant) => Problem::Misspelt { key, meant: format!("{OWN_PREFIX}{meant}") },
                        None => Problem::Own(format!("there is no key `{key}`")),
                    },
                ));
            }
            let value = match (value.parse::<i64>(), value.parse::<bool>()) {
                (Ok(number), _) => toml::Value::Integer(number),
                (_, Ok(yes)) => toml::Value::Boolean(yes),
                _ => toml::Value::String(value),
            };
            // One at a time, so that a wrong value is told with its line.
            let one = toml::Table::from_iter([(name.to_owned(), value.clone())]);
            Layer::deserialize(toml::Value::Table(one))
                .map_err(|error| self.refuse(line, Problem::Own(format!("{key}: {}", error.message()))))?;
            table.insert(name.to_owned(), value);
        }
        Layer::deserialize(toml::Value::Table(table))
            .map_err(|error| self.refuse(None, Problem::Own(error.to_string())))
    }

    fn refuse_missing_protection(&mut self) -> Result<(), ZooCfgError> {
        for key in keys::PROTECTION {
            let line = self.left.get(key).map(|property| property.line);
            if self.left.contains_key(key) && self.boolean(key)? {
                return Err(self.refuse(line, Problem::Protection { key: key.into(), value: "true".into() }));
            }
        }
        if let Some(Property { value, line, .. }) = self.take("DigestAuthenticationProvider.digestAlg")
            && !value.eq_ignore_ascii_case("SHA1")
            && !value.eq_ignore_ascii_case("SHA-1")
        {
            return Err(self.refuse(line, Problem::Digest { algorithm: value }));
        }
        Ok(())
    }

    /// The server lines, of this file or of the dynamic one.
    fn servers(&mut self, notes: &mut Vec<String>) -> Result<Servers, ZooCfgError> {
        let (path, keys) = match &mut self.dynamic {
            Some((path, keys)) => (path.clone(), keys),
            None => (self.path.clone(), &mut self.left),
        };
        let lines: Vec<Property> = keys.values().filter(|property| is_server(&property.key)).cloned().collect();
        keys.retain(|key, _| !is_server(key));

        let mut servers = Servers::new();
        for Property { key, value, line } in lines {
            let refuse = |problem| ZooCfgError::new(&path, line, problem);
            let number = key["server.".len()..].parse().ok().filter(|id| (1..=254).contains(id));
            let id: u8 = number.ok_or_else(|| refuse(Problem::ServerId { key: key.clone() }))?;
            let server =
                server_line::parse(&value).map_err(|source| refuse(Problem::Server { key: key.clone(), source }))?;
            if server.further_addresses > 0 {
                notes.push(format!("{key}: the first of its addresses is used: a member has one"));
            }
            let address = server.peer.clone();
            if let Some((one, _)) = servers.iter().find(|(_, other): &(_, &ServerLine)| other.peer == address) {
                return Err(refuse(Problem::SharedAddress { one: *one, other: id, address }));
            }
            // Two spellings of one number.
            if servers.insert(id, server).is_some() {
                return Err(refuse(Problem::ServerId { key }));
            }
        }
        if servers.is_empty() {
            // Whoever says this much of the members wants more than one, which would be many of one.
            let is_false = |property: &Property| property.value.eq_ignore_ascii_case("false");
            if self.dynamic.is_some() || self.left.get("standaloneEnabled").is_some_and(is_false) {
                return Err(ZooCfgError::new(&path, None, Problem::NoServers));
            }
        }
        if !servers.is_empty() && servers.values().all(|server| server.observer) {
            return Err(ZooCfgError::new(&path, None, Problem::OnlyObservers));
        }
        for (id, server) in &servers {
            if servers.len() > 1 && is_unspecified(&server.peer) {
                let address = server.peer.clone();
                return Err(ZooCfgError::new(&path, None, Problem::Unspecified { id: *id, address }));
            }
        }
        Ok(servers)
    }

    fn data_dirs(&mut self, above: &Layer) -> Result<DataDirs, ZooCfgError> {
        let data_dir = self.take("dataDir").map(|property| PathBuf::from(property.value));
        let log_dir = self.take("dataLogDir").map(|property| PathBuf::from(property.value));
        let myid = data_dir.as_ref().map(|dir| dir.join("myid"));
        if above.data_dir.is_some() {
            return Ok(DataDirs { data: None, myid });
        }
        for dir in [&data_dir, &log_dir].into_iter().flatten() {
            if dir.join(FOREIGN).exists() {
                return Err(self.refuse(None, Problem::Foreign { dir: dir.clone() }));
            }
        }
        // The log is what needs the fast disk, and it stands beside the snapshots.
        let dir = log_dir.or(data_dir).ok_or_else(|| self.refuse(None, Problem::NoDataDir))?;
        Ok(DataDirs { data: Some(dir.join(DATA)), myid })
    }

    /// Which server this is.
    fn id(&self, above: &Layer, servers: &Servers, myid: Option<&Path>) -> Result<u8, ZooCfgError> {
        let id = match (above.id, myid) {
            (Some(id), _) => id,
            (None, _) if servers.is_empty() && above.ensemble.is_none() => return Ok(1),
            (None, None) => return Err(self.refuse(None, Problem::NoDataDir)),
            (None, Some(myid)) => {
                let told = |source| Problem::NoMyId { myid: myid.into(), servers: list(servers), source };
                let text = fs::read_to_string(myid).map_err(|source| self.refuse(None, told(source)))?;
                let text = text.trim();
                let id = text.parse().ok().filter(|id| (1..=254).contains(id));
                id.ok_or_else(|| self.refuse(None, Problem::BadMyId { myid: myid.into(), text: text.into() }))?
            }
        };
        if above.ensemble.is_none() && !servers.is_empty() {
            match servers.get(&id) {
                None => return Err(self.refuse(None, Problem::NotInList { id, servers: list(servers) })),
                Some(server) if server.observer => return Err(self.refuse(None, Problem::Observer { id })),
                Some(_) => {}
            }
        }
        Ok(id)
    }

    /// Where the clients of ZooKeeper come.
    fn client_addr(
        &mut self,
        id: u8,
        servers: &Servers,
        above: &Layer,
        notes: &mut Vec<String>,
    ) -> Result<Option<Address>, ZooCfgError> {
        let port_line = self.left.get("clientPort").map(|property| property.line);
        // ZooKeeper takes 0 for «not set».
        let port = match self.number("clientPort")?.filter(|port| *port != 0) {
            None => None,
            Some(port) => Some(u16::try_from(port).map_err(|_| {
                let (key, value) = ("clientPort".into(), port.to_string());
                self.refuse(port_line, Problem::Value { key, value, wanted: "a port from 1 to 65535" })
            })?),
        };
        let host = self.take("clientPortAddress");
        if let (Some(Property { line, .. }), None) = (&host, port) {
            return Err(self.refuse(*line, Problem::ClientPortMissing));
        }
        let of_key = match (port, &host) {
            (None, _) => None,
            (Some(port), None) => Some((None, port)),
            (Some(port), Some(Property { key, value, line })) => {
                let bare = value.trim_start_matches('[').trim_end_matches(']');
                let wanted = "a host name or an IP address";
                let bad = || Problem::Value { key: key.clone(), value: value.clone(), wanted };
                let address = text_of(bare, port).parse::<Address>().map_err(|_| self.refuse(*line, bad()))?;
                Some((Some(address.host().to_owned()), port))
            }
        };
        let of_line =
            servers.get(&id).and_then(|server| server.client.clone()).map(|client| (client.host, client.port));
        let (host, port) = match (of_key, of_line) {
            (None, None) => return Ok(None),
            (Some(client), None) | (None, Some(client)) => client,
            (Some(key), Some(line)) => {
                let hosts_agree = is_everywhere(&key.0) || key.0 == line.0;
                if key.1 != line.1 || !hosts_agree {
                    let text = |(host, port): &(Option<String>, u16)| match host {
                        None => port.to_string(),
                        Some(host) => text_of(host, *port),
                    };
                    let problem = Problem::ClientPort { port: text(&key), id, line: text(&line) };
                    return Err(self.refuse(port_line, problem));
                }
                line
            }
        };
        if above.zookeeper_addr.is_some() {
            return Ok(None);
        }
        match host {
            Some(host) => Ok(Some(at(&host, port))),
            None if above.insecure == Some(true) => Ok(Some(at("0.0.0.0", port))),
            None => {
                notes.push(format!(
                    "client port {port} is open on this machine alone, for there is no TLS yet; --insecure opens it to others"
                ));
                Ok(Some(Address::loopback(port)))
            }
        }
    }

    fn tick_ms(&mut self, above: &Layer) -> Result<u64, ZooCfgError> {
        let range = (limits::TICK_MS_MIN, limits::TICK_MS_MAX);
        let given = self.number_within("tickTime", above.tick_ms, range)?;
        Ok(above.tick_ms.or(given).unwrap_or(TICK_MS))
    }

    fn reap_period_ms(&mut self, above: &Layer) -> Result<Option<u64>, ZooCfgError> {
        let range = (limits::REAP_PERIOD_MS_MIN, limits::REAP_PERIOD_MS_MAX);
        self.number_within("znode.container.checkIntervalMs", above.reap_period_ms, range)
    }

    fn session_timeouts(&mut self, tick_ms: u64, above: &Layer) -> Result<(Option<u64>, Option<u64>), ZooCfgError> {
        // ZooKeeper takes -1 for «not set».
        for key in ["minSessionTimeout", "maxSessionTimeout"] {
            if self.left.get(key).is_some_and(|property| property.value == "-1") {
                self.left.remove(key);
            }
        }
        let (floor, ceiling) = (limits::SESSION_TIMEOUT_MS_MIN, limits::SESSION_TIMEOUT_MS_MAX);
        let line = self.left.get("minSessionTimeout").map(|property| property.line);
        let min = self.number_within("minSessionTimeout", above.session_timeout_min_ms, (floor, ceiling))?;
        let ticks = |n: u64| tick_ms.saturating_mul(n);
        let shortest = above.session_timeout_min_ms.or(min).unwrap_or(ticks(limits::SESSION_TICKS_MIN));
        let max = self.number_within("maxSessionTimeout", above.session_timeout_max_ms, (shortest, ceiling))?;
        let longest = above.session_timeout_max_ms.or(max).unwrap_or(ticks(limits::SESSION_TICKS_MAX));
        match min {
            Some(given) if given > longest => {
                let key = "minSessionTimeout".into();
                Err(self.refuse(line, Problem::OutOfRange { key, given, min: floor, max: longest }))
            }
            _ => Ok((min, max)),
        }
    }

    /// ZooKeeper's bucket of tokens: so many sessions at once, and a few more every few milliseconds. Without tokens there
    /// is none.
    fn session_rate(&mut self) -> Result<Option<(u32, u32)>, ZooCfgError> {
        let tokens = self.number("connection_throttle_tokens")?.unwrap_or(0);
        let every_ms = self.number("connection_throttle_fill_time")?.unwrap_or(1).max(1);
        let count = self.number("connection_throttle_fill_count")?.unwrap_or(1);
        // At least one of each: a bucket that never fills lets nobody in.
        let within = |number: u64, max: u32| u32::try_from(number).unwrap_or(max).clamp(1, max);
        let per_second = within(count.saturating_mul(1000) / every_ms, limits::SESSIONS_PER_SECOND_MAX);
        Ok((tokens > 0).then(|| (per_second, within(tokens, limits::SESSIONS_BURST_MAX))))
    }

    fn four_letter_words(&mut self, notes: &mut Vec<String>) -> Option<FourLetterWords> {
        let Property { key, value, .. } = self.take("4lw.commands.whitelist")?;
        let words = value.split(',').map(str::trim).filter(|word| !word.is_empty());
        let (known, unknown): (Vec<_>, Vec<_>) =
            words.partition(|word| *word == "*" || FourLetterWord::of(word).is_some());
        if !unknown.is_empty() {
            notes.push(format!("{key}: ignored {}, which this door does not know", unknown.join(", ")));
        }
        Some(known.join(",").parse().expect("only known words were kept"))
    }

    fn super_digest(&mut self) -> Result<Option<super::SuperDigest>, ZooCfgError> {
        match self.take("DigestAuthenticationProvider.superDigest") {
            None => Ok(None),
            Some(Property { value, line, .. }) => {
                value.parse().map(Some).map_err(|error| self.refuse(line, Problem::from(error)))
            }
        }
    }

    /// What is left, by reason: one line each.
    fn ignored(self) -> Result<Vec<String>, ZooCfgError> {
        let mut by_reason = BTreeMap::<Reason, Vec<String>>::new();
        let dynamic = self.dynamic.iter().flat_map(|(path, keys)| keys.values().map(move |property| (path, property)));
        for (path, property) in self.left.values().map(|property| (&self.path, property)).chain(dynamic) {
            let Property { key, line, .. } = property;
            let reason = Reason::of(key);
            let likeness = |used: &&&str| strsim::jaro_winkler(&key.to_ascii_lowercase(), &used.to_ascii_lowercase());
            let meant = keys::USED.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
            if let Some(meant) = meant.filter(|meant| reason == Reason::Unknown && likeness(meant) >= MISSPELLING_MIN) {
                let problem = Problem::Misspelt { key: key.clone(), meant: (*meant).into() };
                return Err(ZooCfgError::new(path, *line, problem));
            }
            by_reason.entry(reason).or_default().push(key.clone());
        }
        Ok(by_reason
            .iter()
            .map(|(reason, keys)| format!("ignored {}: {}", keys.join(", "), reason.sentence()))
            .collect())
    }
}

/// The voters, and where this one listens for the others.
fn ensemble(
    id: u8,
    servers: &Servers,
    everywhere: bool,
    above: &Layer,
    notes: &mut Vec<String>,
) -> (Option<Voters>, Option<Address>) {
    let Some(this) = servers.get(&id) else {
        let alone = above.peer_addr.clone().unwrap_or(Address::loopback(ALONE_PEER_PORT));
        notes.push(format!("no server lines: this member is an ensemble of its own; its peer door is {alone}"));
        return (Some([(MemberId(id), alone)].into_iter().collect()), None);
    };
    let (observers, voters): (Vec<_>, Vec<_>) = servers.iter().partition(|(_, server)| server.observer);
    if !observers.is_empty() {
        let keys: Vec<_> = observers.iter().map(|(id, _)| format!("server.{id}")).collect();
        notes.push(format!("ignored {}: there are no observers yet", keys.join(", ")));
    }
    let voters = voters.into_iter().map(|(id, server)| (MemberId(*id), server.peer.clone())).collect();
    let listens = if everywhere { at("0.0.0.0", this.peer.port()) } else { this.peer.clone() };
    (Some(voters), Some(listens))
}

/// The keys of a file. One that stands there twice with two values is refused: Java keeps the last and says nothing.
fn keys_of(path: &Path) -> Result<BTreeMap<String, Property>, ZooCfgError> {
    let bytes = fs::read(path).map_err(|error| ZooCfgError::new(path, None, error))?;
    let properties = properties::parse(&bytes).map_err(|error| ZooCfgError::new(path, error.line, error))?;
    let mut keys = BTreeMap::<String, Property>::new();
    for property in properties {
        let line = property.line;
        match keys.get(&property.key) {
            Some(first) if first.value != property.value => {
                let problem = Problem::Twice { key: property.key, first: first.line };
                return Err(ZooCfgError::new(path, line, problem));
            }
            _ => keys.insert(property.key.clone(), property),
        };
    }
    Ok(keys)
}

fn is_server(key: &str) -> bool {
    key.strip_prefix("server.").is_some_and(|id| id.starts_with(|c: char| c.is_ascii_digit() || c == '-'))
}

/// Whether a key belongs into the dynamic file if there is one.
fn is_of_members(key: &str) -> bool {
    is_server(key) || key.starts_with("group") || key.starts_with("weight")
}

fn is_unspecified(address: &Address) -> bool {
    address.host().parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

fn is_everywhere(host: &Option<String>) -> bool {
    host.as_ref().is_none_or(|host| is_unspecified(&at(host, 1)))
}

/// `host` comes from an [`Address`], or is a literal.
fn at(host: &str, port: u16) -> Address {
    text_of(host, port).parse().expect("the host was taken from an address")
}

fn text_of(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn list(servers: &Servers) -> String {
    let lines: Vec<_> = servers.iter().map(|(id, server)| format!("{id}={}", server.peer)).collect();
    lines.join(",")
}

#[cfg(test)]
mod tests;
