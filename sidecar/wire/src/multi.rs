//! Several operations in one request, each behind a header of its own.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use crate::{
    Create, CreateKind, DecodeError, Decoder, Delete, Encoder as _, ErrorCode, GetPath, OpCode, SetData, Stat, Version,
    create_flags,
};

/// One operation of a multi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiOp<'a> {
    /// Creates a node.
    Create(Create<'a>),
    /// Deletes a node.
    Delete(Delete<'a>),
    /// Sets data.
    SetData(SetData<'a>),
    /// Only compares a version.
    Check {
        /// Of which node.
        path: Cow<'a, str>,
        /// The expected one.
        version: Version,
    },
}

/// One operation of a multiRead. Its watch flag is ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MultiRead<'a> {
    /// Data and stat.
    GetData(GetPath<'a>),
    /// The names of the children.
    GetChildren(GetPath<'a>),
}

/// What became of one operation of a multi or a multiRead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpResult {
    /// Of a create; the older operation has no stat.
    Created {
        /// The node's final path.
        path: String,
        /// As of this operation.
        stat: Option<Stat>,
    },
    /// Of a delete.
    Deleted,
    /// Of a set.
    Set(Stat),
    /// Of a check.
    Checked,
    /// Of a read of data.
    Data {
        /// Null is kept apart from empty.
        data: Option<Bytes>,
        /// The node's.
        stat: Stat,
    },
    /// Of a read of names.
    Children(Vec<String>),
    /// It failed. In a multi all have one of these if one has: OK before the one that failed,
    /// RUNTIME_INCONSISTENCY after it.
    Failed(ErrorCode),
}

const CHECK: i32 = 13;
/// The type in the header of a failed operation, and of the end.
const NONE: i32 = -1;
const TEXT_BYTES_MIN: usize = 4;

/// Before each operation and each result.
struct MultiHeader {
    kind: i32,
    done: bool,
    error: i32,
}

impl MultiHeader {
    const END: Self = Self { kind: NONE, done: true, error: NONE };

    fn decode(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { kind: from.int()?, done: from.boolean()?, error: from.int()? })
    }

    fn encode(&self, to: &mut BytesMut) {
        to.int(self.kind);
        to.boolean(self.done);
        to.int(self.error);
    }

    /// Before an operation.
    fn asked(kind: i32, to: &mut BytesMut) {
        Self { kind, done: false, error: NONE }.encode(to);
    }

    /// Before a result.
    fn answered(kind: i32, to: &mut BytesMut) {
        Self { kind, done: false, error: 0 }.encode(to);
    }
}

/// Reads until the end mark. Each operation takes bytes, so there are no more of them than the frame has.
fn decode_each<'a, T>(
    from: &mut Decoder<'a>,
    mut one: impl FnMut(&MultiHeader, &mut Decoder<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    let mut all = Vec::new();
    loop {
        let header = MultiHeader::decode(from)?;
        if header.done {
            return Ok(all);
        }
        all.push(one(&header, from)?);
    }
}

pub(crate) fn decode_ops<'a>(from: &mut Decoder<'a>) -> Result<Vec<MultiOp<'a>>, DecodeError> {
    decode_each(from, |header, from| {
        Ok(match OpCode::of(header.kind) {
            Some(OpCode::Create) => decode_create(CreateKind::Create, from)?,
            Some(OpCode::Create2) => decode_create(CreateKind::Create2, from)?,
            Some(OpCode::CreateContainer) => decode_create(CreateKind::Container, from)?,
            Some(OpCode::CreateTtl) => decode_create(CreateKind::Ttl, from)?,
            Some(OpCode::Delete) => MultiOp::Delete(Delete::decode(from)?),
            Some(OpCode::SetData) => MultiOp::SetData(SetData::decode(from)?),
            None if header.kind == CHECK => MultiOp::Check { path: from.some_text()?, version: from.int()? },
            _ => return Err(DecodeError::Operation(header.kind)),
        })
    })
}

/// Unlike alone, ZooKeeper cannot decode a mode that does not exist, nor one with a time to live where there is none.
/// Where there is one, all can be decoded, and those that make no sense are the tree's to refuse.
fn decode_create<'a>(kind: CreateKind, from: &mut Decoder<'a>) -> Result<MultiOp<'a>, DecodeError> {
    let create = Create::decode(kind, from)?;
    match create.flags {
        create_flags::PERSISTENT..=create_flags::CONTAINER => Ok(MultiOp::Create(create)),
        _ if kind == CreateKind::Ttl => Ok(MultiOp::Create(create)),
        value => Err(DecodeError::Value { what: "create mode", value }),
    }
}

