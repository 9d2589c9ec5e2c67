//! What operators ask a member.

use std::time::Duration;

use quorate_proto::v1;

use crate::{
    endpoints::{Endpoints, IntoSeeds, Seed},
    error::{Error, Result},
    stat::SessionId,
    transport,
};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks members about themselves and their ensemble. Needs no session.
///
/// Each question goes to the first member that can be reached, in random order, unless a method says otherwise.
///
/// # Cancel safety
/// Questions may be dropped at any time; what changes something may or may not take effect then.
#[derive(Debug, Clone)]
pub struct Admin {
    endpoints: Endpoints,
}

/// What a member does in its ensemble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// It does not say.
    Unknown,
    /// It decides the order of changes.
    Leader,
    /// It follows, and votes.
    Follower,
    /// It wants to lead.
    Candidate,
    /// It follows and has no vote.
    Observer,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Observer => "observer",
        })
    }
}

/// What a member says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStatus {
    /// Its id.
    pub id: u32,
    /// What it does.
    pub role: Role,
    /// Who leads, as far as it knows.
    pub leader: Option<u32>,
    /// The term of that.
    pub term: u64,
    /// The last change it has applied.
    pub zxid: u64,
    /// Of the tree at that zxid; equal on equal replicas.
    pub digest: u64,
    /// Sessions of the ensemble.
    pub sessions: u64,
    /// Nodes in the tree.
    pub znodes: u64,
    /// Watches it holds.
    pub watches: u64,
    /// Clients connected to it.
    pub connections: u64,
    /// The ensemble, as it knows it.
    pub members: Vec<MemberInfo>,
    /// Of its program.
    pub version: String,
    /// Why it does not serve clients now; empty if it does.
    pub not_ready: Vec<String>,
    /// Whether it serves clients now.
    pub ready: bool,
    /// The last entry of its log it has applied.
    pub log_index: u64,
    /// The last entry in its newest snapshot.
    pub snapshot_index: u64,
}

/// A member as another one knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberInfo {
    /// Its id.
    pub id: u32,
    /// Where members reach it.
    pub peer_address: String,
    /// Whether it votes.
    pub voter: bool,
    /// Log entries it is known to have; only the leader knows that of others.
    pub matched_index: Option<u64>,
}

/// A session as a member has applied it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionInfo {
    /// Its name.
    pub id: SessionId,
    /// After this long without a sign of life it ends.
    pub timeout: Duration,
    /// The member it was last attached to.
    pub member: u32,
    /// How often it was attached.
    pub attachment: u64,
    /// Ephemeral nodes that go with it.
    pub ephemerals: u64,
    /// Who it says it is.
    pub client_name: String,
    /// Whether its stream is open on the member that answers.
    pub connected_here: bool,
}

/// A snapshot that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SnapshotInfo {
    /// The last change in it.
    pub zxid: u64,
    /// Its size on disk.
    pub bytes: u64,
}

impl Admin {
    /// Speaks to these addresses, given as for [`Client::builder`](crate::Client::builder).
    pub fn new(seeds: impl IntoSeeds) -> Result<Self> {
        Ok(Self { endpoints: Endpoints::parse(&seeds.into_seeds())? })
    }

    pub(crate) fn over(endpoints: Endpoints) -> Self {
        Self { endpoints }
    }

    /// The addresses, as given.
    pub fn endpoints(&self) -> Vec<String> {
        self.endpoints.seeds().iter().map(Seed::to_string).collect()
    }

    /// What a member says of itself.
    pub async fn status(&self) -> Result<MemberStatus> {
        self.ask(|mut admin| async move { admin.status(v1::StatusRequest {}).await }).await.map(MemberStatus::from)
    }

    /// What each address says of itself, or why it does not, in the order given.
    pub async fn status_of_each(&self) -> Vec<(String, Result<MemberStatus>)> {
        let asked = self.endpoints.seeds().iter().map(|seed| async move {
            let one = Self { endpoints: Endpoints::one(seed.clone()) };
            (seed.to_string(), one.status().await)
        });
        futures_util::future::join_all(asked).await
    }

