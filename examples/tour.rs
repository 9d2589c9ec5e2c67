//! The main job in one run: an ensemble, two instances of a service, a lock, a leader, a member that dies, and
//! configuration that changes while everybody goes on. Ends with 0 only if every step held.
//!
//! `cargo run --release --example tour`

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use quorate::Client;
use quorate_recipes::{
    Election, Mutex,
    config::Config,
    discovery::{Discovery, Instance, Registry, RoundRobin},
};
use quorate_sidecar::testing::TestEnsemble;
use serde::Deserialize;

/// What the service reads from the shared configuration.
#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Pool {
    max: u32,
}

/// Long enough for a machine that does other things as well; nothing here waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut ensemble = TestEnsemble::builder().members(3).synced(true).start().await?;
    step(1, &format!("three members serve after {}, every write synced to disk", ms(begun)));

    let connect = async |name: &str| {
        let client = Client::builder(ensemble.endpoints()).client_name(name);
        client.session_timeout(Duration::from_secs(2)).connect().await
    };
    let (ada, grace) = (connect("ada").await?, connect("grace").await?);

    // Two instances register, a caller finds them.
    let begun = Instant::now();
    let mut registrations = Vec::new();
    for (client, port) in [(&ada, 8081), (&grace, 8082)] {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        registrations.push(Registry::spring(client).register(Instance::builder("payments").http(address)).await?);
    }
    let caller = connect("caller").await?;
    let payments = Discovery::spring(&caller).service("payments").watch().await?;
    payments.wait_for(2, PATIENCE).await?;
    step(2, &format!("two instances of `payments` registered and found in {}", ms(begun)));

    let balancer = payments.balancer(RoundRobin);
    let mut calls = BTreeMap::new();
    for _ in 0..1000 {
        let pick = balancer.pick()?;
        *calls.entry(pick.instance().port()).or_insert(0) += 1;
        pick.success();
    }
    ensure!(calls.values().all(|count| *count == 500), "1000 calls were not spread evenly: {calls:?}");
    step(3, &format!("1000 calls spread over them: {calls:?}"));

    // One lock, two tasks.
    let begun = Instant::now();
    let inside = AtomicUsize::new(0);
    let contend = async |client: &Client| -> anyhow::Result<Vec<u64>> {
        let mutex = Mutex::new(client, "/locks/ledger")?;
        let mut tokens = Vec::new();
        for _ in 0..10 {
            let guard = mutex.lock().await?;
            ensure!(inside.fetch_add(1, Ordering::SeqCst) == 0, "two tasks hold the lock");
            tokens.push(guard.token().get());
            tokio::task::yield_now().await;
            inside.fetch_sub(1, Ordering::SeqCst);
            guard.release().await?;
        }
        Ok(tokens)
    };
    let (one, two) = tokio::try_join!(contend(&ada), contend(&grace))?;
    ensure!([&one, &two].iter().all(|tokens| tokens.is_sorted()), "tokens go back: {one:?} {two:?}");
    let rate = 20.0 / begun.elapsed().as_secs_f64();
    step(4, &format!("20 acquisitions by two tasks, never both inside, tokens growing, {rate:.0} a second"));

    // One leader of two.
    let begun = Instant::now();
    let election = Election::builder(&ada, "/orders/leader").id("ada").build()?;
    let term = election.campaign().await?;
    let rival = Election::builder(&grace, "/orders/leader").id("grace").build()?;
    let waiting = tokio::spawn({
        let rival = rival.clone();
        async move { rival.campaign().await }
    });
    ensure!(election.is_leader() && !rival.is_leader(), "ada leads");
    step(5, &format!("ada leads with token {} after {}, grace waits", term.token(), ms(begun)));

    // The leading member dies while all of this is held.
    let held = Mutex::new(&ada, "/locks/held")?.lock().await?;
    let (lock_token, term_token) = (held.token(), term.token());
    let dead = ensemble.leader().await?;
    ensemble.kill(dead);
    let begun = Instant::now();
    caller.create("/written-after-the-kill").await?;
    let writing = begun.elapsed();
    held.verify().await.context("the lock is gone")?;
    term.verify().await.context("the leadership is gone")?;
    ensure!(held.token() == lock_token && term.token() == term_token, "tokens changed");
    ensure!(!waiting.is_finished(), "a second leader");
    ensure!(payments.instances().len() == 2, "the registrations are gone: {:?}", payments.instances());
    let successor = ensemble.leader().await?;
    step(
        6,
        &format!(
            "member {dead} led and was dropped; {successor} leads, a write begun after it took {writing:.0?}; lock, \
             leadership and registrations go on with the same tokens"
        ),
    );
    held.release().await?;
    term.resign().await?;
    let successor = waiting.await??;
    ensure!(rival.is_leader() && successor.token() > term_token, "grace leads with a greater token");
    step(7, &format!("ada resigned, grace leads with token {}", successor.token()));

    // Configuration, live and typed.
    let begun = Instant::now();
    let config = Config::spring(&ada).application("orders").build().await?;
    config.edit().set("db.pool.max", "10").commit().await?;
    let live = config.live::<Pool>("db.pool").validate(|pool| pool.max > 0).await?;
    let mut changes = live.changes();
    ensure!(live.load().max == 10, "the pool is {:?}", live.load());
    config.edit().set("db.pool.max", "0").commit().await?;
    config.edit().set("db.pool.max", "20").commit().await?;
    let newest = loop {
        let pool = tokio::time::timeout(PATIENCE, changes.next()).await?.context("the configuration ended")?;
        ensure!(pool.max != 0, "a value that is not valid got through");
        if pool.max == 20 {
            break pool;
        }
    };
    ensure!(*live.load() == *newest, "the pool is {:?}", live.load());
    step(8, &format!("configuration changed live to {newest:?} in {}, a bad value in between kept out", ms(begun)));

    ensemble.restart(dead).await?;
    ensemble.ready().await?;
    let (zxid, digest) = ensemble.agreed().await?;
    step(9, &format!("member {dead} is back; all three agree at zxid {zxid}, digest {digest:016x}"));

    for registration in registrations {
        registration.deregister().await?;
    }
    ensemble.shutdown().await;
    println!("every step held");
    Ok(())
}

fn step(number: u8, what: &str) {
    println!("{number}  {what}");
}

fn ms(since: Instant) -> String {
    format!("{:.0?}", since.elapsed())
}
