//! A session over gRPC, through the SDK: what users of it get.

use std::{pin::Pin, time::Instant};

use futures_util::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use quorate::{Client, CreateMode};
use std::time::Duration;

use super::target::{Done, Op};
use crate::cli::exit::Failure;

const SESSION_TIMEOUT: Duration = Duration::from_secs(30);
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

pub(super) struct GrpcSession {
    pub(super) client: Client,
    in_flight: FuturesUnordered<Pin<Box<dyn Future<Output = Done> + Send>>>,
}

impl GrpcSession {
    pub(super) async fn open(endpoint: &str) -> Result<Self, Failure> {
        let client = Client::builder(endpoint).session_timeout(SESSION_TIMEOUT).client_name("bench").connect().await?;
        Ok(Self { client, in_flight: FuturesUnordered::new() })
    }

    pub(super) fn start(&mut self, op: Op, slot: usize, since: Instant) {
        let client = self.client.clone();
        self.in_flight.push(Box::pin(async move {
            let outcome = perform(&client, op).await.map_err(|error| error.to_string());
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

    pub(super) async fn children(&self, path: &str) -> Result<Vec<String>, Failure> {
        Ok(self.client.children(path).await?.names)
    }

    pub(super) async fn close(self) {
        drop(self.in_flight);
        // What is not closed goes with its timeout.
        let _ = self.client.close(CLOSE_WITHIN).await;
    }
}

async fn perform(client: &Client, op: Op) -> quorate::Result<()> {
    match op {
        Op::Create { path, data, ephemeral, sequential } => {
            let mode = match (ephemeral, sequential) {
                (false, false) => CreateMode::Persistent,
                (false, true) => CreateMode::PersistentSequential,
                (true, false) => CreateMode::Ephemeral,
                (true, true) => CreateMode::EphemeralSequential,
            };
            client.create(&path).data(data).mode(mode).await.map(drop)
        }
        Op::Set { path, data } => client.set(&path, data).await.map(drop),
        Op::Get { path, linearizable: false } => client.get(&path).await.map(drop),
        Op::Get { path, linearizable: true } => client.get(&path).linearizable().await.map(drop),
        Op::Delete { path } => client.delete(&path).await.map(drop),
    }
}
