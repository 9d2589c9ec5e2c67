//! The walk over a frozen state, part by part, while commands are applied between the parts.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use super::format::{
    AclListItem, DiskItem, FORMAT, Head, Item, Kind, LaneItem, NodeItem, OutcomeItem, SessionItem, Tail,
};
use crate::images::Image;
use crate::node::NodeId;
use crate::sessions::{SessionImage, Settled};
use crate::{Acl, SessionId, Tree};

/// A part ends when it is this long, even if more nodes might be visited.
const PART_BYTES: usize = 256 * 1024;

/// How far the walk is.
#[derive(Debug)]
pub(crate) struct Walk {
    stage: Stage,
    head: Head,
    tail: Tail,
    /// Those of the last session that have not been given out yet.
    outcomes: VecDeque<Settled>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Sessions,
    Nodes,
    Tail,
    Done,
}

impl Tree {
    /// Marks the state as it is now as the content of a snapshot, without copying it. Ends an earlier freeze.
    pub fn freeze(&mut self) {
        self.thaw();
        let lane = |(member, state): (crate::MemberId, crate::members::LaneState)| LaneItem {
            member: member.0.into(),
            incarnation: state.incarnation,
            next_seq: state.next_seq,
        };
        let disk = |(member, disk_id): (crate::MemberId, u64)| DiskItem { member: member.0.into(), disk_id };
        let head = Head {
            format: FORMAT,
            zxid: self.zxid.0,
            ensemble_id: self.members.ensemble_id(),
            lanes: self.members.lanes().map(lane).collect(),
            disks: self.members.disks().map(disk).collect(),
        };
        let tail =
            Tail { nodes: self.nodes.count() as u64, sessions: self.sessions.count() as u64, digest: self.digest() };
        self.nodes.freeze();
        self.sessions.freeze();
        self.walk = Some(Walk { stage: Stage::Head, head, tail, outcomes: VecDeque::new() });
    }

    /// The next part of the frozen state, visiting at most `nodes_max` nodes; `None` when all has been given out,
    /// which ends the freeze, and when nothing is frozen. Between calls, commands may be applied: the parts still
    /// show the frozen state.
    ///
    /// A part is at most 256 KiB and one node, or one outcome, more. Sessions and the outcomes kept for them count as
    /// nodes.
    pub fn frozen_part(&mut self, nodes_max: usize) -> Option<Bytes> {
        let mut walk = self.walk.take()?;
        if walk.stage == Stage::Done {
            self.thaw();
            return None;
        }
        let mut part = Part::default();
        let mut visits = nodes_max.max(1);
        while visits > 0 && part.bytes.len() < PART_BYTES && walk.stage != Stage::Done {
            match walk.stage {
                Stage::Head => {
                    part.push(Kind::Head(std::mem::take(&mut walk.head)));
                    walk.stage = Stage::Sessions;
                }
                Stage::Sessions => {
                    visits -= 1;
                    if let Some(settled) = walk.outcomes.pop_front() {
                        part.push(Kind::Outcome(OutcomeItem::from(&settled)));
                    } else if let Some((id, session)) = self.sessions.next_frozen() {
                        part.push(Kind::Session(session_item(id, &session)));
                        walk.outcomes = session.outcomes;
                    } else {
                        walk.stage = Stage::Nodes;
                    }
                }
                Stage::Nodes => match self.nodes.next_frozen() {
                    Some((id, image)) => {
                        visits -= 1;
                        if let Some(image) = image {
                            part.push_node(id, image);
                        }
                    }
                    None => walk.stage = Stage::Tail,
                },
                Stage::Tail => {
                    part.push(Kind::Tail(walk.tail.clone()));
                    walk.stage = Stage::Done;
                }
                Stage::Done => {}
            }
        }
        self.walk = Some(walk);
        Some(part.bytes.into())
    }

    /// Ends a freeze early.
    pub fn thaw(&mut self) {
        self.walk = None;
        self.nodes.thaw();
        self.sessions.thaw();
    }
}

/// A part while it is written.
#[derive(Default)]
struct Part {
    bytes: Vec<u8>,
    /// The lists that are in this part already, by address: equal lists have one, as long as somebody holds them.
    lists: HashMap<*const Acl, u32>,
    /// Keeps the addresses from being used again.
    held: Vec<Arc<[Acl]>>,
}

impl Part {
    fn push(&mut self, kind: Kind) {
        let item = Item { kind: Some(kind) };
        item.encode_length_delimited(&mut self.bytes).expect("a vector grows as needed");
    }

    fn push_node(&mut self, id: NodeId, image: Image) {
        let acl = self.push_list(&image.acl);
        self.push(Kind::Node(NodeItem {
            id: id.0,
            parent: image.parent.0,
            name: image.name.as_str().to_owned(),
            data: image.data.as_slice().to_vec(),
            null_data: image.data.is_null(),
            acl,
            life: image.life.packed(),
            czxid: image.czxid.0,
            mzxid: image.mzxid.0,
            pzxid: image.pzxid.0,
            ctime_ms: image.ctime_ms,
            mtime_ms: image.mtime_ms,
            version: image.version,
            aversion: image.aversion,
            created: image.created,
        }));
    }

    /// The number of a list in this part; a list that is new here goes before its node.
    fn push_list(&mut self, list: &Arc<[Acl]>) -> u32 {
        if let Some(number) = self.lists.get(&list.as_ptr()) {
            return *number;
        }
        let number = self.held.len() as u32;
        self.push(Kind::AclList(AclListItem::from(&**list)));
        self.lists.insert(list.as_ptr(), number);
        self.held.push(Arc::clone(list));
        number
    }
}

fn session_item(id: SessionId, session: &SessionImage) -> SessionItem {
    let record = &session.record;
    SessionItem {
        id: id.0,
        timeout_ms: record.timeout_ms,
        password: record.password.to_vec(),
        client_name: record.client_name.to_string(),
        member: record.member.0.into(),
        attachment: record.attachment,
        first_write: record.next_write - session.outcomes.len() as u64,
    }
}
