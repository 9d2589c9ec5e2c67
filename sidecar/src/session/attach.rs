//! Opening and resuming a session.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use quorate_tree::{Op, Refusal, Reply, SessionId, Zxid};
use rand::Rng as _;

use super::{
    Attachment, Sessions,
    attachment::{Client, Granted},
};
use crate::{clock::Clock, ensemble::NotReady};

/// What a client says first.
#[derive(Debug)]
pub(crate) struct AttachRequest {
    /// The session to resume; `None` opens one.
    pub(crate) resume: Option<Resume>,
    /// The wanted timeout, before clamping.
    pub(crate) timeout_ms: u32,
    /// The greatest zxid the client has seen.
    pub(crate) last_zxid: Zxid,
    /// For people who look at the session list.
    pub(crate) client_name: String,
    /// Whether the client numbers its writes.
    pub(crate) numbered: bool,
    /// Where it comes from, which ACLs may name.
    pub(crate) address: Option<IpAddr>,
}

/// A session and the proof that it is the client's own.
#[derive(Debug)]
pub(crate) struct Resume {
    pub(crate) session: SessionId,
    pub(crate) password: Bytes,
}

/// Why a session cannot be had here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("the session has expired; open a new one")]
    Expired,
    #[error("the password is not the session's")]
    WrongPassword,
    #[error(
        "the client has seen change {seen}, the ensemble is at {known}: this is another ensemble, or one whose data was \
         lost; check the endpoints"
    )]
    AnotherEnsemble { seen: Zxid, known: Zxid },
    #[error("the ensemble has as many sessions as it may have")]
    TooManySessions,
    #[error("clients come faster than this member lets them; try again, or another one")]
    Throttled,
    #[error("this member does not serve clients now: {0}; try another one")]
    NotReady(NotReady),
    #[error("this member cannot reach a majority now; try another one")]
    NoQuorum,
}

/// How long an attach may wait for the quorum before the client is sent elsewhere.
const ATTACH_WITHIN: Duration = Duration::from_secs(5);
/// How long of that it may wait for a leader.
const LEADER_WITHIN: Duration = Duration::from_millis(500);
const PASSWORD_BYTES: usize = 16;

impl Sessions {
    /// Opens or resumes a session.
    ///
    /// Cancel safe in that nothing breaks: a session opened for a client that is gone expires after its timeout.
    pub(crate) async fn attach(self: &Arc<Self>, request: AttachRequest) -> Result<Attachment, AttachError> {
        self.admit()?;
        self.check_ready().await?;
        match tokio::time::timeout(ATTACH_WITHIN, self.try_attach(request)).await {
            Ok(attached) => attached,
            Err(_elapsed) => Err(AttachError::NoQuorum),
        }
    }

    /// Turns those away that come too fast, before they have cost anything.
    fn admit(&self) -> Result<(), AttachError> {
        if self.throttle.admits(Clock::now()) {
            return Ok(());
        }
        self.metrics.throttled();
        Err(AttachError::Throttled)
    }

    /// Refuses before anything is proposed: what cannot be agreed now would only wait, and the client has other members
    /// to ask. An election that is about to end is waited for.
    async fn check_ready(&self) -> Result<(), AttachError> {
        let mut readiness = self.ensemble.readiness();
        let passes = |missing: &NotReady| matches!(missing, NotReady::NoLeader | NotReady::CatchingUp);
        if readiness.borrow().is_ready() {
            return Ok(());
        }
        let decided = readiness.wait_for(|readiness| !readiness.missing.iter().any(passes));
        // The sender lives as long as the ensemble.
        let _ = tokio::time::timeout(LEADER_WITHIN, decided).await;
        match self.ensemble.readiness().borrow().missing.first() {
            Some(missing) => Err(AttachError::NotReady(*missing)),
            None => Ok(()),
        }
    }

