//! Multis: their operations are done one after the other, and taken back if one of them is refused.

use crate::node::{Data, Node, NodeId};
use crate::writes::{Work, parent_of};
use crate::{MultiOp, Outcome, Refusal, Refused, Reply, Tree, Zxid};

/// How to take back one change.
pub(crate) enum Undo {
    Create {
        id: NodeId,
        parent_pzxid: Zxid,
    },
    /// The node is out of its parent's table, but its slot is kept until it is certain that nothing is taken back.
    Delete {
        id: NodeId,
        parent_pzxid: Zxid,
    },
    /// What was shown of a quota before it counted. Lies under the creation of its limits.
    Usage {
        id: NodeId,
        data: Data,
    },
    SetData {
        id: NodeId,
        data: Data,
        mzxid: Zxid,
        mtime_ms: i64,
    },
}

impl Tree {
    pub(crate) fn multi(&mut self, ops: &[MultiOp], work: &mut Work<'_>) -> Outcome {
        if ops.len() > self.limits.multi_ops_max {
            return Err(Refusal::LimitExceeded.into());
        }
        work.undo = Some(Vec::new());
        let mut replies = Vec::with_capacity(ops.len());
        for (index, op) in ops.iter().enumerate() {
            let result = match op {
                MultiOp::Create(create) => self.create(create, work),
                MultiOp::SetData(set) => self.set_data(set, work),
                MultiOp::Delete(delete) => self.delete(delete, work),
                MultiOp::Check(check) => self.check(check, work),
            };
            match result {
                Ok(reply) => replies.push(reply),
                Err(reason) => {
                    self.take_back(work);
                    return Err(Refused { reason, failed_op: Some(index as u32) });
                }
            }
        }
        for undo in work.undo.take().into_iter().flatten() {
            if let Undo::Delete { id, .. } = undo {
                self.nodes.remove(id);
            }
        }
        Ok(Reply::Multi(replies))
    }

    fn take_back(&mut self, work: &mut Work<'_>) {
        work.changes.clear();
        for undo in work.undo.take().into_iter().flatten().rev() {
            match undo {
                Undo::Create { id, parent_pzxid } => {
                    let (parent, path) = (self.nodes.get(id).parent, self.nodes.path(id));
                    self.detach(id, &path);
                    self.nodes.remove(id);
                    self.change_node(parent, parent_of(&path), |node| {
                        let directory = node.directory_mut();
                        directory.created -= 1;
                        directory.pzxid = parent_pzxid;
                    });
                }
                Undo::Delete { id, parent_pzxid } => {
                    let (parent, path) = (self.nodes.get(id).parent, self.nodes.path(id));
                    let restore = |node: &mut Node| node.directory_mut().pzxid = parent_pzxid;
                    self.change_node(parent, parent_of(&path), restore);
                    self.attach(id, &path);
                }
                Undo::Usage { id, data } => {
                    let path = self.nodes.path(id);
                    self.change_node(id, &path, |node| node.data = data);
                }
                Undo::SetData { id, data, mzxid, mtime_ms } => {
                    let path = self.nodes.path(id);
                    self.change_node(id, &path, |node| {
                        node.data = data;
                        node.mzxid = mzxid;
                        node.mtime_ms = mtime_ms;
                        node.version = node.version.wrapping_sub(1);
                    });
                    self.show_usages(&path);
                    self.quota_node_set(&path);
                }
            }
        }
    }
}
