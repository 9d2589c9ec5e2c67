//! Reading nodes, and setting their data and access lists.

use std::future::IntoFuture;

use bytes::Bytes;
use quorate_proto::v1::{self, reply, request::Op};

use crate::{
    acl::Acl,
    call::{Call, mismatch},
    client::Client,
    error::{Error, Result},
    path::Namespace,
    stat::Stat,
};

/// Rounds of an operation that is made of several requests and races with others.
pub(crate) const ROUNDS_MAX: usize = 8;

/// A node as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Node {
    /// Its data. It shares the buffer it was received in: copy it (`Bytes::copy_from_slice`) to keep many
    /// small ones for long.
    pub data: Bytes,
    /// What else is known of it.
    pub stat: Stat,
}

/// The children of a node as they were listed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildList {
    /// Their names, without the path, in byte order.
    pub names: Vec<String>,
    /// Of the parent.
    pub stat: Stat,
}

/// The access control list of a node as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AclList {
    /// Its entries.
    pub acl: Vec<Acl>,
    /// Of the node.
    pub stat: Stat,
}

pub(crate) fn stat_of(stat: Option<v1::Stat>) -> Result<Stat> {
    stat.map(Stat::from).ok_or_else(|| Error::Protocol("a reply without a stat".into()))
}

pub(crate) fn finish_get(reply: Result<v1::Reply>, _: &Namespace) -> Result<Node> {
    let reply = reply?;
    match reply.result {
        Some(reply::Result::Get(get)) => Ok(Node { data: get.data, stat: stat_of(get.stat)? }),
        _ => mismatch(reply),
    }
}

fn finish_children(reply: Result<v1::Reply>, _: &Namespace) -> Result<ChildList> {
    let reply = reply?;
    match reply.result {
        Some(reply::Result::Children(children)) => {
            Ok(ChildList { names: children.names, stat: stat_of(children.stat)? })
        }
        _ => mismatch(reply),
    }
}

fn finish_exists(reply: Result<v1::Reply>, _: &Namespace) -> Result<Option<Stat>> {
    let reply = reply?;
    match reply.result {
        Some(reply::Result::Exists(exists)) => Ok(exists.stat.map(Stat::from)),
        _ => mismatch(reply),
    }
}

fn finish_acl(reply: Result<v1::Reply>, _: &Namespace) -> Result<AclList> {
    let reply = reply?;
    match reply.result {
        Some(reply::Result::GetAcl(list)) => {
            Ok(AclList { acl: list.acl.into_iter().map(Acl::from).collect(), stat: stat_of(list.stat)? })
        }
        _ => mismatch(reply),
    }
}

fn finish_stat(reply: Result<v1::Reply>, _: &Namespace) -> Result<Stat> {
    let reply = reply?;
    match reply.result {
        Some(reply::Result::Stat(stat)) => Ok(stat.into()),
        _ => mismatch(reply),
    }
}

pub(crate) fn finish_done(reply: Result<v1::Reply>, _: &Namespace) -> Result<()> {
    let reply = reply?;
    match reply.result {
        Some(reply::Result::Done(_)) => Ok(()),
        _ => mismatch(reply),
    }
}

/// No node becomes no value.
fn optional<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Error::NoNode { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

fn finish_get_opt(reply: Result<v1::Reply>, ns: &Namespace) -> Result<Option<Node>> {
    optional(finish_get(reply, ns))
}

fn finish_children_opt(reply: Result<v1::Reply>, ns: &Namespace) -> Result<Option<ChildList>> {
    optional(finish_children(reply, ns))
}

macro_rules! read {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// # Cancel safety
        /// It changes nothing, so it may be dropped at any time.
        #[derive(Debug, Clone)]
        #[must_use = "nothing is sent before it is awaited"]
        pub struct $name<'a> {
            client: &'a Client,
            path: &'a str,
            linearizable: bool,
        }

        impl<'a> $name<'a> {
            pub(crate) fn new(client: &'a Client, path: &'a str) -> Self {
                Self { client, path, linearizable: false }
            }

            /// Sees every write that anybody had acknowledged before this is sent. Costs a question to a
            /// majority, which all who ask at the same time share.
            pub fn linearizable(mut self) -> Self {
                self.linearizable = true;
                self
            }
        }
    };
}

read! {
    /// Reads a node; from [`Client::get`].
    Get
}
read! {
    /// Looks whether a node exists; from [`Client::exists`].
    Exists
}
read! {
    /// Lists the children of a node; from [`Client::children`].
    Children
}

impl Get<'_> {
    fn op(&self) -> Result<Op> {
        let path = self.client.ns.full(self.path)?;
        Ok(Op::Get(v1::GetRequest { path, watch: false, linearizable: self.linearizable }))
    }
}

impl<'a> Get<'a> {
    /// Answers `None` where there is no node.
    pub fn opt(self) -> GetOpt<'a> {
        GetOpt { get: self }
    }
}

impl<'a> IntoFuture for Get<'a> {
    type Output = Result<Node>;
    type IntoFuture = Call<'a, Node>;

    fn into_future(self) -> Call<'a, Node> {
        Call::single(&self.client.core, &self.client.ns, self.op(), finish_get)
    }
}

/// Reads a node that may not be there; from [`Get::opt`].
///
/// # Cancel safety
/// It changes nothing, so it may be dropped at any time.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct GetOpt<'a> {
    get: Get<'a>,
}

impl<'a> IntoFuture for GetOpt<'a> {
    type Output = Result<Option<Node>>;
    type IntoFuture = Call<'a, Option<Node>>;

    fn into_future(self) -> Call<'a, Option<Node>> {
        let client = self.get.client;
        Call::single(&client.core, &client.ns, self.get.op(), finish_get_opt)
    }
}

