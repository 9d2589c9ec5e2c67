//! Reads: nothing here changes anything, and nothing depends on the order of a hash table.

use bytes::Bytes;

use crate::acl::{self, Permissions};
use crate::node::NodeId;
use crate::{Acl, Identity, MemberId, Names, Reap, Refusal, Refused, SessionId, Stat, Tree};

/// What is known of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its id.
    pub session: SessionId,
    /// The granted timeout.
    pub timeout_ms: u32,
    /// Its newest attachment.
    pub attachment: u64,
    /// The member it is attached to.
    pub member: MemberId,
    /// The write number expected next.
    pub next_write: u64,
    /// Ephemeral nodes it owns.
    pub ephemerals: usize,
    /// Who the client said it is.
    pub client_name: String,
}

impl Tree {
    /// Data, which may be null, and stat of a node.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read it.
    pub fn get(&self, path: &str, identities: &[Identity]) -> Result<(Option<Bytes>, Stat), Refused> {
        let id = self.readable(path, identities)?;
        Ok((self.nodes.get(id).data.shared(), self.nodes.stat(id)))
    }

    /// The stat of a node, if it exists.
    ///
    /// # Errors
    /// `NoNode`, `NoAuth` if none of `identities` may read it, or `BadArguments` for a path with a NUL.
    pub fn stat(&self, path: &str, identities: &[Identity]) -> Result<Stat, Refused> {
        if path.contains('\0') {
            return Err(Refusal::BadArguments.into());
        }
        Ok(self.nodes.stat(self.readable(path, identities)?))
    }

    /// The names of a node's children in byte order, and its stat.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read it.
    pub fn children(&self, path: &str, identities: &[Identity]) -> Result<(Vec<String>, Stat), Refused> {
        let (names, stat) = self.child_names(path, identities)?;
        Ok((names.into_sorted(), stat))
    }

    /// The same, not yet in order: that takes longest where there are many, and needs the tree no more.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read it.
    pub fn child_names(&self, path: &str, identities: &[Identity]) -> Result<(Names, Stat), Refused> {
        let id = self.readable(path, identities)?;
        let mut names = Names::default();
        if let Some(directory) = &self.nodes.get(id).directory {
            names = Names::with_capacity(directory.children.len(), directory.name_bytes);
            for child in directory.children.iter() {
                names.push(self.nodes.get(child).name.as_str());
            }
        }
        Ok((names, self.nodes.stat(id)))
    }

    /// How many children a node has, and the bytes of their names: what [`Tree::children`] would take.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read it.
    pub fn children_extent(&self, path: &str, identities: &[Identity]) -> Result<(usize, usize), Refused> {
        let id = self.readable(path, identities)?;
        Ok(self
            .nodes
            .get(id)
            .directory
            .as_ref()
            .map_or((0, 0), |directory| (directory.children.len(), directory.name_bytes)))
    }

    /// The access control list of a node, and its stat. Without ADMIN, digests are shown as `user:x`.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read or administer it.
    pub fn acl(&self, path: &str, identities: &[Identity]) -> Result<(Vec<Acl>, Stat), Refused> {
        let id = self.nodes.find(path).ok_or(Refusal::NoNode)?;
        let list = self.nodes.acl(id);
        acl::check(list, Permissions::READ.or(Permissions::ADMIN), identities)?;
        let mut shown = list.to_vec();
        if !acl::allows(list, Permissions::ADMIN, identities) {
            shown.iter_mut().for_each(hide_secret);
        }
        Ok((shown, self.nodes.stat(id)))
    }

    /// How many nodes are below one, at any depth.
    ///
    /// # Errors
    /// `NoNode`, or `NoAuth` if none of `identities` may read it.
    pub fn count_below(&self, path: &str, identities: &[Identity]) -> Result<u32, Refused> {
        let top = self.readable(path, identities)?;
        Ok(self.nodes.get(top).below().nodes as u32)
    }