    async fn try_attach(self: &Arc<Self>, request: AttachRequest) -> Result<Attachment, AttachError> {
        let timeout_ms = self.clamp_timeout_ms(request.timeout_ms);
        self.check_before(&request).await?;
        let (op, password) = match &request.resume {
            Some(Resume { session, password }) => {
                let op = Op::AttachSession { session: *session, password: password.clone(), timeout_ms };
                (op, password.clone())
            }
            None => {
                let password = Bytes::from_owner(rand::rng().random::<[u8; PASSWORD_BYTES]>());
                let op = Op::OpenSession {
                    timeout_ms,
                    password: password.clone(),
                    client_name: request.client_name.clone(),
                };
                (op, password)
            }
        };
        let asked_at = Clock::now();
        let settled = self.ensemble.ask(op).await.map_err(|_unknown| AttachError::NoQuorum)?;
        let granted = match settled.outcome {
            Ok(Reply::Opened { session, timeout_ms, attachment }) => {
                Granted { session, password, timeout_ms, attachment, zxid: settled.zxid, next_write: 1 }
            }
            Ok(Reply::Attached { timeout_ms, attachment, next_write }) => {
                let session = request.resume.as_ref().map_or(SessionId::NONE, |resume| resume.session);
                Granted { session, password, timeout_ms, attachment, zxid: settled.zxid, next_write }
            }
            Ok(_) => unreachable!("attaching is answered by an attachment"),
            Err(refused) => {
                return Err(match refused.reason {
                    Refusal::WrongPassword => AttachError::WrongPassword,
                    Refusal::LimitExceeded => AttachError::TooManySessions,
                    _ => AttachError::Expired,
                });
            }
        };
        // Attached again or ended since: the client finds out what became of it by asking once more.
        let queue =
            self.replica.attach(granted.session, granted.attachment).map_err(|_not_attached| AttachError::NoQuorum)?;
        match request.resume {
            Some(_) => self.metrics.resumed(),
            None => self.metrics.opened(),
        }
        let client = Client { numbered: request.numbered, address: request.address };
        Ok(Attachment::new(self.clone(), queue, granted, asked_at, client))
    }

    /// Opens a session that only this member knows and only reads, for want of a majority. It cannot be resumed, neither
    /// here nor elsewhere, and no other session can be resumed while there is no majority to ask.
    pub(crate) fn attach_here(self: &Arc<Self>, request: AttachRequest) -> Result<Attachment, AttachError> {
        self.admit()?;
        let zxid = self.replica.read(quorate_tree::Tree::zxid);
        if request.last_zxid > zxid || request.resume.is_some() {
            return Err(AttachError::NoQuorum);
        }
        // Members number the sessions of the ensemble from their own id on, which is never 0.
        let session = SessionId(rand::rng().random_range(1..1 << 56));
        let granted = Granted {
            session,
            password: Bytes::from_owner(rand::rng().random::<[u8; PASSWORD_BYTES]>()),
            timeout_ms: self.clamp_timeout_ms(request.timeout_ms),
            attachment: 0,
            zxid,
            next_write: 1,
        };
        let queue = self.replica.attach_here(session);
        let client = Client { numbered: false, address: request.address };
        Ok(Attachment::new_here(self.clone(), queue, granted, Clock::now(), client))
    }

    /// Refuses what can be refused without a log entry, from a copy that is known to be current.
    async fn check_before(&self, request: &AttachRequest) -> Result<(), AttachError> {
        let known = |resume: &Resume| {
            self.replica.read(|tree| {
                tree.session(resume.session).map(|_| tree.password_matches(resume.session, &resume.password))
            })
        };
        if let Some(resume) = &request.resume
            && known(resume) == Some(false)
        {
            return Err(AttachError::WrongPassword);
        }
        let behind = self.replica.read(|tree| tree.zxid() < request.last_zxid);
        let unknown = request.resume.as_ref().is_some_and(|resume| known(resume).is_none());
        if !behind && !unknown {
            return Ok(());
        }
        // This copy may only be late.
        self.catch_up().await?;
        let known_zxid = self.replica.read(|tree| tree.zxid());
        if known_zxid < request.last_zxid {
            return Err(AttachError::AnotherEnsemble { seen: request.last_zxid, known: known_zxid });
        }
        match request.resume.as_ref().map(known) {
            Some(None) => Err(AttachError::Expired),
            Some(Some(false)) => Err(AttachError::WrongPassword),
            Some(Some(true)) | None => Ok(()),
        }
    }

    /// Waits until this copy shows everything that is committed by now.
    pub(super) fn catch_up(&self) -> impl Future<Output = Result<(), AttachError>> + Send + 'static + use<> {
        let (barrier, mut applied) = (self.ensemble.barrier(), self.replica.applied());
        async move {
            let index = barrier.await.map_err(|_no_quorum| AttachError::NoQuorum)?;
            // The sender lives as long as the replica: without one, nobody is left to be told anything.
            let _ = applied.wait_for(|applied| applied.log_index >= index).await;
            Ok(())
        }
    }
}