impl<'a> IntoFuture for Exists<'a> {
    type Output = Result<Option<Stat>>;
    type IntoFuture = Call<'a, Option<Stat>>;

    fn into_future(self) -> Call<'a, Option<Stat>> {
        let op = self
            .client
            .ns
            .full(self.path)
            .map(|path| Op::Exists(v1::ExistsRequest { path, watch: false, linearizable: self.linearizable }));
        Call::single(&self.client.core, &self.client.ns, op, finish_exists)
    }
}

impl Children<'_> {
    fn op(&self) -> Result<Op> {
        let path = self.client.ns.full(self.path)?;
        Ok(Op::Children(v1::ChildrenRequest { path, watch: false, linearizable: self.linearizable }))
    }
}

impl<'a> Children<'a> {
    /// Answers `None` where there is no node.
    pub fn opt(self) -> ChildrenOpt<'a> {
        ChildrenOpt { children: self }
    }
}

impl<'a> IntoFuture for Children<'a> {
    type Output = Result<ChildList>;
    type IntoFuture = Call<'a, ChildList>;

    fn into_future(self) -> Call<'a, ChildList> {
        Call::single(&self.client.core, &self.client.ns, self.op(), finish_children)
    }
}

/// Lists the children of a node that may not be there; from [`Children::opt`].
///
/// # Cancel safety
/// It changes nothing, so it may be dropped at any time.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct ChildrenOpt<'a> {
    children: Children<'a>,
}

impl<'a> IntoFuture for ChildrenOpt<'a> {
    type Output = Result<Option<ChildList>>;
    type IntoFuture = Call<'a, Option<ChildList>>;

    fn into_future(self) -> Call<'a, Option<ChildList>> {
        let client = self.children.client;
        Call::single(&client.core, &client.ns, self.children.op(), finish_children_opt)
    }
}

/// Reads the access control list of a node; from [`Client::get_acl`].
///
/// # Cancel safety
/// It changes nothing, so it may be dropped at any time.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct GetAcl<'a> {
    client: &'a Client,
    path: &'a str,
}

impl<'a> GetAcl<'a> {
    pub(crate) fn new(client: &'a Client, path: &'a str) -> Self {
        Self { client, path }
    }
}

impl<'a> IntoFuture for GetAcl<'a> {
    type Output = Result<AclList>;
    type IntoFuture = Call<'a, AclList>;

    fn into_future(self) -> Call<'a, AclList> {
        let op = self.client.ns.full(self.path).map(|path| Op::GetAcl(v1::GetAclRequest { path }));
        Call::single(&self.client.core, &self.client.ns, op, finish_acl)
    }
}

/// Sets the data of a node; from [`Client::set`].
///
/// # Cancel safety
/// Not cancel-safe: dropped after it was first polled, it may or may not take effect. Lost connections do
/// not make it happen twice.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Set<'a> {
    client: &'a Client,
    path: &'a str,
    data: Bytes,
    version: i32,
    or_create: bool,
}

impl<'a> Set<'a> {
    pub(crate) fn new(client: &'a Client, path: &'a str, data: Bytes) -> Self {
        Self { client, path, data, version: -1, or_create: false }
    }

    /// Only if the node has this version.
    pub fn version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }

    /// Creates the node, and what is missing above it, where there is none. With a version it is an error to
    /// find no node, so the two do not go together.
    pub fn or_create(mut self) -> Self {
        self.or_create = true;
        self
    }

    fn op(&self) -> Result<Op> {
        let path = self.client.ns.full(self.path)?;
        Ok(Op::SetData(v1::SetDataRequest { path, data: self.data.clone(), version: self.version }))
    }

    async fn set_or_create(self) -> Result<Stat> {
        if self.version != -1 {
            let message = "a version to match and a node to create do not go together".into();
            return Err(Error::BadArguments { message });
        }
        for _ in 0..ROUNDS_MAX {
            match Call::single(&self.client.core, &self.client.ns, self.op(), finish_stat).await {
                Err(Error::NoNode { .. }) => {}
                other => return other,
            }
            match self.client.create(self.path).data(self.data.clone()).parents().await {
                Ok(created) => return Ok(created.stat),
                Err(Error::NodeExists { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::NoNode { path: self.path.to_owned() })
    }
}

impl<'a> IntoFuture for Set<'a> {
    type Output = Result<Stat>;
    type IntoFuture = Call<'a, Stat>;

    fn into_future(self) -> Call<'a, Stat> {
        if self.or_create {
            return Call::composed(self.set_or_create());
        }
        Call::single(&self.client.core, &self.client.ns, self.op(), finish_stat)
    }
}

/// Sets the access control list of a node; from [`Client::set_acl`].
///
/// # Cancel safety
/// Not cancel-safe: dropped after it was first polled, it may or may not take effect.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct SetAcl<'a> {
    client: &'a Client,
    path: &'a str,
    acl: Vec<Acl>,
    version: i32,
}

impl<'a> SetAcl<'a> {
    pub(crate) fn new(client: &'a Client, path: &'a str, acl: Vec<Acl>) -> Self {
        Self { client, path, acl, version: -1 }
    }

    /// Only if the list has this version (`aversion`).
    pub fn version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }
}

impl<'a> IntoFuture for SetAcl<'a> {
    type Output = Result<Stat>;
    type IntoFuture = Call<'a, Stat>;

    fn into_future(self) -> Call<'a, Stat> {
        let op = self.client.ns.full(self.path).map(|path| {
            let acl = self.acl.iter().map(v1::Acl::from).collect();
            Op::SetAcl(v1::SetAclRequest { path, acl, version: self.version })
        });
        Call::single(&self.client.core, &self.client.ns, op, finish_stat)
    }
}