    /// The sessions of the ensemble, as a member has applied them.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>> {
        let mut sessions: Vec<SessionInfo> = Vec::new();
        loop {
            let request = v1::ListSessionsRequest { after: sessions.last().map_or(0, |last| last.id.0) };
            let page = self.ask(|mut admin| async move { admin.list_sessions(request).await }).await?;
            let more = page.more && !page.sessions.is_empty();
            sessions.extend(page.sessions.into_iter().map(SessionInfo::from));
            if !more {
                return Ok(sessions);
            }
        }
    }

    /// Ends a session as if its timeout had passed. Waits for a majority.
    pub async fn expire(&self, session: SessionId) -> Result<()> {
        let request = v1::ExpireSessionRequest { session_id: session.0 };
        self.ask(|mut admin| async move { admin.expire_session(request).await }).await.map(|_| ())
    }

    /// Has a member write a snapshot of its tree now, and waits until it is on disk. Meant for an `Admin` with
    /// one address.
    pub async fn snapshot(&self) -> Result<SnapshotInfo> {
        let reply = self.ask(|mut admin| async move { admin.snapshot(v1::SnapshotRequest {}).await }).await?;
        Ok(SnapshotInfo { zxid: reply.zxid, bytes: reply.bytes })
    }

    /// Has the leader hand over to another member. The leader must be among the addresses.
    pub async fn transfer(&self, to: u32) -> Result<()> {
        let request = v1::TransferLeadershipRequest { to };
        self.ask(|mut admin| async move { admin.transfer_leadership(request).await }).await.map(|_| ())
    }

    /// Asks one address after the other until one gives an answer that is its own to give.
    async fn ask<T, F, Fut>(&self, question: F) -> Result<T>
    where
        F: Fn(transport::AdminClient) -> Fut,
        Fut: Future<Output = Result<transport::Response<T>, transport::Status>>,
    {
        let mut trouble = String::new();
        for seed in self.endpoints.shuffled() {
            let asked = async {
                let admin = transport::admin(&seed, TIMEOUT).await?;
                question(admin).await.map(transport::Response::into_inner).map_err(transport::Failure::from)
            };
            match tokio::time::timeout(TIMEOUT, asked).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(failure)) if failure.is_final() => return Err(failure.into()),
                Ok(Err(failure)) => trouble = format!("{seed}: {failure}"),
                Err(_) => trouble = format!("{seed}: no answer within {TIMEOUT:?}"),
            }
        }
        Err(Error::Unreachable { message: trouble })
    }
}

impl From<v1::StatusReply> for MemberStatus {
    fn from(reply: v1::StatusReply) -> Self {
        Self {
            id: reply.id,
            role: match reply.role() {
                v1::Role::Unspecified => Role::Unknown,
                v1::Role::Leader => Role::Leader,
                v1::Role::Follower => Role::Follower,
                v1::Role::Candidate => Role::Candidate,
                v1::Role::Observer => Role::Observer,
            },
            leader: (reply.leader != 0).then_some(reply.leader),
            term: reply.term,
            zxid: reply.zxid,
            digest: reply.digest,
            sessions: reply.sessions,
            znodes: reply.znodes,
            watches: reply.watches,
            connections: reply.connections,
            members: reply.members.into_iter().map(MemberInfo::from).collect(),
            version: reply.version,
            not_ready: reply.not_ready,
            ready: reply.ready,
            log_index: reply.log_index,
            snapshot_index: reply.snapshot_index,
        }
    }
}

impl From<v1::Member> for MemberInfo {
    fn from(member: v1::Member) -> Self {
        Self {
            id: member.id,
            peer_address: member.peer_address,
            voter: member.voter,
            matched_index: member.matched_index,
        }
    }
}

impl From<v1::SessionInfo> for SessionInfo {
    fn from(session: v1::SessionInfo) -> Self {
        Self {
            id: SessionId(session.session_id),
            timeout: Duration::from_millis(session.timeout_ms.into()),
            member: session.member_id,
            attachment: session.attachment,
            ephemerals: session.ephemerals,
            client_name: session.client_name,
            connected_here: session.connected_here,
        }
    }
}
