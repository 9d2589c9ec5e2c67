//! A session over ZooKeeper's protocol, with as little between it and the socket as that allows: the generator shares
//! the machine with what it loads.

use std::{
    io,
    ops::Range,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quorate_wire::{
    Acl, Create, CreateKind, Delete, ErrorCode, GetPath, MultiOp, OpResult, Request, Response, SetData, SetWatches,
    create_flags,
};
use tokio::time::timeout;

use super::{
    target::{Done, Op, broken},
    workload::key,
};
use crate::cli::{
    exit::{Exit, Failure},
    zookeeper::{Connection, Heard},
};

/// A server that says nothing for this long while an answer is due will not say anything any more.
const WITHIN: Duration = Duration::from_secs(60);
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct ZookeeperSession {
    connection: Connection<Note>,
    /// Why the first half of a linearizable read was refused, until the second is answered.
    refused: Option<ErrorCode>,
    /// How many came that nobody has waited for.
    events: usize,
    pongs: usize,
    acl: Vec<Acl>,
}

/// What a request is.
#[derive(Clone, Copy, Debug)]
enum Note {
    /// The first half of a linearizable read: the node's member catches up.
    Sync,
    Op {
        slot: usize,
        since: Instant,
        /// How much data is expected, where some is.
        bytes: Option<usize>,
    },
    /// The only one in flight.
    Call,
}

impl ZookeeperSession {
    pub(super) async fn open(server: &str, session_timeout: Duration) -> io::Result<Self> {
        let timeout_ms = i32::try_from(session_timeout.as_millis()).unwrap_or(i32::MAX);
        let (connection, _granted) = timeout(WITHIN, Connection::open(server, timeout_ms, false)).await??;
        let acl = vec![Acl { permissions: 31, scheme: "world".into(), id: Some("anyone".into()) }];
        Ok(Self { connection, refused: None, events: 0, pongs: 0, acl })
    }

    fn creation<'a>(&self, path: &'a str, data: Bytes, flags: i32) -> Create<'a> {
        let acl = self.acl.clone();
        Create { kind: CreateKind::Create, path: path.into(), data: Some(data), acl, flags, ttl_ms: 0 }
    }

    /// Begins an operation; its answer comes from [`ZookeeperSession::next`].
    pub(super) fn start(&mut self, op: &Op, slot: usize, since: Instant) {
        let mut bytes = None;
        let request = match op {
            Op::Create { path, data, ephemeral, sequential } => {
                let flags = match (ephemeral, sequential) {
                    (false, false) => create_flags::PERSISTENT,
                    (true, false) => create_flags::EPHEMERAL,
                    (false, true) => create_flags::PERSISTENT_SEQUENTIAL,
                    (true, true) => create_flags::EPHEMERAL_SEQUENTIAL,
                };
                Request::Create(self.creation(path, data.clone(), flags))
            }
            Op::CreateAll { folder, keys, data } => {
                let paths: Vec<_> = keys.clone().map(|at| key(folder, at)).collect();
                let creations = paths.iter().map(|path| {
                    let creation = self.creation(path, data.clone(), create_flags::PERSISTENT);
                    MultiOp::Create(creation)
                });
                let request = Request::Multi(creations.collect());
                return self.connection.ask(&request, Note::Op { slot, since, bytes });
            }
            Op::Set { path, data } => {
                Request::SetData(SetData { path: (&**path).into(), data: Some(data.clone()), version: -1 })
            }
            Op::Get { path, linearizable, bytes: expected } => {
                bytes = Some(*expected);
                if *linearizable {
                    self.connection.ask(&Request::Sync { path: Some((&**path).into()) }, Note::Sync);
                }
                Request::GetData(GetPath { path: (&**path).into(), watch: false })
            }
            Op::Delete { path } => Request::Delete(Delete { path: path.into(), version: -1 }),
        };
        self.connection.ask(&request, Note::Op { slot, since, bytes });
    }

    /// Sends what was begun and waits for at least one answer, if any is due.
    ///
    /// Cancel safe.
    pub(super) async fn next(&mut self, done: &mut Vec<Done>) -> io::Result<()> {
        if self.connection.unanswered() == 0 {
            return std::future::pending().await;
        }
        let before = done.len();
        loop {
            while let Some((note, result)) = self.hear()? {
                match note {
                    Note::Sync => self.refused = result.err(),
                    Note::Op { slot, since, bytes } => {
                        let result = self.refused.take().map_or(result, Err);
                        done.push(Done { slot, since, outcome: checked(result, bytes) });
                    }
                    Note::Call => {}
                }
            }
            if done.len() > before {
                return Ok(());
            }
            timeout(WITHIN, self.connection.exchange()).await??;
        }
    }

    /// The next answer that has come; what else has come before it is counted.
    fn hear(&mut self) -> io::Result<Option<(Note, Result<Response, ErrorCode>)>> {
        loop {
            match self.connection.hear()? {
                None => return Ok(None),
                Some(Heard::Answer(note, result)) => return Ok(Some((note, result))),
                Some(Heard::Event) => self.events += 1,
                Some(Heard::Pong) => self.pongs += 1,
            }
        }
    }

    /// Asks one thing while nothing else is in flight.
    async fn call(&mut self, request: Request<'_>) -> io::Result<Result<Response, ErrorCode>> {
        self.connection.ask(&request, Note::Call);
        loop {
            if let Some((_, result)) = self.hear()? {
                return Ok(result);
            }
            timeout(WITHIN, self.connection.exchange()).await??;
        }
    }

    pub(super) async fn children(&mut self, path: &str) -> io::Result<Vec<String>> {
        match self.call(Request::GetChildren(GetPath { path: path.into(), watch: false })).await? {
            Ok(Response::Names(names)) => Ok(names),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a node with a number behind its name; its path.
    pub(super) async fn create_in_line(&mut self, path: &str) -> io::Result<String> {
        let create = self.creation(path, Bytes::new(), create_flags::EPHEMERAL_SEQUENTIAL);
        match self.call(Request::Create(create)).await? {
            Ok(Response::Path(Some(path))) => Ok(path),
            other => Err(unexpected(&other)),
        }
    }

    /// Whether the node is there; if it is, its next change will be told.
    pub(super) async fn watch(&mut self, path: &str) -> io::Result<bool> {
        match self.call(Request::GetData(GetPath { path: path.into(), watch: true })).await? {
            Ok(Response::Data { .. }) => Ok(true),
            Err(ErrorCode::NO_NODE) => Ok(false),
            other => Err(unexpected(&other)),
        }
    }

    /// Watches nodes of these numbers that are not there.
    pub(super) async fn watch_absent(&mut self, folder: &str, keys: Range<usize>) -> Result<(), Failure> {
        for at in keys {
            let path = key(folder, at).into();
            self.connection.ask(&Request::Exists(GetPath { path, watch: true }), Note::Call);
        }
        self.answers(|answer| matches!(answer, Err(ErrorCode::NO_NODE))).await
    }

    /// The same, as after a lost connection.
    pub(super) async fn watch_again(&mut self, folder: &str, keys: Range<usize>) -> Result<(), Failure> {
        let exist = keys.map(|at| key(folder, at).into()).collect();
        let (data, child, persistent, recursive) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let watches = SetWatches { relative_zxid: i64::MAX, data, exist, child, persistent, recursive };
        self.connection.ask(&Request::SetWatches(watches), Note::Call);
        self.answers(|answer| matches!(answer, Ok(Response::Empty))).await
    }

    /// Waits until all is answered as it must be.
    async fn answers(&mut self, as_it_must: impl Fn(&Result<Response, ErrorCode>) -> bool) -> Result<(), Failure> {
        while self.connection.unanswered() > 0 {
            match self.hear().map_err(broken)? {
                Some((_, answer)) if as_it_must(&answer) => {}
                Some((_, answer)) => return Err(Failure::new(Exit::Refused, unexpected(&answer))),
                None => timeout(WITHIN, self.connection.exchange()).await.map_err(broken)?.map_err(broken)?,
            }
        }
        Ok(())
    }

    /// Waits for the next event.
    pub(super) async fn event(&mut self) -> io::Result<()> {
        loop {
            if self.events > 0 {
                self.events -= 1;
                return Ok(());
            }
            if self.hear()?.is_none() && self.events == 0 {
                timeout(WITHIN, self.connection.exchange()).await??;
            }
        }
    }

    pub(super) async fn delete(&mut self, path: &str) -> io::Result<()> {
        let deleted = self.call(Request::Delete(Delete { path: path.into(), version: -1 })).await?;
        deleted.map(drop).map_err(|code| unexpected(&Err(code)))
    }

    /// Sends a sign of life and waits for the answer.
    pub(super) async fn ping(&mut self) -> io::Result<()> {
        self.connection.ping();
        loop {
            if self.pongs > 0 {
                self.pongs -= 1;
                return Ok(());
            }
            if self.hear()?.is_none() && self.pongs == 0 {
                timeout(WITHIN, self.connection.exchange()).await??;
            }
        }
    }

    pub(super) async fn close(mut self) {
        // What is not closed goes with its timeout.
        let _ = timeout(CLOSE_WITHIN, self.call(Request::CloseSession)).await;
    }
}

/// An answer that is what was asked for.
fn checked(result: Result<Response, ErrorCode>, bytes: Option<usize>) -> Result<(), String> {
    match (result, bytes) {
        (Err(code), _) => Err(format!("{code:?}")),
        (Ok(Response::Data { data, .. }), Some(bytes)) => {
            let came = data.map_or(0, |data| data.len());
            if came == bytes { Ok(()) } else { Err(format!("{came} bytes of data came, not {bytes}")) }
        }
        (Ok(Response::Multi(results)), None) => {
            let refused = results.iter().find(|result| matches!(result, OpResult::Failed(_)));
            refused.map_or(Ok(()), |refused| Err(format!("{refused:?}")))
        }
        (Ok(_), None) => Ok(()),
        (Ok(other), Some(_)) => Err(format!("{other:?}")),
    }
}

fn unexpected(answer: &Result<Response, ErrorCode>) -> io::Error {
    io::Error::other(format!("the answer is {answer:?}"))
}