    /// A live session.
    #[must_use]
    pub fn session(&self, session: SessionId) -> Option<SessionView> {
        self.sessions.get(session).map(|live| view(session, live))
    }

    /// Whether `password` belongs to this live session, compared in constant time.
    #[must_use]
    pub fn password_matches(&self, session: SessionId, password: &[u8]) -> bool {
        self.sessions.get(session).is_some_and(|live| is_same(&live.record.password, password))
    }

    /// Every live session, by id.
    pub fn sessions(&self) -> impl Iterator<Item = SessionView> + '_ {
        self.sessions.iter().map(|(id, live)| view(id, live))
    }

    /// How many sessions live.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.count()
    }

    /// The ephemeral nodes of a session, in byte order.
    #[must_use]
    pub fn ephemerals(&self, session: SessionId) -> Vec<String> {
        self.ephemeral_paths(session, "").into_sorted()
    }

    /// How many ephemeral nodes a session owns.
    #[must_use]
    pub fn ephemeral_count(&self, session: SessionId) -> usize {
        self.sessions.get(session).map_or(0, |live| live.ephemerals.len())
    }

    /// The ephemeral nodes of a session whose paths begin with a text, not yet in order.
    #[must_use]
    pub fn ephemeral_paths(&self, session: SessionId, prefix: &str) -> Names {
        let mut paths = Names::default();
        if let Some(live) = self.sessions.get(session) {
            let all = live.ephemerals.iter().map(|id| self.nodes.path(*id));
            all.filter(|path| path.starts_with(prefix)).for_each(|path| paths.push(&path));
        }
        paths
    }

    /// The disk that is registered for a member.
    #[must_use]
    pub fn disk_of(&self, member: MemberId) -> Option<u64> {
        self.members.disk_of(member)
    }

    /// Every registered disk, by member.
    pub fn disks(&self) -> impl Iterator<Item = (MemberId, u64)> + '_ {
        self.members.disks()
    }

    /// The name of the ensemble, once it has one.
    #[must_use]
    pub fn ensemble_id(&self) -> Option<u64> {
        self.members.ensemble_id()
    }

    /// The lane seq expected next of a start of a member: 1 if it has sent nothing yet, `None` if a later start of
    /// that member has been heard of.
    #[must_use]
    pub fn next_in_lane(&self, member: MemberId, incarnation: u64) -> Option<u64> {
        self.members.next_seq(member, incarnation)
    }

    /// Up to `limit` container and ttl nodes that are due at `now_ms`, those that are due for longest first.
    #[must_use]
    pub fn due_for_reaping(&self, now_ms: i64, limit: usize) -> Vec<Reap> {
        let due = self.reaping.due(now_ms).take(limit);
        due.map(|id| Reap { path: self.nodes.path(id), czxid: self.nodes.get(id).czxid }).collect()
    }

    fn readable(&self, path: &str, identities: &[Identity]) -> Result<NodeId, Refusal> {
        let id = self.nodes.find(path).ok_or(Refusal::NoNode)?;
        acl::check(self.nodes.acl(id), Permissions::READ, identities)?;
        Ok(id)
    }
}

fn view(session: SessionId, live: &crate::sessions::Session) -> SessionView {
    let record = &live.record;
    SessionView {
        session,
        timeout_ms: record.timeout_ms,
        attachment: record.attachment,
        member: record.member,
        next_write: record.next_write,
        ephemerals: live.ephemerals.len(),
        client_name: record.client_name.to_string(),
    }
}

fn hide_secret(entry: &mut Acl) {
    if entry.identity.scheme == "digest"
        && let Some((user, _)) = entry.identity.id.split_once(':')
    {
        entry.identity.id = format!("{user}:x");
    }
}

/// Takes as long for a password that is nearly right as for one that is all wrong.
pub(crate) fn is_same(password: &[u8], given: &[u8]) -> bool {
    if password.len() != given.len() {
        return false;
    }
    let difference = password.iter().zip(given).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}
