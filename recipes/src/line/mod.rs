//! The line in which contenders stand: ephemeral sequential children of one node, in the order of their numbers.
//!
//! Whoever has the first place holds. Everybody else watches the place just before its own, so that one waiter
//! wakes for each that leaves. Locks and elections differ in the label of the places and in what is done with a
//! hold; everything else is here.
//!
//! What it is not: it makes no promise beyond the tree's. That the first place is ours is known from a list that
//! was read after our place was created: whoever stood before us and is not in it has left for good, because
//! reads of a session never go back in time. That it is still ours is known from the session's lease.
//!
//! Tasks: one for each hold, [`hold::watch_over`], of the client. Waiting needs none: it is a future, and
//! dropping it gives the place up through the janitor.

mod contend;
mod hold;
mod holder;
mod name;
mod own_node;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use quorate::{Client, CreateMode, ReleaseOnDrop, SessionId, SessionView};

pub use contend::WaitEvent;
pub(crate) use contend::{Patience, acquire, lasting, may_pass, next_change};
pub(crate) use hold::Held;
pub use hold::{Hold, HoldState};
pub use holder::HolderInfo;
pub(crate) use holder::host;
pub(crate) use name::Label;

use crate::{Error, FencingToken, Result};

/// Places that are read at a time when all are read.
const READS_UNDER_WAY_MAX: usize = 64;
/// Beyond it the order of names is not the same for everybody (see [`Error::SequenceNearOverflow`]).
const SEQUENCE_MAX: i64 = 2_000_000_000;
const SEQUENCE_WARN: i64 = 1_500_000_000;
/// What Curator's revokers write into a place whose holder is to let go.
pub(crate) const REVOKE: &[u8] = b"__REVOKE__";

/// A line that may be entered.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    client: Client,
    path: Arc<str>,
    label: Label,
}

/// A place of ours in the line. Dropped, it is given up.
#[derive(Debug)]
pub(crate) struct Place {
    path: String,
    token: FencingToken,
    /// The session it goes with.
    session: SessionView,
    release: ReleaseOnDrop,
}

/// One who stands in the line, as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Participant {
    /// Its node.
    pub path: String,
    /// The token it has, or will have when it is its turn.
    pub token: FencingToken,
    /// The session it goes with.
    pub session: Option<SessionId>,
    /// Since when it is there, by the leader's wall clock, in milliseconds since 1970.
    pub since_ms: i64,
    /// What it says about itself.
    pub data: Bytes,
}

impl Participant {
    /// What it says about itself, if it is said as this crate's locks do by default.
    pub fn info(&self) -> Option<HolderInfo> {
        HolderInfo::from_json(&self.data)
    }

    /// What it says about itself, as text: the id in an election.
    pub fn id(&self) -> String {
        id_of(&self.data)
    }
}

/// The id in the data of a place. For as long as it holds a revoker's word instead, there is none.
pub(crate) fn id_of(data: &[u8]) -> String {
    if data == REVOKE { String::new() } else { String::from_utf8_lossy(data).into_owned() }
}

impl Line {
    pub(crate) fn new(client: &Client, path: impl Into<String>, label: Label) -> Result<Self> {
        let path = path.into();
        if !path.starts_with('/') {
            return Err(quorate::Error::InvalidPath { path, reason: "it does not start with a slash" }.into());
        }
        // The client's rules for paths, asked in the one way that sends nothing.
        client.namespace(&path)?;
        Ok(Self { client: client.clone(), path: path.into(), label })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn child(&self, name: &str) -> String {
        if &*self.path == "/" { format!("/{name}") } else { format!("{}/{name}", self.path) }
    }

    /// The places among these children, in the order of the line.
    pub(crate) fn in_order(&self, names: Vec<String>) -> Vec<String> {
        self.label.in_order(names)
    }

    /// Those in the line, in its order.
    pub(crate) async fn names(&self) -> quorate::Result<Vec<String>> {
        let list = self.client.children(&self.path).opt().await?;
        Ok(list.map(|list| self.label.in_order(list.names)).unwrap_or_default())
    }

    /// The same, as new as everything that was acknowledged before this was asked.
    pub(crate) async fn newest_names(&self) -> quorate::Result<Vec<String>> {
        let list = self.client.children(&self.path).linearizable().opt().await?;
        Ok(list.map(|list| self.label.in_order(list.names)).unwrap_or_default())
    }

    /// Those in the line with what they say about themselves. Whoever leaves meanwhile is left out.
    pub(crate) async fn participants(&self) -> Result<Vec<Participant>> {
        let names = self.newest_names().await?;
        let read = stream::iter(names).map(|name| self.read(name)).buffered(READS_UNDER_WAY_MAX);
        Ok(read.try_filter_map(|participant| async { Ok(participant) }).try_collect().await?)
    }

    /// The first in the line. If it has left by the time it is read, the next.
    pub(crate) async fn first(&self) -> Result<Option<Participant>> {
        for name in self.newest_names().await? {
            if let Some(first) = self.read(name).await? {
                return Ok(Some(first));
            }
        }
        Ok(None)
    }

    async fn read(&self, name: String) -> quorate::Result<Option<Participant>> {
        let path = self.child(&name);
        let node = self.client.get(&path).opt().await?;
        Ok(node.map(|node| Participant {
            path,
            token: FencingToken(node.stat.czxid),
            session: node.stat.ephemeral_owner,
            since_ms: node.stat.ctime_ms,
            data: Bytes::copy_from_slice(&node.data),
        }))
    }

    /// Asks whoever stands there to let go; it may not listen. No harm is done if it has left.
    pub(crate) async fn revoke(&self, participant: &Participant) -> Result<()> {
        match self.client.set(&participant.path, REVOKE).await {
            Ok(_) | Err(quorate::Error::NoNode { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the place at the end. `None` if the session it was created in has gone meanwhile, and the place
    /// with it.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no node.
    async fn enter(&self, data: Bytes) -> Result<Option<Place>> {
        let slot = self.client.janitor().reserve().await?;
        let path = self.child(self.label.as_str());
        let create = self.client.create(&path).data(data).mode(CreateMode::EphemeralSequential).parents();
        let (created, release) = create.guarded(slot).await?;
        let sequence = created.sequence().unwrap_or_default();
        if sequence >= SEQUENCE_MAX {
            return Err(Error::SequenceNearOverflow { path: self.path.to_string(), sequence });
        }
        if sequence >= SEQUENCE_WARN {
            tracing::warn!(path = %self.path, sequence, "the counter of this node comes near to its end");
        }
        // The session of now need not be the one in which it was created.
        let session = self.client.session().filter(|session| created.stat.ephemeral_owner == Some(session.id()));
        Ok(session.map(|session| Place {
            path: created.path,
            token: FencingToken(created.stat.czxid),
            session,
            release,
        }))
    }
}

impl Place {
    fn name(&self) -> &str {
        &self.path[self.path.rfind('/').map_or(0, |at| at + 1)..]
    }
}
