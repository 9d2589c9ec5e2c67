//! Settings that change while a program runs, in the layout of Spring Cloud Zookeeper Config.
//!
//! A setting is a node: its key is the path below a context such as `/config/orders`, with dots for slashes, its
//! value is the data. An application reads several contexts, of which the stronger win.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> anyhow::Result<()> {
//! # let ensemble = quorate_sidecar::testing::TestEnsemble::start(1).await?;
//! # let client = quorate::Client::builder(ensemble.endpoints()).connect().await?;
//! # client.set("/config/orders/db/pool/max-size", "10").or_create().await?;
//! use futures_util::StreamExt;
//! use quorate_recipes::config::{Config, Env};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize)]
//! struct Pool {
//!     max_size: u32,
//!     idle: Option<u32>,
//! }
//!
//! let config = Config::spring(&client)
//!     .application("orders")
//!     .profiles(["prod"])
//!     .override_with(Env::prefixed("ORDERS_"))
//!     .build()
//!     .await?;
//! let max: u32 = config.get("db.pool.maxSize")?;
//! assert_eq!(max, 10);
//!
//! let pool = config.live::<Pool>("db.pool").validate(|pool| pool.max_size > 0).await?;
//! let mut changes = pool.changes();
//! config.edit().set("db.pool.max-size", 20).set("db.pool.idle", 5).commit().await?;
//! let changed = changes.next().await.expect("the client is open");
//! assert_eq!((changed.max_size, changed.idle), (20, Some(5)));
//!
//! // What is no valid value changes nothing.
//! config.edit().set("db.pool.max-size", 0).commit().await?;
//! assert_eq!(pool.load().max_size, 20);
//! # drop((changes, pool, config));
//! # ensemble.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! **What is promised.** A change shows once, and a step that changes several keys shows as one, unless settings
//! change faster than they can be read for long. What is the same after a reconnect is no change. The newest state is never missed. Settings that make no valid value are
//! reported, and the last good value stays.
//!
//! What this is not: a place for secrets (values are not encrypted), for history, or for flags.

mod bind;
mod contexts;
mod edit;
mod env;
mod error;
mod key;
mod live;
mod snapshot;

use std::{
    collections::BTreeMap,
    fmt,
    future::IntoFuture,
    pin::Pin,
    sync::{Arc, Weak},
    time::Duration,
};

pub use edit::Edit;
pub use env::Env;
pub use error::{BindError, ConfigError};
use futures_core::Stream;
use futures_util::stream;
pub use live::{ConfigEvent, Live, LiveBuilder, Validation};
use parking_lot::Mutex;
use quorate::Client;
use serde::de::DeserializeOwned;
pub use snapshot::{ConfigChange, ConfigSnapshot, Origin};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{contexts::Contexts, live::Follower};
pub use crate::mirror::Freshness;
use crate::mirror::{Mirror, Nodes, Step};

/// How long changes are gathered before they are read.
const DEBOUNCE: Duration = Duration::from_millis(300);

/// Sets up a [`Config`]; from [`Config::spring`]. Awaiting it is [`ConfigBuilder::build`].
#[derive(Debug, Clone)]
#[must_use = "nothing is read before it is built"]
pub struct ConfigBuilder {
    client: Client,
    contexts: Contexts,
    env: Vec<Env>,
    debounce: Duration,
}

impl ConfigBuilder {
    /// The application whose settings are read. Default: `application`, whose settings are everybody's.
    pub fn application(mut self, name: impl Into<String>) -> Self {
        self.contexts.application = name.into();
        self
    }

    /// The profiles that are active; a later one wins over an earlier one.
    pub fn profiles<I: IntoIterator<Item: Into<String>>>(mut self, profiles: I) -> Self {
        self.contexts.profiles = profiles.into_iter().map(Into::into).collect();
        self
    }

    /// The node above all contexts. Default: `/config`.
    pub fn root(mut self, root: impl Into<String>) -> Self {
        self.contexts.root = root.into();
        self
    }

    /// The context whose settings are everybody's. Default: `application`.
    pub fn default_context(mut self, name: impl Into<String>) -> Self {
        self.contexts.default_context = name.into();
        self
    }

    /// What stands between a context and a profile. Default: a comma.
    pub fn profile_separator(mut self, separator: impl Into<String>) -> Self {
        self.contexts.separator = separator.into();
        self
    }

    /// Wins over all contexts, and over what was given before.
    pub fn override_with(mut self, env: Env) -> Self {
        self.env.push(env);
        self
    }

    /// How long changes are gathered before they are read, for those who make several one by one. Default:
    /// 300 ms. Changes that are made in one step show as one without it.
    pub fn debounce(mut self, debounce: Duration) -> Self {
        self.debounce = debounce;
        self
    }

