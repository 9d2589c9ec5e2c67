//! The sessions: who they are, what they own, and the outcomes their clients may still ask for.
//!
//! Like the nodes, sessions keep images of what a frozen state still needs when they change.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use crate::digest::{Digest, outcome_hash, outcome_item, session_item};
use crate::node::NodeId;
use crate::{Limits, MemberId, Outcome, Reply, SessionId, Zxid};

pub(crate) const PASSWORD_BYTES: usize = 16;

/// The live sessions, by id.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    by_id: BTreeMap<SessionId, Session>,
    images: Option<SessionImages>,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) record: SessionRecord,
    outcomes: Outcomes,
    /// The ephemeral nodes it owns.
    pub(crate) ephemerals: BTreeSet<NodeId>,
}

/// What a session is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRecord {
    pub(crate) timeout_ms: u32,
    pub(crate) password: [u8; PASSWORD_BYTES],
    pub(crate) client_name: Box<str>,
    pub(crate) member: MemberId,
    pub(crate) attachment: u64,
    pub(crate) next_write: u64,
}

/// The outcomes of the last writes, up to the one before `next_write`.
#[derive(Debug, Default)]
struct Outcomes {
    settled: VecDeque<Settled>,
    bytes: usize,
}

/// What became of a numbered write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settled {
    pub(crate) zxid: Zxid,
    pub(crate) outcome: Outcome,
    hash: u64,
    bytes: u32,
}

impl Settled {
    pub(crate) fn new(zxid: Zxid, outcome: Outcome) -> Self {
        Self { zxid, hash: outcome_hash(&outcome), bytes: outcome_bytes(&outcome), outcome }
    }
}

/// About the memory an outcome takes.
fn outcome_bytes(outcome: &Outcome) -> u32 {
    fn reply_bytes(reply: &Reply) -> usize {
        size_of::<Reply>()
            + match reply {
                Reply::Created { path, .. } => path.len(),
                Reply::Multi(replies) => replies.iter().map(reply_bytes).sum(),
                Reply::Stat(_) | Reply::Done | Reply::Opened { .. } | Reply::Attached { .. } => 0,
            }
    }
    let heap = outcome.as_ref().map_or(0, reply_bytes);
    (size_of::<Settled>() + heap) as u32
}

impl Session {
    fn new(record: SessionRecord) -> Self {
        Self { record, outcomes: Outcomes::default(), ephemerals: BTreeSet::new() }
    }

    /// The outcome of an earlier write, if it is still there.
    pub(crate) fn settled(&self, number: u64) -> Option<&Settled> {
        let index = usize::try_from(number.checked_sub(self.first_kept())?).ok()?;
        self.outcomes.settled.get(index)
    }

    /// Whether the outcome of one more write can be kept at all.
    pub(crate) fn has_room(&self, limits: &Limits) -> bool {
        self.outcomes.settled.len() < limits.session_outcomes_max
    }

    /// Whether it may be more than a refusal.
    pub(crate) fn has_room_for_replies(&self, limits: &Limits) -> bool {
        self.outcomes.bytes < limits.session_outcome_bytes_max
    }

    /// The outcomes that are kept, with their write numbers.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (u64, &Settled)> {
        (self.first_kept()..).zip(&self.outcomes.settled)
    }

    /// The number of the first outcome that is kept; if none is, of the write expected next.
    fn first_kept(&self) -> u64 {
        self.record.next_write - self.outcomes.settled.len() as u64
    }
}

impl Sessions {
    pub(crate) fn count(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.by_id.iter().map(|(id, session)| (*id, session))
    }

    pub(crate) fn open(&mut self, id: SessionId, record: SessionRecord, digest: &mut Digest) {
        self.keep_image(id);
        digest.add(session_item(id, &record));
        let previous = self.by_id.insert(id, Session::new(record));
        assert!(previous.is_none(), "session ids are unique, because zxids are");
    }

    /// Changes what a session is.
    pub(crate) fn change<T>(
        &mut self,
        id: SessionId,
        digest: &mut Digest,
        change: impl FnOnce(&mut SessionRecord) -> T,
    ) -> T {
        self.keep_image(id);
        let record = &mut self.live(id).record;
        digest.remove(session_item(id, record));
        let result = change(record);
        digest.add(session_item(id, record));
        result
    }

