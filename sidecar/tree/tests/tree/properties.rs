//! Random commands against the model, with snapshots taken and loaded in between.

use bytes::Bytes;
use proptest::prelude::*;
use quorate_tree::{
    Acl, Applied, Author, Change, Check, Command, Create, CreateMode, Delete, Identity, Lane, Limits, MemberId,
    MultiOp, Op, Permissions, Reap, SessionId, SetAcl, SetData, Tree, TreeLoader, WriteNumber, Zxid,
};

use crate::model::{Dump, Model, dump};

/// One thing that happens. Numbers that stand for something known are taken modulo what is known.
#[derive(Clone, Debug)]
enum Step {
    Apply {
        member: u8,
        turn: Turn,
        elapsed_ms: i64,
        author: Who,
        op: What,
    },
    Freeze,
    Part {
        nodes_max: usize,
    },
    Thaw,
    /// Goes on with a tree that was loaded from a snapshot.
    Reload,
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Now,
    Again,
    TooEarly,
    NewStart,
    OldStart,
}

#[derive(Clone, Debug)]
struct Who {
    session: usize,
    is_unknown: bool,
    is_stale: bool,
    /// Relative to the number expected.
    write: Option<(i64, u64)>,
    identities: usize,
}

#[derive(Clone, Debug)]
enum What {
    Client(ClientOp),
    Multi(Vec<ClientOp>),
    Open { password_bytes: usize },
    Attach { session: usize, is_wrong: bool },
    Close,
    Expire { session: usize, behind: u64 },
    Reap { node: usize, is_wrong: bool },
    Register { member: u8, disk_id: u64 },
    Publish { servers: usize },
}

