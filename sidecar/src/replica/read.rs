//! What a session asks of its member's copy: requests that change nothing replicated, and their answers.

use std::sync::Arc;

use bytes::Bytes;
use quorate_tree::{Acl, Identity, Names, Refusal, Refused, Reply, SessionId, Stat, Tree, Zxid};

use super::watches::{ConnId, WatchKind, WatchTable};

/// A request that is answered from the copy.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Read {
    /// Data and stat; arms a one-shot data watch if the node exists.
    Get { path: String, watch: bool },
    /// Stat or absence; arms a one-shot data watch either way.
    Exists { path: String, watch: bool },
    /// Names and stat; arms a one-shot child watch if the node exists.
    Children { path: String, watch: bool },
    /// The access control list.
    Acl { path: String },
    /// Nothing but its place in the order.
    Sync,
    /// Sets a persistent watch.
    Watch { path: String, recursive: bool },
    /// Takes watches away.
    Unwatch { path: String, kind: WatchKind },
    /// Whether there are such watches.
    HasWatch { path: String, kind: WatchKind },
    /// Paths of the ephemeral nodes of a session that begin with a text, whole names or not.
    Ephemerals { session: SessionId, prefix: String },
    /// How many nodes are below one.
    CountBelow { path: String },
    /// Several reads of one state, each answered for itself.
    Many(Vec<Read>),
    /// Sets the watches of an earlier stream again.
    Rearm(Box<Rearm>),
}

/// The watches of an earlier stream, and how much of the world it has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rearm {
    pub(crate) since: Zxid,
    pub(crate) data: Vec<String>,
    pub(crate) exists: Vec<String>,
    pub(crate) children: Vec<String>,
    pub(crate) persistent: Vec<String>,
    pub(crate) recursive: Vec<String>,
}

/// What a session is told in reply to a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    Get {
        /// Null is not empty.
        data: Option<Bytes>,
        stat: Stat,
    },
    Exists(Option<Stat>),
    Children {
        names: Vec<String>,
        stat: Stat,
    },
    Acl {
        acl: Vec<Acl>,
        stat: Stat,
    },
    Names(Vec<String>),
    /// Very many children, or names, that are not yet in order: see [`Answer::in_order`].
    Unsorted {
        names: Names,
        /// Of their parent, if they are children.
        stat: Option<Stat>,
    },
    Count(u32),
    Identities(Vec<Identity>),
    Many(Vec<Answer>),
    /// The outcome of a write.
    Wrote(Reply),
    Done,
    Refused(Refused),
    /// Refused by this member rather than by the rules of the tree.
    Declined(Declined),
}

/// Why a member does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Declined {
    /// The disks are nearly full.
    DiskFull,
    /// The answer would be larger than a frame may be.
    ReplyTooLarge,
    /// The member holds as many answers that are not yet sent as it may.
    Busy,
    /// There is no such watch.
    NoWatch,
    /// This session or this member holds as many watches as it may.
    TooManyWatches,
    /// The credential was not accepted.
    AuthFailed,
    /// The session is one of this member, which has no majority: it only reads what there is.
    OnlyReads,
}

/// What happened to a watched node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// The change that fired it; 0 for [`EventKind::Resync`].
    pub(crate) zxid: Zxid,
    pub(crate) kind: EventKind,
    pub(crate) path: Arc<str>,
    /// Found when watches were set again, rather than seen when it happened.
    pub(crate) caught_up: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Created,
    Deleted,
    DataChanged,
    ChildrenChanged,
    /// Changes below a persistent watch may have been missed.
    Resync,
}

/// So many names are brought in order while the copy is held.
const SORTED_AT_ONCE: usize = 1024;

/// Finding so much of a path takes about as long as to look at a node.
const PATH_BYTES_PER_WORK: usize = 64;

impl Rearm {
    /// Takes so many paths off the front, if there are more.
    pub(super) fn split_first(&mut self, paths_max: usize) -> Option<Self> {
        if self.paths() <= paths_max {
            return None;
        }
        let mut first = Self { since: self.since, ..Self::default() };
        let mut left = paths_max;
        for (from, to) in [
            (&mut self.data, &mut first.data),
            (&mut self.exists, &mut first.exists),
            (&mut self.children, &mut first.children),
            (&mut self.persistent, &mut first.persistent),
            (&mut self.recursive, &mut first.recursive),
        ] {
            let taken = left.min(from.len());
            to.extend(from.drain(..taken));
            left -= taken;
        }
        Some(first)
    }

