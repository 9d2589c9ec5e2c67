//! The workloads by name.

use bytes::Bytes;

use super::target::Op;

/// What is done, and by how many.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) sessions: usize,
    pub(super) in_flight: usize,
    pub(super) value_size: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Operations one after the other.
    Loop(Mix),
    /// Acquiring and releasing one lock.
    Lock,
    /// Opening and closing sessions.
    Churn,
    /// A node that everybody watches.
    FanOut,
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

const fn looping(name: &'static str, mix: Mix, sessions: usize, in_flight: usize, value_size: usize) -> Workload {
    Workload { name, kind: Kind::Loop(mix), sessions, in_flight, value_size }
}

const fn of_kind(name: &'static str, kind: Kind, sessions: usize) -> Workload {
    Workload { name, kind, sessions, in_flight: 1, value_size: 0 }
}

pub(super) const ALL: [Workload; 16] = [
    looping("set-lat", Mix::Set, 1, 1, 256),
    looping("set", Mix::Set, 32, 16, 256),
    looping("create", Mix::Create, 32, 16, 256),
    looping("get-lat", Mix::Get, 1, 1, 1024),
    looping("get", Mix::Get, 32, 16, 1024),
    looping("lget-lat", Mix::LinearizableGet, 1, 1, 1024),
    looping("lget", Mix::LinearizableGet, 32, 16, 1024),
    looping("mixed", Mix::Mixed, 32, 16, 1024),
    looping("mixed-d1", Mix::Mixed, 64, 1, 1024),
    looping("eph", Mix::Ephemeral, 32, 4, 0),
    of_kind("lock1", Kind::Lock, 1),
    of_kind("lock8", Kind::Lock, 8),
    of_kind("lock64", Kind::Lock, 64),
    of_kind("churn", Kind::Churn, 16),
    of_kind("watch1000", Kind::FanOut, 1000),
    of_kind("watch5000", Kind::FanOut, 5000),
];

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

/// The operations of one session.
pub(super) struct Operations {
    mix: Mix,
    folder: String,
    session: usize,
    keys: usize,
    data: Bytes,
    random: u64,
    /// Of each slot in flight, how many it has done.
    done: Vec<u64>,
}

impl Operations {
    pub(super) fn new(mix: Mix, folder: &str, session: usize, keys: usize, value_size: usize, slots: usize) -> Self {
        let seed = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(session as u64 + 1);
        let data = Bytes::from(vec![b'x'; value_size]);
        Self { mix, folder: folder.into(), session, keys, data, random: seed, done: vec![0; slots] }
    }

    fn roll(&mut self) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.random >> 33
    }

    /// The next one of a slot, whose one before was answered.
    pub(super) fn next(&mut self, slot: usize) -> Op {
        let at = self.roll() as usize % self.keys;
        let path = key(&self.folder, at);
        let writes = self.roll().is_multiple_of(11);
        match self.mix {
            Mix::Set => Op::Set { path, data: self.data.clone() },
            Mix::Get => Op::Get { path, linearizable: false },
            Mix::LinearizableGet => Op::Get { path, linearizable: true },
            Mix::Mixed if writes => Op::Set { path, data: self.data.clone() },
            Mix::Mixed => Op::Get { path, linearizable: false },
            Mix::Create => {
                let path = format!("{}/s{}/n-", self.folder, self.session);
                Op::Create { path, data: self.data.clone(), ephemeral: false, sequential: true }
            }
            Mix::Ephemeral => {
                let turn = self.done[slot];
                self.done[slot] += 1;
                let path = format!("{}/s{}/e{slot}-{}", self.folder, self.session, turn / 2);
                if turn.is_multiple_of(2) {
                    Op::Create { path, data: Bytes::new(), ephemeral: true, sequential: false }
                } else {
                    Op::Delete { path }
                }
            }
        }
    }
}
