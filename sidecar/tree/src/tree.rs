//! The tree itself: nothing else than applying commands changes it.

use std::fmt;

use crate::digest::Digest;
use crate::members::{Members, Turn};
use crate::nodes::Nodes;
use crate::quotas::Quotas;
use crate::read::is_same;
use crate::reaping::Reaping;
use crate::sessions::{SessionRecord, Sessions, Settled};
use crate::snapshot::Walk;
use crate::writes::Work;
use crate::{Applied, Author, Change, Command, Lane, Limits, Op, Outcome, Refusal, Reply, SessionEnd, SessionId, Zxid};

/// The replicated state of an ensemble.
pub struct Tree {
    pub(crate) limits: Limits,
    pub(crate) zxid: Zxid,
    pub(crate) members: Members,
    pub(crate) sessions: Sessions,
    pub(crate) nodes: Nodes,
    pub(crate) reaping: Reaping,
    pub(crate) quotas: Quotas,
    pub(crate) digest: Digest,
    pub(crate) walk: Option<Walk>,
}

impl Tree {
    /// The tree of a new ensemble: the reserved nodes and nothing else.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut tree = Self::without_nodes(limits);
        tree.plant_reserved();
        tree
    }

    pub(crate) fn without_nodes(limits: Limits) -> Self {
        Self {
            limits,
            zxid: Zxid(0),
            members: Members::default(),
            sessions: Sessions::default(),
            nodes: Nodes::new(),
            reaping: Reaping::default(),
            quotas: Quotas::default(),
            digest: Digest::default(),
            walk: None,
        }
    }

    /// Applies one command, which gets the next zxid, whatever becomes of it.
    pub fn apply(&mut self, command: &Command) -> Applied {
        self.zxid = self.zxid.next();
        match self.members.take_turn(&command.lane, &mut self.digest) {
            Turn::Past => return Applied::Repeat,
            Turn::NotYet => return Applied::Gap,
            Turn::Now => {}
        }
        let mut work = Work::new(self.zxid, command.stamp_ms, &command.author);
        let (zxid, outcome) = match &command.op {
            Op::Create(_) | Op::SetData(_) | Op::SetAcl(_) | Op::Delete(_) | Op::Multi(_) => {
                self.write(&command.op, &mut work)
            }
            _ => (self.zxid, self.administer(command, &mut work)),
        };
        Applied::Fresh { zxid, outcome, changes: work.changes }
    }

    /// Does a part of what [`Tree::apply`] will do for this command, where that is much: lets go of `nodes_max` (one or
    /// more) ephemeral nodes of a session that the command ends and that owns more. `None` if nothing is to be done before the command
    /// is applied; until it says so, no other command may be.
    ///
    /// What goes has the zxid the command will get, which comes with the changes. Until the command is applied, the tree
    /// shows the zxid before it: who reads meanwhile sees some of the nodes gone, as in ZooKeeper, and whoever goes by
    /// what they have seen up to that zxid misses nothing. Every replica may do so, or not, or in other parts: the state
    /// after the command is the same.
    pub fn apply_ahead(&mut self, command: &Command, nodes_max: usize) -> Option<(Zxid, Vec<Change>)> {
        let (session, _) = self.ended_by(command)?;
        let Lane { member, incarnation, seq } = command.lane;
        let is_its_turn = self.members.next_seq(member, incarnation) == Some(seq);
        let nodes_max = nodes_max.max(1);
        if !is_its_turn || self.sessions.get(session)?.ephemerals.len() <= nodes_max {
            return None;
        }
        let mut work = Work::new(self.zxid.next(), command.stamp_ms, &command.author);
        self.let_go(session, nodes_max, &mut work);
        Some((work.zxid, work.changes))
    }

    /// The session that a command ends if it is applied now, and how.
    fn ended_by(&self, command: &Command) -> Option<(SessionId, SessionEnd)> {
        match &command.op {
            Op::CloseSession => {
                self.check_author(&command.author).ok()?;
                Some((command.author.session, SessionEnd::Closed))
            }
            Op::ExpireSession { session, attachment } => {
                let live = self.sessions.get(*session)?;
                (live.record.attachment <= *attachment).then_some((*session, SessionEnd::Expired))
            }
            _ => None,
        }
    }

    /// A write of a client: once, in its turn if it is numbered. Gives the zxid its outcome belongs to.
    ///
    /// The outcomes that the client has answered are forgotten first, also if the write is then refused. A number
    /// that lies behind gets the outcome it had; if that is forgotten, the client contradicts itself, and the refusal
    /// is `Gap`.
    ///
    /// `LimitExceeded` is an outcome like any other if the replies that are kept take too many bytes. If the outcomes
    /// are too many, it cannot be kept and does not use up the number; only a client that has far more writes in
    /// flight than a member lets it have can get there.
    fn write(&mut self, op: &Op, work: &mut Work<'_>) -> (Zxid, Outcome) {
        let session = work.author.session;
        if let Err(refusal) = self.check_author(work.author) {
            return (self.zxid, Err(refusal.into()));
        }
        let Some(write) = work.author.write else {
            return (self.zxid, self.perform(op, work));
        };
        self.sessions.forget_answered(session, write.answered, &mut self.digest);
        let live = self.sessions.get(session).expect("the author was checked");
        if write.number < live.record.next_write {
            return match live.settled(write.number) {
                Some(settled) => (settled.zxid, settled.outcome.clone()),
                None => (self.zxid, Err(Refusal::Gap.into())),
            };
        }
        if write.number > live.record.next_write {
            return (self.zxid, Err(Refusal::Gap.into()));
        }
        if !live.has_room(&self.limits) {
            return (self.zxid, Err(Refusal::LimitExceeded.into()));
        }
        let outcome = if live.has_room_for_replies(&self.limits) {
            self.perform(op, work)
        } else {
            Err(Refusal::LimitExceeded.into())
        };
        self.sessions.settle(session, Settled::new(self.zxid, outcome.clone()), &mut self.digest);
        (self.zxid, outcome)
    }

    /// Everything that is not a write.
    fn administer(&mut self, command: &Command, work: &mut Work<'_>) -> Outcome {
        match &command.op {
            Op::OpenSession { timeout_ms, password, client_name } => {
                self.open_session(command, *timeout_ms, password, client_name)
            }
            Op::AttachSession { session, password, timeout_ms } => {
                self.attach_session(command, *session, password, *timeout_ms, work)
            }
            Op::CloseSession | Op::ExpireSession { .. } => {
                if let Some((session, end)) = self.ended_by(command) {
                    self.end_session(session, end, work);
                } else if matches!(command.op, Op::CloseSession) {
                    self.check_author(work.author)?;
                }
                Ok(Reply::Done)
            }
            Op::Reap(reap) => Ok(self.reap(reap, work)?),
            Op::PublishConfig { servers } => {
                self.publish_config(servers, work);
                Ok(Reply::Done)
            }
            Op::RegisterMember { member, disk_id, ensemble_id } => {
                self.members.register(*member, *disk_id, &mut self.digest);
                self.members.name_ensemble(*ensemble_id, &mut self.digest);
                Ok(Reply::Done)
            }
            Op::Create(_) | Op::SetData(_) | Op::SetAcl(_) | Op::Delete(_) | Op::Multi(_) => {
                unreachable!("these are writes")
            }
        }
    }

    /// `BadArguments` for a password that has not 16 bytes, `LimitExceeded` if there are too many sessions already.
    fn open_session(&mut self, command: &Command, timeout_ms: u32, password: &[u8], client_name: &str) -> Outcome {
        let password = password.try_into().map_err(|_| Refusal::BadArguments)?;
        if self.sessions.count() >= self.limits.sessions_max {
            return Err(Refusal::LimitExceeded.into());
        }
        let session = SessionId::opened_by(command.lane.member, self.zxid);
        let record = SessionRecord {
            timeout_ms,
            password,
            client_name: cut(client_name, self.limits.client_name_bytes_max).into(),
            member: command.lane.member,
            attachment: 1,
            next_write: 1,
        };
        self.sessions.open(session, record, &mut self.digest);
        Ok(Reply::Opened { session, timeout_ms, attachment: 1 })
    }

    fn attach_session(
        &mut self,
        command: &Command,
        session: SessionId,
        password: &[u8],
        timeout_ms: u32,
        work: &mut Work<'_>,
    ) -> Outcome {
        let live = self.sessions.get(session).ok_or(Refusal::SessionExpired)?;
        // Before anything else: who merely knows an id must not be able to disturb its owner.
        if !is_same(&live.record.password, password) {
            return Err(Refusal::WrongPassword.into());
        }
        let (attachment, next_write) = self.sessions.change(session, &mut self.digest, |record| {
            record.timeout_ms = timeout_ms;
            record.member = command.lane.member;
            record.attachment += 1;
            (record.attachment, record.next_write)
        });
        work.changes.push(Change::SessionAttached { session, attachment });
        Ok(Reply::Attached { timeout_ms, attachment, next_write })
    }

    fn check_author(&self, author: &Author) -> Result<(), Refusal> {
        let live = self.sessions.get(author.session).ok_or(Refusal::SessionExpired)?;
        if author.attachment == live.record.attachment { Ok(()) } else { Err(Refusal::SessionMoved) }
    }

    /// The last command applied.
    #[must_use]
    pub fn zxid(&self) -> Zxid {
        self.zxid
    }

    /// The bounds it holds itself to.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// A hash of the whole replicated state, kept incrementally.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.at(self.zxid)
    }

    /// The digest computed anew from everything there is: differs from [`Tree::digest`] only if this crate is wrong
    /// or memory is. Takes as long as there are nodes.
    #[must_use]
    pub fn digest_recomputed(&self) -> u64 {
        let mut digest = Digest::default();
        self.members.add_to(&mut digest);
        self.sessions.add_to(&mut digest);
        self.nodes.add_to(&mut digest);
        digest.at(self.zxid)
    }

    /// Bytes of the paths and the data of all nodes.
    #[must_use]
    pub fn node_bytes(&self) -> u64 {
        self.digest.node_bytes()
    }

    /// Nodes, the reserved ones included. The root counts twice, as it does in ZooKeeper: a new tree has five.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.count() + 1
    }
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree")
            .field("zxid", &self.zxid)
            .field("nodes", &self.nodes.count())
            .field("sessions", &self.sessions.count())
            .finish_non_exhaustive()
    }
}

/// The first `bytes_max` bytes of a text, or a little less where that would cut a character.
fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
