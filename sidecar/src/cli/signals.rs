//! Being told to stop: SIGTERM and SIGINT, the first in order, the second at once.

use std::process;

use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
};

use super::exit::{Exit, Failure};

/// The signals that end a command.
#[derive(Debug)]
pub(super) struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    /// From now on the signals do not end the process by themselves.
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| Failure::new(Exit::Refused, format_args!("no signals can be had: {error}")))
        };
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The next signal, as its number.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn told(&mut self) -> i32 {
        select! {
            biased;
            _ = self.terminate.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        }
    }

    /// Ends in order, or at once if told again.
    pub(super) async fn end(mut self, in_order: impl Future<Output = ()>) {
        select! {
            biased;
            () = in_order => {}
            signal = self.told() => {
                eprintln!("stopped at once");
                process::exit(128 + signal);
            }
        }
    }
}
