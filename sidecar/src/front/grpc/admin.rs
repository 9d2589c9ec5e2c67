//! `quorate.v1.Admin`: the operators' questions over the clients' door.

use std::sync::Arc;

use quorate_proto::v1::{self as proto, admin_server::Admin};
use quorate_tree::{MemberId, Op, Reply, SessionId};
use tonic::{Request, Response, Status};

use crate::{
    ensemble::Role,
    member::{Member, MemberView},
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
        Ok(Response::new(status_reply(self.member.view())))
    }

    async fn list_sessions(
        &self,
        _: Request<proto::ListSessionsRequest>,
    ) -> Result<Response<proto::ListSessionsReply>, Status> {
        let sessions = self.member.sessions(SESSIONS_MAX);
        let sessions = sessions
            .into_iter()
            .map(|(session, connected_here)| proto::SessionInfo {
                session_id: session.session.0,
                timeout_ms: session.timeout_ms,
                member_id: session.member.0.into(),
                attachment: session.attachment,
                ephemerals: session.ephemerals as u64,
                client_name: session.client_name,
                connected_here,
            })
            .collect();
        Ok(Response::new(proto::ListSessionsReply { sessions }))
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

    async fn snapshot(
        &self,
        _: Request<proto::SnapshotRequest>,
    ) -> Result<Response<proto::SnapshotReply>, Status> {
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

fn status_reply(view: MemberView) -> proto::StatusReply {
    let role = match view.status.role {
        Role::Leader => proto::Role::Leader,
        Role::Follower => proto::Role::Follower,
        Role::Candidate => proto::Role::Candidate,
        Role::Observer => proto::Role::Observer,
    };
    proto::StatusReply {
        id: view.id.0.into(),
        role: role.into(),
        leader: view.status.leader.map_or(0, |leader| leader.0.into()),
        term: view.status.term,
        zxid: view.zxid.0,
        digest: view.digest,
        sessions: view.sessions as u64,
        znodes: view.znodes as u64,
        watches: view.watches as u64,
        members: view
            .status
            .members
            .into_iter()
            .map(|member| proto::Member {
                id: member.member.0.into(),
                peer_address: member.peer_address,
                voter: member.voter,
                matched_index: member.matched_index,
            })
            .collect(),
        version: env!("CARGO_PKG_VERSION").into(),
        ready: view.not_ready.is_empty(),
        not_ready: view.not_ready.iter().map(ToString::to_string).collect(),
        log_index: view.status.last_log_index,
        snapshot_index: view.status.snapshot_index,
        connections: view.connections as u64,
    }
}
