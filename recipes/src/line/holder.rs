//! What a holder says about itself in its node, where Java does not look.

use std::{
    sync::OnceLock,
    time::{SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Who holds a lock or waits for it, for people who look. Everything in it is only said, not proven.
///
/// In the node it is JSON: `{"v":1,"host":..,"pid":..,"svc":..,"inst":..,"task":..,"since_ms":..,"trace":..}`,
/// without what is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct HolderInfo {
    /// The version of this form: 1.
    pub v: u32,
    /// The machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The service; by default the name of the program.
    #[serde(default, rename = "svc", skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Which instance of it.
    #[serde(default, rename = "inst", skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What it does there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// When it began to ask, by its own wall clock, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// The trace it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

impl HolderInfo {
    /// This process, now.
    pub fn current() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        Self {
            v: 1,
            host: host().map(str::to_owned),
            pid: Some(std::process::id()),
            service: program(),
            instance: None,
            task: None,
            since_ms: since.and_then(|since| u64::try_from(since.as_millis()).ok()),
            trace: None,
        }
    }

    /// Which service.
    #[must_use]
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// Which instance of the service.
    #[must_use]
    pub fn instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// What it does.
    #[must_use]
    pub fn task(mut self, task: impl Into<String>) -> Self {
        self.task = Some(task.into());
        self
    }

    /// The trace it belongs to.
    #[must_use]
    pub fn trace(mut self, trace: impl Into<String>) -> Self {
        self.trace = Some(trace.into());
        self
    }

    /// Reads it from the data of a node; nothing if it is something else.
    pub fn from_json(data: &[u8]) -> Option<Self> {
        serde_json::from_slice(data).ok()
    }
}

impl From<HolderInfo> for Bytes {
    fn from(info: HolderInfo) -> Self {
        serde_json::to_vec(&info).expect("text and numbers can be written as JSON").into()
    }
}

impl From<&HolderInfo> for Bytes {
    fn from(info: &HolderInfo) -> Self {
        info.clone().into()
    }
}

/// The name of this machine, where it can be had without asking anybody.
pub(crate) fn host() -> Option<&'static str> {
    static HOST: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let name = kernel.or_else(|| std::env::var("HOSTNAME").ok())?;
        let name = name.trim();
        (!name.is_empty()).then(|| name.to_owned())
    };
    HOST.get_or_init(read).as_deref()
}

fn program() -> Option<String> {
    let program = std::env::args().next()?;
    let name = program.rsplit(['/', '\\']).next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_the_node_are_the_short_ones_and_what_is_unknown_is_left_out() {
        let info = HolderInfo {
            v: 1,
            host: Some("h1".into()),
            pid: Some(7),
            service: Some("orders".into()),
            instance: None,
            task: Some("sweep".into()),
            since_ms: Some(5),
            trace: None,
        };

        let json = Bytes::from(&info);

        assert_eq!(json, r#"{"v":1,"host":"h1","pid":7,"svc":"orders","task":"sweep","since_ms":5}"#);
        assert_eq!(HolderInfo::from_json(&json), Some(info));
    }

    #[test]
    fn what_java_writes_is_no_holder_info() {
        assert_eq!(HolderInfo::from_json(b"10.0.0.7"), None);
        assert_eq!(HolderInfo::from_json(b""), None);
        assert!(HolderInfo::from_json(br#"{"v":1,"more":true}"#).is_some());
    }
}
