//! What is written. Fields are only ever added; what readers of today would misunderstand gets a new [`FORMAT`].

use crate::digest::refusal_code;
use crate::sessions::Settled;
use crate::{Acl, Identity, Outcome, Permissions, Refusal, Refused, Reply, SessionId, Stat, Zxid};

/// The format that is written, and the newest that is read.
pub(crate) const FORMAT: u32 = 1;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Item {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub(crate) kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Kind {
    /// The first item of the first part.
    #[prost(message, tag = "1")]
    Head(Head),
    /// Sessions, in the order of their ids.
    #[prost(message, tag = "2")]
    Session(SessionItem),
    /// The outcomes kept for the session before it, in the order of their numbers.
    #[prost(message, tag = "6")]
    Outcome(OutcomeItem),
    /// Lists of the nodes that follow in the same part, numbered from 0 in that part.
    #[prost(message, tag = "3")]
    AclList(AclListItem),
    /// Nodes, in the order of their ids. The root is 0.
    #[prost(message, tag = "4")]
    Node(NodeItem),
    /// The last item of the last part.
    #[prost(message, tag = "5")]
    Tail(Tail),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Head {
    #[prost(uint32, tag = "1")]
    pub(crate) format: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) zxid: u64,
    #[prost(uint64, optional, tag = "3")]
    pub(crate) ensemble_id: Option<u64>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) lanes: Vec<LaneItem>,
    #[prost(message, repeated, tag = "5")]
    pub(crate) disks: Vec<DiskItem>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct LaneItem {
    #[prost(uint32, tag = "1")]
    pub(crate) member: u32,
    #[prost(uint64, tag = "2")]
    pub(crate) incarnation: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) next_seq: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct DiskItem {
    #[prost(uint32, tag = "1")]
    pub(crate) member: u32,
    #[prost(fixed64, tag = "2")]
    pub(crate) disk_id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SessionItem {
    #[prost(fixed64, tag = "1")]
    pub(crate) id: u64,
    #[prost(uint32, tag = "2")]
    pub(crate) timeout_ms: u32,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) password: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(crate) client_name: String,
    #[prost(uint32, tag = "5")]
    pub(crate) member: u32,
    #[prost(uint64, tag = "6")]
    pub(crate) attachment: u64,
    /// The number of the first outcome that follows; if none does, the write expected next.
    #[prost(uint64, tag = "7")]
    pub(crate) first_write: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OutcomeItem {
    #[prost(uint64, tag = "1")]
    pub(crate) zxid: u64,
    /// 0 if it was not refused.
    #[prost(uint64, tag = "2")]
    pub(crate) refusal: u64,
    #[prost(uint32, optional, tag = "3")]
    pub(crate) failed_op: Option<u32>,
    /// Whether it was a multi: any other write has one reply.
    #[prost(bool, tag = "4")]
    pub(crate) is_multi: bool,
    #[prost(message, repeated, tag = "5")]
    pub(crate) replies: Vec<ReplyItem>,
}

/// Created has both, the others have no path, and done has neither.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReplyItem {
    #[prost(string, optional, tag = "1")]
    pub(crate) path: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(crate) stat: Option<StatItem>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StatItem {
    #[prost(uint64, tag = "1")]
    pub(crate) czxid: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) mzxid: u64,
    #[prost(uint64, tag = "3")]
    pub(crate) pzxid: u64,
    #[prost(int64, tag = "4")]
    pub(crate) ctime_ms: i64,
    #[prost(int64, tag = "5")]
    pub(crate) mtime_ms: i64,
    #[prost(int32, tag = "6")]
    pub(crate) version: i32,
    #[prost(int32, tag = "7")]
    pub(crate) cversion: i32,
    #[prost(int32, tag = "8")]
    pub(crate) aversion: i32,
    #[prost(fixed64, tag = "9")]
    pub(crate) ephemeral_owner: u64,
    #[prost(uint32, tag = "10")]
    pub(crate) data_length: u32,
    #[prost(uint32, tag = "11")]
    pub(crate) num_children: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AclListItem {
    #[prost(message, repeated, tag = "1")]
    pub(crate) entries: Vec<AclItem>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct AclItem {
    #[prost(uint32, tag = "1")]
    pub(crate) permissions: u32,
    #[prost(string, tag = "2")]
    pub(crate) scheme: String,
    #[prost(string, tag = "3")]
    pub(crate) id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct NodeItem {
    /// Means nothing beyond this snapshot.
    #[prost(uint32, tag = "1")]
    pub(crate) id: u32,
    #[prost(uint32, tag = "2")]
    pub(crate) parent: u32,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) data: Vec<u8>,
    /// The number of its list in this part.
    #[prost(uint32, tag = "5")]
    pub(crate) acl: u32,
    /// As in `ephemeralOwner` of ZooKeeper's own storage.
    #[prost(fixed64, tag = "6")]
    pub(crate) life: u64,
    #[prost(uint64, tag = "7")]
    pub(crate) czxid: u64,
    #[prost(uint64, tag = "8")]
    pub(crate) mzxid: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) pzxid: u64,
    #[prost(int64, tag = "10")]
    pub(crate) ctime_ms: i64,
    #[prost(int64, tag = "11")]
    pub(crate) mtime_ms: i64,
    #[prost(int32, tag = "12")]
    pub(crate) version: i32,
    #[prost(int32, tag = "13")]
    pub(crate) aversion: i32,
    /// Children ever created.
    #[prost(uint64, tag = "14")]
    pub(crate) created: u64,
    /// There is no data, not even empty data.
    #[prost(bool, tag = "15")]
    pub(crate) null_data: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Tail {
    #[prost(uint64, tag = "1")]
    pub(crate) nodes: u64,
    #[prost(uint64, tag = "2")]
    pub(crate) sessions: u64,
    #[prost(fixed64, tag = "3")]
    pub(crate) digest: u64,
}

impl From<&[Acl]> for AclListItem {
    fn from(list: &[Acl]) -> Self {
        let entry = |acl: &Acl| AclItem {
            permissions: acl.permissions.0,
            scheme: acl.identity.scheme.clone(),
            id: acl.identity.id.clone(),
        };
        Self { entries: list.iter().map(entry).collect() }
    }
}

impl From<AclListItem> for Vec<Acl> {
    fn from(list: AclListItem) -> Self {
        let entry = |item: AclItem| Acl {
            permissions: Permissions(item.permissions),
            identity: Identity { scheme: item.scheme, id: item.id },
        };
        list.entries.into_iter().map(entry).collect()
    }
}

impl From<&Settled> for OutcomeItem {
    fn from(settled: &Settled) -> Self {
        let mut item = Self { zxid: settled.zxid.0, ..Self::default() };
        match &settled.outcome {
            Ok(Reply::Multi(replies)) => {
                item.is_multi = true;
                item.replies = replies.iter().map(ReplyItem::from).collect();
            }
            Ok(reply) => item.replies = vec![reply.into()],
            Err(refused) => {
                item.refusal = refusal_code(refused.reason);
                item.failed_op = refused.failed_op;
            }
        }
        item
    }
}

impl From<&Reply> for ReplyItem {
    fn from(reply: &Reply) -> Self {
        match reply {
            Reply::Created { path, stat } => Self { path: Some(path.clone()), stat: Some(stat.into()) },
            Reply::Stat(stat) => Self { path: None, stat: Some(stat.into()) },
            Reply::Done => Self { path: None, stat: None },
            Reply::Multi(_) | Reply::Opened { .. } | Reply::Attached { .. } => {
                unreachable!("only writes are numbered, and a multi has no multi in it")
            }
        }
    }
}

impl OutcomeItem {
    /// `None` if this is no outcome.
    pub(crate) fn settled(self) -> Option<Settled> {
        let outcome: Outcome = if self.refusal != 0 {
            Err(Refused { reason: refusal(self.refusal)?, failed_op: self.failed_op })
        } else {
            let mut replies = self.replies.into_iter().map(ReplyItem::reply).collect::<Option<Vec<Reply>>>()?;
            match (self.is_multi, replies.len()) {
                (true, _) => Ok(Reply::Multi(replies)),
                (false, 1) => Ok(replies.remove(0)),
                (false, _) => return None,
            }
        };
        Some(Settled::new(Zxid(self.zxid), outcome))
    }
}

impl ReplyItem {
    fn reply(self) -> Option<Reply> {
        match (self.path, self.stat) {
            (Some(path), Some(stat)) => Some(Reply::Created { path, stat: stat.into() }),
            (None, Some(stat)) => Some(Reply::Stat(stat.into())),
            (None, None) => Some(Reply::Done),
            (Some(_), None) => None,
        }
    }
}

impl From<&Stat> for StatItem {
    fn from(stat: &Stat) -> Self {
        Self {
            czxid: stat.czxid.0,
            mzxid: stat.mzxid.0,
            pzxid: stat.pzxid.0,
            ctime_ms: stat.ctime_ms,
            mtime_ms: stat.mtime_ms,
            version: stat.version,
            cversion: stat.cversion,
            aversion: stat.aversion,
            ephemeral_owner: stat.ephemeral_owner.0,
            data_length: stat.data_length,
            num_children: stat.num_children,
        }
    }
}

impl From<StatItem> for Stat {
    fn from(item: StatItem) -> Self {
        Self {
            czxid: Zxid(item.czxid),
            mzxid: Zxid(item.mzxid),
            pzxid: Zxid(item.pzxid),
            ctime_ms: item.ctime_ms,
            mtime_ms: item.mtime_ms,
            version: item.version,
            cversion: item.cversion,
            aversion: item.aversion,
            ephemeral_owner: SessionId(item.ephemeral_owner),
            data_length: item.data_length,
            num_children: item.num_children,
        }
    }
}

/// The inverse of [`refusal_code`].
fn refusal(code: u64) -> Option<Refusal> {
    const ALL: [Refusal; 14] = [
        Refusal::NoNode,
        Refusal::NodeExists,
        Refusal::BadVersion,
        Refusal::NotEmpty,
        Refusal::NoChildrenForEphemerals,
        Refusal::NoAuth,
        Refusal::InvalidAcl,
        Refusal::BadArguments,
        Refusal::QuotaExceeded,
        Refusal::SessionExpired,
        Refusal::SessionMoved,
        Refusal::WrongPassword,
        Refusal::Gap,
        Refusal::LimitExceeded,
    ];
    ALL.into_iter().find(|refusal| refusal_code(*refusal) == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_of_a_write_comes_back() {
        let stat = Stat { czxid: Zxid(7), cversion: -1, mtime_ms: -5, data_length: 3, ..Stat::default() };
        let created = Reply::Created { path: "/a".into(), stat };
        let refusals = (1..=14).map(|code| Err(refusal(code).expect("codes are without holes").into()));
        let outcomes: Vec<Outcome> = [
            Ok(created.clone()),
            Ok(Reply::Stat(stat)),
            Ok(Reply::Done),
            Ok(Reply::Multi(vec![])),
            Ok(Reply::Multi(vec![Reply::Done, created, Reply::Stat(stat)])),
            Err(Refused { reason: Refusal::NoAuth, failed_op: Some(0) }),
        ]
        .into_iter()
        .chain(refusals)
        .collect();

        for outcome in outcomes {
            let settled = Settled::new(Zxid(9), outcome);
            assert_eq!(OutcomeItem::from(&settled).settled(), Some(settled));
        }
    }
}
