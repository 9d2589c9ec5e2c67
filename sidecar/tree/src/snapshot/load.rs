//! From parts to a tree. Parts come from a disk or from another member, and are believed nothing: whatever is in
//! them, the result is a tree that holds its own rules and has the digest that was written, or an error.

use super::format::{FORMAT, Head, OutcomeItem, SessionItem, Tail};
use super::stored::{Stored, StoredNode, Unreadable};
use crate::acl_lists::AclId;
use crate::digest::PathHash;
use crate::members::LaneState;
use crate::node::{Data, Kind as NodeKind, Life, Name, Node, NodeId, TTL_MS_MAX};
use crate::nodes::Nodes;
use crate::quotas::Quotas;
use crate::sessions::SessionRecord;
use crate::writes::RESERVED;
use crate::{Acl, Limits, MemberId, SessionId, Tree, Zxid};

/// Builds a tree from the parts of a snapshot.
#[derive(Debug)]
pub struct TreeLoader {
    tree: Tree,
    parts: u64,
    has_head: bool,
    last_session: Option<SessionId>,
    tail: Option<Tail>,
    /// The ids that the nodes had in the snapshot, ascending; the index is the id they have here. Until the end, the
    /// parents of nodes are ids of the snapshot.
    ids: Vec<u32>,
}

/// A list of permissions of the part that is read.
struct PartList {
    list: Vec<Acl>,
    /// Once a node has it.
    id: Option<AclId>,
}

/// Why parts do not make a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A part does not decode.
    #[error("snapshot part {part} does not decode: {detail}")]
    Malformed {
        /// Counted from 0.
        part: u64,
        /// What is wrong.
        detail: String,
    },
    /// The parts decode, but do not fit together.
    #[error("the snapshot contradicts itself: {detail}")]
    Contradiction {
        /// What is wrong.
        detail: String,
    },
    /// Written by a later version.
    #[error("snapshot format {found} is not known here (this version reads up to {known})")]
    Format {
        /// What the snapshot says.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// Parts are missing.
    #[error("the snapshot ends before its last part")]
    Incomplete,
    /// The content is not what was written.
    #[error("the snapshot's digest is {expected:016x}, its content has {found:016x}")]
    Digest {
        /// What the snapshot says.
        expected: u64,
        /// What was computed.
        found: u64,
    },
}

/// What is wrong with an item.
enum Bad {
    Detail(String),
    Format(u32),
}

impl From<&str> for Bad {
    fn from(detail: &str) -> Self {
        Self::Detail(detail.into())
    }
}

impl From<String> for Bad {
    fn from(detail: String) -> Self {
        Self::Detail(detail)
    }
}

impl From<Unreadable> for Bad {
    fn from(unreadable: Unreadable) -> Self {
        Self::Detail(unreadable.to_string())
    }
}

/// No counter of a true snapshot comes near this, and from here on none can overflow.
const COUNTER_MAX: u64 = 1 << 62;

