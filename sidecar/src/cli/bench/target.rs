//! A session with whatever is loaded, and the operations the workloads are made of.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{grpc::GrpcSession, workload, zookeeper::ZookeeperSession};
use crate::cli::exit::{Exit, Failure};

const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
/// Sessions that are being opened at the same time.
pub(super) const CONNECTING_MAX: usize = 64;
/// Nodes that are made in one transaction.
const TOGETHER: usize = 100;
/// Nodes that are being deleted at the same time.
const DELETING_MAX: usize = 256;

/// What is loaded.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// Endpoints; session i goes to the i-th, round and round.
    Grpc(Vec<String>),
    Zookeeper(Vec<String>),
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Create {
        path: String,
        data: Bytes,
        ephemeral: bool,
        sequential: bool,
    },
    /// The nodes of these numbers, all or none.
    CreateAll {
        folder: Arc<str>,
        keys: Range<usize>,
        data: Bytes,
    },
    Set {
        path: Arc<str>,
        data: Bytes,
    },
    Get {
        path: Arc<str>,
        linearizable: bool,
        /// So many are expected.
        bytes: usize,
    },
    Delete {
        path: String,
    },
}

/// An operation that was answered.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) slot: usize,
    /// When it was due, or begun.
    pub(super) since: Instant,
    pub(super) outcome: Result<(), String>,
}

/// A session and its connection.
pub(super) enum Session {
    Grpc(GrpcSession),
    Zookeeper(Box<ZookeeperSession>),
}

pub(super) fn broken(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Unreachable, format_args!("a session was lost: {error}"))
}

impl Target {
    pub(super) async fn connect(&self, session: usize) -> Result<Session, Failure> {
        self.connect_for(session, SESSION_TIMEOUT).await
    }

    pub(super) async fn connect_for(&self, session: usize, session_timeout: Duration) -> Result<Session, Failure> {
        Ok(match self {
            Self::Grpc(endpoints) => {
                Session::Grpc(GrpcSession::open(&endpoints[session % endpoints.len()], session_timeout).await?)
            }
            Self::Zookeeper(servers) => {
                let server = &servers[session % servers.len()];
                let session = ZookeeperSession::open(server, session_timeout).await;
                let failure = |error| {
                    Failure::new(Exit::Unreachable, format_args!("no session with {server}: {error}"))
                        .next("is a ZooKeeper server or the ZooKeeper door of a member there?")
                };
                Session::Zookeeper(Box::new(session.map_err(failure)?))
            }
        })
    }

    pub(super) fn members(&self) -> usize {
        match self {
            Self::Grpc(addresses) | Self::Zookeeper(addresses) => addresses.len(),
        }
    }

    /// So many sessions, spread over all members, each of which has seen what is there.
    pub(super) async fn connect_all(&self, sessions: usize, folder: &str) -> Result<Vec<Session>, Failure> {
        let opening = (0..sessions).map(|at| async move {
            let mut session = self.connect(at).await?;
            session.catch_up(folder).await?;
            Ok(session)
        });
        futures_util::stream::iter(opening).buffered(CONNECTING_MAX).try_collect().await
    }
}

impl Session {
    /// Begins an operation; its answer comes from [`Session::next`].
    pub(super) fn start(&mut self, op: Op, slot: usize, since: Instant) {
        match self {
            Self::Grpc(session) => session.start(op, slot, since),
            Self::Zookeeper(session) => session.start(&op, slot, since),
        }
    }

