//! Quotas: how many nodes and bytes a subtree may have.
//!
//! As in ZooKeeper they are nodes: `/zookeeper/quota/<subtree>/zookeeper_limits` holds the limits and makes them count,
//! `zookeeper_stats` beside it shows the usage, which the tree writes there by itself: without a version, a zxid or an
//! event, but as a part of the replicated state. What is kept here follows from the nodes, so it is part of no snapshot.
//! Nothing is counted when a limit is set: every node knows what is below it.
//!
//! Every quota counts its whole subtree; of several that enclose a node, only the innermost is asked. `/zookeeper` and
//! what is below has none, nor has the root.

use std::collections::BTreeMap;

use crate::node::{Data, NodeId};
use crate::nodes::Nodes;
use crate::usage::Usage;
use crate::writes::parent_of;
use crate::{Change, Refusal, Tree};

const QUOTAS: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const USAGE: &str = "zookeeper_stats";

/// The nodes that hold the limits of the quotas that count, by the path of their subtree.
#[derive(Debug, Default)]
pub(crate) struct Quotas(BTreeMap<Box<str>, NodeId>);

/// The limits of a quota, `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Limits {
    nodes: Option<u64>,
    bytes: Option<u64>,
    nodes_hard: Option<u64>,
    bytes_hard: Option<u64>,
}

impl Limits {
    /// `count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=10`, where the sign behind the second number is there for
    /// old parsers. What cannot be read limits nothing.
    fn parse(data: &[u8]) -> Self {
        let mut limits = Self::default();
        for pair in data.split(|byte| matches!(byte, b',' | b';')) {
            let mut parts = pair.split(|byte| *byte == b'=');
            let (key, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            // A negative number is no number of this type, and no limit.
            let limit = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            match key {
                b"count" => limits.nodes = limit,
                b"bytes" => limits.bytes = limit,
                b"countHardLimit" => limits.nodes_hard = limit,
                b"byteHardLimit" => limits.bytes_hard = limit,
                _ => {}
            }
        }
        limits
    }
}

/// What a node says of which subtree, if it belongs to a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QuotaNode<'a> {
    Limits(&'a str),
    Usage(&'a str),
}

impl<'a> QuotaNode<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let (subtree, name) = path.strip_prefix(QUOTAS)?.rsplit_once('/')?;
        let is_own = |rest: &str| rest.is_empty() || rest.starts_with('/');
        if !subtree.starts_with('/') || subtree.strip_prefix("/zookeeper").is_some_and(is_own) {
            return None;
        }
        match name {
            LIMITS => Some(Self::Limits(subtree)),
            USAGE => Some(Self::Usage(subtree)),
            _ => None,
        }
    }
}

/// The subtrees that a node is in, the innermost first.
fn enclosing(path: &str) -> impl Iterator<Item = &str> {
    let below_root = |path: &str| path != "/";
    std::iter::successors(Some(path), |path| Some(parent_of(path))).take_while(move |path| below_root(path))
}

impl Quotas {
    /// Finds what counts.
    pub(crate) fn of(nodes: &Nodes) -> Self {
        let mut quotas = Self::default();
        let Some(top) = nodes.find(QUOTAS) else { return quotas };
        for id in nodes.below(top).filter(|id| nodes.get(*id).name.as_bytes() == LIMITS.as_bytes()) {
            if let Some(QuotaNode::Limits(subtree)) = QuotaNode::of(&nodes.path(id)) {
                quotas.0.insert(subtree.into(), id);
            }
        }
        quotas
    }
}

/// A quota as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaView {
    /// The node that it limits, with all below it.
    pub subtree: String,
    /// The limits, of which a hard one counts if there is one.
    pub nodes_max: Option<u64>,
    /// Of data.
    pub bytes_max: Option<u64>,
    /// What is there now.
    pub nodes: u64,
    /// Of data.
    pub bytes: u64,
}

