//! How fast it is. Run with `cargo test --release -p quorate-sidecar --lib measure -- --ignored --nocapture`.

use super::*;

const WARM_UP: Duration = Duration::from_secs(1);
const WINDOW: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and proves nothing"]
async fn writes_per_second_by_writers() {
    let mut cluster = Cluster::new(3);
    cluster.synced = true;
    cluster.start_all().await;
    let leader = cluster.leader().await;
    for (name, member) in [("leader", leader), ("follower", cluster.followers(leader)[0])] {
        for writers in [1, 16, 64, 256, 1024] {
            measure(&cluster, name, member, writers).await;
        }
    }
    cluster.stop().await;
}

async fn measure(cluster: &Cluster, name: &str, member: u8, writers: usize) {
    let session = cluster.member(member).open_session(40_000).await;
    let running = cluster.member(member);
    let path = |writer| format!("/{name}-{writers}-{writer}");
    futures_util::future::join_all((0..writers).map(|writer| running.write(session, create(&path(writer))))).await;
    let begin = Instant::now() + WARM_UP;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..writers {
        let path = path(writer);
        let ensemble = running.ensemble.clone();
        tasks.spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < begin + WINDOW {
                let at = Instant::now();
                let (ticket, settled) = oneshot::channel();
                let author = Author { session, attachment: 1, write: None, identities: [].into() };
                ensemble.propose(author, set(&path, 256), None, Completion::Ticket(ticket));
                settled.await.unwrap();
                if at > begin {
                    took.push(at.elapsed());
                }
            }
            took
        });
    }
    let mut took: Vec<Duration> = tasks.join_all().await.into_iter().flatten().collect();
    took.sort_unstable();
    let of = |share: f64| took[(took.len() as f64 * share) as usize % took.len()];
    println!(
        "{name:8} {writers:5} writers: {:7.0}/s p50 {:?} p99 {:?}",
        took.len() as f64 / WINDOW.as_secs_f64(),
        of(0.5),
        of(0.99),
    );
}
