//! The trace a request belongs to, and the span it leaves.
//!
//! The client knows nothing of a tracing backend. Whoever has a sampled trace puts its W3C `traceparent`
//! around the calls, and the members go on with it.

use std::future::Future;

use quorate_proto::v1::{self, request::Op};
use tracing::{Span, field::Empty};

use crate::{
    error::{Error, Result},
    op,
};

tokio::task_local! {
    static TRACEPARENT: String;
}

/// Runs `calls` as part of the trace that this W3C `traceparent` header names: every request they send
/// carries it to the members.
///
/// Send it only when the trace is sampled. A malformed header is refused here, where it can be seen.
///
/// # Cancel safety
/// That of `calls`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
/// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
/// let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
/// quorate::with_traceparent(header, async { client.create("/a").await }).await??;
/// # ensemble.shutdown().await;
/// # Ok(()) }
/// ```
pub async fn with_traceparent<F: Future>(traceparent: impl Into<String>, calls: F) -> Result<F::Output> {
    let traceparent = traceparent.into();
    if !is_traceparent(&traceparent) {
        return Err(Error::BadArguments { message: format!("{traceparent:?} is no W3C traceparent") });
    }
    Ok(TRACEPARENT.scope(traceparent, calls).await)
}

fn is_traceparent(header: &str) -> bool {
    let parts: Vec<&str> = header.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return false };
    let hex = |part: &str, len| {
        part.len() == len && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2)
}

pub(crate) fn current() -> Option<String> {
    TRACEPARENT.try_with(Clone::clone).ok()
}

pub(crate) fn request_span(op: &Op) -> Span {
    tracing::debug_span!("quorate.request", op = op::name(op), path = op::path(op), code = Empty, zxid = Empty)
}

pub(crate) fn record(span: &Span, answer: &Result<v1::Reply>) {
    if span.is_none() {
        return;
    }
    match answer {
        Ok(reply) => span.record("code", 0).record("zxid", reply.zxid),
        Err(error) => span.record("code", error.code()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_traceparent_holds_for_what_runs_inside() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

        let inside = with_traceparent(header, async { current() }).await.unwrap();

        assert_eq!(inside.as_deref(), Some(header));
        assert_eq!(current(), None);
    }

    #[tokio::test]
    async fn a_malformed_traceparent_is_refused() {
        for header in ["", "00-abc-def-01", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"] {
            assert!(with_traceparent(header, async {}).await.is_err(), "{header:?}");
        }
    }
}
