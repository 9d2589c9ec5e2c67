//! What the binary says before it does anything: help, settings that cannot work, nobody to talk to.

mod cli;

use std::io::Write;

use cli::{quorate, run, start_unread};

/// Nobody listens on port 1.
const NOBODY: &str = "http://127.0.0.1:1";

#[test]
fn called_with_nothing_it_shows_the_first_steps() {
    let said = run(&mut quorate::<&str>([]));

    said.refused(2, "quorate dev");
    assert!(said.err.lines().count() < 15, "{}", said.err);
}

#[test]
fn help_and_version_are_data() {
    for args in [&["--help"][..], &["help", "serve"], &["serve", "-h"], &["session", "list", "--help"]] {
        let said = run(&mut quorate(args));

        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{args:?}");
        assert!(said.out.contains("Usage: quorate"), "{args:?}: {}", said.out);
    }
    let version = run(&mut quorate(["--version"]));
    assert_eq!(version.out, format!("quorate {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let said = run(&mut quorate(["completions", shell]));

        assert_eq!(said.code, Some(0), "{said:?}");
        assert!(said.out.contains("serve") && said.out.contains("election-timeout-ms"), "{shell}");
    }
}

#[test]
fn an_unknown_key_of_the_file_is_named_with_the_one_that_was_meant() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "id = 1\nclient_adress = '127.0.0.1:0'").unwrap();

    let said = run(quorate(["serve", "--config"]).arg(file.path()));

    said.refused(2, "line 2: there is no key `client_adress`; did you mean `client_addr`?");
}

#[test]
fn settings_that_are_missing_or_contradict_each_other_are_explained() {
    let three = "1=127.0.0.1:7201,2=127.0.0.1:7202,3=127.0.0.1:7203";
    for (args, told) in [
        (&[][..], "the member's id is missing: give --id N, or set QUORATE_ID"),
        (&["--id", "1", "--data-dir", "d"], "the list of voters is missing: give --ensemble 1=HOST:PORT"),
        (&["--id", "4", "--data-dir", "d", "--ensemble", three], "member 4 does not stand in the ensemble"),
        (
            &["--id", "1", "--data-dir", "d", "--ensemble", three, "--client-addr", "0.0.0.0:0"],
            "--client-addr 0.0.0.0:0 can be reached from other machines, and there is no TLS yet",
        ),
        (
            &["--id", "1", "--data-dir", "d", "--ensemble", three, "--zookeeper-addr", "0.0.0.0:2181"],
            "--zookeeper-addr 0.0.0.0:2181 can be reached from other machines, and there is no TLS yet",
        ),
        (&["--four-letter-words", "ruok,nope"], "`nope` is no four-letter word of this door; there are ruok,srvr,"),
        (&["--id", "1", "--data-dir", "d", "--ensemble", three, "--log-level", "a=b=c"], "--log-level `a=b=c`"),
        (&["--id", "0"], "0 is not in 1..=254"),
        (&["--ensemble", "1=a"], "member 1: `a` is not HOST:PORT"),
        (&["--config", "/nowhere/q.toml"], "cannot read the configuration file /nowhere/q.toml"),
    ] {
        let said = run(quorate(["serve"]).args(args));

        said.refused(2, told);
    }
}

#[test]
fn the_environment_wins_over_the_file_and_a_flag_over_both() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "id = 11\ndata_dir = 'd'\n[ensemble]\n1 = '127.0.0.1:1'").unwrap();
    let serve = || {
        let mut command = quorate(["serve", "--config"]);
        command.arg(file.path());
        command
    };

    run(&mut serve()).refused(2, "member 11 does not stand in the ensemble");
    run(serve().env("QUORATE_ID", "12")).refused(2, "member 12 does not stand in the ensemble");
    run(serve().env("QUORATE_ID", "12").args(["--id", "13"])).refused(2, "member 13 does not stand in the ensemble");
    run(serve().env("QUORATE_ID", "twelve")).refused(2, "invalid value 'twelve' for '--id <N>'");
}

#[test]
fn when_nobody_answers_the_next_step_is_said() {
    for command in [&["status"][..], &["session", "list"], &["get", "/a"], &["watch", "/a"], &["rm", "/a"]] {
        let said = run(quorate(command).args(["--endpoint", NOBODY]));

        said.refused(4, "error: no member serves this client: ");
        assert!(said.err.contains(NOBODY), "{}", said.err);
        assert!(said.err.contains("`quorate dev` starts three"), "{}", said.err);
    }
}

#[test]
fn scripts_get_errors_as_json() {
    let said = run(quorate(["status", "-o", "json"]).env("QUORATE_ENDPOINT", NOBODY));

    assert_eq!((said.code, said.out.as_str()), (Some(4), ""));
    let error: serde_json::Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!((&error["code"], &error["name"]), (&4.into(), &"unreachable".into()));
}

#[test]
fn arguments_that_cannot_be_are_usage_errors() {
    for (args, told) in [
        (&["status", "--endpoint", "127.0.0.1"][..], "an endpoint reads http://HOST:PORT"),
        (&["status", "--endpoint", "https://127.0.0.1:1"], "TLS is not supported yet"),
        (&["rm", "-r", "/"], "the whole tree is not deleted by one command"),
        (&["get", "/a", "--timeout", "soon"], "invalid value 'soon' for '--timeout <DURATION>'"),
        (&["create", "/a", "--ephemeral", "--container"], "cannot be used with"),
    ] {
        run(&mut quorate(args)).refused(2, told);
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);

    let said = start_unread(quorate(["completions", "bash"]).stdout(writer)).end();

    assert_eq!((said.code, said.err.as_str()), (Some(141), ""));
}
