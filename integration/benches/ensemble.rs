//! What an ensemble of real processes does per second, and what it costs: `cargo bench -p quorate-integration`.
//!
//! Closed loops of S sessions with D requests in flight each, over the SDK, against three members on loopback that sync
//! every write. `server us/op` adds up the CPU of all members: the figure that survives a noisy machine. Arguments
//! after `--` choose workloads by name; `--secs N` and `--rounds N` how long.

use std::{
    collections::BTreeMap,
    env, fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use hdrhistogram::Histogram;
use quorate::{Client, CreateMode};
use quorate_integration::{
    admin,
    cluster::{Cluster, Options},
    ensemble::Ensemble as _,
};
use tokio::task::JoinSet;

const KEYS: usize = 1000;

#[derive(Clone, Copy)]
enum Work {
    Set,
    Create,
    Get,
    LinearizableGet,
    Mixed,
}

/// A closed loop.
struct Workload {
    name: &'static str,
    work: Work,
    sessions: usize,
    in_flight: usize,
    bytes: usize,
}

const WORKLOADS: [Workload; 9] = [
    Workload { name: "set-lat", work: Work::Set, sessions: 1, in_flight: 1, bytes: 256 },
    Workload { name: "set", work: Work::Set, sessions: 32, in_flight: 16, bytes: 256 },
    Workload { name: "create", work: Work::Create, sessions: 32, in_flight: 16, bytes: 256 },
    Workload { name: "get-lat", work: Work::Get, sessions: 1, in_flight: 1, bytes: 1024 },
    Workload { name: "get", work: Work::Get, sessions: 32, in_flight: 16, bytes: 1024 },
    Workload { name: "lget-lat", work: Work::LinearizableGet, sessions: 1, in_flight: 1, bytes: 1024 },
    Workload { name: "lget", work: Work::LinearizableGet, sessions: 32, in_flight: 16, bytes: 1024 },
    Workload { name: "mixed", work: Work::Mixed, sessions: 32, in_flight: 16, bytes: 1024 },
    Workload { name: "mixed-d1", work: Work::Mixed, sessions: 64, in_flight: 1, bytes: 1024 },
];

struct Arguments {
    names: Vec<String>,
    secs: u64,
    rounds: usize,
}

fn arguments() -> Result<Arguments> {
    let mut arguments = Arguments { names: Vec::new(), secs: 4, rounds: 3 };
    let mut given = env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--secs" => arguments.secs = given.next().context("--secs N")?.parse()?,
            "--rounds" => arguments.rounds = given.next().context("--rounds N")?.parse()?,
            // Cargo's own.
            "--bench" => {}
            name => arguments.names.push(name.into()),
        }
    }
    Ok(arguments)
}

fn main() -> Result<()> {
    let arguments = arguments()?;
    let wanted = |name: &str| arguments.names.is_empty() || arguments.names.iter().any(|wanted| wanted == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        if WORKLOADS.iter().any(|workload| wanted(workload.name)) {
            loops(&arguments, &wanted).await?;
        }
        if wanted("failover") {
            failover(arguments.rounds).await?;
        }
        if wanted("memory") {
            memory().await?;
        }
        if wanted("start") {
            start(arguments.rounds).await?;
        }
        anyhow::Ok(())
    })
}

async fn cluster(members: u8) -> Result<Cluster> {
    let mut cluster = Cluster::new(Options { members, tick_ms: 2000, ..Options::default() }).await?;
    cluster.start_all().await?;
    cluster.all_ready().await?;
    Ok(cluster)
}

async fn loops(arguments: &Arguments, wanted: &impl Fn(&str) -> bool) -> Result<()> {
    let cluster = cluster(3).await?;
    println!("| workload | sessions x in flight | ops/s | p50 ms | p99 ms | server us/op | flushes/s |");
    println!("|---|---|---|---|---|---|---|");
    for workload in WORKLOADS.iter().filter(|workload| wanted(workload.name)) {
        let mut rows = Vec::new();
        for _ in 0..arguments.rounds {
            rows.push(run(&cluster, workload, Duration::from_secs(arguments.secs)).await?);
        }
        rows.sort_by(|a, b| a.ops_per_sec.total_cmp(&b.ops_per_sec));
        let row = &rows[rows.len() / 2];
        println!(
            "| {} | {}x{} | {:.0} ({:.0}-{:.0}) | {:.2} | {:.2} | {:.1} | {:.0} |",
            workload.name,
            workload.sessions,
            workload.in_flight,
            row.ops_per_sec,
            rows[0].ops_per_sec,
            rows[rows.len() - 1].ops_per_sec,
            row.p50_ms,
            row.p99_ms,
            row.server_us_per_op,
            row.flushes_per_sec,
        );
    }
    Ok(())
}

struct Row {
    ops_per_sec: f64,
    p50_ms: f64,
    p99_ms: f64,
    server_us_per_op: f64,
    flushes_per_sec: f64,
}

