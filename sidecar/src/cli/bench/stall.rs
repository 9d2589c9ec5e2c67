//! Something very large is done to one member while others ask it for little: how long do they wait? A latency is that of
//! one of the others, who get and set a node of theirs a thousand times a second; a round is the large thing.
//!
//! The others have a thread of their own, or they would wait for the generator.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{runtime, sync::oneshot, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    Plan,
    measure::Measured,
    target::{Op, Session, Target},
    workload::key,
    zookeeper::ZookeeperSession,
};
use crate::cli::exit::{Exit, Failure};

/// What is large.
#[derive(Clone, Copy, Debug)]
pub(super) enum Large {
    /// The children of a node, which are listed again and again.
    Children,
    /// The ephemeral nodes of a session, which is closed, and of one that expires.
    Ephemerals,
    /// The watches of a connection, which are set, go with it, and are set again. ZooKeeper's protocol only.
    Watches,
}

/// Of one of the others.
const EVERY: Duration = Duration::from_millis(1);
/// What comes after the large thing is seen by the others too.
const AFTERWARDS: Duration = Duration::from_secs(1);
/// Of the session that expires.
const SHORT_TIMEOUT: Duration = Duration::from_secs(4);
const EXPIRES_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const CREATING: usize = 256;

pub(super) async fn run(
    target: &Target,
    plan: &Plan,
    large: Large,
    setter: &mut Session,
    folder: &str,
) -> Result<Vec<Measured>, Failure> {
    let mut stall = Stall { target, plan, probed: format!("{folder}-probed"), measured: Vec::new() };
    setter.create(&stall.probed).await?;
    let quiet = stall.begin("quiet").await?;
    tokio::time::sleep(plan.duration).await;
    stall.end(quiet, None).await?;
    match large {
        Large::Children => stall.children(setter, folder).await?,
        Large::Ephemerals => stall.ephemerals(setter, folder).await?,
        Large::Watches => stall.watches(folder).await?,
    }
    Ok(stall.measured)
}

struct Stall<'a> {
    target: &'a Target,
    plan: &'a Plan,
    /// The node of the others.
    probed: String,
    measured: Vec<Measured>,
}

/// The others, while something happens.
struct Others {
    part: &'static str,
    since: Instant,
    task: JoinHandle<Result<[Measured; 2], Failure>>,
    end: DropGuard,
}

