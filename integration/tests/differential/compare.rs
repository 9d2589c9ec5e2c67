//! Whether two servers said the same: zxids, sessions and times are each server's own, so that they are compared
//! through what corresponded so far.

use std::collections::{BTreeMap, HashMap, VecDeque};

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use quorate_wire::{Acl, Decoder, OpCode, OpResult, Response, Stat};

use crate::connection::Incoming;

/// Names of sequential nodes that requests come back to.
const RECENT_MAX: usize = 24;

/// What the answers have shown so far.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Version and ACL version of nodes, when they were last seen.
    pub(crate) versions: HashMap<String, (i32, i32)>,
    /// Nodes with generated names.
    pub(crate) recent: VecDeque<String>,
    /// Zxids of changes on both.
    pub(crate) changes: Vec<[i64; 2]>,
    by_first: BTreeMap<i64, i64>,
    by_second: BTreeMap<i64, i64>,
    times: [HashMap<i64, i64>; 2],
    sessions: HashMap<i64, i64>,
}

impl Known {
    /// These two are one session.
    pub(crate) fn same_session(&mut self, ids: [i64; 2]) -> Result<()> {
        match self.sessions.insert(ids[0], ids[1]) {
            Some(other) if other != ids[1] => bail!("session {:#x} has become {:#x}, was {other:#x}", ids[0], ids[1]),
            _ => Ok(()),
        }
    }

    /// These two are the zxid of one change.
    fn same_change(&mut self, what: &str, zxids: [i64; 2]) -> Result<()> {
        let [first, second] = zxids;
        if first <= 0 || second <= 0 {
            ensure!(first == second, "{what}: zxid {first} and {second}");
            return Ok(());
        }
        match (self.by_first.get(&first), self.by_second.get(&second)) {
            (Some(known), Some(_)) if *known == second => return Ok(()),
            (None, None) => {}
            (known, reverse) => {
                bail!("{what}: {first:#x} and {second:#x} are not one change, known are {known:x?} and {reverse:x?}")
            }
        }
        self.in_order(what, zxids)?;
        self.by_first.insert(first, second);
        self.by_second.insert(second, first);
        self.changes.push(zxids);
        Ok(())
    }

    /// These two lie between the same changes.
    fn in_order(&self, what: &str, [first, second]: [i64; 2]) -> Result<()> {
        if first <= 0 || second <= 0 {
            ensure!(first == second, "{what}: zxid {first} and {second}");
            return Ok(());
        }
        if let Some((before, counterpart)) = self.by_first.range(..=first).next_back() {
            ensure!(
                second >= *counterpart,
                "{what}: {first:#x} is after {before:#x}, but {second:#x} not after {counterpart:#x}"
            );
        }
        if let Some((after, counterpart)) = self.by_first.range(first + 1..).next() {
            ensure!(
                second < *counterpart,
                "{what}: {first:#x} is before {after:#x}, but {second:#x} not before {counterpart:#x}"
            );
        }
        Ok(())
    }

    fn time(&mut self, side: usize, what: &str, zxid: i64, time: i64) -> Result<()> {
        ensure!((zxid == 0) == (time == 0), "{what}: zxid {zxid:#x} at time {time}");
        let known = *self.times[side].entry(zxid).or_insert(time);
        ensure!(known == time, "{what}: the change {zxid:#x} was at {known}, now at {time}");
        Ok(())
    }

    fn same_stat(&mut self, [a, b]: [&Stat; 2]) -> Result<()> {
        self.same_change("czxid", [a.czxid, b.czxid])?;
        self.same_change("mzxid", [a.mzxid, b.mzxid])?;
        self.same_change("pzxid", [a.pzxid, b.pzxid])?;
        for (side, stat) in [a, b].into_iter().enumerate() {
            self.time(side, "ctime", stat.czxid, stat.ctime)?;
            self.time(side, "mtime", stat.mzxid, stat.mtime)?;
        }
        let owner = match a.ephemeral_owner {
            0 => 0,
            owner => self.sessions.get(&owner).copied().unwrap_or(-1),
        };
        ensure!(owner == b.ephemeral_owner, "owner {:#x} and {:#x}", a.ephemeral_owner, b.ephemeral_owner);
        let plain = |s: &Stat| (s.version, s.cversion, s.aversion, s.data_length, s.num_children);
        let (first, second) = (plain(a), plain(b));
        ensure!(first == second, "(version, cversion, aversion, bytes, children): {first:?} and {second:?}");
        Ok(())
    }

    fn learn(&mut self, path: &str, stat: &Stat) {
        self.versions.insert(path.to_owned(), (stat.version, stat.aversion));
    }

    fn learn_name(&mut self, path: &str) {
        if path.len() > 10 && path.bytes().rev().take(10).all(|byte| byte.is_ascii_digit()) {
            self.recent.push_back(path.to_owned());
            if self.recent.len() > RECENT_MAX {
                self.recent.pop_front();
            }
        }
    }

