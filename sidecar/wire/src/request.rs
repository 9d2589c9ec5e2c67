//! What a client asks.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use crate::{Acl, DecodeError, Decoder, Encoder as _, MultiOp, MultiRead, OpCode, RequestHeader, frame, multi};

/// A request's body, borrowed from its frame as far as that is possible.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// By each of the four operations that create.
    Create(Create<'a>),
    /// Deletes a node without children.
    Delete(Delete<'a>),
    /// The stat of a node, or that there is none.
    Exists(GetPath<'a>),
    /// Data and stat.
    GetData(GetPath<'a>),
    /// Replaces the data.
    SetData(SetData<'a>),
    /// The access control list.
    GetAcl {
        /// Of which node.
        path: Cow<'a, str>,
    },
    /// Replaces the access control list.
    SetAcl(SetAcl<'a>),
    /// The names of the children.
    GetChildren(GetPath<'a>),
    /// Their names and the node's stat.
    GetChildren2(GetPath<'a>),
    /// Waits until the server has seen what was committed.
    Sync {
        /// Only echoed.
        path: Option<Cow<'a, str>>,
    },
    /// The session lives.
    Ping,
    /// All of it or nothing.
    Multi(Vec<MultiOp<'a>>),
    /// Several reads, each for itself.
    MultiRead(Vec<MultiRead<'a>>),
    /// Changes the ensemble.
    Reconfig(Reconfig<'a>),
    /// Whether there is such a watch.
    CheckWatches {
        /// On which node.
        path: Cow<'a, str>,
        /// Of which kind.
        watcher: WatcherType,
    },
    /// Takes watches away.
    RemoveWatches {
        /// From which node.
        path: Cow<'a, str>,
        /// Of which kind.
        watcher: WatcherType,
    },
    /// A credential for this connection.
    Auth {
        /// Its scheme.
        scheme: Cow<'a, str>,
        /// What the scheme wants.
        credential: Bytes,
    },
    /// Sets the watches of an earlier connection again, as older clients do.
    SetWatches(SetWatches<'a>),
    /// The same with persistent watches.
    SetWatches2(SetWatches<'a>),
    /// A step of a SASL exchange.
    Sasl {
        /// The client's token.
        token: Option<Bytes>,
    },
    /// The ephemeral nodes of this session.
    GetEphemerals {
        /// Only those whose paths begin so; null and empty are all.
        prefix: Option<Cow<'a, str>>,
    },
    /// How many nodes are below one.
    GetAllChildrenNumber {
        /// Which one.
        path: Cow<'a, str>,
    },
    /// Sets a persistent watch.
    AddWatch {
        /// On which node.
        path: Cow<'a, str>,
        /// How far it sees.
        mode: AddWatchMode,
    },
    /// What the connection is authenticated as.
    WhoAmI,
    /// Ends the session.
    CloseSession,
}

/// An expected version; -1 is any.
pub type Version = i32;

/// Which of the four operations creates, for they differ in what they take and answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateKind {
    /// Answered by the path.
    Create,
    /// Answered by path and stat, as the rest.
    Create2,
    /// Always a container.
    Container,
    /// With a time to live.
    Ttl,
}

/// The values of [`Create::flags`]. Not a bit mask.
#[allow(missing_docs, reason = "the names are the protocol's")]
pub mod create_flags {
    pub const PERSISTENT: i32 = 0;
    pub const EPHEMERAL: i32 = 1;
    pub const PERSISTENT_SEQUENTIAL: i32 = 2;
    pub const EPHEMERAL_SEQUENTIAL: i32 = 3;
    pub const CONTAINER: i32 = 4;
    pub const PERSISTENT_WITH_TTL: i32 = 5;
    pub const PERSISTENT_SEQUENTIAL_WITH_TTL: i32 = 6;
}

/// A node to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create<'a> {
    /// By which operation.
    pub kind: CreateKind,
    /// Where, before a number is appended.
    pub path: Cow<'a, str>,
    /// Its data; null is kept apart from empty.
    pub data: Option<Bytes>,
    /// Its access control list; empty for null.
    pub acl: Vec<Acl>,
    /// One of [`create_flags`], or any other value a client thinks of.
    pub flags: i32,
    /// Milliseconds; 0 where the operation has none.
    pub ttl_ms: i64,
}

/// A node to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete<'a> {
    /// Which one.
    pub path: Cow<'a, str>,
    /// Its expected version.
    pub version: Version,
}

/// A node to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetPath<'a> {
    /// Which one.
    pub path: Cow<'a, str>,
    /// Whether to watch it from here on.
    pub watch: bool,
}

/// Data to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetData<'a> {
    /// Of which node.
    pub path: Cow<'a, str>,
    /// Null is kept apart from empty.
    pub data: Option<Bytes>,
    /// Its expected version.
    pub version: Version,
}

/// An access control list to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAcl<'a> {
    /// Of which node.
    pub path: Cow<'a, str>,
    /// Empty for null.
    pub acl: Vec<Acl>,
    /// Its expected ACL version.
    pub version: Version,
}

/// Another ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reconfig<'a> {
    /// Servers to add or change.
    pub joining: Option<Cow<'a, str>>,
    /// Ids to remove.
    pub leaving: Option<Cow<'a, str>>,
    /// All servers, instead of the two.
    pub new_members: Option<Cow<'a, str>>,
    /// The configuration it must replace; -1 is any.
    pub current_config_id: i64,
}

/// The watches of an earlier connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetWatches<'a> {
    /// The last change that connection showed.
    pub relative_zxid: i64,
    /// Nodes that were there and whose data was watched.
    pub data: Vec<Cow<'a, str>>,
    /// Nodes that were not there.
    pub exist: Vec<Cow<'a, str>>,
    /// Nodes whose children were watched.
    pub child: Vec<Cow<'a, str>>,
    /// Nodes with persistent watches; empty for the older operation.
    pub persistent: Vec<Cow<'a, str>>,
    /// Nodes with recursive watches; empty for the older operation.
    pub recursive: Vec<Cow<'a, str>>,
}

/// How far a persistent watch sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddWatchMode {
    /// The node and the set of its children.
    Persistent = 0,
    /// The node and everything below.
    Recursive = 1,
}

/// Which watches to check or remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatcherType {
    /// One-shot watches of the children.
    Children = 1,
    /// One-shot watches of the data, or of the node's being there.
    Data = 2,
    /// All.
    Any = 3,
    /// Persistent ones.
    Persistent = 4,
    /// Recursive ones.
    Recursive = 5,
}

/// A path in a list takes at least its length.
const TEXT_BYTES_MIN: usize = 4;

impl<'a> Request<'a> {
    /// Reads the body of an operation. What follows it is ignored, as ZooKeeper does.
    ///
    /// # Errors
    /// If the frame ends, a path is null, or a value is outside its set.
    pub fn decode(op: OpCode, from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(match op {
            OpCode::Create => Self::Create(Create::decode(CreateKind::Create, from)?),
            OpCode::Create2 => Self::Create(Create::decode(CreateKind::Create2, from)?),
            OpCode::CreateContainer => Self::Create(Create::decode(CreateKind::Container, from)?),
            OpCode::CreateTtl => Self::Create(Create::decode(CreateKind::Ttl, from)?),
            OpCode::Delete => Self::Delete(Delete::decode(from)?),
            OpCode::Exists => Self::Exists(GetPath::decode(from)?),
            OpCode::GetData => Self::GetData(GetPath::decode(from)?),
            OpCode::SetData => Self::SetData(SetData::decode(from)?),
            OpCode::GetAcl => Self::GetAcl { path: from.some_text()? },
            OpCode::SetAcl => {
                Self::SetAcl(SetAcl { path: from.some_text()?, acl: Acl::decode_list(from)?, version: from.int()? })
            }
            OpCode::GetChildren => Self::GetChildren(GetPath::decode(from)?),
            OpCode::GetChildren2 => Self::GetChildren2(GetPath::decode(from)?),
            OpCode::Sync => Self::Sync { path: from.text()? },
            OpCode::Ping => Self::Ping,
            OpCode::Multi => Self::Multi(multi::decode_ops(from)?),
            OpCode::MultiRead => Self::MultiRead(multi::decode_reads(from)?),
            OpCode::Reconfig => Self::Reconfig(Reconfig {
                joining: from.text()?,
                leaving: from.text()?,
                new_members: from.text()?,
                current_config_id: from.long()?,
            }),
            OpCode::CheckWatches => Self::CheckWatches { path: from.some_text()?, watcher: WatcherType::decode(from)? },
            OpCode::RemoveWatches => {
                Self::RemoveWatches { path: from.some_text()?, watcher: WatcherType::decode(from)? }
            }
            OpCode::Auth => {
                let _kind = from.int()?;
                Self::Auth { scheme: from.some_text()?, credential: from.buffer()?.unwrap_or_default() }
            }
            OpCode::SetWatches => Self::SetWatches(SetWatches::decode(from)?),
            OpCode::SetWatches2 => {
                let mut watches = SetWatches::decode(from)?;
                watches.persistent = decode_paths(from)?;
                watches.recursive = decode_paths(from)?;
                Self::SetWatches2(watches)
            }
            OpCode::Sasl => Self::Sasl { token: from.buffer()? },
            OpCode::GetEphemerals => Self::GetEphemerals { prefix: from.text()? },
            OpCode::GetAllChildrenNumber => Self::GetAllChildrenNumber { path: from.some_text()? },
            OpCode::AddWatch => Self::AddWatch {
                path: from.some_text()?,
                mode: match from.int()? {
                    0 => AddWatchMode::Persistent,
                    1 => AddWatchMode::Recursive,
                    value => return Err(DecodeError::Value { what: "mode of a watch", value }),
                },
            },
            OpCode::WhoAmI => Self::WhoAmI,
            OpCode::CloseSession => Self::CloseSession,
        })
    }

    /// The operation it is asked with.
    #[must_use]
    pub fn op(&self) -> OpCode {
        match self {
            Self::Create(create) => create.kind.op(),
            Self::Delete(_) => OpCode::Delete,
            Self::Exists(_) => OpCode::Exists,
            Self::GetData(_) => OpCode::GetData,
            Self::SetData(_) => OpCode::SetData,
            Self::GetAcl { .. } => OpCode::GetAcl,
            Self::SetAcl(_) => OpCode::SetAcl,
            Self::GetChildren(_) => OpCode::GetChildren,
            Self::GetChildren2(_) => OpCode::GetChildren2,
            Self::Sync { .. } => OpCode::Sync,
            Self::Ping => OpCode::Ping,
            Self::Multi(_) => OpCode::Multi,
            Self::MultiRead(_) => OpCode::MultiRead,
            Self::Reconfig(_) => OpCode::Reconfig,
            Self::CheckWatches { .. } => OpCode::CheckWatches,
            Self::RemoveWatches { .. } => OpCode::RemoveWatches,
            Self::Auth { .. } => OpCode::Auth,
            Self::SetWatches(_) => OpCode::SetWatches,
            Self::SetWatches2(_) => OpCode::SetWatches2,
            Self::Sasl { .. } => OpCode::Sasl,
            Self::GetEphemerals { .. } => OpCode::GetEphemerals,
            Self::GetAllChildrenNumber { .. } => OpCode::GetAllChildrenNumber,
            Self::AddWatch { .. } => OpCode::AddWatch,
            Self::WhoAmI => OpCode::WhoAmI,
            Self::CloseSession => OpCode::CloseSession,
        }
    }

    /// Appends the whole frame, header included.
    pub fn encode(&self, xid: i32, to: &mut BytesMut) {
        frame(to, |to| {
            RequestHeader { xid, op: self.op().code() }.encode(to);
            self.encode_body(to);
        });
    }

    fn encode_body(&self, to: &mut BytesMut) {
        match self {
            Self::Create(create) => create.encode(to),
            Self::Delete(delete) => delete.encode(to),
            Self::Exists(get) | Self::GetData(get) | Self::GetChildren(get) | Self::GetChildren2(get) => {
                get.encode(to);
            }
            Self::SetData(set) => set.encode(to),
            Self::GetAcl { path } | Self::GetAllChildrenNumber { path } => to.text(path),
            Self::SetAcl(set) => {
                to.text(&set.path);
                Acl::encode_list(&set.acl, to);
                to.int(set.version);
            }
            Self::Sync { path } | Self::GetEphemerals { prefix: path } => encode_nullable(path.as_ref(), to),
            Self::Ping | Self::WhoAmI | Self::CloseSession => {}
            Self::Multi(ops) => multi::encode_ops(ops, to),
            Self::MultiRead(reads) => multi::encode_reads(reads, to),
            Self::Reconfig(reconfig) => {
                for text in [&reconfig.joining, &reconfig.leaving, &reconfig.new_members] {
                    encode_nullable(text.as_ref(), to);
                }
                to.long(reconfig.current_config_id);
            }
            Self::CheckWatches { path, watcher } | Self::RemoveWatches { path, watcher } => {
                to.text(path);
                to.int(*watcher as i32);
            }
            Self::Auth { scheme, credential } => {
                to.int(0);
                to.text(scheme);
                to.buffer(Some(credential));
            }
            Self::SetWatches(watches) => watches.encode(to),
            Self::SetWatches2(watches) => {
                watches.encode(to);
                encode_paths(&watches.persistent, to);
                encode_paths(&watches.recursive, to);
            }
            Self::Sasl { token } => to.buffer(token.as_deref()),
            Self::AddWatch { path, mode } => {
                to.text(path);
                to.int(*mode as i32);
            }
        }
    }
}

impl CreateKind {
    /// The operation's code.
    #[must_use]
    pub fn op(self) -> OpCode {
        match self {
            Self::Create => OpCode::Create,
            Self::Create2 => OpCode::Create2,
            Self::Container => OpCode::CreateContainer,
            Self::Ttl => OpCode::CreateTtl,
        }
    }
}

impl<'a> Create<'a> {
    pub(crate) fn decode(kind: CreateKind, from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            kind,
            path: from.some_text()?,
            data: from.buffer()?,
            acl: Acl::decode_list(from)?,
            flags: from.int()?,
            ttl_ms: if kind == CreateKind::Ttl { from.long()? } else { 0 },
        })
    }

    pub(crate) fn encode(&self, to: &mut BytesMut) {
        to.text(&self.path);
        to.buffer(self.data.as_deref());
        Acl::encode_list(&self.acl, to);
        to.int(self.flags);
        if self.kind == CreateKind::Ttl {
            to.long(self.ttl_ms);
        }
    }
}

