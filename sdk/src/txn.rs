//! Transactions: all or nothing, under one zxid.

use std::{future::IntoFuture, time::Duration};

use bytes::Bytes;
use quorate_proto::v1::{self, reply, request, transaction_op, transaction_result};

use crate::{
    acl::Acl,
    call::{Call, mismatch},
    client::Client,
    create::{CreateMode, CreateOptions, Created, created_of},
    error::{Error, Result},
    path::Namespace,
    stat::Stat,
};

/// One operation of a transaction.
#[derive(Debug, Clone)]
#[must_use]
pub struct TxnOp {
    path: String,
    action: Action,
    /// A modifier that does not fit the action; said when the transaction is committed.
    misfit: Option<&'static str>,
}

#[derive(Debug, Clone)]
enum Action {
    Check { version: i32 },
    Create(CreateOptions),
    Set { data: Bytes, version: i32 },
    Delete { version: i32 },
}

impl TxnOp {
    fn new(path: impl Into<String>, action: Action) -> Self {
        Self { path: path.into(), action, misfit: None }
    }

    /// Requires that the node exists with this version, or with any if it is -1.
    pub fn check(path: impl Into<String>, version: i32) -> Self {
        Self::new(path, Action::Check { version })
    }

    /// Creates a node.
    pub fn create(path: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Self::new(path, Action::Create(CreateOptions { data: data.into(), ..CreateOptions::default() }))
    }

    /// Sets the data of a node.
    pub fn set(path: impl Into<String>, data: impl Into<Bytes>) -> Self {
        Self::new(path, Action::Set { data: data.into(), version: -1 })
    }

    /// Deletes a node.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(path, Action::Delete { version: -1 })
    }

    /// Of a set, a delete or a check: only if the node has this version.
    pub fn version(mut self, at: i32) -> Self {
        match &mut self.action {
            Action::Check { version } | Action::Set { version, .. } | Action::Delete { version } => *version = at,
            Action::Create(_) => self.misfit = Some("a create has no version"),
        }
        self
    }

    fn create_option(mut self, set: impl FnOnce(&mut CreateOptions)) -> Self {
        match &mut self.action {
            Action::Create(options) => set(options),
            _ => self.misfit = Some("only a create has a mode, an access list and a time to live"),
        }
        self
    }

    /// Of a create: how the node lives.
    pub fn mode(self, mode: CreateMode) -> Self {
        self.create_option(|options| options.mode = mode)
    }

    /// Of a create: who may do what, in place of the client's default.
    pub fn acl(self, acl: impl Into<Vec<Acl>>) -> Self {
        let acl = acl.into();
        self.create_option(|options| options.acl = Some(acl.into()))
    }

    /// Of a create: the time to live.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.create_option(|options| options.ttl = Some(ttl))
    }

    fn wire(self, client: &Client) -> Result<v1::TransactionOp> {
        if let Some(misfit) = self.misfit {
            return Err(Error::BadArguments { message: misfit.into() });
        }
        let ns = &client.ns;
        let op = match self.action {
            Action::Check { version } => {
                transaction_op::Op::Check(v1::CheckRequest { path: ns.full(&self.path)?, version })
            }
            Action::Create(mut options) => {
                options.acl = options.acl.or_else(|| client.acl.clone());
                transaction_op::Op::Create(options.request(ns, &self.path)?)
            }
            Action::Set { data, version } => {
                transaction_op::Op::SetData(v1::SetDataRequest { path: ns.full(&self.path)?, data, version })
            }
            Action::Delete { version } => {
                transaction_op::Op::Delete(v1::DeleteRequest { path: ns.full(&self.path)?, version })
            }
        };
        Ok(v1::TransactionOp { op: Some(op) })
    }
}

/// Several operations that happen together or not at all; from [`Client::txn`].
///
/// `mode`, `acl`, `ttl` and `version` speak of the operation added last.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
/// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
/// client.create("/orders").await?;
/// let results = client
///     .txn()
///     .check("/orders", 0)
///     .create("/orders/42", "new")
///     .mode(quorate::CreateMode::Ephemeral)
///     .set("/orders", "one order")
///     .version(0)
///     .commit()
///     .await?;
/// assert_eq!(results.created(1)?.path, "/orders/42");
/// assert_eq!(results.stat(2)?.version, 1);
/// # ensemble.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before it is committed"]
pub struct Txn {
    client: Client,
    ops: Vec<TxnOp>,
    stray: bool,
}

/// The name of [`Txn`] in full.
pub type Transaction = Txn;

impl Txn {
    pub(crate) fn new(client: Client) -> Self {
        Self { client, ops: Vec::new(), stray: false }
    }

    /// Adds an operation made elsewhere.
    pub fn op(mut self, op: TxnOp) -> Self {
        self.ops.push(op);
        self
    }

    /// Adds an operation before all others, as a guard does with its check.
    pub fn op_first(mut self, op: TxnOp) -> Self {
        self.ops.insert(0, op);
        self
    }

