//! How the Raft crate reaches the peers.
//!
//! A follower is given the log on one stream with many requests in flight; heartbeats, votes and snapshots go over other
//! connections. A peer is given the log only while its disk is the registered one.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use openraft::{
    AnyError, BasicNode, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use quorate_proto::peer;
use quorate_tree::MemberId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tracing::{info, warn};

use super::{
    codec,
    held_commits::HeldCommits,
    link::{LinkError, PeerLink},
    machine::{SnapshotFile, TypedSnapshot},
    shelf::{ShelfError, SnapshotShelf, StoredSnapshot},
    types::{LogId, Types, Vote},
};
use crate::{clock::Clock, telemetry::metrics::EnsembleMetrics};

/// Parts of a snapshot between its file and the socket.
pub(crate) const PARTS_MAX: usize = 4;

/// The links to all peers.
pub(crate) type Links = Arc<BTreeMap<MemberId, Arc<PeerLink>>>;

/// Gives the Raft crate a client for each peer.
#[derive(Debug)]
pub(crate) struct Network {
    links: Links,
    shelf: Arc<SnapshotShelf>,
    retry: Duration,
    metrics: EnsembleMetrics,
}

/// What the Raft crate speaks to one peer with.
#[derive(Debug)]
pub(crate) struct PeerNetwork {
    /// `None` if the log names a member that is not configured here.
    link: Option<Arc<PeerLink>>,
    shelf: Arc<SnapshotShelf>,
    retry: Duration,
    metrics: EnsembleMetrics,
    purpose: Purpose,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Log,
    Heartbeat,
    Snapshot,
}

type RpcResult<T> = Result<T, RPCError<Types>>;

impl Network {
    pub(crate) fn new(links: Links, shelf: Arc<SnapshotShelf>, retry: Duration, metrics: EnsembleMetrics) -> Self {
        Self { links, shelf, retry, metrics }
    }

    fn client(&self, target: u64, purpose: Purpose) -> PeerNetwork {
        let member = u8::try_from(target).ok().map(MemberId);
        let link = member.and_then(|member| self.links.get(&member)).cloned();
        let (shelf, metrics) = (self.shelf.clone(), self.metrics.clone());
        PeerNetwork { link, shelf, retry: self.retry, metrics, purpose }
    }
}

impl RaftNetworkFactory<Types> for Network {
    type Network = PeerNetwork;

    async fn new_client(&mut self, target: u64, _node: &BasicNode) -> PeerNetwork {
        self.client(target, Purpose::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, _node: &BasicNode) -> PeerNetwork {
        self.client(target, Purpose::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, _node: &BasicNode) -> PeerNetwork {
        self.client(target, Purpose::Snapshot)
    }
}

impl PeerNetwork {
    fn link(&self) -> RpcResult<&Arc<PeerLink>> {
        self.link.as_ref().ok_or_else(|| {
            RPCError::Unreachable(Unreachable::new(&AnyError::error(
                "the log names a member that is not configured here",
            )))
        })
    }

    async fn heartbeat(&mut self, request: AppendEntriesRequest<Types>) -> RpcResult<StreamAppendResult<Types>> {
        let link = self.link()?;
        let disk_id = link.fed_disk_id().await.map_err(rpc_error)?;
        let request = link.standing().request(append_to_proto(request), disk_id);
        let asked_at = Clock::now();
        let reply = link.prompt().heartbeat(request).await.map_err(|status| rpc_error(link.failed(status)))?;
        self.metrics.peer_answered(link.peer(), Clock::now().since(asked_at));
        append_result(reply.into_inner())
    }

    async fn log_stream<S>(
        &mut self,
        requests: S,
    ) -> RpcResult<BoxStream<'static, RpcResult<StreamAppendResult<Types>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let opened = self.open_log_stream(requests).await;
        if opened.is_err() {
            // The crate waits between requests on a stream, but not between attempts to open one.
            tokio::time::sleep(self.retry).await;
        }
        opened
    }

    async fn open_log_stream<S>(
        &mut self,
        requests: S,
    ) -> RpcResult<BoxStream<'static, RpcResult<StreamAppendResult<Types>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + Send + Unpin + 'static,
    {
        let link = self.link()?.clone();
        let disk_id = link.fed_disk_id().await.map_err(rpc_error)?;
        let gate = link.clone();
        // Looked at again for each request: client writes are taken only after this says no to unregistered disks.
        let requests = requests.take_while(move |_request| std::future::ready(gate.may_feed(disk_id)));
        let requests = HeldCommits::new(requests).map(append_to_proto);
        let replies = link.exchange(peer::StreamKind::Append, disk_id, requests).await.map_err(rpc_error)?;
        let replies = replies.map(move |reply| match reply {
            Ok(reply) => append_result(reply),
            Err(status) => Err(rpc_error(link.failed(status))),
        });
        Ok(replies.boxed())
    }

    async fn ask_for_vote(&mut self, request: VoteRequest<Types>, pre: bool) -> RpcResult<VoteResponse<Types>> {
        let link = self.link()?;
        let disk_id = link.disk_id().await.map_err(rpc_error)?;
        let request = peer::VoteRequest {
            vote: Some(codec::vote_to_proto(&request.vote)),
            last_log_id: request.last_log_id.as_ref().map(codec::log_id_to_proto),
            leadership_transfer: request.leadership_transfer,
            pre,
        };
        let request = link.standing().request(request, disk_id);
        let reply = link.prompt().vote(request).await.map_err(|status| rpc_error(link.failed(status)))?.into_inner();
        let vote = required_vote(reply.vote.as_ref())?;
        let last_log_id = codec::optional_log_id_from_proto(reply.last_log_id.as_ref()).map_err(garbled)?;
        Ok(VoteResponse::new(vote, last_log_id, reply.granted))
    }
}

impl RaftNetworkV2<Types> for PeerNetwork {
    type SnapshotData = SnapshotFile;

