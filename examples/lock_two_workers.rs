//! Two workers, one lock: never both at once, and each holder's token is greater than the one before.
//!
//! `cargo run --example lock_two_workers`

use std::sync::atomic::{AtomicU64, Ordering};

use quorate::Client;
use quorate_recipes::Mutex;
use quorate_sidecar::testing::TestEnsemble;

/// What the lock protects refuses a holder that is late: the token has grown since.
#[derive(Default)]
struct Ledger {
    greatest_token: AtomicU64,
}

impl Ledger {
    fn write(&self, token: u64, worker: &str) -> anyhow::Result<()> {
        let before = self.greatest_token.fetch_max(token, Ordering::SeqCst);
        anyhow::ensure!(before <= token, "{worker} is late: token {token}, seen {before}");
        println!("{worker} writes with token {token}");
        Ok(())
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ensemble = TestEnsemble::start(3).await?;
    let ledger = Ledger::default();

    let work = async |worker: &str| -> anyhow::Result<()> {
        // Each worker has a session of its own, as two processes would.
        let client = Client::builder(ensemble.endpoints()).client_name(worker).connect().await?;
        let mutex = Mutex::new(&client, "/locks/ledger")?;
        for _ in 0..3 {
            let guard = mutex.lock().await?;
            // Ends at once if the lock is lost: nobody works without it.
            let token = guard.token().get();
            guard.scope(async { ledger.write(token, worker) }).await??;
            guard.release().await?;
        }
        Ok(())
    };
    tokio::try_join!(work("ada"), work("grace"))?;
    ensemble.shutdown().await;
    Ok(())
}
