//! A session with whatever is loaded, and the operations the workloads are made of.

use std::time::Instant;

use bytes::Bytes;

use super::{grpc::GrpcSession, workload::key, zookeeper::ZookeeperSession};
use crate::cli::exit::{Exit, Failure};

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
    Create { path: String, data: Bytes, ephemeral: bool, sequential: bool },
    Set { path: String, data: Bytes },
    Get { path: String, linearizable: bool },
    Delete { path: String },
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
        Ok(match self {
            Self::Grpc(endpoints) => Session::Grpc(GrpcSession::open(&endpoints[session % endpoints.len()]).await?),
            Self::Zookeeper(servers) => {
                let server = &servers[session % servers.len()];
                let session = ZookeeperSession::open(server).await;
                let failure = |error| {
                    Failure::new(Exit::Unreachable, format_args!("no session with {server}: {error}"))
                        .next("is a ZooKeeper server or the ZooKeeper door of a member there?")
                };
                Session::Zookeeper(Box::new(session.map_err(failure)?))
            }
        })
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

    /// Sends what was begun.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        match self {
            Self::Grpc(_) => Ok(()),
            Self::Zookeeper(session) => session.flush().await.map_err(broken),
        }
    }

    /// Waits for at least one answer, if any is due.
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
        self.flush().await?;
        let mut done = Vec::new();
        while done.is_empty() {
            self.next(&mut done).await?;
        }
        match done.remove(0).outcome {
            Ok(()) => Ok(()),
            Err(error) => Err(Failure::new(Exit::Refused, error)),
        }
    }

    pub(super) async fn make_parents(&mut self, path: &str) -> Result<(), Failure> {
        let ends = path.match_indices('/').map(|(at, _)| at).skip(1).chain([path.len()]);
        for end in ends {
            let path = path[..end].to_owned();
            let create = Op::Create { path, data: Bytes::new(), ephemeral: false, sequential: false };
            // It may be there already; what else is wrong shows in what comes next.
            let _ = self.call(create).await;
        }
        Ok(())
    }

    /// Makes the nodes that are read and set.
    pub(super) async fn fill(&mut self, folder: &str, keys: usize, value_size: usize) -> Result<(), Failure> {
        const TOGETHER: usize = 64;
        let data = Bytes::from(vec![b'x'; value_size]);
        let mut done = Vec::new();
        for first in (0..keys).step_by(TOGETHER) {
            let last = (first + TOGETHER).min(keys);
            for at in first..last {
                let op = Op::Create { path: key(folder, at), data: data.clone(), ephemeral: false, sequential: false };
                self.start(op, 0, Instant::now());
            }
            self.flush().await?;
            done.clear();
            while done.len() < last - first {
                self.next(&mut done).await?;
            }
            if let Some(error) = done.iter().find_map(|done| done.outcome.as_ref().err()) {
                return Err(Failure::new(Exit::Refused, format_args!("the nodes to read cannot be made: {error}")));
            }
        }
        Ok(())
    }

    /// Deletes everything below a node, and the node.
    pub(super) async fn delete_tree(&mut self, path: &str) -> Result<(), Failure> {
        let mut open = vec![path.to_owned()];
        let mut found = Vec::new();
        while let Some(path) = open.pop() {
            open.extend(self.children(&path).await?.into_iter().map(|name| format!("{path}/{name}")));
            found.push(path);
        }
        let mut done = Vec::new();
        // What was found later lies deeper; a level is deleted before the one above it.
        found.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
        for some in found.chunks(256) {
            for path in some {
                self.start(Op::Delete { path: path.clone() }, 0, Instant::now());
            }
            self.flush().await?;
            done.clear();
            while done.len() < some.len() {
                self.next(&mut done).await?;
            }
        }
        Ok(())
    }

    async fn children(&mut self, path: &str) -> Result<Vec<String>, Failure> {
        match self {
            Self::Grpc(session) => session.children(path).await,
            Self::Zookeeper(session) => session.children(path, false).await.map_err(broken),
        }
    }

    pub(super) async fn close(self) {
        match self {
            Self::Grpc(session) => session.close().await,
            Self::Zookeeper(session) => session.close().await,
        }
    }
}