    /// These two answer one request. `path` is that of the request, if it has one.
    pub(crate) fn same_reply(&mut self, op: i32, writes: bool, path: &str, replies: [&Incoming; 2]) -> Result<()> {
        let (
            Incoming::Reply { xid: xid_a, zxid: zxid_a, error: error_a, body: body_a },
            Incoming::Reply { xid: xid_b, zxid: zxid_b, error: error_b, body: body_b },
        ) = (replies[0], replies[1])
        else {
            bail!("one of them is no reply");
        };
        ensure!(xid_a == xid_b, "xid {xid_a} and {xid_b}");
        ensure!(error_a == error_b, "error {error_a} and {error_b}");
        if error_a.0 != 0 {
            // An illegal multiRead is answered with what was done of it, which clients ignore.
            let may = op == OpCode::MultiRead.code();
            ensure!(may || body_a.is_empty() && body_b.is_empty(), "a body after an error");
            return self.in_order("reply", [*zxid_a, *zxid_b]);
        }
        let op = OpCode::of(op).expect("an unknown operation has no success");
        let [first, second] = [decode(op, body_a)?, decode(op, body_b)?];
        let failed = matches!(&first, Response::Multi(results) if matches!(results.first(), Some(OpResult::Failed(_))));
        if writes && !failed {
            self.same_change("reply", [*zxid_a, *zxid_b])?;
        } else {
            self.in_order("reply", [*zxid_a, *zxid_b])?;
        }
        self.same_response(path, [&first, &second])
    }

    fn same_response(&mut self, asked: &str, responses: [&Response; 2]) -> Result<()> {
        match responses {
            [Response::Stat(a), Response::Stat(b)] => {
                self.learn(asked, a);
                self.same_stat([a, b])
            }
            [Response::PathStat { path: p, stat: a }, Response::PathStat { path: q, stat: b }] => {
                self.learn_name(p);
                self.learn(p, a);
                ensure!(p == q, "path {p:?} and {q:?}");
                self.same_stat([a, b])
            }
            [Response::Data { data: d, stat: a }, Response::Data { data: e, stat: b }] => {
                self.learn(asked, a);
                ensure!(d == e, "data {d:?} and {e:?}");
                self.same_stat([a, b])
            }
            [Response::Acl { acl: l, stat: a }, Response::Acl { acl: m, stat: b }] => {
                self.learn(asked, a);
                // What `auth` stands for comes in any order, in ZooKeeper also beside the same entry given by name.
                let sorted = |acl: &[Acl]| {
                    let mut all: Vec<_> = acl.iter().map(|e| (e.permissions, e.scheme.clone(), e.id.clone())).collect();
                    all.sort();
                    all.dedup();
                    all
                };
                ensure!(sorted(l) == sorted(m), "acl {l:?} and {m:?}");
                self.same_stat([a, b])
            }
            // In what order names are told is nobody's promise.
            [Response::Names(names), Response::Names(others)] => same_names(names, others),
            [Response::NamesStat { names, stat: a }, Response::NamesStat { names: others, stat: b }] => {
                self.learn(asked, a);
                same_names(names, others)?;
                self.same_stat([a, b])
            }
            [Response::Path(Some(p)), Response::Path(Some(q))] => {
                self.learn_name(p);
                ensure!(p == q, "path {p:?} and {q:?}");
                Ok(())
            }
            [Response::Clients(a), Response::Clients(b)] => {
                let sorted = |clients: &[quorate_wire::ClientInfo]| {
                    let mut all: Vec<_> = clients.iter().map(|c| (c.scheme.clone(), c.user.clone())).collect();
                    all.sort();
                    all
                };
                let (a, b) = (sorted(a), sorted(b));
                ensure!(a == b, "clients {a:?} and {b:?}");
                Ok(())
            }
            [Response::Multi(results), Response::Multi(others)] => {
                ensure!(results.len() == others.len(), "results {results:?} and {others:?}");
                results.iter().zip(others).try_for_each(|pair| self.same_result(pair.into()))
            }
            [first, second] => {
                ensure!(first == second, "{first:?} and {second:?}");
                Ok(())
            }
        }
    }

    fn same_result(&mut self, results: [&OpResult; 2]) -> Result<()> {
        match results {
            [OpResult::Created { path: p, stat: Some(a) }, OpResult::Created { path: q, stat: Some(b) }] => {
                self.learn_name(p);
                ensure!(p == q, "path {p:?} and {q:?}");
                self.same_stat([a, b])
            }
            [OpResult::Set(a), OpResult::Set(b)] => self.same_stat([a, b]),
            [OpResult::Data { data: d, stat: a }, OpResult::Data { data: e, stat: b }] => {
                ensure!(d == e, "data {d:?} and {e:?}");
                self.same_stat([a, b])
            }
            [OpResult::Children(names), OpResult::Children(others)] => same_names(names, others),
            [first, second] => {
                ensure!(first == second, "result {first:?} and {second:?}");
                Ok(())
            }
        }
    }

    /// These two events tell one change.
    pub(crate) fn same_event(&mut self, events: [&Incoming; 2]) -> Result<()> {
        let (Incoming::Event { zxid: z, kind: k, path: p }, Incoming::Event { zxid: y, kind: l, path: q }) =
            (events[0], events[1])
        else {
            bail!("one of them is no event");
        };
        ensure!((k, p) == (l, q), "event {k} of {p:?} and {l} of {q:?}");
        self.same_change("event", [*z, *y])
    }
}

fn decode(op: OpCode, body: &Bytes) -> Result<Response> {
    let mut from = Decoder::new(body);
    let response = Response::decode(op, &mut from)?;
    ensure!(from.remaining() == 0, "{} bytes behind {response:?}", from.remaining());
    Ok(response)
}

fn same_names(names: &[String], others: &[String]) -> Result<()> {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        names
    };
    let (names, others) = (sorted(names), sorted(others));
    ensure!(names == others, "names {names:?} and {others:?}");
    Ok(())
}
