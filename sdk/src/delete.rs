//! Deleting nodes: one, a whole subtree, or in any case.

use std::future::IntoFuture;

use futures_util::{StreamExt, stream};
use quorate_proto::v1::{self, request::Op};

use crate::{
    call::Call,
    client::Client,
    error::{Error, Result},
    janitor::Release,
    nodes::{ROUNDS_MAX, finish_done},
    path,
};

/// Requests of one recursive delete that are under way at a time.
const CONCURRENCY_MAX: usize = 64;

/// Deletes a node; from [`Client::delete`].
///
/// # Cancel safety
/// A plain delete is not cancel-safe: dropped after it was first polled, it may or may not take effect. With
/// [`Delete::guaranteed`] it goes on in the background.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent before it is awaited"]
pub struct Delete<'a> {
    client: &'a Client,
    path: &'a str,
    version: i32,
    recursive: bool,
    guaranteed: bool,
}

impl<'a> Delete<'a> {
    pub(crate) fn new(client: &'a Client, path: &'a str) -> Self {
        Self { client, path, version: -1, recursive: false, guaranteed: false }
    }

    /// Only if the node has this version.
    pub fn version(mut self, version: i32) -> Self {
        self.version = version;
        self
    }

    /// Deletes what is below it first. It is not one step: others may see a part of it gone.
    pub fn recursive(mut self) -> Self {
        self.recursive = true;
        self
    }

    /// If it cannot be done now, the janitor goes on until it is done. Only for names that are not used again,
    /// or it may delete a successor. Does not go together with [`Delete::recursive`].
    pub fn guaranteed(mut self) -> Self {
        self.guaranteed = true;
        self
    }

    fn call(&self, path: &str, version: i32) -> Call<'a, ()> {
        let op = self.client.ns.full(path).map(|path| Op::Delete(v1::DeleteRequest { path, version }));
        Call::single(&self.client.core, &self.client.ns, op, finish_done)
    }

    async fn delete_guaranteed(self) -> Result<()> {
        if self.recursive {
            let message = "a recursive delete cannot be guaranteed".into();
            return Err(Error::BadArguments { message });
        }
        // Checked before, so that no useless release is sent.
        self.client.ns.full(self.path)?;
        let slot = self.client.janitor().reserve().await?;
        let release = Release::node(self.path).version(self.version);
        let guard = slot.on_drop(release);
        let answer = self.call(self.path, self.version).await;
        let settled = match &answer {
            Ok(()) => true,
            Err(error) => error.definitely_not_applied() && !error.is_retryable(),
        };
        if settled {
            guard.disarm();
        }
        answer
    }

    async fn delete_recursive(self) -> Result<()> {
        for _ in 0..ROUNDS_MAX {
            // From the top, so that it ends with the deepest.
            let mut below: Vec<String> = Vec::new();
            let mut level = vec![self.path.to_owned()];
            while !level.is_empty() {
                let lists: Vec<_> = stream::iter(level)
                    .map(|path| async move {
                        let list = self.client.children(&path).opt().await;
                        (path, list)
                    })
                    .buffered(CONCURRENCY_MAX)
                    .collect()
                    .await;
                let mut next = Vec::new();
                for (path, list) in lists {
                    next.extend(list?.into_iter().flat_map(|list| list.names).map(|name| path::join(&path, &name)));
                }
                below.extend(next.iter().cloned());
                level = next;
            }
            let mut answers =
                stream::iter(below.into_iter().rev()).map(|path| self.call(&path, -1)).buffered(CONCURRENCY_MAX);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok(()) | Err(Error::NoNode { .. } | Error::NotEmpty { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            match self.call(self.path, self.version).await {
                // Somebody created a child meanwhile.
                Err(Error::NotEmpty { .. }) => {}
                other => return other,
            }
        }
        Err(Error::NotEmpty { path: self.path.to_owned() })
    }
}

impl<'a> IntoFuture for Delete<'a> {
    type Output = Result<()>;
    type IntoFuture = Call<'a, ()>;

    fn into_future(self) -> Call<'a, ()> {
        if self.guaranteed {
            return Call::composed(self.delete_guaranteed());
        }
        if self.recursive {
            return Call::composed(self.delete_recursive());
        }
        self.call(self.path, self.version)
    }
}
