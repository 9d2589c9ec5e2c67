//! What the tests share.

use std::{future::Future, time::Duration};

use quorate::{Client, ClientBuilder, SessionState};
use quorate_recipes::{HoldState, LockGuard, Mutex, lock::WaitEvent};
use quorate_sidecar::testing::TestEnsemble;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

/// How long anything may take that is certain to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// An ensemble on which no session expires by itself, however slow the machine is.
pub(crate) async fn patient_ensemble(members: u8) -> TestEnsemble {
    TestEnsemble::builder().members(members).tick(Duration::from_secs(3)).start().await.unwrap()
}

pub(crate) fn builder(ensemble: &TestEnsemble) -> ClientBuilder {
    Client::builder(ensemble.endpoints()).session_timeout(PATIENCE)
}

pub(crate) async fn client(ensemble: &TestEnsemble) -> Client {
    builder(ensemble).connect().await.unwrap()
}

/// Waits for what is certain to come.
pub(crate) async fn in_time<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("this was certain to come")
}

/// Looks until it is so.
pub(crate) async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let looking = async {
        let mut pace = tokio::time::interval(Duration::from_millis(2));
        while !check().await {
            pace.tick().await;
        }
    };
    timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

/// The names of the places in a line, as Curator would see them.
pub(crate) async fn places(client: &Client, path: &str) -> Vec<String> {
    let mut names = client.children(path).linearizable().opt().await.unwrap().map_or(Vec::new(), |list| list.names);
    names.sort_by_key(|name| name[name.len() - 10..].to_owned());
    names
}

/// Whether nobody stands in the line once this client's janitor is done.
pub(crate) async fn assert_line_is_empty(client: &Client, path: &str) {
    in_time(client.janitor().idle()).await;
    assert_eq!(places(client, path).await, Vec::<String>::new());
}

/// One that waits for a lock, in a task.
pub(crate) struct Waiter {
    pub(crate) task: JoinHandle<quorate_recipes::Result<LockGuard>>,
    pub(crate) events: mpsc::Receiver<WaitEvent>,
}

impl Waiter {
    /// Returns once it stands in the line, behind somebody.
    pub(crate) async fn queued(client: &Client, path: &str) -> Self {
        let mutex = Mutex::new(client, path).unwrap();
        // No test makes as many events as there is room for.
        let (tell, mut events) = mpsc::channel(64);
        let lock = mutex.lock().on_event(move |event| tell.try_send(event).unwrap());
        let task = tokio::spawn(lock.into_future());
        let first = in_time(events.recv()).await.unwrap();
        assert!(matches!(first, WaitEvent::Queued { position: 1.. }), "{first:?}");
        Self { task, events }
    }

    pub(crate) async fn granted(self) -> (LockGuard, Vec<WaitEvent>) {
        let Self { task, mut events } = self;
        let guard = in_time(task).await.unwrap().unwrap();
        let mut told = Vec::new();
        while let Ok(event) = events.try_recv() {
            told.push(event);
        }
        (guard, told)
    }
}

/// Ends the client's session as its timeout would.
pub(crate) async fn expire(ensemble: &TestEnsemble, client: &Client) {
    let session = client.session().unwrap().id();
    ensemble.expire_session(session.0).await.unwrap();
}

/// The member that serves the client.
pub(crate) async fn member_of(client: &Client) -> u8 {
    let id = client.session().unwrap().id();
    let sessions = in_time(client.admin().sessions()).await.unwrap();
    let session = sessions.into_iter().find(|session| session.id == id).unwrap();
    u8::try_from(session.member).unwrap()
}

/// Waits for a state of a hold.
pub(crate) async fn reaches(state: &mut tokio::sync::watch::Receiver<HoldState>, is_it: impl Fn(HoldState) -> bool) {
    in_time(state.wait_for(|state| is_it(*state))).await.unwrap();
}

pub(crate) async fn reconnected(client: &Client, epoch: u64) {
    eventually("the client is served again", async || {
        client.epoch() > epoch && matches!(client.state(), SessionState::Connected { .. })
    })
    .await;
}
