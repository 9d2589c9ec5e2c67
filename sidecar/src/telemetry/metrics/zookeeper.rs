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

/// A batch of requests, counted together: a counter with a label is not free.
#[derive(Debug)]
pub(crate) struct RequestCounts<'a> {
    metrics: &'a ZookeeperMetrics,
    /// A place among the labels and how many; most batches have no more kinds than this.
    kinds: [(usize, u64); 4],
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

    /// For one batch.
    pub(crate) fn requests(&self) -> RequestCounts<'_> {
        RequestCounts { metrics: self, kinds: [(0, 0); 4] }
    }

    fn add(&self, place: usize, count: u64) {
        self.requests.add(count, std::slice::from_ref(&self.labels[place]));
    }
}

impl RequestCounts<'_> {
    pub(crate) fn add(&mut self, op: Option<OpCode>) {
        let unknown = OpCode::ALL.len();
        let place = op.map_or(unknown, |op| OpCode::ALL.iter().position(|known| *known == op).unwrap_or(unknown));
        match self.kinds.iter_mut().find(|(counted, count)| *counted == place || *count == 0) {
            Some(kind) => *kind = (place, kind.1 + 1),
            None => self.metrics.add(place, 1),
        }
    }

    /// The batch is whole.
    pub(crate) fn record(self) {
        for (place, count) in self.kinds.into_iter().filter(|(_, count)| *count > 0) {
            self.metrics.add(place, count);
        }
    }
}

/// As ZooKeeper writes its operations.
fn lower_camel(name: &str) -> String {
    let mut letters = name.chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}
