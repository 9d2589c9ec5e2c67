//! A registered instance, held by its owner.

use std::{sync::Arc, time::Duration};

use futures_core::Stream;
use quorate::{Client, SessionId};
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    DiscoveryError, Instance, InstanceBuilder, InstanceError, PayloadProfile, Status,
    actor::{Actor, Desired, Options, Report},
};

/// Where a registration stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationState {
    /// The instance is not there yet, or not any more, and about to be.
    Pending,
    /// The instance is there, as far as the client has heard.
    Registered,
    /// Its path is held by somebody else, and the registration waits until it is free.
    Waiting {
        /// Their session; none if the node belongs to no session.
        owner: Option<SessionId>,
    },
    /// An operator has switched the instance off and then deleted it. It stays away until
    /// [`Registration::update`] switches it on.
    Evicted,
    /// It cannot be there: [`Registration::error`] says why. The next update tries again.
    Failed,
    /// It was taken away.
    Deregistered,
}

/// A registered instance. Dropping it takes the instance away in the background;
/// [`Registration::deregister`] does so where it can be waited for.
///
/// One task keeps the node, and it alone writes it. It keeps the client open for as long as it lives.
///
/// What operators may change in the node, in Spring's tools or by hand, is taken over and kept: `enabled`, and in
/// the metadata `instance_status` and `weight`. Other changes are left until the next update overwrites them.
#[derive(Debug)]
#[must_use = "dropping it takes the instance away"]
pub struct Registration {
    path: Arc<str>,
    profile: Arc<PayloadProfile>,
    desired: Arc<watch::Sender<Desired>>,
    report: watch::Receiver<Report>,
    _released: DropGuard,
}

impl Registration {
    pub(super) fn start(
        client: &Client,
        path: String,
        profile: Arc<PayloadProfile>,
        options: Options,
        desired: Desired,
    ) -> Self {
        let path: Arc<str> = path.into();
        // A watch holds the newest value and is never full.
        let desired = Arc::new(watch::Sender::new(desired));
        let (reporter, report) = watch::channel(Report::default());
        let released = CancellationToken::new();
        let actor = Actor::new(client, path.clone(), options, desired.clone(), reporter, released.clone());
        client.spawn(actor.run());
        Self { path, profile, desired, report, _released: released.drop_guard() }
    }

    /// The path of its node.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The instance as it is to be, with what operators have changed.
    pub fn instance(&self) -> Instance {
        self.desired.borrow().instance.clone()
    }

    /// Where it stands.
    pub fn state(&self) -> RegistrationState {
        self.report.borrow().state
    }

    /// Where it stands, now and after each change; states in between may be left out. Ends with the
    /// registration.
    pub fn states(&self) -> impl Stream<Item = RegistrationState> + Send + Unpin + use<> {
        let mut last = None;
        let reports = WatchStream::new(self.report.clone());
        futures_util::StreamExt::filter_map(reports, move |report| {
            let news = (last.replace(report.state) != Some(report.state)).then_some(report.state);
            std::future::ready(news)
        })
    }

    /// Why it failed, if it did.
    pub fn error(&self) -> Option<DiscoveryError> {
        self.report.borrow().error.clone()
    }

    /// Waits until it is registered.
    ///
    /// # Errors
    /// It failed, or has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn registered(&self) -> Result<(), DiscoveryError> {
        self.reported(|report| report.state == RegistrationState::Registered).await
    }

    /// Sets the status. Balancers stop to use an instance that is not up as soon as they hear of it.
    ///
    /// # Errors
    /// As [`Registration::update`].
    ///
    /// # Cancel safety
    /// As [`Registration::update`].
    pub async fn set_status(&self, status: Status) -> Result<(), DiscoveryError> {
        let revision = self.desire(|desired| desired.instance.set_status(status));
        self.written(revision).await
    }

    /// Changes what is said of the instance, and waits until it can be read. Updates are gathered and written at
    /// most once a second, for each makes every consumer read again: loads and the like do not belong here.
    ///
    /// ```no_run
    /// # async fn example(registration: quorate_recipes::discovery::Registration)
    /// # -> Result<(), quorate_recipes::discovery::DiscoveryError> {
    /// registration.update(|instance| instance.weight(5).tag("canary")).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// The instance would not be complete any more, or would have another name or id; the registration failed or
    /// has ended.
    ///
    /// # Cancel safety
    /// Dropped after it was first polled, the change is made nevertheless.
    pub async fn update(&self, change: impl FnOnce(InstanceBuilder) -> InstanceBuilder) -> Result<(), DiscoveryError> {
        let mut outcome = Ok(());
        let revision = self.desire(|desired| {
            let before = &desired.instance;
            match change(before.clone().into()).build_for(&self.profile) {
                Ok(after) if (after.name(), after.id()) == (before.name(), before.id()) => desired.instance = after,
                Ok(_) => outcome = Err(InstanceError::Renamed),
                Err(error) => outcome = Err(error),
            }
        });
        outcome?;
        self.written(revision).await
    }

    /// Tells consumers to look elsewhere, and gives them `delay` to do so: the status becomes
    /// [`Status::OutOfService`], and the instance stays. After that stop accepting, finish what is under way,
    /// and [deregister](Registration::deregister).
    ///
    /// Consumers of this crate need a moment. Spring's balancers keep what they know for 35 s.
    ///
    /// # Errors
    /// As [`Registration::update`].
    ///
    /// # Cancel safety
    /// Dropped, the instance remains out of service.
    pub async fn drain(&self, delay: Duration) -> Result<(), DiscoveryError> {
        let revision = self.desire(|desired| {
            desired.instance.set_status(Status::OutOfService);
            desired.urgent = true;
        });
        self.written(revision).await?;
        tokio::time::sleep(delay).await;
        Ok(())
    }

    /// Takes the instance away and waits until it is gone.
    ///
    /// # Errors
    /// The client was closed before it could be done. The node goes with the session then.
    ///
    /// # Cancel safety
    /// Dropped, it is done in the background.
    pub async fn deregister(self) -> Result<(), DiscoveryError> {
        self.desire(|desired| desired.absent = true);
        let mut report = self.report.clone();
        let gone = report.wait_for(|report| report.state == RegistrationState::Deregistered).await;
        gone.map(|_| ()).map_err(|_| DiscoveryError::Ended)
    }

    /// Changes what is desired; its revision from then on.
    fn desire(&self, change: impl FnOnce(&mut Desired)) -> u64 {
        let mut revision = 0;
        self.desired.send_modify(|desired| {
            change(desired);
            desired.revision += 1;
            revision = desired.revision;
        });
        revision
    }

    async fn written(&self, revision: u64) -> Result<(), DiscoveryError> {
        self.reported(|report| report.written >= revision).await
    }

    /// Waits for a report, or for one that nothing more will follow.
    async fn reported(&self, what: impl Fn(&Report) -> bool) -> Result<(), DiscoveryError> {
        let revision = self.desired.borrow().revision;
        let mut report = self.report.clone();
        match report.wait_for(|report| what(report) || report.is_final(revision)).await {
            Ok(report) if what(&report) => Ok(()),
            Ok(report) => Err(report.error.clone().unwrap_or(DiscoveryError::Ended)),
            Err(_) => Err(DiscoveryError::Ended),
        }
    }
}
