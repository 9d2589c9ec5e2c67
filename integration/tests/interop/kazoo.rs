//! kazoo, the client of Python.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use quorate_integration::{cluster::on_processes, ensemble::Ensemble, peers};

use crate::{
    options,
    program::{Program, source},
};

fn python(peer: &Path, script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(peer.join("bin/python"));
    command.arg("-u").arg(source(script)).args(arguments);
    command
}

#[test]
fn kazoo_and_its_recipes_work() {
    let Some(peer) = peers::find(peers::KAZOO).unwrap() else { return };

    on_processes(options(), async |cluster| {
        let program = Program::start("kazoo", python(&peer, "kazoo/recipes.py", &[&cluster.zookeeper_doors()]))?;
        let said = program.succeeds().await?;
        ensure!(said.iter().any(|line| line == "all passed"), "{said:?}");
        Ok(())
    });
}

/// The member that serves it.
async fn home(program: &mut Program, doors: &[(u8, String)]) -> Result<u8> {
    program.tell("where").await?;
    let port = program.says("at ").await?;
    let found = doors.iter().find(|(_, door)| door.ends_with(&format!(":{port}")));
    Ok(found.with_context(|| format!("no door has port {port}"))?.0)
}

#[test]
fn a_session_of_kazoo_moves_when_its_member_is_killed_and_keeps_its_ephemerals_and_watches() {
    let Some(peer) = peers::find(peers::KAZOO).unwrap() else { return };

    on_processes(options(), async |cluster| {
        let doors: Vec<_> = cluster.ids().into_iter().map(|id| (id, cluster.zookeeper_door(id).to_string())).collect();
        let mut program = Program::start("kazoo", python(&peer, "kazoo/moves.py", &[&cluster.zookeeper_doors()]))?;
        program.says("ready").await?;
        for round in 0..2 {
            let at = home(&mut program, &doors).await?;
            cluster.kill(at).await?;
            program.tell(&format!("killed {round}")).await?;
            program.says("moved").await?;
            cluster.start(at).await?;
            cluster.all_ready().await?;
        }
        program.tell("end").await?;
        program.succeeds().await?;
        Ok(())
    });
}
