//! What a frozen state still needs of nodes that have changed since.
//!
//! A walker goes through the arena by id. Until it has passed a slot, the first change of that slot keeps an image
//! of what was in it; a slot it has passed, or that was added later, needs none.

use std::collections::HashMap;
use std::sync::Arc;

use crate::acl_lists::AclLists;
use crate::node::{Data, Life, Name, Node, NodeId};
use crate::{Acl, Zxid};

/// The images of one freeze.
#[derive(Debug)]
pub(crate) struct Images {
    /// The next slot the walker will visit.
    next: u32,
    /// The first slot that was not there when the state was frozen.
    end: u32,
    /// `None` is a slot that was vacant.
    kept: HashMap<NodeId, Option<Image>>,
}

/// A node as it was, without its table of children, which can be had from the parents of the others.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) parent: NodeId,
    pub(crate) name: Name,
    pub(crate) data: Data,
    pub(crate) acl: Arc<[Acl]>,
    pub(crate) life: Life,
    pub(crate) czxid: Zxid,
    pub(crate) mzxid: Zxid,
    pub(crate) pzxid: Zxid,
    pub(crate) ctime_ms: i64,
    pub(crate) mtime_ms: i64,
    pub(crate) version: i32,
    pub(crate) aversion: i32,
    pub(crate) created: u64,
}

impl Image {
    pub(crate) fn of(node: &Node, acls: &AclLists) -> Self {
        Self {
            parent: node.parent,
            name: node.name.clone(),
            data: node.data.clone(),
            acl: Arc::clone(acls.get(node.acl)),
            life: node.life,
            czxid: node.czxid,
            mzxid: node.mzxid,
            pzxid: node.pzxid(),
            ctime_ms: node.ctime_ms,
            mtime_ms: node.mtime_ms,
            version: node.version,
            aversion: node.aversion,
            created: node.created(),
        }
    }
}

impl Images {
    pub(crate) fn new(slot_count: usize) -> Self {
        let end = u32::try_from(slot_count).expect("slots are numbered by u32");
        Self { next: 0, end, kept: HashMap::new() }
    }

    /// Whether what is in this slot must be kept before it changes.
    pub(crate) fn needs(&self, id: NodeId) -> bool {
        (self.next..self.end).contains(&id.0) && !self.kept.contains_key(&id)
    }

    pub(crate) fn keep(&mut self, id: NodeId, image: Option<Image>) {
        self.kept.insert(id, image);
    }

    /// The next slot of the walk, with what was in it if that has changed since; `None` at the end.
    pub(crate) fn step(&mut self) -> Option<(NodeId, Option<Option<Image>>)> {
        if self.next == self.end {
            return None;
        }
        let id = NodeId(self.next);
        self.next += 1;
        Some((id, self.kept.remove(&id)))
    }
}
