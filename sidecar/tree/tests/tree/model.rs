//! The same state machine once more, as simple as it can be said: a map of paths, no index, no arena, no digest, and
//! a copy of everything to come back from a failed multi.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_tree::{
    Acl, Applied, Author, Change, Command, Create, CreateMode, Identity, Limits, MemberId, MultiOp, Op, Outcome, Path,
    Permissions, Reap, Refusal, Refused, Reply, SessionEnd, SessionId, SessionView, Stat, Tree, Zxid,
};

#[derive(Clone, Debug)]
pub(crate) struct Model {
    limits: Limits,
    pub(crate) zxid: u64,
    nodes: BTreeMap<String, Node>,
    pub(crate) sessions: BTreeMap<SessionId, Session>,
    pub(crate) lanes: BTreeMap<MemberId, (u64, u64)>,
    disks: BTreeMap<MemberId, u64>,
    ensemble_id: Option<u64>,
}

#[derive(Clone, Debug)]
struct Node {
    data: Option<Bytes>,
    acl: Vec<Acl>,
    mode: CreateMode,
    owner: SessionId,
    created: u64,
    /// The children fields are filled in when asked.
    stat: Stat,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    password: Bytes,
    timeout_ms: u32,
    pub(crate) attachment: u64,
    member: MemberId,
    pub(crate) next_write: u64,
    name: String,
    outcomes: BTreeMap<u64, (Zxid, Outcome)>,
}

/// Stat, data, ACL and children's names.
type NodeView = (Stat, Option<Bytes>, Vec<Acl>, Vec<String>);

/// Everything that can be asked of a tree.
#[derive(Debug, PartialEq)]
pub(crate) struct Dump {
    zxid: Zxid,
    node_count: usize,
    nodes: BTreeMap<String, NodeView>,
    sessions: Vec<SessionView>,
    ephemerals: Vec<(SessionId, Vec<String>)>,
    due: Vec<(i64, Vec<(String, Zxid)>)>,
    disks: Vec<(MemberId, u64)>,
    ensemble_id: Option<u64>,
    lanes: Vec<(MemberId, [Option<u64>; 3])>,
}

const LIMITS_NODE: &str = "/zookeeper_limits";
const USAGE: &str = "/zookeeper_stats";
const INSTANTS_MS: [i64; 6] = [i64::MIN, 0, 1_000, 1_050, 1_200, i64::MAX];