pub(crate) fn encode_ops(ops: &[MultiOp<'_>], to: &mut BytesMut) {
    for op in ops {
        match op {
            MultiOp::Create(create) => {
                MultiHeader::asked(create.kind.op().code(), to);
                create.encode(to);
            }
            MultiOp::Delete(delete) => {
                MultiHeader::asked(OpCode::Delete.code(), to);
                delete.encode(to);
            }
            MultiOp::SetData(set) => {
                MultiHeader::asked(OpCode::SetData.code(), to);
                set.encode(to);
            }
            MultiOp::Check { path, version } => {
                MultiHeader::asked(CHECK, to);
                to.text(path);
                to.int(*version);
            }
        }
    }
    MultiHeader::END.encode(to);
}

pub(crate) fn decode_reads<'a>(from: &mut Decoder<'a>) -> Result<Vec<MultiRead<'a>>, DecodeError> {
    decode_each(from, |header, from| {
        Ok(match OpCode::of(header.kind) {
            Some(OpCode::GetData) => MultiRead::GetData(GetPath::decode(from)?),
            Some(OpCode::GetChildren) => MultiRead::GetChildren(GetPath::decode(from)?),
            _ => return Err(DecodeError::Operation(header.kind)),
        })
    })
}

pub(crate) fn encode_reads(reads: &[MultiRead<'_>], to: &mut BytesMut) {
    for read in reads {
        let (op, get) = match read {
            MultiRead::GetData(get) => (OpCode::GetData, get),
            MultiRead::GetChildren(get) => (OpCode::GetChildren, get),
        };
        MultiHeader::asked(op.code(), to);
        get.encode(to);
    }
    MultiHeader::END.encode(to);
}

pub(crate) fn decode_results(from: &mut Decoder<'_>) -> Result<Vec<OpResult>, DecodeError> {
    decode_each(from, |header, from| {
        if header.kind == NONE {
            return Ok(OpResult::Failed(ErrorCode(from.int()?)));
        }
        Ok(match OpCode::of(header.kind) {
            Some(OpCode::Create) => OpResult::Created { path: from.some_text()?.into_owned(), stat: None },
            Some(OpCode::Create2) => {
                OpResult::Created { path: from.some_text()?.into_owned(), stat: Some(Stat::decode(from)?) }
            }
            Some(OpCode::Delete) => OpResult::Deleted,
            Some(OpCode::SetData) => OpResult::Set(Stat::decode(from)?),
            Some(OpCode::GetData) => OpResult::Data { data: from.buffer()?, stat: Stat::decode(from)? },
            Some(OpCode::GetChildren) => OpResult::Children(decode_names(from)?),
            None if header.kind == CHECK => OpResult::Checked,
            _ => return Err(DecodeError::Operation(header.kind)),
        })
    })
}

pub(crate) fn encode_results(results: &[OpResult], to: &mut BytesMut) {
    for result in results {
        match result {
            OpResult::Created { path, stat: None } => {
                MultiHeader::answered(OpCode::Create.code(), to);
                to.text(path);
            }
            OpResult::Created { path, stat: Some(stat) } => {
                MultiHeader::answered(OpCode::Create2.code(), to);
                to.text(path);
                stat.encode(to);
            }
            OpResult::Deleted => MultiHeader::answered(OpCode::Delete.code(), to),
            OpResult::Set(stat) => {
                MultiHeader::answered(OpCode::SetData.code(), to);
                stat.encode(to);
            }
            OpResult::Checked => MultiHeader::answered(CHECK, to),
            OpResult::Data { data, stat } => {
                MultiHeader::answered(OpCode::GetData.code(), to);
                to.buffer(data.as_deref());
                stat.encode(to);
            }
            OpResult::Children(names) => {
                MultiHeader::answered(OpCode::GetChildren.code(), to);
                encode_names(names, to);
            }
            OpResult::Failed(error) => {
                MultiHeader { kind: NONE, done: false, error: error.0 }.encode(to);
                to.int(error.0);
            }
        }
    }
    MultiHeader::END.encode(to);
}

pub(crate) fn decode_names(from: &mut Decoder<'_>) -> Result<Vec<String>, DecodeError> {
    let name = |from: &mut Decoder<'_>| Ok(from.some_text()?.into_owned());
    Ok(from.vector(TEXT_BYTES_MIN, name)?.unwrap_or_default())
}

pub(crate) fn encode_names(names: &[String], to: &mut BytesMut) {
    to.count(names.len());
    for name in names {
        to.text(name);
    }
}
