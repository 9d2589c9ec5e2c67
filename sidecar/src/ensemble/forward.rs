//! From this member to the leader, wherever it is: proposals in order, touches and barriers, on one stream.
//!
//! The stream is opened anew when the leader changes, when it breaks and when the leader ends it; then everything that
//! is open is sent again. A leader to which none can be opened is looked after ([`lookout`](super::lookout)). The leader's own member speaks with it in the same way, without a socket between them.

use std::{convert::Infallible, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt};
use quorate_proto::peer;
use quorate_tree::MemberId;
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;
use tracing::debug;

use super::{
    barriers::BarrierBook,
    config::Timing,
    faults::Faults,
    lane::OpenLane,
    leader_door::{LeaderDoor, LeaderGone, Sender},
    leadership::Leadership,
    lookout::Lookout,
    network::Links,
    touches::TouchBook,
};
use crate::storage::DiskSpace;

/// Frames that wait to be sent. When it is full, nothing more is put into frames: what is open waits in the books.
const FRAMES_MAX: usize = 4;

/// What the member knows from its stream to the leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contact {
    /// When a leader last answered, with a majority behind it.
    pub(crate) heard: Option<Instant>,
    /// The disks behind the quorum are nearly full.
    pub(crate) writes_refused: bool,
}

/// Sends what the books hold to the leader.
pub(crate) struct Forwarder {
    pub(crate) lane: Arc<OpenLane>,
    pub(crate) touches: Arc<TouchBook>,
    pub(crate) barriers: Arc<BarrierBook>,
    pub(crate) from: Sender,
    pub(crate) links: Links,
    pub(crate) lookout: Lookout,
    pub(crate) door: LeaderDoor,
    pub(crate) contact: watch::Sender<Contact>,
    pub(crate) space: DiskSpace,
    pub(crate) faults: Option<Arc<Faults>>,
    /// Whether nobody knows if this member's state is right: then it serves nobody.
    pub(crate) disputed: watch::Receiver<bool>,
    pub(crate) timing: Timing,
    pub(crate) tasks: TaskTracker,
}

struct ToLeader {
    frames: mpsc::Sender<peer::ForwardFrame>,
    answers: Pin<Box<dyn Stream<Item = Result<peer::LeaderFrame, Status>> + Send>>,
}

/// Why a stream is given up.
#[derive(Debug, thiserror::Error)]
enum StreamEnd {
    #[error("stopped")]
    Stopped,
    #[error("another member leads")]
    LeaderChanged,
    #[error("nobody knows whether this member's state is right")]
    Disputed,
    #[error("a proposal is missing at the leader")]
    Gap,
    #[error("the leader ended it")]
    EndedByLeader,
    #[error("{0}")]
    Broken(String),
    /// It could not be opened.
    #[error("{0}")]
    Unreachable(String),
}

impl Forwarder {
    /// Runs until stopped; then the books are closed.
    pub(crate) async fn run(mut self, mut leadership: watch::Receiver<Leadership>, stop: CancellationToken) {
        while let Some((term, leader)) = self.leader(&mut leadership, &stop).await {
            let begun = Instant::now();
            let end = self.serve(leader, &mut leadership, &stop).await;
            debug!(%leader, term, end = %end, "stream to the leader ended");
            if !matches!(end, StreamEnd::Unreachable(_)) {
                self.lookout.reached();
            }
            let next_attempt = async {
                match end {
                    StreamEnd::LeaderChanged | StreamEnd::Gap | StreamEnd::Disputed | StreamEnd::Stopped => {}
                    // One that has served is opened anew at once: if the leader is gone, that shows it.
                    StreamEnd::EndedByLeader | StreamEnd::Broken(_) => {
                        tokio::time::sleep_until(begun + self.timing.retry()).await;
                    }
                    StreamEnd::Unreachable(_) => self.lookout.look(term, leader).await,
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Ok(()) = leadership.changed() => {}
                () = next_attempt => {}
            }
        }
        self.lane.close();
        self.touches.close();
        self.barriers.close();
    }

    /// Waits for a leader, and until this member's state is beyond dispute.
    async fn leader(
        &self,
        leadership: &mut watch::Receiver<Leadership>,
        stop: &CancellationToken,
    ) -> Option<(u64, MemberId)> {
        let mut disputed = self.disputed.clone();
        loop {
            let reign = leadership.borrow_and_update().reign();
            if let (Some(reign), false) = (reign, *disputed.borrow_and_update()) {
                return Some(reign);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                changed = leadership.changed() => changed.ok()?,
                changed = disputed.changed() => changed.ok()?,
            }
        }
    }

    async fn serve(
        &self,
        leader: MemberId,
        leadership: &mut watch::Receiver<Leadership>,
        stop: &CancellationToken,
    ) -> StreamEnd {
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return StreamEnd::Stopped,
            _ = leadership.changed() => return StreamEnd::LeaderChanged,
            opened = self.open(leader) => opened,
        };
        match opened {
            Ok(stream) => {
                self.lane.rewind();
                self.touches.rewind();
                self.barriers.rewind();
                self.speak(stream, leadership, stop).await
            }
            Err(reason) => StreamEnd::Unreachable(reason),
        }
    }

