//! Clients at work: writers and readers over the SDK, whose answers are kept to be judged afterwards.
//!
//! Each worker is one client with one session and asks one thing at a time. Workers run until they are told to stop;
//! an error that a client must expect (a lost session, a request that took too long) is part of their history, any
//! other ends the test.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use quorate::{Client, Error, Stat};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    ensemble::Ensemble,
    eventually::{SOON, eventually},
    history::{ClientId, History, Pending, Recorder, Stamp},
    linearizable::{self, Bounds, Verdict},
    model::{Draw, Drawn, NodeCall, NodeModel, NodeReply, SequenceModel},
    order::{self, Kind, Stamped},
};

/// Connects a client that waits for its answers as long as a test waits for anything.
pub async fn connect(endpoints: Vec<String>, session_timeout: Duration) -> Result<Client> {
    let client = Client::builder(&endpoints).session_timeout(session_timeout).request_timeout(SOON).connect().await;
    client.with_context(|| format!("connecting to {endpoints:?}"))
}

/// Ends a client and its session in order.
pub async fn close(client: Client) -> Result<()> {
    let drained = client.close(SOON).await?;
    ensure!(drained.is_complete(), "a client did not end in order: {drained:?}");
    Ok(())
}

/// Workers and the way to stop them.
#[derive(Debug)]
struct Workers<T> {
    tasks: JoinSet<Result<T>>,
    stop: watch::Sender<bool>,
}

impl<T: Send + 'static> Workers<T> {
    fn new() -> Self {
        Self { tasks: JoinSet::new(), stop: watch::Sender::new(false) }
    }

    fn spawn<F>(&mut self, work: impl FnOnce(watch::Receiver<bool>) -> F)
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.tasks.spawn(work(self.stop.subscribe()));
    }

    /// Lets each finish what it has begun.
    async fn finish(mut self) -> Result<Vec<T>> {
        self.stop.send_replace(true);
        let mut results = Vec::new();
        while let Some(result) = self.tasks.join_next().await {
            results.push(result.context("a worker panicked")??);
        }
        Ok(results)
    }
}

/// What became of a request, for those who must account for it.
enum Settled<T> {
    Done(T),
    /// It may have happened.
    Unknown,
    /// It did not happen and will not.
    Never,
}

/// Sorts the errors a client must expect from those it must not see.
fn settle<T>(result: Result<T, Error>) -> Result<Settled<T>> {
    match result {
        Ok(value) => Ok(Settled::Done(value)),
        Err(error) if error.is_unknown_outcome() => Ok(Settled::Unknown),
        Err(Error::SessionLost { .. } | Error::Timeout { .. } | Error::Unreachable { .. }) => Ok(Settled::Never),
        Err(error) => Err(error.into()),
    }
}

/// A node whose creation was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its path, with its number.
    pub path: String,
    /// Its data, which no other node has.
    pub data: String,
    /// Its birth.
    pub czxid: u64,
}

/// Clients that create sequential nodes below one parent.
#[derive(Debug)]
pub struct Creators {
    workers: Workers<Vec<Acknowledged>>,
    recorder: Recorder<Draw, Drawn>,
    acknowledged: Arc<AtomicUsize>,
    parent: Arc<str>,
}

/// What the creators were told.
#[derive(Debug)]
pub struct Creations {
    parent: Arc<str>,
    /// In no order.
    pub acknowledged: Vec<Acknowledged>,
    /// When each number was drawn.
    pub history: History<Draw, Drawn>,
}