/// Mostly what is there, or could be.
#[derive(Clone, Debug)]
enum At {
    Known(usize),
    Below(usize, &'static str),
    Text(&'static str),
}

#[derive(Clone, Debug)]
enum ClientOp {
    Create { path: At, data: u8, mode: CreateMode, acl: usize },
    SetData { path: At, data: u8, version: i32 },
    SetAcl { path: At, acl: usize, version: i32 },
    Delete { path: At, version: i32 },
    Check { path: At, version: i32 },
}

const LIMITS: Limits = Limits {
    node_bytes_max: 40,
    path_bytes_max: 40,
    multi_ops_max: 4,
    sessions_max: 5,
    session_outcomes_max: 3,
    ..Limits::DEFAULT
};

fn identities(which: usize) -> Vec<Identity> {
    let identity = |scheme: &str, id: &str| Identity { scheme: scheme.into(), id: id.into() };
    match which {
        0..5 => vec![],
        5 => vec![identity("digest", "a:1")],
        6 => vec![identity("digest", "b:2"), identity("ip", "10.0.0.1"), identity("digest", "a:1")],
        7 => vec![identity("ip", "10.0.0.1")],
        _ => vec![Identity::superuser()],
    }
}

fn acl(which: usize) -> Vec<Acl> {
    let entry = |permissions: u32, scheme: &str, id: &str| Acl {
        permissions: Permissions(permissions),
        identity: Identity { scheme: scheme.into(), id: id.into() },
    };
    match which {
        0..14 => vec![Acl::open()],
        14 => vec![entry(31, "digest", "a:1"), entry(1, "world", "anyone"), entry(31, "digest", "a:1")],
        15 => vec![entry(31, "auth", "")],
        16 => vec![entry(5, "ip", "10.0.0.0/8"), entry(24, "digest", "b:2")],
        17 => vec![entry(0, "world", "anyone")],
        18 => vec![entry(31, "nosuch", "x")],
        _ => vec![],
    }
}

fn known() -> BoxedStrategy<At> {
    prop_oneof![8 => (0..30_usize).prop_map(At::Known), 2 => below(), 2 => text()].boxed()
}

fn new() -> BoxedStrategy<At> {
    prop_oneof![10 => below(), 1 => (0..30_usize).prop_map(At::Known), 1 => text()].boxed()
}

fn below() -> BoxedStrategy<At> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c-"), Just("c-0000000001"), Just("")];
    (0..30_usize, name).prop_map(|(parent, name)| At::Below(parent, name)).boxed()
}

fn text() -> impl Strategy<Value = At> {
    prop_oneof![
        Just(""),
        Just("a"),
        Just("//a"),
        Just("/a/.."),
        Just("/a\0"),
        Just("/nowhere/a"),
        Just("/zookeeper/config"),
        Just("/zookeeper/a"),
        Just("/"),
        Just("/a-name-that-is-just-short-enough"),
    ]
    .prop_map(At::Text)
}

fn quota_node() -> impl Strategy<Value = At> {
    prop_oneof![
        4 => Just("/zookeeper/quota/a/zookeeper_limits"),
        4 => Just("/zookeeper/quota/a/zookeeper_stats"),
        1 => Just("/zookeeper/quota/a"),
        1 => Just("/zookeeper/quota/a/b"),
        2 => Just("/zookeeper/quota/a/b/zookeeper_limits"),
        2 => Just("/zookeeper/quota/a/b/zookeeper_stats"),
    ]
    .prop_map(At::Text)
}

fn limits() -> impl Strategy<Value = u8> {
    prop_oneof![Just(0), Just(u8::MAX), Just(SOFT_LIMITS), Just(BYTES_LIMIT), Just(NODES_LIMIT)]
}

fn data_length() -> impl Strategy<Value = u8> {
    prop_oneof![30 => 0..41_u8, 1 => Just(41), 2 => Just(u8::MAX)]
}

fn version() -> impl Strategy<Value = i32> {
    prop_oneof![5 => Just(-1), 2 => Just(0), 1 => 1..3_i32]
}

fn mode() -> impl Strategy<Value = CreateMode> {
    prop_oneof![
        6 => Just(CreateMode::Persistent),
        4 => Just(CreateMode::Ephemeral),
        2 => Just(CreateMode::PersistentSequential),
        2 => Just(CreateMode::EphemeralSequential),
        3 => Just(CreateMode::Container),
        2 => (0..100_u64).prop_map(|ttl_ms| CreateMode::PersistentWithTtl { ttl_ms }),
        1 => Just(CreateMode::PersistentSequentialWithTtl { ttl_ms: 30 }),
        1 => Just(CreateMode::PersistentWithTtl { ttl_ms: 1 << 40 }),
    ]
}

fn client_op() -> BoxedStrategy<ClientOp> {
    prop_oneof![
        8 => (new(), data_length(), mode(), 0..20_usize)
            .prop_map(|(path, data, mode, acl)| ClientOp::Create { path, data, mode, acl }),
        2 => (quota_node(), limits(), mode())
            .prop_map(|(path, data, mode)| ClientOp::Create { path, data, mode, acl: 0 }),
        1 => (quota_node(), limits()).prop_map(|(path, data)| ClientOp::SetData { path, data, version: -1 }),
        1 => quota_node().prop_map(|path| ClientOp::Delete { path, version: -1 }),
        4 => (known(), data_length(), version()).prop_map(|(path, data, version)| ClientOp::SetData { path, data, version }),
        5 => (known(), version()).prop_map(|(path, version)| ClientOp::Delete { path, version }),
        2 => (known(), 0..20_usize, version()).prop_map(|(path, acl, version)| ClientOp::SetAcl { path, acl, version }),
        2 => (known(), version()).prop_map(|(path, version)| ClientOp::Check { path, version }),
    ]
    .boxed()
}

fn what() -> BoxedStrategy<What> {
    prop_oneof![
        20 => client_op().prop_map(What::Client),
        8 => prop::collection::vec(client_op(), 0..6).prop_map(What::Multi),
        3 => prop_oneof![20 => Just(16), 1 => Just(15)].prop_map(|password_bytes| What::Open { password_bytes }),
        2 => (0..5_usize, prop::bool::weighted(0.2)).prop_map(|(session, is_wrong)| What::Attach { session, is_wrong }),
        1 => Just(What::Close),
        2 => (0..5_usize, 0..2_u64).prop_map(|(session, behind)| What::Expire { session, behind }),
        5 => (0..30_usize, prop::bool::weighted(0.1)).prop_map(|(node, is_wrong)| What::Reap { node, is_wrong }),
        1 => (0..3_usize).prop_map(|servers| What::Publish { servers }),
        1 => (1..4_u8, 0..3_u64).prop_map(|(member, disk_id)| What::Register { member, disk_id }),
    ]
    .boxed()
}

fn who() -> BoxedStrategy<Who> {
    let write = prop_oneof![
        4 => Just(None),
        6 => (0..3_u64).prop_map(|kept| Some((0, kept))),
        1 => (-3..3_i64, 0..4_u64).prop_map(Some),
    ];
    (0..5_usize, prop::bool::weighted(0.03), prop::bool::weighted(0.05), write, 0..9_usize)
        .prop_map(|(session, is_unknown, is_stale, write, identities)| Who {
            session,
            is_unknown,
            is_stale,
            write,
            identities,
        })
        .boxed()
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        40 => Just(Turn::Now),
        1 => Just(Turn::Again),
        1 => Just(Turn::TooEarly),
        1 => Just(Turn::NewStart),
        1 => Just(Turn::OldStart),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (1..3_u8, turn(), -20..60_i64, who(), what())
            .prop_map(|(member, turn, elapsed_ms, author, op)| Step::Apply { member, turn, elapsed_ms, author, op }),
        1 => Just(Step::Freeze),
        8 => (0..6_usize).prop_map(|nodes_max| Step::Part { nodes_max }),
        1 => prop_oneof![1 => Just(Step::Thaw), 3 => Just(Step::Reload)],
    ]
}

