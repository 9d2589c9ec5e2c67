//! The signals a command takes in place of being ended by them.

use std::{future::poll_fn, process, task::Poll};

use rustix::process::Signal;
use tokio::{
    select,
    signal::unix::{self, SignalKind},
};

use super::exit::{Exit, Failure};

/// Signals that come to this process.
#[derive(Debug)]
pub(super) struct Signals {
    coming: Vec<(Signal, unix::Signal)>,
}

/// Being told to stop: the first time in order, the second time at once.
#[derive(Debug)]
pub(super) struct Stop {
    signals: Signals,
}

impl Signals {
    /// From now on these do nothing by themselves.
    pub(super) fn listen(kinds: impl IntoIterator<Item = Signal>) -> Result<Self, Failure> {
        let listen = |signal: Signal| Ok((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
        let coming: std::io::Result<_> = kinds.into_iter().map(listen).collect();
        let coming =
            coming.map_err(|error| Failure::new(Exit::Refused, format_args!("no signals can be had: {error}")));
        Ok(Self { coming: coming? })
    }

    /// The next one.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        poll_fn(|cx| {
            for (signal, coming) in &mut self.coming {
                if coming.poll_recv(cx).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}

impl Stop {
    /// From now on SIGTERM and SIGINT do not end the process by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        Ok(Self { signals: Signals::listen([Signal::TERM, Signal::INT])? })
    }

    /// Waits for one of them.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn told(&mut self) {
        self.signals.next().await;
    }

    /// Ends in order, or at once if told again.
    pub(super) async fn end(mut self, in_order: impl Future<Output = ()>) {
        select! {
            biased;
            () = in_order => {}
            signal = self.signals.next() => {
                eprintln!("stopped at once");
                process::exit(128 + signal.as_raw());
            }
        }
    }
}