impl Creators {
    /// Creates the parent, and lets `clients` create nodes below it, each through all members.
    pub async fn start(ensemble: &impl Ensemble, parent: &str, clients: u32) -> Result<Self> {
        let mut creators = Self {
            workers: Workers::new(),
            recorder: Recorder::new(),
            acknowledged: Arc::default(),
            parent: Arc::from(parent),
        };
        let timeout = ensemble.tick() * 20;
        connect(ensemble.endpoints(), timeout).await?.create(parent).await.context("creating the parent")?;
        for client in 0..clients {
            let session = connect(ensemble.endpoints(), timeout).await?;
            let (recorder, parent) = (creators.recorder.clone(), Arc::clone(&creators.parent));
            let acknowledged = Arc::clone(&creators.acknowledged);
            creators.workers.spawn(|stop| create(session, ClientId(client), parent, recorder, acknowledged, stop));
        }
        Ok(creators)
    }

    /// How many nodes have been acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until that many more have been acknowledged.
    pub async fn more(&self, count: usize) -> Result<()> {
        let enough = self.acknowledged() + count;
        self.total(enough).await
    }

    /// Waits until that many have been acknowledged in all.
    pub async fn total(&self, enough: usize) -> Result<()> {
        let reached = eventually(format!("{enough} nodes are acknowledged"), SOON, || {
            let acknowledged = self.acknowledged();
            std::future::ready(if acknowledged >= enough { Ok(()) } else { Err(format!("{acknowledged} are")) })
        });
        Ok(reached.await?)
    }

    /// Stops the creators and hears what they were told.
    pub async fn finish(self) -> Result<Creations> {
        let acknowledged = self.workers.finish().await?.into_iter().flatten().collect();
        Ok(Creations { parent: self.parent, acknowledged, history: self.recorder.history() })
    }
}

async fn create(
    client: Client,
    id: ClientId,
    parent: Arc<str>,
    recorder: Recorder<Draw, Drawn>,
    count: Arc<AtomicUsize>,
    stop: watch::Receiver<bool>,
) -> Result<Vec<Acknowledged>> {
    let mut acknowledged = Vec::new();
    let path = format!("{parent}/n-");
    for turn in 0.. {
        if *stop.borrow() {
            break;
        }
        let data = format!("{}:{turn}", id.0);
        let pending = recorder.invoke(id, &parent, Draw);
        match settle(client.create(&path).sequential().data(data.clone()).await)? {
            Settled::Done(created) => {
                let number = created.sequence().and_then(|number| u64::try_from(number).ok());
                let number = number.with_context(|| format!("{} has no number", created.path))?;
                pending.returned(Drawn(number));
                count.fetch_add(1, Ordering::Relaxed);
                acknowledged.push(Acknowledged { path: created.path, data, czxid: created.stat.czxid });
            }
            Settled::Unknown => pending.unknown(),
            Settled::Never => pending.never_happened(),
        }
    }
    close(client).await?;
    Ok(acknowledged)
}

impl Creations {
    /// Every acknowledged node is on every member, once; numbers are unique and increase with time; the members'
    /// trees are equal.
    pub async fn check(&self, ensemble: &impl Ensemble) -> Result<()> {
        let verdict = linearizable::check(&SequenceModel, &self.history, Bounds::default());
        ensure!(verdict == Verdict::Linearizable, "the numbers are {verdict}");

        ensemble.converged().await?;
        for id in ensemble.running() {
            let found = nodes_on(ensemble, id, &self.parent).await?;
            let missing: Vec<_> =
                self.acknowledged.iter().filter(|node| found.get(&node.path) != Some(*node)).collect();
            ensure!(
                missing.is_empty(),
                "of {} acknowledged nodes {} are not on member {id}, which has {}: {:?} ...",
                self.acknowledged.len(),
                missing.len(),
                found.len(),
                &missing[..missing.len().min(5)]
            );
            let once: BTreeSet<_> = found.values().map(|node| &node.data).collect();
            ensure!(
                once.len() == found.len(),
                "of {} creations {} happened twice",
                found.len(),
                found.len() - once.len()
            );
        }
        Ok(())
    }
}