/// Two replicas and the model, and the snapshot that one of the replicas is just giving out.
struct World {
    tree: Tree,
    replica: Tree,
    model: Model,
    now_ms: i64,
    frozen: Option<Frozen>,
}

struct Frozen {
    parts: Vec<Bytes>,
    digest: u64,
    dump: Dump,
}

/// Applies a command after as much of it as can be done ahead, node by node. The changes come in the usual order.
fn apply_in_parts(tree: &mut Tree, command: &Command) -> Result<Applied, TestCaseError> {
    let before = tree.zxid();
    let mut ahead = Vec::new();
    while let Some((zxid, changes)) = tree.apply_ahead(command, 1) {
        prop_assert_eq!((changes.len(), zxid, tree.zxid()), (1, Zxid(before.0 + 1), before));
        prop_assert_eq!(tree.digest(), tree.digest_recomputed());
        ahead.extend(changes);
    }
    let mut applied = tree.apply(command);
    if let Applied::Fresh { changes, .. } = &mut applied
        && !ahead.is_empty()
    {
        let ended = changes.pop();
        ahead.append(changes);
        ahead.sort_by_key(|change| match change {
            Change::Deleted { path, .. } => path.clone(),
            other => panic!("only ephemeral nodes go ahead: {other:?}"),
        });
        ahead.extend(ended);
        *changes = ahead;
    }
    Ok(applied)
}

