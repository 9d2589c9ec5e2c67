//! The writes of clients: each checks everything in the order that decides which refusal is given, and only then
//! changes anything. Operations of a multi are done one after the other and taken back if one of them is refused.

use std::collections::HashMap;

use crate::acl::{self, Permissions};
use crate::acl_lists::AclId;
use crate::digest::PathHash;
use crate::multi::Undo;
use crate::node::{Data, Kind, Life, Name, Node, NodeId, TTL_MS_MAX};
use crate::nodes::Nodes;
use crate::{
    Acl, Author, Change, Check, Create, CreateMode, Delete, Op, Outcome, Reap, Refusal, Reply, SessionEnd, SessionId,
    SetAcl, SetData, Tree, Zxid, path,
};

/// One command while it is done.
pub(crate) struct Work<'a> {
    pub(crate) zxid: Zxid,
    pub(crate) stamp_ms: i64,
    pub(crate) author: &'a Author,
    pub(crate) changes: Vec<Change>,
    /// Of a multi: how to take back what was done, the latest last.
    pub(crate) undo: Option<Vec<Undo>>,
    /// What costly access checks found. Lists do not change while a command is done.
    checked: HashMap<(AclId, Permissions), bool>,
}

impl<'a> Work<'a> {
    pub(crate) fn new(zxid: Zxid, stamp_ms: i64, author: &'a Author) -> Self {
        Self { zxid, stamp_ms, author, changes: Vec::new(), undo: None, checked: HashMap::new() }
    }

    fn remember(&mut self, undo: impl FnOnce() -> Undo) {
        if let Some(log) = &mut self.undo {
            log.push(undo());
        }
    }
}

impl Tree {
    /// Does what a client asked for.
    pub(crate) fn perform(&mut self, op: &Op, work: &mut Work<'_>) -> Outcome {
        match op {
            Op::Create(create) => Ok(self.create(create, work)?),
            Op::SetData(set) => Ok(self.set_data(set, work)?),
            Op::SetAcl(set) => Ok(self.set_acl(set, work)?),
            Op::Delete(delete) => Ok(self.delete(delete, work)?),
            Op::Multi(ops) => self.multi(ops, work),
            Op::OpenSession { .. }
            | Op::AttachSession { .. }
            | Op::CloseSession
            | Op::ExpireSession { .. }
            | Op::Reap(_)
            | Op::PublishConfig { .. }
            | Op::RegisterMember { .. } => unreachable!("these are not writes of clients"),
        }
    }

    pub(crate) fn create(&mut self, create: &Create, work: &mut Work<'_>) -> Result<Reply, Refusal> {
        let (kind, is_sequential) = kind_of(create.mode, work.author.session)?;
        if create.data.as_ref().is_some_and(|data| data.len() > self.limits.node_bytes_max) {
            return Err(Refusal::LimitExceeded);
        }
        if !create.path.contains('/') || create.path.contains('\0') {
            return Err(Refusal::BadArguments);
        }
        let acl = acl::normalize(&create.acl, &work.author.identities, self.limits.acl_entries_max)?;
        let parent = self.nodes.find(parent_of(&create.path)).ok_or(Refusal::NoNode)?;
        self.check_access(parent, Permissions::CREATE, work)?;

        let mut path = create.path.clone();
        if is_sequential {
            use std::fmt::Write as _;
            let number = self.nodes.get(parent).created();
            write!(path, "{number:010}").expect("a string takes what is written to it");
        }
        if path.len() > self.limits.path_bytes_max {
            return Err(Refusal::LimitExceeded);
        }
        path::check(&path).map_err(|_| Refusal::BadArguments)?;
        let name = name_of(&path);
        if name.is_empty() || self.nodes.child(parent, name).is_some() {
            // Only the root has no name.
            return Err(Refusal::NodeExists);
        }
        if matches!(self.nodes.get(parent).life.kind(), Kind::Ephemeral(_)) {
            return Err(Refusal::NoChildrenForEphemerals);
        }
        let passed = self.check_quota(&path, 1, create.data.as_ref().map_or(0, |data| data.len() as i64))?;

        let parent_pzxid = self.nodes.get(parent).pzxid();
        self.change_node(parent, parent_of(&path), |node| {
            let directory = node.directory_mut();
            directory.created += 1;
            directory.pzxid = work.zxid;
        });
        let acl = self.nodes.acls.acquire(&acl);
        let id = self.nodes.insert(Node {
            parent,
            name: Name::new(name),
            data: self.usage_at(&path).unwrap_or_else(|| Data::copy_of(create.data.as_deref())),
            acl,
            life: Life::new(kind),
            czxid: work.zxid,
            mzxid: work.zxid,
            ctime_ms: work.stamp_ms,
            mtime_ms: work.stamp_ms,
            version: 0,
            aversion: 0,
            directory: None,
        });
        if let Some((id, data)) = self.usage_beside(&path) {
            work.remember(|| Undo::Usage { id, data });
        }
        self.attach(id, &path);
        work.remember(|| Undo::Create { id, parent_pzxid });
        work.changes.push(Change::Created { path: path.clone() });
        work.changes.extend(passed);
        Ok(Reply::Created { path, stat: self.nodes.stat(id) })
    }

