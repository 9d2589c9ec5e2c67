//! How members get at the leader's task: one bounded queue, and a channel of answers for each stream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_proto::peer;
use quorate_tree::{MemberId, Op};
use tokio::sync::{mpsc, oneshot};

use super::session_news::SessionNews;

/// Frames and streams that wait for the leader's task. When it is full, streams are not read.
const EVENTS_MAX: usize = 256;

/// Answers that wait to be sent on one stream: one touch and one barrier are unanswered at most.
const ANSWERS_MAX: usize = 8;

/// A stream from a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamId(u64);

/// How members get at the leader's task.
#[derive(Clone, Debug)]
pub(crate) struct LeaderDoor {
    events: mpsc::Sender<Event>,
    streams: Arc<AtomicU64>,
    news: Arc<SessionNews>,
}

#[derive(Debug)]
pub(super) enum Event {
    Opened {
        stream: StreamId,
        from: Sender,
        answers: mpsc::Sender<peer::LeaderFrame>,
    },
    Frame {
        stream: StreamId,
        frame: peer::ForwardFrame,
    },
    Closed {
        stream: StreamId,
    },
    /// A command of the leader's own, if it leads in that term. Whoever asked is told when it was taken.
    Own {
        term: u64,
        op: Op,
        taken: oneshot::Sender<()>,
    },
    /// Proposes nothing for so long.
    Hold(Duration),
}

/// The start of a member that speaks on a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) member: MemberId,
    pub(crate) incarnation: u64,
}

/// An open stream, as its owner sees it.
#[derive(Debug)]
pub(crate) struct LeaderStream {
    id: StreamId,
    events: mpsc::Sender<Event>,
}

/// The leader's task has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LeaderGone;

impl LeaderDoor {
    /// A door and the queue behind it.
    pub(crate) fn new() -> (Self, LeaderQueue) {
        // When it is full, senders wait: their streams are not read, and the members' frames stay in the sockets.
        let (events, queue) = mpsc::channel(EVENTS_MAX);
        (Self { events, streams: Arc::default(), news: Arc::default() }, LeaderQueue(queue))
    }

    pub(crate) fn news(&self) -> &Arc<SessionNews> {
        &self.news
    }

    /// Opens a stream. Its answers end when the leader cannot serve it any more.
    pub(crate) async fn open(
        &self,
        from: Sender,
    ) -> Result<(LeaderStream, mpsc::Receiver<peer::LeaderFrame>), LeaderGone> {
        let id = StreamId(self.streams.fetch_add(1, Ordering::Relaxed));
        // When it is full, the stream is ended: its member does not read.
        let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
        self.events.send(Event::Opened { stream: id, from, answers }).await.map_err(|_closed| LeaderGone)?;
        Ok((LeaderStream { id, events: self.events.clone() }, receiver))
    }

    /// Proposes a command of the leader's own, and says whether it was taken: then it is applied unless the reign ends
    /// before. It is not taken if the leader's task does not know yet that it leads in that term, or does not any more.
    pub(crate) async fn propose_own(&self, term: u64, op: Op) -> bool {
        let (taken, answer) = oneshot::channel();
        // The task ends only when the whole member does.
        self.events.send(Event::Own { term, op, taken }).await.is_ok() && answer.await.is_ok()
    }

    /// Proposes nothing for so long, unless another leads meanwhile: what comes is held, and sent again to the next
    /// leader.
    pub(crate) async fn hold(&self, hold: Duration) {
        let _ = self.events.send(Event::Hold(hold)).await;
    }
}

/// Where the leader's task takes its events from.
#[derive(Debug)]
pub(crate) struct LeaderQueue(pub(super) mpsc::Receiver<Event>);

impl LeaderStream {
    pub(crate) async fn frame(&self, frame: peer::ForwardFrame) -> Result<(), LeaderGone> {
        self.events.send(Event::Frame { stream: self.id, frame }).await.map_err(|_closed| LeaderGone)
    }

    pub(crate) async fn close(self) {
        let _ = self.events.send(Event::Closed { stream: self.id }).await;
    }
}
