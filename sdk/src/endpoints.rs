//! The addresses of members: how they are given, and in which order they are tried.

use std::net::SocketAddr;

use rand::seq::SliceRandom;

use crate::error::{Error, Result};

/// What [`Client::builder`](crate::Client::builder) takes: one address, several in one string with commas
/// between them, or a collection.
pub trait IntoSeeds {
    /// The addresses, each `http://host:port` or `host:port`.
    fn into_seeds(self) -> Vec<String>;
}

impl IntoSeeds for &str {
    fn into_seeds(self) -> Vec<String> {
        self.split(',').map(|seed| seed.trim().to_owned()).filter(|seed| !seed.is_empty()).collect()
    }
}

impl IntoSeeds for String {
    fn into_seeds(self) -> Vec<String> {
        self.as_str().into_seeds()
    }
}

impl IntoSeeds for &String {
    fn into_seeds(self) -> Vec<String> {
        self.as_str().into_seeds()
    }
}

impl<S: AsRef<str>> IntoSeeds for Vec<S> {
    fn into_seeds(self) -> Vec<String> {
        self.as_slice().into_seeds()
    }
}

impl<S: AsRef<str>> IntoSeeds for &Vec<S> {
    fn into_seeds(self) -> Vec<String> {
        self.as_slice().into_seeds()
    }
}

impl<S: AsRef<str>> IntoSeeds for &[S] {
    fn into_seeds(self) -> Vec<String> {
        self.iter().flat_map(|seed| seed.as_ref().into_seeds()).collect()
    }
}

impl<S: AsRef<str>, const N: usize> IntoSeeds for [S; N] {
    fn into_seeds(self) -> Vec<String> {
        self.as_slice().into_seeds()
    }
}

/// The address of a member, or a name that stands for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seed {
    host: String,
    port: u16,
}

impl Seed {
    fn parse(given: &str) -> Result<Self> {
        let refuse = |reason: &str| Err(Error::Config { message: format!("endpoint {given:?}: {reason}") });
        if given.starts_with("https://") {
            return refuse("TLS is not supported yet");
        }
        let address = given.strip_prefix("http://").unwrap_or(given);
        if address.contains("://") {
            return refuse("the scheme must be http");
        }
        let address = address.strip_suffix('/').unwrap_or(address);
        if address.contains(['/', '?', '#', '@']) {
            return refuse("it must be http://host:port; what is to be put before paths is the namespace");
        }
        let Some((host, port)) = address.rsplit_once(':') else { return refuse("the port is missing") };
        let Ok(port) = port.parse() else { return refuse("the port is not a number below 65536") };
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if host.is_empty() {
            return refuse("the host is missing");
        }
        Ok(Self { host: host.to_owned(), port })
    }

    /// The addresses it stands for now, in random order.
    pub(crate) async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        let mut addresses: Vec<_> = tokio::net::lookup_host((self.host.as_str(), self.port)).await?.collect();
        addresses.shuffle(&mut rand::rng());
        Ok(addresses)
    }
}

impl std::fmt::Display for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "http://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "http://{}:{}", self.host, self.port)
        }
    }
}

/// All the addresses a client was given.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints {
    seeds: Vec<Seed>,
}

impl Endpoints {
    pub(crate) fn parse(seeds: &[String]) -> Result<Self> {
        if seeds.is_empty() {
            return Err(Error::Config { message: "no endpoint was given".into() });
        }
        Ok(Self { seeds: seeds.iter().map(|seed| Seed::parse(seed)).collect::<Result<_>>()? })
    }

    pub(crate) fn one(seed: Seed) -> Self {
        Self { seeds: vec![seed] }
    }

    pub(crate) fn seeds(&self) -> &[Seed] {
        &self.seeds
    }

    /// In random order, so that clients spread over members.
    pub(crate) fn shuffled(&self) -> Vec<Seed> {
        let mut seeds = self.seeds.clone();
        seeds.shuffle(&mut rand::rng());
        seeds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(seeds: impl IntoSeeds) -> Result<Vec<String>> {
        let endpoints = Endpoints::parse(&seeds.into_seeds())?;
        Ok(endpoints.seeds().iter().map(Seed::to_string).collect())
    }

    #[test]
    fn addresses_come_in_many_ways() {
        assert_eq!(parse("http://a:1").unwrap(), ["http://a:1"]);
        assert_eq!(parse("http://a:1, b:2/").unwrap(), ["http://a:1", "http://b:2"]);
        assert_eq!(parse(["http://a:1", "http://[::1]:2"]).unwrap(), ["http://a:1", "http://[::1]:2"]);
        assert_eq!(parse(vec!["a:1,b:2".to_owned()]).unwrap(), ["http://a:1", "http://b:2"]);
    }

    #[test]
    fn what_cannot_work_is_refused_with_a_reason() {
        for bad in ["", "a", "a:", "a:99999", ":1", "https://a:1", "ftp://a:1", "http://a:1/chroot", "u@a:1"] {
            assert!(matches!(parse(bad), Err(Error::Config { .. })), "{bad:?}");
        }
    }
}
