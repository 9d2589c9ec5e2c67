//! The process between `quorate lock` and its command: the command ends before the lock can be somebody else's.

mod cli;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cli::{Running, eventually, quorate, start};
use rustix::{
    process::{Pid, Signal, test_kill_process},
    time::{ClockId, clock_gettime},
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A warden, and this test in the place of `quorate lock`.
struct Warden {
    running: Running,
    lock: BufReader<UnixStream>,
    dir: TempDir,
}

/// A moment from now, as wardens are told it.
fn in_ms(ms: u64) -> Value {
    let now = clock_gettime(ClockId::Boottime);
    let then = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32) + Duration::from_millis(ms);
    json!({"held_until": {"secs": then.as_secs(), "nanos": then.subsec_nanos()}})
}

/// Runs `script` in a directory of its own; the lock is held for `held_ms`.
fn warden(args: &[&str], held_ms: u64, script: &str) -> Warden {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut command = quorate(["__warden", "--socket"]);
    command.arg(&socket).args(args).args(["--", "sh", "-c", script]).current_dir(dir.path());
    let running = start(&mut command);
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(cli::WITHIN)).unwrap();
    let mut warden = Warden { running, lock: BufReader::new(stream), dir };
    warden.tell(&in_ms(held_ms));
    warden
}

impl Warden {
    fn tell(&mut self, order: &Value) {
        writeln!(self.lock.get_mut(), "{order}").unwrap();
    }

    fn news(&mut self) -> Value {
        let mut line = String::new();
        self.lock.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no news but {line:?}"))
    }

    /// The process group of the command, once it runs.
    fn group(&mut self) -> Pid {
        let id = self.news()["started"].as_i64().expect("it has started");
        Pid::from_raw(id.try_into().unwrap()).unwrap()
    }