    /// Sends what was begun and waits for at least one answer, if any is due.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self, done: &mut Vec<Done>) -> Result<(), Failure> {
        match self {
            Self::Grpc(session) => {
                session.next(done).await;
                Ok(())
            }
            Self::Zookeeper(session) => session.next(done).await.map_err(broken),
        }
    }

    /// Does one thing.
    pub(super) async fn call(&mut self, op: Op) -> Result<(), Failure> {
        self.start(op, 0, Instant::now());
        let mut done = Vec::new();
        while done.is_empty() {
            self.next(&mut done).await?;
        }
        match done.remove(0).outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(Failure::new(Exit::Refused, error)),
        }
    }

    /// Makes a node without data.
    pub(super) async fn create(&mut self, path: &str) -> Result<(), Failure> {
        self.call(Op::Create { path: path.into(), data: Bytes::new(), ephemeral: false, sequential: false }).await
    }

    pub(super) async fn make_parents(&mut self, path: &str) -> Result<(), Failure> {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        for end in ends {
            // It may be there already; what else is wrong shows in what comes next.
            let _ = self.create(&path[..end]).await;
        }
        Ok(())
    }

    /// Sees everything that was done before this was called.
    async fn catch_up(&mut self, folder: &str) -> Result<(), Failure> {
        self.call(Op::Get { path: folder.into(), linearizable: true, bytes: 0 }).await
    }

    /// Makes nodes, many in a transaction and some transactions at a time. Tells how many were made, in which time.
    pub(super) async fn fill(
        &mut self,
        folder: &str,
        keys: usize,
        value_size: usize,
        in_flight: usize,
        mut made: impl FnMut(usize, Duration),
    ) -> Result<(), Failure> {
        let folder: Arc<str> = folder.into();
        let data = Bytes::from(vec![b'x'; value_size]);
        let (mut next, mut under_way) = (0, 0);
        let mut done = Vec::new();
        while next < keys || under_way > 0 {
            while next < keys && under_way < in_flight {
                let some = next..(next + TOGETHER).min(keys);
                next = some.end;
                under_way += 1;
                let op = Op::CreateAll { folder: folder.clone(), keys: some.clone(), data: data.clone() };
                self.start(op, some.len(), Instant::now());
            }
            self.next(&mut done).await?;
            under_way -= done.len();
            for Done { slot: nodes, since, outcome } in done.drain(..) {
                let refused = |error| Failure::new(Exit::Refused, format_args!("the nodes cannot be made: {error}"));
                outcome.map_err(refused)?;
                made(nodes, since.elapsed());
            }
        }
        Ok(())
    }

    /// Deletes what [`fill`](Self::fill) made, as far as it is there.
    pub(super) async fn delete_keys(&mut self, folder: &str, keys: usize) -> Result<(), Failure> {
        for first in (0..keys).step_by(DELETING_MAX) {
            let some: Vec<_> = (first..keys.min(first + DELETING_MAX)).map(|at| workload::key(folder, at)).collect();
            self.delete_all(&some).await?;
        }
        Ok(())
    }

    /// Deletes everything below a node, and the node.
    pub(super) async fn delete_tree(&mut self, path: &str) -> Result<(), Failure> {
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            let names = self.children(&path).await?;
            if names.is_empty() {
                self.call(Op::Delete { path }).await?;
                continue;
            }
            let below: Vec<_> = names.into_iter().map(|name| format!("{path}/{name}")).collect();
            open.push(path);
            // Most have no children, and are deleted unseen; those that are left have, or cannot be deleted.
            for some in below.chunks(DELETING_MAX) {
                let left = self.delete_all(some).await?;
                open.extend(left.into_iter().map(|at| some[at].clone()));
            }
        }
        Ok(())
    }

    /// Which of them could not be deleted.
    async fn delete_all(&mut self, paths: &[String]) -> Result<Vec<usize>, Failure> {
        for (at, path) in paths.iter().enumerate() {
            self.start(Op::Delete { path: path.clone() }, at, Instant::now());
        }
        let mut done = Vec::new();
        while done.len() < paths.len() {
            self.next(&mut done).await?;
        }
        Ok(done.into_iter().filter(|done| done.outcome.is_err()).map(|done| done.slot).collect())
    }

    /// Shows that the session lives.
    pub(super) async fn keep_alive(&mut self) -> Result<(), Failure> {
        match self {
            Self::Grpc(session) => session.is_kept(),
            Self::Zookeeper(session) => session.ping().await.map_err(broken),
        }
    }

    pub(super) async fn children(&mut self, path: &str) -> Result<Vec<String>, Failure> {
        match self {
            Self::Grpc(session) => session.children(path).await,
            Self::Zookeeper(session) => session.children(path).await.map_err(broken),
        }
    }

    pub(super) async fn close(self) {
        match self {
            Self::Grpc(session) => session.close().await,
            Self::Zookeeper(session) => session.close().await,
        }
    }
}
