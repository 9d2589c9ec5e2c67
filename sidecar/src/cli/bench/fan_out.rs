//! A node that every session watches. A latency is that of one notification, from the moment the change was sent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::StreamExt as _;
use quorate::{TreeEvent, WatchStream};
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

/// Between the last watch that was set and the change.
const QUIET: Duration = Duration::from_millis(100);

pub(super) async fn run(
    target: &Arc<Target>,
    plan: &Plan,
    rounds: usize,
    setter: &mut Session,
    folder: &str,
) -> Result<Measured, Failure> {
    let path = format!("{folder}/watched");
    setter.create(&path).await?;
    let sessions = target.connect_all(plan.sessions, &path).await?;

    // All watch, the change is sent, all are told, and only then does anybody watch again: it would be in the way.
    let armed = Arc::new(Barrier::new(plan.sessions + 1));
    let over = Arc::new(Barrier::new(plan.sessions + 1));
    // A message for each session and round; the receiver takes them as they come.
    let (told, mut tellings) = mpsc::channel(plan.sessions);
    let mut tasks = JoinSet::new();
    for session in sessions {
        let (mut watcher, path) = (Watcher::new(session, &path), path.clone());
        let (armed, told, over) = (armed.clone(), told.clone(), over.clone());
        tasks.spawn(async move {
            for _ in 0..rounds {
                watcher.arm(&path).await?;
                armed.wait().await;
                watcher.told().await?;
                if told.send(Instant::now()).await.is_err() {
                    break;
                }
                over.wait().await;
            }
            watcher.close().await;
            Ok::<_, Failure>(())
        });
    }
    let mut measured = Measured::new();
    let watched = plan.servers.watch()?;
    for round in 0..rounds {
        tokio::select! {
            _ = armed.wait() => {}
            Some(ended) = tasks.join_next() => return Err(early(ended)),
        }
        tokio::time::sleep(QUIET).await;
        let since = Instant::now();
        setter.call(Op::Set { path: path.as_str().into(), data: Bytes::from(round.to_string()) }).await?;
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
            measured.round(last - since);
        }
        over.wait().await;
    }
    measured.used(watched.usage()?, None);
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

/// A session that watches a node. Over gRPC the watch lasts, and what it tells is what was changed and not how, so that
/// nothing has to be read again; over ZooKeeper's protocol it is set again for each round.
enum Watcher {
    Grpc { session: GrpcSession, events: Box<WatchStream<TreeEvent>>, armed: bool },
    Zookeeper(Box<ZookeeperSession>),
}

impl Watcher {
    fn new(session: Session, path: &str) -> Self {
        match session {
            Session::Grpc(session) => {
                let events = Box::new(session.client.watch(path).recursive());
                Self::Grpc { session, events, armed: false }
            }
            Session::Zookeeper(session) => Self::Zookeeper(session),
        }
    }

    async fn arm(&mut self, path: &str) -> Result<(), Failure> {
        match self {
            Self::Grpc { armed: true, .. } => Ok(()),
            Self::Grpc { events, armed, .. } => {
                *armed = true;
                next(events, |event| matches!(event, TreeEvent::Resync)).await
            }
            Self::Zookeeper(session) => session.watch(path).await.map(drop).map_err(broken),
        }
    }

    /// Waits for the notification.
    async fn told(&mut self) -> Result<(), Failure> {
        match self {
            Self::Grpc { events, .. } => next(events, |event| matches!(event, TreeEvent::Changed(_))).await,
            Self::Zookeeper(session) => session.event().await.map_err(broken),
        }
    }

    async fn close(self) {
        match self {
            Self::Grpc { session, events, .. } => {
                drop(events);
                session.close().await;
            }
            Self::Zookeeper(session) => session.close().await,
        }
    }
}

/// Waits for the next event, which is of the kind that is due.
async fn next(events: &mut WatchStream<TreeEvent>, is_due: impl Fn(&TreeEvent) -> bool) -> Result<(), Failure> {
    match events.next().await {
        Some(Ok(event)) if is_due(&event) => Ok(()),
        Some(Ok(event)) => Err(broken(format_args!("{event:?} was told"))),
        Some(Err(error)) => Err(error.into()),
        None => Err(broken("the watch ended")),
    }
}
