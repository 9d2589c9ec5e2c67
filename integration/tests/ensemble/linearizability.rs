//! Histories of clients while members die and links break, judged afterwards.

use anyhow::Result;
use quorate_integration::{
    cluster::{Options, on_processes},
    ensemble::Ensemble,
    load::Registers,
    local::in_process,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::rounds;

/// Does something to a member, chosen by the seed, and undoes it.
async fn disturb(ensemble: &mut impl Ensemble, random: &mut StdRng, registers: &Registers) -> Result<()> {
    let ids = ensemble.ids();
    let victim = match random.random_range(0..2) {
        0 => ensemble.leader().await?,
        _ => ids[random.random_range(0..ids.len())],
    };
    let operations = random.random_range(20..100);
    match random.random_range(0..3) {
        0 => {
            ensemble.kill(victim).await?;
            registers.more(operations).await?;
            ensemble.start(victim).await?;
        }
        1 => {
            ensemble.cut_off(victim).await?;
            registers.more(operations).await?;
            ensemble.heal(victim).await?;
        }
        _ => {
            ensemble.kill_all().await?;
            ensemble.start_all().await?;
        }
    }
    ensemble.all_ready().await
}

async fn history_is_linearizable(ensemble: &mut impl Ensemble) -> Result<()> {
    for round in 0..rounds() {
        let seed = rand::random();
        eprintln!("round {round}: seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let registers = Registers::start(ensemble, 6, 4, seed).await?;
        for _ in 0..5 {
            registers.more(100).await?;
            disturb(ensemble, &mut random, &registers).await?;
        }
        registers.more(100).await?;
        registers.finish().await?.check()?;
        ensemble.converged().await?;
    }
    Ok(())
}

#[test]
fn writes_and_linearizable_reads_are_linearizable_while_members_vanish_and_are_cut_off() {
    in_process(async |local| history_is_linearizable(local).await);
}

#[test]
fn writes_and_linearizable_reads_are_linearizable_under_kill_9_and_cut_links() {
    let options = Options { proxied: true, ..Options::default() };
    on_processes(options, async |cluster| history_is_linearizable(cluster).await);
}