impl World {
    /// With two sessions, and containers and parents to fill.
    fn new() -> Result<Self, TestCaseError> {
        let mut world = Self {
            tree: Tree::new(LIMITS),
            replica: Tree::new(LIMITS),
            model: Model::new(LIMITS),
            now_ms: 1_000,
            frozen: None,
        };
        let create =
            |which, name, mode| What::Client(ClientOp::Create { path: At::Below(which, name), data: 3, mode, acl: 0 });
        let quota_directory = |path| {
            let mode = CreateMode::Persistent;
            What::Client(ClientOp::Create { path: At::Text(path), data: 0, mode, acl: 0 })
        };
        for op in [
            What::Open { password_bytes: 16 },
            What::Open { password_bytes: 16 },
            create(0, "a", CreateMode::Persistent),
            create(0, "b", CreateMode::Container),
            create(1, "a", CreateMode::PersistentWithTtl { ttl_ms: 50 }),
            quota_directory("/zookeeper/quota/a"),
            quota_directory("/zookeeper/quota/a/b"),
        ] {
            let author = Who { session: 0, is_unknown: false, is_stale: false, write: None, identities: 0 };
            world.step(Step::Apply { member: 1, turn: Turn::Now, elapsed_ms: 0, author, op })?;
        }
        Ok(world)
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Apply { member, turn, elapsed_ms, author, op } => {
                self.now_ms += elapsed_ms;
                let command = self.command(member, turn, &author, op);
                let expected = self.model.apply(&command);
                let applied = apply_in_parts(&mut self.tree, &command)?;
                prop_assert_eq!(applied, expected.clone(), "{:?}", command);
                prop_assert_eq!(self.replica.apply(&command), expected);
            }
            Step::Freeze => {
                self.tree.freeze();
                let (digest, dump) = (self.tree.digest(), self.model.dump());
                self.frozen = Some(Frozen { parts: Vec::new(), digest, dump });
            }
            Step::Part { nodes_max } => self.part(nodes_max)?,
            Step::Thaw => {
                self.tree.thaw();
                self.frozen = None;
                prop_assert_eq!(self.tree.frozen_part(1), None);
            }
            Step::Reload => {
                self.replica.freeze();
                let mut loader = TreeLoader::new(LIMITS);
                while let Some(part) = self.replica.frozen_part(7) {
                    loader.add(&part).unwrap();
                }
                self.replica = loader.finish().unwrap();
            }
        }
        prop_assert_eq!(self.tree.digest(), self.tree.digest_recomputed());
        prop_assert_eq!(self.tree.digest(), self.replica.digest());
        Ok(())
    }

    fn part(&mut self, nodes_max: usize) -> Result<(), TestCaseError> {
        let part = self.tree.frozen_part(nodes_max);
        let Some(mut frozen) = self.frozen.take() else {
            prop_assert_eq!(part, None);
            return Ok(());
        };
        if let Some(part) = part {
            frozen.parts.push(part);
            self.frozen = Some(frozen);
            return Ok(());
        }
        let mut loader = TreeLoader::new(LIMITS);
        for part in frozen.parts {
            loader.add(&part).unwrap();
        }
        let loaded = loader.finish().unwrap();
        prop_assert_eq!(loaded.digest(), frozen.digest);
        prop_assert_eq!(loaded.digest_recomputed(), frozen.digest);
        prop_assert_eq!(dump(&loaded), frozen.dump);
        Ok(())
    }

    fn command(&self, member: u8, turn: Turn, who: &Who, what: What) -> Command {
        let (incarnation, next) = self.model.lanes.get(&MemberId(member)).copied().unwrap_or((1, 1));
        let (incarnation, seq) = match turn {
            Turn::Now => (incarnation, next),
            Turn::Again => (incarnation, next - 1),
            Turn::TooEarly => (incarnation, next + 1),
            Turn::NewStart => (incarnation + 1, 1),
            Turn::OldStart => (incarnation.saturating_sub(1), next),
        };
        let lane = Lane { member: MemberId(member), incarnation, seq };
        Command { lane, stamp_ms: self.now_ms, author: self.author(who), op: self.op(what) }
    }

    fn author(&self, who: &Who) -> Author {
        let session = self.session(who.session).filter(|_| !who.is_unknown).unwrap_or(SessionId(1));
        let live = self.model.sessions.get(&session);
        let attachment = live.map_or(1, |live| live.attachment) - u64::from(who.is_stale);
        let next_write = live.map_or(1, |live| live.next_write);
        let write = who.write.map(|(offset, kept)| WriteNumber {
            number: next_write.saturating_add_signed(offset),
            answered: next_write.saturating_sub(1 + kept),
        });
        Author { session, attachment, write, identities: identities(who.identities).into() }
    }

    fn session(&self, which: usize) -> Option<SessionId> {
        let count = self.model.sessions.len();
        if count == 0 { None } else { self.model.sessions.keys().nth(which % count).copied() }
    }

    fn path(&self, at: At) -> String {
        let paths = self.model.paths();
        let ordinary = paths.iter().filter(|path| !path.starts_with("/zookeeper")).count();
        let known = |which: usize| paths[which % ordinary].as_str();
        match at {
            At::Known(which) => known(which).to_owned(),
            At::Below(which, name) => format!("{}/{name}", known(which).trim_end_matches('/')),
            At::Text(text) => text.to_owned(),
        }
    }

    fn op(&self, what: What) -> Op {
        let session = |which| self.session(which).unwrap_or(SessionId(1));
        match what {
            What::Client(op) => self.single(op),
            What::Multi(ops) => Op::Multi(ops.into_iter().map(|op| self.of_multi(op)).collect()),
            What::Open { password_bytes } => Op::OpenSession {
                timeout_ms: 4_000,
                password: Bytes::from(vec![b'p'; password_bytes]),
                client_name: "somebody".into(),
            },
            What::Attach { session: which, is_wrong } => Op::AttachSession {
                session: session(which),
                password: Bytes::from(vec![if is_wrong { b'q' } else { b'p' }; 16]),
                timeout_ms: 5_000,
            },
            What::Close => Op::CloseSession,
            What::Expire { session: which, behind } => {
                let session = session(which);
                let attachment = self.model.sessions.get(&session).map_or(1, |live| live.attachment) - behind;
                Op::ExpireSession { session, attachment }
            }
            What::Reap { node, is_wrong } => {
                let paths = self.model.paths();
                let reap = self.model.reap(&paths[node % paths.len()]);
                Op::Reap(Reap { czxid: Zxid(reap.czxid.0 + u64::from(is_wrong)), ..reap })
            }
            What::Publish { servers } => {
                Op::PublishConfig { servers: ["", "server.1=a", "server.1=a\nserver.2=b"][servers].into() }
            }
            What::Register { member, disk_id } => {
                Op::RegisterMember { member: MemberId(member), disk_id, ensemble_id: disk_id }
            }
        }
    }
}

