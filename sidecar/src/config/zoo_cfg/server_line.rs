//! The value of a `server.N` key: where a server is found, what it is, and where its clients come.

use crate::config::Address;

/// `host:peerPort:electionPort[:role][;[clientHost:]clientPort]`, several addresses separated by `|`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerLine {
    /// The first address with the first port: the other servers come there.
    pub(super) peer: Address,
    /// Whether it only learns.
    pub(super) observer: bool,
    /// Where its clients come, if the line says so.
    pub(super) client: Option<Client>,
    /// Addresses besides the first.
    pub(super) further_addresses: usize,
}

/// The part behind the semicolon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Client {
    /// `None`: on all addresses.
    pub(super) host: Option<String>,
    pub(super) port: u16,
}

/// Text that is no server line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotAServerLine {
    #[error(
        "`{part}` is not HOST:PEERPORT:ELECTIONPORT, with `:participant` or `:observer` behind it if need be (an IPv6 \
         address stands in brackets)"
    )]
    Server { part: String },
    #[error("`{role}` is no role: a server is a participant or an observer")]
    Role { role: String },
    #[error("peer port and election port are both {port}: give each its own")]
    OnePort { port: u16 },
    #[error("`{part}` behind the semicolon is not [HOST:]PORT")]
    Client { part: String },
    #[error("its addresses have different roles")]
    Roles,
}

/// Reads the value.
pub(super) fn parse(value: &str) -> Result<ServerLine, NotAServerLine> {
    let (servers, client) = match value.split_once(';') {
        Some((servers, client)) => (servers, Some(parse_client(client.trim())?)),
        None => (value, None),
    };
    let mut parts = servers.split('|').map(|part| parse_server(part.trim())).collect::<Result<Vec<_>, _>>()?;
    if parts.iter().any(|(_, observer)| *observer != parts[0].1) {
        return Err(NotAServerLine::Roles);
    }
    let further_addresses = parts.len() - 1;
    let (peer, observer) = parts.swap_remove(0);
    Ok(ServerLine { peer, observer, client, further_addresses })
}

fn parse_server(part: &str) -> Result<(Address, bool), NotAServerLine> {
    let refused = || NotAServerLine::Server { part: part.into() };
    // An IPv6 address has colons of its own.
    let host_end = match part.starts_with('[') {
        true => part.find(']').ok_or_else(refused)? + 1,
        false => part.find(':').ok_or_else(refused)?,
    };
    let (host, rest) = part.split_at(host_end);
    let mut rest = rest.strip_prefix(':').ok_or_else(refused)?.split(':');
    let mut port = || rest.next().and_then(|port| port.trim().parse::<u16>().ok()).filter(|port| *port != 0);
    let peer_port = port().ok_or_else(refused)?;
    let election_port = port().ok_or_else(refused)?;
    let observer = match rest.next().map(str::trim) {
        None => false,
        Some(role) if role.eq_ignore_ascii_case("participant") => false,
        Some(role) if role.eq_ignore_ascii_case("observer") => true,
        Some(role) => return Err(NotAServerLine::Role { role: role.into() }),
    };
    if rest.next().is_some() {
        return Err(refused());
    }
    if peer_port == election_port {
        return Err(NotAServerLine::OnePort { port: peer_port });
    }
    let peer = format!("{host}:{peer_port}").parse().map_err(|_| refused())?;
    Ok((peer, observer))
}

fn parse_client(part: &str) -> Result<Client, NotAServerLine> {
    let refused = || NotAServerLine::Client { part: part.into() };
    let (host, port) = match part.rsplit_once(':') {
        Some((host, port)) => (Some(host), port),
        None => (None, part),
    };
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(refused)?;
    let host = match host {
        None => None,
        Some(host) => Some(format!("{host}:{port}").parse::<Address>().map_err(|_| refused())?.host().to_owned()),
    };
    Ok(Client { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(value: &str, peer: &str, observer: bool, client: Option<(Option<&str>, u16)>) {
        let line = parse(value).unwrap();

        let client = client.map(|(host, port)| Client { host: host.map(Into::into), port });
        assert_eq!((line.peer.to_string().as_str(), line.observer, line.client), (peer, observer, client), "{value}");
    }

    #[test]
    fn a_line_names_the_peer_address_the_role_and_the_clients_address() {
        check("zk1:2888:3888", "zk1:2888", false, None);
        check("zk1:2888:3888:participant", "zk1:2888", false, None);
        check("10.0.0.1:2888:3888:OBSERVER;2181", "10.0.0.1:2888", true, Some((None, 2181)));
        check("[::1]:2888:3888;[::1]:2181", "[::1]:2888", false, Some((Some("::1"), 2181)));
        check("zk1:2888:3888;0.0.0.0:2181", "zk1:2888", false, Some((Some("0.0.0.0"), 2181)));
    }

    #[test]
    fn of_several_addresses_the_first_is_taken_and_the_others_are_counted() {
        let line = parse("a:2888:3888|b:2889:3889").unwrap();

        assert_eq!((line.peer.host(), line.further_addresses), ("a", 1));
        assert_eq!(parse("a:1:2|b:1:2:observer"), Err(NotAServerLine::Roles));
    }

    #[test]
    fn what_is_no_server_line_is_named() {
        for (value, told) in [
            ("", "`` is not HOST:PEERPORT:ELECTIONPORT"),
            ("zk1", "`zk1` is not HOST"),
            ("zk1:2888", "`zk1:2888` is not HOST"),
            ("zk1:2888:x", "`zk1:2888:x` is not HOST"),
            ("zk1:2888:0", "`zk1:2888:0` is not HOST"),
            ("::1:2888:3888", "`::1:2888:3888` is not HOST"),
            ("[::1:2888:3888", "`[::1:2888:3888` is not HOST"),
            ("a b:2888:3888", "`a b:2888:3888` is not HOST"),
            ("zk1:2888:3888:leader", "`leader` is no role"),
            ("zk1:2888:3888:observer:x", "`zk1:2888:3888:observer:x` is not HOST"),
            ("zk1:2888:2888", "peer port and election port are both 2888"),
            ("zk1:2888:3888;", "`` behind the semicolon"),
            ("zk1:2888:3888;x:y", "`x:y` behind the semicolon"),
        ] {
            let error = parse(value).unwrap_err().to_string();

            assert!(error.starts_with(told), "{value}: {error}");
        }
    }
}