    /// Requires that a node exists with this version, or with any if it is -1.
    pub fn check(self, path: impl Into<String>, version: i32) -> Self {
        self.op(TxnOp::check(path, version))
    }

    /// Creates a node.
    pub fn create(self, path: impl Into<String>, data: impl Into<Bytes>) -> Self {
        self.op(TxnOp::create(path, data))
    }

    /// Sets the data of a node.
    pub fn set(self, path: impl Into<String>, data: impl Into<Bytes>) -> Self {
        self.op(TxnOp::set(path, data))
    }

    /// Deletes a node.
    pub fn delete(self, path: impl Into<String>) -> Self {
        self.op(TxnOp::delete(path))
    }

    fn last(mut self, change: impl FnOnce(TxnOp) -> TxnOp) -> Self {
        match self.ops.pop() {
            Some(op) => self.ops.push(change(op)),
            None => self.stray = true,
        }
        self
    }

    /// Of the last operation: only if the node has this version.
    pub fn version(self, version: i32) -> Self {
        self.last(|op| op.version(version))
    }

    /// Of the last operation, a create: how the node lives.
    pub fn mode(self, mode: CreateMode) -> Self {
        self.last(|op| op.mode(mode))
    }

    /// Of the last operation, a create: who may do what.
    pub fn acl(self, acl: impl Into<Vec<Acl>>) -> Self {
        self.last(|op| op.acl(acl))
    }

    /// Of the last operation, a create: the time to live.
    pub fn ttl(self, ttl: Duration) -> Self {
        self.last(|op| op.ttl(ttl))
    }

    /// Operations so far.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// Does all of it, or nothing and says which operation is to blame ([`Error::Txn`]).
    ///
    /// # Cancel safety
    /// Not cancel-safe: dropped after it was first polled, it may or may not take effect, as a whole. Lost
    /// connections do not make it happen twice.
    pub async fn commit(self) -> Result<TxnResults> {
        if self.stray {
            return Err(Error::BadArguments { message: "an option before the first operation".into() });
        }
        let client = self.client;
        let ops = self.ops.into_iter().map(|op| op.wire(&client)).collect::<Result<Vec<_>>>();
        let op = ops.map(|ops| request::Op::Transaction(v1::TransactionRequest { ops }));
        Call::single(&client.core, &client.ns, op, finish_txn).await
    }
}

impl IntoFuture for Txn {
    type Output = Result<TxnResults>;
    type IntoFuture = Call<'static, TxnResults>;

    fn into_future(self) -> Call<'static, TxnResults> {
        Call::composed(self.commit())
    }
}

fn finish_txn(reply: Result<v1::Reply>, ns: &Namespace) -> Result<TxnResults> {
    let reply = reply?;
    let zxid = reply.zxid;
    let Some(reply::Result::Transaction(txn)) = reply.result else { return mismatch(reply) };
    let results = txn
        .results
        .into_iter()
        .map(|result| match result.result {
            Some(transaction_result::Result::Create(created)) => created_of(created, ns).map(TxnResult::Created),
            Some(transaction_result::Result::Stat(stat)) => Ok(TxnResult::Set(stat.into())),
            Some(transaction_result::Result::Done(_)) => Ok(TxnResult::Done),
            None => Err(Error::Protocol("an empty result in a transaction".into())),
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(TxnResults { zxid, results })
}

/// What one operation of a transaction did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TxnResult {
    /// A node was created.
    Created(Created),
    /// Data was set; the new stat.
    Set(Stat),
    /// A node was checked or deleted.
    Done,
}

/// What a transaction did, operation by operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnResults {
    zxid: u64,
    results: Vec<TxnResult>,
}

impl TxnResults {
    /// The zxid all of it has.
    pub fn zxid(&self) -> u64 {
        self.zxid
    }

    /// How many operations there were.
    pub fn len(&self) -> usize {
        self.results.len()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.results.is_empty()
    }

    /// In the order of the operations.
    pub fn iter(&self) -> std::slice::Iter<'_, TxnResult> {
        self.results.iter()
    }

    /// What the operation at this place did.
    pub fn get(&self, index: usize) -> Option<&TxnResult> {
        self.results.get(index)
    }

    /// The node that the operation at this place created.
    pub fn created(&self, index: usize) -> Result<&Created> {
        match self.get(index) {
            Some(TxnResult::Created(created)) => Ok(created),
            _ => Err(Error::BadArguments { message: format!("operation {index} is no create") }),
        }
    }

    /// The stat after the set at this place.
    pub fn stat(&self, index: usize) -> Result<Stat> {
        match self.get(index) {
            Some(TxnResult::Set(stat)) => Ok(*stat),
            Some(TxnResult::Created(created)) => Ok(created.stat),
            _ => Err(Error::BadArguments { message: format!("operation {index} has no stat") }),
        }
    }
}
