//! A typed part of the settings that follows their changes.

use std::{
    fmt,
    future::{IntoFuture, Ready, ready},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use arc_swap::ArcSwap;
use futures_core::Stream;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::{Config, ConfigError, ConfigSnapshot, key::Key};

/// What a check may answer.
pub trait Validation {
    /// Nothing, or what is wrong.
    fn into_result(self) -> Result<(), String>;
}

impl Validation for bool {
    fn into_result(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("the check says no".into()) }
    }
}

impl<E: fmt::Display> Validation for Result<(), E> {
    fn into_result(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

type Check<T> = Box<dyn Fn(&T) -> Result<(), String> + Send + Sync>;

/// Sets up a [`Live`]; from [`Config::live`]. Awaiting it gives the value.
#[must_use = "nothing is bound before it is awaited"]
pub struct LiveBuilder<T> {
    config: Config,
    prefix: String,
    checks: Vec<Check<T>>,
}

impl<T> fmt::Debug for LiveBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl<T> LiveBuilder<T> {
    pub(super) fn new(config: Config, prefix: &str) -> Self {
        Self { config, prefix: prefix.to_owned(), checks: Vec::new() }
    }

    /// Takes only values of which this is true; it may also give a `Result<(), E>` whose error is told. It runs
    /// in the task of the configuration and should be quick; if it panics, the value is rejected.
    pub fn validate<V: Validation>(mut self, check: impl Fn(&T) -> V + Send + Sync + 'static) -> Self {
        self.checks.push(Box::new(move |value| check(value).into_result()));
        self
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> IntoFuture for LiveBuilder<T> {
    type Output = Result<Live<T>, ConfigError>;
    type IntoFuture = Ready<Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        let LiveBuilder { config, prefix, checks } = self;
        let rules = Rules { key: Key::parse(&prefix), prefix, checks };
        ready(Live::start(config, rules))
    }
}

/// How a value comes about.
struct Rules<T> {
    prefix: String,
    key: Key,
    checks: Vec<Check<T>>,
}

impl<T: DeserializeOwned> Rules<T> {
    fn value(&self, snapshot: &ConfigSnapshot) -> Result<T, ConfigError> {
        let made = catch_unwind(AssertUnwindSafe(|| {
            let value: T = snapshot.bind(&self.prefix)?;
            for check in &self.checks {
                check(&value).map_err(|message| self.invalid(message))?;
            }
            Ok(value)
        }));
        made.unwrap_or_else(|_| Err(self.invalid("the check panicked".into())))
    }

    fn invalid(&self, message: String) -> ConfigError {
        ConfigError::Invalid { prefix: self.prefix.clone(), message }
    }
}

/// What has become of a change.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConfigEvent<T> {
    /// There is a new value.
    Changed {
        /// It.
        value: Arc<T>,
        /// The revision of the settings that brought it.
        revision: u64,
    },
    /// The settings make no valid value. The last good one stays.
    Rejected {
        /// Why.
        error: ConfigError,
        /// The revision of the settings that was rejected.
        revision: u64,
    },
}

/// A typed part of the settings that follows their changes: [`Live::load`] gives the newest good value, without
/// waiting and without a lock. Clones share it.
pub struct Live<T> {
    shared: Arc<Shared<T>>,
    config: Config,
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), config: self.config.clone() }
    }
}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("prefix", &self.shared.rules.prefix)
            .field("revision", &self.revision())
            .finish_non_exhaustive()
    }
}

struct Shared<T> {
    rules: Rules<T>,
    newest: ArcSwap<T>,
    /// A watch holds the newest state and is never full. Its end is the end of the changes.
    state: Mutex<Option<watch::Sender<State<T>>>>,
    states: watch::Receiver<State<T>>,
    /// What was bound last, good or bad.
    bound: Mutex<Bound>,
}

struct Bound {
    revision: u64,
    texts: std::collections::BTreeMap<Key, String>,
}

struct State<T> {
    value: Arc<T>,
    revision: u64,
    /// Of settings that came after the value.
    rejected: Option<(ConfigError, u64)>,
}

impl<T> Clone for State<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), revision: self.revision, rejected: self.rejected.clone() }
    }
}

/// What the task of the configuration tells of new settings.
pub(super) trait Follower: Send + Sync {
    fn follow(&self, snapshot: &ConfigSnapshot);

    /// Nothing more will come.
    fn end(&self);
}

