//! Real processes that are killed, or whose disk refuses to write.
//!
//! This test binary starts itself again, to run one of the ignored tests below as the process that ends badly.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
};

use super::*;

const DIR: &str = "QUORATE_TEST_LOG_DIR";

/// Starts `child` of this module on `dir`. Its `SIGXFSZ` is ignored, so that a write beyond a limit is an error.
fn start(child: &str, dir: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", r#"trap '' XFSZ; exec "$0" "$@""#]);
    command.arg(env::current_exe().unwrap());
    command.args([&format!("storage::log::tests::killed::{child}"), "--exact", "--ignored", "--nocapture"]);
    command.env(DIR, dir).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// The indexes that a child has said to be acknowledged, while `go_on` says so; then kills it.
fn acknowledged(mut child: Child, mut go_on: impl FnMut(u64) -> bool) -> Vec<u64> {
    let mut acknowledged = Vec::new();
    let mut killed = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Some(index) = line.unwrap().strip_prefix("acknowledged ").and_then(|index| index.parse().ok()) else {
            continue;
        };
        acknowledged.push(index);
        if !killed && !go_on(index) {
            // SIGKILL. What it said before is still in the pipe.
            child.kill().unwrap();
            killed = true;
        }
    }
    child.wait().unwrap();
    acknowledged
}

/// In one write, so that no line is cut.
fn say(line: String) {
    std::io::stdout().lock().write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn child_log() -> Log {
    let dir = env::var_os(DIR).expect("this is not a test but a part of one");
    open(Path::new(&dir), LogOptions { sync: true, segment_bytes: 16 << 10, ..options() }).unwrap()
}

#[test]
#[ignore = "a part of another test"]
fn child_appends_for_ever() {
    let log = child_log();
    run(async {
        for index in log.state().last.map_or(1, |last| last.index + 1).. {
            log.append(vec![entry(1, index)], move |result| {
                result.unwrap();
                say(format!("acknowledged {index}"));
            })
            .await
            .unwrap();
            if index % 50 == 0 {
                log.purge(id(1, index - 40)).await;
            }
        }
    });
}

#[test]
fn killed_process_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 1..=6 {
        let first = last + 1;

        let acknowledged =
            acknowledged(start("child_appends_for_ever", dir.path()), |index| index < first + 37 * round);

        let log = open(dir.path(), options()).unwrap();
        last = *acknowledged.last().unwrap();
        assert_eq!(acknowledged[0], first, "the process before lost or invented entries");
        let found = run(log.read(0..u64::MAX, usize::MAX)).unwrap();
        let kept = log.state().purged.map_or(1, |purged| purged.index + 1);
        assert!(log.state().last.unwrap().index >= last, "{:?} of {last}", log.state());
        last = log.state().last.unwrap().index;
        assert_eq!(found, entries(1, kept..=last));
        run(log.close());
    }
}

#[test]
#[ignore = "a part of another test"]
fn child_meets_a_file_size_limit() {
    let log = child_log();
    run(async {
        for index in 1..=20 {
            append(&log, vec![entry(1, index)]).await.unwrap();
            say(format!("acknowledged {index}"));
        }
        let limit = rustix::process::Rlimit { current: Some(1024), maximum: None };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();

        let error = append(&log, vec![entry(1, 21)]).await.unwrap_err();
        say(format!("failed {:?}: {error}", error.kind()));
        append(&log, vec![entry(1, 22)]).await.unwrap_err();
        say(format!("log {}", log.failed().await));
    });
}

#[test]
fn disk_that_refuses_a_write_ends_the_log_with_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();

    let output = start("child_meets_a_file_size_limit", dir.path()).wait_with_output().unwrap();

    let output = String::from_utf8(output.stdout).unwrap();
    assert!(output.contains("acknowledged 20\n"), "{output}");
    assert!(output.contains("failed FileTooLarge: writing "), "{output}");
    assert!(output.contains("\nlog writing "), "{output}");
    let log = open(dir.path(), options()).unwrap();
    assert_eq!(run(read_all(&log)), entries(1, 1..=20));
}
