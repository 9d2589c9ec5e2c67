//! Keeps what a holder writes from taking effect after it has lost what it held.
//!
//! A holder that was paused between looking at its watch and writing writes too late, and no client can prevent
//! that by itself. Two things can:
//!
//! - **Inside the ensemble**, [`FencedClient`] puts every write into one transaction with a check that the node
//!   which stands for the hold is still there. If it is not, nothing is written.
//! - **Outside of it**, the resource that is protected remembers the greatest [`FencingToken`] it has seen and
//!   refuses writes that carry a smaller one. Tokens grow with every acquisition.

use std::fmt;

use bytes::Bytes;
use quorate::{Created, Stat, TxnOp, TxnResult};

use crate::{Error, Result, line::Hold};

/// Grows with every acquisition of the same lock or leadership, over restarts of everything.
///
/// It is the zxid of the change that created the node which stands for the hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(pub u64);

impl FencingToken {
    /// The bare number, for a column or a header.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<FencingToken> for u64 {
    fn from(token: FencingToken) -> Self {
        token.0
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Writes that take effect only while something is held; from [`Hold::fenced`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
/// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
/// use quorate_recipes::{Error, Mutex};
///
/// client.create("/balance").data("100").await?;
/// let guard = Mutex::new(&client, "/locks/balance")?.lock().await?;
/// let fenced = guard.fenced();
/// fenced.set("/balance", "90").await?;
///
/// // An operator ends the hold. The holder need not have noticed: what it writes has no effect.
/// client.delete(guard.path()).await?;
/// assert!(matches!(fenced.set("/balance", "0").await, Err(Error::Lost { .. })));
/// assert_eq!(client.get("/balance").await?.data, "90");
/// # client.close(std::time::Duration::from_secs(5)).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
/// That of transactions: a write that is dropped after it was first polled may or may not take effect, and if
/// it does, then while the hold lasted.
#[derive(Debug)]
pub struct FencedClient {
    hold: Hold,
}

impl Clone for FencedClient {
    fn clone(&self) -> Self {
        Self { hold: self.hold.handle() }
    }
}

impl FencedClient {
    pub(crate) fn new(hold: Hold) -> Self {
        Self { hold }
    }

    /// What each write is checked against.
    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    /// Creates a node.
    pub async fn create(&self, path: impl Into<String>, data: impl Into<Bytes>) -> Result<Created> {
        match self.apply(TxnOp::create(path, data)).await? {
            TxnResult::Created(created) => Ok(created),
            other => Err(mismatch(&other)),
        }
    }

    /// Sets the data of a node.
    pub async fn set(&self, path: impl Into<String>, data: impl Into<Bytes>) -> Result<Stat> {
        match self.apply(TxnOp::set(path, data)).await? {
            TxnResult::Set(stat) => Ok(stat),
            other => Err(mismatch(&other)),
        }
    }

    /// Deletes a node.
    pub async fn delete(&self, path: impl Into<String>) -> Result<()> {
        self.apply(TxnOp::delete(path)).await.map(|_| ())
    }

    /// One operation with its options: a version to match, a mode.
    pub async fn apply(&self, op: TxnOp) -> Result<TxnResult> {
        let mut results = self.transact([op]).await.map_err(|error| match error {
            // There is only one operation to blame.
            Error::Client(quorate::Error::Txn { source, .. }) => Error::Client(*source),
            error => error,
        })?;
        results.pop().ok_or_else(|| quorate::Error::Protocol("a transaction without a result".into()).into())
    }

    /// Several operations, all or nothing. Results and the index of a refused one are in the order of `ops`.
    pub async fn transact(&self, ops: impl IntoIterator<Item = TxnOp>) -> Result<Vec<TxnResult>> {
        self.hold.check()?;
        let txn = self.hold.client().txn().op(self.hold.check_op());
        let txn = ops.into_iter().fold(txn, quorate::Txn::op);
        match txn.commit().await {
            Ok(results) => Ok(results.iter().skip(1).cloned().collect()),
            Err(quorate::Error::Txn { index: 0, source }) => match *source {
                quorate::Error::NoNode { .. } => Err(self.hold.found_gone()),
                source => Err(source.into()),
            },
            Err(quorate::Error::Txn { index, source }) => Err(quorate::Error::Txn { index: index - 1, source }.into()),
            Err(error) => Err(error.into()),
        }
    }
}

fn mismatch(result: &TxnResult) -> Error {
    quorate::Error::Protocol(format!("{result:?} is no result of this operation")).into()
}
