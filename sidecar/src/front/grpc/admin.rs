//! `quorate.v1.Admin`: the operators' questions over the clients' door.

use std::sync::Arc;

use quorate_proto::v1::{self as proto, admin_server::Admin};
use quorate_tree::{MemberId, Op, Reply, SessionId};
use tonic::{Request, Response, Status};

use crate::front::{
    Member,
    admin::{Role, Status as MemberStatus, StatusSource as _},
};

/// Sessions that one answer carries at most.
const SESSIONS_MAX: usize = 10_000;

/// The service behind the operators' questions.
#[derive(Clone, Debug)]
pub(crate) struct AdminService {
    member: Arc<Member>,
}

impl AdminService {
    pub(crate) fn new(member: Arc<Member>) -> Self {
        Self { member }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, _: Request<proto::StatusRequest>) -> Result<Response<proto::StatusReply>, Status> {
        Ok(Response::new(status_reply(self.member.status(), self.member.not_ready())))
    }

    async fn list_sessions(
        &self,
        request: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsReply>, Status> {
        let after = SessionId(request.into_inner().after);
        // One more than a page tells whether there is a next one.
        let mut sessions = self.member.sessions(after, SESSIONS_MAX + 1);
        let more = sessions.len() > SESSIONS_MAX;
        sessions.truncate(SESSIONS_MAX);
        let sessions = sessions
            .into_iter()
            .map(|session| proto::SessionInfo {
                session_id: session.id.0,
                timeout_ms: session.timeout_ms,
                member_id: session.member.0.into(),
                attachment: session.attachment,
                ephemerals: session.ephemerals,
                client_name: session.client_name,
                connected_here: session.connected_here,
            })
            .collect();
        Ok(Response::new(proto::ListSessionsReply { sessions, more }))
    }

    async fn expire_session(
        &self,
        request: Request<proto::ExpireSessionRequest>,
    ) -> Result<Response<proto::ExpireSessionReply>, Status> {
        let session = SessionId(request.into_inner().session_id);
        let attachment = self
            .member
            .replica()
            .read(|tree| tree.session(session).map(|view| view.attachment))
            .ok_or_else(|| Status::not_found(format!("there is no session {session} (it may have ended)")))?;
        let settled = self
            .member
            .ensemble()
            .ask(Op::ExpireSession { session, attachment })
            .await
            .map_err(|stopped| Status::unavailable(stopped.to_string()))?;
        match settled.outcome {
            Ok(Reply::Done) => Ok(Response::new(proto::ExpireSessionReply {})),
            _ => Err(Status::not_found(format!("there is no session {session} any more"))),
        }
    }

    async fn snapshot(&self, _: Request<proto::SnapshotRequest>) -> Result<Response<proto::SnapshotReply>, Status> {
        let (zxid, bytes) =
            self.member.ensemble().take_snapshot().await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(proto::SnapshotReply { zxid: zxid.0, bytes }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<proto::TransferLeadershipRequest>,
    ) -> Result<Response<proto::TransferLeadershipReply>, Status> {
        let to = request.into_inner().to;
        let to = u8::try_from(to).ok().filter(|id| *id > 0).map(MemberId);
        let to = to.ok_or_else(|| Status::invalid_argument("`to` is a member id, 1 to 254"))?;
        self.member
            .ensemble()
            .hand_over(Some(to))
            .await
            .map_err(|error| Status::failed_precondition(error.to_string()))?;
        Ok(Response::new(proto::TransferLeadershipReply {}))
    }
}

fn status_reply(status: MemberStatus, not_ready: Vec<String>) -> proto::StatusReply {
    let role = match status.role {
        Role::Leader => proto::Role::Leader,
        Role::Follower => proto::Role::Follower,
        Role::Candidate => proto::Role::Candidate,
        Role::Observer => proto::Role::Observer,
    };
    proto::StatusReply {
        id: status.id.0.into(),
        role: role.into(),
        leader: status.leader.map_or(0, |leader| leader.0.into()),
        term: status.term,
        zxid: status.zxid.0,
        digest: status.digest,
        sessions: status.sessions,
        znodes: status.znodes,
        watches: status.watches,
        members: status
            .members
            .into_iter()
            .map(|member| proto::Member {
                id: member.id.0.into(),
                peer_address: member.peer_address,
                voter: member.voter,
                matched_index: member.matched_index,
            })
            .collect(),
        version: env!("CARGO_PKG_VERSION").into(),
        ready: not_ready.is_empty(),
        not_ready,
        log_index: status.log_index,
        snapshot_index: status.snapshot_index,
        connections: status.connections,
    }
}
