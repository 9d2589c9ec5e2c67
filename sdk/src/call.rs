//! One request on its way: a future that is sent when it is first polled.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quorate_proto::v1::{self, request::Op};
use tokio::sync::oneshot;
use tracing::Span;

use crate::{
    core::Core,
    error::{Error, Result},
    outbox::{Entry, Shut, Waiter},
    path::Namespace,
    trace,
};

/// A request and its raw reply.
pub(crate) struct Ticket {
    core: Arc<Core>,
    stage: Stage,
    span: Span,
}

enum Stage {
    New(Op),
    Sent(oneshot::Receiver<Result<v1::Reply>>),
    Done,
}

impl Ticket {
    pub(crate) fn new(core: &Arc<Core>, op: Op) -> Self {
        Self { core: core.clone(), stage: Stage::New(op), span: Span::none() }
    }

    /// Hands the request over, whether there is room for it now or not: so its place is that of the first poll, whatever
    /// is polled when after that.
    fn send(&self, op: Op) -> Result<Stage> {
        let (reply, answer) = oneshot::channel();
        let mut entry = Entry::new(op, Waiter::Caller(reply));
        if let Some(traceparent) = trace::current() {
            entry.request.traceparent = traceparent;
        }
        self.core.outbox.push(entry)?;
        self.core.budget.deposit();
        Ok(Stage::Sent(answer))
    }

    fn step(&mut self, cx: &mut Context<'_>) -> Poll<Result<v1::Reply>> {
        loop {
            self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::New(op) => {
                    self.span = trace::request_span(&op);
                    self.send(op)?
                }
                Stage::Sent(mut answer) => match Pin::new(&mut answer).poll(cx) {
                    Poll::Pending => {
                        self.stage = Stage::Sent(answer);
                        return Poll::Pending;
                    }
                    // Only a runtime that is torn down drops an entry without an answer.
                    Poll::Ready(answer) => {
                        return Poll::Ready(answer.unwrap_or_else(|_| Err(Shut::Closed.error(true))));
                    }
                },
                Stage::Done => unreachable!("a future is not polled after it is ready"),
            };
        }
    }
}

impl Future for Ticket {
    type Output = Result<v1::Reply>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let span = self.span.clone();
        let answer = {
            let _inside = span.enter();
            ready!(self.step(cx))
        };
        trace::record(&self.span, &answer);
        Poll::Ready(answer)
    }
}

/// An operation on its way: what the builders of [`Client`](crate::Client) turn into when they are awaited.
///
/// Nothing is sent before it is first polled, and requests leave in the order in which they are first polled.
/// Dropping it after that does not undo the effect; each builder says what dropping means.
#[must_use = "nothing is sent before it is awaited"]
pub struct Call<'a, T> {
    kind: CallKind<'a, T>,
}

type Finish<T> = fn(Result<v1::Reply>, &Namespace) -> Result<T>;

enum CallKind<'a, T> {
    /// One request.
    Single { ticket: Ticket, ns: &'a Namespace, finish: Finish<T> },
    /// Several, one after the other.
    Composed(Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>),
    /// Nothing to send.
    Refused(Option<Error>),
}

impl<'a, T> Call<'a, T> {
    pub(crate) fn single(core: &Arc<Core>, ns: &'a Namespace, op: Result<Op>, finish: Finish<T>) -> Self {
        let kind = match op {
            Ok(op) => CallKind::Single { ticket: Ticket::new(core, op), ns, finish },
            Err(error) => CallKind::Refused(Some(error)),
        };
        Self { kind }
    }

    pub(crate) fn composed(future: impl Future<Output = Result<T>> + Send + 'a) -> Self {
        Self { kind: CallKind::Composed(Box::pin(future)) }
    }
}

impl<T> Future for Call<'_, T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        match &mut self.kind {
            CallKind::Single { ticket, ns, finish } => {
                let answer = ready!(Pin::new(ticket).poll(cx));
                let answer = finish(answer, ns);
                Poll::Ready(answer.map_err(|error| error.map_path(&|path| ns.strip(path).to_owned())))
            }
            CallKind::Composed(future) => future.as_mut().poll(cx),
            CallKind::Refused(error) => {
                Poll::Ready(Err(error.take().expect("a future is not polled after it is ready")))
            }
        }
    }
}

impl<T> std::fmt::Debug for Call<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call").finish_non_exhaustive()
    }
}

/// The error of a reply that does not fit its request.
pub(crate) fn mismatch<T>(reply: v1::Reply) -> Result<T> {
    Err(Error::Protocol(format!("{:?} is no answer to this request", reply.result)))
}
