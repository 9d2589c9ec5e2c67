//! Some sessions on both servers at once, each doing the same on both, and what they are told compared.

mod quotas;
mod reaping;

use std::{
    collections::{BTreeMap, VecDeque},
    env,
    fmt::Write as _,
    fs::File,
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::{Bytes, BytesMut};
use quorate_wire::{ConnectRequest, Encoder as _, ErrorCode, OpCode, PASSWORD_BYTES};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    ask::{Ask, Draw, authenticate, create, delete, read},
    compare::Known,
    connection::{Connection, Incoming},
    differences,
    servers::{Reaping, SUPER, Server, TICK_MS, TIMEOUT_MS_MAX, pause},
};

/// Sessions that do something. One more looks after the world, and is never lost.
const SESSIONS: usize = 4;
const KEEPER: usize = SESSIONS;

/// Steps that a difference is printed with.
const STEPS_SHOWN: usize = 25;

/// What sessions ask for that are not to end by themselves, and what those ask for that are.
const LONG_MS: i32 = i32::MAX;
const SHORT_MS: i32 = 1;

/// Both servers, and what goes on between them and the clients.
pub(crate) struct World<'a> {
    servers: [&'a Server; 2],
    reaping: Reaping,
    rng: StdRng,
    known: Known,
    slots: Vec<Slot>,
    history: VecDeque<String>,
    /// All steps, where somebody wants them.
    log: Option<File>,
    step: usize,
    guards: usize,
    /// The subtrees that have a quota, and whether it refuses what is too much.
    quotas: BTreeMap<&'static str, bool>,
    /// What was compared, for the report.
    pub(crate) counts: Counts,
}

/// How much was compared.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) replies: usize,
    pub(crate) refusals: usize,
    pub(crate) events: usize,
    pub(crate) sessions: usize,
    pub(crate) resumed: usize,
    pub(crate) expired: usize,
    pub(crate) quotas: usize,
    /// Refused by a quota.
    pub(crate) too_much: usize,
    pub(crate) reaped: usize,
}

impl Counts {
    /// Whether there was something of every kind that a run with such a reaping is for.
    pub(crate) fn has_met_all(&self, reaping: Reaping) -> bool {
        match reaping {
            Reaping::Soon => self.reaped > 0,
            Reaping::Never => {
                let kinds = [
                    self.replies,
                    self.refusals,
                    self.events,
                    self.sessions,
                    self.resumed,
                    self.expired,
                    self.quotas,
                    self.too_much,
                ];
                kinds.iter().all(|count| *count > 0)
            }
        }
    }
}

/// A session on both servers.
struct Slot {
    ids: [i64; 2],
    passwords: [[u8; PASSWORD_BYTES]; 2],
    connections: Option<[Connection; 2]>,
    xid: i32,
    /// Credentials to send again after a reconnect.
    credentials: Vec<Ask>,
    /// Came while something else was waited for.
    early: [Vec<Incoming>; 2],
}

/// Events whose order within one change is nobody's promise: that of the ephemerals of a session that ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Exact,
    AnyWithinChange,
}

impl Slot {
    fn new() -> Self {
        Self {
            ids: [0; 2],
            passwords: [[0; PASSWORD_BYTES]; 2],
            connections: None,
            xid: 0,
            credentials: Vec::new(),
            early: [Vec::new(), Vec::new()],
        }
    }

    fn has_session(&self) -> bool {
        self.ids != [0, 0]
    }

    fn next_xid(&mut self) -> i32 {
        self.xid += 1;
        self.xid
    }
}