impl TreeLoader {
    /// Starts with nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            tree: Tree::without_nodes(limits),
            parts: 0,
            has_head: false,
            last_session: None,
            tail: None,
            ids: Vec::new(),
        }
    }

    /// Adds the next part.
    ///
    /// # Errors
    /// The part does not decode, or its format is not known. The loader is of no use any more.
    pub fn add(&mut self, part: &[u8]) -> Result<(), LoadError> {
        self.add_items(part).map_err(|bad| match bad {
            Bad::Detail(detail) => LoadError::Malformed { part: self.parts, detail },
            Bad::Format(found) => LoadError::Format { found, known: FORMAT },
        })?;
        self.parts += 1;
        Ok(())
    }

    fn add_items(&mut self, mut part: &[u8]) -> Result<(), Bad> {
        let mut lists: Vec<PartList> = Vec::new();
        while !part.is_empty() {
            let item = Stored::take(&mut part)?;
            if self.tail.is_some() {
                return Err("an item after the last one".into());
            }
            if self.has_head == matches!(item, Stored::Head(_)) {
                return Err("the first item, and no other, must be the head".into());
            }
            match item {
                Stored::Head(head) => self.add_head(head)?,
                Stored::Session(session) => self.add_session(session)?,
                Stored::Outcome(outcome) => self.add_outcome(outcome)?,
                Stored::AclList(list) => lists.push(PartList { list: list.into(), id: None }),
                Stored::Node(node) => {
                    let list = lists.get_mut(node.acl as usize).ok_or("a node without a list of permissions")?;
                    self.add_node(&node, list)?;
                }
                Stored::Tail(tail) => self.tail = Some(tail),
            }
        }
        Ok(())
    }

    fn add_head(&mut self, head: Head) -> Result<(), Bad> {
        if head.format != FORMAT {
            return Err(Bad::Format(head.format));
        }
        self.has_head = true;
        let tree = &mut self.tree;
        tree.zxid = Zxid(counter(head.zxid)?);
        for lane in head.lanes {
            let state = LaneState { incarnation: lane.incarnation, next_seq: counter(lane.next_seq)? };
            tree.members.set_lane(member(lane.member)?, state, &mut tree.digest);
        }
        for disk in head.disks {
            tree.members.register(member(disk.member)?, disk.disk_id, &mut tree.digest);
        }
        if let Some(ensemble_id) = head.ensemble_id {
            tree.members.name_ensemble(ensemble_id, &mut tree.digest);
        }
        Ok(())
    }

    fn add_session(&mut self, item: SessionItem) -> Result<(), Bad> {
        let id = SessionId(item.id);
        let is_possible = matches!(Life::new(NodeKind::Ephemeral(id)).kind(), NodeKind::Ephemeral(_));
        if !is_possible || self.tree.sessions.get(id).is_some() {
            return Err(format!("session {id} cannot be, or is there twice").into());
        }
        let record = SessionRecord {
            timeout_ms: item.timeout_ms,
            password: item.password.try_into().map_err(|_| "a password that has not 16 bytes")?,
            client_name: item.client_name.into(),
            member: member(item.member)?,
            attachment: counter(item.attachment)?,
            // The outcomes that follow count it up.
            next_write: counter(item.first_write)?,
        };
        let tree = &mut self.tree;
        tree.sessions.open(id, record, &mut tree.digest);
        self.last_session = Some(id);
        Ok(())
    }

    fn add_outcome(&mut self, item: OutcomeItem) -> Result<(), Bad> {
        let session = self.last_session.ok_or("an outcome without a session")?;
        let settled = item.settled().ok_or("an outcome that cannot be")?;
        self.tree.sessions.settle(session, settled, &mut self.tree.digest);
        Ok(())
    }

    fn add_node(&mut self, item: &StoredNode<'_>, list: &mut PartList) -> Result<(), Bad> {
        match self.ids.last() {
            None if item.id != 0 || item.parent != 0 || !item.name.is_empty() => {
                return Err("the first node must be the root".into());
            }
            Some(last) if item.id <= *last => return Err("nodes out of order".into()),
            Some(_) if matches!(item.name, "" | "." | "..") || item.name.contains('/') => {
                return Err(format!("no node can have the name {:?}", item.name).into());
            }
            None | Some(_) => {}
        }
        let life = Life::from_packed(item.life);
        if let NodeKind::Ttl { ttl_ms } = life.kind()
            && !(1..=TTL_MS_MAX).contains(&ttl_ms)
        {
            return Err("a ttl that cannot be".into());
        }
        let acls = &mut self.tree.nodes.acls;
        let acl = match list.id {
            Some(id) => acls.acquire_again(id),
            None => *list.id.insert(acls.acquire(&list.list)),
        };
        let mut node = Node {
            parent: NodeId(item.parent),
            name: Name::new(item.name),
            data: Data::copy_of((!item.null_data).then_some(item.data)),
            acl,
            life,
            czxid: Zxid(item.czxid),
            mzxid: Zxid(item.mzxid),
            ctime_ms: item.ctime_ms,
            mtime_ms: item.mtime_ms,
            version: item.version,
            aversion: item.aversion,
            directory: None,
        };
        if item.created > 0 || item.pzxid != item.czxid {
            let directory = node.directory_mut();
            directory.created = counter(item.created)?;
            directory.pzxid = Zxid(item.pzxid);
        }
        self.tree.nodes.insert(node);
        self.ids.push(item.id);
        Ok(())
    }

    /// The tree, if all parts were there and the digest is right.
    ///
    /// # Errors
    /// Parts are missing, or the content is not what was written.
    pub fn finish(mut self) -> Result<Tree, LoadError> {
        let tail = self.tail.take().ok_or(LoadError::Incomplete)?;
        let found = (self.tree.nodes.count() as u64, self.tree.sessions.count() as u64);
        if found != (tail.nodes, tail.sessions) {
            return Err(contradiction(format!(
                "it has {} nodes and {} sessions where {} and {} were written",
                found.0, found.1, tail.nodes, tail.sessions
            )));
        }
        self.link()?;
        self.settle_nodes()?;
        self.tree.quotas = Quotas::of(&self.tree.nodes);
        let found = self.tree.digest();
        if found != tail.digest {
            return Err(LoadError::Digest { expected: tail.digest, found });
        }
        Ok(self.tree)
    }

    /// Turns the parents' ids into those of this tree, and fills the tables of children.
    fn link(&mut self) -> Result<(), LoadError> {
        let nodes = &mut self.tree.nodes;
        let mut child_counts = vec![0_u32; self.ids.len()];
        for index in 1..self.ids.len() {
            let node = nodes.get_mut(NodeId(index as u32));
            let parent_then = node.parent.0;
            // Most snapshots have no holes.
            let parent = if self.ids.get(parent_then as usize) == Some(&parent_then) {
                parent_then as usize
            } else {
                self.ids.binary_search(&parent_then).map_err(|_| contradiction("a node has no parent".into()))?
            };
            node.parent = NodeId(parent as u32);
            child_counts[parent] += 1;
        }
        for id in (1..self.ids.len()).map(|index| NodeId(index as u32)) {
            let node = nodes.get(id);
            if !nodes.link_one_of(id, child_counts[node.parent.0 as usize] as usize) {
                let name = nodes.get(id).name.as_str();
                return Err(contradiction(format!("a node has two children {name:?}")));
            }
        }
        Ok(())
    }

    /// Builds what follows from the nodes, in their order in memory, and finds those that are in no path because they
    /// are each other's parents.
    fn settle_nodes(&mut self) -> Result<(), LoadError> {
        let Tree { nodes, sessions, reaping, digest, limits, .. } = &mut self.tree;
        if nodes.count() == 0 {
            return Err(contradiction("it has no root".into()));
        }
        if let Some(path) = RESERVED.iter().find(|path| nodes.find(path).is_none()) {
            return Err(contradiction(format!("{path} is missing")));
        }
        // Also bounds the time this takes: a path costs as much as it is long.
        let too_long = || contradiction("a path has no beginning, or is longer than any may be".into());
        let mut siblings = Siblings::default();
        for id in (0..self.ids.len()).map(|index| NodeId(index as u32)) {
            let node = nodes.get(id);
            let (parent, bytes) = (node.parent, node.data.bytes());
            let path = if id == Nodes::ROOT {
                "/"
            } else {
                if parent != siblings.parent {
                    siblings.count_into(nodes);
                    siblings = Siblings::below(nodes, parent, limits.path_bytes_max).ok_or_else(too_long)?;
                }
                siblings.next(nodes.get(id).name.as_str(), bytes)
            };
            if path.len() > limits.path_bytes_max {
                return Err(too_long());
            }
            let node = nodes.get(id);
            reaping.update(id, None, node.due_from_ms());
            digest.add(nodes.item(id, PathHash::of(path)));
            if let NodeKind::Ephemeral(owner) = node.life.kind() {
                if node.child_count() > 0 || sessions.get(owner).is_none() {
                    let detail = format!("ephemeral {path} has children, or an owner that is not there");
                    return Err(contradiction(detail));
                }
                sessions.own(owner, id);
            }
        }
        siblings.count_into(nodes);
        Ok(())
    }
}

