//! Sessions that are opened and closed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    Plan, gather,
    measure::{Live, Measured, Window},
    target::Target,
};
use crate::cli::exit::Failure;

/// After a session that could not be opened.
const PAUSE: Duration = Duration::from_millis(5);

pub(super) async fn run(target: &Arc<Target>, plan: &Plan, live: &Arc<Live>) -> Result<Measured, Failure> {
    let window = Window::of(plan);
    let mut tasks = JoinSet::new();
    for at in 0..plan.sessions {
        let (target, live) = (target.clone(), live.clone());
        tasks.spawn(async move {
            let mut measured = Measured::new();
            while Instant::now() < window.to {
                let since = Instant::now();
                match target.connect(at).await {
                    Ok(session) => {
                        session.close().await;
                        live.done.fetch_add(1, Ordering::Relaxed);
                        measured.answered(since, Instant::now(), window);
                    }
                    Err(failure) => {
                        live.errors.fetch_add(1, Ordering::Relaxed);
                        measured.failed(failure);
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
            Ok(measured)
        });
    }
    gather(tasks, plan, window).await
}
