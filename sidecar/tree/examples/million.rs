//! What a large tree costs: builds 1,000,000 nodes of 100 bytes below 1000 parents and prints memory and times.
//!
//! `cargo run --release -p quorate-tree --example million`

use std::fs;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_tree::{
    Acl, Applied, Author, Command, Create, CreateMode, Lane, Limits, MemberId, Op, Reply, SessionId, SetData, Tree,
    TreeLoader,
};

const PARENTS: usize = 1_000;
const CHILDREN: usize = 1_000;
const DATA_BYTES: usize = 100;
const NODES_MAX: usize = 256;
const EPHEMERALS: usize = 100_000;

/// One member that proposes to one tree.
struct Member {
    tree: Tree,
    seq: u64,
    author: Author,
}

impl Member {
    fn new() -> Self {
        let mut member = Self { tree: Tree::new(Limits::DEFAULT), seq: 0, author: Author::default() };
        member.author = member.open();
        member
    }

    fn open(&mut self) -> Author {
        let password = Bytes::from_static(b"0123456789abcdef");
        let open = Op::OpenSession { timeout_ms: 10_000, password, client_name: "million".into() };
        let Applied::Fresh { outcome: Ok(Reply::Opened { session, attachment, .. }), .. } = self.apply(open) else {
            panic!("a session opens");
        };
        Author { session, attachment, ..Author::default() }
    }

    fn apply(&mut self, op: Op) -> Applied {
        self.seq += 1;
        let lane = Lane { member: MemberId(1), incarnation: 1, seq: self.seq };
        let command = Command { lane, stamp_ms: 1_700_000_000_000, author: self.author.clone(), op };
        self.tree.apply(&command)
    }

    fn create(&mut self, path: String, mode: CreateMode) {
        let data = Some(Bytes::from(vec![7; DATA_BYTES]));
        let applied = self.apply(Op::Create(Create { path, data, mode, acl: vec![Acl::open()] }));
        assert!(matches!(applied, Applied::Fresh { outcome: Ok(_), .. }), "{applied:?}");
    }

    fn set(&mut self, path: String) {
        let applied =
            self.apply(Op::SetData(SetData { path, data: Some(Bytes::from(vec![8; DATA_BYTES])), version: -1 }));
        assert!(matches!(applied, Applied::Fresh { outcome: Ok(_), .. }), "{applied:?}");
    }
}

fn path(index: usize) -> String {
    format!("/parent-{:04}/child-{:06}", index % PARENTS, index / PARENTS)
}

fn main() {
    let before_bytes = resident_bytes();
    let mut member = Member::new();
    let (took, slowest) = each(0..PARENTS, |index| {
        member.create(format!("/parent-{index:04}"), CreateMode::Persistent);
    });
    println!("create {PARENTS} parents: {:?} each, slowest {slowest:?}", took / PARENTS as u32);
    let count = PARENTS * CHILDREN;
    let (took, slowest) = each(0..count, |index| member.create(path(index), CreateMode::Persistent));
    let used_bytes = resident_bytes() - before_bytes;
    println!("create {count} nodes: {:?} each, slowest {slowest:?}", took / count as u32);
    println!("memory: {} MiB, {} bytes a node", used_bytes >> 20, used_bytes / count);

    // Far apart in memory, as requests are.
    let scattered = |index: usize| path(index * 7919 % count);
    let (took, slowest) = each(0..count, |index| {
        member.tree.get(&scattered(index), &[]).expect("it was created");
    });
    println!("get: {:?} each, slowest {slowest:?}", took / count as u32);
    let (took, slowest) = each(0..count, |index| member.set(scattered(index)));
    println!("set: {:?} each, slowest {slowest:?}", took / count as u32);
    println!("memory after gets and sets: {} MiB", (resident_bytes() - before_bytes) >> 20);

    let parts = snapshot(&mut member, scattered);
    drop(member);
    load(&parts);
    many_children();
}

/// Takes a snapshot while nodes are set.
fn snapshot(member: &mut Member, scattered: impl Fn(usize) -> String) -> Vec<Bytes> {
    let digest = member.tree.digest();
    let started = Instant::now();
    member.tree.freeze();
    println!("freeze: {:?}", started.elapsed());
    let (mut parts, mut holds, mut sets) = (Vec::new(), Vec::new(), Duration::ZERO);
    loop {
        let started = Instant::now();
        let part = member.tree.frozen_part(NODES_MAX);
        holds.push(started.elapsed());
        let Some(part) = part else { break };
        parts.push(part);
        let started = Instant::now();
        for offset in 0..16 {
            member.set(scattered(parts.len() * 16 + offset));
        }
        sets += started.elapsed();
    }
    let bytes: usize = parts.iter().map(Bytes::len).sum();
    holds.sort_unstable();
    println!(
        "walk: {:?} in {} parts of {NODES_MAX} nodes, {} MiB; a part: median {:?}, 99.9 % {:?}, longest {:?}",
        holds.iter().sum::<Duration>(),
        parts.len(),
        bytes >> 20,
        holds[holds.len() / 2],
        holds[holds.len() * 999 / 1000],
        holds[holds.len() - 1],
    );
    println!("set while frozen: {:?} each", sets / (parts.len() * 16) as u32);
    assert_ne!(member.tree.digest(), digest, "nodes were set meanwhile");
    parts
}

fn load(parts: &[Bytes]) {
    let started = Instant::now();
    let mut loader = TreeLoader::new(Limits::DEFAULT);
    for part in parts {
        loader.add(part).expect("it was just written");
    }
    let tree = loader.finish().expect("it was just written");
    println!("load: {:?}, {} nodes", started.elapsed(), tree.node_count());
    let started = Instant::now();
    assert_eq!(tree.digest(), tree.digest_recomputed());
    println!("digest from scratch: {:?}", started.elapsed());
}

/// One parent, one session, very many nodes.
fn many_children() {
    let mut member = Member::new();
    member.create("/parent".into(), CreateMode::Persistent);
    let (took, slowest) =
        each(0..EPHEMERALS, |_| member.create("/parent/lock-".into(), CreateMode::EphemeralSequential));
    println!("create {EPHEMERALS} ephemerals in one parent: {:?} each, slowest {slowest:?}", took / EPHEMERALS as u32);
    let started = Instant::now();
    let (names, _) = member.tree.children("/parent", &[]).expect("it was created");
    println!("list {} children: {:?}", names.len(), started.elapsed());
    let started = Instant::now();
    member.apply(Op::CloseSession);
    println!("close a session with {EPHEMERALS} ephemerals: {:?}", started.elapsed());
    assert_eq!(member.tree.session(SessionId(0)), None);
    assert_eq!(member.tree.node_count(), 6);
}

/// The time all took, and the longest that one took.
fn each(range: std::ops::Range<usize>, mut act: impl FnMut(usize)) -> (Duration, Duration) {
    let started = Instant::now();
    let mut slowest = Duration::ZERO;
    for index in range {
        let started = Instant::now();
        act(index);
        slowest = slowest.max(started.elapsed());
    }
    (started.elapsed(), slowest)
}

fn resident_bytes() -> usize {
    let statm = fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second is resident");
    pages * 4096
}