impl World {
    fn single(&self, op: ClientOp) -> Op {
        match op {
            ClientOp::SetAcl { path, acl: which, version } => {
                Op::SetAcl(SetAcl { path: self.path(path), acl: acl(which), version })
            }
            other => match self.of_multi(other) {
                MultiOp::Create(create) => Op::Create(create),
                MultiOp::SetData(set) => Op::SetData(set),
                MultiOp::Delete(delete) => Op::Delete(delete),
                check @ MultiOp::Check(_) => Op::Multi(vec![check]),
            },
        }
    }

    fn of_multi(&self, op: ClientOp) -> MultiOp {
        match op {
            ClientOp::Create { path, data: length, mode, acl: which } => {
                MultiOp::Create(Create { path: self.path(path), data: data(length), mode, acl: acl(which) })
            }
            ClientOp::SetData { path, data: length, version } => {
                MultiOp::SetData(SetData { path: self.path(path), data: data(length), version })
            }
            ClientOp::Delete { path, version } => MultiOp::Delete(Delete { path: self.path(path), version }),
            ClientOp::Check { path, version } | ClientOp::SetAcl { path, version, .. } => {
                MultiOp::Check(Check { path: self.path(path), version })
            }
        }
    }
}

/// The greatest lengths stand for null and for limits of quotas.
fn data(length: u8) -> Option<Bytes> {
    match length {
        u8::MAX => None,
        SOFT_LIMITS => Some(Bytes::from_static(b"count=1,bytes=20")),
        BYTES_LIMIT => Some(Bytes::from_static(b"bytes=-1=;byteHardLimit=50")),
        NODES_LIMIT => Some(Bytes::from_static(b"count=1;countHardLimit=3")),
        _ => Some(bytes(length)),
    }
}

const SOFT_LIMITS: u8 = 254;
const BYTES_LIMIT: u8 = 253;
const NODES_LIMIT: u8 = 252;

fn bytes(length: u8) -> Bytes {
    Bytes::from(vec![length; length.into()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_does_what_the_model_does(steps in prop::collection::vec(step(), 1..200)) {
        let mut world = World::new()?;
        for step in steps {
            world.step(step)?;
        }
        prop_assert_eq!(dump(&world.tree), world.model.dump());
        prop_assert_eq!(dump(&world.replica), world.model.dump());
    }
}