impl Stall<'_> {
    async fn children(&mut self, setter: &mut Session, folder: &str) -> Result<(), Failure> {
        setter.fill(folder, self.plan.keys, 0, super::FILLING, |_, _| {}).await?;
        let mut lister = self.target.connect(0).await?;
        let others = self.begin("list").await?;
        let mut lists = 0;
        while lists == 0 || others.since.elapsed() < self.plan.duration {
            let names = lister.children(folder).await?;
            if names.len() != self.plan.keys {
                return Err(Failure::new(Exit::Refused, format_args!("{} children were listed", names.len())));
            }
            lists += 1;
        }
        let took = others.since.elapsed() / lists;
        self.end(others, Some(took)).await?;
        lister.close().await;
        Ok(())
    }

    async fn ephemerals(&mut self, setter: &mut Session, folder: &str) -> Result<(), Failure> {
        let owner = self.owner(folder).await?;
        let others = self.begin("close").await?;
        owner.close().await;
        let took = others.since.elapsed();
        tokio::time::sleep(AFTERWARDS).await;
        self.end(others, Some(took)).await?;

        let owner = self.owner(folder).await?;
        let others = self.begin("expire").await?;
        drop(owner);
        // The time until it is missed, and what its end takes.
        let last = key(folder, self.plan.keys - 1);
        while setter.call(Op::Get { path: last.as_str().into(), linearizable: true, bytes: 0 }).await.is_ok() {
            if others.since.elapsed() > EXPIRES_WITHIN {
                return Err(Failure::new(Exit::TimedOut, "a session that was left does not expire"));
            }
            tokio::time::sleep(POLL).await;
        }
        let took = others.since.elapsed();
        tokio::time::sleep(AFTERWARDS).await;
        self.end(others, Some(took)).await
    }

    /// A session that owns the nodes.
    async fn owner(&self, folder: &str) -> Result<Session, Failure> {
        let mut owner = self.target.connect_for(0, SHORT_TIMEOUT).await?;
        let (mut begun, mut under_way) = (0, 0);
        let mut done = Vec::new();
        while begun < self.plan.keys || under_way > 0 {
            while begun < self.plan.keys && under_way < CREATING {
                let path = key(folder, begun);
                let op = Op::Create { path, data: Bytes::new(), ephemeral: true, sequential: false };
                owner.start(op, 0, Instant::now());
                (begun, under_way) = (begun + 1, under_way + 1);
            }
            owner.next(&mut done).await?;
            under_way -= done.len();
            let refused = |error| Failure::new(Exit::Refused, format_args!("the nodes cannot be made: {error}"));
            done.drain(..).try_for_each(|answer| answer.outcome).map_err(refused)?;
        }
        Ok(owner)
    }

    async fn watches(&mut self, folder: &str) -> Result<(), Failure> {
        let mut watcher = self.watcher().await?;
        let others = self.begin("set").await?;
        for keys in self.portions() {
            watcher.watch_absent(folder, keys).await?;
        }
        let took = others.since.elapsed();
        self.end(others, Some(took)).await?;

        let others = self.begin("drop").await?;
        drop(watcher);
        tokio::time::sleep(self.plan.duration).await;
        self.end(others, None).await?;

        let mut watcher = self.watcher().await?;
        let others = self.begin("set again").await?;
        for keys in self.portions() {
            watcher.watch_again(folder, keys).await?;
        }
        let took = others.since.elapsed();
        self.end(others, Some(took)).await?;
        watcher.close().await;
        Ok(())
    }

    async fn watcher(&self) -> Result<Box<ZookeeperSession>, Failure> {
        match self.target.connect(0).await? {
            Session::Zookeeper(session) => Ok(session),
            Session::Grpc(_) => {
                Err(Failure::new(Exit::Usage, "watches are loaded over ZooKeeper's protocol: --zookeeper"))
            }
        }
    }

    /// What is asked for together.
    fn portions(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        const TOGETHER: usize = 1000;
        let keys = self.plan.keys;
        (0..keys).step_by(TOGETHER).map(move |first| first..keys.min(first + TOGETHER))
    }

    /// The others begin, and then the large thing may.
    async fn begin(&self, part: &'static str) -> Result<Others, Failure> {
        let end = CancellationToken::new();
        let (ready, begun) = oneshot::channel();
        let (target, probed, ended) = (self.target.clone(), self.probed.clone(), end.clone());
        let task = tokio::task::spawn_blocking(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| Failure::new(Exit::Refused, error))?;
            runtime.block_on(probe(&target, &probed, ready, ended))
        });
        if begun.await.is_err() {
            return Err(match task.await {
                Ok(Err(failure)) => failure,
                other => Failure::new(Exit::Refused, format_args!("nobody else could begin: {other:?}")),
            });
        }
        Ok(Others { part, since: Instant::now(), task, end: end.drop_guard() })
    }

    async fn end(&mut self, others: Others, took: Option<Duration>) -> Result<(), Failure> {
        let Others { part, since, task, end } = others;
        let memory = self.plan.servers.memory()?;
        drop(end);
        let window = since.elapsed();
        let both = task.await.map_err(|panicked| Failure::new(Exit::Refused, panicked))??;
        for (mut measured, op) in both.into_iter().zip(["get", "set"]) {
            measured.part_of(part, op, memory.clone());
            if let Some(took) = took {
                measured.round(took);
            }
            measured.lasted(window);
            self.measured.push(measured);
        }
        Ok(())
    }
}

/// Gets and sets, until the end.
async fn probe(
    target: &Target,
    path: &str,
    ready: oneshot::Sender<()>,
    end: CancellationToken,
) -> Result<[Measured; 2], Failure> {
    let (getter, setter) = (target.connect(0).await?, target.connect(0).await?);
    // Nobody waits for it any more if this fails, and then the end comes soon.
    let _ = ready.send(());
    let get = Op::Get { path: path.into(), linearizable: false, bytes: 0 };
    let set = Op::Set { path: path.into(), data: Bytes::new() };
    let (gets, sets) = tokio::try_join!(repeat(getter, get, &end), repeat(setter, set, &end))?;
    Ok([gets, sets])
}

/// One at a time, due every so often. What is late holds up those that were due meanwhile, and they count as well.
async fn repeat(mut session: Session, op: Op, end: &CancellationToken) -> Result<Measured, Failure> {
    let mut measured = Measured::new();
    let mut due = tokio::time::interval(EVERY);
    due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !end.is_cancelled() {
        due.tick().await;
        let since = Instant::now();
        session.call(op.clone()).await?;
        measured.latency_of_one_due_every(EVERY, since.elapsed());
    }
    session.close().await;
    Ok(measured)
}