impl<'a> Delete<'a> {
    pub(crate) fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self { path: from.some_text()?, version: from.int()? })
    }

    pub(crate) fn encode(&self, to: &mut BytesMut) {
        to.text(&self.path);
        to.int(self.version);
    }
}

impl<'a> GetPath<'a> {
    pub(crate) fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self { path: from.some_text()?, watch: from.boolean()? })
    }

    pub(crate) fn encode(&self, to: &mut BytesMut) {
        to.text(&self.path);
        to.boolean(self.watch);
    }
}

impl<'a> SetData<'a> {
    pub(crate) fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self { path: from.some_text()?, data: from.buffer()?, version: from.int()? })
    }

    pub(crate) fn encode(&self, to: &mut BytesMut) {
        to.text(&self.path);
        to.buffer(self.data.as_deref());
        to.int(self.version);
    }
}

impl<'a> SetWatches<'a> {
    fn decode(from: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            relative_zxid: from.long()?,
            data: decode_paths(from)?,
            exist: decode_paths(from)?,
            child: decode_paths(from)?,
            persistent: Vec::new(),
            recursive: Vec::new(),
        })
    }

    fn encode(&self, to: &mut BytesMut) {
        to.long(self.relative_zxid);
        for paths in [&self.data, &self.exist, &self.child] {
            encode_paths(paths, to);
        }
    }
}

impl WatcherType {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(match from.int()? {
            1 => Self::Children,
            2 => Self::Data,
            3 => Self::Any,
            4 => Self::Persistent,
            5 => Self::Recursive,
            value => return Err(DecodeError::Value { what: "kind of watch", value }),
        })
    }
}

fn decode_paths<'a>(from: &mut Decoder<'a>) -> Result<Vec<Cow<'a, str>>, DecodeError> {
    Ok(from.vector(TEXT_BYTES_MIN, Decoder::some_text)?.unwrap_or_default())
}

fn encode_paths(paths: &[Cow<'_, str>], to: &mut BytesMut) {
    to.count(paths.len());
    for path in paths {
        to.text(path);
    }
}

fn encode_nullable(text: Option<&Cow<'_, str>>, to: &mut BytesMut) {
    to.buffer(text.map(|text| text.as_bytes()));
}
