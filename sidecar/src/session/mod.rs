//! What one client is promised, whatever door it came through.
//!
//! - [`attach`](Sessions::attach) opens or resumes a session: a command in the log, so that every later answer shows
//!   at least what the session has seen.
//! - [`Attachment`] keeps the order of one attached session, and stops serving it once this member can no longer
//!   vouch for it.
//!
//! Flow control: an attachment takes at most `session_inflight_max` requests, and each write holds one of
//! `member_inflight_max` permits from the time it is proposed until it is applied. A door reads its socket only
//! while [`Attachment::has_room`]. So what a slow quorum or a slow client holds up ends at that client's socket.
//!
//! Knows no bytes of any protocol, and no Raft.

use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::{ensemble::Ensemble, replica::Replica, telemetry::metrics::SessionMetrics};

mod attach;
mod attachment;
mod identity;
mod in_order;
mod request;
mod throttle;
mod weight;

pub(crate) use attach::{AttachError, AttachRequest, Resume};
pub(crate) use attachment::{Attachment, Ended, Output};
pub(crate) use identity::SuperDigest;
pub(crate) use request::{Request, RequestKind};
pub(crate) use throttle::Rate;

use throttle::Throttle;

/// The bounds of a session.
#[derive(Clone, Debug)]
pub(crate) struct SessionLimits {
    /// What clients want is clamped to these.
    pub(crate) timeout_ms_min: u32,
    pub(crate) timeout_ms_max: u32,
    /// Requests of one session that are not yet answered.
    pub(crate) session_inflight_max: usize,
    /// Writes of all sessions here that are not yet applied. A large one counts as several.
    pub(crate) member_inflight_max: usize,
    /// How fast sessions are opened and resumed; `None` is as fast as they come.
    pub(crate) rate: Option<Rate>,
}

/// The sessions of one member.
#[derive(Debug)]
pub(crate) struct Sessions {
    ensemble: Ensemble,
    replica: Arc<Replica>,
    limits: SessionLimits,
    writes: Arc<Semaphore>,
    throttle: Throttle,
    super_digest: Option<SuperDigest>,
    metrics: SessionMetrics,
}

impl Sessions {
    pub(crate) fn new(
        ensemble: Ensemble,
        replica: Arc<Replica>,
        limits: SessionLimits,
        super_digest: Option<SuperDigest>,
        metrics: SessionMetrics,
    ) -> Arc<Self> {
        let writes = Arc::new(Semaphore::new(limits.member_inflight_max));
        let throttle = Throttle::new(limits.rate);
        Arc::new(Self { ensemble, replica, limits, writes, throttle, super_digest, metrics })
    }

    pub(crate) fn metrics(&self) -> &SessionMetrics {
        &self.metrics
    }

    pub(crate) fn limits(&self) -> &SessionLimits {
        &self.limits
    }

    /// The timeout a client gets for the one it wants.
    fn clamp_timeout_ms(&self, wanted_ms: u32) -> u32 {
        wanted_ms.clamp(self.limits.timeout_ms_min, self.limits.timeout_ms_max)
    }
}
