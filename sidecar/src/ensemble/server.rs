//! What the peers of this member may call, and the streams they may open.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use openraft::raft::{TransferLeaderRequest, VoteRequest};
use quorate_proto::peer::{self, StreamKind, peer_server::Peer};
use quorate_tree::{MemberId, Zxid};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Extensions, Request, Response, Status, Streaming, metadata::MetadataMap};
use tracing::{debug, info, warn};

use super::{
    codec,
    config::Timing,
    digests::DigestMarks,
    exchange::Caller,
    faults::Faults,
    forward::serve_stream,
    held_replies::HeldReplies,
    leader_door::{LeaderDoor, LeaderGone, Sender},
    leadership::Leadership,
    machine::{Raft, SnapshotFile, TypedSnapshot},
    network::{PARTS_MAX, append_from_proto, append_reply},
    peer_io::{PeerAtSocket, PeerIo},
    shelf::{ShelfError, SnapshotPoint, SnapshotShelf},
    standing::Standing,
};
use crate::{config::limits, net::Connection};

/// The service for peers.
pub(crate) struct PeerService {
    pub(crate) raft: Raft,
    pub(crate) standing: Arc<Standing>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    pub(crate) door: LeaderDoor,
    pub(crate) shelf: Arc<SnapshotShelf>,
    pub(crate) digests: Arc<DigestMarks>,
    pub(crate) faults: Option<Arc<Faults>>,
    pub(crate) timing: Timing,
    pub(crate) tasks: TaskTracker,
    /// Ends every stream.
    pub(crate) stop: CancellationToken,
}

impl PeerService {
    /// Who calls, if this member speaks with them.
    async fn admit(
        &self,
        metadata: &MetadataMap,
        extensions: &Extensions,
    ) -> Result<(MemberId, peer::Greeting), Status> {
        let (peer, greeting) = self.standing.admit(metadata)?;
        self.pass(peer, extensions.get()).await;
        Ok((peer, greeting))
    }

    /// Tells the socket who is at its other end, and waits while a fault of a test holds their traffic.
    async fn pass(&self, peer: MemberId, socket: Option<&PeerAtSocket>) {
        if let Some(socket) = socket {
            socket.set(peer);
        }
        if let Some(faults) = &self.faults {
            faults.passable(Some(peer)).await;
        }
    }

    /// A disk that has not been accepted has no vote: it may have been another member's, or have lost what it promised.
    async fn check_vote(&self) -> Result<(), Status> {
        // A member that founds the ensemble with the others may be a moment behind the one that asks.
        let mut may_vote = self.standing.may_vote();
        let patience = self.timing.call_timeout() / 2;
        match tokio::time::timeout(patience, may_vote.wait_for(|may_vote| *may_vote)).await {
            Ok(_) => Ok(()),
            Err(_elapsed) => {
                Err(Status::unavailable(format!("the disk of member {} has not joined", self.standing.member())))
            }
        }
    }
}

impl PeerService {
    /// Serves the stream that a peer wants to open, until it ends.
    pub(crate) async fn serve_stream(&self, socket: PeerIo<Connection>) -> io::Result<()> {
        let at_socket = socket.peer();
        let caller = Caller::read(socket, limits::CONNECTION_OPENING_MAX).await?;
        let greeting = caller.opening.greeting.clone().unwrap_or_default();
        let peer = match self.standing.admit_greeted(&greeting) {
            Ok(peer) => peer,
            Err(refused) => return caller.refuse(&refused).await,
        };
        self.pass(peer, Some(&at_socket)).await;
        match caller.kind() {
            StreamKind::Append => self.append(caller).await,
            StreamKind::Forward => {
                self.forward(Sender { member: peer, incarnation: greeting.incarnation }, caller).await
            }
            StreamKind::Unspecified => {
                caller.refuse(&Status::unimplemented("a stream of a kind that this version does not know")).await
            }
        }
    }

