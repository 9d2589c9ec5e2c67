//! `quorate lock`: one at a time, and never without the lock.

mod cli;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use cli::{Running, eventually, quorate, run, start};
use quorate_sidecar::testing::TestEnsemble;
use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// An ensemble whose sessions live 1 to 10 seconds, and a directory for what commands write.
struct Scene {
    runtime: Runtime,
    ensemble: TestEnsemble,
    dir: TempDir,
}

impl Scene {
    fn start(members: u8) -> Self {
        let runtime = Runtime::new().unwrap();
        let builder = TestEnsemble::builder().members(members).tick(Duration::from_millis(500));
        let ensemble = runtime.block_on(builder.start()).unwrap();
        Self { runtime, ensemble, dir: tempfile::tempdir().unwrap() }
    }

    /// `quorate lock` with options, of a script of the shell.
    fn lock(&self, options: &[&str], script: &str) -> Command {
        let mut command = quorate(["lock", "job"]);
        command.args(options).args(["--", "sh", "-c", script]).current_dir(self.dir.path());
        command.env("QUORATE_ENDPOINT", self.ensemble.endpoints().join(","));
        command
    }

    fn quorate(&self, args: &[&str]) -> cli::Said {
        run(quorate(args).env("QUORATE_ENDPOINT", self.ensemble.endpoints().join(",")))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn written(&self, name: &str) -> String {
        let whole = || fs::read_to_string(self.file(name)).ok().filter(|text| text.ends_with('\n'));
        eventually("the script writes", whole)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for member in self.ensemble.members().collect::<Vec<_>>() {
            self.runtime.block_on(async { self.ensemble.kill(member) });
        }
    }
}

/// Whether nothing of it runs. One that has ended and is not waited for yet does not run either.
fn is_gone(pid: &str) -> bool {
    let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    let stat = fs::read_to_string(Path::new("/proc").join(pid.as_raw_nonzero().to_string()).join("stat"));
    let state = stat.ok().and_then(|stat| Some(stat.rsplit(')').next()?.trim_start().starts_with('Z')));
    test_kill_process(pid).is_err() || state == Some(true)
}

const FOREVER: &str = "echo $$ > pid; while :; do sleep 0.05; done";

fn held(scene: &Scene, options: &[&str], script: &str) -> (Running, String) {
    let holder = start(&mut scene.lock(options, script));
    let pid = scene.written("pid");
    (holder, pid)
}

#[test]
fn the_command_finds_its_lock_in_its_environment_and_gives_its_code() {
    let scene = Scene::start(1);
    let script = "echo $QUORATE_LOCK_NAME $QUORATE_LOCK_PATH $QUORATE_LOCK_TOKEN $QUORATE_SESSION_ID \
                  $QUORATE_LOCK_DEADLINE_UNIX_MS; exit 42";

    let first = run(&mut scene.lock(&[], script));
    let second = run(&mut scene.lock(&[], script));

    assert_eq!((first.code, second.code), (Some(42), Some(42)), "{first:?}");
    let words: Vec<_> = first.out.split_whitespace().collect();
    assert_eq!(words[..2], ["job", "/locks/job"]);
    assert!(words[3].starts_with("0x"), "{words:?}");
    assert!(words[4].parse::<u64>().unwrap() > 1_700_000_000_000);
    let token = |said: &cli::Said| said.out.split_whitespace().nth(2).unwrap().parse::<u64>().unwrap();
    assert!(token(&second) > token(&first), "tokens grow");
    assert_eq!(scene.quorate(&["ls", "/locks/job"]).out, "", "the lock is free again");
}

#[test]
fn who_comes_second_waits_or_gives_up_as_asked() {
    let scene = Scene::start(1);
    let (holder, _) = held(&scene, &[], "echo $$ > pid; while [ ! -e stop ]; do sleep 0.05; done");

    let tried = run(&mut scene.lock(&["--try"], "echo > wrong"));
    tried.refused(7, "error: job was not acquired: held by sh");
    let waited = run(&mut scene.lock(&["--wait", "300ms"], "echo > wrong"));
    waited.refused(7, "job was not acquired");
    assert!(!scene.file("wrong").exists());

    let mut next = start(&mut scene.lock(&[], "echo mine"));
    let told = next.err("waiting for job: 1 ahead, held by sh");
    assert!(told.contains("(token "), "{told}");
    fs::write(scene.file("stop"), "").unwrap();
    assert_eq!(holder.end().code, Some(0));
    assert_eq!(next.out("mine"), "");
    assert_eq!(next.end().code, Some(0));
}

#[test]
fn who_waits_can_be_stopped_and_leaves_no_place() {
    let scene = Scene::start(1);
    let (holder, _) = held(&scene, &[], FOREVER);
    let mut waiting = start(&mut scene.lock(&[], "echo > wrong"));
    waiting.err("waiting for job: ");

    waiting.signal(Signal::INT);

    assert_eq!(waiting.end().code, Some(128 + 2));
    eventually("its place is gone", || (scene.quorate(&["ls", "/locks/job"]).out.lines().count() == 1).then_some(()));
    assert!(!scene.file("wrong").exists());
    drop(holder);
}

#[test]
fn signals_go_to_the_command_and_the_lock_is_free_after_it() {
    let scene = Scene::start(1);
    let script = "trap 'echo hup > got' HUP; trap 'exit 3' TERM; echo $$ > pid; while :; do sleep 0.05; done";
    let (holder, _) = held(&scene, &[], script);

    holder.signal(Signal::HUP);
    assert_eq!(scene.written("got"), "hup\n");
    holder.signal(Signal::TERM);

    assert_eq!(holder.end().code, Some(3));
    assert_eq!(run(&mut scene.lock(&["--try"], "exit 0")).code, Some(0));
}

#[test]
fn a_command_that_cannot_be_run_leaves_the_lock_free() {
    let scene = Scene::start(1);
    let mut command = quorate(["lock", "job", "--", "/nowhere/command"]);
    command.env("QUORATE_ENDPOINT", scene.ensemble.endpoint(1));

    let said = run(&mut command);

    said.refused(127, "error: /nowhere/command cannot be run: ");
    assert_eq!(scene.quorate(&["ls", "/locks/job"]).out, "");
}

#[test]
fn a_lost_session_ends_the_command_with_8() {
    let scene = Scene::start(1);
    let (mut holder, pid) = held(&scene, &[], FOREVER);
    let sessions: Value = serde_json::from_str(&scene.quorate(&["session", "list", "-o", "json"]).out).unwrap();
    let row = sessions.as_array().unwrap().iter().find(|row| row["client_name"] == "quorate lock job");
    let id = row.expect("it is listed")["id"].as_str().unwrap();
    let id = u64::from_str_radix(id.trim_start_matches("0x"), 16).unwrap();

    scene.runtime.block_on(scene.ensemble.expire_session(id)).unwrap();

    holder.err("job is lost: ");
    holder.err("job cannot be counted on any more: the command was sent SIGTERM");
    let said = holder.end();
    assert_eq!(said.code, Some(8), "{said:?}");
    assert!(said.err.contains("error: job was lost while the command ran: "), "{}", said.err);
    assert!(is_gone(&pid));
}

#[test]
fn an_evicted_holder_ends_its_command() {
    let scene = Scene::start(1);
    let (holder, pid) = held(&scene, &["--on-loss", "kill"], FOREVER);
    let node = scene.quorate(&["ls", "/locks/job"]).out;

    assert_eq!(scene.quorate(&["rm", &format!("/locks/job/{}", node.trim())]).code, Some(0));

    let said = holder.end();
    assert_eq!(said.code, Some(8), "{said:?}");
    assert!(is_gone(&pid));
}

#[test]
fn an_ensemble_that_falls_silent_ends_the_command_before_anybody_else_can_hold() {
    let mut scene = Scene::start(1);
    let script = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done";
    let (holder, pid) = held(&scene, &["--ttl", "3s", "--grace", "500ms"], script);

    scene.runtime.block_on(scene.ensemble.pause(1)).unwrap();

    eventually("the command is gone", || is_gone(&pid).then_some(()));
    // The ensemble has not moved since: nobody can have got the lock.
    scene.ensemble.resume(1).unwrap();
    let said = holder.end();
    assert_eq!(said.code, Some(8), "{said:?}");
    assert!(said.err.contains("the command was killed"), "{}", said.err);
}

#[test]
fn a_killed_holder_takes_its_command_with_it_before_the_lock_passes_on() {
    let scene = Scene::start(1);
    let script = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done";
    let (holder, pid) = held(&scene, &["--ttl", "3s", "--grace", "200ms"], script);
    let pid = pid.trim().to_owned();
    let mut next = start(&mut scene.lock(&[], &format!("kill -0 {pid} 2> /dev/null && echo both || echo alone")));
    next.err("waiting for job: ");

    holder.signal(Signal::KILL);

    assert_eq!(next.out(""), "alone");
}

#[test]
fn a_stopped_holder_loses_its_command_before_the_lock_passes_on() {
    let scene = Scene::start(1);
    let script = "trap '' TERM; echo $$ > pid; while :; do sleep 0.05; done";
    let (holder, pid) = held(&scene, &["--ttl", "3s", "--grace", "200ms"], script);
    let pid = pid.trim().to_owned();
    let mut next = start(&mut scene.lock(&[], &format!("kill -0 {pid} 2> /dev/null && echo both || echo alone")));
    next.err("waiting for job: ");

    holder.signal(Signal::STOP);

    assert_eq!(next.out(""), "alone");
    holder.signal(Signal::CONT);
    let said = holder.end();
    assert_eq!(said.code, Some(8), "{said:?}");
}

#[test]
fn the_death_of_the_leader_does_not_disturb_a_holder() {
    let mut scene = Scene::start(3);
    let (holder, _) = held(&scene, &["--ttl", "10s"], "echo $$ > pid; while [ ! -e stop ]; do sleep 0.05; done");
    let leader = scene.runtime.block_on(scene.ensemble.leader()).unwrap();

    scene.ensemble.kill(leader);
    // The others find out that it is gone.
    eventually("another one leads", || {
        let known = scene.runtime.block_on(scene.ensemble.leader()).unwrap();
        (known != leader).then_some(())
    });

    let tried = run(&mut scene.lock(&["--try"], "echo > wrong"));
    tried.refused(7, "job was not acquired");
    fs::write(scene.file("stop"), "").unwrap();
    assert_eq!(holder.end().code, Some(0));
}