    pub(crate) fn set_data(&mut self, set: &SetData, work: &mut Work<'_>) -> Result<Reply, Refusal> {
        if set.data.as_ref().is_some_and(|data| data.len() > self.limits.node_bytes_max) {
            return Err(Refusal::LimitExceeded);
        }
        let id = self.find_valid(&set.path)?;
        self.check_access(id, Permissions::WRITE, work)?;
        let node = self.nodes.get(id);
        let data = Data::copy_of(set.data.as_deref());
        let more_bytes = data.bytes() - node.data.bytes();
        let passed = self.check_quota(&set.path, 0, more_bytes)?;
        check_version(set.version, node.version)?;

        let (mzxid, mtime_ms) = (node.mzxid, node.mtime_ms);
        let old = self.change_node(id, &set.path, |node| {
            node.mzxid = work.zxid;
            node.mtime_ms = work.stamp_ms;
            node.version = node.version.wrapping_add(1);
            std::mem::replace(&mut node.data, data)
        });
        if more_bytes != 0 {
            self.show_usages(&set.path);
        }
        self.quota_node_set(&set.path);
        work.remember(|| Undo::SetData { id, data: old, mzxid, mtime_ms });
        work.changes.push(Change::DataChanged { path: set.path.clone() });
        work.changes.extend(passed);
        Ok(Reply::Stat(self.nodes.stat(id)))
    }

    fn set_acl(&mut self, set: &SetAcl, work: &mut Work<'_>) -> Result<Reply, Refusal> {
        path::check(&set.path).map_err(|_| Refusal::BadArguments)?;
        let list = acl::normalize(&set.acl, &work.author.identities, self.limits.acl_entries_max)?;
        let id = self.nodes.find(&set.path).ok_or(Refusal::NoNode)?;
        self.check_access(id, Permissions::ADMIN, work)?;
        check_version(set.version, self.nodes.get(id).aversion)?;

        let new = self.nodes.acls.acquire(&list);
        let old = self.change_node(id, &set.path, |node| {
            node.aversion = node.aversion.wrapping_add(1);
            std::mem::replace(&mut node.acl, new)
        });
        self.nodes.acls.release(old);
        Ok(Reply::Stat(self.nodes.stat(id)))
    }

    pub(crate) fn delete(&mut self, delete: &Delete, work: &mut Work<'_>) -> Result<Reply, Refusal> {
        if !delete.path.contains('/') || delete.path.contains('\0') || RESERVED.contains(&delete.path.as_str()) {
            return Err(Refusal::BadArguments);
        }
        let parent = self.nodes.find(parent_of(&delete.path)).ok_or(Refusal::NoNode)?;
        self.check_access(parent, Permissions::DELETE, work)?;
        // What else is wrong with the path shows in that there is no such node.
        path::check(&delete.path).map_err(|_| Refusal::NoNode)?;
        let id = self.nodes.child(parent, name_of(&delete.path)).ok_or(Refusal::NoNode)?;
        let node = self.nodes.get(id);
        check_version(delete.version, node.version)?;
        if node.child_count() > 0 {
            return Err(Refusal::NotEmpty);
        }

        self.remove(id, delete.path.clone(), work);
        Ok(Reply::Done)
    }

