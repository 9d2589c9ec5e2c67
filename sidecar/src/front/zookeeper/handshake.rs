//! The first frame of each side: a session is opened or resumed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quorate_tree::{SessionId, Zxid};
use quorate_wire::{ConnectRequest, ConnectResponse, PASSWORD_BYTES, frame};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{ZookeeperService, connection::FrameStream, registry::Entry, serving::LENGTH_BYTES};
use crate::session::{AttachError, AttachRequest, Attachment, Resume};

/// A client that has just said hello takes the answer at once, or never.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A session and what it depends on.
pub(super) struct Attached {
    pub(super) attachment: Attachment,
    /// Set for a session of this member alone: cancelled when such sessions are served no more.
    pub(super) while_it_lasts: Option<CancellationToken>,
}

/// Attaches the session a client asks for and tells it so. `None` if it cannot be had: then the client has been told,
/// where ZooKeeper tells it, and the connection is to be closed.
pub(super) async fn attach(
    first: Bytes,
    stream: &mut FrameStream,
    service: &ZookeeperService,
    stats: &Entry,
) -> Option<Attached> {
    stats.received(1, first.len() as u64 + LENGTH_BYTES);
    let asked = ConnectRequest::decode(&first).ok()?;
    stats.shook_hands(asked.session_id != 0);
    let read_only = asked.read_only;
    let while_it_lasts = service.read_only();
    let attached = match &while_it_lasts {
        None => service.sessions.attach(request(asked, stream)).await,
        Some(_) if read_only == Some(true) => service.sessions.attach_here(request(asked, stream)),
        Some(_) => Err(AttachError::NoQuorum),
    };
    match attached {
        Ok(mut attachment) => {
            let password = attachment.take_password();
            let granted = attachment.granted();
            stats.attached(granted.session, granted.timeout_ms, granted.zxid);
            let response = ConnectResponse {
                timeout_ms: i32::try_from(granted.timeout_ms).unwrap_or(i32::MAX),
                session_id: granted.session.0 as i64,
                password: <[u8; PASSWORD_BYTES]>::try_from(&*password).unwrap_or_default(),
                read_only: read_only.map(|_| while_it_lasts.is_some()),
            };
            stats.sent(1);
            answer(&response, stream, stats).await.then_some(Attached { attachment, while_it_lasts })
        }
        Err(error @ (AttachError::Expired | AttachError::WrongPassword)) => {
            debug!(peer = %stream.peer(), %error, "no session");
            answer(&ConnectResponse::no_session(read_only), stream, stats).await;
            stats.sent(1);
            stream.finish().await;
            None
        }
        // Closed without a word, the client tries another member.
        Err(
            error @ (AttachError::AnotherEnsemble { .. }
            | AttachError::TooManySessions
            | AttachError::Throttled
            | AttachError::NotReady(_)
            | AttachError::NoQuorum),
        ) => {
            debug!(peer = %stream.peer(), %error, "no session here");
            None
        }
    }
}

fn request(asked: ConnectRequest, stream: &FrameStream) -> AttachRequest {
    AttachRequest {
        resume: (asked.session_id != 0)
            .then(|| Resume { session: SessionId(asked.session_id as u64), password: asked.password }),
        timeout_ms: u32::try_from(asked.timeout_ms).unwrap_or(0),
        last_zxid: Zxid(u64::try_from(asked.last_zxid_seen).unwrap_or(0)),
        client_name: format!("zookeeper {}", stream.peer()),
        numbered: false,
        address: Some(stream.peer().ip()),
    }
}

async fn answer(response: &ConnectResponse, stream: &mut FrameStream, stats: &Entry) -> bool {
    let mut out = BytesMut::with_capacity(64);
    frame(&mut out, |out| response.encode(out));
    stats.sent_bytes(out.len() as u64);
    stream.send(&out, ANSWER_WITHIN).await.is_ok()
}
