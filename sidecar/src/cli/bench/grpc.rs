//! A session over gRPC, through the SDK: what users of it get.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use quorate::{Client, CreateMode, SessionView};

use super::{
    target::{Done, Op, broken},
    workload::key,
};
use crate::cli::exit::Failure;

const CLOSE_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct GrpcSession {
    pub(super) client: Client,
    /// The session it began with: a client that loses it opens another by itself.
    view: Option<SessionView>,
    in_flight: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
}

impl GrpcSession {
    pub(super) async fn open(endpoint: &str, session_timeout: Duration) -> Result<Self, Failure> {
        let client = Client::builder(endpoint).session_timeout(session_timeout).client_name("bench").connect().await?;
        Ok(Self { view: client.session(), client, in_flight: FuturesUnordered::new() })
    }

    pub(super) fn start(&mut self, op: Op, slot: usize, since: Instant) {
        let client = self.client.clone();
        self.in_flight.push(Box::pin(async move {
            let outcome = perform(&client, op).await;
            Done { slot, since, outcome }
        }));
    }

    pub(super) async fn next(&mut self, done: &mut Vec<Done>) {
        if self.in_flight.is_empty() {
            return std::future::pending().await;
        }
        done.extend(self.in_flight.next().await);
        while let Some(Some(more)) = self.in_flight.next().now_or_never() {
            done.push(more);
        }
    }

    /// Whether the session it began with lives on.
    pub(super) fn is_kept(&self) -> Result<(), Failure> {
        if self.view.as_ref().is_some_and(SessionView::is_live) { Ok(()) } else { Err(broken("it has expired")) }
    }

    pub(super) async fn children(&self, path: &str) -> Result<Vec<String>, Failure> {
        Ok(self.client.children(path).await?.names)
    }

    pub(super) async fn close(self) {
        drop(self.in_flight);
        // What is not closed goes with its timeout.
        let _ = self.client.close(CLOSE_WITHIN).await;
    }
}

async fn perform(client: &Client, op: Op) -> Result<(), String> {
    let done = match op {
        Op::Create { path, data, ephemeral, sequential } => {
            let mode = match (ephemeral, sequential) {
                (false, false) => CreateMode::Persistent,
                (false, true) => CreateMode::PersistentSequential,
                (true, false) => CreateMode::Ephemeral,
                (true, true) => CreateMode::EphemeralSequential,
            };
            client.create(&path).data(data).mode(mode).await.map(drop)
        }
        Op::CreateAll { folder, keys, data } => {
            let txn = keys.fold(client.txn(), |txn, at| txn.create(key(&folder, at), data.clone()));
            txn.commit().await.map(drop)
        }
        Op::Set { path, data } => client.set(&path, data).await.map(drop),
        Op::Get { path, linearizable, bytes } => {
            let get = client.get(&path);
            let node = if linearizable { get.linearizable().await } else { get.await };
            match node {
                Ok(node) if node.data.len() != bytes => {
                    return Err(format!("{} bytes of data came, not {bytes}", node.data.len()));
                }
                other => other.map(drop),
            }
        }
        Op::Delete { path } => client.delete(&path).await.map(drop),
    };
    done.map_err(|error| error.to_string())
}