    pub(crate) fn check(&mut self, check: &Check, work: &mut Work<'_>) -> Result<Reply, Refusal> {
        let id = self.find_valid(&check.path)?;
        self.check_access(id, Permissions::READ, work)?;
        check_version(check.version, self.nodes.get(id).version)?;
        Ok(Reply::Done)
    }

    /// Deletes a container or ttl node that the leader found due.
    pub(crate) fn reap(&mut self, reap: &Reap, work: &mut Work<'_>) -> Result<Reply, Refusal> {
        let id = self.nodes.find(&reap.path).ok_or(Refusal::NoNode)?;
        let node = self.nodes.get(id);
        if node.czxid != reap.czxid {
            return Err(Refusal::NoNode);
        }
        if node.child_count() > 0 {
            return Err(Refusal::NotEmpty);
        }
        if node.due_from_ms().is_none_or(|due_from_ms| due_from_ms > work.stamp_ms) {
            return Err(Refusal::BadVersion);
        }
        self.remove(id, reap.path.clone(), work);
        Ok(Reply::Done)
    }

    /// Ends a session: its ephemeral nodes go in the order of their paths, then the session itself.
    pub(crate) fn end_session(&mut self, session: SessionId, end: SessionEnd, work: &mut Work<'_>) {
        self.let_go(session, usize::MAX, work);
        self.sessions.end(session, &mut self.digest);
        work.changes.push(Change::SessionEnded { session, end });
    }

    /// Deletes up to `nodes_max` of the nodes that a session owns, in the order of their paths. Which, if it owns more,
    /// is left open.
    pub(crate) fn let_go(&mut self, session: SessionId, nodes_max: usize, work: &mut Work<'_>) {
        let Some(live) = self.sessions.get(session) else { return };
        let owned = live.ephemerals.iter().take(nodes_max);
        let mut owned: Vec<(String, NodeId)> = owned.map(|id| (self.nodes.path(*id), *id)).collect();
        owned.sort_unstable();
        for (path, id) in owned {
            self.remove(id, path, work);
        }
    }

    /// Takes a childless node out of the tree.
    fn remove(&mut self, id: NodeId, path: String, work: &mut Work<'_>) {
        let parent = self.nodes.get(id).parent;
        let parent_pzxid = self.nodes.get(parent).pzxid();
        self.detach(id, &path);
        // Of several children that go at once, the first has said so.
        if parent_pzxid != work.zxid {
            self.change_node(parent, parent_of(&path), |node| node.directory_mut().pzxid = work.zxid);
        }
        work.changes.push(Change::Deleted { path, acl: self.nodes.acl(id).clone() });
        match &mut work.undo {
            Some(log) => log.push(Undo::Delete { id, parent_pzxid }),
            None => self.nodes.remove(id),
        }
    }

    /// Whether the author has a permission on a node. The operations of a multi may all ask the same: what takes long
    /// is found out once.
    fn check_access(&self, id: NodeId, wanted: Permissions, work: &mut Work<'_>) -> Result<(), Refusal> {
        let author = work.author;
        let (list, identities) = (self.nodes.acl(id), &*author.identities);
        if !acl::is_costly(list, identities) {
            return acl::check(list, wanted, identities);
        }
        let key = (self.nodes.get(id).acl, wanted);
        let allowed = *work.checked.entry(key).or_insert_with(|| acl::allows(list, wanted, identities));
        if allowed { Ok(()) } else { Err(Refusal::NoAuth) }
    }

    fn find_valid(&self, path: &str) -> Result<NodeId, Refusal> {
        path::check(path).map_err(|_| Refusal::BadArguments)?;
        self.nodes.find(path).ok_or(Refusal::NoNode)
    }