impl<T: DeserializeOwned + Send + Sync + 'static> Follower for Shared<T> {
    fn follow(&self, snapshot: &ConfigSnapshot) {
        let mut bound = self.bound.lock();
        if snapshot.revision() <= bound.revision {
            return;
        }
        bound.revision = snapshot.revision();
        let texts = snapshot.values_below(&self.rules.key);
        if texts == bound.texts {
            return;
        }
        bound.texts = texts;
        let made = self.rules.value(snapshot);
        let state = self.state.lock();
        let Some(state) = &*state else { return };
        match made {
            Ok(value) => {
                let value = Arc::new(value);
                self.newest.store(value.clone());
                state.send_replace(State { value, revision: snapshot.revision(), rejected: None });
            }
            Err(error) => {
                tracing::warn!(%error, revision = snapshot.revision(), "settings rejected; the last good value stays");
                state.send_modify(|state| state.rejected = Some((error, snapshot.revision())));
            }
        }
    }

    fn end(&self) {
        *self.state.lock() = None;
    }
}

impl<T: DeserializeOwned + Send + Sync + 'static> Live<T> {
    fn start(config: Config, rules: Rules<T>) -> Result<Self, ConfigError> {
        let snapshot = config.snapshot();
        let value = Arc::new(rules.value(&snapshot)?);
        let revision = snapshot.revision();
        let bound = Bound { revision, texts: snapshot.values_below(&rules.key) };
        let (state, states) = watch::channel(State { value: value.clone(), revision, rejected: None });
        let shared = Arc::new(Shared {
            rules,
            newest: ArcSwap::new(value),
            state: Mutex::new(Some(state)),
            states,
            bound: Mutex::new(bound),
        });
        let follower: Arc<dyn Follower> = shared.clone();
        config.add_follower(&follower);
        Ok(Self { shared, config })
    }
}

impl<T> Live<T> {
    /// The newest good value.
    pub fn load(&self) -> Arc<T> {
        self.shared.newest.load_full()
    }

    /// The revision of the settings that brought the value.
    pub fn revision(&self) -> u64 {
        self.shared.states.borrow().revision
    }

    /// Why the settings as they are now make no valid value, if they do not.
    pub fn rejected(&self) -> Option<ConfigError> {
        self.shared.states.borrow().rejected.as_ref().map(|(error, _)| error.clone())
    }

    /// The configuration it is part of.
    pub fn config(&self) -> &Config {
        &self.config
    }
}

impl<T: Send + Sync + 'static> Live<T> {
    /// What becomes of changes from now on. Each is told once; a slow consumer is told of the newest value, and
    /// of the newest rejection if no good value came after it. Ends with the client.
    pub fn events(&self) -> impl Stream<Item = ConfigEvent<T>> + Send + Unpin + use<T> {
        struct Events<T> {
            live: Live<T>,
            states: watch::Receiver<State<T>>,
            told: (u64, Option<u64>),
            untold: Option<ConfigEvent<T>>,
        }
        let mark = |state: &State<T>| (state.revision, state.rejected.as_ref().map(|(_, revision)| *revision));
        let mut states = self.shared.states.clone();
        let told = mark(&states.borrow_and_update());
        let events = Events { live: self.clone(), states, told, untold: None };
        Box::pin(stream::unfold(events, move |mut events| async move {
            loop {
                if let Some(event) = events.untold.take() {
                    return Some((event, events));
                }
                events.states.changed().await.ok()?;
                let state = events.states.borrow_and_update().clone();
                let told = std::mem::replace(&mut events.told, mark(&state));
                let rejected = state.rejected.filter(|(_, revision)| told.1 != Some(*revision));
                let rejected = rejected.map(|(error, revision)| ConfigEvent::Rejected { error, revision });
                if state.revision != told.0 {
                    events.untold = rejected;
                    let changed = ConfigEvent::Changed { value: state.value, revision: state.revision };
                    return Some((changed, events));
                }
                events.untold = rejected;
                // The stream keeps the value, and with it the task that changes it.
                let _ = &events.live;
            }
        }))
    }

    /// Good values from now on, each once; a slow consumer gets the newest. Ends with the client.
    pub fn changes(&self) -> impl Stream<Item = Arc<T>> + Send + Unpin + use<T> {
        self.events().filter_map(|event| {
            std::future::ready(match event {
                ConfigEvent::Changed { value, .. } => Some(value),
                ConfigEvent::Rejected { .. } => None,
            })
        })
    }
}
