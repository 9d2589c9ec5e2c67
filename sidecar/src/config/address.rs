//! Where a door listens or a member is found: a host and a port, not yet resolved.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de};

/// `HOST:PORT`. The host is an IP address or a name; names are resolved when they are used, so that a member found
/// through DNS may move.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    host: String,
    port: u16,
}

/// Text that is not `HOST:PORT`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not HOST:PORT (an IPv6 address stands in brackets: [::1]:7101)")]
pub struct NotAnAddress {
    text: String,
}

impl Address {
    /// The address of `port` on this machine alone.
    #[must_use]
    pub fn loopback(port: u16) -> Self {
        Self { host: "127.0.0.1".into(), port }
    }

    /// The name or the IP address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 lets the system choose one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether nobody beyond this machine can reach it. A name other than `localhost` may resolve to anything, so it
    /// counts as reachable.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.to_canonical().is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || NotAnAddress { text: text.into() };
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let port = port.parse().map_err(|_| refused())?;

        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_host = match bracketed {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
            None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
        };
        if is_host { Ok(Self { host: bracketed.unwrap_or(host).into(), port }) } else { Err(refused()) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Option<(&str, u16, bool)>) {
        let parsed = text.parse::<Address>();

        match expected {
            Some((host, port, loopback)) => {
                let address = parsed.unwrap();
                assert_eq!((address.host(), address.port(), address.is_loopback()), (host, port, loopback), "{text}");
                assert_eq!(address.to_string(), text);
            }
            None => assert!(parsed.is_err(), "{text} was taken for {parsed:?}"),
        }
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        check("127.0.0.1:7101", Some(("127.0.0.1", 7101, true)));
        check("127.9.9.9:0", Some(("127.9.9.9", 0, true)));
        check("localhost:1", Some(("localhost", 1, true)));
        check("[::1]:7101", Some(("::1", 7101, true)));
        check("[::ffff:127.0.0.1]:7101", Some(("::ffff:127.0.0.1", 7101, true)));
        check("[::]:7101", Some(("::", 7101, false)));
        check("0.0.0.0:7101", Some(("0.0.0.0", 7101, false)));
        check("quorate-0.quorate.svc:7201", Some(("quorate-0.quorate.svc", 7201, false)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", ":", ":7101", "127.0.0.1", "host:", "host:65536", "host:-1", "::1:7101", "[::1:7101", "[]:1"] {
            check(text, None);
        }
        for text in ["http://host:80", "a b:1", "[host]:1", "host:80/path"] {
            check(text, None);
        }
    }
}
