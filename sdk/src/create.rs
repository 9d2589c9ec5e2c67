//! Creating nodes: plainly, with what is missing above them, and so that a lost session leaves no doubt.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use bytes::Bytes;
use quorate_proto::v1::{self, reply, request::Op};
use uuid::Uuid;

use crate::{
    acl::Acl,
    call::{Call, mismatch},
    client::Client,
    error::{Error, Result},
    janitor::{Release, ReleaseOnDrop, ReleaseSlot},
    nodes::{ROUNDS_MAX, stat_of},
    path::{self, Namespace},
    stat::Stat,
};

/// How a node comes into being and when it goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum CreateMode {
    /// Stays until somebody deletes it.
    #[default]
    Persistent,
    /// Goes with the session that made it. Has no children.
    Ephemeral,
    /// Persistent, and the server appends the parent's counter to the name, ten digits wide.
    PersistentSequential,
    /// Ephemeral, and the server appends the parent's counter to the name, ten digits wide.
    EphemeralSequential,
    /// Goes some time after its last child.
    Container,
}

impl CreateMode {
    /// Whether the server completes the name.
    pub fn is_sequential(self) -> bool {
        matches!(self, Self::PersistentSequential | Self::EphemeralSequential)
    }

    /// Whether the node goes with its session.
    pub fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral | Self::EphemeralSequential)
    }

    fn sequential(self) -> Option<Self> {
        match self {
            Self::Persistent | Self::PersistentSequential => Some(Self::PersistentSequential),
            Self::Ephemeral | Self::EphemeralSequential => Some(Self::EphemeralSequential),
            Self::Container => None,
        }
    }
}

/// A node that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Created {
    /// Its path, with what the server and `protected()` added to the name.
    pub path: String,
    /// What is known of it. Its `czxid` serves as a fencing token.
    pub stat: Stat,
}

impl Created {
    /// The last part of its path.
    pub fn name(&self) -> &str {
        path::name(&self.path)
    }

    /// The number the server gave it, if it is sequential: what follows the name it was asked for.
    pub fn sequence(&self) -> Option<i64> {
        let name = self.name();
        let digits = name.bytes().rev().take_while(u8::is_ascii_digit).count();
        if digits < 10 {
            return None;
        }
        name[name.len() - digits..].parse().ok()
    }
}

/// What is to be created, apart from where.
#[derive(Debug, Clone, Default)]
pub(crate) struct CreateOptions {
    pub(crate) data: Bytes,
    pub(crate) mode: CreateMode,
    pub(crate) sequential: bool,
    pub(crate) acl: Option<Arc<[Acl]>>,
    pub(crate) ttl: Option<Duration>,
}

impl CreateOptions {
    /// The request for a path as the client knows it.
    pub(crate) fn request(&self, ns: &Namespace, path: &str) -> Result<v1::CreateRequest> {
        let refuse = |message: &str| Err(Error::BadArguments { message: message.into() });
        let mode = match (self.sequential, self.mode.sequential()) {
            (false, _) => self.mode,
            (true, Some(mode)) => mode,
            (true, None) => return refuse("a container cannot be sequential"),
        };
        let wire_mode = match (mode, self.ttl) {
            (CreateMode::Persistent, None) => v1::CreateMode::Persistent,
            (CreateMode::Ephemeral, None) => v1::CreateMode::Ephemeral,
            (CreateMode::PersistentSequential, None) => v1::CreateMode::PersistentSequential,
            (CreateMode::EphemeralSequential, None) => v1::CreateMode::EphemeralSequential,
            (CreateMode::Container, None) => v1::CreateMode::Container,
            (CreateMode::Persistent, Some(_)) => v1::CreateMode::PersistentWithTtl,
            (CreateMode::PersistentSequential, Some(_)) => v1::CreateMode::PersistentSequentialWithTtl,
            (_, Some(_)) => return refuse("only persistent nodes have a time to live"),
        };
        let ttl_ms = match self.ttl {
            None => 0,
            Some(ttl) => match u64::try_from(ttl.as_millis()) {
                Ok(ms) if (1..1 << 40).contains(&ms) => ms,
                _ => return refuse("a time to live is between a millisecond and 34 years"),
            },
        };
        Ok(v1::CreateRequest {
            path: if mode.is_sequential() { ns.full_sequential(path)? } else { ns.full(path)? },
            data: self.data.clone(),
            mode: wire_mode.into(),
            acl: self.acl.iter().flat_map(|acl| acl.iter().map(v1::Acl::from)).collect(),
            ttl_ms,
        })
    }
}

