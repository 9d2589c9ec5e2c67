//! The operators' door: health, metrics and status over HTTP. It only reads; whoever may connect may ask.
//!
//! Bounds: the door's connections; a head of [`limits::ADMIN_HEAD_BYTES_MAX`] that arrives within
//! [`limits::ADMIN_HEAD_READ_MAX`]; no bodies; a connection of at most [`limits::ADMIN_CONNECTION_AGE_MAX`], so that a
//! client that never reads its answer cannot keep its place. Tasks: [`serve`] and one for each connection, which it
//! owns.

use std::sync::Arc;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{pin, select, task::JoinSet, time};
use tokio_util::sync::CancellationToken;

use crate::{
    config::limits,
    net::{Connection, Door},
    telemetry::metrics::Metrics,
};

mod routes;
mod status;

pub(crate) use status::{Check, MemberStatus, Role, SessionStatus, Status, StatusReport, StatusSource};

/// Serves the door until `stop`, then ends its connections and returns when the last one has gone.
pub(crate) async fn serve(mut door: Door, source: Arc<dyn StatusSource>, metrics: Metrics, stop: CancellationToken) {
    let router = routes::router(source, metrics);
    // One task a connection; as many as the door has places.
    let mut connections = JoinSet::new();
    loop {
        select! {
            biased;
            () = stop.cancelled() => break,
            Some(ended) = connections.join_next() => log_panic(ended),
            connection = door.accept() => {
                connections.spawn(serve_connection(connection, router.clone(), stop.clone()));
            }
        }
    }
    drop(door);
    while let Some(ended) = connections.join_next().await {
        log_panic(ended);
    }
}

async fn serve_connection(connection: Connection, router: Router, stop: CancellationToken) {
    let peer = connection.peer();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(limits::ADMIN_HEAD_READ_MAX)
        .max_buf_size(limits::ADMIN_HEAD_BYTES_MAX)
        .max_headers(limits::ADMIN_HEADERS_MAX);
    let serving = http.serve_connection(TokioIo::new(connection), TowerToHyperService::new(router));
    pin!(serving);

    let ended = select! {
        biased;
        () = stop.cancelled() => None,
        ended = serving.as_mut() => Some(ended),
        () = time::sleep(limits::ADMIN_CONNECTION_AGE_MAX) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            serving.as_mut().graceful_shutdown();
            time::timeout(limits::ADMIN_CLOSE_GRACE, serving).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection of the admin door ended");
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection of the admin door failed");
    }
}

#[cfg(test)]
mod tests;
