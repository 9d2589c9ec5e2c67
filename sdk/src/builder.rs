//! How a client is set up.

use std::{future::IntoFuture, pin::Pin, sync::Arc, time::Duration};

use tokio::runtime::Handle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    acl::Acl,
    client::Client,
    clock::Clock,
    core::Core,
    create,
    endpoints::{Endpoints, IntoSeeds},
    error::{Error, Result},
    janitor, link,
    outbox::Outbox,
    path::Namespace,
    retry::{RetryBudget, RetryPolicy},
    state::StateLog,
    watches::WatchTable,
};

/// Sets up a [`Client`]; from [`Client::builder`]. Awaiting it is [`ClientBuilder::connect`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens before it is connected or built"]
pub struct ClientBuilder {
    seeds: Vec<String>,
    session_timeout: Duration,
    connect_timeout: Duration,
    request_timeout: Duration,
    close_timeout: Duration,
    namespaces: Vec<String>,
    create_chroot: bool,
    credentials: Vec<Credential>,
    acl: Option<Arc<[Acl]>>,
    retry: RetryPolicy,
    client_name: Option<String>,
    single_session: bool,
    in_flight_max: u32,
    janitor_slots: usize,
    clock: Clock,
    runtime: Option<Handle>,
}

/// Who the client says it is, again on every stream.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) scheme: String,
    pub(crate) secret: Vec<u8>,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// What the link needs to know, apart from what it shares.
#[derive(Debug, Clone)]
pub(crate) struct LinkOptions {
    pub(crate) session_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) client_name: String,
    pub(crate) single_session: bool,
}

impl ClientBuilder {
    pub(crate) fn new(seeds: impl IntoSeeds) -> Self {
        Self {
            seeds: seeds.into_seeds(),
            session_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            namespaces: Vec::new(),
            create_chroot: false,
            credentials: Vec::new(),
            acl: None,
            retry: RetryPolicy::default(),
            client_name: None,
            single_session: false,
            in_flight_max: 1024,
            janitor_slots: janitor::SLOTS_MAX,
            clock: Clock::system(),
            runtime: None,
        }
    }

    /// After this long without a sign of life the ensemble ends the session. Default 10 s; the ensemble keeps
    /// it between 2 and 20 of its ticks.
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self
    }

    /// How long one attempt to reach one address may take. Default 3 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a request may wait for its answer, connections lost and found included. Default 30 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// How long a client that is dropped, not closed, tries to close its session. Default 5 s.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.close_timeout = timeout;
        self
    }

    /// Puts this before every path. Can be called again, for one below.
    pub fn namespace(mut self, name: impl Into<String>) -> Self {
        self.namespaces.push(name.into());
        self
    }

    /// [`ClientBuilder::connect`] creates the namespace if it does not exist.
    pub fn create_chroot(mut self, create: bool) -> Self {
        self.create_chroot = create;
        self
    }

    /// Who this client is: for `digest`, `user:password`. Can be called for several identities.
    pub fn auth(mut self, scheme: impl Into<String>, credential: impl Into<Vec<u8>>) -> Self {
        self.credentials.push(Credential { scheme: scheme.into(), secret: credential.into() });
        self
    }

    /// Who may do what to the nodes this client creates, unless it says otherwise for one. Default: everybody
    /// everything.
    pub fn acl(mut self, acl: impl Into<Vec<Acl>>) -> Self {
        self.acl = Some(acl.into().into());
        self
    }

    /// The delays between attempts to find a member, and between those of [`Client::retry`] and of protected
    /// creates; the latter also end when it says so. The search for a member does not end.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Who this is, for people who look at the list of sessions. Default: program and process id.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = Some(name.into());
        self
    }

    /// Whether every call fails once the session is lost, in place of going on with a new one.
    pub fn single_session(mut self, strict: bool) -> Self {
        self.single_session = strict;
        self
    }

    /// Requests that may be under way at a time; further ones wait for their turn, in the order in which they were first
    /// polled. One with much data counts as one more for every 16 KiB. Default 1024.
    pub fn in_flight_max(mut self, requests: u32) -> Self {
        self.in_flight_max = requests;
        self
    }

    /// Places in the janitor's queue: how many guards may be alive at a time. Default 4096.
    pub fn janitor_slots(mut self, slots: usize) -> Self {
        self.janitor_slots = slots;
        self
    }

    /// The clock by which leases are judged; for tests.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The runtime that runs the background tasks. Default: the one in which this is built.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Starts the client without waiting for a member. Needs a runtime, around it or from
    /// [`ClientBuilder::runtime`].
    pub fn build(self) -> Result<Client> {
        let config = |message: &str| Error::Config { message: message.into() };
        let endpoints = Endpoints::parse(&self.seeds)?;
        if self.session_timeout < Duration::from_millis(10) || self.session_timeout.as_millis() > u32::MAX.into() {
            return Err(config("the session timeout must lie between 10 ms and 49 days"));
        }
        if self.in_flight_max == 0 || self.janitor_slots == 0 {
            return Err(config("at least one request in flight and one janitor slot are needed"));
        }
        let runtime = match self.runtime {
            Some(runtime) => runtime,
            None => Handle::try_current().map_err(|_| config("there is no tokio runtime here, and none was given"))?,
        };
        let mut ns = Namespace::default();
        for name in &self.namespaces {
            ns = ns.below(name)?;
        }
        let outbox = Arc::new(Outbox::new(self.in_flight_max, self.clock.clone()));
        let core = Arc::new(Core {
            clock: self.clock,
            endpoints,
            watches: Arc::new(WatchTable::new(outbox.clone())),
            outbox,
            states: StateLog::new(),
            session: Default::default(),
            retry: self.retry,
            budget: RetryBudget::default(),
            request_timeout: self.request_timeout,
            trouble: Default::default(),
            shutdown: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            own_tasks: TaskTracker::new(),
            runtime,
        });
        let options = LinkOptions {
            session_timeout: self.session_timeout,
            connect_timeout: self.connect_timeout,
            credentials: self.credentials,
            client_name: self.client_name.unwrap_or_else(default_name),
            single_session: self.single_session,
        };
        link::start(&core, options);
        let janitor = janitor::start(&core, self.janitor_slots);
        Ok(Client::new(core, janitor, ns, self.acl, self.close_timeout))
    }

    /// Starts the client and waits for a member to serve it, at most for the retry policy's time (60 s unless
    /// set). The error says what the last attempt met.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn connect(self) -> Result<Client> {
        let (create_chroot, within) = (self.create_chroot, self.retry.max_elapsed());
        let client = self.build()?;
        client.ready(within.unwrap_or(Duration::MAX)).await?;
        if create_chroot {
            create::create_chroot(&client).await?;
        }
        Ok(client)
    }
}

impl IntoFuture for ClientBuilder {
    type Output = Result<Client>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Client>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.connect())
    }
}

fn default_name() -> String {
    let program = std::env::args().next().unwrap_or_default();
    let program = program.rsplit(['/', '\\']).next().unwrap_or_default();
    format!("{program}[{}]", std::process::id())
}
