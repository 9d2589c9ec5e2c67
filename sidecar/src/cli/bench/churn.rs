//! Sessions that are opened and closed.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use tokio::task::JoinSet;

use super::{
    Plan, gather,
    measure::{Live, Measured, Window},
    target::Target,
};
use crate::cli::exit::Failure;

pub(super) async fn run(target: &Arc<Target>, plan: &Plan, live: &Arc<Live>) -> Result<Measured, Failure> {
    let window = Window::of(plan);
    let mut tasks = JoinSet::new();
    for at in 0..plan.sessions {
        let (target, live) = (target.clone(), live.clone());
        tasks.spawn(async move {
            let mut measured = Measured::new();
            while Instant::now() < window.to {
                let since = Instant::now();
                target.connect(at).await?.close().await;
                live.done.fetch_add(1, Ordering::Relaxed);
                measured.answered(since, Instant::now(), window);
            }
            Ok(measured)
        });
    }
    gather(tasks).await
}