impl<'a> World<'a> {
    pub(crate) fn new(servers: [&'a Server; 2], reaping: Reaping, seed: u64) -> Result<Self> {
        let mut world = Self {
            servers,
            reaping,
            rng: StdRng::seed_from_u64(seed),
            known: Known::default(),
            slots: (0..=SESSIONS).map(|_| Slot::new()).collect(),
            history: VecDeque::new(),
            log: env::var_os("QUORATE_DIFFERENTIAL_LOG").map(File::create).transpose()?,
            step: 0,
            guards: 0,
            quotas: BTreeMap::new(),
            counts: Counts::default(),
        };
        world.connect(KEEPER, LONG_MS)?;
        world.exchange(KEEPER, vec![authenticate("digest", SUPER)])?;
        Ok(world)
    }

    /// Does some steps, and tells the last ones if they were answered differently.
    pub(crate) fn run(&mut self, steps: usize) -> Result<()> {
        for _ in 0..steps {
            self.step += 1;
            self.step().map_err(|error| {
                let mut report = format!("{error:#}\nat step {}; the last ones were:\n", self.step);
                for step in &self.history {
                    let _ = writeln!(report, "{step}");
                }
                for server in self.servers {
                    let _ = writeln!(report, "--- {} said:\n{}", server.name, server.log());
                }
                anyhow!(report)
            })?;
        }
        Ok(())
    }

    fn note(&mut self, text: String) {
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "{:6} {text}", self.step);
        }
        self.history.push_back(format!("{:6} {text}", self.step));
        if self.history.len() > STEPS_SHOWN {
            self.history.pop_front();
        }
    }

    fn step(&mut self) -> Result<()> {
        let slot = self.rng.random_range(0..SESSIONS);
        if !self.slots[slot].has_session() {
            return self.connect(slot, LONG_MS);
        }
        if self.slots[slot].connections.is_none() {
            return match self.rng.random_range(0..10) {
                0 => self.wrong_password(slot),
                1 => self.seen_the_future(slot),
                _ => self.resume(slot),
            };
        }
        if self.reaping == Reaping::Soon && self.rng.random_range(0..12) == 0 {
            return self.reap();
        }
        match self.rng.random_range(0..2000) {
            0..3 => self.expire(slot),
            3..9 => self.clean(),
            9..40 => {
                self.note(format!("session {slot} loses its connections"));
                self.slots[slot].connections = None;
                self.settle(Order::Exact, None)
            }
            40..60 => self.resume(slot),
            60..70 => self.bad_frame(slot),
            1990.. => self.set_watches(slot),
            70..190 => {
                let burst = self.burst();
                self.exchange(slot, burst)
            }
            190..300 => {
                let ask = self.draw().special();
                self.exchange(slot, vec![ask])
            }
            300..320 => {
                let ask = self.draw().request();
                self.exchange(KEEPER, vec![ask])
            }
            320..370 => self.change_quota(),
            _ => {
                let ask = self.draw().request();
                self.exchange(slot, vec![ask])
            }
        }
    }

    fn draw(&mut self) -> Draw<'_> {
        Draw {
            rng: &mut self.rng,
            known: &self.known,
            alone: true,
            containers: self.reaping == Reaping::Never,
            hard_limits: self.quotas.values().any(|hard| *hard),
        }
    }

    /// Requests that are sent without waiting for answers.
    fn burst(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        for _ in 0..self.rng.random_range(2..25) {
            let mut draw = Draw { alone: false, ..self.draw() };
            let ask = draw.request();
            let last = differences::ends_burst(&ask, draw.hard_limits);
            asks.push(ask);
            if last {
                break;
            }
        }
        asks
    }

    /// Opens a session.
    fn connect(&mut self, slot: usize, timeout_ms: i32) -> Result<()> {
        let read_only = [None, Some(false)][self.rng.random_range(0..2)];
        let password = [Bytes::new(), Bytes::from_static(&[0; PASSWORD_BYTES])][self.rng.random_range(0..2)].clone();
        self.note(format!("session {slot} begins: timeout {timeout_ms}, read_only {read_only:?}"));
        let mut connections = Vec::new();
        let mut granted = Vec::new();
        for server in self.servers {
            let mut connection = Connection::open(server.address)?;
            let request = ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: 0,
                timeout_ms,
                session_id: 0,
                password: password.clone(),
                read_only,
            };
            let answer = connection.handshake(&request)?.with_context(|| format!("{} refused", server.name))?;
            ensure!(answer.session_id != 0 && answer.password != [0; PASSWORD_BYTES], "no session: {answer:?}");
            connections.push(connection);
            granted.push(answer);
        }
        let told = |at: usize| (granted[at].timeout_ms, granted[at].read_only);
        ensure!(told(0) == told(1), "granted {granted:?}");
        let ids = [granted[0].session_id, granted[1].session_id];
        self.known.same_session(ids)?;
        self.counts.sessions += 1;
        self.slots[slot] = Slot {
            ids,
            passwords: [granted[0].password, granted[1].password],
            connections: Some(pair(connections)),
            xid: if self.rng.random_range(0..20) == 0 { i32::MAX - 5000 } else { 0 },
            ..Slot::new()
        };
        self.settle(Order::Exact, None)
    }

    fn resume_request(&self, slot: usize, side: usize, timeout_ms: i32, last_zxid_seen: i64) -> ConnectRequest {
        let slot = &self.slots[slot];
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen,
            timeout_ms,
            session_id: slot.ids[side],
            password: Bytes::copy_from_slice(&slot.passwords[side]),
            read_only: Some(false),
        }
    }

    /// Comes back with a session, maybe while its connection is there still, and with its credentials and watches.
    fn resume(&mut self, slot: usize) -> Result<()> {
        self.note(format!("session {slot} comes back (connected: {})", self.slots[slot].connections.is_some()));
        let old = self.slots[slot].connections.take();
        let mut connections = Vec::new();
        for side in 0..2 {
            let mut connection = Connection::open(self.servers[side].address)?;
            let answer = connection
                .handshake(&self.resume_request(slot, side, LONG_MS, 0))?
                .with_context(|| format!("{} refused", self.servers[side].name))?;
            ensure!(answer.session_id == self.slots[slot].ids[side], "{}: {answer:?}", self.servers[side].name);
            ensure!(answer.password == self.slots[slot].passwords[side], "another password");
            ensure!(answer.timeout_ms == TIMEOUT_MS_MAX as i32, "timeout {}", answer.timeout_ms);
            connections.push(connection);
        }
        if let Some(mut old) = old {
            for connection in &mut old {
                while connection.next()? != Incoming::Closed {}
            }
        }
        self.counts.resumed += 1;
        self.slots[slot].connections = Some(pair(connections));
        self.slots[slot].early = [Vec::new(), Vec::new()];
        for credential in std::mem::take(&mut self.slots[slot].credentials) {
            self.exchange(slot, vec![credential])?;
        }
        if self.rng.random_range(0..4) > 0 {
            self.set_watches(slot)?;
        }
        self.settle(Order::Exact, None)
    }

    /// Sets watches as after a reconnect, on nodes that this session may read: see the differences.
    fn set_watches(&mut self, slot: usize) -> Result<()> {
        let mut lists = self.draw().watch_lists();
        for list in &mut lists {
            let mut readable = Vec::new();
            for path in list.drain(..) {
                if matches!(self.answer(slot, 0, &path)?, ErrorCode::OK | ErrorCode::NO_NODE) {
                    readable.push(path);
                }
            }
            *list = readable;
        }
        let ask = self.draw().set_watches(&lists);
        self.exchange(slot, vec![ask])
    }

    /// Nobody gets a session whose password he does not know.
    fn wrong_password(&mut self, slot: usize) -> Result<()> {
        self.note(format!("session {slot} comes with a wrong password"));
        for side in 0..2 {
            let mut connection = Connection::open(self.servers[side].address)?;
            let mut request = self.resume_request(slot, side, LONG_MS, 0);
            request.password = Bytes::from_static(b"not the password");
            let answer = connection.handshake(&request)?;
            let refused = answer.as_ref().is_some_and(|answer| {
                answer.timeout_ms == 0 && answer.session_id == 0 && answer.password == [0; PASSWORD_BYTES]
            });
            ensure!(refused, "{} answered {answer:?}", self.servers[side].name);
            ensure!(connection.next()? == Incoming::Closed, "it stays open");
        }
        self.settle(Order::Exact, None)
    }

    /// A client that has seen more than the server must look for another one.
    fn seen_the_future(&mut self, slot: usize) -> Result<()> {
        self.note(format!("session {slot} has seen the future"));
        for side in 0..2 {
            let mut connection = Connection::open(self.servers[side].address)?;
            let answer = connection.handshake(&self.resume_request(slot, side, LONG_MS, i64::MAX))?;
            ensure!(answer.is_none(), "{} answered {answer:?}", self.servers[side].name);
        }
        self.settle(Order::Exact, None)
    }

    /// What is no frame at all ends the connection.
    fn bad_frame(&mut self, slot: usize) -> Result<()> {
        let bytes: &[u8] = match self.rng.random_range(0..5) {
            0 => &[0xff, 0xff, 0xff, 0xff],
            1 => &[0x00, 0x10, 0x00, 0x00],
            2 => &[0x7f, 0xff, 0xff, 0xff],
            3 => &[0, 0, 0, 0],
            _ => &[0, 0, 0, 6, 0, 0, 0, 1, 0, 0],
        };
        self.note(format!("session {slot} sends the bytes {bytes:x?}"));
        let mut connections = self.slots[slot].connections.take().context("it is connected")?;
        for (side, connection) in connections.iter_mut().enumerate() {
            connection.send(bytes)?;
            let came = connection.next()?;
            ensure!(came == Incoming::Closed, "{}: {came:?}", self.servers[side].name);
        }
        self.settle(Order::Exact, None)
    }

    /// A session ends because its client is silent, connected or not.
    fn expire(&mut self, slot: usize) -> Result<()> {
        self.guards += 1;
        let guard = format!("/guard-{}", self.guards);
        self.note(format!("session {slot} is to expire"));
        self.exchange(slot, vec![authenticate("digest", SUPER)])?;
        // It owns something to be seen by, and comes back with a timeout that is not long to wait for. From then on it
        // says nothing: whoever has little time must not be asked for anything, on a machine that is busy.
        self.exchange(slot, vec![create(OpCode::Create, &guard, "", 1)])?;
        let mut connections = Vec::new();
        for side in 0..2 {
            let mut connection = Connection::open(self.servers[side].address)?;
            let answer = connection.handshake(&self.resume_request(slot, side, SHORT_MS, 0))?;
            ensure!(answer.is_some_and(|answer| answer.timeout_ms == 2 * TICK_MS as i32), "another timeout");
            connections.push(connection);
        }
        self.slots[slot].connections = Some(pair(connections));
        self.slots[slot].early = [Vec::new(), Vec::new()];
        let mut silent = self.slots[slot].connections.take();
        if self.rng.random_bool(0.5) {
            silent = None;
        }

        for side in 0..2 {
            let deadline = Instant::now() + Duration::from_secs(60);
            while self.answer(KEEPER, side, &guard)? == ErrorCode::OK {
                ensure!(Instant::now() < deadline, "{}: the session does not expire", self.servers[side].name);
                pause();
            }
        }
        if let Some(connections) = &mut silent {
            for connection in connections {
                while connection.next()? != Incoming::Closed {}
            }
        }
        for side in 0..2 {
            let mut connection = Connection::open(self.servers[side].address)?;
            let answer = connection.handshake(&self.resume_request(slot, side, LONG_MS, 0))?;
            ensure!(answer.as_ref().is_some_and(|a| a.session_id == 0), "{}: {answer:?}", self.servers[side].name);
            ensure!(connection.next()? == Incoming::Closed, "it stays open");
        }
        self.counts.expired += 1;
        self.slots[slot] = Slot::new();
        self.settle(Order::AnyWithinChange, None)
    }

    /// What one of the two says to `exists`; the events that come are kept.
    fn answer(&mut self, slot: usize, side: usize, path: &str) -> Result<ErrorCode> {
        let slot = &mut self.slots[slot];
        let xid = slot.next_xid();
        let mut bytes = BytesMut::new();
        read(OpCode::Exists, path, false).frame(side, xid, &mut bytes);
        let connection = &mut slot.connections.as_mut().context("it is connected")?[side];
        connection.send(&bytes)?;
        loop {
            match connection.next()? {
                Incoming::Reply { error, .. } => return Ok(error),
                event @ Incoming::Event { .. } => slot.early[side].push(event),
                Incoming::Closed => bail!("a connection was lost"),
            }
        }
    }

    /// Takes everything away again, so that the tree stays small and open.
    fn clean(&mut self) -> Result<()> {
        self.note("the keeper cleans up".into());
        let mut asks = Vec::new();
        for path in ["/", "/zookeeper", "/zookeeper/quota"] {
            asks.push(Ask::new(OpCode::SetAcl, format!("{path} is open"), |to| {
                to.text(path);
                to.count(1);
                to.int(31);
                to.text("world");
                to.text("anyone");
                to.int(-1);
            }));
        }
        self.exchange(KEEPER, asks)?;
        let mut found = Vec::new();
        let mut look = vec!["/".to_owned()];
        while let Some(path) = look.pop() {
            for name in self.children(&path)? {
                let child = if path == "/" { format!("/{name}") } else { format!("{path}/{name}") };
                if !["/zookeeper", "/zookeeper/quota", "/zookeeper/config"].contains(&&*child) {
                    found.push(child.clone());
                }
                look.push(child);
            }
        }
        for path in found.iter().rev() {
            self.exchange(KEEPER, vec![delete(path)])?;
        }
        self.quotas.clear();
        Ok(())
    }

    /// The children of a node, as the first server tells them; that the second tells the same is compared elsewhere.
    fn children(&mut self, path: &str) -> Result<Vec<String>> {
        let keeper = &mut self.slots[KEEPER];
        let xid = keeper.next_xid();
        let ask = read(OpCode::GetChildren, path, false);
        let mut bytes = BytesMut::new();
        ask.frame(0, xid, &mut bytes);
        let connection = &mut keeper.connections.as_mut().context("the keeper is connected")?[0];
        connection.send(&bytes)?;
        loop {
            match connection.next()? {
                Incoming::Reply { body, .. } => {
                    let mut from = quorate_wire::Decoder::new(&body);
                    let names = from.vector(4, |from| Ok(from.some_text()?.into_owned()));
                    return Ok(names.ok().flatten().unwrap_or_default());
                }
                event @ Incoming::Event { .. } => keeper.early[0].push(event),
                Incoming::Closed => bail!("the keeper lost its connection"),
            }
        }
    }

    /// Sends requests on one session without waiting between them, and compares everything that comes of them, on all
    /// sessions.
    fn exchange(&mut self, slot: usize, asks: Vec<Ask>) -> Result<()> {
        let closes = asks.iter().any(|ask| ask.op == OpCode::CloseSession.code());
        self.converse(slot, asks)?;
        self.settle(if closes { Order::AnyWithinChange } else { Order::Exact }, closes.then_some(slot))
    }

    /// The same, as far as the session itself is told.
    fn converse(&mut self, slot: usize, asks: Vec<Ask>) -> Result<()> {
        let mut bytes = [BytesMut::new(), BytesMut::new()];
        let mut asked = Vec::new();
        for ask in asks {
            let xid = ask.xid.unwrap_or_else(|| self.slots[slot].next_xid());
            self.note(format!("session {slot} xid {xid}: {}", ask.text));
            for (side, bytes) in bytes.iter_mut().enumerate() {
                ask.frame(side, xid, bytes);
            }
            asked.push(ask);
        }
        let mut connections = self.slots[slot].connections.take().context("it is connected")?;
        for (connection, bytes) in connections.iter_mut().zip(&bytes) {
            connection.send(bytes)?;
        }
        let mut came = std::mem::take(&mut self.slots[slot].early);
        for (connection, came) in connections.iter_mut().zip(&mut came) {
            let mut open = asked.len();
            while open > 0 {
                let incoming = connection.next()?;
                match &incoming {
                    Incoming::Closed => open = 0,
                    Incoming::Reply { .. } => open -= 1,
                    Incoming::Event { .. } => {}
                }
                came.push(incoming);
            }
        }
        // When a server closes is its own affair: a question sent behind such an answer may still be answered.
        let last = came.each_ref().map(|came| came.last().cloned());
        for ((connection, came), last) in connections.iter_mut().zip(&mut came).zip(last) {
            if let (Some(Incoming::Reply { error, .. }), Some(ask)) = (last, asked.last())
                && (matches!(error, ErrorCode::AUTH_FAILED | ErrorCode::UNIMPLEMENTED)
                    || ask.op == OpCode::CloseSession.code())
            {
                let end = connection.next()?;
                ensure!(end == Incoming::Closed, "{end:?} after the last answer");
                came.push(end);
            }
        }
        self.slots[slot].connections = Some(connections);
        if let Some(log) = &mut self.log {
            let _ = writeln!(log, "       {:?}", came[0]);
        }

        let closes = asked.iter().any(|ask| ask.op == OpCode::CloseSession.code());
        if closes {
            // Whether a session is told of its own end is nobody's promise.
            let end = |came: &[Incoming]| match came.iter().rev().find(|one| matches!(one, Incoming::Reply { .. })) {
                Some(Incoming::Reply { zxid, .. }) => *zxid,
                _ => 0,
            };
            for came in &mut came {
                let end = end(came);
                came.retain(|one| !matches!(one, Incoming::Event { zxid, .. } if *zxid == end));
            }
        }
        self.compare(&asked, &came, Order::Exact).with_context(|| {
            let shown = |at: usize| came[at].iter().map(|one| format!("    {one:?}\n")).collect::<String>();
            format!(
                "session {slot} is told different things.\n  {}:\n{}  {}:\n{}",
                self.servers[0].name,
                shown(0),
                self.servers[1].name,
                shown(1)
            )
        })?;
        if let [ask] = &*asked
            && ask.op == OpCode::Auth.code()
            && matches!(came[0].last(), Some(Incoming::Reply { error: ErrorCode::OK, .. }))
        {
            self.slots[slot].credentials.push(ask.clone());
        }
        Ok(())
    }

    /// Compares what came to one connection.
    fn compare(&mut self, asked: &[Ask], came: &[Vec<Incoming>; 2], order: Order) -> Result<()> {
        let [mut first, mut second] = came.clone();
        if order == Order::AnyWithinChange {
            sort_within_changes(&mut first);
            sort_within_changes(&mut second);
        }
        let mut asked = asked.iter();
        for at in 0..first.len().max(second.len()) {
            let (Some(a), Some(b)) = (first.get(at), second.get(at)) else {
                bail!("only one of them is told {:?}", first.get(at).or(second.get(at)));
            };
            match (a, b) {
                (Incoming::Reply { error, .. }, Incoming::Reply { .. }) => {
                    let ask = asked.next().context("a reply nobody asked for")?;
                    self.counts.replies += 1;
                    self.counts.refusals += usize::from(*error != ErrorCode::OK);
                    self.counts.too_much += usize::from(*error == ErrorCode::QUOTA_EXCEEDED);
                    let path = path_of(ask);
                    self.known
                        .same_reply(ask.op, ask.writes(), &path, [a, b])
                        .with_context(|| format!("answers to {}", ask.text))?;
                }
                (Incoming::Event { .. }, Incoming::Event { .. }) => {
                    self.counts.events += 1;
                    self.known.same_event([a, b])?;
                }
                (Incoming::Closed, Incoming::Closed) => {}
                (a, b) => bail!("one is told {a:?}, the other {b:?}"),
            }
        }
        Ok(())
    }

    /// Asks something on every connection, so that all that is on its way has come, and compares it.
    fn settle(&mut self, order: Order, ended: Option<usize>) -> Result<()> {
        let marker = read(OpCode::Exists, "/", false);
        for slot in 0..self.slots.len() {
            let Some(mut connections) = self.slots[slot].connections.take() else { continue };
            let xid = self.slots[slot].next_xid();
            for (side, connection) in connections.iter_mut().enumerate() {
                let mut bytes = BytesMut::new();
                marker.frame(side, xid, &mut bytes);
                connection.send(&bytes)?;
            }
            self.slots[slot].connections = Some(connections);
        }
        for slot in 0..self.slots.len() {
            let Some(mut connections) = self.slots[slot].connections.take() else { continue };
            let mut came = std::mem::take(&mut self.slots[slot].early);
            for (connection, came) in connections.iter_mut().zip(&mut came) {
                loop {
                    let incoming = connection.next()?;
                    let last = !matches!(incoming, Incoming::Event { .. });
                    came.push(incoming);
                    if last {
                        break;
                    }
                }
            }
            self.compare(std::slice::from_ref(&marker), &came, order).with_context(|| {
                let shown = |at: usize| came[at].iter().map(|one| format!("    {one:?}\n")).collect::<String>();
                format!(
                    "session {slot}, looking on, is told different things.\n  {}:\n{}  {}:\n{}",
                    self.servers[0].name,
                    shown(0),
                    self.servers[1].name,
                    shown(1)
                )
            })?;
            if came[0].last() == Some(&Incoming::Closed) {
                self.note(format!("session {slot} was closed by the servers"));
                ensure!(slot != KEEPER, "the keeper lost its connections");
            } else {
                self.slots[slot].connections = Some(connections);
            }
        }
        if let Some(slot) = ended {
            self.slots[slot] = Slot::new();
        }
        Ok(())
    }
}

/// The path a request begins with, if it does.
fn path_of(ask: &Ask) -> String {
    let body = ask.body[0].clone().freeze();
    let path = quorate_wire::Decoder::new(&body).text().ok().flatten();
    path.map(Into::into).unwrap_or_default()
}

fn sort_within_changes(came: &mut [Incoming]) {
    let key = |one: &Incoming| match one {
        Incoming::Event { zxid, kind, path } => (*zxid, *kind, path.clone()),
        _ => (i64::MAX, 0, String::new()),
    };
    // Replies stay where they are, for they have the highest key of what comes before them.
    let mut start = 0;
    for end in 0..=came.len() {
        if end == came.len() || !matches!(came[end], Incoming::Event { .. }) {
            came[start..end].sort_by_key(key);
            start = end + 1;
        }
    }
}

fn pair(connections: Vec<Connection>) -> [Connection; 2] {
    let [first, second]: [Connection; 2] = connections.try_into().expect("one for each server");
    [first, second]
}
