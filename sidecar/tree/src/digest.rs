//! The digest of the replicated state: the sum of a hash of every item, so that it can be kept up to date by taking
//! the old item out and putting the new one in, and is the same whatever way led to a state.
//!
//! It finds replicas that have diverged and snapshots that have decayed. It is no protection against somebody who
//! forges a snapshot on purpose.

use xxhash_rust::xxh3::xxh3_64;

use crate::node::Node;
use crate::{Acl, MemberId, Outcome, Refusal, Reply, SessionId, Stat, Zxid};

/// What is hashed into the digest has this version: members of different ones must not compare theirs.
pub(crate) const DIGEST_VERSION: u64 = 1;

/// The sum so far, and how much there is of what is summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest {
    sum: u64,
    /// Bytes of the paths and the data of all nodes.
    node_bytes: u64,
}

/// The hash of one item. Unlike the sum it is never given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemHash {
    hash: u64,
    node_bytes: u64,
}

/// An item that is no node.
fn item<const N: usize>(words: [u64; N]) -> ItemHash {
    ItemHash { hash: hash_words(words), node_bytes: 0 }
}

impl Digest {
    pub(crate) fn add(&mut self, item: ItemHash) {
        self.sum = self.sum.wrapping_add(item.hash);
        self.node_bytes += item.node_bytes;
    }

    pub(crate) fn remove(&mut self, item: ItemHash) {
        self.sum = self.sum.wrapping_sub(item.hash);
        self.node_bytes -= item.node_bytes;
    }

    /// The digest of a state whose last command was `zxid`.
    pub(crate) fn at(self, zxid: Zxid) -> u64 {
        hash_words([DIGEST_VERSION, self.sum, zxid.0])
    }

    pub(crate) fn node_bytes(self) -> u64 {
        self.node_bytes
    }
}

/// What an item takes from the path of its node: the same before and after a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PathHash {
    hash: u64,
    bytes: u64,
}

impl PathHash {
    pub(crate) fn of(path: &str) -> Self {
        Self { hash: xxh3_64(path.as_bytes()), bytes: path.len() as u64 }
    }
}

pub(crate) fn node_item(path: PathHash, node: &Node, acl_hash: u64) -> ItemHash {
    let hash = hash_words([
        1,
        path.hash,
        node.czxid.0,
        node.mzxid.0,
        node.pzxid().0,
        node.ctime_ms as u64,
        node.mtime_ms as u64,
        u64::from(node.version as u32) << 32 | u64::from(node.aversion as u32),
        node.created(),
        node.life.packed(),
        node.data.as_slice().len() as u64,
        node.data.hash(),
        acl_hash,
    ]);
    ItemHash { hash, node_bytes: path.bytes + node.data.as_slice().len() as u64 }
}

/// All of a session but its outcomes, which are items of their own.
pub(crate) fn session_item(session: SessionId, record: &crate::sessions::SessionRecord) -> ItemHash {
    let (first, second) = record.password.split_at(8);
    item([
        2,
        session.0,
        u64::from(record.timeout_ms),
        u64::from(record.member.0),
        record.attachment,
        record.next_write,
        u64::from_le_bytes(first.try_into().expect("half of 16 bytes")),
        u64::from_le_bytes(second.try_into().expect("half of 16 bytes")),
        xxh3_64(record.client_name.as_bytes()),
    ])
}

pub(crate) fn outcome_item(session: SessionId, number: u64, zxid: Zxid, outcome_hash: u64) -> ItemHash {
    item([3, session.0, number, zxid.0, outcome_hash])
}

pub(crate) fn lane_item(member: MemberId, incarnation: u64, next_seq: u64) -> ItemHash {
    item([4, u64::from(member.0), incarnation, next_seq])
}

pub(crate) fn disk_item(member: MemberId, disk_id: u64) -> ItemHash {
    item([5, u64::from(member.0), disk_id])
}

pub(crate) fn ensemble_item(ensemble_id: u64) -> ItemHash {
    item([6, ensemble_id])
}

pub(crate) fn acl_hash(list: &[Acl]) -> u64 {
    let mut words = Words::default();
    for entry in list {
        words.number(u64::from(entry.permissions.0));
        words.text(&entry.identity.scheme);
        words.text(&entry.identity.id);
    }
    words.hash()
}

/// Most outcomes take less.
const OUTCOME_BYTES: usize = 128;

pub(crate) fn outcome_hash(outcome: &Outcome) -> u64 {
    let mut words = Words(Vec::with_capacity(OUTCOME_BYTES));
    match outcome {
        Ok(reply) => {
            words.number(0);
            words.reply(reply);
        }
        Err(refused) => {
            words.number(1);
            words.number(refusal_code(refused.reason));
            words.number(refused.failed_op.map_or(u64::MAX, u64::from));
        }
    }
    words.hash()
}

/// The number of a refusal in digests and snapshots. Never changes its meaning.
pub(crate) fn refusal_code(refusal: Refusal) -> u64 {
    match refusal {
        Refusal::NoNode => 1,
        Refusal::NodeExists => 2,
        Refusal::BadVersion => 3,
        Refusal::NotEmpty => 4,
        Refusal::NoChildrenForEphemerals => 5,
        Refusal::NoAuth => 6,
        Refusal::InvalidAcl => 7,
        Refusal::BadArguments => 8,
        Refusal::QuotaExceeded => 9,
        Refusal::SessionExpired => 10,
        Refusal::SessionMoved => 11,
        Refusal::WrongPassword => 12,
        Refusal::Gap => 13,
        Refusal::LimitExceeded => 14,
    }
}

fn hash_words<const N: usize>(words: [u64; N]) -> u64 {
    xxh3_64(words.map(u64::to_le_bytes).as_flattened())
}

/// Collects what is hashed where its length is not known beforehand. A text counts as one word, its hash.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(xxh3_64(text.as_bytes()));
    }

    fn reply(&mut self, reply: &Reply) {
        match reply {
            Reply::Created { path, stat } => {
                self.number(1);
                self.text(path);
                self.stat(stat);
            }
            Reply::Stat(stat) => {
                self.number(2);
                self.stat(stat);
            }
            Reply::Done => self.number(3),
            Reply::Multi(replies) => {
                self.number(4);
                self.number(replies.len() as u64);
                for reply in replies {
                    self.reply(reply);
                }
            }
            Reply::Opened { session, timeout_ms, attachment } => {
                self.number(5);
                self.number(session.0);
                self.number(u64::from(*timeout_ms));
                self.number(*attachment);
            }
            Reply::Attached { timeout_ms, attachment, next_write } => {
                self.number(6);
                self.number(u64::from(*timeout_ms));
                self.number(*attachment);
                self.number(*next_write);
            }
        }
    }

    fn stat(&mut self, stat: &Stat) {
        self.number(stat.czxid.0);
        self.number(stat.mzxid.0);
        self.number(stat.pzxid.0);
        self.number(stat.ctime_ms as u64);
        self.number(stat.mtime_ms as u64);
        self.number(u64::from(stat.version as u32) << 32 | u64::from(stat.cversion as u32));
        self.number(u64::from(stat.aversion as u32));
        self.number(stat.ephemeral_owner.0);
        self.number(u64::from(stat.data_length) << 32 | u64::from(stat.num_children));
    }

    fn hash(&self) -> u64 {
        xxh3_64(&self.0)
    }
}
