//! One lock that everybody wants and nobody holds for long. A latency is that of a hand-over: from the release to the
//! next holder.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quorate_recipes::lock::Mutex;
use tokio::task::JoinSet;

use super::{
    Plan, gather,
    measure::{Live, Measured, Window},
    target::{Session, Target, broken},
    zookeeper::ZookeeperSession,
};
use crate::cli::exit::{Exit, Failure};

/// What the contenders share.
struct Scene {
    begun: Instant,
    /// Nanoseconds from then to the last release; 0 before the first.
    released: AtomicU64,
    held: AtomicBool,
    window: Window,
    live: Arc<Live>,
}

impl Scene {
    /// Somebody holds the lock. Two at a time are an error of whoever gave it.
    fn acquired(&self, measured: &mut Measured) -> Result<(), Failure> {
        if self.held.swap(true, Ordering::SeqCst) {
            return Err(Failure::new(Exit::Refused, "two sessions held the lock at the same time"));
        }
        let released = self.released.load(Ordering::SeqCst);
        if released > 0 {
            let now = Instant::now();
            measured.answered(self.begun + Duration::from_nanos(released), now, self.window);
            self.live.done.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn releasing(&self) {
        self.released.store(u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        self.held.store(false, Ordering::SeqCst);
    }

    fn goes_on(&self) -> bool {
        Instant::now() < self.window.to
    }
}

pub(super) async fn run(
    target: &Arc<Target>,
    plan: &Plan,
    folder: &str,
    live: &Arc<Live>,
) -> Result<Measured, Failure> {
    let sessions = target.connect_all(plan.sessions, folder).await?;
    let window = Window::of(plan);
    let scene = Arc::new(Scene {
        begun: Instant::now(),
        released: AtomicU64::new(0),
        held: AtomicBool::new(false),
        window,
        live: live.clone(),
    });
    let mut tasks = JoinSet::new();
    for session in sessions {
        let (scene, folder) = (scene.clone(), folder.to_owned());
        tasks.spawn(async move {
            let mut measured = Measured::new();
            match session {
                Session::Grpc(session) => {
                    let mutex = Mutex::new(&session.client, &folder).map_err(broken)?;
                    while scene.goes_on() {
                        let guard = mutex.lock().await.map_err(broken)?;
                        scene.acquired(&mut measured)?;
                        scene.releasing();
                        guard.release().await.map_err(broken)?;
                    }
                    session.close().await;
                }
                Session::Zookeeper(mut session) => {
                    while scene.goes_on() {
                        let mine = acquire(&mut session, &folder).await.map_err(broken)?;
                        scene.acquired(&mut measured)?;
                        scene.releasing();
                        session.delete(&mine).await.map_err(broken)?;
                    }
                    session.close().await;
                }
            }
            Ok(measured)
        });
    }
    gather(tasks, plan, window).await
}

/// The usual recipe: stand in line and wait for the one in front.
async fn acquire(session: &mut ZookeeperSession, folder: &str) -> std::io::Result<String> {
    let mine = session.create_in_line(&format!("{folder}/lock-")).await?;
    let name = &mine[folder.len() + 1..];
    loop {
        let mut line = session.children(folder).await?;
        line.sort_unstable();
        match line.iter().position(|other| other == name) {
            Some(0) => return Ok(mine),
            Some(at) => {
                if session.watch(&format!("{folder}/{}", line[at - 1])).await? {
                    session.event().await?;
                }
            }
            None => return Err(std::io::Error::other("the place in line is gone")),
        }
    }
}