    /// Not used by the crate where `stream_append` is: kept for a single request.
    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> RpcResult<AppendEntriesResponse<Types>> {
        self.heartbeat(rpc).await.map(AppendEntriesResponse::from)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        mut input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, RpcResult<BoxStream<'s, RpcResult<StreamAppendResult<Types>>>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            if self.purpose != Purpose::Heartbeat {
                return self.log_stream(input).await;
            }
            let Some(request) = input.next().await else { return Ok(stream::empty().boxed()) };
            let result = self.heartbeat(request).await?;
            Ok(stream::once(std::future::ready(Ok(result))).boxed())
        })
    }

    async fn vote(&mut self, rpc: VoteRequest<Types>, _option: RPCOption) -> RpcResult<VoteResponse<Types>> {
        self.ask_for_vote(rpc, false).await
    }

    async fn pre_vote(&mut self, rpc: VoteRequest<Types>, _option: RPCOption) -> RpcResult<VoteResponse<Types>> {
        self.ask_for_vote(rpc, true).await
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: TypedSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let link = self.link()?.clone();
        let sending = send_snapshot(link, self.shelf.clone(), vote, snapshot.snapshot.stored);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = sending => Ok(sent?),
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        _option: RPCOption,
    ) -> RpcResult<TransferLeaderResponse<Types>> {
        let link = self.link()?;
        let disk_id = link.disk_id().await.map_err(rpc_error)?;
        let message = peer::TransferRequest {
            from: Some(codec::vote_to_proto(request.from_leader())),
            to: *request.to_node_id(),
            last_log_id: request.last_log_id().map(codec::log_id_to_proto),
        };
        let message = link.standing().request(message, disk_id);
        let reply = link.prompt().transfer_leadership(message).await;
        let reply = reply.map_err(|status| rpc_error(link.failed(status)))?.into_inner();
        if reply.refused.is_empty() {
            return Ok(Ok(()));
        }
        Err(RPCError::Network(NetworkError::new(&AnyError::error(reply.refused))))
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(self.retry)))
    }
}

pub(crate) fn append_to_proto(request: AppendEntriesRequest<Types>) -> peer::AppendRequest {
    peer::AppendRequest {
        vote: Some(codec::vote_to_proto(&request.vote)),
        prev: request.prev_log_id.as_ref().map(codec::log_id_to_proto),
        leader_commit: request.leader_commit.as_ref().map(codec::log_id_to_proto),
        entries: request.entries.iter().map(codec::entry_to_proto).collect(),
    }
}

