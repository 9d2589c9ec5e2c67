//! Locks over processes that are killed and stopped, held by those who stand still.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use quorate_integration::{
    cluster::{Options, on_processes},
    ensemble::Ensemble,
    eventually::{SOON, eventually},
    load::connect,
};
use quorate_recipes::{Error, FencingToken, Mutex as Lock, SharedGuard};
use tokio_util::sync::CancellationToken;

const PATH: &str = "/locks/contended";
const CONTENDERS: usize = 8;
/// Holders that stand still until somebody else holds.
const PAUSES: u64 = 3;

/// What all contenders tell.
#[derive(Default)]
struct Witness {
    holders: Mutex<Holders>,
    /// Told of every grant.
    granted: Condvar,
    grants: AtomicU64,
    pauses: AtomicU64,
}

#[derive(Default)]
struct Holders {
    /// Who was granted and has not let go, whatever their guards say.
    guards: Vec<SharedGuard>,
    last: Option<FencingToken>,
}

impl Witness {
    /// If a guard holds that was granted, no other does, and its token is the greatest so far.
    fn granted(&self, guard: &SharedGuard) -> Result<()> {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        for other in &holders.guards {
            // Asked in this order: a hold that is lost does not come back.
            let overlap = other.is_held() && guard.is_held();
            ensure!(!overlap, "{} and {} hold at once", other.token(), guard.token());
        }
        if guard.is_held() {
            ensure!(holders.last < Some(guard.token()), "token {} after {:?}", guard.token(), holders.last);
            holders.last = Some(guard.token());
        }
        holders.guards.push(guard.clone());
        self.grants.fetch_add(1, Ordering::SeqCst);
        self.granted.notify_all();
        Ok(())
    }

    fn lets_go(&self, guard: &SharedGuard) {
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        holders.guards.retain(|other| other.token() != guard.token());
    }

    /// Blocks the only thread of this holder's runtime until somebody else holds: for longer than its session lasts.
    fn stand_still(&self, guard: &SharedGuard) -> Result<()> {
        let holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let still_last = |holders: &mut Holders| holders.last == Some(guard.token());
        let (holders, waited) =
            self.granted.wait_timeout_while(holders, SOON, still_last).unwrap_or_else(PoisonError::into_inner);
        ensure!(!waited.timed_out(), "nobody else got it while its holder stood still");
        drop(holders);
        ensure!(!guard.is_held(), "another held while this one said that it does");
        Ok(())
    }

    fn takes_a_pause(&self) -> bool {
        let take = |taken: u64| (taken < PAUSES).then_some(taken + 1);
        self.pauses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    /// Waits for that many more grants.
    async fn more(&self, count: u64) -> Result<()> {
        let enough = self.grants.load(Ordering::SeqCst) + count;
        let granted = eventually(format!("{enough} grants"), SOON, || {
            let grants = self.grants.load(Ordering::SeqCst);
            std::future::ready(if grants >= enough { Ok(()) } else { Err(format!("there are {grants}")) })
        });
        Ok(granted.await?)
    }
}

/// One contender until it is told to stop.
async fn contend(endpoints: Vec<String>, timeout: Duration, witness: &Witness, stop: &CancellationToken) -> Result<()> {
    let client = connect(endpoints, timeout).await?;
    let lock = Lock::new(&client, PATH)?;
    for round in 1.. {
        let guard = match lock.lock().cancel_on(stop).await {
            Ok(guard) => guard.share(),
            Err(Error::Cancelled { .. }) => break,
            Err(error) => return Err(error.into()),
        };
        witness.granted(&guard)?;
        if round % 2 == 0 && witness.takes_a_pause() {
            witness.stand_still(&guard)?;
        }
        witness.lets_go(&guard);
        if let Some(guard) = guard.into_inner() {
            // Lost or not, it is over.
            let _ = guard.release().await;
        }
    }
    let _ = client.close(SOON).await;
    Ok(())
}

#[test]
fn two_never_hold_while_processes_are_killed_and_stopped_and_holders_stand_still() {
    on_processes(Options::default(), async |cluster| {
        let session_timeout = cluster.tick() * 6;
        let (witness, stop) = (Arc::new(Witness::default()), CancellationToken::new());
        let contenders: Vec<_> = (0..CONTENDERS)
            .map(|_| {
                let (endpoints, witness, stop) = (cluster.endpoints(), witness.clone(), stop.clone());
                thread::spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    let contended = runtime.block_on(contend(endpoints, session_timeout, &witness, &stop));
                    // The others need not wait for one that has failed.
                    contended.inspect_err(|_| stop.cancel())
                })
            })
            .collect();

        let disturbed = async {
            for round in 0..2 {
                witness.more(4).await?;
                let leader = cluster.leader().await?;
                let killed = if round == 0 { leader } else { cluster.follower().await? };
                cluster.kill(killed).await?;
                witness.more(4).await?;
                cluster.start(killed).await?;
                cluster.ready(killed).await?;
                // A leader that is stopped for longer than the sessions last: its clients go elsewhere, or lose theirs.
                let stopped = cluster.leader().await?;
                cluster.pause(stopped).await?;
                witness.more(4).await?;
                let stopped_at = Instant::now();
                let long = eventually("it has been stopped for longer than a session lasts", SOON, || async {
                    ensure!(stopped_at.elapsed() > session_timeout * 3 / 2, "not yet");
                    anyhow::Ok(())
                });
                long.await?;
                cluster.resume(stopped).await?;
                cluster.all_ready().await?;
            }
            let paused = eventually("pauses", SOON, || {
                let pauses = witness.pauses.load(Ordering::SeqCst);
                std::future::ready(if pauses == PAUSES { Ok(()) } else { Err(format!("{pauses}")) })
            });
            paused.await?;
            witness.more(4).await
        };
        let failed_first = async { stop.cancelled().await };
        let disturbed = tokio::select! {
            biased;
            () = failed_first => Ok(()),
            disturbed = disturbed => disturbed,
        };
        stop.cancel();
        let ended = tokio::task::spawn_blocking(move || {
            contenders.into_iter().map(thread::JoinHandle::join).collect::<Vec<_>>()
        });
        for contender in ended.await.context("the contenders are joined")? {
            contender.map_err(|_| anyhow!("a contender panicked"))??;
        }
        disturbed?;
        cluster.all_ready().await?;
        cluster.converged().await?;
        Ok(())
    });
}
