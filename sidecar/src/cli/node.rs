//! A node as the commands print it.

use std::time::{Duration, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::Args;
use quorate::Stat;
use serde::Serialize;

use super::exit::{Exit, Failure};

/// A node's data for scripts: as text where it is text, in base64 otherwise.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Data {
    #[serde(rename = "data")]
    Text(String),
    #[serde(rename = "data_base64")]
    Bytes(String),
}

/// What is known of a node, for scripts.
#[derive(Debug, Serialize)]
pub(super) struct StatView {
    czxid: u64,
    mzxid: u64,
    pzxid: u64,
    ctime: String,
    mtime: String,
    version: i32,
    cversion: i32,
    aversion: i32,
    ephemeral_owner: Option<String>,
    data_length: u32,
    num_children: u32,
}

/// Data that is given on the command line.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct DataArg {
    /// The data; `-` reads it from standard input
    #[arg(value_name = "DATA", allow_hyphen_values = true)]
    data: Option<String>,
}

impl DataArg {
    /// The bytes; none where none were given.
    pub(super) fn read(self) -> Result<Vec<u8>, Failure> {
        match self.data.as_deref() {
            None => Ok(Vec::new()),
            Some("-") => {
                let mut data = Vec::new();
                std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut data)
                    .map_err(|error| Failure::new(Exit::Usage, format_args!("standard input: {error}")))?;
                Ok(data)
            }
            Some(data) => Ok(data.as_bytes().to_vec()),
        }
    }
}

impl From<&[u8]> for Data {
    fn from(data: &[u8]) -> Self {
        match std::str::from_utf8(data) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Bytes(BASE64_STANDARD.encode(data)),
        }
    }
}

impl From<&Stat> for StatView {
    fn from(stat: &Stat) -> Self {
        Self {
            czxid: stat.czxid,
            mzxid: stat.mzxid,
            pzxid: stat.pzxid,
            ctime: rfc3339(stat.ctime_ms),
            mtime: rfc3339(stat.mtime_ms),
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            ephemeral_owner: stat.ephemeral_owner.map(|session| session.to_string()),
            data_length: stat.data_length,
            num_children: stat.num_children,
        }
    }
}

impl StatView {
    /// One row a field, under ZooKeeper's names.
    pub(super) fn rows(&self) -> Vec<[String; 2]> {
        let row = |name: &str, value: String| [name.to_owned(), value];
        vec![
            row("czxid", self.czxid.to_string()),
            row("mzxid", self.mzxid.to_string()),
            row("pzxid", self.pzxid.to_string()),
            row("ctime", self.ctime.clone()),
            row("mtime", self.mtime.clone()),
            row("version", self.version.to_string()),
            row("cversion", self.cversion.to_string()),
            row("aversion", self.aversion.to_string()),
            row("ephemeral_owner", self.ephemeral_owner.clone().unwrap_or_else(|| "-".into())),
            row("data_length", self.data_length.to_string()),
            row("num_children", self.num_children.to_string()),
        ]
    }
}

/// The time as text. A leader whose clock stands before 1970 gives the epoch.
fn rfc3339(ms: i64) -> String {
    let since = Duration::from_millis(u64::try_from(ms).unwrap_or_default());
    humantime::format_rfc3339_millis(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_text_where_it_can_be() {
        let json = |data: &[u8]| serde_json::to_string(&Data::from(data)).unwrap();

        assert_eq!(json("grüß\n".as_bytes()), r#"{"data":"grüß\n"}"#);
        assert_eq!(json(b""), r#"{"data":""}"#);
        assert_eq!(json(b"\xff\x00"), r#"{"data_base64":"/wA="}"#);
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(rfc3339(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(rfc3339(-1), "1970-01-01T00:00:00.000Z");
    }
}
