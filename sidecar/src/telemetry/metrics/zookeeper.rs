//! What clients of ZooKeeper ask, by operation.

use std::sync::Arc;

use opentelemetry::{
    KeyValue,
    metrics::{Counter, Meter},
};
use quorate_wire::OpCode;

/// Requests of all connections.
#[derive(Clone, Debug)]
pub(crate) struct ZookeeperMetrics {
    requests: Counter<u64>,
    /// One for each operation, the last for what is none.
    labels: Arc<[KeyValue]>,
}

/// Requests of one connection, counted by batches: a counter with a label is not free.
#[derive(Debug)]
pub(crate) struct RequestCounts {
    metrics: ZookeeperMetrics,
    /// A place among the labels and how many; a batch has few kinds.
    batch: Vec<(usize, u64)>,
}

impl ZookeeperMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let requests = meter
            .u64_counter("quorate_zookeeper_requests")
            .with_description("Requests of ZooKeeper's clients, by operation.")
            .build();
        let known = OpCode::ALL.iter().map(|op| lower_camel(&format!("{op:?}")));
        let labels = known.chain(["unknown".to_owned()]).map(|op| KeyValue::new("op", op)).collect();
        Self { requests, labels }
    }

    /// For one connection.
    pub(crate) fn requests(&self) -> RequestCounts {
        RequestCounts { metrics: self.clone(), batch: Vec::new() }
    }
}

impl RequestCounts {
    pub(crate) fn add(&mut self, op: Option<OpCode>) {
        let unknown = OpCode::ALL.len();
        let place = op.map_or(unknown, |op| OpCode::ALL.iter().position(|known| *known == op).unwrap_or(unknown));
        match self.batch.iter_mut().find(|(counted, _)| *counted == place) {
            Some((_, count)) => *count += 1,
            None => self.batch.push((place, 1)),
        }
    }

    /// The batch is whole.
    pub(crate) fn record(&mut self) {
        for (place, count) in self.batch.drain(..) {
            self.metrics.requests.add(count, std::slice::from_ref(&self.metrics.labels[place]));
        }
    }
}

/// As ZooKeeper writes its operations.
fn lower_camel(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}