    /// Changes a node, and what depends on how it is.
    pub(crate) fn change_node<T>(&mut self, id: NodeId, path: &str, change: impl FnOnce(&mut Node) -> T) -> T {
        let node = self.nodes.get(id);
        let (parent, due_before, bytes_before) = (node.parent, node.due_from_ms(), node.data.bytes());
        let path = PathHash::of(path);
        self.digest.remove(self.nodes.item(id, path));
        let result = change(self.nodes.get_mut(id));
        let more_bytes = self.nodes.get(id).data.bytes() - bytes_before;
        if more_bytes != 0 && id != Nodes::ROOT {
            self.nodes.add_below(parent, 0, more_bytes);
        }
        self.digest.add(self.nodes.item(id, path));
        self.reaping.update(id, due_before, self.nodes.get(id).due_from_ms());
        result
    }

    /// Makes a node of the arena part of the tree.
    pub(crate) fn attach(&mut self, id: NodeId, path: &str) {
        let parent = self.nodes.get(id).parent;
        let parent_due_before = self.nodes.get(parent).due_from_ms();
        self.nodes.link(id);
        self.nodes.add_below(parent, 1, self.nodes.get(id).data.bytes());
        self.reaping.update(parent, parent_due_before, self.nodes.get(parent).due_from_ms());
        self.reaping.update(id, None, self.nodes.get(id).due_from_ms());
        self.digest.add(self.nodes.item(id, PathHash::of(path)));
        if let Kind::Ephemeral(owner) = self.nodes.get(id).life.kind() {
            self.sessions.own(owner, id);
        }
        self.show_usages(path);
        self.quota_node_came(id, path);
    }

    /// The opposite of [`Tree::attach`].
    pub(crate) fn detach(&mut self, id: NodeId, path: &str) {
        self.quota_node_goes(path);
        if let Kind::Ephemeral(owner) = self.nodes.get(id).life.kind() {
            self.sessions.disown(owner, id);
        }
        self.digest.remove(self.nodes.item(id, PathHash::of(path)));
        self.reaping.update(id, self.nodes.get(id).due_from_ms(), None);
        let parent = self.nodes.get(id).parent;
        let parent_due_before = self.nodes.get(parent).due_from_ms();
        self.nodes.unlink(id);
        self.nodes.add_below(parent, -1, -self.nodes.get(id).data.bytes());
        self.reaping.update(parent, parent_due_before, self.nodes.get(parent).due_from_ms());
        self.show_usages(path);
    }

    /// Makes the nodes that every tree has. Nobody created them, so no counter counts them.
    pub(crate) fn plant_reserved(&mut self) {
        let open = [Acl::open()];
        let read_only = [Acl { permissions: Permissions::READ, ..Acl::open() }];
        for path in RESERVED {
            let list: &[Acl] = if path == CONFIG { &read_only } else { &open };
            let parent = self.nodes.find(parent_of(path)).unwrap_or(Nodes::ROOT);
            let acl = self.nodes.acls.acquire(list);
            let id = self.nodes.insert(Node {
                parent,
                name: Name::new(name_of(path)),
                data: Data::default(),
                acl,
                life: Life::PERSISTENT,
                czxid: Zxid(0),
                mzxid: Zxid(0),
                ctime_ms: 0,
                mtime_ms: 0,
                version: 0,
                // As in ZooKeeper, where the list is put onto the finished node.
                aversion: if path == CONFIG { -1 } else { 0 },
                directory: None,
            });
            if id == Nodes::ROOT {
                self.digest.add(self.nodes.item(id, PathHash::of(path)));
            } else {
                self.attach(id, path);
            }
        }
    }
}

pub(crate) const CONFIG: &str = "/zookeeper/config";

/// The nodes that are always there, parents first.
pub(crate) const RESERVED: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", CONFIG];

/// What is before the last slash; the root is its own parent. Does not ask whether the path is valid.
pub(crate) fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(slash) => &path[..slash],
    }
}

/// What is behind the last slash.
fn name_of(path: &str) -> &str {
    &path[path.rfind('/').map_or(0, |slash| slash + 1)..]
}

fn kind_of(mode: CreateMode, author: SessionId) -> Result<(Kind, bool), Refusal> {
    Ok(match mode {
        CreateMode::Persistent => (Kind::Persistent, false),
        CreateMode::PersistentSequential => (Kind::Persistent, true),
        CreateMode::Ephemeral => (Kind::Ephemeral(author), false),
        CreateMode::EphemeralSequential => (Kind::Ephemeral(author), true),
        CreateMode::Container => (Kind::Container, false),
        CreateMode::PersistentWithTtl { ttl_ms } => (ttl(ttl_ms)?, false),
        CreateMode::PersistentSequentialWithTtl { ttl_ms } => (ttl(ttl_ms)?, true),
    })
}

