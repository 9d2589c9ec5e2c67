//! The door for peers: calls come over HTTP/2 and streams do not; the first byte tells them apart.

use std::sync::Arc;

use futures_util::StreamExt;
use quorate_proto::peer::peer_server::PeerServer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tracing::{debug, warn};

use super::{
    exchange::MAGIC,
    link::{CONNECTION_WINDOW_BYTES, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES},
    peer_io::PeerSockets,
    server::PeerService,
};
use crate::{
    config::limits,
    net::{Connection, Door},
};

/// Connections for calls that wait to be taken. When it is full, they wait in their own tasks, as many as the door has
/// places.
const CALLERS_MAX: usize = 16;

/// Calls that a peer gave up before this member saw them; more, and the connection is closed and made anew.
const RESETS_PENDING_MAX: usize = 1024;

/// Serves peers until the service stops.
pub(crate) async fn serve(door: Door, sockets: PeerSockets, service: PeerService) {
    let service = Arc::new(service);
    let (callers, incoming) = mpsc::channel(CALLERS_MAX);
    let taking_in = take_all_in(door, sockets.clone(), service.clone(), callers);
    let calls = ReceiverStream::new(incoming).map(|connection| Ok::<_, std::io::Error>(sockets.accepted(connection)));
    let peer_server = PeerServer::from_arc(service.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let serving = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(service.timing.ping()))
        .http2_keepalive_timeout(Some(service.timing.ping_timeout()))
        // A member that stood still finds all the calls that were given up meanwhile; that is no attack.
        .http2_max_pending_accept_reset_streams(Some(RESETS_PENDING_MAX))
        .add_service(peer_server)
        .serve_with_incoming_shutdown(calls, service.stop.clone().cancelled_owned());
    let (served, ()) = tokio::join!(serving, taking_in);
    if let Err(error) = served {
        warn!(%error, "the peer door ended");
    }
}

/// Takes in what comes until the service stops. Nobody listens from then on, which tells the others that this member
/// is gone.
async fn take_all_in(
    mut door: Door,
    sockets: PeerSockets,
    service: Arc<PeerService>,
    callers: mpsc::Sender<Connection>,
) {
    loop {
        tokio::select! {
            biased;
            () = service.stop.cancelled() => return,
            connection = door.accept() => {
                service.tasks.spawn(take_in(connection, sockets.clone(), service.clone(), callers.clone()));
            }
        }
    }
}

/// Serves a connection that carries a stream, and gives away one for calls.
async fn take_in(
    connection: Connection,
    sockets: PeerSockets,
    service: Arc<PeerService>,
    callers: mpsc::Sender<Connection>,
) {
    let first_byte = tokio::select! {
        biased;
        () = service.stop.cancelled() => return,
        first_byte = tokio::time::timeout(limits::CONNECTION_OPENING_MAX, connection.first_byte()) => first_byte,
    };
    match first_byte {
        Ok(Ok(Some(byte))) if byte == MAGIC[0] => {
            if let Err(error) = service.serve_stream(sockets.accepted(connection)).await {
                // It is the peer's to notice and to repair.
                debug!(%error, "a stream of a member broke");
            }
        }
        Ok(Ok(Some(_))) => {
            // It is closed if nothing is served any more.
            let _ = callers.send(connection.opening_http2()).await;
        }
        // Closed, broken, or silent for too long.
        Ok(Ok(None) | Err(_)) | Err(_) => {}
    }
}
