//! The same words as `quorate.v1.Admin` carries them.

use quorate_proto::v1;
use quorate_tree::{MemberId, SessionId, Zxid};

use super::status::{MemberStatus, Role, SessionStatus, Status, StatusReport};

/// A message that says what cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("{0} is not a member id")]
    Id(u32),
    #[error("the member says no role")]
    Role,
}

impl From<StatusReport> for v1::StatusReply {
    fn from(StatusReport { status, version, ready, not_ready }: StatusReport) -> Self {
        Self {
            id: status.id.0.into(),
            role: v1::Role::from(status.role).into(),
            leader: status.leader.map_or(0, |id| id.0.into()),
            term: status.term,
            zxid: status.zxid.0,
            digest: status.digest,
            sessions: status.sessions,
            znodes: status.znodes,
            watches: status.watches,
            members: status.members.into_iter().map(v1::Member::from).collect(),
            version,
            ready,
            not_ready,
            log_index: status.log_index,
            snapshot_index: status.snapshot_index,
            connections: status.connections,
        }
    }
}

impl TryFrom<v1::StatusReply> for StatusReport {
    type Error = WireError;

    fn try_from(reply: v1::StatusReply) -> Result<Self, WireError> {
        let status = Status {
            role: role(reply.role())?,
            id: member_id(reply.id)?,
            leader: (reply.leader != 0).then(|| member_id(reply.leader)).transpose()?,
            term: reply.term,
            zxid: Zxid(reply.zxid),
            digest: reply.digest,
            sessions: reply.sessions,
            znodes: reply.znodes,
            watches: reply.watches,
            members: reply.members.into_iter().map(MemberStatus::try_from).collect::<Result<_, _>>()?,
            log_index: reply.log_index,
            snapshot_index: reply.snapshot_index,
            connections: reply.connections,
        };
        Ok(Self { status, version: reply.version, ready: reply.ready, not_ready: reply.not_ready })
    }
}

impl From<MemberStatus> for v1::Member {
    fn from(member: MemberStatus) -> Self {
        let MemberStatus { id, peer_address, voter, matched_index } = member;
        Self { id: id.0.into(), peer_address, voter, matched_index }
    }
}

impl TryFrom<v1::Member> for MemberStatus {
    type Error = WireError;

    fn try_from(member: v1::Member) -> Result<Self, WireError> {
        let v1::Member { id, peer_address, voter, matched_index } = member;
        Ok(Self { id: member_id(id)?, peer_address, voter, matched_index })
    }
}

impl From<SessionStatus> for v1::SessionInfo {
    fn from(session: SessionStatus) -> Self {
        Self {
            session_id: session.id.0,
            timeout_ms: session.timeout_ms,
            member_id: session.member.0.into(),
            attachment: session.attachment,
            ephemerals: session.ephemerals,
            client_name: session.client_name,
            connected_here: session.connected_here,
        }
    }
}

impl TryFrom<v1::SessionInfo> for SessionStatus {
    type Error = WireError;

    fn try_from(info: v1::SessionInfo) -> Result<Self, WireError> {
        Ok(Self {
            id: SessionId(info.session_id),
            timeout_ms: info.timeout_ms,
            member: member_id(info.member_id)?,
            attachment: info.attachment,
            ephemerals: info.ephemerals,
            client_name: info.client_name,
            connected_here: info.connected_here,
        })
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Leader => Self::Leader,
            Role::Follower => Self::Follower,
            Role::Candidate => Self::Candidate,
            Role::Observer => Self::Observer,
        }
    }
}

fn role(role: v1::Role) -> Result<Role, WireError> {
    match role {
        v1::Role::Leader => Ok(Role::Leader),
        v1::Role::Follower => Ok(Role::Follower),
        v1::Role::Candidate => Ok(Role::Candidate),
        v1::Role::Observer => Ok(Role::Observer),
        v1::Role::Unspecified => Err(WireError::Role),
    }
}

fn member_id(id: u32) -> Result<MemberId, WireError> {
    let known = u8::try_from(id).ok().filter(|id| (1..=254).contains(id));
    known.map(MemberId).ok_or(WireError::Id(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> StatusReport {
        let member = MemberStatus { id: MemberId(2), peer_address: "h:1".into(), voter: true, matched_index: Some(8) };
        let status = Status {
            id: MemberId(2),
            role: Role::Leader,
            leader: Some(MemberId(2)),
            term: 1,
            zxid: Zxid(2),
            digest: u64::MAX,
            sessions: 3,
            znodes: 4,
            watches: 5,
            members: vec![member],
            log_index: 6,
            snapshot_index: 7,
            connections: 8,
        };
        StatusReport { status, version: "1".into(), ready: false, not_ready: vec!["no leader is known".into()] }
    }

    #[test]
    fn a_status_travels_whole() {
        let there = v1::StatusReply::from(report());

        assert_eq!(StatusReport::try_from(there), Ok(report()));
    }

    #[test]
    fn a_session_travels_whole() {
        let session = SessionStatus {
            id: SessionId(u64::MAX),
            timeout_ms: 1,
            member: MemberId(254),
            attachment: 2,
            ephemerals: 3,
            client_name: "app".into(),
            connected_here: true,
        };

        let there = v1::SessionInfo::from(session.clone());

        assert_eq!(SessionStatus::try_from(there), Ok(session));
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let reply = v1::StatusReply::from(report());

        let stranger = v1::StatusReply { leader: 300, ..reply.clone() };
        assert_eq!(StatusReport::try_from(stranger), Err(WireError::Id(300)));
        let nobody = v1::StatusReply { role: 77, ..reply };
        assert_eq!(StatusReport::try_from(nobody), Err(WireError::Role));
    }
}