    async fn append(&self, caller: Caller<PeerIo<Connection>>) -> io::Result<()> {
        let (replies, requests) = caller.accept::<peer::AppendReply, peer::AppendRequest>().await?;
        let requests = requests.map(|request| append_from_proto(request?).map_err(io::Error::other));
        let end = self.stop.child_token();
        let requests = requests.take_until(end.clone().cancelled_owned()).scan((), |(), request| {
            if let Err(error) = &request {
                // A broken connection is the peer's to notice and to repair.
                debug!(%error, "the log stream of a leader ended");
            }
            std::future::ready(request.ok())
        });
        // What reads the requests is another task, and would hold the connection.
        let _end = end.drop_guard();
        let results = HeldReplies::new(Box::pin(self.raft.stream_append(Box::pin(requests))));
        results
            .map(|result| result.map(|result| append_reply(&result)).map_err(io::Error::other))
            .forward(replies)
            .await
    }

    async fn forward(&self, from: Sender, caller: Caller<PeerIo<Connection>>) -> io::Result<()> {
        let (answers, frames) = caller.accept::<peer::LeaderFrame, peer::ForwardFrame>().await?;
        let end = self.stop.child_token();
        let frames = frames.take_until(end.clone().cancelled_owned());
        let _end = end.drop_guard();
        match serve_stream(&self.door, from, frames, &self.tasks).await {
            Ok(given) => ReceiverStream::new(given).map(Ok).forward(answers).await,
            // This member is stopping.
            Err(LeaderGone) => Ok(()),
        }
    }

    /// Writes a snapshot to disk as it comes and makes a tree of it, so that only a whole one gets to the Raft core.
    async fn receive_snapshot<S>(&self, meta: peer::SnapshotMeta, mut parts: S) -> Result<SnapshotFile, Status>
    where
        S: Stream<Item = Result<peer::SnapshotPart, Status>> + Unpin,
    {
        let point = SnapshotPoint::from_proto(&meta).map_err(malformed)?;
        // When it is full, the socket is not read further.
        let (chunks, mut queue) = mpsc::channel::<Bytes>(PARTS_MAX);
        let shelf = self.shelf.clone();
        let writing = tokio::task::spawn_blocking(move || -> Result<SnapshotFile, ShelfError> {
            let mut draft = shelf.begin(point)?;
            let mut received = 0;
            while let Some(chunk) = queue.blocking_recv() {
                received += chunk.len() as u64;
                if received > meta.bytes {
                    break;
                }
                draft.write(&chunk)?;
            }
            if received != meta.bytes {
                return Err(ShelfError::Incomplete { received, promised: meta.bytes });
            }
            let stored = draft.finish()?;
            match shelf.load(&stored) {
                Ok(tree) => Ok(SnapshotFile { stored, tree: Some(Box::new(tree)) }),
                Err(error) => {
                    shelf.set_aside(&stored);
                    Err(error)
                }
            }
        });
        while let Some(part) = parts.next().await {
            // A writer that has failed says why.
            if chunks.send(part?.data).await.is_err() {
                break;
            }
        }
        drop(chunks);
        let written = writing.await.map_err(|panicked| Status::internal(panicked.to_string()))?;
        written.map_err(|error| {
            warn!(%error, "a snapshot was not taken");
            Status::internal(error.to_string())
        })
    }
}

fn ended<E: std::fmt::Display>(fatal: E) -> Status {
    Status::unavailable(format!("this member has stopped: {fatal}"))
}

