//! Commands to and from `quorate_proto::peer`: what a log entry carries.
//!
//! A proposal is encoded once, by the member that makes it. The leader reads no more of it than its [`Head`] and puts
//! the bytes into a batch as they are, once it has found that it could decode what another member sent; every member decodes the whole batch when it applies it. Decoding refuses
//! what this version does not know: a member that went on would differ from the others.

use bytes::{BufMut, Bytes, BytesMut};
use prost::{
    Message,
    encoding::{encode_varint, encoded_len_varint, string},
};
use quorate_proto::peer;
use quorate_tree::{
    Acl, Author, Check, Command, Create, CreateMode, Delete, Identity, Lane, MemberId, MultiOp, Op, Permissions, Reap,
    SessionId, SetAcl, SetData, WriteNumber, Zxid,
};

/// The format of batches. Whoever raises it raises the format of greetings too (`standing.rs`): members that write
/// another one must not speak with each other.
pub(crate) const FORMAT: u32 = 1;

/// Far more than a frame of a client makes, and far less than a log entry takes.
const PROPOSAL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Why a payload cannot be understood here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    #[error("a log entry has format {found}; this version knows format {FORMAT} only, so it must not go on")]
    Format { found: u32 },
    #[error("a {message} without its {field}")]
    Missing { message: &'static str, field: &'static str },
    #[error("{what} {number} is not known to this version")]
    Unknown { what: &'static str, number: u64 },
    #[error("a proposal of {bytes} bytes is more than {PROPOSAL_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("bytes that are no {message}")]
    Garbled {
        message: &'static str,
        #[source]
        source: prost::DecodeError,
    },
}

/// The part of a proposal that the leader looks at. Other fields are skipped without being decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) lane: Lane,
    /// On whose behalf.
    pub(crate) session: SessionId,
    /// W3C trace context; empty where the caller is not traced.
    pub(crate) traceparent: String,
}

/// The commands of one log entry, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) commands: Vec<Command>,
    /// The trace contexts of those whose callers are traced.
    pub(crate) traceparents: Vec<String>,
}

/// A view of `peer.Proposal`: the same field numbers, fewer of them.
#[derive(Clone, PartialEq, prost::Message)]
struct ProposalHead {
    #[prost(uint32, tag = "1")]
    member: u32,
    #[prost(uint64, tag = "2")]
    incarnation: u64,
    #[prost(uint64, tag = "3")]
    lane_seq: u64,
    #[prost(message, optional, tag = "4")]
    command: Option<CommandHead>,
    #[prost(string, tag = "5")]
    traceparent: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CommandHead {
    #[prost(uint64, tag = "1")]
    session: u64,
}

/// The numbers of the fields `Batch.proposals`, `Proposal.command` and `Command.identities`, as their tags on the wire.
const PROPOSALS_TAG: u8 = 3 << 3 | 2;
const COMMAND_TAG: u8 = 4 << 3 | 2;
const IDENTITIES_TAG: u8 = 5 << 3 | 2;

/// Why what is encoded always fits.
const GROWS: &str = "a buffer in memory grows";

/// A tag of one byte and the longest varint.
const TAG_AND_LENGTH_BYTES_MAX: usize = 11;

/// Puts encoded proposals into one log entry, as they are.
#[derive(Debug)]
pub(crate) struct BatchWriter {
    bytes: BytesMut,
}

impl BatchWriter {
    /// Begins an entry that was stamped by the leader's wall clock.
    pub(crate) fn new(stamp_ms: i64) -> Self {
        let head = peer::Batch { format: FORMAT, stamp_ms, proposals: Vec::new() };
        let mut bytes = BytesMut::new();
        head.encode(&mut bytes).expect(GROWS);
        Self { bytes }
    }

    pub(crate) fn add(&mut self, proposal: &[u8]) {
        self.bytes.reserve(proposal.len() + TAG_AND_LENGTH_BYTES_MAX);
        self.bytes.put_u8(PROPOSALS_TAG);
        encode_varint(proposal.len() as u64, &mut self.bytes);
        self.bytes.put_slice(proposal);
    }