    async fn open(&self, leader: MemberId) -> Result<ToLeader, String> {
        // When it is full, the loop below waits for room before it makes the next frame.
        let (frames, queue) = mpsc::channel(FRAMES_MAX);
        if leader == self.from.member {
            let frames_of_mine = ReceiverStream::new(queue).map(Ok::<_, Infallible>);
            let answers = serve_stream(&self.door, self.from, frames_of_mine, &self.tasks).await;
            let answers = answers.map_err(|LeaderGone| "stopped".to_owned())?;
            return Ok(ToLeader { frames, answers: Box::pin(ReceiverStream::new(answers).map(Ok)) });
        }
        let link = self.links.get(&leader).ok_or_else(|| format!("member {leader} is not configured here"))?;
        let disk_id = link.disk_id().await.map_err(|error| error.to_string())?;
        let answers = link.exchange(peer::StreamKind::Forward, disk_id, ReceiverStream::new(queue)).await;
        Ok(ToLeader { frames, answers: Box::pin(answers.map_err(|error| error.to_string())?) })
    }

    async fn speak(
        &self,
        mut stream: ToLeader,
        leadership: &mut watch::Receiver<Leadership>,
        stop: &CancellationToken,
    ) -> StreamEnd {
        let mut disputed = self.disputed.clone();
        let mut next_touch = Instant::now();
        let mut next_contact = Instant::now();
        let mut disk_low = false;
        let mut gap: Option<(Instant, u64)> = None;
        loop {
            let now = Instant::now();
            let touch_due = now >= next_touch && self.touches.is_due() || now >= next_contact;
            let work = self.lane.has_unsent() || touch_due || self.barriers.is_due();
            tokio::select! {
                biased;
                () = stop.cancelled() => return StreamEnd::Stopped,
                _ = leadership.changed() => return StreamEnd::LeaderChanged,
                Ok(_) = disputed.wait_for(|disputed| *disputed) => return StreamEnd::Disputed,
                answer = stream.answers.next() => match answer {
                    Some(Ok(frame)) => self.answered(frame),
                    Some(Err(status)) => return StreamEnd::Broken(status.to_string()),
                    None => return StreamEnd::EndedByLeader,
                },
                () = self.lane.gap() => {
                    // Sent before the last rewind, mostly; if the oldest stays open, something is missing.
                    if gap.is_none() {
                        gap = self.lane.oldest().map(|oldest| (now + self.timing.gap_patience(), oldest));
                    }
                }
                () = tokio::time::sleep_until(gap.map_or(now, |(at, _)| at)), if gap.is_some() => {
                    if gap.take().map(|(_, oldest)| oldest) == self.lane.oldest() {
                        return StreamEnd::Gap;
                    }
                }
                room = stream.frames.reserve(), if work => {
                    let Ok(room) = room else { return StreamEnd::EndedByLeader };
                    let touch = if touch_due { self.touches.next() } else { None };
                    if touch_due {
                        next_touch = now + self.timing.touch_spacing();
                        next_contact = now + self.timing.contact_every();
                        disk_low = self.disk_low();
                    }
                    let (proposals, barrier) = (self.lane.next_frame(), self.barriers.next());
                    room.send(peer::ForwardFrame { proposals, touch, barrier, disk_low });
                }
                () = self.lane.woken() => {}
                () = self.barriers.woken() => {}
                () = self.touches.woken(), if !touch_due => {}
                () = tokio::time::sleep_until(next_touch), if now < next_touch && self.touches.is_due() => {}
                () = tokio::time::sleep_until(next_contact), if !touch_due => {}
            }
        }
    }

    fn answered(&self, frame: peer::LeaderFrame) {
        if let Some(number) = frame.touched {
            self.touches.answered(number, &frame.lapsed);
        }
        if let Some(peer::BarrierReply { number, log_index }) = frame.barrier {
            self.barriers.answered(number, log_index);
        }
        self.contact.send_replace(Contact { heard: Some(Instant::now()), writes_refused: frame.writes_refused });
    }

    fn disk_low(&self) -> bool {
        let full_for_a_test = self.faults.as_ref().is_some_and(|faults| faults.disk_is_full());
        // A disk that cannot be measured fails at the next write, and says why there.
        full_for_a_test || self.space.measure().is_ok_and(|space| space.low)
    }
}

/// Brings the frames of one stream to the leader's task, and its answers back. The answers end when the leader ends
/// the stream.
pub(crate) async fn serve_stream<S, E>(
    door: &LeaderDoor,
    from: Sender,
    frames: S,
    tasks: &TaskTracker,
) -> Result<mpsc::Receiver<peer::LeaderFrame>, LeaderGone>
where
    S: Stream<Item = Result<peer::ForwardFrame, E>> + Send + 'static,
    E: Send + 'static,
{
    let (stream, answers) = door.open(from).await?;
    tasks.spawn(async move {
        let mut frames = std::pin::pin!(frames);
        while let Some(Ok(frame)) = frames.next().await {
            if stream.frame(frame).await.is_err() {
                return;
            }
        }
        stream.close().await;
    });
    Ok(answers)
}