    /// A file the script writes.
    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn until_written(&self, name: &str) -> String {
        let path = self.file(name);
        eventually("the script writes", || fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n')))
    }
}

fn pid_in(path: &Path) -> Pid {
    let text = fs::read_to_string(path).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

/// Whether nothing of it runs. One that has ended and is not waited for yet does not run either.
fn is_gone(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let state = stat.ok().and_then(|stat| Some(stat.rsplit(')').next()?.trim_start().chars().next()? == 'Z'));
    test_kill_process(pid).is_err() || state == Some(true)
}

const TERM: &[&str] = &["--grace-ms", "500", "--on-loss", "term"];

#[test]
fn a_command_that_ends_by_itself_gives_its_code() {
    let mut warden = warden(TERM, 60_000, "exit 7");
    warden.group();

    assert_eq!(warden.running.end().code, Some(7));
}

#[test]
fn a_command_that_cannot_be_run_is_told_as_shells_tell_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut command = quorate(["__warden", "--socket"]);
    let running = start(command.arg(&socket).args(TERM).args(["--", "/nowhere/command"]));
    let (stream, _) = listener.accept().unwrap();
    let mut warden = Warden { running, lock: BufReader::new(stream), dir };
    warden.tell(&in_ms(60_000));

    let told = warden.news()["not_started"].as_str().unwrap().to_owned();

    assert!(told.starts_with("/nowhere/command cannot be run: "), "{told}");
    assert_eq!(warden.running.end().code, Some(127));
}

#[test]
fn a_command_that_obeys_is_ended_in_its_grace() {
    let script = "trap 'echo done > ended; exit 3' TERM; echo > ready; while :; do sleep 0.05; done";
    let mut warden = warden(TERM, 60_000, script);
    warden.group();
    warden.until_written("ready");

    warden.tell(&json!("lost"));

    assert_eq!(warden.news(), json!("terminated"));
    assert_eq!(warden.until_written("ended"), "done\n");
    assert_eq!(warden.running.end().code, Some(3));
}

#[test]
fn a_command_that_does_not_obey_is_killed_before_the_deadline_with_all_it_started() {
    let script = "trap '' TERM; sh -c 'trap \"\" TERM; echo $$ > child; while :; do sleep 0.05; done' & \
                  echo > ready; while :; do sleep 0.05; done";
    let mut warden = warden(TERM, 60_000, script);
    let group = warden.group();
    warden.until_written("child");
    let child = pid_in(&warden.file("child"));

    let held_ms = 2_000;
    warden.tell(&in_ms(held_ms));
    let began = Instant::now();

    assert_eq!(warden.news(), json!("terminated"));
    assert_eq!(warden.news(), json!("killed"));
    eventually("all of it is gone", || (is_gone(group) && is_gone(child)).then_some(()));
    // Both are judged by clocks that a slow machine does not slow down.
    assert!(began.elapsed() >= Duration::from_millis(held_ms - 500), "{:?}", began.elapsed());
    assert_eq!(warden.running.end().code, Some(128 + 9));
}

#[test]
fn no_grace_reaches_beyond_the_deadline() {
    let args = ["--grace-ms", "3600000", "--on-loss", "term"];
    let mut warden = warden(&args, 7_200_000, "trap '' TERM; echo > ready; while :; do sleep 0.05; done");
    let group = warden.group();
    warden.until_written("ready");

    warden.tell(&in_ms(3_700_000));
    warden.tell(&in_ms(1_000));

    assert_eq!(warden.news(), json!("terminated"));
    assert_eq!(warden.news(), json!("killed"));
    eventually("the command is gone", || is_gone(group).then_some(()));
}

#[test]
fn a_deadline_that_moves_on_ends_nothing() {
    let mut warden = warden(TERM, 4_000, "while [ ! -e stop ]; do sleep 0.05; done; exit 4");
    warden.group();
    let began = Instant::now();

    // Longer than the first deadline.
    while began.elapsed() < Duration::from_millis(4_500) {
        warden.tell(&in_ms(60_000));
        std::thread::park_timeout(Duration::from_millis(50));
    }
    assert!(!warden.running.has_ended());
    fs::write(warden.file("stop"), "").unwrap();

    assert_eq!(warden.running.end().code, Some(4));
}

#[test]
fn a_holder_that_is_killed_takes_the_command_with_it() {
    let mut warden = warden(TERM, 60_000, "trap '' TERM; echo > ready; while :; do sleep 0.05; done");
    let group = warden.group();
    warden.until_written("ready");

    // What the system does to the socket of a process that is killed.
    let Warden { running, lock, dir } = warden;
    drop(lock);

    eventually("the command is gone", || is_gone(group).then_some(()));
    assert_eq!(running.end().code, Some(128 + 9));
    drop(dir);
}

#[test]
fn a_holder_that_says_nothing_more_loses_the_command_too() {
    let mut warden = warden(TERM, 1_500, "while :; do sleep 0.05; done");
    let group = warden.group();

    // Stopped, or hanging: the socket is open, and nothing comes.
    assert_eq!(warden.news(), json!("terminated"));

    eventually("the command is gone", || is_gone(group).then_some(()));
}

#[test]
fn on_loss_kill_gives_no_grace_and_ignore_does_nothing() {
    let args = ["--grace-ms", "60000", "--on-loss", "kill"];
    let mut killed = warden(&args, 7_200_000, "trap 'echo > ended' TERM; echo > ready; while :; do sleep 0.05; done");
    killed.group();
    killed.until_written("ready");
    killed.tell(&json!("lost"));
    assert_eq!(killed.news(), json!("killed"));
    assert!(!killed.file("ended").exists());
    assert_eq!(killed.running.end().code, Some(128 + 9));

    let args = ["--grace-ms", "100", "--on-loss", "ignore"];
    let mut ignored = warden(&args, 60_000, "while [ ! -e stop ]; do sleep 0.05; done; exit 5");
    ignored.group();
    ignored.tell(&json!("lost"));
    fs::write(ignored.file("stop"), "").unwrap();
    assert_eq!(ignored.running.end().code, Some(5));
}

#[test]
fn signals_reach_the_command_and_those_for_everybody_do_not_end_the_warden() {
    let script = "trap 'echo hup > got' HUP; trap 'exit 9' USR1; echo > ready; while :; do sleep 0.05; done";
    let mut warden = warden(TERM, 60_000, script);
    warden.group();
    warden.until_written("ready");

    warden.running.signal(Signal::TERM);
    warden.tell(&json!({"signal": Signal::HUP.as_raw()}));
    assert_eq!(warden.until_written("got"), "hup\n");
    warden.tell(&json!({"signal": Signal::USR1.as_raw()}));

    assert_eq!(warden.running.end().code, Some(9));
}

#[test]
fn a_stopped_command_is_woken_to_be_ended() {
    let mut warden = warden(TERM, 60_000, "trap 'exit 6' TERM; echo > ready; while :; do sleep 0.05; done");
    warden.group();
    warden.until_written("ready");
    warden.tell(&json!({"signal": Signal::STOP.as_raw()}));

    warden.tell(&json!("lost"));

    assert_eq!(warden.running.end().code, Some(6));
}