    fn paths(&self) -> usize {
        [&self.data, &self.exists, &self.children, &self.persistent, &self.recursive].map(Vec::len).iter().sum()
    }
}

impl Event {
    /// About how many bytes it takes while it waits.
    pub(crate) fn bytes(&self) -> usize {
        size_of::<Self>() + self.path.len()
    }
}

/// More than a stat and its header take in a frame.
const STAT: usize = 80;

fn children_bytes(count: usize, name_bytes: usize) -> usize {
    STAT + name_bytes + 4 * count
}

impl Answer {
    /// About how many bytes it takes in a frame.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Get { data, .. } => STAT + data.as_ref().map_or(0, Bytes::len),
            Self::Children { names, .. } | Self::Names(names) => {
                children_bytes(names.len(), names.iter().map(String::len).sum())
            }
            Self::Unsorted { names, .. } => children_bytes(names.len(), names.bytes()),
            Self::Identities(identities) => {
                identities.iter().map(|identity| identity.scheme.len() + identity.id.len() + 8).sum()
            }
            Self::Many(answers) => answers.iter().map(Self::bytes).sum(),
            Self::Acl { acl, .. } => {
                STAT + acl.iter().map(|a| a.identity.scheme.len() + a.identity.id.len() + 12).sum::<usize>()
            }
            Self::Wrote(Reply::Created { path, .. }) => STAT + path.len(),
            Self::Wrote(Reply::Multi(replies)) => replies.len() * STAT,
            Self::Exists(_) | Self::Count(_) | Self::Wrote(_) | Self::Done | Self::Refused(_) | Self::Declined(_) => {
                STAT
            }
        }
    }

    /// About how many bytes it takes while it waits: many short texts take more than in a frame.
    pub(crate) fn held_bytes(&self) -> usize {
        const TEXT: usize = size_of::<String>() + 16;
        let besides = match self {
            Self::Children { names, .. } | Self::Names(names) => names.len() * TEXT,
            Self::Unsorted { names, .. } => names.len() * TEXT,
            Self::Acl { acl, .. } => acl.len() * 2 * TEXT,
            Self::Identities(identities) => identities.len() * 2 * TEXT,
            Self::Many(answers) => return answers.iter().map(Self::held_bytes).sum(),
            Self::Wrote(Reply::Multi(replies)) => {
                return size_of::<Self>() + replies.len() * (size_of::<Reply>() + TEXT);
            }
            _ => 0,
        };
        size_of::<Self>() + self.bytes() + besides
    }

    /// Children, or names, that the copy has given: in order, unless they are so many that this is left for later.
    fn of_names(names: Names, stat: Option<Stat>) -> Self {
        let unsorted = Self::Unsorted { names, stat };
        if unsorted.is_in_order() { unsorted.in_order() } else { unsorted }
    }

    /// Whether what must be in order is, or will soon be.
    pub(crate) fn is_in_order(&self) -> bool {
        match self {
            Self::Unsorted { names, .. } => names.len() <= SORTED_AT_ONCE,
            Self::Many(answers) => answers.iter().all(Self::is_in_order),
            _ => true,
        }
    }

    /// Brings in order what is not. Takes long where that is much, so no lock is held and no task waits for its turn
    /// meanwhile.
    pub(crate) fn in_order(self) -> Self {
        match self {
            Self::Unsorted { names, stat: Some(stat) } => Self::Children { names: names.into_sorted(), stat },
            Self::Unsorted { names, stat: None } => Self::Names(names.into_sorted()),
            Self::Many(answers) => Self::Many(answers.into_iter().map(Self::in_order).collect()),
            other => other,
        }
    }

    /// The answer itself, or a refusal in its place where no frame could carry it.
    fn within(self, reply_bytes_max: usize) -> Self {
        if self.bytes() > reply_bytes_max { Self::Declined(Declined::ReplyTooLarge) } else { self }
    }
}

/// The place a read is run at: a copy that stands still, and the watches that may be armed on it.
pub(crate) struct ReadContext<'a> {
    pub(crate) tree: &'a Tree,
    /// `None` where the caller knows that nothing is armed.
    pub(crate) watches: Option<&'a mut WatchTable>,
    pub(crate) conn: ConnId,
    pub(crate) reply_bytes_max: usize,
    /// What was looked at so far, in nodes, names and paths.
    pub(crate) work: usize,
}