/// The children of a node as one member has them.
async fn nodes_on(ensemble: &impl Ensemble, member: u8, parent: &str) -> Result<BTreeMap<String, Acknowledged>> {
    let client = connect(vec![ensemble.endpoint(member)], ensemble.tick() * 20).await?;
    let names = client.children(parent).await?.names;
    let reader = &client;
    let nodes = try_join_all(names.iter().map(|name| async move {
        let path = format!("{parent}/{name}");
        let node = reader.get(&path).await?;
        let data = String::from_utf8(node.data.to_vec())?;
        anyhow::Ok((path.clone(), Acknowledged { path, data, czxid: node.stat.czxid }))
    }));
    let nodes = nodes.await.with_context(|| format!("reading {parent} on member {member}"))?;
    close(client).await?;
    Ok(nodes.into_iter().collect())
}

/// Clients that read and write a few nodes, all of them the same, and keep a history of it.
#[derive(Debug)]
pub struct Registers {
    workers: Workers<Vec<Stamped>>,
    recorder: Recorder<NodeCall, NodeReply>,
}

/// What the clients of the registers were told.
#[derive(Debug)]
pub struct RegisterHistory {
    /// Of each node.
    pub history: History<NodeCall, NodeReply>,
    /// Of all nodes.
    pub stamped: Vec<Stamped>,
}

impl Registers {
    /// Lets `clients` work on `keys` nodes, each through all members. Reads are `linearizable()`.
    pub async fn start(ensemble: &impl Ensemble, clients: u32, keys: usize, seed: u64) -> Result<Self> {
        let mut registers = Self { workers: Workers::new(), recorder: Recorder::new() };
        let keys: Vec<Arc<str>> = (0..keys).map(|key| Arc::from(format!("/register-{key}"))).collect();
        for id in 0..clients {
            let client = connect(ensemble.endpoints(), ensemble.tick() * 20).await?;
            let mut worker = RegisterClient {
                client,
                id: ClientId(id),
                random: StdRng::seed_from_u64(seed.wrapping_add(u64::from(id))),
                recorder: registers.recorder.clone(),
                versions: HashMap::new(),
                turns: 0,
                stamped: Vec::new(),
            };
            let keys = keys.clone();
            registers.workers.spawn(|stop| async move {
                while !*stop.borrow() {
                    let key = &keys[worker.random.random_range(0..keys.len())];
                    worker.turn(key).await?;
                }
                close(worker.client).await?;
                Ok(worker.stamped)
            });
        }
        Ok(registers)
    }

    /// How many operations have been answered.
    pub fn answered(&self) -> usize {
        self.recorder.answered()
    }

    /// Waits until that many more have been answered.
    pub async fn more(&self, count: usize) -> Result<()> {
        let enough = self.answered() + count;
        let reached = eventually(format!("{enough} operations are answered"), SOON, || {
            let answered = self.answered();
            std::future::ready(if answered >= enough { Ok(()) } else { Err(format!("{answered} are")) })
        });
        Ok(reached.await?)
    }

    /// Stops the clients and hears what they were told.
    pub async fn finish(self) -> Result<RegisterHistory> {
        let stamped = self.workers.finish().await?.into_iter().flatten().collect();
        Ok(RegisterHistory { history: self.recorder.history(), stamped })
    }
}

impl RegisterHistory {
    /// One copy of each node that nobody shares explains every answer, and one order all changes.
    pub fn check(&self) -> Result<()> {
        let verdict = linearizable::check(&NodeModel, &self.history, Bounds::default());
        ensure!(verdict == Verdict::Linearizable, "the history is {verdict}");
        order::check(&self.stamped)
    }
}

/// One client of the registers.
struct RegisterClient {
    client: Client,
    id: ClientId,
    random: StdRng,
    recorder: Recorder<NodeCall, NodeReply>,
    /// The versions it has seen last, to write on condition.
    versions: HashMap<Arc<str>, i32>,
    /// Makes the values its own.
    turns: u64,
    stamped: Vec<Stamped>,
}

