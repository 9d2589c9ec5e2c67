//! The quotas of what is copied. They are told and not carried: what only warned there would refuse here.

use quorate_wire::{GetPath, Request, Response};

use super::{
    report::{Listed, Quota},
    zookeeper::{Unreachable, Zookeeper},
};

/// Below it each quota has the path of the node that it is for.
const QUOTAS: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const USAGE: &str = "zookeeper_stats";

/// The quotas of `base` and of what is below it. What ZooKeeper does not show is left out.
pub(super) async fn list(zookeeper: &Zookeeper, base: &str) -> Result<Listed<Quota>, Unreachable> {
    let mut quotas = Listed::default();
    let mut waiting = vec![format!("{QUOTAS}{}", base.trim_end_matches('/'))];
    while let Some(path) = waiting.pop() {
        let children = GetPath { path: path.clone().into(), watch: false };
        let Ok(Response::NamesStat { mut names, .. }) = zookeeper.ask(Request::GetChildren2(children)).await? else {
            continue;
        };
        names.sort_unstable_by(|one, other| other.cmp(one));
        for name in names {
            match name.as_str() {
                USAGE => {}
                LIMITS => {
                    let limits = GetPath { path: format!("{path}/{LIMITS}").into(), watch: false };
                    if let Ok(Response::Data { data, .. }) = zookeeper.ask(Request::GetData(limits)).await? {
                        quotas.add(quota(&path, &data.unwrap_or_default()));
                    }
                }
                name => waiting.push(format!("{path}/{name}")),
            }
        }
    }
    Ok(quotas)
}

fn quota(at: &str, limits: &[u8]) -> Quota {
    let path = match &at[QUOTAS.len()..] {
        "" => "/",
        path => path,
    };
    Quota { path: path.into(), limits: String::from_utf8_lossy(limits).escape_debug().to_string() }
}
