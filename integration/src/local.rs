//! An ensemble inside this process: the test kit of the sidecar, behind the same seam as real processes.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, anyhow, ensure};
use quorate_sidecar::testing::{TestEnsemble, TestEnsembleBuilder};
use tokio::{runtime, time::timeout};

use crate::{cluster::SCENARIO_MAX, ensemble::Ensemble};

/// The kit's ensemble, and which of its members run.
#[derive(Debug)]
pub struct Local {
    kit: TestEnsemble,
    running: Vec<u8>,
    tick: Duration,
    election_timeout: Duration,
}

/// Runs a scenario on three members in this process, all of them ready when it begins.
///
/// # Panics
/// If the scenario fails or does not end.
pub fn in_process(scenario: impl AsyncFnOnce(&mut Local) -> Result<()>) {
    in_process_with(|as_it_is| as_it_is, scenario);
}

/// The same, on an ensemble that is set up otherwise.
///
/// # Panics
/// If the scenario fails or does not end.
pub fn in_process_with(
    change: impl FnOnce(TestEnsembleBuilder) -> TestEnsembleBuilder,
    scenario: impl AsyncFnOnce(&mut Local) -> Result<()>,
) {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async {
        let mut local = Local::with(change).await?;
        let scenario = timeout(SCENARIO_MAX, scenario(&mut local));
        scenario.await.unwrap_or_else(|_| Err(anyhow!("it hangs for {SCENARIO_MAX:?}")))
    });
    if let Err(error) = outcome {
        panic!("{error:#}");
    }
}

impl Local {
    /// Starts an ensemble and waits until all members serve.
    pub async fn new(members: u8) -> Result<Self> {
        Self::with(|builder| builder.members(members)).await
    }

    async fn with(change: impl FnOnce(TestEnsembleBuilder) -> TestEnsembleBuilder) -> Result<Self> {
        let (tick, election_timeout) = (Duration::from_millis(500), Duration::from_millis(600));
        let builder = TestEnsemble::builder().members(3).tick(tick).election_timeout(election_timeout);
        let kit = change(builder).start().await?;
        let running = kit.members().collect();
        Ok(Self { kit, running, tick, election_timeout })
    }

    /// The kit itself.
    pub fn kit(&mut self) -> &mut TestEnsemble {
        &mut self.kit
    }

    fn forget(&mut self, id: u8) -> Result<()> {
        let place = self.running.iter().position(|running| *running == id);
        self.running.remove(place.with_context(|| format!("member {id} does not run"))?);
        Ok(())
    }
}

impl Ensemble for Local {
    fn ids(&self) -> Vec<u8> {
        self.kit.members().collect()
    }

    fn running(&self) -> Vec<u8> {
        self.running.clone()
    }

    fn endpoint(&self, id: u8) -> String {
        self.kit.endpoint(id)
    }

    fn admin_door(&self, id: u8) -> SocketAddr {
        let address = self.kit.config(id).admin_addr.as_ref().expect("the kit opens this door");
        address.to_string().parse().expect("the kit gives addresses, not names")
    }

    fn tick(&self) -> Duration {
        self.tick
    }

    fn election_timeout(&self) -> Duration {
        self.election_timeout
    }

    async fn start(&mut self, id: u8) -> Result<()> {
        ensure!(!self.running.contains(&id), "member {id} runs already");
        self.kit.restart(id).await?;
        self.running.push(id);
        self.running.sort_unstable();
        Ok(())
    }

    async fn kill(&mut self, id: u8) -> Result<()> {
        self.forget(id)?;
        self.kit.kill(id);
        Ok(())
    }

    async fn stop(&mut self, id: u8) -> Result<()> {
        self.forget(id)?;
        Ok(self.kit.stop(id).await?)
    }

    async fn wipe(&mut self, id: u8) -> Result<()> {
        Ok(self.kit.wipe(id)?)
    }

    async fn pause(&mut self, id: u8) -> Result<()> {
        Ok(self.kit.pause(id).await?)
    }

    async fn resume(&mut self, id: u8) -> Result<()> {
        Ok(self.kit.resume(id)?)
    }

    async fn cut_off(&mut self, id: u8) -> Result<()> {
        Ok(self.kit.cut_off(id)?)
    }

    async fn heal(&mut self, id: u8) -> Result<()> {
        Ok(self.kit.reconnect(id)?)
    }

    fn check_alive(&mut self, id: u8) -> Result<()> {
        // A member of the kit that fails says so where its thread ends.
        ensure!(self.running.contains(&id), "member {id} does not run");
        Ok(())
    }
}