/// Nodes with one parent that stand next to each other: what leads to them is looked up once.
struct Siblings {
    parent: NodeId,
    /// Of the last one; of the parent before the first. Empty if that is the root.
    path: String,
    parent_path_bytes: usize,
    nodes: i64,
    data_bytes: i64,
}

impl Default for Siblings {
    fn default() -> Self {
        Self { parent: Nodes::ROOT, path: String::new(), parent_path_bytes: 0, nodes: 0, data_bytes: 0 }
    }
}

impl Siblings {
    /// `None` if the path to the parent is longer, as also that of a node below itself is.
    fn below(nodes: &Nodes, parent: NodeId, path_bytes_max: usize) -> Option<Self> {
        let path = nodes.path_within(parent, path_bytes_max)?;
        Some(Self { parent, parent_path_bytes: path.len(), path, nodes: 0, data_bytes: 0 })
    }

    /// The path of the next one.
    fn next(&mut self, name: &str, data_bytes: i64) -> &str {
        self.nodes += 1;
        self.data_bytes += data_bytes;
        self.path.truncate(self.parent_path_bytes);
        self.path.push('/');
        self.path.push_str(name);
        &self.path
    }

    fn count_into(&self, nodes: &mut Nodes) {
        nodes.add_below(self.parent, self.nodes, self.data_bytes);
    }
}

