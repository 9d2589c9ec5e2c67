//! ZooKeeper's own command line, and Curator: alone, and together with our recipes.

use std::{path::PathBuf, process::Command, sync::OnceLock, time::Duration};

use anyhow::{Context, Result, ensure};
use quorate::Client;
use quorate_integration::{
    cluster::{Cluster, on_processes},
    ensemble::Ensemble,
    eventually::{SOON, eventually},
    load::{close, connect},
    peers,
};
use quorate_recipes::{
    Discovery, Election, Mutex, Registry,
    discovery::{Instance, PayloadProfile},
};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{
    options,
    program::{Program, source},
};

/// A command of our Java program, compiled once. `None` where Curator is missing.
fn curator() -> Result<Option<impl Fn(&[&str]) -> Command>> {
    static CLASSES: OnceLock<TempDir> = OnceLock::new();
    let Some(peer) = peers::find(peers::CURATOR)? else { return Ok(None) };
    let classes = CLASSES.get_or_init(|| {
        let classes = TempDir::with_prefix("quorate-java-").expect("a directory");
        let compiled = Command::new("javac")
            .args(["-nowarn", "-cp", &format!("{}/*", peer.join("lib").display()), "-d"])
            .arg(classes.path())
            .arg(source("java/Interop.java"))
            .output()
            .expect("javac runs");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        classes
    });
    let classes: PathBuf = classes.path().into();
    Ok(Some(move |arguments: &[&str]| {
        let mut command = peers::java(&peer, Some(&classes));
        command.arg("Interop").args(arguments);
        command
    }))
}

/// The Java program, connected and waiting to be told what to do.
async fn serving(cluster: &Cluster, command: impl Fn(&[&str]) -> Command) -> Result<Program> {
    let mut java = Program::start("curator", command(&["serve", &cluster.zookeeper_doors()]))?;
    java.says("ready").await?;
    Ok(java)
}

async fn ask(java: &mut Program, line: &str, answer: &str) -> Result<String> {
    java.tell(line).await?;
    java.says(answer).await
}

async fn end(mut java: Program) -> Result<()> {
    ask(&mut java, "end", "ended").await?;
    java.succeeds().await.map(drop)
}

async fn native(cluster: &Cluster) -> Result<Client> {
    connect(cluster.endpoints(), cluster.tick() * 20).await
}

#[test]
fn zookeepers_command_line_works() {
    let Some(peer) = peers::find(peers::ZOOKEEPER).unwrap() else { return };

    on_processes(options(), async |cluster| {
        let mut command = peers::java(&peer, None);
        command.args(["org.apache.zookeeper.ZooKeeperMain", "-server", &cluster.zookeeper_doors()]);
        let mut cli = Program::start("zkCli", command)?;
        for line in [
            "create /cli hello",
            "create -s /cli/s- one",
            "create -e /cli/e mine",
            "create -c /cli/c",
            "create -t 100000 /cli/t brief",
            "get -s /cli",
            "set -v 0 /cli world",
            "stat /cli",
            "ls -R /cli",
            "getAcl /cli",
            "addauth digest ada:secret",
            "setAcl /cli/t auth::cdrwa",
            "getAcl /cli/t",
            "whoami",
            "getEphemerals /cli",
            "getAllChildrenNumber /cli",
            "setquota -N 10 /cli",
            "listquota /cli",
            "delquota /cli",
            "sync /cli",
            "addWatch -m PERSISTENT_RECURSIVE /cli",
            "config",
            "deleteall /cli",
            "ls /",
            "quit",
        ] {
            cli.tell(line).await?;
        }
        let said = cli.succeeds().await?.join("\n");

        for expected in [
            "hello\n",
            "dataVersion = 1",
            "/cli/s-0000000000\n",
            "'world,'anyone\n: cdrwa",
            "'digest,'ada:",
            "Auth scheme: User",
            "digest: ada",
            "[/cli/e]",
            "Sync is OK",
            ":participant",
            "[zookeeper]",
        ] {
            ensure!(said.contains(expected), "{expected:?} is not in what it said:\n{said}");
        }
        Ok(())
    });
}

