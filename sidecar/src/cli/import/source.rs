//! Where an import comes from: `zookeeper://HOST:PORT[,HOST:PORT]/PATH`.

use std::{fmt, str::FromStr};

use crate::Address;

const SCHEME: &str = "zookeeper://";
const PORT: &str = "2181";

/// The servers of a ZooKeeper, and the node that is copied with all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Tried one after the other.
    pub(super) servers: Vec<Address>,
    pub(super) path: String,
}

/// Text that is no source.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotASource {
    #[error("a source reads zookeeper://HOST:PORT[,HOST:PORT]/PATH")]
    Form,
    #[error("`{server}` is not HOST:PORT")]
    Server { server: String },
    #[error("`{path}` is no path of a node")]
    Path { path: String },
    #[error("{path} belongs to the server itself and is not copied")]
    OfTheServer { path: String },
}

impl FromStr for Source {
    type Err = NotASource;

    fn from_str(text: &str) -> Result<Self, NotASource> {
        let rest = text.strip_prefix(SCHEME).ok_or(NotASource::Form)?;
        let (servers, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let path = match path.trim_end_matches('/') {
            "" => "/",
            path => path,
        };
        if path.contains("//") || path.split('/').any(|name| matches!(name, "." | "..")) {
            return Err(NotASource::Path { path: path.into() });
        }
        if path == "/zookeeper" || path.starts_with("/zookeeper/") {
            return Err(NotASource::OfTheServer { path: path.into() });
        }
        let servers = servers.split(',').map(server).collect::<Result<_, _>>()?;
        Ok(Self { servers, path: path.into() })
    }
}

fn server(text: &str) -> Result<Address, NotASource> {
    let with_port = format!("{text}:{PORT}");
    let address = text.parse::<Address>().or_else(|_| with_port.parse());
    address.ok().filter(|address| address.port() != 0).ok_or_else(|| NotASource::Server { server: text.into() })
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers: Vec<_> = self.servers.iter().map(Address::to_string).collect();
        write!(f, "{SCHEME}{}{}", servers.join(","), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(text.parse::<Source>().unwrap().to_string(), expected, "{text}");
    }

    #[test]
    fn a_source_names_servers_and_a_node() {
        check("zookeeper://zk1:2181,zk2:2182/a/b", "zookeeper://zk1:2181,zk2:2182/a/b");
        check("zookeeper://zk1", "zookeeper://zk1:2181/");
        check("zookeeper://[::1]:2181/", "zookeeper://[::1]:2181/");
        check("zookeeper://zk1/a/", "zookeeper://zk1:2181/a");
        check("zookeeper://zk1/zookeepers", "zookeeper://zk1:2181/zookeepers");
    }

    #[test]
    fn anything_else_is_refused_with_what_is_wrong() {
        for (text, told) in [
            ("zk1:2181/a", "a source reads zookeeper://HOST:PORT"),
            ("zookeeper://", "`` is not HOST:PORT"),
            ("zookeeper://zk1,,zk2/", "`` is not HOST:PORT"),
            ("zookeeper://zk1:0", "`zk1:0` is not HOST:PORT"),
            ("zookeeper://zk1//a", "`//a` is no path"),
            ("zookeeper://zk1/a/../b", "`/a/../b` is no path"),
            ("zookeeper://zk1/zookeeper/quota", "/zookeeper/quota belongs to the server"),
        ] {
            let error = text.parse::<Source>().unwrap_err().to_string();

            assert!(error.starts_with(told), "{text}: {error}");
        }
    }
}
