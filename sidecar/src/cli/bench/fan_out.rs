//! A node that every session watches. A latency is that of one notification, from the moment the change was sent.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::{
    sync::{Barrier, mpsc},
    task::JoinSet,
};

use super::{
    Plan,
    grpc::GrpcSession,
    measure::Measured,
    target::{Op, Session, Target, broken},
    zookeeper::ZookeeperSession,
};
use crate::cli::exit::{Exit, Failure};

const ROUNDS: usize = 10;
/// Sessions that connect at the same time.
const CONNECTING: usize = 64;

pub(super) async fn run(
    target: &Arc<Target>,
    plan: &Plan,
    setter: &mut Session,
    folder: &str,
) -> Result<Measured, Failure> {
    let path = format!("{folder}/watched");
    setter.call(Op::Create { path: path.clone(), data: Bytes::new(), ephemeral: false, sequential: false }).await?;
    let connecting = (0..plan.sessions).map(|at| target.connect(at));
    let sessions: Vec<_> = futures_util::stream::iter(connecting).buffer_unordered(CONNECTING).collect().await;

    // All watch, the change is sent, all are told: each round begins when the one before has ended everywhere.
    let armed = Arc::new(Barrier::new(plan.sessions + 1));
    // A message for each session and round; the receiver takes them as they come.
    let (told, mut tellings) = mpsc::channel(plan.sessions);
    let mut tasks = JoinSet::new();
    for session in sessions {
        let (mut watcher, path) = (Watcher::new(session?, &path), path.clone());
        let (armed, told) = (armed.clone(), told.clone());
        tasks.spawn(async move {
            for _ in 0..ROUNDS {
                watcher.arm(&path).await?;
                armed.wait().await;
                watcher.told().await?;
                if told.send(Instant::now()).await.is_err() {
                    break;
                }
            }
            watcher.close().await;
            Ok::<_, Failure>(())
        });
    }
    let mut measured = Measured::new();
    for round in 0..ROUNDS {
        tokio::select! {
            _ = armed.wait() => {}
            Some(ended) = tasks.join_next() => return Err(early(ended)),
        }
        let since = Instant::now();
        setter.call(Op::Set { path: path.clone(), data: Bytes::from(round.to_string()) }).await?;
        let mut last = since;
        for _ in 0..plan.sessions {
            let at = tokio::select! {
                biased;
                Some(at) = tellings.recv() => at,
                Some(Ok(Err(failure))) = tasks.join_next() => return Err(failure),
            };
            last = last.max(at);
            // The first round warms up.
            if round > 0 {
                measured.latency(at.saturating_duration_since(since));
            }
        }
        if round > 0 {
            measured.took(last - since);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|panicked| Failure::new(Exit::Refused, panicked))??;
    }
    Ok(measured)
}

fn early(ended: Result<Result<(), Failure>, tokio::task::JoinError>) -> Failure {
    match ended {
        Ok(Err(failure)) => failure,
        Ok(Ok(())) => Failure::new(Exit::Refused, "a watching session ended early"),
        Err(panicked) => Failure::new(Exit::Refused, panicked),
    }
}

/// A session that watches a node. Over gRPC the SDK reads the node again with every notification, and watches on by
/// that; over ZooKeeper's protocol the watch is set again for each round.
enum Watcher {
    Grpc { session: GrpcSession, states: Box<quorate::WatchStream<quorate::DataEvent>>, armed: bool },
    Zookeeper(Box<ZookeeperSession>),
}

impl Watcher {
    fn new(session: Session, path: &str) -> Self {
        match session {
            Session::Grpc(session) => {
                let states = Box::new(session.client.watch(path).data());
                Self::Grpc { session, states, armed: false }
            }
            Session::Zookeeper(session) => Self::Zookeeper(session),
        }
    }

    async fn arm(&mut self, path: &str) -> Result<(), Failure> {
        match self {
            Self::Grpc { armed: true, .. } => Ok(()),
            Self::Grpc { states, armed, .. } => {
                *armed = true;
                next(states).await
            }
            Self::Zookeeper(session) => session.watch(path).await.map(drop).map_err(broken),
        }
    }

    /// Waits for the notification.
    async fn told(&mut self) -> Result<(), Failure> {
        match self {
            Self::Grpc { states, .. } => next(states).await,
            Self::Zookeeper(session) => session.event().await.map_err(broken),
        }
    }

    async fn close(self) {
        match self {
            Self::Grpc { session, states, .. } => {
                drop(states);
                session.close().await;
            }
            Self::Zookeeper(session) => session.close().await,
        }
    }
}

async fn next(states: &mut quorate::WatchStream<quorate::DataEvent>) -> Result<(), Failure> {
    match states.next().await {
        Some(state) => Ok(state.map(drop)?),
        None => Err(broken("the watch ended")),
    }
}