impl Read {
    /// Whether running it needs the watch table.
    pub(crate) fn touches_watches(&self) -> bool {
        match self {
            Self::Get { watch, .. } | Self::Exists { watch, .. } | Self::Children { watch, .. } => *watch,
            Self::Acl { .. } | Self::Sync | Self::Ephemerals { .. } | Self::CountBelow { .. } => false,
            Self::Watch { .. } | Self::Unwatch { .. } | Self::HasWatch { .. } | Self::Rearm(_) => true,
            Self::Many(reads) => reads.iter().any(Self::touches_watches),
        }
    }

    fn path_bytes(&self) -> usize {
        match self {
            Self::Get { path, .. }
            | Self::Exists { path, .. }
            | Self::Children { path, .. }
            | Self::Acl { path }
            | Self::Watch { path, .. }
            | Self::Unwatch { path, .. }
            | Self::HasWatch { path, .. }
            | Self::CountBelow { path } => path.len(),
            // Those of `Many` are counted one by one.
            Self::Sync | Self::Ephemerals { .. } | Self::Many(_) | Self::Rearm(_) => 0,
        }
    }

    /// Answers from the copy. `fired` takes events that go before the answer.
    pub(crate) fn run(&self, context: &mut ReadContext<'_>, identities: &[Identity], fired: &mut Vec<Event>) -> Answer {
        context.work += 1 + self.path_bytes() / PATH_BYTES_PER_WORK;
        match self {
            Self::Get { path, watch } => context.get(path, *watch, identities),
            Self::Exists { path, watch } => context.exists(path, *watch, identities),
            Self::Children { path, watch } => context.children(path, *watch, identities),
            Self::Acl { path } => match context.tree.acl(path, identities) {
                Ok((acl, stat)) => Answer::Acl { acl, stat },
                Err(refused) => Answer::Refused(refused),
            },
            Self::Sync => Answer::Done,
            Self::Watch { path, recursive } => {
                let kind = if *recursive { WatchKind::Recursive } else { WatchKind::Persistent };
                context.arm(path, kind).map_or_else(Answer::Declined, |()| Answer::Done)
            }
            Self::Unwatch { path, kind } => {
                let conn = context.conn;
                if context.watches().remove(conn, path, *kind) {
                    Answer::Done
                } else {
                    Answer::Declined(Declined::NoWatch)
                }
            }
            Self::HasWatch { path, kind } => {
                let conn = context.conn;
                if context.watches().has(conn, path, *kind) {
                    Answer::Done
                } else {
                    Answer::Declined(Declined::NoWatch)
                }
            }
            Self::Ephemerals { session, prefix } => {
                context.work += context.tree.ephemeral_count(*session);
                let paths = context.tree.ephemeral_paths(*session, prefix);
                Answer::of_names(paths, None).within(context.reply_bytes_max)
            }
            Self::CountBelow { path } => {
                context.tree.count_below(path, identities).map_or_else(Answer::Refused, Answer::Count)
            }
            Self::Many(reads) => {
                let mut answers = Vec::with_capacity(reads.len());
                let mut bytes = 0;
                for read in reads {
                    let answer = read.run(context, identities, fired);
                    bytes += answer.bytes();
                    // One that is too large alone makes all of it too large.
                    if bytes > context.reply_bytes_max || answer == Answer::Declined(Declined::ReplyTooLarge) {
                        return Answer::Declined(Declined::ReplyTooLarge);
                    }
                    answers.push(answer);
                }
                Answer::Many(answers)
            }
            Self::Rearm(rearm) => context.rearm(rearm, identities, fired),
        }
    }
}