    pub(crate) fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}

pub(crate) fn decode_head(proposal: &Bytes) -> Result<Head, CommandError> {
    let head = ProposalHead::decode(proposal.clone())
        .map_err(|source| CommandError::Garbled { message: "proposal", source })?;
    let lane = lane(head.member, head.incarnation, head.lane_seq)?;
    let command = head.command.ok_or(CommandError::Missing { message: "proposal", field: "command" })?;
    Ok(Head { lane, session: SessionId(command.session), traceparent: head.traceparent })
}

/// Whether all members will be able to apply what one of them proposes. What was agreed and cannot be applied would end
/// every member, at each start anew.
pub(crate) fn check_proposal(proposal: &Bytes) -> Result<(), CommandError> {
    if proposal.len() > PROPOSAL_BYTES_MAX {
        return Err(CommandError::TooLarge { bytes: proposal.len() });
    }
    let proposal = peer::Proposal::decode(proposal.clone())
        .map_err(|source| CommandError::Garbled { message: "proposal", source })?;
    command(proposal, 0).map(drop)
}

pub(crate) fn encode_proposal(lane: Lane, author: Author, op: Op, traceparent: String) -> Bytes {
    let (write, answered) = author.write.map_or((0, 0), |write| (write.number, write.answered));
    let command = peer::Command {
        session: author.session.0,
        attachment: author.attachment,
        write,
        answered,
        // Behind the rest: all writes of a connection share them, and they are not copied for each.
        identities: Vec::new(),
        op: Some(op_to_proto(op)),
    };
    let proposal = peer::Proposal {
        member: lane.member.0.into(),
        incarnation: lane.incarnation,
        lane_seq: lane.seq,
        command: None,
        traceparent,
    };
    let identities_bytes: usize =
        author.identities.iter().map(|identity| delimited_bytes(identity_bytes(identity))).sum();
    let command_bytes = command.encoded_len() + identities_bytes;

    let mut bytes = Vec::with_capacity(proposal.encoded_len() + delimited_bytes(command_bytes));
    proposal.encode(&mut bytes).expect(GROWS);
    bytes.put_u8(COMMAND_TAG);
    encode_varint(command_bytes as u64, &mut bytes);
    command.encode(&mut bytes).expect(GROWS);
    for identity in author.identities.iter() {
        bytes.put_u8(IDENTITIES_TAG);
        encode_varint(identity_bytes(identity) as u64, &mut bytes);
        string::encode(1, &identity.scheme, &mut bytes);
        string::encode(2, &identity.id, &mut bytes);
    }
    bytes.into()
}

/// Of a `peer.Identity`.
fn identity_bytes(identity: &Identity) -> usize {
    string::encoded_len(1, &identity.scheme) + string::encoded_len(2, &identity.id)
}

/// Of a field with a tag of one byte.
fn delimited_bytes(content_bytes: usize) -> usize {
    1 + encoded_len_varint(content_bytes as u64) + content_bytes
}

/// The commands of one log entry, in order. Data shares the memory of `batch`.
pub(crate) fn decode_batch(batch: Bytes) -> Result<Batch, CommandError> {
    let batch = peer::Batch::decode(batch).map_err(|source| CommandError::Garbled { message: "batch", source })?;
    if batch.format != FORMAT {
        return Err(CommandError::Format { found: batch.format });
    }
    let mut decoded = Batch { commands: Vec::with_capacity(batch.proposals.len()), traceparents: Vec::new() };
    for mut proposal in batch.proposals {
        if !proposal.traceparent.is_empty() {
            decoded.traceparents.push(std::mem::take(&mut proposal.traceparent));
        }
        decoded.commands.push(command(proposal, batch.stamp_ms)?);
    }
    Ok(decoded)
}

fn command(proposal: peer::Proposal, stamp_ms: i64) -> Result<Command, CommandError> {
    let lane = lane(proposal.member, proposal.incarnation, proposal.lane_seq)?;
    let command = proposal.command.ok_or(CommandError::Missing { message: "proposal", field: "command" })?;
    let write = (command.write != 0).then_some(WriteNumber { number: command.write, answered: command.answered });
    let author = Author {
        session: SessionId(command.session),
        attachment: command.attachment,
        write,
        identities: command.identities.into_iter().map(identity_from_proto).collect(),
    };
    let op = command.op.ok_or(CommandError::Missing { message: "command", field: "operation" })?;
    Ok(Command { lane, stamp_ms, author, op: op_from_proto(op)? })
}

fn lane(member: u32, incarnation: u64, seq: u64) -> Result<Lane, CommandError> {
    Ok(Lane { member: member_id(member)?, incarnation, seq })
}

fn member_id(number: u32) -> Result<MemberId, CommandError> {
    let id =
        u8::try_from(number).map_err(|_too_big| CommandError::Unknown { what: "member", number: number.into() })?;
    Ok(MemberId(id))
}

fn op_to_proto(op: Op) -> peer::command::Op {
    use peer::command::Op as Proto;

    match op {
        Op::Create(create) => Proto::Create(create_to_proto(create)),
        Op::SetData(set) => Proto::SetData(set_data_to_proto(set)),
        Op::SetAcl(set) => {
            Proto::SetAcl(peer::SetAcl { path: set.path, acl: acl_to_proto(set.acl), version: set.version })
        }
        Op::Delete(delete) => Proto::Delete(peer::Delete { path: delete.path, version: delete.version }),
        Op::Multi(ops) => Proto::Multi(peer::Multi { ops: ops.into_iter().map(multi_op_to_proto).collect() }),
        Op::OpenSession { timeout_ms, password, client_name } => {
            Proto::OpenSession(peer::OpenSession { timeout_ms, password, client_name })
        }
        Op::AttachSession { session, password, timeout_ms } => {
            Proto::AttachSession(peer::AttachSession { session: session.0, password, timeout_ms })
        }
        Op::CloseSession => Proto::CloseSession(peer::CloseSession {}),
        Op::ExpireSession { session, attachment } => {
            Proto::ExpireSession(peer::ExpireSession { session: session.0, attachment })
        }
        Op::Reap(reap) => Proto::Reap(peer::Reap { path: reap.path, czxid: reap.czxid.0 }),
        Op::PublishConfig { servers } => Proto::PublishConfig(peer::PublishConfig { servers }),
        Op::RegisterMember { member, disk_id, ensemble_id } => {
            Proto::RegisterMember(peer::RegisterMember { member: member.0.into(), disk_id, ensemble_id })
        }
    }
}

fn op_from_proto(op: peer::command::Op) -> Result<Op, CommandError> {
    use peer::command::Op as Proto;

    Ok(match op {
        Proto::Create(create) => Op::Create(create_from_proto(create)?),
        Proto::SetData(set) => Op::SetData(set_data_from_proto(set)),
        Proto::SetAcl(set) => Op::SetAcl(SetAcl { path: set.path, acl: acl_from_proto(set.acl), version: set.version }),
        Proto::Delete(delete) => Op::Delete(delete_from_proto(delete)),
        Proto::Multi(multi) => Op::Multi(multi.ops.into_iter().map(multi_op_from_proto).collect::<Result<_, _>>()?),
        Proto::OpenSession(open) => {
            Op::OpenSession { timeout_ms: open.timeout_ms, password: open.password, client_name: open.client_name }
        }
        Proto::AttachSession(attach) => Op::AttachSession {
            session: SessionId(attach.session),
            password: attach.password,
            timeout_ms: attach.timeout_ms,
        },
        Proto::CloseSession(peer::CloseSession {}) => Op::CloseSession,
        Proto::ExpireSession(expire) => {
            Op::ExpireSession { session: SessionId(expire.session), attachment: expire.attachment }
        }
        Proto::Reap(reap) => Op::Reap(Reap { path: reap.path, czxid: Zxid(reap.czxid) }),
        Proto::PublishConfig(publish) => Op::PublishConfig { servers: publish.servers },
        Proto::RegisterMember(register) => Op::RegisterMember {
            member: member_id(register.member)?,
            disk_id: register.disk_id,
            ensemble_id: register.ensemble_id,
        },
    })
}

fn multi_op_to_proto(op: MultiOp) -> peer::MultiOp {
    use peer::multi_op::Op as Proto;

    let op = match op {
        MultiOp::Create(create) => Proto::Create(create_to_proto(create)),
        MultiOp::SetData(set) => Proto::SetData(set_data_to_proto(set)),
        MultiOp::Delete(delete) => Proto::Delete(peer::Delete { path: delete.path, version: delete.version }),
        MultiOp::Check(check) => Proto::Check(peer::Check { path: check.path, version: check.version }),
    };
    peer::MultiOp { op: Some(op) }
}

fn multi_op_from_proto(op: peer::MultiOp) -> Result<MultiOp, CommandError> {
    use peer::multi_op::Op as Proto;

    Ok(match op.op.ok_or(CommandError::Missing { message: "part of a multi", field: "operation" })? {
        Proto::Create(create) => MultiOp::Create(create_from_proto(create)?),
        Proto::SetData(set) => MultiOp::SetData(set_data_from_proto(set)),
        Proto::Delete(delete) => MultiOp::Delete(delete_from_proto(delete)),
        Proto::Check(check) => MultiOp::Check(Check { path: check.path, version: check.version }),
    })
}

fn create_to_proto(create: Create) -> peer::Create {
    let (mode, ttl_ms) = mode_to_proto(create.mode);
    peer::Create {
        path: create.path,
        null_data: create.data.is_none(),
        data: create.data.unwrap_or_default(),
        mode,
        acl: acl_to_proto(create.acl),
        ttl_ms,
    }
}

fn create_from_proto(create: peer::Create) -> Result<Create, CommandError> {
    let mode = mode_from_proto(create.mode, create.ttl_ms)?;
    let data = (!create.null_data).then_some(create.data);
    Ok(Create { path: create.path, data, mode, acl: acl_from_proto(create.acl) })
}

/// The numbers are those of `quorate.v1.CreateMode`.
fn mode_to_proto(mode: CreateMode) -> (u32, u64) {
    match mode {
        CreateMode::Persistent => (0, 0),
        CreateMode::Ephemeral => (1, 0),
        CreateMode::PersistentSequential => (2, 0),
        CreateMode::EphemeralSequential => (3, 0),
        CreateMode::Container => (4, 0),
        CreateMode::PersistentWithTtl { ttl_ms } => (5, ttl_ms),
        CreateMode::PersistentSequentialWithTtl { ttl_ms } => (6, ttl_ms),
    }
}

fn mode_from_proto(mode: u32, ttl_ms: u64) -> Result<CreateMode, CommandError> {
    Ok(match mode {
        0 => CreateMode::Persistent,
        1 => CreateMode::Ephemeral,
        2 => CreateMode::PersistentSequential,
        3 => CreateMode::EphemeralSequential,
        4 => CreateMode::Container,
        5 => CreateMode::PersistentWithTtl { ttl_ms },
        6 => CreateMode::PersistentSequentialWithTtl { ttl_ms },
        _ => return Err(CommandError::Unknown { what: "create mode", number: mode.into() }),
    })
}

fn set_data_to_proto(set: SetData) -> peer::SetData {
    peer::SetData {
        path: set.path,
        null_data: set.data.is_none(),
        data: set.data.unwrap_or_default(),
        version: set.version,
    }
}

fn set_data_from_proto(set: peer::SetData) -> SetData {
    SetData { path: set.path, data: (!set.null_data).then_some(set.data), version: set.version }
}

fn delete_from_proto(delete: peer::Delete) -> Delete {
    Delete { path: delete.path, version: delete.version }
}

fn acl_to_proto(acl: Vec<Acl>) -> Vec<peer::AclEntry> {
    acl.into_iter()
        .map(|entry| peer::AclEntry {
            permissions: entry.permissions.0,
            scheme: entry.identity.scheme,
            id: entry.identity.id,
        })
        .collect()
}

fn acl_from_proto(acl: Vec<peer::AclEntry>) -> Vec<Acl> {
    acl.into_iter()
        .map(|entry| Acl {
            permissions: Permissions(entry.permissions),
            identity: Identity { scheme: entry.scheme, id: entry.id },
        })
        .collect()
}

fn identity_from_proto(identity: peer::Identity) -> Identity {
    Identity { scheme: identity.scheme, id: identity.id }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(seq: u64) -> Lane {
        Lane { member: MemberId(7), incarnation: 3, seq }
    }

    fn create(mode: CreateMode) -> Create {
        let acl = vec![
            Acl::open(),
            Acl { permissions: Permissions::READ, identity: Identity { scheme: "digest".into(), id: "a:b".into() } },
        ];
        Create { path: "/a".into(), data: Some(Bytes::from_static(b"data")), mode, acl }
    }

    fn every_op() -> Vec<Op> {
        let modes = [
            CreateMode::Persistent,
            CreateMode::Ephemeral,
            CreateMode::PersistentSequential,
            CreateMode::EphemeralSequential,
            CreateMode::Container,
            CreateMode::PersistentWithTtl { ttl_ms: 5 },
            CreateMode::PersistentSequentialWithTtl { ttl_ms: 1 << 39 },
        ];
        let set = SetData { path: "/a".into(), data: None, version: -1 };
        let delete = Delete { path: "/a".into(), version: 4 };
        let check = Check { path: "/a".into(), version: 0 };
        let mut ops: Vec<Op> = modes.into_iter().map(|mode| Op::Create(create(mode))).collect();
        ops.extend([
            Op::SetData(set.clone()),
            Op::SetAcl(SetAcl { path: "/a".into(), acl: vec![Acl::open()], version: 2 }),
            Op::Delete(delete.clone()),
            Op::Multi(vec![
                MultiOp::Create(create(CreateMode::Ephemeral)),
                MultiOp::SetData(set),
                MultiOp::Delete(delete),
                MultiOp::Check(check),
            ]),
            Op::Multi(Vec::new()),
            Op::OpenSession {
                timeout_ms: 4000,
                password: Bytes::from_static(b"0123456789abcdef"),
                client_name: "tour".into(),
            },
            Op::AttachSession {
                session: SessionId(1 << 56 | 9),
                password: Bytes::from_static(b"0123456789abcdef"),
                timeout_ms: 1,
            },
            Op::CloseSession,
            Op::ExpireSession { session: SessionId(9), attachment: 2 },
            Op::Reap(Reap { path: "/c".into(), czxid: Zxid(77) }),
            Op::PublishConfig { servers: "server.1=a:1:1:participant".into() },
            Op::RegisterMember { member: MemberId(254), disk_id: u64::MAX, ensemble_id: 1 },
        ]);
        ops
    }

    fn author() -> Author {
        Author {
            session: SessionId(11),
            attachment: 2,
            write: Some(WriteNumber { number: 5, answered: 3 }),
            identities: [Identity { scheme: "digest".into(), id: "a:b".into() }].into(),
        }
    }

    #[test]
    fn every_command_comes_back_as_it_was() {
        let mut batch = BatchWriter::new(-5);
        let mut expected = Vec::new();
        for (seq, op) in (1..).zip(every_op()) {
            let author = if seq % 2 == 0 { author() } else { Author::default() };
            batch.add(&encode_proposal(lane(seq), author.clone(), op.clone(), "00-trace".into()));
            expected.push(Command { lane: lane(seq), stamp_ms: -5, author, op });
        }

        let commands = decode_batch(batch.finish()).unwrap().commands;

        assert_eq!(commands, expected);
    }

    #[test]
    fn head_is_read_without_the_rest() {
        let proposal = encode_proposal(lane(9), author(), Op::CloseSession, "00-trace".into());

        let head = decode_head(&proposal).unwrap();

        assert_eq!(head, Head { lane: lane(9), session: SessionId(11), traceparent: "00-trace".into() });
    }

    #[test]
    fn a_proposal_that_members_cannot_apply_is_found_before_it_is_agreed() {
        let checked = |proposal: peer::Proposal| check_proposal(&proposal.encode_to_vec().into());
        let good = encode_proposal(lane(9), author(), Op::CloseSession, String::new());
        assert!(check_proposal(&good).is_ok());

        let without_op = peer::Proposal { member: 1, command: Some(peer::Command::default()), ..Default::default() };
        let mut garbled = good.to_vec();
        // The head of it is still good.
        garbled.extend([0x22, 4, 0x2a, 2, 8, 1]);
        let large =
            Op::SetData(SetData { path: "/a".into(), data: Some(vec![0; PROPOSAL_BYTES_MAX].into()), version: 0 });
        let large = encode_proposal(lane(9), author(), large, String::new());

        assert!(decode_head(&garbled.clone().into()).is_ok());
        assert!(matches!(checked(without_op), Err(CommandError::Missing { .. })));
        assert!(matches!(check_proposal(&garbled.into()), Err(CommandError::Garbled { .. })));
        assert!(matches!(check_proposal(&large), Err(CommandError::TooLarge { .. })));
    }

    #[test]
    fn batch_of_another_format_is_refused_with_a_sentence() {
        let batch = peer::Batch { format: 9, stamp_ms: 0, proposals: Vec::new() };

        let error = decode_batch(batch.encode_to_vec().into()).unwrap_err();

        assert!(error.to_string().contains("format 9"), "{error}");
    }

    #[test]
    fn command_of_a_later_version_is_refused() {
        let proposal = peer::Proposal { member: 1, command: Some(peer::Command::default()), ..Default::default() };
        let batch = peer::Batch { format: FORMAT, stamp_ms: 0, proposals: vec![proposal] };

        assert!(matches!(decode_batch(batch.encode_to_vec().into()), Err(CommandError::Missing { .. })));
    }

    #[test]
    fn garbage_is_an_error_and_not_a_panic() {
        for length in 0..64_u8 {
            let garbage: Vec<u8> = (0..length).map(|i| i.wrapping_mul(37) ^ 0xa5).collect();
            drop(decode_batch(garbage.clone().into()));
            drop(decode_head(&garbage.into()));
        }
    }

    #[test]
    fn data_shares_the_memory_of_the_batch() {
        let mut batch = BatchWriter::new(0);
        let op = Op::SetData(SetData { path: "/a".into(), data: Some(Bytes::from(vec![7; 1000])), version: -1 });
        batch.add(&encode_proposal(lane(1), Author::default(), op, String::new()));
        let batch = batch.finish();
        let range = batch.as_ptr_range();

        let commands = decode_batch(batch.clone()).unwrap().commands;

        let Op::SetData(set) = &commands[0].op else { panic!() };
        assert!(range.contains(&set.data.as_ref().unwrap().as_ptr()));
    }
}