impl Model {
    pub(crate) fn new(limits: Limits) -> Self {
        let mut nodes = BTreeMap::new();
        for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            let mut acl = vec![Acl::open()];
            if path == "/zookeeper/config" {
                acl[0].permissions = Permissions::READ;
            }
            let (data, mode, owner) = (Some(Bytes::new()), CreateMode::Persistent, SessionId::NONE);
            let stat = Stat { aversion: if path == "/zookeeper/config" { -1 } else { 0 }, ..Stat::default() };
            nodes.insert(path.to_owned(), Node { data, acl, mode, owner, created: 0, stat });
        }
        Self {
            limits,
            zxid: 0,
            nodes,
            sessions: BTreeMap::new(),
            lanes: BTreeMap::new(),
            disks: BTreeMap::new(),
            ensemble_id: None,
        }
    }

    pub(crate) fn apply(&mut self, command: &Command) -> Applied {
        self.zxid += 1;
        let lane = command.lane;
        let expected = match self.lanes.get(&lane.member) {
            Some((incarnation, _)) if lane.incarnation < *incarnation => return Applied::Repeat,
            Some((incarnation, next)) if lane.incarnation == *incarnation => *next,
            _ => 1,
        };
        match lane.seq.cmp(&expected) {
            std::cmp::Ordering::Less => return Applied::Repeat,
            std::cmp::Ordering::Greater => return Applied::Gap,
            std::cmp::Ordering::Equal => {}
        }
        self.lanes.insert(lane.member, (lane.incarnation, expected + 1));
        let mut changes = Vec::new();
        let (zxid, outcome) = self.dispatch(command, &mut changes);
        Applied::Fresh { zxid, outcome, changes }
    }

    fn dispatch(&mut self, command: &Command, changes: &mut Vec<Change>) -> (Zxid, Outcome) {
        let now = Zxid(self.zxid);
        let author = &command.author;
        let is_write =
            matches!(command.op, Op::Create(_) | Op::SetData(_) | Op::SetAcl(_) | Op::Delete(_) | Op::Multi(_));
        if is_write || command.op == Op::CloseSession {
            match self.sessions.get(&author.session) {
                None => return (now, Err(Refusal::SessionExpired.into())),
                Some(session) if session.attachment != author.attachment => {
                    return (now, Err(Refusal::SessionMoved.into()));
                }
                Some(_) => {}
            }
        }
        let Some(write) = author.write.filter(|_| is_write) else {
            return (now, self.run(command, changes));
        };
        let session = self.sessions.get_mut(&author.session).unwrap();
        session.outcomes.retain(|number, _| *number > write.answered);
        if let Some((zxid, outcome)) = session.outcomes.get(&write.number) {
            return (*zxid, outcome.clone());
        }
        if write.number != session.next_write {
            return (now, Err(Refusal::Gap.into()));
        }
        if session.outcomes.len() >= self.limits.session_outcomes_max {
            return (now, Err(Refusal::LimitExceeded.into()));
        }
        let outcome = self.run(command, changes);
        let session = self.sessions.get_mut(&author.session).unwrap();
        session.outcomes.insert(write.number, (now, outcome.clone()));
        session.next_write += 1;
        (now, outcome)
    }

    fn run(&mut self, command: &Command, changes: &mut Vec<Change>) -> Outcome {
        let (author, stamp_ms) = (&command.author, command.stamp_ms);
        match &command.op {
            Op::Create(create) => self.create(create, author, stamp_ms, changes).map_err(Into::into),
            Op::SetData(set) => {
                self.set(&set.path, &set.data, set.version, author, stamp_ms, changes).map_err(Into::into)
            }
            Op::SetAcl(set) => {
                valid(&set.path)?;
                let acl = normal(&set.acl, author)?;
                self.may(&set.path, Permissions::ADMIN, author)?;
                let node = self.nodes.get_mut(&set.path).unwrap();
                if set.version != -1 && set.version != node.stat.aversion {
                    return Err(Refusal::BadVersion.into());
                }
                node.acl = acl;
                node.stat.aversion += 1;
                Ok(Reply::Stat(self.stat(&set.path)))
            }
            Op::Delete(delete) => self.delete(&delete.path, delete.version, author, changes).map_err(Into::into),
            Op::Multi(ops) => {
                if ops.len() > self.limits.multi_ops_max {
                    return Err(Refusal::LimitExceeded.into());
                }
                let before = self.clone();
                let mut replies = Vec::new();
                for (index, op) in ops.iter().enumerate() {
                    let result = match op {
                        MultiOp::Create(create) => self.create(create, author, stamp_ms, changes),
                        MultiOp::SetData(set) => self.set(&set.path, &set.data, set.version, author, stamp_ms, changes),
                        MultiOp::Delete(delete) => self.delete(&delete.path, delete.version, author, changes),
                        MultiOp::Check(check) => valid(&check.path).and_then(|()| {
                            self.may(&check.path, Permissions::READ, author)?;
                            let version = self.nodes[&check.path].stat.version;
                            if [-1, version].contains(&check.version) {
                                Ok(Reply::Done)
                            } else {
                                Err(Refusal::BadVersion)
                            }
                        }),
                    };
                    match result {
                        Ok(reply) => replies.push(reply),
                        Err(reason) => {
                            *self = before;
                            changes.clear();
                            return Err(Refused { reason, failed_op: Some(index as u32) });
                        }
                    }
                }
                Ok(Reply::Multi(replies))
            }
            Op::OpenSession { timeout_ms, password, client_name } => {
                if password.len() != 16 {
                    return Err(Refusal::BadArguments.into());
                }
                if self.sessions.len() >= self.limits.sessions_max {
                    return Err(Refusal::LimitExceeded.into());
                }
                let member = command.lane.member;
                let id = SessionId::opened_by(member, Zxid(self.zxid));
                let session = Session {
                    password: password.clone(),
                    timeout_ms: *timeout_ms,
                    attachment: 1,
                    member,
                    next_write: 1,
                    name: client_name.clone(),
                    outcomes: BTreeMap::new(),
                };
                self.sessions.insert(id, session);
                Ok(Reply::Opened { session: id, timeout_ms: *timeout_ms, attachment: 1 })
            }
            Op::AttachSession { session: id, password, timeout_ms } => {
                let session = self.sessions.get_mut(id).ok_or(Refusal::SessionExpired)?;
                if session.password != password {
                    return Err(Refusal::WrongPassword.into());
                }
                session.attachment += 1;
                session.member = command.lane.member;
                session.timeout_ms = *timeout_ms;
                changes.push(Change::SessionAttached { session: *id, attachment: session.attachment });
                Ok(Reply::Attached {
                    timeout_ms: *timeout_ms,
                    attachment: session.attachment,
                    next_write: session.next_write,
                })
            }
            Op::CloseSession => {
                self.end(author.session, SessionEnd::Closed, changes);
                Ok(Reply::Done)
            }
            Op::ExpireSession { session, attachment } => {
                if self.sessions.get(session).is_some_and(|live| live.attachment <= *attachment) {
                    self.end(*session, SessionEnd::Expired, changes);
                }
                Ok(Reply::Done)
            }
            Op::Reap(reap) => {
                let node = self.nodes.get(&reap.path).filter(|node| node.stat.czxid == reap.czxid);
                let node = node.ok_or(Refusal::NoNode)?;
                if !self.children(&reap.path).is_empty() {
                    return Err(Refusal::NotEmpty.into());
                }
                if !self.is_due(&reap.path, node, stamp_ms) {
                    return Err(Refusal::BadVersion.into());
                }
                self.remove(&reap.path, changes);
                Ok(Reply::Done)
            }
            Op::PublishConfig { servers } => {
                let config = self.nodes.get_mut("/zookeeper/config").unwrap();
                let old = String::from_utf8_lossy(config.data.as_deref().unwrap_or_default()).into_owned();
                if old.rsplit_once("\nversion=").map_or(old.as_str(), |(servers, _)| servers) == servers {
                    return Ok(Reply::Done);
                }
                let version = if servers.is_empty() { String::new() } else { format!("\nversion={:x}", self.zxid) };
                let text = format!("{servers}{version}");
                config.stat.data_length = text.len() as u32;
                config.stat.version = -1;
                config.stat.mzxid = Zxid(self.zxid);
                config.stat.mtime_ms = stamp_ms;
                config.data = Some(text.into());
                changes.push(Change::DataChanged { path: "/zookeeper/config".into() });
                Ok(Reply::Done)
            }
            Op::RegisterMember { member, disk_id, ensemble_id } => {
                if self.disks.insert(*member, *disk_id).is_some_and(|old| old != *disk_id) {
                    self.lanes.remove(member);
                }
                self.ensemble_id.get_or_insert(*ensemble_id);
                Ok(Reply::Done)
            }
        }
    }

    fn create(
        &mut self,
        create: &Create,
        author: &Author,
        stamp_ms: i64,
        changes: &mut Vec<Change>,
    ) -> Result<Reply, Refusal> {
        if let CreateMode::PersistentWithTtl { ttl_ms } | CreateMode::PersistentSequentialWithTtl { ttl_ms } =
            create.mode
            && (ttl_ms == 0 || ttl_ms >= 1 << 40)
        {
            return Err(Refusal::BadArguments);
        }
        if create.data.as_ref().map_or(0, Bytes::len) > self.limits.node_bytes_max {
            return Err(Refusal::LimitExceeded);
        }
        if !create.path.contains('/') || create.path.contains('\0') {
            return Err(Refusal::BadArguments);
        }
        let acl = normal(&create.acl, author)?;
        let parent = parent(&create.path);
        self.may(&parent, Permissions::CREATE, author)?;
        let mut path = create.path.clone();
        if matches!(
            create.mode,
            CreateMode::PersistentSequential
                | CreateMode::EphemeralSequential
                | CreateMode::PersistentSequentialWithTtl { .. }
        ) {
            path = format!("{path}{:010}", self.nodes[&parent].created);
        }
        if path.len() > self.limits.path_bytes_max {
            return Err(Refusal::LimitExceeded);
        }
        valid(&path)?;
        if self.nodes.contains_key(&path) {
            return Err(Refusal::NodeExists);
        }
        if self.nodes[&parent].owner != SessionId::NONE {
            return Err(Refusal::NoChildrenForEphemerals);
        }
        let length = create.data.as_ref().map_or(0, Bytes::len);
        let passed = self.quota(&path, 1, length as i64)?;
        let zxid = Zxid(self.zxid);
        let is_ephemeral = matches!(create.mode, CreateMode::Ephemeral | CreateMode::EphemeralSequential);
        let owner = if is_ephemeral { author.session } else { SessionId::NONE };
        let stat = Stat {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime_ms: stamp_ms,
            mtime_ms: stamp_ms,
            ephemeral_owner: owner,
            data_length: length as u32,
            ..Stat::default()
        };
        let node = Node { data: create.data.clone(), acl, mode: create.mode, owner, created: 0, stat };
        self.nodes.insert(path.clone(), node);
        let parent = self.nodes.get_mut(&parent).unwrap();
        parent.created += 1;
        parent.stat.pzxid = zxid;
        if let Some(subtree) = path.strip_prefix("/zookeeper/quota").and_then(|path| path.strip_suffix(USAGE))
            && subtree.starts_with("/a")
        {
            self.show(&path, self.usage(subtree));
        }
        self.show_usages();
        changes.push(Change::Created { path: path.clone() });
        changes.extend(passed);
        Ok(Reply::Created { stat: self.stat(&path), path })
    }

    fn set(
        &mut self,
        path: &str,
        data: &Option<Bytes>,
        version: i32,
        author: &Author,
        stamp_ms: i64,
        changes: &mut Vec<Change>,
    ) -> Result<Reply, Refusal> {
        if data.as_ref().map_or(0, Bytes::len) > self.limits.node_bytes_max {
            return Err(Refusal::LimitExceeded);
        }
        valid(path)?;
        self.may(path, Permissions::WRITE, author)?;
        let length = data.as_ref().map_or(0, Bytes::len);
        let passed = self.quota(path, 0, length as i64 - i64::from(self.nodes[path].stat.data_length))?;
        let node = self.nodes.get_mut(path).unwrap();
        if version != -1 && version != node.stat.version {
            return Err(Refusal::BadVersion);
        }
        node.data = data.clone();
        node.stat.data_length = length as u32;
        node.stat.version += 1;
        node.stat.mzxid = Zxid(self.zxid);
        node.stat.mtime_ms = stamp_ms;
        self.show_usages();
        changes.push(Change::DataChanged { path: path.to_owned() });
        changes.extend(passed);
        Ok(Reply::Stat(self.stat(path)))
    }

    /// Nodes and bytes of a subtree.
    fn usage(&self, subtree: &str) -> (u64, u64) {
        let below = format!("{subtree}/");
        let inside = self.nodes.iter().filter(|(path, _)| *path == subtree || path.starts_with(&below));
        inside.fold((0, 0), |(nodes, bytes), (_, node)| (nodes + 1, bytes + u64::from(node.stat.data_length)))
    }

    /// The subtrees with a quota and what limits them. These tests have quotas of `/a` and below only.
    fn quotas(&self) -> Vec<(String, Bytes)> {
        let quota = |(path, node): (&String, &Node)| {
            let subtree = path.strip_prefix("/zookeeper/quota")?.strip_suffix(LIMITS_NODE)?;
            Some((subtree.to_owned(), node.data.clone().unwrap_or_default()))
        };
        self.nodes.iter().filter_map(quota).filter(|(subtree, _)| subtree.starts_with("/a")).collect()
    }

    fn show_usages(&mut self) {
        for (subtree, _) in self.quotas() {
            self.show(&format!("/zookeeper/quota{subtree}{USAGE}"), self.usage(&subtree));
        }
    }

    fn show(&mut self, path: &str, (nodes, bytes): (u64, u64)) {
        if let Some(node) = self.nodes.get_mut(path) {
            let text = format!("count={nodes},bytes={bytes}");
            node.stat.data_length = text.len() as u32;
            node.data = Some(text.into());
        }
    }

    fn quota(&self, path: &str, more_nodes: i64, more_bytes: i64) -> Result<Option<Change>, Refusal> {
        let encloses = |subtree: &String| path == subtree || path.starts_with(&format!("{subtree}/"));
        let quotas = self.quotas().into_iter().filter(|(subtree, _)| encloses(subtree));
        let Some((subtree, limits)) = quotas.max_by_key(|(subtree, _)| subtree.len()) else { return Ok(None) };
        let (nodes, bytes) = self.usage(&subtree);
        let (nodes, bytes) = (nodes as i64 + more_nodes, bytes as i64 + more_bytes);
        // The only limits in these tests.
        match &limits[..] {
            b"count=1,bytes=20" if more_nodes > 0 && nodes > 1 || more_bytes != 0 && bytes > 20 => {
                Ok(Some(Change::QuotaPassed { subtree, nodes: nodes as u64, bytes: bytes as u64 }))
            }
            b"bytes=-1=;byteHardLimit=50" if more_bytes != 0 && bytes > 50 => Err(Refusal::QuotaExceeded),
            b"count=1;countHardLimit=3" if more_nodes > 0 && nodes > 3 => Err(Refusal::QuotaExceeded),
            _ => Ok(None),
        }
    }

    fn delete(
        &mut self,
        path: &str,
        version: i32,
        author: &Author,
        changes: &mut Vec<Change>,
    ) -> Result<Reply, Refusal> {
        if !path.contains('/') || path.contains('\0') {
            return Err(Refusal::BadArguments);
        }
        if ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"].contains(&path) {
            return Err(Refusal::BadArguments);
        }
        self.may(&parent(path), Permissions::DELETE, author)?;
        let node = self.nodes.get(path).ok_or(Refusal::NoNode)?;
        if version != -1 && version != node.stat.version {
            return Err(Refusal::BadVersion);
        }
        if !self.children(path).is_empty() {
            return Err(Refusal::NotEmpty);
        }
        self.remove(path, changes);
        Ok(Reply::Done)
    }

    fn remove(&mut self, path: &str, changes: &mut Vec<Change>) {
        let node = self.nodes.remove(path).unwrap();
        self.nodes.get_mut(&parent(path)).unwrap().stat.pzxid = Zxid(self.zxid);
        self.show_usages();
        changes.push(Change::Deleted { path: path.to_owned(), acl: node.acl.into() });
    }

    fn end(&mut self, session: SessionId, end: SessionEnd, changes: &mut Vec<Change>) {
        for path in self.ephemerals(session) {
            self.remove(&path, changes);
        }
        self.sessions.remove(&session);
        changes.push(Change::SessionEnded { session, end });
    }

    fn may(&self, path: &str, wanted: Permissions, author: &Author) -> Result<(), Refusal> {
        let node = self.nodes.get(path).ok_or(Refusal::NoNode)?;
        let allowed = author.identities.iter().any(|identity| identity.scheme == "super")
            || node.acl.iter().any(|entry| {
                entry.permissions.0 & wanted.0 != 0
                    && (entry.identity.scheme == "world"
                        || author.identities.contains(&entry.identity)
                        // The only network in these tests, and the only address.
                        || entry.identity.id == "10.0.0.0/8"
                            && author.identities.iter().any(|identity| identity.id == "10.0.0.1"))
            });
        if allowed { Ok(()) } else { Err(Refusal::NoAuth) }
    }

    fn children(&self, path: &str) -> Vec<String> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let below = self.nodes.keys().filter_map(|other| other.strip_prefix(&prefix));
        below.filter(|rest| !rest.is_empty() && !rest.contains('/')).map(str::to_owned).collect()
    }

    fn ephemerals(&self, session: SessionId) -> Vec<String> {
        self.nodes.iter().filter(|(_, node)| node.owner == session).map(|(path, _)| path.clone()).collect()
    }

    fn stat(&self, path: &str) -> Stat {
        let node = &self.nodes[path];
        let children = self.children(path).len();
        Stat { num_children: children as u32, cversion: (node.created * 2) as i32 - children as i32, ..node.stat }
    }

    fn is_due(&self, path: &str, node: &Node, now_ms: i64) -> bool {
        let is_due = match node.mode {
            CreateMode::Container => node.created > 0,
            CreateMode::PersistentWithTtl { ttl_ms } | CreateMode::PersistentSequentialWithTtl { ttl_ms } => {
                i128::from(now_ms) - i128::from(node.stat.mtime_ms) > i128::from(ttl_ms)
            }
            _ => false,
        };
        is_due && self.children(path).is_empty()
    }

    /// All paths, those of `/zookeeper` and below last.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths: Vec<String> = self.nodes.keys().cloned().collect();
        paths.sort_by_key(|path| path.starts_with("/zookeeper"));
        paths
    }

    /// What to reap to hit this node.
    pub(crate) fn reap(&self, path: &str) -> Reap {
        Reap { path: path.to_owned(), czxid: self.nodes[path].stat.czxid }
    }

    pub(crate) fn dump(&self) -> Dump {
        let node = |path: &String| {
            let node = &self.nodes[path];
            (path.clone(), (self.stat(path), node.data.clone(), node.acl.clone(), self.children(path)))
        };
        let view = |(id, session): (&SessionId, &Session)| SessionView {
            session: *id,
            timeout_ms: session.timeout_ms,
            attachment: session.attachment,
            member: session.member,
            next_write: session.next_write,
            ephemerals: self.ephemerals(*id).len(),
            client_name: session.name.clone(),
        };
        let due = |now_ms: i64| {
            let due = self.nodes.iter().filter(|(path, node)| self.is_due(path, node, now_ms));
            (now_ms, due.map(|(path, node)| (path.clone(), node.stat.czxid)).collect())
        };
        let lane = |number: u8| {
            let known = self.lanes.get(&MemberId(number)).copied();
            let next = |incarnation| match known {
                Some((known, _)) if incarnation < known => None,
                Some((known, next)) if incarnation == known => Some(next),
                _ => Some(1),
            };
            (MemberId(number), [1, 2, 3].map(next))
        };
        Dump {
            zxid: Zxid(self.zxid),
            node_count: self.nodes.len() + 1,
            nodes: self.nodes.keys().map(node).collect(),
            sessions: self.sessions.iter().map(view).collect(),
            ephemerals: self.sessions.keys().map(|id| (*id, self.ephemerals(*id))).collect(),
            due: INSTANTS_MS.map(due).to_vec(),
            disks: self.disks.clone().into_iter().collect(),
            ensemble_id: self.ensemble_id,
            lanes: (1..=3).map(lane).collect(),
        }
    }
}

