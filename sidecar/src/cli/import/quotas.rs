//! The quotas of what is copied. They are told and not carried: a hard limit that ZooKeeper was not told to enforce would
//! refuse here.

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
                    if let Ok(Response::Data { data: Some(data), .. }) = zookeeper.ask(Request::GetData(limits)).await?
                        && let Some(quota) = quota(&path, &String::from_utf8_lossy(&data))
                    {
                        quotas.add(quota);
                    }
                }
                name => waiting.push(format!("{path}/{name}")),
            }
        }
    }
    Ok(quotas)
}

/// `None` where the limits have been taken away: their node stays.
fn quota(at: &str, limits: &str) -> Option<Quota> {
    let is_set = |limit: &str| limit.split('=').nth(1).is_some_and(|value| !matches!(value, "" | "-1"));
    let path = match &at[QUOTAS.len()..] {
        "" => "/",
        path => path,
    };
    let quota = || Quota { path: path.into(), limits: limits.escape_debug().to_string() };
    limits.split([',', ';']).any(is_set).then(quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_has_a_limit() {
        let told = |limits| quota("/zookeeper/quota/a/b", limits).map(|quota| quota.path);

        for limits in ["count=7,bytes=-1", "count=-1,bytes=-1=;byteHardLimit=9;countHardLimit=-1"] {
            assert_eq!(told(limits).as_deref(), Some("/a/b"), "{limits}");
        }
        for limits in ["count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=-1", "", "text"] {
            assert_eq!(told(limits), None, "{limits}");
        }
        assert_eq!(quota("/zookeeper/quota", "count=1").unwrap().path, "/");
    }
}
