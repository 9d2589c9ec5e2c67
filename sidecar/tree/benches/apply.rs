//! What commands, reads and snapshots cost in the tree alone, while it is small and when it is large.
//!
//! `cargo bench -p quorate-tree`. The author is a client of the ZooKeeper door, who is known by its address, unless the
//! name of a case says that writes are numbered, as those of the other door are.

use std::{cell::RefCell, hint::black_box};

use bytes::Bytes;
use quorate_micro::{Round, Suite, suite};
use quorate_tree::{
    Acl, Applied, Author, Check, Command, Create, CreateMode, Delete, Identity, Lane, Limits, MemberId, MultiOp, Op,
    Reply, SetData, Tree, TreeLoader, WriteNumber,
};

/// Commands of one round.
const ROUND: usize = 1_000;
const DATA_BYTES: usize = 256;
/// Nodes of a large tree below each of its parents.
const CHILDREN: usize = 1_000;

fn main() {
    suite("tree", |suite| {
        for (size, parents) in [("small", 1), ("large", 200)] {
            let world = RefCell::new(World::new(parents));
            writes(suite, size, &world);
            reads(suite, size, &world);
        }
        snapshots(suite);
    });
}

/// A tree, and a member that proposes to it.
struct World {
    tree: Tree,
    author: Author,
    seq: u64,
    /// Of numbered writes.
    number: u64,
    parents: usize,
    /// Makes names that were not there before.
    fresh: usize,
}

impl World {
    fn new(parents: usize) -> Self {
        let mut world =
            Self { tree: Tree::new(Limits::DEFAULT), author: Author::default(), seq: 0, number: 0, parents, fresh: 0 };
        world.author = world.open();
        for parent in 0..parents {
            world.apply(create(format!("/parent-{parent:04}"), CreateMode::Persistent));
            for child in 0..CHILDREN {
                world.apply(create(format!("/parent-{parent:04}/child-{child:06}"), CreateMode::Persistent));
            }
        }
        world
    }

    fn open(&mut self) -> Author {
        let password = Bytes::from_static(b"0123456789abcdef");
        let open = Op::OpenSession { timeout_ms: 10_000, password, client_name: "bench".into() };
        let command = self.command(Author::default(), open);
        let Applied::Fresh { outcome: Ok(Reply::Opened { session, attachment, .. }), .. } = self.tree.apply(&command)
        else {
            panic!("a session opens")
        };
        let address = Identity { scheme: "ip".into(), id: "127.0.0.1".into() };
        Author { session, attachment, identities: [address].into(), ..Author::default() }
    }

    fn command(&mut self, author: Author, op: Op) -> Command {
        self.seq += 1;
        let lane = Lane { member: MemberId(1), incarnation: 1, seq: self.seq };
        Command { lane, stamp_ms: 1_700_000_000_000, author, op }
    }

    /// Commands of one round, made before it is measured.
    fn commands(&mut self, mut op: impl FnMut(&mut Self, usize) -> Op) -> Vec<Command> {
        (0..ROUND)
            .map(|index| {
                let op = op(self, index);
                self.command(self.author.clone(), op)
            })
            .collect()
    }

    fn apply(&mut self, op: Op) {
        let command = self.command(self.author.clone(), op);
        assert!(matches!(self.tree.apply(&command), Applied::Fresh { outcome: Ok(_), .. }));
    }

    fn parent(&self, index: usize) -> String {
        format!("/parent-{:04}", index % self.parents)
    }

    /// A node that is there; the next one lies elsewhere in memory.
    fn node(&self, index: usize) -> String {
        let index = index * 7_919 % (self.parents * CHILDREN);
        format!("/parent-{:04}/child-{:06}", index % self.parents, index / self.parents)
    }

    /// A path that was never given.
    fn new_node(&mut self, index: usize) -> String {
        self.fresh += 1;
        format!("{}/new-{:08}", self.parent(index * 7_919), self.fresh)
    }
}

fn data() -> Option<Bytes> {
    Some(Bytes::from_static(&[7; DATA_BYTES]))
}

fn create(path: String, mode: CreateMode) -> Op {
    Op::Create(creation(path, mode))
}

fn creation(path: String, mode: CreateMode) -> Create {
    Create { path, data: data(), mode, acl: vec![Acl::open()] }
}

fn set(path: String, version: i32) -> Op {
    Op::SetData(SetData { path, data: data(), version })
}

fn delete(path: String) -> Op {
    Op::Delete(Delete { path, version: -1 })
}

/// Applies what was made before, and throws away what is reported.
fn run(round: &mut Round, tree: &mut Tree, commands: &[Command]) {
    round.measure(commands.len() as u64, || {
        for command in commands {
            black_box(tree.apply(black_box(command)));
        }
    });
}