async fn run(cluster: &Cluster, workload: &Workload, window: Duration) -> Result<Row> {
    let mut clients = Vec::new();
    for session in 0..workload.sessions {
        let member = u8::try_from(session % 3)? + 1;
        let endpoint = format!("http://{}", cluster.client_door(member));
        clients.push(Client::builder(endpoint).session_timeout(Duration::from_secs(30)).connect().await?);
    }
    prepare(&clients[0], workload).await?;

    let measuring = Arc::new(AtomicBool::new(false));
    let stop = Arc::new(AtomicBool::new(false));
    let mut loops = JoinSet::new();
    for (session, client) in clients.iter().enumerate() {
        for lane in 0..workload.in_flight {
            let (client, measuring, stop) = (client.clone(), measuring.clone(), stop.clone());
            let (work, data) = (workload.work, vec![b'x'; workload.bytes]);
            let seed = session * 7919 + lane * 104_729;
            loops.spawn(async move { drive(&client, work, &data.into(), session, seed, &measuring, &stop).await });
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (cpu, flushes) = (cpu_us(cluster)?, flushes(cluster).await?);
    measuring.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    tokio::time::sleep(window).await;
    measuring.store(false, Ordering::Relaxed);
    let took = begun.elapsed().as_secs_f64();
    let cpu = cpu_us(cluster)? - cpu;
    let flushes = self::flushes(cluster).await? - flushes;
    stop.store(true, Ordering::Relaxed);
    let mut all = Histogram::<u64>::new(3)?;
    while let Some(done) = loops.join_next().await {
        all.add(done??)?;
    }
    for client in clients {
        let _ = client.close(Duration::from_secs(5)).await?;
    }
    let ops = all.len() as f64;
    Ok(Row {
        ops_per_sec: ops / took,
        p50_ms: all.value_at_quantile(0.5) as f64 / 1000.0,
        p99_ms: all.value_at_quantile(0.99) as f64 / 1000.0,
        server_us_per_op: cpu as f64 / ops,
        flushes_per_sec: flushes / took,
    })
}

async fn prepare(client: &Client, workload: &Workload) -> Result<()> {
    let data = vec![b'x'; workload.bytes];
    let mut creates = JoinSet::new();
    for key in 0..KEYS {
        let (client, data) = (client.clone(), data.clone());
        creates.spawn(async move { client.set(&format!("/bench/{key}"), data).or_create().await.map(drop) });
    }
    while let Some(done) = creates.join_next().await {
        done??;
    }
    for session in 0..workload.sessions {
        let made = client.create(&format!("/sequence/{session}")).parents().await;
        if let Err(error) = made
            && !matches!(error, quorate::Error::NodeExists { .. })
        {
            bail!(error);
        }
    }
    Ok(())
}

async fn drive(
    client: &Client,
    work: Work,
    data: &bytes::Bytes,
    session: usize,
    seed: usize,
    measuring: &AtomicBool,
    stop: &AtomicBool,
) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::<u64>::new(3)?;
    let parent = format!("/sequence/{session}/n-");
    let mut at = seed;
    while !stop.load(Ordering::Relaxed) {
        at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let path = format!("/bench/{}", (at >> 33) % KEYS);
        let measured = measuring.load(Ordering::Relaxed);
        let begun = Instant::now();
        match work {
            Work::Set => drop(client.set(&path, data.clone()).await?),
            Work::Create => {
                drop(client.create(&parent).data(data.clone()).mode(CreateMode::PersistentSequential).await?);
            }
            Work::Get => drop(client.get(&path).await?),
            Work::LinearizableGet => drop(client.get(&path).linearizable().await?),
            Work::Mixed if (at >> 20).is_multiple_of(11) => drop(client.set(&path, data.clone()).await?),
            Work::Mixed => drop(client.get(&path).await?),
        }
        if measured && measuring.load(Ordering::Relaxed) {
            histogram.record(u64::try_from(begun.elapsed().as_micros())?)?;
        }
    }
    Ok(histogram)
}

/// From the kill of the leader to the first write that was begun after it and is done, of a writer at each survivor.
async fn failover(rounds: usize) -> Result<()> {
    let mut cluster = cluster(3).await?;
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for round in 0..rounds.max(10) {
        let leader = cluster.leader().await?;
        let mut writers = Vec::new();
        for survivor in (1..=3).filter(|member| *member != leader) {
            let endpoint = format!("http://{}", cluster.client_door(survivor));
            let client = Client::builder(endpoint).session_timeout(Duration::from_secs(30)).connect().await?;
            client.set(&format!("/failover-{survivor}"), "before").or_create().await?;
            writers.push((format!("/failover-{survivor}"), client));
        }
        let killed = Instant::now();
        cluster.kill(leader).await?;
        let writes = writers.iter().map(|(path, client)| client.set(path, format!("after {round}")).into_future());
        let mut writes: FuturesUnordered<_> = writes.collect();
        writes.next().await.context("two survivors")??;
        first.push(killed.elapsed());
        writes.next().await.context("two survivors")??;
        all.push(killed.elapsed());
        drop(writes);
        for (_, client) in writers {
            let _ = client.close(Duration::from_secs(5)).await?;
        }
        cluster.start(leader).await?;
        cluster.all_ready().await?;
    }
    println!("\nfailover (default --election-timeout-ms 600), {} rounds:", first.len());
    for (what, mut took) in [("first write", first), ("at both survivors", all)] {
        took.sort_unstable();
        println!(
            "{what}: median {:.0} ms, {:.0} to {:.0} ms",
            ms(took[took.len() / 2]),
            ms(took[0]),
            ms(took[took.len() - 1])
        );
    }
    Ok(())
}

/// One member with 1,000,000 nodes of 100 bytes under 1000 parents.
async fn memory() -> Result<()> {
    const PARENTS: usize = 1000;
    const CHILDREN: usize = 1000;
    let mut cluster = cluster(1).await?;
    let empty = rss_mib(&cluster, 1)?;
    let endpoint = format!("http://{}", cluster.client_door(1));
    let client = Client::builder(endpoint).session_timeout(Duration::from_secs(30)).connect().await?;
    let begun = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut loaders = JoinSet::new();
    for _ in 0..16 {
        let (client, next) = (client.clone(), next.clone());
        loaders.spawn(async move {
            loop {
                let parent = next.fetch_add(1, Ordering::Relaxed) as usize;
                if parent >= PARENTS {
                    return anyhow::Ok(());
                }
                client.create(&format!("/parent-{parent:04}")).await?;
                for hundred in 0..CHILDREN / 100 {
                    let mut txn = client.txn();
                    for child in 0..100 {
                        let path = format!("/parent-{parent:04}/child-{:06}", hundred * 100 + child);
                        txn = txn.create(path, vec![b'x'; 100]);
                    }
                    txn.commit().await?;
                }
            }
        });
    }
    while let Some(done) = loaders.join_next().await {
        done??;
    }
    let loaded = begun.elapsed();
    println!(
        "\nmemory: 1,000,000 nodes of 100 B: {:.0} MiB resident (empty {empty:.0} MiB), loaded at {:.0} nodes/s",
        rss_mib(&cluster, 1)?,
        (PARENTS * CHILDREN) as f64 / loaded.as_secs_f64()
    );
    let begun = Instant::now();
    let snapshot = client.admin().snapshot().await?;
    println!("snapshot: {:.0} MiB in {:.0} ms", snapshot.bytes as f64 / 1048576.0, ms(begun.elapsed()));
    let hold = metric(&cluster, 1, "quorate_snapshot_longest_hold_seconds").await?;
    println!("longest hold of the replica's lock during it: {:.2} ms", hold * 1000.0);
    println!("resident with the snapshot written: {:.0} MiB", rss_mib(&cluster, 1)?);
    drop(client);
    cluster.kill(1).await?;
    let begun = Instant::now();
    cluster.start(1).await?;
    cluster.all_ready().await?;
    println!("restart after kill -9, to serving: {:.0} ms", ms(begun.elapsed()));
    println!("resident after restart: {:.0} MiB", rss_mib(&cluster, 1)?);
    Ok(())
}

/// One member on an empty directory, from the start of the process to serving.
async fn start(rounds: usize) -> Result<()> {
    let mut took = Vec::new();
    for _ in 0..rounds.max(5) {
        let begun = Instant::now();
        let _cluster = cluster(1).await?;
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    println!("\nstart of one member on an empty directory, to serving: median {:.0} ms", ms(took[took.len() / 2]));
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// CPU of all members, microseconds.
fn cpu_us(cluster: &Cluster) -> Result<u64> {
    let mut ticks = 0;
    for pid in cluster.pids() {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let fields: Vec<&str> = stat.rsplit(')').next().context("a stat line")?.split_whitespace().collect();
        ticks += fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    }
    Ok(ticks * 10_000)
}

fn rss_mib(cluster: &Cluster, _member: u8) -> Result<f64> {
    let pid = cluster.pids().next().context("a running member")?;
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: f64 = statm.split_whitespace().nth(1).context("resident pages")?.parse()?;
    Ok(pages * 4096.0 / 1048576.0)
}

/// Flushes of all members so far.
async fn flushes(cluster: &Cluster) -> Result<f64> {
    let mut sum = 0.0;
    for member in 1..=cluster.options().members {
        sum += metric(cluster, member, "quorate_wal_fsync_duration_seconds_count").await?;
    }
    Ok(sum)
}

/// What a member reports; 0 if it does not yet.
async fn metric(cluster: &Cluster, member: u8, name: &str) -> Result<f64> {
    let (_, text) = admin::get(cluster.admin_door(member), "/metrics").await?;
    let values: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.rsplit_once(' ')).collect();
    Ok(values.get(name).copied().unwrap_or("0").parse()?)
}
