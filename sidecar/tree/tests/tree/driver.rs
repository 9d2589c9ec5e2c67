//! Drives one tree as a member would.

use bytes::Bytes;
use quorate_tree::{
    Acl, Applied, Author, Change, Check, Command, Create, CreateMode, Delete, Identity, Lane, Limits, MemberId,
    MultiOp, Op, Outcome, Permissions, Refusal, Reply, SessionId, SetAcl, SetData, Stat, Tree, WriteNumber, Zxid,
};

pub(crate) const PASSWORD: Bytes = Bytes::from_static(b"0123456789abcdef");

/// A tree with a member that proposes to it.
pub(crate) struct Driver {
    pub(crate) tree: Tree,
    pub(crate) now_ms: i64,
    lane: Lane,
}

/// What became of a command that had its turn.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) zxid: Zxid,
    pub(crate) outcome: Outcome,
    pub(crate) changes: Vec<Change>,
}

impl Driver {
    pub(crate) fn new() -> Self {
        Self::with_limits(Limits::DEFAULT)
    }

    pub(crate) fn with_limits(limits: Limits) -> Self {
        let lane = Lane { member: MemberId(1), incarnation: 1, seq: 0 };
        Self { tree: Tree::new(limits), now_ms: 1_000, lane }
    }

    /// Applies an operation in its turn, and checks the digest.
    pub(crate) fn apply(&mut self, author: &Author, op: Op) -> Done {
        self.lane.seq += 1;
        self.now_ms += 1;
        let command = Command { lane: self.lane, stamp_ms: self.now_ms, author: author.clone(), op };
        let applied = self.tree.apply(&command);
        let Applied::Fresh { zxid, outcome, changes } = applied else { panic!("it is its turn: {applied:?}") };
        assert_eq!(self.tree.digest(), self.tree.digest_recomputed(), "after {command:?}");
        Done { zxid, outcome, changes }
    }

    /// What [`Driver::apply`] would apply next.
    pub(crate) fn next_command(&self, author: &Author, op: Op) -> Command {
        let lane = Lane { seq: self.lane.seq + 1, ..self.lane };
        Command { lane, stamp_ms: self.now_ms + 1, author: author.clone(), op }
    }

    pub(crate) fn own(&mut self, op: Op) -> Done {
        self.apply(&Author::default(), op)
    }

    pub(crate) fn open(&mut self) -> Author {
        let op = Op::OpenSession { timeout_ms: 10_000, password: PASSWORD, client_name: "test".into() };
        match self.own(op).outcome {
            Ok(Reply::Opened { session, attachment, .. }) => author(session, attachment),
            other => panic!("a session opens: {other:?}"),
        }
    }

    pub(crate) fn create(&mut self, author: &Author, path: &str, mode: CreateMode) -> String {
        match self.apply(author, Op::Create(create(path, mode))).outcome {
            Ok(Reply::Created { path, .. }) => path,
            other => panic!("{path} can be created: {other:?}"),
        }
    }

    /// Does what must not be refused.
    #[track_caller]
    pub(crate) fn accepted(&mut self, author: &Author, op: Op) -> Reply {
        let done = self.apply(author, op.clone());
        done.outcome.unwrap_or_else(|refused| panic!("{op:?}: {refused:?}"))
    }

    #[track_caller]
    pub(crate) fn refused(&mut self, author: &Author, op: Op, reason: Refusal) {
        let done = self.apply(author, op.clone());
        assert_eq!(done.outcome.unwrap_err().reason, reason, "{op:?}");
        assert_eq!(done.changes, [], "what is refused changes nothing");
    }

    pub(crate) fn stat(&self, path: &str) -> Stat {
        self.tree.stat(path, &[Identity::superuser()]).unwrap_or_else(|refused| panic!("{path}: {refused:?}"))
    }

    pub(crate) fn children(&self, path: &str) -> Vec<String> {
        self.tree.children(path, &[Identity::superuser()]).unwrap().0
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.tree.stat(path, &[Identity::superuser()]).is_ok()
    }
}

pub(crate) fn author(session: SessionId, attachment: u64) -> Author {
    Author { session, attachment, write: None, identities: [].into() }
}

pub(crate) fn named(author: &Author, identities: &[Identity]) -> Author {
    Author { identities: identities.into(), ..author.clone() }
}

pub(crate) fn numbered(author: &Author, number: u64, answered: u64) -> Author {
    Author { write: Some(WriteNumber { number, answered }), ..author.clone() }
}

pub(crate) fn create(path: &str, mode: CreateMode) -> Create {
    Create { path: path.into(), data: Some(Bytes::new()), mode, acl: vec![Acl::open()] }
}

pub(crate) fn set(path: &str, data: &'static str, version: i32) -> SetData {
    SetData { path: path.into(), data: Some(Bytes::from_static(data.as_bytes())), version }
}

pub(crate) fn set_acl(path: &str, acl: Vec<Acl>, version: i32) -> SetAcl {
    SetAcl { path: path.into(), acl, version }
}

pub(crate) fn identity(scheme: &str, id: &str) -> Identity {
    Identity { scheme: scheme.into(), id: id.into() }
}

pub(crate) fn entry(permissions: Permissions, scheme: &str, id: &str) -> Acl {
    Acl { permissions, identity: identity(scheme, id) }
}

pub(crate) fn delete(path: &str, version: i32) -> Delete {
    Delete { path: path.into(), version }
}

pub(crate) fn check(path: &str, version: i32) -> MultiOp {
    MultiOp::Check(Check { path: path.into(), version })
}