    /// Reads the settings and keeps watching them. Contexts that do not exist have none.
    ///
    /// # Errors
    /// A name is no part of a path, a context may not be read, or no member could be reached for as long as the
    /// client's retry policy says.
    ///
    /// # Cancel safety
    /// Nothing is left when the future is dropped.
    pub async fn build(self) -> Result<Config, ConfigError> {
        let paths = self.contexts.paths();
        let mut mirror = Mirror::new(&self.client, &paths, usize::MAX, self.debounce);
        mirror.fill().await?;
        let followers = Arc::new(Mutex::new(Vec::new()));
        // Watches hold the newest value and are never full.
        let (orders, asked) = watch::channel(0);
        let (answers, answered) = watch::channel(Answer::default());
        let keeper = Keeper {
            client: self.client.clone(),
            paths,
            env: self.env,
            mirror,
            doubted_since: None,
            followers: followers.clone(),
            asked,
            answers,
        };
        let (publish, state) = watch::channel(Arc::new(keeper.state()));
        let stop = CancellationToken::new();
        self.client.spawn(keeper.run(publish, stop.clone()));
        let inner = Inner {
            client: self.client,
            contexts: self.contexts,
            state,
            followers,
            orders,
            answered,
            _stop: stop.drop_guard(),
        };
        Ok(Config { inner: Arc::new(inner) })
    }
}

impl IntoFuture for ConfigBuilder {
    type Output = Result<Config, ConfigError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.build())
    }
}

/// The settings of an application. Clones share one watch.
///
/// While no member serves the client the last that was known is served ([`Config::freshness`]). It keeps the
/// client open for as long as it lives.
#[derive(Clone)]
pub struct Config {
    inner: Arc<Inner>,
}

type Followers = Arc<Mutex<Vec<Weak<dyn Follower>>>>;

struct Inner {
    client: Client,
    contexts: Contexts,
    state: watch::Receiver<Arc<State>>,
    /// The live values, as many as are alive.
    followers: Followers,
    /// Counts requests to look now.
    orders: watch::Sender<u64>,
    answered: watch::Receiver<Answer>,
    _stop: DropGuard,
}

/// What is published.
struct State {
    snapshot: Arc<ConfigSnapshot>,
    /// By context.
    nodes: BTreeMap<String, Arc<Nodes>>,
    settled_epoch: u64,
    doubted_since: Option<std::time::Instant>,
}

/// Up to which request it was looked, and what came of it.
#[derive(Default)]
struct Answer {
    orders: u64,
    error: Option<ConfigError>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("contexts", &self.inner.contexts.paths())
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The settings in the layout of Spring Cloud Zookeeper Config: of `/config/<application>,<profile>`,
    /// `/config/<application>`, `/config/application,<profile>`, `/config/application`, the strongest first.
    pub fn spring(client: &Client) -> ConfigBuilder {
        ConfigBuilder { client: client.clone(), contexts: Contexts::default(), env: Vec::new(), debounce: DEBOUNCE }
    }

    /// The value of a key. Its name is relaxed: `max-size`, `maxSize` and `MAX_SIZE` are one. `Option` tells
    /// whether it is set.
    ///
    /// # Errors
    /// It is not set, or of another type.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<T, ConfigError> {
        Ok(self.snapshot().get(key)?)
    }

    /// The values below a key.
    ///
    /// # Errors
    /// One that is needed is not set, or of another type. The error names it.
    pub fn bind<T: DeserializeOwned>(&self, prefix: &str) -> Result<T, ConfigError> {
        Ok(self.snapshot().bind(prefix)?)
    }

    /// The values below a key, and what becomes of them. The first must be good.
    pub fn live<T: DeserializeOwned + Send + Sync + 'static>(&self, prefix: &str) -> LiveBuilder<T> {
        LiveBuilder::new(self.clone(), prefix)
    }

    /// Starts a change of the application's settings.
    pub fn edit(&self) -> Edit {
        Edit::new(self.clone(), self.inner.state.borrow().nodes.clone())
    }

    /// All settings as they are now.
    pub fn snapshot(&self) -> Arc<ConfigSnapshot> {
        self.inner.state.borrow().snapshot.clone()
    }

    /// No change later than this is in the settings, and every earlier one is.
    pub fn revision(&self) -> u64 {
        self.snapshot().revision()
    }

    /// Where the value of a key comes from.
    pub fn origin(&self, key: &str) -> Option<Origin> {
        self.snapshot().origin(key).cloned()
    }

    /// How far it can be trusted. Stale while no member serves the client.
    pub fn freshness(&self) -> Freshness {
        let state = self.inner.state.borrow();
        Freshness::of(&self.inner.client, state.settled_epoch, state.doubted_since)
    }

    /// How the settings change from now on. Each change is told once; a slow consumer is told of the difference
    /// to the newest state. Ends with the client.
    pub fn changes(&self) -> impl Stream<Item = ConfigChange> + Send + Unpin + use<> {
        struct Changes {
            config: Config,
            state: watch::Receiver<Arc<State>>,
            told: Arc<ConfigSnapshot>,
        }
        let mut state = self.inner.state.clone();
        let told = state.borrow_and_update().snapshot.clone();
        Box::pin(stream::unfold(Changes { config: self.clone(), state, told }, |mut changes| async move {
            loop {
                changes.state.changed().await.ok()?;
                let newest = changes.state.borrow_and_update().snapshot.clone();
                let change = newest.since(&changes.told);
                changes.told = newest;
                if !change.is_empty() {
                    return Some((change, changes));
                }
                // The stream keeps the configuration, and with it the watch.
                let _ = &changes.config;
            }
        }))
    }

    /// Looks now, at the newest that anybody had acknowledged, and tells what has changed by that. Nobody needs
    /// to call this: changes are followed anyway.
    ///
    /// # Errors
    /// The settings could not be read.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn refresh(&self) -> Result<ConfigChange, ConfigError> {
        let before = self.snapshot();
        let mut mine = 0;
        self.inner.orders.send_modify(|orders| {
            *orders += 1;
            mine = *orders;
        });
        let mut answered = self.inner.answered.clone();
        let answer = answered.wait_for(|answer| answer.orders >= mine).await;
        match answer.map(|answer| answer.error.clone()) {
            Ok(None) => Ok(self.snapshot().since(&before)),
            Ok(Some(error)) => Err(error),
            Err(_) => Err(quorate::Error::Closed.into()),
        }
    }

    fn contexts(&self) -> &Contexts {
        &self.inner.contexts
    }

    fn client(&self) -> &Client {
        &self.inner.client
    }

    /// Has it told of settings, also of those that came in the meantime.
    fn add_follower(&self, follower: &Arc<dyn Follower>) {
        self.inner.followers.lock().push(Arc::downgrade(follower));
        follower.follow(&self.snapshot());
        if self.inner.state.has_changed().is_err() {
            follower.end();
        }
    }
}