impl RegisterClient {
    async fn turn(&mut self, key: &Arc<str>) -> Result<()> {
        let call = self.choose(key);
        let invoked = Stamp::now();
        let pending = self.recorder.invoke(self.id, key, call);
        match settle(ask(&self.client, key, call).await)? {
            Settled::Done(answer) => self.note(key, pending, invoked, answer),
            Settled::Unknown => pending.unknown(),
            Settled::Never => pending.never_happened(),
        }
        Ok(())
    }

    fn choose(&mut self, key: &Arc<str>) -> NodeCall {
        // A version that was seen a while ago fits sometimes, and that is what is wanted.
        let version = self.versions.get(key).copied().filter(|_| self.random.random_bool(0.3));
        let value = u64::from(self.id.0) << 32 | self.turns;
        self.turns += 1;
        match self.random.random_range(0..100) {
            0..15 => NodeCall::Create { value },
            15..20 => NodeCall::Delete { version },
            20..60 => NodeCall::Set { value, version },
            60..70 => NodeCall::Exists,
            _ => NodeCall::Get,
        }
    }

    fn note(&mut self, key: &Arc<str>, pending: Pending<NodeCall, NodeReply>, invoked: Stamp, answer: Answer) {
        pending.returned(answer.reply);
        match answer.reply {
            NodeReply::Set { version }
            | NodeReply::Got { version, .. }
            | NodeReply::Exists { version: Some(version) } => {
                self.versions.insert(Arc::clone(key), version);
            }
            _ => {}
        }
        let stamped = |(kind, zxid)| Stamped { client: self.id, invoked, returned: Stamp::now(), zxid, kind };
        self.stamped.extend(answer.zxid.map(stamped));
    }
}

/// An answer in the model's words, and its zxid where it has one.
struct Answer {
    reply: NodeReply,
    zxid: Option<(Kind, u64)>,
}

/// Asks in the SDK's words, and answers in the model's. The refusals that the model knows are answers.
async fn ask(client: &Client, path: &str, call: NodeCall) -> Result<Answer, Error> {
    let of = |version: Option<i32>| version.unwrap_or(-1);
    let answer = |reply, zxid| Ok(Answer { reply, zxid });
    let result = match call {
        NodeCall::Create { value } => client
            .create(path)
            .data(value.to_string())
            .await
            .map(|created| Answer { reply: NodeReply::Created, zxid: Some((Kind::Write, created.stat.czxid)) }),
        NodeCall::Set { value, version } => {
            let set = client.set(path, value.to_string()).version(of(version)).await;
            set.map(|stat| Answer {
                reply: NodeReply::Set { version: stat.version },
                zxid: Some((Kind::Write, stat.mzxid)),
            })
        }
        NodeCall::Delete { version } => {
            let deleted = client.delete(path).version(of(version)).await;
            deleted.map(|()| Answer { reply: NodeReply::Deleted, zxid: None })
        }
        NodeCall::Get => client.get(path).linearizable().await.and_then(|node| {
            let text = String::from_utf8_lossy(&node.data);
            let value = text.parse().map_err(|_| Error::Protocol(format!("{path} holds {text:?}")))?;
            Ok(Answer { reply: NodeReply::Got { value, version: node.stat.version }, zxid: Some(read(node.stat)) })
        }),
        NodeCall::Exists => client.exists(path).linearizable().await.map(|stat| Answer {
            reply: NodeReply::Exists { version: stat.map(|stat| stat.version) },
            zxid: stat.map(read),
        }),
    };
    match result {
        Err(Error::NoNode { .. }) => answer(NodeReply::NoNode, None),
        Err(Error::NodeExists { .. }) => answer(NodeReply::NodeExists, None),
        Err(Error::BadVersion { .. }) => answer(NodeReply::BadVersion, None),
        other => other,
    }
}

fn read(stat: Stat) -> (Kind, u64) {
    (Kind::Read, stat.mzxid)
}
