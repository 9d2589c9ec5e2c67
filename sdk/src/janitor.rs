//! Deletes what must go in any case: what guards held when they were dropped, and what nobody came to fetch.
//!
//! One task a client. It tries again, with delays from 50 ms to 5 s, until the node is gone or the client is
//! closed. Whoever may need it reserves a slot beforehand, so that sending is possible in `Drop`: without
//! waiting, without a runtime, without failing.
//!
//! Bounds: [`SLOTS_MAX`] slots, reserved or sent but not taken up, by default; a further reservation waits.
//! At most [`RELEASES_UNDER_WAY_MAX`] deletions are under way; the rest wait in their slots.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use quorate_proto::v1::{self, reply, request::Op};
use tokio::sync::{mpsc, watch};

use crate::{
    core::Core,
    error::{Error, Result},
    path::{self, Namespace},
    retry::RetryPolicy,
};

/// Most slots a client has, unless told otherwise: most guards that may be alive.
pub(crate) const SLOTS_MAX: usize = 4096;
const RELEASES_UNDER_WAY_MAX: usize = 256;

/// What is to be deleted, in the words of the client that reserved the slot.
#[derive(Debug, Clone)]
#[must_use]
pub struct Release {
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Node { path: String, version: i32 },
    Protected { parent: String, prefix: String },
}

impl Release {
    /// This node. Its name must not be used again, or a successor may be deleted.
    pub fn node(path: impl Into<String>) -> Self {
        Self { what: What::Node { path: path.into(), version: -1 } }
    }

    /// Only if the node has this version. Has no meaning for [`Release::protected`].
    pub fn version(mut self, at: i32) -> Self {
        if let What::Node { version, .. } = &mut self.what {
            *version = at;
        }
        self
    }

    /// Every child of `parent` whose name starts with `prefix`: what an unfinished protected create may have
    /// left.
    pub fn protected(parent: impl Into<String>, prefix: impl Into<String>) -> Self {
        Self { what: What::Protected { parent: parent.into(), prefix: prefix.into() } }
    }
}

/// The client's janitor; from [`Client::janitor`](crate::Client::janitor).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
/// # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
/// use quorate::Release;
///
/// let slot = client.janitor().reserve().await?;
/// let created = client.create("/held-by-").ephemeral().sequential().await?;
/// let guard = slot.on_drop(Release::node(&created.path));
/// drop(guard); // anywhere, also without a runtime
/// client.janitor().idle().await;
/// assert_eq!(client.exists(&created.path).await?, None);
/// # ensemble.shutdown().await;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Janitor {
    releases: mpsc::Sender<Job>,
    pending: watch::Sender<usize>,
    ns: Namespace,
}

/// A place in the janitor's queue that is kept for one release.
#[derive(Debug)]
#[must_use = "a slot that is dropped is given back"]
pub struct ReleaseSlot {
    place: mpsc::OwnedPermit<Job>,
    pending: watch::Sender<usize>,
    ns: Namespace,
}

#[derive(Debug)]
pub(crate) struct Job {
    release: Release,
    ns: Namespace,
}

impl Janitor {
    /// Keeps a place for one release. Waits while all places are taken.
    ///
    /// # Cancel safety
    /// Nothing is kept when the future is dropped.
    pub async fn reserve(&self) -> Result<ReleaseSlot> {
        match self.releases.clone().reserve_owned().await {
            Ok(place) => Ok(ReleaseSlot { place, pending: self.pending.clone(), ns: self.ns.clone() }),
            Err(_) => Err(Error::Closed),
        }
    }

    /// Releases that were sent and are not done.
    pub fn pending(&self) -> usize {
        *self.pending.borrow()
    }

    /// Waits until nothing is pending.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn idle(&self) {
        let mut pending = self.pending.subscribe();
        pending.wait_for(|pending| *pending == 0).await.expect("`self` keeps the sender");
    }

    pub(crate) fn in_namespace(&self, ns: Namespace) -> Self {
        Self { ns, ..self.clone() }
    }
}

impl ReleaseSlot {
    /// Has it deleted, at once and until it is gone. Neither waits nor needs a runtime. If the runtime has
    /// ended nothing is sent any more, and an ephemeral node goes with its session.
    pub fn send(self, release: Release) {
        self.pending.send_modify(|pending| *pending += 1);
        self.place.send(Job { release, ns: self.ns });
    }