pub(crate) fn append_from_proto(
    request: peer::AppendRequest,
) -> Result<AppendEntriesRequest<Types>, codec::CodecError> {
    let vote = request.vote.ok_or(codec::CodecError::Missing { message: "append request", field: "vote" })?;
    Ok(AppendEntriesRequest {
        vote: codec::vote_from_proto(&vote)?,
        prev_log_id: codec::optional_log_id_from_proto(request.prev.as_ref())?,
        leader_commit: codec::optional_log_id_from_proto(request.leader_commit.as_ref())?,
        entries: request.entries.into_iter().map(codec::entry_from_proto).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn append_reply(result: &StreamAppendResult<Types>) -> peer::AppendReply {
    use peer::append_reply::Result as Proto;

    let result = match result {
        Ok(matched) => Proto::Matched(peer::Matched { log_id: matched.as_ref().map(codec::log_id_to_proto) }),
        Err(StreamAppendError::Conflict(log_id)) => Proto::Conflict(codec::log_id_to_proto(log_id)),
        Err(StreamAppendError::HigherVote(vote)) => Proto::HigherVote(codec::vote_to_proto(vote)),
    };
    peer::AppendReply { result: Some(result) }
}

fn append_result(reply: peer::AppendReply) -> RpcResult<StreamAppendResult<Types>> {
    use peer::append_reply::Result as Proto;

    let conflict = |log_id: &peer::LogId| -> RpcResult<LogId> { codec::log_id_from_proto(log_id).map_err(garbled) };
    match reply.result {
        Some(Proto::Matched(matched)) => Ok(Ok(matched.log_id.as_ref().map(conflict).transpose()?)),
        Some(Proto::Conflict(log_id)) => Ok(Err(StreamAppendError::Conflict(conflict(&log_id)?))),
        Some(Proto::HigherVote(vote)) => Ok(Err(StreamAppendError::HigherVote(required_vote(Some(&vote))?))),
        None => Err(garbled(codec::CodecError::Missing { message: "append reply", field: "result" })),
    }
}

/// Sends a whole snapshot: its head, then its chunks as they are in the file.
async fn send_snapshot(
    link: Arc<PeerLink>,
    shelf: Arc<SnapshotShelf>,
    vote: Vote,
    snapshot: StoredSnapshot,
) -> RpcResult<SnapshotResponse<Types>> {
    let disk_id = link.fed_disk_id().await.map_err(rpc_error)?;
    info!(peer = %link.peer(), index = snapshot.index(), bytes = snapshot.bytes, "send a snapshot");
    // When it is full, the file is not read further.
    let (parts, queue) = mpsc::channel(PARTS_MAX);
    let head = peer::SnapshotHead { vote: Some(codec::vote_to_proto(&vote)), meta: Some(snapshot.to_proto()) };
    let reading = tokio::task::spawn_blocking(move || -> Result<(), ShelfError> {
        let mut reader = shelf.open(&snapshot)?;
        let head = peer::SnapshotPart { head: Some(head), data: Bytes::new() };
        // A receiver that has gone ends the call, which says why.
        let mut open = parts.blocking_send(head).is_ok();
        while let (true, Some(data)) = (open, reader.next_chunk()?) {
            open = parts.blocking_send(peer::SnapshotPart { head: None, data }).is_ok();
        }
        Ok(())
    });
    let request = link.standing().request(ReceiverStream::new(queue), disk_id);
    let reply = link.bulk().install_snapshot(request).await.map_err(|status| rpc_error(link.failed(status)));
    match reading.await {
        Ok(Ok(())) => {}
        // Not the peer's fault. It received less than the head promised, and does not install that.
        Ok(Err(error)) => warn!(%error, "a snapshot cannot be sent"),
        Err(panicked) => warn!(%panicked, "a snapshot cannot be sent"),
    }
    Ok(SnapshotResponse::new(required_vote(reply?.into_inner().vote.as_ref())?))
}

fn required_vote(vote: Option<&peer::Vote>) -> RpcResult<Vote> {
    let vote = vote.ok_or(codec::CodecError::Missing { message: "reply", field: "vote" }).map_err(garbled)?;
    codec::vote_from_proto(vote).map_err(garbled)
}

fn garbled(error: codec::CodecError) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&error))
}

/// All of them are for a while: the crate tries again after its backoff.
fn rpc_error(error: LinkError) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(&error))
}