fn malformed(error: codec::CodecError) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn greet(&self, request: Request<peer::Greeting>) -> Result<Response<peer::Greeting>, Status> {
        if let Some(peer) = u8::try_from(request.get_ref().member_id).ok().map(MemberId) {
            self.pass(peer, request.extensions().get()).await;
        }
        // Whatever the answer: the caller compares too, and both tell their operators.
        let _ = self.standing.note(request.get_ref());
        let leader = self.leadership.borrow().leader;
        Ok(Response::new(self.standing.greeting(leader, 0)))
    }

    async fn heartbeat(&self, request: Request<peer::AppendRequest>) -> Result<Response<peer::AppendReply>, Status> {
        self.admit(request.metadata(), request.extensions()).await?;
        let request = append_from_proto(request.into_inner()).map_err(malformed)?;
        let results = self.raft.stream_append(futures_util::stream::iter([request]));
        let mut results = std::pin::pin!(results);
        let result = results.next().await.ok_or_else(|| Status::unavailable("this member is stopping"))?;
        Ok(Response::new(append_reply(&result.map_err(ended)?)))
    }

    async fn vote(&self, request: Request<peer::VoteRequest>) -> Result<Response<peer::VoteReply>, Status> {
        self.admit(request.metadata(), request.extensions()).await?;
        self.check_vote().await?;
        let request = request.into_inner();
        let vote = request.vote.ok_or_else(|| Status::invalid_argument("a vote request without its vote"))?;
        let asked = VoteRequest {
            vote: codec::vote_from_proto(&vote).map_err(malformed)?,
            last_log_id: codec::optional_log_id_from_proto(request.last_log_id.as_ref()).map_err(malformed)?,
            leadership_transfer: request.leadership_transfer,
        };
        let answer = if request.pre { self.raft.pre_vote(asked).await } else { self.raft.vote(asked).await };
        let answer = answer.map_err(ended)?;
        Ok(Response::new(peer::VoteReply {
            vote: Some(codec::vote_to_proto(&answer.vote)),
            granted: answer.vote_granted,
            last_log_id: answer.last_log_id.as_ref().map(codec::log_id_to_proto),
        }))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<peer::SnapshotPart>>,
    ) -> Result<Response<peer::SnapshotReply>, Status> {
        let (peer, _) = self.admit(request.metadata(), request.extensions()).await?;
        let mut parts = Box::pin(request.into_inner().take_until(self.stop.clone().cancelled_owned()));
        let head = parts.next().await.ok_or_else(|| Status::invalid_argument("a snapshot without its head"))??;
        let head = head.head.ok_or_else(|| Status::invalid_argument("a snapshot without its head"))?;
        let vote = head.vote.ok_or_else(|| Status::invalid_argument("a snapshot without its vote"))?;
        let vote = codec::vote_from_proto(&vote).map_err(malformed)?;
        let meta = head.meta.ok_or_else(|| Status::invalid_argument("a snapshot without its meta"))?;
        info!(%peer, bytes = meta.bytes, "receive a snapshot");
        let snapshot = self.receive_snapshot(meta, parts).await?;
        let meta = snapshot.stored.meta.clone();
        let answer = self.raft.install_full_snapshot(vote, TypedSnapshot { meta, snapshot }).await.map_err(ended)?;
        Ok(Response::new(peer::SnapshotReply { vote: Some(codec::vote_to_proto(&answer.vote)) }))
    }

    async fn transfer_leadership(
        &self,
        request: Request<peer::TransferRequest>,
    ) -> Result<Response<peer::TransferReply>, Status> {
        let (peer, _) = self.admit(request.metadata(), request.extensions()).await?;
        let request = request.into_inner();
        let from = request.from.ok_or_else(|| Status::invalid_argument("a transfer without its vote"))?;
        let from = codec::vote_from_proto(&from).map_err(malformed)?;
        let last_log_id = codec::optional_log_id_from_proto(request.last_log_id.as_ref()).map_err(malformed)?;
        let request = TransferLeaderRequest::new(from, request.to, last_log_id);
        let refused = match self.raft.handle_transfer_leader(request).await.map_err(ended)? {
            Ok(()) => String::new(),
            Err(refused) => {
                warn!(%peer, %refused, "cannot take over leadership");
                refused.to_string()
            }
        };
        Ok(Response::new(peer::TransferReply { refused }))
    }

    async fn compare_digest(&self, request: Request<peer::DigestMark>) -> Result<Response<peer::DigestMark>, Status> {
        let (peer, _) = self.admit(request.metadata(), request.extensions()).await?;
        let peer::DigestMark { zxid, digest, known: _ } = request.into_inner();
        let ours = self.digests.told(peer, Zxid(zxid), digest);
        Ok(Response::new(peer::DigestMark { zxid, digest: ours.unwrap_or_default(), known: ours.is_some() }))
    }
}

/// How long a server that was told to stop lets calls end by themselves.
pub(crate) const GOODBYE: Duration = Duration::from_millis(200);