/// Creates a node; from [`Client::create`].
///
/// # Cancel safety
/// A plain create is not cancel-safe: dropped after it was first polled, it may or may not take effect. With
/// [`Create::protected`] it is: what was created is deleted again in the background.
///
/// Lost connections do not make it happen twice.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Create<'a> {
    client: &'a Client,
    path: &'a str,
    options: CreateOptions,
    parents: bool,
    protected: bool,
}

impl<'a> Create<'a> {
    pub(crate) fn new(client: &'a Client, path: &'a str) -> Self {
        let options = CreateOptions { acl: client.acl.clone(), ..CreateOptions::default() };
        Self { client, path, options, parents: false, protected: false }
    }

    /// Its data; none by default.
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.options.data = data.into();
        self
    }

    /// How long it lives and who names it.
    pub fn mode(mut self, mode: CreateMode) -> Self {
        self.options.mode = mode;
        self
    }

    /// It goes with this client's session.
    pub fn ephemeral(self) -> Self {
        self.mode(CreateMode::Ephemeral)
    }

    /// The server appends the parent's counter to the name. Goes with persistent and ephemeral modes.
    pub fn sequential(mut self) -> Self {
        self.options.sequential = true;
        self
    }

    /// Who may do what to it, in place of the client's default.
    pub fn acl(mut self, acl: impl Into<Vec<Acl>>) -> Self {
        self.options.acl = Some(acl.into().into());
        self
    }

    /// A persistent node goes when it has no children and was not set for this long.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = Some(ttl);
        self
    }

    /// Creates what is missing above it, as containers with the client's default ACL: the ACL of this node is for it
    /// alone, since others may have to create beside it.
    pub fn parents(mut self) -> Self {
        self.parents = true;
        self
    }

    /// Puts a mark of its own before the name (Curator's `_c_<uuid>-`), by which it is found again when the
    /// session is lost before the answer has come. So exactly one is created, and a dropped future leaves none.
    pub fn protected(mut self) -> Self {
        self.protected = true;
        self
    }

    fn call(&self, path: &str) -> Call<'a, Created> {
        let op = self.options.request(&self.client.ns, path).map(Op::Create);
        Call::single(&self.client.core, &self.client.ns, op, finish_create)
    }

    async fn with_parents(&self, path: &str) -> Result<Created> {
        let mut last = None;
        for _ in 0..ROUNDS_MAX {
            match self.call(path).await {
                Err(error @ Error::NoNode { .. }) if self.parents => last = Some(error),
                other => return other,
            }
            create_parents(self.client, path).await?;
        }
        Err(last.expect("a round ends with an error"))
    }

    /// Creates it as with [`Create::protected`], under a slot that was reserved before, and gives the slot back
    /// armed: dropped, it deletes the node. So there is no moment at which the node is there and nobody would
    /// delete it.
    ///
    /// # Cancel safety
    /// Dropped, it leaves no node: what was created is deleted in the background.
    pub async fn guarded(self, slot: ReleaseSlot) -> Result<(Created, ReleaseOnDrop)> {
        let (parent, name) = self.path.rsplit_once('/').ok_or_else(|| Error::InvalidPath {
            path: self.path.to_owned(),
            reason: "it does not start with a slash",
        })?;
        let parent = if parent.is_empty() { "/" } else { parent };
        let prefix = format!("{PROTECTED_PREFIX}{}-", Uuid::new_v4());
        let path = path::join(parent, &format!("{prefix}{name}"));
        // What an attempt may have left is looked for and deleted, unless it is settled here.
        let guard = slot.on_drop(Release::protected(parent, &prefix));
        let mut delays = self.client.core.retry.delays();
        loop {
            let error = match self.with_parents(&path).await {
                Ok(created) => {
                    let release = Release::node(&created.path);
                    return Ok((created, guard.instead(release)));
                }
                // Nothing was created by this attempt, nor by one before: those were looked into.
                Err(error) if error.definitely_not_applied() && !error.is_retryable() => {
                    guard.disarm();
                    return Err(error);
                }
                Err(error) => error,
            };
            // A client that is strict about its session gets no other, however long it tries.
            if self.client.core.is_shut() {
                return Err(error);
            }
            if error.is_unknown_outcome()
                && let Some(found) = self.find(parent, &prefix).await?
            {
                let release = Release::node(&found.path);
                return Ok((found, guard.instead(release)));
            }
            let Some(delay) = delays.next_delay().filter(|_| self.client.core.budget.withdraw()) else {
                return Err(error);
            };
            tokio::time::sleep(delay).await;
        }
    }

    async fn create_protected(self) -> Result<Created> {
        let slot = self.client.janitor().reserve().await?;
        let (created, guard) = self.guarded(slot).await?;
        guard.disarm();
        Ok(created)
    }

    /// The node of an earlier attempt. By the time there is a new session, the one before has ended and its
    /// ephemeral nodes are gone; one that still shows is not ours any more.
    async fn find(&self, parent: &str, prefix: &str) -> Result<Option<Created>> {
        let names = match self.client.children(parent).linearizable().opt().await? {
            Some(list) => list.names,
            None => return Ok(None),
        };
        let mut found: Vec<String> = names.into_iter().filter(|name| name.starts_with(prefix)).collect();
        found.sort();
        for name in found {
            let path = path::join(parent, &name);
            let Some(stat) = self.client.exists(&path).await? else { continue };
            let session = self.client.core.session().map(|session| session.id());
            if stat.ephemeral_owner.is_none() || stat.ephemeral_owner == session {
                return Ok(Some(Created { path, stat }));
            }
        }
        Ok(None)
    }
}