    /// Keeps the outcome of the write that was expected, and expects the next.
    pub(crate) fn settle(&mut self, id: SessionId, settled: Settled, digest: &mut Digest) {
        let number = self.change(id, digest, |record| {
            record.next_write += 1;
            record.next_write - 1
        });
        digest.add(outcome_item(id, number, settled.zxid, settled.hash));
        let outcomes = &mut self.live(id).outcomes;
        outcomes.bytes += settled.bytes as usize;
        outcomes.settled.push_back(settled);
    }

    /// Forgets the outcomes of the writes up to `answered`.
    pub(crate) fn forget_answered(&mut self, id: SessionId, answered: u64, digest: &mut Digest) {
        let session = self.live(id);
        if session.outcomes.settled.is_empty() || session.first_kept() > answered {
            return;
        }
        self.keep_image(id);
        let session = self.live(id);
        while session.first_kept() <= answered {
            let number = session.first_kept();
            let Some(settled) = session.outcomes.settled.pop_front() else { break };
            session.outcomes.bytes -= settled.bytes as usize;
            digest.remove(outcome_item(id, number, settled.zxid, settled.hash));
        }
        if session.outcomes.settled.is_empty() {
            session.outcomes.settled = VecDeque::new();
        }
    }

    /// Ends a session. Its ephemeral nodes are the caller's to delete, before.
    pub(crate) fn end(&mut self, id: SessionId, digest: &mut Digest) {
        self.keep_image(id);
        let session = self.by_id.remove(&id).expect("the caller has looked it up");
        assert!(session.ephemerals.is_empty(), "ephemeral nodes go before their session");
        session.remove_from(id, digest);
    }

    pub(crate) fn own(&mut self, id: SessionId, node: NodeId) {
        self.live(id).ephemerals.insert(node);
    }

    pub(crate) fn disown(&mut self, id: SessionId, node: NodeId) {
        self.live(id).ephemerals.remove(&node);
    }

    fn live(&mut self, id: SessionId) -> &mut Session {
        self.by_id.get_mut(&id).expect("the caller has looked it up")
    }

    /// Adds all of this to a digest that is made from scratch.
    pub(crate) fn add_to(&self, digest: &mut Digest) {
        for (id, session) in self.iter() {
            digest.add(session_item(id, &session.record));
            for (number, settled) in session.outcomes() {
                digest.add(outcome_item(id, number, settled.zxid, outcome_hash(&settled.outcome)));
            }
        }
    }
}

impl Session {
    fn remove_from(&self, id: SessionId, digest: &mut Digest) {
        digest.remove(session_item(id, &self.record));
        for (number, settled) in self.outcomes() {
            digest.remove(outcome_item(id, number, settled.zxid, settled.hash));
        }
    }
}

/// What a frozen state still needs of sessions that have changed since.
#[derive(Debug, Default)]
struct SessionImages {
    /// The last session the walker has visited.
    passed: Option<SessionId>,
    /// `None` is a session that did not exist.
    kept: BTreeMap<SessionId, Option<SessionImage>>,
}

/// A session as it was.
#[derive(Debug)]
pub(crate) struct SessionImage {
    pub(crate) record: SessionRecord,
    /// Up to the one before `next_write`.
    pub(crate) outcomes: VecDeque<Settled>,
}

impl Sessions {
    pub(crate) fn freeze(&mut self) {
        self.images = Some(SessionImages::default());
    }

    pub(crate) fn thaw(&mut self) {
        self.images = None;
    }

    /// The next session of the frozen state, in the order of ids; `None` at the end.
    pub(crate) fn next_frozen(&mut self) -> Option<(SessionId, SessionImage)> {
        let images = self.images.as_mut()?;
        loop {
            let after = (images.passed.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
            let live = self.by_id.range(after).next();
            let kept = images.kept.first_key_value().map(|(id, _)| *id);
            let id = live.map(|(id, _)| *id).into_iter().chain(kept).min()?;
            images.passed = Some(id);
            let image = match images.kept.remove(&id) {
                Some(image) => image,
                None => live.map(|(_, session)| session.image()),
            };
            if let Some(image) = image {
                return Some((id, image));
            }
        }
    }

    fn keep_image(&mut self, id: SessionId) {
        let Some(images) = &mut self.images else { return };
        if images.passed.is_some_and(|passed| id <= passed) || images.kept.contains_key(&id) {
            return;
        }
        images.kept.insert(id, self.by_id.get(&id).map(Session::image));
    }
}

impl Session {
    fn image(&self) -> SessionImage {
        SessionImage { record: self.record.clone(), outcomes: self.outcomes.settled.clone() }
    }
}
