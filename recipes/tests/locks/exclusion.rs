//! Two never hold, whatever dies and whoever stands still.

use std::{
    sync::{
        Arc, Condvar, Mutex as StdMutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

use quorate::Client;
use quorate_recipes::{Error, FencingToken, Mutex, SharedGuard};
use quorate_sidecar::testing::TestEnsemble;
use tokio_util::sync::CancellationToken;

use crate::support::{PATIENCE, eventually};

const PATH: &str = "/locks/contended";
const COUNTER: &str = "/counter";
const CONTENDERS: usize = 8;
const MEMBERS: u8 = 3;
/// Holders that stand still until somebody else holds.
const PAUSES: u64 = 3;
const KILLS: u8 = 4;

/// What everybody sees of everybody.
#[derive(Default)]
struct Witness {
    holders: StdMutex<Holders>,
    /// Told of every acquisition.
    acquired: Condvar,
    acquisitions: AtomicU64,
    pauses: AtomicU64,
    /// Fenced writes that were confirmed, and those of which nobody knows.
    confirmed: AtomicU64,
    unknown: AtomicU64,
}

#[derive(Default)]
struct Holders {
    /// Everybody who was granted and has not let go, whatever their guards say.
    guards: Vec<SharedGuard>,
    last: Option<FencingToken>,
}

impl Witness {
    /// A guard was granted: if it holds, nobody else does, and its token is the greatest so far.
    fn granted(&self, guard: &SharedGuard) {
        let mut holders = self.holders.lock().unwrap();
        for other in &holders.guards {
            assert!(!overlap(other, guard), "{} and {} hold at once", other.token(), guard.token());
        }
        if guard.is_held() {
            assert!(holders.last < Some(guard.token()), "token {} after {:?}", guard.token(), holders.last);
            holders.last = Some(guard.token());
        }
        holders.guards.push(guard.clone());
        self.acquisitions.fetch_add(1, Ordering::SeqCst);
        self.acquired.notify_all();
    }

    fn letting_go(&self, guard: &SharedGuard) {
        self.holders.lock().unwrap().guards.retain(|other| other.token() != guard.token());
    }

    /// Blocks the thread, and with it the runtime of this holder, until somebody else holds.
    fn stand_still(&self, guard: &SharedGuard) {
        let holders = self.holders.lock().unwrap();
        let (holders, waited) =
            self.acquired.wait_timeout_while(holders, PATIENCE, |holders| holders.last == Some(guard.token())).unwrap();
        assert!(!waited.timed_out(), "nobody else got it while its holder stood still");
        drop(holders);
        // The first thing after the pause, before anything of the client has run.
        assert!(!guard.is_held(), "another held while this one said that it does");
    }

    /// Who has the right to pause, does.
    fn takes_a_pause(&self) -> bool {
        let take = |taken: u64| (taken < PAUSES).then_some(taken + 1);
        self.pauses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }
}

/// Whether both held in one moment, of two that were granted before.
fn overlap(a: &SharedGuard, b: &SharedGuard) -> bool {
    // If the second holds now it held when the first was asked: a hold that is lost does not come back.
    a.is_held() && b.is_held()
}

/// One contender, on its own thread and runtime, until it is told to stop.
async fn contend(endpoints: Vec<String>, witness: Arc<Witness>, stop: CancellationToken, number: usize) {
    let client = Client::builder(endpoints).session_timeout(PATIENCE).connect().await.unwrap();
    let mutex = Mutex::new(&client, PATH).unwrap();
    let mut round = 0;
    loop {
        let guard = match mutex.lock().cancel_on(&stop).await {
            Ok(guard) => guard.share(),
            Err(Error::Cancelled { .. }) => break,
            Err(error) => panic!("contender {number}: {error}"),
        };
        witness.granted(&guard);
        round += 1;
        count(&client, &guard, &witness).await;
        if round % 3 == 0 && witness.takes_a_pause() {
            witness.stand_still(&guard);
            // Though it does not hold any more it writes, as one does that has not looked.
            count(&client, &guard, &witness).await;
        }
        witness.letting_go(&guard);
        if let Some(guard) = guard.into_inner() {
            // Lost or not, it is over.
            let _ = guard.release().await;
        }
    }
    let _ = client.close(PATIENCE).await;
}

/// Adds one to the counter, as only a holder may.
async fn count(client: &Client, guard: &SharedGuard, witness: &Witness) {
    let Ok(node) = client.get(COUNTER).await else { return };
    let next = std::str::from_utf8(&node.data).unwrap().parse::<u64>().unwrap() + 1;
    let write = quorate::TxnOp::set(COUNTER, next.to_string()).version(node.stat.version);
    match guard.fenced().apply(write).await {
        Ok(_) => {
            witness.confirmed.fetch_add(1, Ordering::SeqCst);
        }
        Err(Error::Lost { .. } | Error::Released { .. }) => {}
        Err(Error::Client(error)) if error.is_unknown_outcome() => {
            witness.unknown.fetch_add(1, Ordering::SeqCst);
        }
        Err(Error::Client(quorate::Error::SessionLost { .. } | quorate::Error::Timeout { .. })) => {}
        // Somebody else has written since this holder has read.
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_never_hold_while_members_die_and_holders_stand_still() {
    let mut ensemble = TestEnsemble::start(MEMBERS).await.unwrap();
    let operator = Client::builder(ensemble.endpoints()).connect().await.unwrap();
    operator.create(COUNTER).data("0").await.unwrap();
    let (witness, stop) = (Arc::new(Witness::default()), CancellationToken::new());
    let contenders: Vec<_> = (0..CONTENDERS)
        .map(|number| {
            let (endpoints, witness, stop) = (ensemble.endpoints(), witness.clone(), stop.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            thread::spawn(move || runtime.block_on(contend(endpoints, witness, stop, number)))
        })
        .collect();
    // Asks all holders all the time, beside the questions at each acquisition.
    let watching = Arc::new(AtomicBool::new(true));
    let observer = thread::spawn({
        let (witness, watching) = (witness.clone(), watching.clone());
        move || {
            while watching.load(Ordering::SeqCst) {
                let holders = witness.holders.lock().unwrap();
                for (number, one) in holders.guards.iter().enumerate() {
                    for other in &holders.guards[number + 1..] {
                        assert!(!overlap(one, other), "{} and {} hold at once", one.token(), other.token());
                    }
                }
                drop(holders);
                thread::yield_now();
            }
        }
    });

    let acquisitions = || witness.acquisitions.load(Ordering::SeqCst);
    for kill in 0..KILLS {
        let before = acquisitions();
        eventually("acquisitions", async || acquisitions() > before + 3).await;
        // In turn the leader and another.
        let leader = ensemble.leader().await.unwrap();
        let member = if kill % 2 == 0 { leader } else { leader % MEMBERS + 1 };
        ensemble.kill(member);
        let before = acquisitions();
        eventually("acquisitions without a member", async || acquisitions() > before + 3).await;
        ensemble.restart(member).await.unwrap();
        ensemble.ready().await.unwrap();
    }
    let pauses = || witness.pauses.load(Ordering::SeqCst);
    eventually("pauses", async || pauses() == PAUSES).await;
    let before = acquisitions();
    eventually("acquisitions after all of it", async || acquisitions() > before + 3).await;
    stop.cancel();
    let ended =
        tokio::task::spawn_blocking(move || contenders.into_iter().map(thread::JoinHandle::join).collect::<Vec<_>>());
    for ended in ended.await.unwrap() {
        ended.unwrap();
    }
    watching.store(false, Ordering::SeqCst);
    observer.join().unwrap();

    let node = operator.get(COUNTER).linearizable().await.unwrap();
    let counted: u64 = std::str::from_utf8(&node.data).unwrap().parse().unwrap();
    let (confirmed, unknown) = (witness.confirmed.load(Ordering::SeqCst), witness.unknown.load(Ordering::SeqCst));
    assert!((confirmed..=confirmed + unknown).contains(&counted), "{counted} of {confirmed} and {unknown} unknown");
    ensemble.agreed().await.unwrap();
}