/// The task of a configuration: keeps a mirror of the contexts and publishes what it makes of it. It ends when the
/// last clone is dropped, or with the client.
struct Keeper {
    client: Client,
    paths: Vec<String>,
    env: Vec<Env>,
    mirror: Mirror,
    doubted_since: Option<std::time::Instant>,
    followers: Followers,
    asked: watch::Receiver<u64>,
    answers: watch::Sender<Answer>,
}

impl Keeper {
    async fn run(mut self, publish: watch::Sender<Arc<State>>, stop: CancellationToken) {
        let shutdown = self.client.shutdown_token();
        // What was asked for, and is answered by the next settling.
        let mut orders = 0;
        loop {
            let step = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = stop.cancelled() => break,
                Ok(()) = self.asked.changed() => {
                    orders = *self.asked.borrow_and_update();
                    self.mirror.confirm();
                    continue;
                }
                step = self.mirror.next() => step,
            };
            let error = match step {
                Step::Settled => {
                    self.doubted_since = None;
                    None
                }
                Step::Suspended => {
                    self.doubt();
                    let before = publish.borrow().clone();
                    publish.send_replace(Arc::new(self.doubted(&before)));
                    continue;
                }
                Step::Failed(error) => {
                    tracing::warn!(%error, "the settings cannot be read now");
                    self.doubt();
                    Some(error)
                }
                Step::Ended => break,
            };
            let before = publish.borrow().clone();
            let state = Arc::new(if error.is_none() { self.state() } else { self.doubted(&before) });
            publish.send_replace(state.clone());
            self.tell(&state.snapshot);
            self.answers.send_replace(Answer { orders, error: error.map(Into::into) });
        }
        drop(publish);
        for follower in self.followers.lock().iter().filter_map(Weak::upgrade) {
            follower.end();
        }
    }

    fn doubt(&mut self) {
        self.doubted_since.get_or_insert_with(std::time::Instant::now);
    }

    fn doubted(&self, before: &State) -> State {
        State {
            snapshot: before.snapshot.clone(),
            nodes: before.nodes.clone(),
            settled_epoch: before.settled_epoch,
            doubted_since: self.doubted_since,
        }
    }

    fn state(&self) -> State {
        let contexts = self.paths.iter().map(String::as_str).zip(self.mirror.nodes()).collect::<Vec<_>>();
        let nodes = contexts.iter().map(|(path, nodes)| (path.to_string(), Arc::new((*nodes).clone())));
        State {
            nodes: nodes.collect(),
            snapshot: Arc::new(ConfigSnapshot::merge(contexts.into_iter(), &self.env, self.mirror.zxid())),
            settled_epoch: self.mirror.settled_epoch(),
            doubted_since: self.doubted_since,
        }
    }

    /// Tells the live values, outside of the lock: they run code of the application.
    fn tell(&self, snapshot: &ConfigSnapshot) {
        let followers: Vec<_> = {
            let mut followers = self.followers.lock();
            followers.retain(|follower| follower.strong_count() > 0);
            followers.iter().filter_map(Weak::upgrade).collect()
        };
        for follower in followers {
            follower.follow(snapshot);
        }
    }
}
