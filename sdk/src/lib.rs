//! Async client of a Quorate ensemble.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use quorate::Client;
//! # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
//! # let endpoints = ensemble.endpoints();
//!
//! let client = Client::builder(endpoints).connect().await?; // for instance "http://127.0.0.1:7101"
//! client.create("/greeting").data("hello").await?;
//! let node = client.get("/greeting").await?;
//! assert_eq!(node.data, "hello");
//! # ensemble.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! A [`Client`] has one session, which outlives connections: when the member that serves it is gone, the client
//! attaches to another and goes on. Requests wait meanwhile, and writes that were sent and not answered are
//! sent again under their old numbers, so that each is applied once and in order. Only when the session itself
//! is lost can the outcome of a write be unknown, and the error says so ([`Error::is_unknown_outcome`]).
//!
//! **Sessions.** [`Client::states`] tells every change of state, [`Client::session`] gives a view of the
//! current session: until when it is certain to live ([`SessionView::is_live`]), and a future that waits for
//! its loss ([`SessionView::lost`]). After a loss the client opens a new session by itself. By then the old one
//! has ended: its ephemeral nodes are gone, and nothing it had sent can take effect any more.
//!
//! **Operations** are builders that are awaited: `client.create("/a").data("x").parents().await?`. A request
//! leaves when it is first polled, and requests reach the tree in that order.
//!
//! **Watches** are streams of states: [`WatchBuilder::data`], [`WatchBuilder::children`],
//! [`WatchBuilder::recursive`]. They arm themselves again, over reconnects and lost sessions, and the newest
//! state is never missed.
//!
//! What this crate is not: it knows no lock, election, registry or configuration. Those are in
//! `quorate-recipes`, on nothing but what is public here.

#![deny(missing_docs)]

mod acl;
mod admin;
mod builder;
mod call;
mod client;
pub mod clock;
mod core;
mod create;
mod delete;
mod endpoints;
mod error;
mod janitor;
mod link;
mod nodes;
mod op;
mod outbox;
mod path;
pub mod retry;
mod session;
mod stat;
mod state;
mod trace;
mod transport;
mod txn;
mod watch;
mod watches;

pub use acl::{Acl, Permissions};
pub use admin::{Admin, MemberInfo, MemberStatus, Role, SessionInfo, SnapshotInfo};
pub use builder::ClientBuilder;
pub use call::Call;
pub use client::{Client, Drained};
pub use create::{Create, CreateMode, Created};
pub use delete::Delete;
pub use endpoints::IntoSeeds;
pub use error::{Error, LostReason, Result};
pub use janitor::{Janitor, Release, ReleaseOnDrop, ReleaseSlot};
pub use nodes::{AclList, ChildList, Children, ChildrenOpt, Exists, Get, GetAcl, GetOpt, Node, Set, SetAcl};
pub use retry::RetryPolicy;
pub use session::SessionView;
pub use stat::{SessionId, Stat};
pub use state::{ChangeReason, SessionState, StateChange, StateStream};
pub use trace::with_traceparent;
pub use txn::{Transaction, Txn, TxnOp, TxnResult, TxnResults};
pub use watch::{ChildrenEvent, DataEvent, TreeEvent, WatchBuilder, WatchStream};
