//! The workloads by name.

use std::sync::Arc;

use bytes::Bytes;

use super::{stall::Large, target::Op};

/// What is done, and by how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) sessions: usize,
    pub(super) in_flight: usize,
    pub(super) value_size: usize,
    /// Nodes that are read and set, or loaded.
    pub(super) keys: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Operations one after the other.
    Loop(Mix),
    /// Acquiring and releasing one lock.
    Lock,
    /// Opening and closing sessions.
    Churn,
    /// A node that everybody watches, and is changed so often.
    FanOut { rounds: usize },
    /// Loading nodes.
    Memory,
    /// Keeping sessions.
    Idle,
    /// Something large, while others want little.
    Stall(Large),
    /// Killing the leader so often.
    Failover { rounds: usize },
}

/// Which operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mix {
    Set,
    Create,
    Get,
    LinearizableGet,
    /// Ten reads to one write.
    Mixed,
    /// An ephemeral node is created, then deleted; both count.
    Ephemeral,
}

const KEYS: usize = 1000;

const fn looping(name: &'static str, mix: Mix, sessions: usize, in_flight: usize, value_size: usize) -> Workload {
    Workload { name, kind: Kind::Loop(mix), sessions, in_flight, value_size, keys: KEYS }
}

const fn of_kind(name: &'static str, kind: Kind, sessions: usize) -> Workload {
    Workload { name, kind, sessions, in_flight: 1, value_size: 0, keys: KEYS }
}

const fn stalling(name: &'static str, large: Large, keys: usize) -> Workload {
    Workload { name, kind: Kind::Stall(large), sessions: 2, in_flight: 0, value_size: 0, keys }
}

pub(super) const ALL: [Workload; 22] = [
    looping("set-lat", Mix::Set, 1, 1, 256),
    looping("set", Mix::Set, 32, 16, 256),
    looping("create", Mix::Create, 32, 16, 256),
    looping("get-lat", Mix::Get, 1, 1, 1024),
    looping("get", Mix::Get, 32, 16, 1024),
    looping("lget-lat", Mix::LinearizableGet, 1, 1, 1024),
    looping("lget", Mix::LinearizableGet, 32, 16, 1024),
    looping("mixed", Mix::Mixed, 32, 16, 1024),
    looping("mixed-d1", Mix::Mixed, 64, 1, 1024),
    looping("eph", Mix::Ephemeral, 32, 4, 256),
    of_kind("lock1", Kind::Lock, 1),
    of_kind("lock8", Kind::Lock, 8),
    of_kind("lock64", Kind::Lock, 64),
    of_kind("churn", Kind::Churn, 16),
    of_kind("watch1000", Kind::FanOut { rounds: 9 }, 1000),
    of_kind("watch5000", Kind::FanOut { rounds: 5 }, 5000),
    Workload { name: "memory", kind: Kind::Memory, sessions: 1, in_flight: 8, value_size: 100, keys: 1_000_000 },
    // No operations: only sessions.
    Workload { name: "idle", kind: Kind::Idle, sessions: 10_000, in_flight: 0, value_size: 0, keys: 0 },
    stalling("children", Large::Children, 100_000),
    stalling("ephemerals", Large::Ephemerals, 100_000),
    stalling("watches", Large::Watches, 1_000_000),
    of_kind("failover", Kind::Failover { rounds: 7 }, 1),
];

impl Workload {
    /// Whether it is run where none is named: it is over soon, takes little of the machine and leaves it whole.
    pub(super) fn is_light(&self) -> bool {
        !matches!(self.kind, Kind::Memory | Kind::Idle | Kind::Stall(_) | Kind::Failover { .. })
    }

    /// Where its nodes are.
    pub(super) fn folder(&self, base: &str) -> String {
        format!("{base}/{}", self.name)
    }

    /// Whether nodes must be there before it begins.
    pub(super) fn needs_keys(&self) -> bool {
        matches!(self.kind, Kind::Loop(mix) if mix.needs_keys())
    }
}

/// A workload of this name.
pub(super) fn parse(name: &str) -> Result<Workload, String> {
    ALL.into_iter().find(|workload| workload.name == name).ok_or_else(|| {
        let names = ALL.map(|workload| workload.name).join(", ");
        format!("there are {names}")
    })
}

impl Mix {
    /// Whether nodes must be there before it begins.
    pub(super) fn needs_keys(self) -> bool {
        !matches!(self, Self::Create | Self::Ephemeral)
    }
}

/// The path of a node that is read and set.
pub(super) fn key(folder: &str, at: usize) -> String {
    format!("{folder}/k{at:07}")
}

/// All of them.
pub(super) fn keys(folder: &str, count: usize) -> Arc<[Arc<str>]> {
    (0..count).map(|at| key(folder, at).into()).collect()
}

/// The operations of one session.
pub(super) struct Operations {
    mix: Mix,
    /// Above the nodes that only this session makes.
    own_folder: String,
    keys: Arc<[Arc<str>]>,
    data: Bytes,
    random: u64,
    /// Of each slot in flight, how many it has done.
    done: Vec<u64>,
}

impl Operations {
    pub(super) fn new(
        mix: Mix,
        session: usize,
        own_folder: String,
        keys: Arc<[Arc<str>]>,
        value_size: usize,
        slots: usize,
    ) -> Self {
        let seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(session as u64 + 1);
        let data = Bytes::from(vec![b'x'; value_size]);
        Self { mix, own_folder, keys, data, random: seed, done: vec![0; slots] }
    }

    fn roll(&mut self) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize
    }

    fn key(&mut self) -> Arc<str> {
        let at = self.roll() % self.keys.len();
        self.keys[at].clone()
    }

    fn get(&mut self, linearizable: bool) -> Op {
        Op::Get { path: self.key(), linearizable, bytes: self.data.len() }
    }

    fn set(&mut self) -> Op {
        Op::Set { path: self.key(), data: self.data.clone() }
    }

    /// The next one of a slot, whose one before was answered.
    pub(super) fn next(&mut self, slot: usize) -> Op {
        match self.mix {
            Mix::Set => self.set(),
            Mix::Get => self.get(false),
            Mix::LinearizableGet => self.get(true),
            Mix::Mixed => {
                if self.roll().is_multiple_of(11) {
                    self.set()
                } else {
                    self.get(false)
                }
            }
            Mix::Create => {
                let path = format!("{}/n-", self.own_folder);
                Op::Create { path, data: self.data.clone(), ephemeral: false, sequential: true }
            }
            Mix::Ephemeral => {
                let turn = self.done[slot];
                self.done[slot] += 1;
                let path = format!("{}/e{slot}-{}", self.own_folder, turn / 2);
                if turn.is_multiple_of(2) {
                    Op::Create { path, data: self.data.clone(), ephemeral: true, sequential: false }
                } else {
                    Op::Delete { path }
                }
            }
        }
    }
}