    /// Sends it when the result is dropped, unless it was disarmed.
    pub fn on_drop(self, release: Release) -> ReleaseOnDrop {
        ReleaseOnDrop { armed: Some((self, release)) }
    }
}

/// Sends a release when it is dropped; from [`ReleaseSlot::on_drop`].
#[derive(Debug)]
#[must_use = "dropping it sends the release"]
pub struct ReleaseOnDrop {
    armed: Option<(ReleaseSlot, Release)>,
}

impl ReleaseOnDrop {
    /// Sends this release in place of the one before.
    pub(crate) fn instead(mut self, release: Release) -> Self {
        if let Some((_, armed)) = &mut self.armed {
            *armed = release;
        }
        self
    }

    /// Nothing is sent, and the slot is given back.
    pub fn disarm(mut self) {
        self.armed = None;
    }
}

impl Drop for ReleaseOnDrop {
    fn drop(&mut self) {
        if let Some((slot, release)) = self.armed.take() {
            slot.send(release);
        }
    }
}

/// Starts the task.
pub(crate) fn start(core: &Arc<Core>, slots_max: usize) -> Janitor {
    // Full means that all slots are reserved or waiting: reservations wait.
    let (releases, jobs) = mpsc::channel(slots_max);
    let pending = watch::Sender::new(0);
    core.own_tasks.spawn_on(run(core.clone(), jobs, pending.clone()), &core.runtime);
    Janitor { releases, pending, ns: Namespace::default() }
}

async fn run(core: Arc<Core>, mut jobs: mpsc::Receiver<Job>, pending: watch::Sender<usize>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = core.stop.cancelled() => return,
            Some(()) = under_way.next() => pending.send_modify(|pending| *pending -= 1),
            // The client is alive as long as it can be stopped, and holds a sender.
            Some(job) = jobs.recv(), if under_way.len() < RELEASES_UNDER_WAY_MAX => {
                under_way.push(release(&core, job));
            }
        }
    }
}

/// Goes on until it is done. When the client is closed, the task ends and this with it.
async fn release(core: &Arc<Core>, job: Job) {
    let policy = RetryPolicy::builder().max_elapsed(None).build().expect("the defaults without an end are legal");
    let mut delays = policy.delays();
    loop {
        let error = match try_release(core, &job).await {
            Ok(()) => return,
            Err(error) => error,
        };
        match error {
            // Not there under this name, or not deletable by this client: trying again changes nothing.
            Error::InvalidPath { .. } | Error::BadVersion { .. } | Error::NotEmpty { .. } | Error::NoAuth { .. } => {
                tracing::warn!(release = ?job.release, %error, "the janitor leaves a node");
                return;
            }
            _ => {}
        }
        let delay = delays.next_delay().unwrap_or(Duration::from_secs(5));
        tracing::debug!(release = ?job.release, %error, ?delay, "the janitor tries again");
        tokio::time::sleep(delay).await;
    }
}

async fn try_release(core: &Arc<Core>, job: &Job) -> Result<()> {
    match &job.release.what {
        What::Node { path, version } => delete(core, job.ns.full(path)?, *version).await,
        What::Protected { parent, prefix } => {
            let parent = job.ns.full(parent)?;
            let list = Op::Children(v1::ChildrenRequest { path: parent.clone(), watch: false, linearizable: true });
            let names = match core.ticket(list).await {
                Ok(v1::Reply { result: Some(reply::Result::Children(children)), .. }) => children.names,
                Ok(other) => return crate::call::mismatch(other),
                Err(Error::NoNode { .. }) => return Ok(()),
                Err(error) => return Err(error),
            };
            for name in names.iter().filter(|name| name.starts_with(prefix.as_str())) {
                delete(core, path::join(&parent, name), -1).await?;
            }
            Ok(())
        }
    }
}

async fn delete(core: &Arc<Core>, path: String, version: i32) -> Result<()> {
    match core.ticket(Op::Delete(v1::DeleteRequest { path, version })).await {
        Ok(_) | Err(Error::NoNode { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}