fn ttl(ttl_ms: u64) -> Result<Kind, Refusal> {
    if (1..=TTL_MS_MAX).contains(&ttl_ms) { Ok(Kind::Ttl { ttl_ms }) } else { Err(Refusal::BadArguments) }
}

/// A wanted version of -1 takes any.
fn check_version(wanted: i32, found: i32) -> Result<(), Refusal> {
    if wanted == -1 || wanted == found { Ok(()) } else { Err(Refusal::BadVersion) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Applied, Command, Lane, Limits, MemberId, MultiOp};

    #[test]
    fn sequence_numbers_go_on_beyond_what_zookeeper_can_count() {
        let mut tree = Tree::new(Limits::DEFAULT);
        let mut seq = 0;
        let mut apply = |tree: &mut Tree, author: &Author, op| {
            seq += 1;
            let lane = Lane { member: MemberId(1), incarnation: 1, seq };
            match tree.apply(&Command { lane, stamp_ms: 0, author: author.clone(), op }) {
                Applied::Fresh { outcome: Ok(reply), .. } => reply,
                other => panic!("{other:?}"),
            }
        };
        let password = Bytes::from_static(&[0; 16]);
        let open = Op::OpenSession { timeout_ms: 1, password, client_name: String::new() };
        let Reply::Opened { session, attachment, .. } = apply(&mut tree, &Author::default(), open) else {
            panic!("opened")
        };
        let author = Author { session, attachment, ..Author::default() };
        tree.change_node(Nodes::ROOT, "/", |root| root.directory_mut().created = i32::MAX as u64);
        let create = Op::Create(Create {
            path: "/n-".into(),
            data: None,
            mode: CreateMode::PersistentSequential,
            acl: vec![Acl::open()],
        });

        for (name, cversion) in [("/n-2147483647", -2), ("/n-2147483648", -1), ("/n-2147483649", 0)] {
            let Reply::Created { path, stat } = apply(&mut tree, &author, create.clone()) else { panic!("created") };
            let root = tree.stat("/", &[]).unwrap();
            assert_eq!((path.as_str(), root.cversion, root.pzxid), (name, cversion, stat.czxid));
        }
        assert_eq!(tree.digest(), tree.digest_recomputed());
    }

    #[test]
    fn lists_that_nobody_uses_any_more_are_forgotten() {
        let mut tree = Tree::new(Limits::DEFAULT);
        let author = Author { identities: [crate::Identity::superuser()].into(), ..Author::default() };
        let list = |id: &str| {
            vec![Acl {
                permissions: Permissions::ALL,
                identity: crate::Identity { scheme: "digest".into(), id: format!("{id}:x") },
            }]
        };
        let before = tree.nodes.acls.len();
        let create = |path: &str, acl| {
            MultiOp::Create(Create { path: path.into(), data: None, mode: CreateMode::Persistent, acl })
        };
        let mut work = Work::new(Zxid(1), 0, &author);

        let fails = vec![
            create("/a", list("a")),
            MultiOp::Delete(Delete { path: "/a".into(), version: -1 }),
            create("/", list("b")),
        ];
        tree.perform(&Op::Multi(fails), &mut work).unwrap_err();
        assert_eq!(tree.nodes.acls.len(), before);

        tree.perform(&Op::Multi(vec![create("/a", list("a")), create("/b", list("a"))]), &mut work).unwrap();
        assert_eq!(tree.nodes.acls.len(), before + 1);
        let set = SetAcl { path: "/a".into(), acl: list("c"), version: -1 };
        tree.perform(&Op::SetAcl(set), &mut work).unwrap();
        assert_eq!(tree.nodes.acls.len(), before + 2);
        for path in ["/a", "/b"] {
            tree.perform(&Op::Delete(Delete { path: path.into(), version: -1 }), &mut work).unwrap();
        }
        assert_eq!(tree.nodes.acls.len(), before);
    }
}