fn writes(suite: &mut Suite, size: &str, world: &RefCell<World>) {
    suite.case(&format!("set {size}"), |round| {
        let mut world = world.borrow_mut();
        let commands = world.commands(|world, index| set(world.node(index), -1));
        run(round, &mut world.tree, &commands);
    });
    suite.case(&format!("set numbered {size}"), |round| {
        let mut world = world.borrow_mut();
        let mut commands = world.commands(|world, index| set(world.node(index), -1));
        for command in &mut commands {
            world.number += 1;
            command.author.identities = [].into();
            command.author.write =
                Some(WriteNumber { number: world.number, answered: world.number.saturating_sub(16) });
        }
        run(round, &mut world.tree, &commands);
    });
    suite.case(&format!("set refused {size}"), |round| {
        let mut world = world.borrow_mut();
        let commands = world.commands(|world, index| set(world.node(index), 1 << 30));
        run(round, &mut world.tree, &commands);
    });
    created(suite, &format!("create {size}"), world, CreateMode::Persistent);
    created(suite, &format!("create ephemeral {size}"), world, CreateMode::Ephemeral);
    created(suite, &format!("create sequential {size}"), world, CreateMode::PersistentSequential);
    suite.case(&format!("delete {size}"), |round| {
        let mut world = world.borrow_mut();
        let creations = world.commands(|world, index| create(world.new_node(index), CreateMode::Persistent));
        let deletions = world.commands(|_, index| delete(path_of(&creations[index]).to_owned()));
        for creation in &creations {
            world.tree.apply(creation);
        }
        run(round, &mut world.tree, &deletions);
    });
    suite.case(&format!("multi of check; create; set; delete {size}"), |round| {
        let mut world = world.borrow_mut();
        let commands = world.commands(|world, index| {
            let (node, new) = (world.node(index), world.new_node(index));
            Op::Multi(vec![
                MultiOp::Check(Check { path: node.clone(), version: -1 }),
                MultiOp::Create(creation(new.clone(), CreateMode::Persistent)),
                MultiOp::SetData(SetData { path: node, data: data(), version: -1 }),
                MultiOp::Delete(Delete { path: new, version: -1 }),
            ])
        });
        run(round, &mut world.tree, &commands);
    });
    suite.case(&format!("session closed with 1000 ephemerals; each {size}"), |round| {
        let mut world = world.borrow_mut();
        let author = world.open();
        for index in 0..ROUND {
            let path = world.new_node(index);
            let command = world.command(author.clone(), create(path, CreateMode::Ephemeral));
            world.tree.apply(&command);
        }
        let close = world.command(author, Op::CloseSession);
        round.measure(ROUND as u64, || black_box(world.tree.apply(&close)));
    });
}

/// Creates nodes, which go again when the round is over.
fn created(suite: &mut Suite, name: &str, world: &RefCell<World>, mode: CreateMode) {
    suite.case(name, |round| {
        let mut world = world.borrow_mut();
        let commands = world.commands(|world, index| create(world.new_node(index), mode));
        let mut paths = Vec::with_capacity(commands.len());
        round.measure(commands.len() as u64, || {
            for command in &commands {
                let Applied::Fresh { outcome: Ok(Reply::Created { path, .. }), .. } = world.tree.apply(command) else {
                    panic!("a node is created")
                };
                paths.push(path);
            }
        });
        for path in paths {
            world.apply(delete(path));
        }
    });
}

fn path_of(command: &Command) -> &str {
    match &command.op {
        Op::Create(create) => &create.path,
        other => panic!("{other:?}"),
    }
}

fn reads(suite: &mut Suite, size: &str, world: &RefCell<World>) {
    let world = world.borrow();
    let paths: Vec<String> = (0..ROUND).map(|index| world.node(index)).collect();
    let identities = &world.author.identities;
    suite.case(&format!("get {size}"), |round| {
        round.measure(ROUND as u64, || {
            for path in &paths {
                black_box(world.tree.get(black_box(path), identities).expect("it is there"));
            }
        });
    });
    suite.case(&format!("stat {size}"), |round| {
        round.measure(ROUND as u64, || {
            for path in &paths {
                black_box(world.tree.stat(black_box(path), identities).expect("it is there"));
            }
        });
    });
    suite.case(&format!("children 1000; each {size}"), |round| {
        round.measure(CHILDREN as u64, || world.tree.children("/parent-0000", identities)).expect("it is there");
    });
}

fn snapshots(suite: &mut Suite) {
    let world = RefCell::new(World::new(20));
    let nodes = (20 * CHILDREN) as u64;
    let parts = RefCell::new(Vec::new());
    suite.case("snapshot written; each node", |round| {
        let tree = &mut world.borrow_mut().tree;
        let written = round.measure(nodes, || {
            tree.freeze();
            std::iter::from_fn(|| tree.frozen_part(500)).collect::<Vec<Bytes>>()
        });
        *parts.borrow_mut() = written;
    });
    suite.case("snapshot loaded; each node", |round| {
        round.measure(nodes, || {
            let mut loader = TreeLoader::new(Limits::DEFAULT);
            for part in parts.borrow().iter() {
                loader.add(part).expect("it was just written");
            }
            black_box(loader.finish().expect("it was just written"))
        });
    });
}