impl ReadContext<'_> {
    fn get(&mut self, path: &str, watch: bool, identities: &[Identity]) -> Answer {
        let (data, stat) = match self.tree.get(path, identities) {
            Ok(found) => found,
            Err(refused) => return Answer::Refused(refused),
        };
        if watch && let Err(declined) = self.arm(path, WatchKind::Data) {
            return Answer::Declined(declined);
        }
        Answer::Get { data, stat }.within(self.reply_bytes_max)
    }

    fn exists(&mut self, path: &str, watch: bool, identities: &[Identity]) -> Answer {
        let stat = match self.tree.stat(path, identities) {
            Ok(stat) => Some(stat),
            Err(Refused { reason: Refusal::NoNode, .. }) => None,
            Err(refused) => return Answer::Refused(refused),
        };
        if watch && let Err(declined) = self.arm(path, WatchKind::Data) {
            return Answer::Declined(declined);
        }
        Answer::Exists(stat)
    }

    fn children(&mut self, path: &str, watch: bool, identities: &[Identity]) -> Answer {
        match self.tree.children_extent(path, identities) {
            // Known before the names are looked at: asking for what cannot be had must cost little.
            Ok((count, name_bytes)) if children_bytes(count, name_bytes) > self.reply_bytes_max => {
                return Answer::Declined(Declined::ReplyTooLarge);
            }
            Ok((count, _)) => self.work += count,
            Err(refused) => return Answer::Refused(refused),
        }
        let (names, stat) = match self.tree.child_names(path, identities) {
            Ok(found) => found,
            Err(refused) => return Answer::Refused(refused),
        };
        if watch && let Err(declined) = self.arm(path, WatchKind::Children) {
            return Answer::Declined(declined);
        }
        Answer::of_names(names, Some(stat))
    }

    /// Sets watches again relative to what the client has seen: what it missed fires at once.
    fn rearm(&mut self, rearm: &Rearm, identities: &[Identity], fired: &mut Vec<Event>) -> Answer {
        self.work += rearm.paths();
        let mut due = Due { fired, since: rearm.since };
        for path in &rearm.data {
            let kind = match self.visible(path, identities) {
                Seen::Absent => Some((EventKind::Deleted, self.tree.zxid())),
                Seen::Hidden => None,
                Seen::Stat(stat) => due.newer(stat.mzxid).map(|zxid| (EventKind::DataChanged, zxid)),
            };
            if let Some(declined) = self.fire_or_arm(path, kind, WatchKind::Data, &mut due) {
                return Answer::Declined(declined);
            }
        }
        for path in &rearm.exists {
            let kind = match self.visible(path, identities) {
                Seen::Absent | Seen::Hidden => None,
                Seen::Stat(stat) => Some((EventKind::Created, stat.czxid)),
            };
            if let Some(declined) = self.fire_or_arm(path, kind, WatchKind::Data, &mut due) {
                return Answer::Declined(declined);
            }
        }
        for path in &rearm.children {
            let kind = match self.visible(path, identities) {
                Seen::Absent => Some((EventKind::Deleted, self.tree.zxid())),
                Seen::Hidden => None,
                Seen::Stat(stat) => due.newer(stat.pzxid).map(|zxid| (EventKind::ChildrenChanged, zxid)),
            };
            if let Some(declined) = self.fire_or_arm(path, kind, WatchKind::Children, &mut due) {
                return Answer::Declined(declined);
            }
        }
        // A persistent watch tells of every change, and those of the gap are not kept: say that there was one.
        let gap = (self.tree.zxid() > rearm.since).then_some((EventKind::Resync, Zxid(0)));
        for (paths, kind) in [(&rearm.persistent, WatchKind::Persistent), (&rearm.recursive, WatchKind::Recursive)] {
            for path in paths {
                if let Err(declined) = self.arm(path, kind) {
                    return Answer::Declined(declined);
                }
                if let Some((kind, zxid)) = gap {
                    due.fire(path, kind, zxid);
                }
            }
        }
        Answer::Done
    }

    fn fire_or_arm(
        &mut self,
        path: &str,
        event: Option<(EventKind, Zxid)>,
        kind: WatchKind,
        due: &mut Due<'_>,
    ) -> Option<Declined> {
        match event {
            Some((event, zxid)) => {
                due.fire(path, event, zxid);
                None
            }
            None => self.arm(path, kind).err(),
        }
    }

    /// What the client may know of a node. Catching up must not tell of nodes it could not read.
    fn visible(&self, path: &str, identities: &[Identity]) -> Seen {
        match self.tree.stat(path, identities) {
            Ok(stat) => Seen::Stat(stat),
            Err(Refused { reason: Refusal::NoNode, .. }) => Seen::Absent,
            Err(_) => Seen::Hidden,
        }
    }

    fn arm(&mut self, path: &str, kind: WatchKind) -> Result<(), Declined> {
        let conn = self.conn;
        self.watches().add(conn, path, kind)
    }

    fn watches(&mut self) -> &mut WatchTable {
        self.watches.as_deref_mut().expect("a read that touches watches is run with the watch table")
    }
}

enum Seen {
    Absent,
    Hidden,
    Stat(Stat),
}

struct Due<'a> {
    fired: &'a mut Vec<Event>,
    since: Zxid,
}

impl Due<'_> {
    fn newer(&self, zxid: Zxid) -> Option<Zxid> {
        (zxid > self.since).then_some(zxid)
    }

    fn fire(&mut self, path: &str, kind: EventKind, zxid: Zxid) {
        self.fired.push(Event { zxid, kind, path: path.into(), caught_up: true });
    }
}
