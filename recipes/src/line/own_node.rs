//! The watch on our own node, while we wait and while we hold.

use futures_util::StreamExt;
use quorate::{Client, DataEvent, Error, WatchStream};

use crate::{FencingToken, line::REVOKE};

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is there, and nothing is asked of us.
    Stands,
    /// It is gone, and another of this name would not be ours.
    Deleted,
    /// Somebody asks us to let go.
    Revoked,
}

pub(super) struct OwnNode {
    /// None once nothing more is to be learned from it.
    watch: Option<WatchStream<DataEvent>>,
    token: FencingToken,
    revoked: bool,
}

impl OwnNode {
    pub(super) fn new(client: &Client, path: &str, token: FencingToken) -> Self {
        Self { watch: Some(client.watch(path).data()), token, revoked: false }
    }

    /// Whether [`Fate::Revoked`] has been told.
    pub(super) fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// What has happened to it: first how it is, then each time it changes. Waits for ever when that cannot be
    /// learned any more: the session's end is told elsewhere.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub(super) async fn next(&mut self) -> Fate {
        while let Some(watch) = &mut self.watch {
            match watch.next().await {
                Some(Ok(DataEvent::Value(node))) => {
                    return match &*node.data {
                        _ if node.stat.czxid != self.token.0 => Fate::Deleted,
                        REVOKE => {
                            self.revoked = true;
                            Fate::Revoked
                        }
                        _ => Fate::Stands,
                    };
                }
                Some(Ok(DataEvent::Absent)) => return Fate::Deleted,
                // We may not read what we created. That it is there is seen from the list.
                Some(Err(Error::NoAuth { .. })) | None => self.watch = None,
                // It goes on after a while.
                Some(Ok(_) | Err(_)) => {}
            }
        }
        std::future::pending().await
    }
}