impl Tree {
    /// The quotas that count, in the order of their paths.
    pub fn quotas(&self) -> impl Iterator<Item = QuotaView> + '_ {
        self.quotas.0.iter().map(|(subtree, limits)| {
            let limits = Limits::parse(self.nodes.get(*limits).data.as_slice());
            let Usage { nodes, bytes } = self.usage_of(subtree);
            QuotaView {
                subtree: subtree.to_string(),
                nodes_max: limits.nodes_hard.or(limits.nodes),
                bytes_max: limits.bytes_hard.or(limits.bytes),
                nodes,
                bytes,
            }
        })
    }

    /// Whether the innermost quota lets so much more be at a path.
    ///
    /// # Errors
    /// `QuotaExceeded` if a hard limit would be passed. Otherwise what there is to tell if a soft one is.
    pub(crate) fn check_quota(&self, path: &str, nodes: i64, bytes: i64) -> Result<Option<Change>, Refusal> {
        if self.quotas.0.is_empty() {
            return Ok(None);
        }
        let found = enclosing(path).find_map(|subtree| Some((subtree, self.quotas.0.get(subtree)?)));
        let Some((subtree, limits)) = found else { return Ok(None) };
        let limits = Limits::parse(self.nodes.get(*limits).data.as_slice());
        let after = self.usage_of(subtree).after(nodes, bytes);
        let mut passes_soft = false;
        for (grows, now, soft, hard) in [
            (nodes > 0, after.nodes, limits.nodes, limits.nodes_hard),
            // Also what shrinks is refused while it is still too much.
            (bytes != 0, after.bytes, limits.bytes, limits.bytes_hard),
        ] {
            if grows && hard.is_some_and(|hard| now > hard) {
                return Err(Refusal::QuotaExceeded);
            }
            passes_soft |= grows && hard.is_none() && soft.is_some_and(|soft| now > soft);
        }
        let (nodes, bytes) = (after.nodes, after.bytes);
        Ok(passes_soft.then(|| Change::QuotaPassed { subtree: subtree.to_owned(), nodes, bytes }))
    }

    /// What a subtree has, its root included. Takes as long as it is deep.
    fn usage_of(&self, subtree: &str) -> Usage {
        self.nodes.find(subtree).map_or_else(Usage::default, |id| self.nodes.usage(id))
    }

    /// Something came to or went from a path: shows the new usage of what it is in.
    pub(crate) fn show_usages(&mut self, path: &str) {
        if self.quotas.0.is_empty() {
            return;
        }
        for subtree in enclosing(path) {
            self.show_usage(subtree);
        }
    }

    /// What a node to create will write over, if it is to make a quota count: an earlier usage.
    pub(crate) fn usage_beside(&self, path: &str) -> Option<(NodeId, Data)> {
        let Some(QuotaNode::Limits(subtree)) = QuotaNode::of(path) else { return None };
        let id = self.nodes.find(&format!("{QUOTAS}{subtree}/{USAGE}"))?;
        Some((id, self.nodes.get(id).data.clone()))
    }

    /// A node has come: it may make a quota count, or be where one shows its usage.
    pub(crate) fn quota_node_came(&mut self, id: NodeId, path: &str) {
        match QuotaNode::of(path) {
            Some(QuotaNode::Limits(subtree)) => {
                self.quotas.0.insert(subtree.into(), id);
                self.show_usage(subtree);
            }
            Some(QuotaNode::Usage(subtree)) => self.show_usage(subtree),
            None => {}
        }
    }

    /// A node goes: with it goes the quota whose limits it holds.
    pub(crate) fn quota_node_goes(&mut self, path: &str) {
        if let Some(QuotaNode::Limits(subtree)) = QuotaNode::of(path) {
            self.quotas.0.remove(subtree);
        }
    }

    /// Data was set: where a usage is shown, it is shown again.
    pub(crate) fn quota_node_set(&mut self, path: &str) {
        if let Some(QuotaNode::Usage(subtree)) = QuotaNode::of(path) {
            self.show_usage(subtree);
        }
    }

    /// What a new node holds in place of what its client sent: where a usage is shown, the usage, also while nothing
    /// limits it. It is not kept up to date then.
    pub(crate) fn usage_at(&self, path: &str) -> Option<Data> {
        let Some(QuotaNode::Usage(subtree)) = QuotaNode::of(path) else { return None };
        Some(Data::copy_of(Some(self.usage_of(subtree).to_string().as_bytes())))
    }

    fn show_usage(&mut self, subtree: &str) {
        let Some(limits) = self.quotas.0.get(subtree) else { return };
        let directory = self.nodes.get(*limits).parent;
        let Some(id) = self.nodes.child(directory, USAGE) else { return };
        let shown = self.usage_of(subtree).to_string();
        if self.nodes.get(id).data.as_slice() != shown.as_bytes() {
            let data = Data::copy_of(Some(shown.as_bytes()));
            self.change_node(id, &format!("{QUOTAS}{subtree}/{USAGE}"), |node| node.data = data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_zookeepers_tools_write_them() {
        #[track_caller]
        fn check(text: &str, expected: [Option<u64>; 4]) {
            let [nodes, bytes, nodes_hard, bytes_hard] = expected;
            assert_eq!(Limits::parse(text.as_bytes()), Limits { nodes, bytes, nodes_hard, bytes_hard }, "{text}");
        }

        check("", [None; 4]);
        check("count=5,bytes=-1", [Some(5), None, None, None]);
        check("count=-1,bytes=0", [None, Some(0), None, None]);
        check("count=-1,bytes=-1=;byteHardLimit=-1;countHardLimit=10", [None, None, Some(10), None]);
        check("count=1,bytes=2=;byteHardLimit=4;countHardLimit=3", [Some(1), Some(2), Some(3), Some(4)]);
        check("count=,bytes=;countHardLimit=", [None; 4]);
        check("count=many,bytes", [None; 4]);
    }

    #[test]
    fn quota_nodes_are_known_by_their_paths() {
        use QuotaNode::{Limits, Usage};

        #[track_caller]
        fn check(path: &str, expected: Option<QuotaNode<'_>>) {
            assert_eq!(QuotaNode::of(path), expected, "{path}");
        }

        check("/zookeeper/quota/a/zookeeper_limits", Some(Limits("/a")));
        check("/zookeeper/quota/a/b/zookeeper_stats", Some(Usage("/a/b")));
        check("/zookeeper/quota/zookeepers/zookeeper_limits", Some(Limits("/zookeepers")));
        check("/zookeeper/quota/a", None);
        check("/zookeeper/quota/a/zookeeper_limit", None);
        check("/zookeeper/quota/zookeeper_limits", None);
        check("/zookeeper/quotas/a/zookeeper_limits", None);
        check("/zookeeper/quota/zookeeper/zookeeper_limits", None);
        check("/zookeeper/quota/zookeeper/quota/zookeeper_limits", None);
        check("/a/zookeeper_limits", None);
    }
}