impl<'a> IntoFuture for Create<'a> {
    type Output = Result<Created>;
    type IntoFuture = Call<'a, Created>;

    fn into_future(self) -> Call<'a, Created> {
        if self.protected {
            return Call::composed(self.create_protected());
        }
        if self.parents {
            return Call::composed(async move { self.with_parents(self.path).await });
        }
        self.call(self.path)
    }
}

/// What Curator puts before the id of a protected node.
pub(crate) const PROTECTED_PREFIX: &str = "_c_";

pub(crate) fn finish_create(reply: Result<v1::Reply>, ns: &Namespace) -> Result<Created> {
    let reply = reply?;
    match reply.result {
        Some(reply::Result::Create(created)) => created_of(created, ns),
        _ => mismatch(reply),
    }
}

pub(crate) fn created_of(created: v1::CreateReply, ns: &Namespace) -> Result<Created> {
    Ok(Created { path: ns.strip_owned(created.path), stat: stat_of(created.stat)? })
}

/// Creates what is missing above `path`, from the first that exists downwards.
async fn create_parents(client: &Client, path: &str) -> Result<()> {
    let mut missing = Vec::new();
    let mut at = path::parent(path);
    while let Some(above) = at {
        // The root of a namespace may be missing too, and it is not the root of the tree.
        if above == "/" && client.ns.prefix().is_empty() {
            break;
        }
        if client.exists(above).await?.is_some() {
            break;
        }
        missing.push(above);
        at = path::parent(above);
    }
    for above in missing.into_iter().rev() {
        create_container(client, above).await?;
    }
    Ok(())
}

async fn create_container(client: &Client, path: &str) -> Result<()> {
    let options = CreateOptions { mode: CreateMode::Container, acl: client.acl.clone(), ..CreateOptions::default() };
    let op = options.request(&client.ns, path).map(Op::Create);
    match Call::single(&client.core, &client.ns, op, finish_create).await {
        // Somebody else was faster, or deleted what is above: the caller's next round sees it.
        Ok(_) | Err(Error::NodeExists { .. } | Error::NoNode { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Creates the namespace of the client itself.
pub(crate) async fn create_chroot(client: &Client) -> Result<()> {
    let prefix = client.ns.prefix();
    if prefix.is_empty() {
        return Ok(());
    }
    match client.without_namespace().create(prefix).parents().await {
        Ok(_) | Err(Error::NodeExists { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(path: &str) -> Created {
        Created { path: path.into(), stat: Stat::default() }
    }

    #[test]
    fn a_sequence_is_the_digits_at_the_end() {
        assert_eq!(created("/q/item-0000000042").sequence(), Some(42));
        assert_eq!(created("/q/_c_6d4e5121-6c17-4023-8f7b-8922f8b70cae-lock-0000000007").sequence(), Some(7));
        assert_eq!(created("/q/item-42").sequence(), None);
        assert_eq!(created("/q/item").sequence(), None);
    }

    #[test]
    fn modes_that_make_no_sense_are_refused_before_anything_is_sent() {
        let ns = Namespace::default();
        let ttl = Some(Duration::from_secs(1));
        let options = |mode, sequential, ttl| CreateOptions { mode, sequential, ttl, ..CreateOptions::default() };

        for bad in [
            options(CreateMode::Container, true, None),
            options(CreateMode::Ephemeral, false, ttl),
            options(CreateMode::Container, false, ttl),
            options(CreateMode::Persistent, false, Some(Duration::ZERO)),
        ] {
            let refused = bad.request(&ns, "/a");
            assert!(matches!(refused, Err(Error::BadArguments { .. })), "{bad:?}");
        }
        let good = options(CreateMode::Persistent, true, ttl).request(&ns, "/a-").unwrap();
        assert_eq!(good.mode(), v1::CreateMode::PersistentSequentialWithTtl);
        assert_eq!(good.ttl_ms, 1000);
    }
}