#[test]
fn curator_and_its_recipes_work() {
    let Some(command) = curator().unwrap() else { return };

    on_processes(options(), async |cluster| {
        let said = Program::start("curator", command(&["check", &cluster.zookeeper_doors()]))?.succeeds().await?;
        ensure!(said.iter().any(|line| line == "all passed"), "{said:?}");
        Ok(())
    });
}

#[test]
fn curators_mutex_and_ours_exclude_each_other() {
    let Some(command) = curator().unwrap() else { return };

    on_processes(options(), async |cluster| {
        let mut java = serving(cluster, command).await?;
        let client = native(cluster).await?;
        let mutex = Mutex::new(&client, "/mixed/mutex")?;

        // Java holds it: we see it there, and wait for it.
        ask(&mut java, "lock /mixed/mutex", "locked").await?;
        client.sync("/").await?;
        ensure!(mutex.try_lock().await?.is_none(), "both have it");
        ensure!(mutex.queue().await?.len() == 1, "the other is not seen");
        let waiting = mutex.lock();
        let mut waiting = std::pin::pin!(async { waiting.await });
        ensure!(timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "both have it");
        ensure!(ask(&mut java, "participants /mixed/mutex", "participants ").await? == "2", "we are not seen");
        ask(&mut java, "unlock /mixed/mutex", "unlocked").await?;
        let guard = timeout(SOON, waiting).await.context("it is free and we do not get it")??;

        // We hold it: Java waits for us.
        ensure!(ask(&mut java, "try /mixed/mutex", "").await? == "taken", "both have it");
        java.tell("lock /mixed/mutex").await?;
        eventually("Java waits", SOON, async || match mutex.queue().await {
            Ok(queue) if queue.len() == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        guard.release().await?;
        java.says("locked").await?;
        ask(&mut java, "unlock /mixed/mutex", "unlocked").await?;
        end(java).await?;
        close(client).await
    });
}

#[test]
fn curators_leader_latch_and_our_election_elect_one_leader() {
    let Some(command) = curator().unwrap() else { return };

    on_processes(options(), async |cluster| {
        let mut java = serving(cluster, command).await?;
        let client = native(cluster).await?;
        let election = Election::builder(&client, "/mixed/latch").id("rust").build()?;

        ask(&mut java, "latch /mixed/latch java", "joined").await?;
        ask(&mut java, "leads /mixed/latch", "leads").await?;
        client.sync("/").await?;
        let leader = election.leader().await?.context("somebody leads")?;
        ensure!(leader.id() == "java", "{leader:?}");
        let mut campaign = std::pin::pin!(election.campaign());
        ensure!(timeout(Duration::from_millis(200), &mut campaign).await.is_err(), "both lead");
        let told = ask(&mut java, "leader /mixed/latch", "leader ").await?;
        ensure!(told == "java leads true of java,rust", "{told}");

        ask(&mut java, "leave /mixed/latch", "left").await?;
        let leadership = timeout(SOON, campaign).await.context("nobody leads")??;
        ask(&mut java, "latch /mixed/latch java", "joined").await?;
        eventually("Java takes part again", SOON, async || match election.participants().await {
            Ok(all) if all.len() == 2 => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        let told = ask(&mut java, "leader /mixed/latch", "leader ").await?;
        ensure!(told == "rust leads false of java,rust", "{told}");

        leadership.resign().await?;
        ask(&mut java, "leads /mixed/latch", "leads").await?;
        end(java).await?;
        close(client).await
    });
}

#[test]
fn curators_discovery_and_our_registry_find_each_others_instances() {
    let Some(command) = curator().unwrap() else { return };

    on_processes(options(), async |cluster| {
        let mut java = serving(cluster, command).await?;
        let client = native(cluster).await?;

        let registry = Registry::curator(&client, "/mixed/services", PayloadProfile::None);
        let instance = Instance::builder("bills").id("r1").address("10.1.2.3").port(8080);
        let registration = registry.register(instance).await?;
        let found = ask(&mut java, "find /mixed/services bills", "found ").await?;
        ensure!(found == "r1@10.1.2.3:8080", "{found}");

        ask(&mut java, "register /mixed/services orders j1 10.3.2.1 9090", "registered").await?;
        let view = Discovery::curator(&client, "/mixed/services").service("orders").watch().await?;
        view.wait_for(1, SOON).await?;
        let all = view.instances();
        ensure!(all[0].id() == "j1" && all[0].address() == Some("10.3.2.1") && all[0].port() == Some(9090), "{all:?}");

        registration.deregister().await?;
        end(java).await?;
        close(client).await
    });
}

#[test]
fn ephemerals_of_either_door_fire_watches_of_the_other() {
    let Some(command) = curator().unwrap() else { return };

    on_processes(options(), async |cluster| {
        let mut java = serving(cluster, command).await?;
        let (owner, observer) = (native(cluster).await?, native(cluster).await?);

        owner.create("/ours").ephemeral().await?;
        ask(&mut java, "watch /ours", "watching").await?;
        close(owner).await?;
        let event = ask(&mut java, "event", "event ").await?;
        ensure!(event == "NodeDeleted /ours", "{event}");

        ask(&mut java, "create /theirs EPHEMERAL", "created").await?;
        observer.sync("/").await?;
        let owner = observer.exists("/theirs").await?.and_then(|stat| stat.ephemeral_owner).context("it is there")?;
        let session: i64 = ask(&mut java, "session", "session ").await?.parse()?;
        ensure!(owner.0 == session as u64, "it belongs to {owner:?}, not to {session:#x}");
        let mut gone = std::pin::pin!(observer.watch("/theirs").once_deleted());
        ensure!(timeout(Duration::ZERO, &mut gone).await.is_err(), "it is gone already");
        end(java).await?;
        timeout(SOON, gone).await.context("its end was not told")??;
        close(observer).await
    });
}

#[test]
fn a_session_of_curator_moves_when_its_member_is_killed_and_keeps_its_ephemerals_and_watches() {
    let Some(command) = curator().unwrap() else { return };

    on_processes(options(), async |cluster| {
        let doors: Vec<_> = cluster.ids().into_iter().map(|id| (id, cluster.zookeeper_door(id).port())).collect();
        let observer = native(cluster).await?;
        observer.create("/news").data("0").await?;
        let mut java = serving(cluster, command).await?;
        ask(&mut java, "follow /news", "following").await?;
        ask(&mut java, "create /mine EPHEMERAL", "created").await?;
        let session = ask(&mut java, "session", "session ").await?;

        for round in 1..=2 {
            ask(&mut java, "watch /once", "watching").await?;
            let port: u16 = ask(&mut java, "where", "at ").await?.parse()?;
            let (home, _) = *doors.iter().find(|(_, door)| *door == port).context("a door has this port")?;
            cluster.kill(home).await?;
            let value = format!("{round}");
            observer.set("/news", value.clone()).await?;
            observer.create("/once").await?;

            // Its recursive watch and its one-shot watch have come along.
            ask(&mut java, &format!("see /news {value}"), "seen").await?;
            let event = ask(&mut java, "event", "event ").await?;
            ensure!(event == "NodeCreated /once", "{event}");
            ensure!(ask(&mut java, "session", "session ").await? == session, "the session is another one");
            observer.sync("/").await?;
            ensure!(observer.exists("/mine").await?.is_some(), "the ephemeral node is gone");
            observer.delete("/once").await?;
            cluster.start(home).await?;
            cluster.all_ready().await?;
        }
        end(java).await?;
        close(observer).await
    });
}