fn contradiction(detail: String) -> LoadError {
    LoadError::Contradiction { detail }
}

fn counter(value: u64) -> Result<u64, Bad> {
    if value < COUNTER_MAX { Ok(value) } else { Err("a counter beyond anything that can be counted".into()) }
}

fn member(id: u32) -> Result<MemberId, Bad> {
    Ok(MemberId(u8::try_from(id).map_err(|_| format!("no member has the id {id}"))?))
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::snapshot::format::{AclListItem, Item, Kind, LaneItem, NodeItem, ReplyItem};

    /// The items of a new tree with one session, and an ephemeral node of it at [`EPHEMERAL`].
    fn items() -> Vec<Item> {
        let node = |id, parent, name: &str| {
            Kind::Node(NodeItem { id, parent, name: name.into(), life: 0, ..NodeItem::default() })
        };
        let session =
            SessionItem { id: 9, password: vec![0; 16], attachment: 1, first_write: 1, ..SessionItem::default() };
        let mut ephemeral = node(7, 0, "e");
        if let Kind::Node(node) = &mut ephemeral {
            node.life = 9;
        }
        let kinds = vec![
            Kind::Head(Head { format: FORMAT, zxid: 5, ..Head::default() }),
            Kind::Session(session),
            Kind::Outcome(OutcomeItem { zxid: 1, replies: vec![ReplyItem::default()], ..OutcomeItem::default() }),
            Kind::AclList(AclListItem::from(&[Acl::open()][..])),
            node(0, 0, ""),
            node(1, 0, "zookeeper"),
            node(2, 1, "quota"),
            node(3, 1, "config"),
            ephemeral,
            Kind::Tail(Tail { nodes: 5, sessions: 1, digest: 0 }),
        ];
        kinds.into_iter().map(|kind| Item { kind: Some(kind) }).collect()
    }

    const OUTCOME: usize = 2;
    const LIST: usize = 3;
    const ROOT: usize = 4;
    const ZOOKEEPER: usize = 5;
    const QUOTA: usize = 6;
    const EPHEMERAL: usize = 8;
    const TAIL: usize = 9;

    fn load(items: &[Item]) -> Result<Tree, LoadError> {
        let mut loader = TreeLoader::new(Limits::DEFAULT);
        let part: Vec<u8> = items.iter().flat_map(Message::encode_length_delimited_to_vec).collect();
        loader.add(&part)?;
        loader.finish()
    }

    /// What is said about the items after a change that leaves them decodable.
    fn said(change: impl FnOnce(&mut Vec<Item>)) -> String {
        let mut items = items();
        change(&mut items);
        load(&items).expect_err("nothing here has the right digest").to_string()
    }

    fn head(items: &mut [Item]) -> &mut Head {
        match &mut items[0].kind {
            Some(Kind::Head(head)) => head,
            other => panic!("{other:?}"),
        }
    }

    fn session(items: &mut [Item]) -> &mut SessionItem {
        match &mut items[1].kind {
            Some(Kind::Session(session)) => session,
            other => panic!("{other:?}"),
        }
    }

    fn outcome(items: &mut [Item]) -> &mut OutcomeItem {
        match &mut items[OUTCOME].kind {
            Some(Kind::Outcome(outcome)) => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn node(items: &mut [Item], index: usize) -> &mut NodeItem {
        match &mut items[index].kind {
            Some(Kind::Node(node)) => node,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_not_changed_lacks_nothing_but_the_digest() {
        let mut items = items();
        let Err(LoadError::Digest { expected: 0, found }) = load(&items) else { panic!("the digest is wrong") };

        items[TAIL].kind = Some(Kind::Tail(Tail { nodes: 5, sessions: 1, digest: found }));

        let tree = load(&items).expect("now it is right");
        assert_eq!(tree.ephemerals(SessionId(9)), ["/e"]);
        assert_eq!(tree.digest_recomputed(), found);
    }

    #[test]
    fn a_later_format_is_named_in_the_error() {
        let mut items = items();
        head(&mut items).format = FORMAT + 1;

        assert_eq!(load(&items).unwrap_err(), LoadError::Format { found: FORMAT + 1, known: FORMAT });
    }

    #[test]
    fn every_contradiction_is_found() {
        #[track_caller]
        fn check(sentence: &str, change: impl FnOnce(&mut Vec<Item>)) {
            let said = said(change);
            assert!(said.contains(sentence), "{said}");
        }

        check("must be the head", |items| drop(items.remove(0)));
        check("must be the head", |items| items.insert(1, items[0].clone()));
        check("beyond anything", |items| head(items).zxid = u64::MAX);
        check("no member has the id 256", |items| {
            head(items).lanes.push(LaneItem { member: 256, ..LaneItem::default() });
        });
        check("session 0x0000000000000000 cannot be", |items| session(items).id = 0);
        check("cannot be", |items| session(items).id = 0xff << 56 | 1);
        check("twice", |items| items.insert(1, items[1].clone()));
        check("16 bytes", |items| session(items).password.push(0));
        check("an outcome without a session", |items| drop(items.remove(1)));
        check("beyond anything", |items| session(items).first_write = u64::MAX);
        check("beyond anything", |items| session(items).attachment = u64::MAX);
        check("an outcome that cannot be", |items| outcome(items).refusal = 99);
        check("an outcome that cannot be", |items| outcome(items).replies.clear());
        check("without a list", |items| drop(items.remove(LIST)));
        check("must be the root", |items| drop(items.remove(ROOT)));
        check("must be the root", |items| node(items, ROOT).name = "x".into());
        check("out of order", |items| node(items, EPHEMERAL).id = 3);
        check("the name \"a/b\"", |items| node(items, EPHEMERAL).name = "a/b".into());
        check("the name \"\"", |items| node(items, EPHEMERAL).name.clear());
        check("the name \"..\"", |items| node(items, EPHEMERAL).name = "..".into());
        check("a ttl that cannot be", |items| node(items, EPHEMERAL).life = 0xff << 56);
        check("beyond anything", |items| node(items, EPHEMERAL).created = u64::MAX);
        check("unknown kind", |items| items.push(Item { kind: None }));
        check("after the last one", |items| items.push(items[1].clone()));
        check("ends before its last part", |items| drop(items.pop()));
        check("4 nodes and 1 sessions where 5 and 1", |items| drop(items.remove(EPHEMERAL)));
        check("has no parent", |items| node(items, EPHEMERAL).parent = 6);
        check("two children \"zookeeper\"", |items| node(items, EPHEMERAL).name = "zookeeper".into());
        check("/zookeeper/quota is missing", |items| node(items, QUOTA).name = "quotas".into());
        check("/zookeeper is missing", |items| node(items, ZOOKEEPER).parent = 1);
        check("a path has no beginning", |items| node(items, EPHEMERAL).parent = 7);
        check("an owner that is not there", |items| node(items, EPHEMERAL).life = 8);
        check("has children", |items| node(items, ZOOKEEPER).life = 9);
        check("longer than any may be", |items| {
            node(items, EPHEMERAL).name = "x".repeat(Limits::DEFAULT.path_bytes_max)
        });
    }

    #[test]
    fn nothing_is_no_snapshot() {
        assert_eq!(TreeLoader::new(Limits::DEFAULT).finish().unwrap_err(), LoadError::Incomplete);
        let tail = Item { kind: Some(Kind::Tail(Tail::default())) };
        let head = Item { kind: Some(Kind::Head(Head { format: FORMAT, ..Head::default() })) };
        assert!(load(&[head, tail]).unwrap_err().to_string().contains("no root"));
    }
}