/// The same of a tree, asked through its public reads.
pub(crate) fn dump(tree: &Tree) -> Dump {
    let anybody = [Identity::superuser()];
    let mut nodes = BTreeMap::new();
    let mut open = vec!["/".to_owned()];
    while let Some(path) = open.pop() {
        let (data, stat) = tree.get(&path, &anybody).unwrap();
        let (acl, _) = tree.acl(&path, &anybody).unwrap();
        let (children, _) = tree.children(&path, &anybody).unwrap();
        open.extend(
            children.iter().map(|name| if path == "/" { format!("/{name}") } else { format!("{path}/{name}") }),
        );
        nodes.insert(path, (stat, data, acl, children));
    }
    let due = |now_ms: i64| {
        let due = tree.due_for_reaping(now_ms, usize::MAX);
        let mut due: Vec<_> = due.into_iter().map(|reap| (reap.path, reap.czxid)).collect();
        due.sort();
        (now_ms, due)
    };
    let lane = |number: u8| {
        let next = |incarnation| tree.next_in_lane(MemberId(number), incarnation);
        (MemberId(number), [1, 2, 3].map(next))
    };
    Dump {
        zxid: tree.zxid(),
        node_count: tree.node_count(),
        nodes,
        sessions: tree.sessions().collect(),
        ephemerals: tree.sessions().map(|view| (view.session, tree.ephemerals(view.session))).collect(),
        due: INSTANTS_MS.map(due).to_vec(),
        disks: tree.disks().collect(),
        ensemble_id: tree.ensemble_id(),
        lanes: (1..=3).map(lane).collect(),
    }
}

fn valid(path: &str) -> Result<(), Refusal> {
    Path::parse(path).map(drop).map_err(|_| Refusal::BadArguments)
}

fn parent(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
    }
}

fn normal(list: &[Acl], author: &Author) -> Result<Vec<Acl>, Refusal> {
    let mut normal: Vec<Acl> = Vec::new();
    for entry in list {
        let entries = match (entry.identity.scheme.as_str(), entry.identity.id.as_str()) {
            ("auth", _) => {
                let proved = author.identities.iter().filter(|identity| identity.scheme == "digest");
                let entries: Vec<Acl> =
                    proved.map(|identity| Acl { permissions: entry.permissions, identity: identity.clone() }).collect();
                if entries.is_empty() {
                    return Err(Refusal::InvalidAcl);
                }
                entries
            }
            // The only valid ones in these tests.
            ("world", "anyone") | ("digest", "a:1" | "b:2") | ("ip", "10.0.0.0/8") => vec![entry.clone()],
            _ => return Err(Refusal::InvalidAcl),
        };
        for entry in entries {
            if !normal.contains(&entry) {
                normal.push(entry);
            }
        }
    }
    if normal.is_empty() { Err(Refusal::InvalidAcl) } else { Ok(normal) }
}
