//! The `quorate` command: one file a subcommand.
//!
//! Data goes to standard output, everything else to standard error. A command that cannot do what it was asked to
//! says why, what to do next, and ends with a code that `--help` lists.

use std::{ffi::OsString, num::NonZero, process::ExitCode};

use clap::{Args as _, CommandFactory as _, Parser, Subcommand};
use tokio::runtime;

mod bench;
mod completions;
mod create;
mod dev;
mod ensemble;
mod exit;
mod get;
mod import;
mod lock;
mod ls;
mod node;
mod output;
mod rm;
mod serve;
mod session;
mod set;
mod signals;
mod stat;
mod status;
mod tree;
mod watch;
mod zookeeper;

use exit::{Exit, Failure};
use output::Format;

/// Registration, locks, leadership and live configuration for services
#[derive(Debug, Parser)]
#[command(name = "quorate", version, after_help = exit::HELP, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
    Dev(dev::Dev),
    Status(status::Status),
    Get(get::Get),
    Set(set::Set),
    Create(create::Create),
    Rm(rm::Rm),
    Ls(ls::Ls),
    Tree(tree::Tree),
    Stat(stat::Stat),
    Watch(watch::Watch),
    Lock(Box<lock::Lock>),
    #[command(name = "__warden", hide = true)]
    Warden(lock::Warden),
    #[command(subcommand)]
    Session(session::Session),
    Import(Box<import::Import>),
    Bench(Box<bench::Bench>),
    Completions(completions::Completions),
}

/// What stands there when `quorate` is called with nothing.
const FIRST_STEPS: &str = "\
quorate: registration, locks, leadership and live configuration for services

  quorate dev                      start three members on this machine, data goes away
  quorate status                   how the members are
  quorate tree /                   what is stored
  quorate create /a hello          store something; get, set and rm do the rest
  quorate lock build -- make       run a command that nobody else runs at the same time
  quorate bench set get            load it and measure
  quorate serve --help             run a member

`quorate --help` shows everything.";

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    match Cli::parse_from(behind_the_command(std::env::args_os().collect())).command {
        Some(command) => command.run(),
        None => {
            eprintln!("{FIRST_STEPS}");
            ExitCode::from(Exit::Usage.code())
        }
    }
}

/// What every command against an ensemble takes may stand before it as well, as in `quorate --endpoint URL status`: it
/// is moved behind it, where it is declared. Arguments that begin otherwise stay as they are.
fn behind_the_command(mut args: Vec<OsString>) -> Vec<OsString> {
    let shared = ensemble::Ensemble::augment_args(clap::Command::new("shared"));
    let takes = |text: &str| {
        let spelt = |arg: &clap::Arg| {
            arg.get_long().is_some_and(|long| text.strip_prefix("--") == Some(long))
                || arg.get_short().is_some_and(|short| text.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4])))
        };
        shared.get_arguments().any(spelt)
    };
    // Behind the program's name; each has a value, in the next argument or in its own.
    let mut end = 1;
    while let Some(text) = args.get(end).and_then(|arg| arg.to_str()) {
        end += match text.split_once('=') {
            Some((name, _)) if takes(name) => 1,
            None if takes(text) => 2,
            _ => break,
        };
    }
    let mut command = &Cli::command();
    let mut at = end;
    while let Some(found) = args.get(at).and_then(|name| command.find_subcommand(name)) {
        command = found;
        at += 1;
    }
    if at > end {
        args[1..at].rotate_left(end - 1);
    }
    args
}

impl Command {
    fn run(self) -> ExitCode {
        match self {
            Self::Serve(serve) => on(&mut serving(), Format::Table, serve.run()),
            Self::Dev(dev) => on(&mut runtime::Builder::new_multi_thread(), Format::Table, dev.run()),
            Self::Status(status) => on_this_thread(status.format(), status.run()),
            Self::Get(get) => on_this_thread(get.format(), get.run()),
            Self::Set(set) => on_this_thread(set.format(), set.run()),
            Self::Create(create) => on_this_thread(create.format(), create.run()),
            Self::Rm(rm) => on_this_thread(rm.format(), rm.run()),
            Self::Ls(ls) => on_this_thread(ls.format(), ls.run()),
            Self::Tree(tree) => on_this_thread(tree.format(), tree.run()),
            Self::Stat(stat) => on_this_thread(stat.format(), stat.run()),
            Self::Watch(watch) => on_this_thread(watch.format(), watch.run()),
            Self::Lock(lock) => on_this_thread(lock.format(), lock.run()),
            Self::Warden(warden) => on_this_thread(Format::Table, warden.run()),
            Self::Session(session) => on_this_thread(session.format(), session.run()),
            Self::Import(import) => on_this_thread(import.format(), import.run()),
            Self::Bench(bench) => on(&mut bench.runtime(), bench.format(), bench.run()),
            Self::Completions(completions) => ended(Format::Table, completions.run()),
        }
    }
}

/// The runtime of a member: half of the cores, or as many threads as tokio's own `TOKIO_WORKER_THREADS` says.
///
/// A member's work is a chain: one log, one order, one copy. More threads mostly hand it to each other, which costs more
/// than they take over; the log's own thread, the kernel and the clients use the other cores.
fn serving() -> runtime::Builder {
    let mut runtime = runtime::Builder::new_multi_thread();
    if std::env::var_os("TOKIO_WORKER_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        runtime.worker_threads((cores / 2).max(1));
    }
    runtime
}

/// Commands that talk to a member need no more than one thread.
fn on_this_thread(format: Format, command: impl Future<Output = Result<ExitCode, Failure>>) -> ExitCode {
    on(&mut runtime::Builder::new_current_thread(), format, command)
}

fn on(
    runtime: &mut runtime::Builder,
    format: Format,
    command: impl Future<Output = Result<ExitCode, Failure>>,
) -> ExitCode {
    match runtime.enable_all().build() {
        Ok(runtime) => ended(format, runtime.block_on(command)),
        Err(error) => Failure::new(Exit::Refused, format_args!("the runtime cannot start: {error}")).report(format),
    }
}

fn ended(format: Format, outcome: Result<ExitCode, Failure>) -> ExitCode {
    outcome.unwrap_or_else(|failure| failure.report(format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_all_commands_take_may_stand_before_them() {
        for (before, behind) in [
            ("quorate --endpoint http://a:1 status", "quorate status --endpoint http://a:1"),
            ("quorate --endpoint=http://a:1 -o json get /a", "quorate get --endpoint=http://a:1 -o json /a"),
            ("quorate --timeout 1s session list", "quorate session list --timeout 1s"),
            ("quorate --auth u:p lock a -- ls --endpoint x", "quorate lock --auth u:p a -- ls --endpoint x"),
            // Not ours to move.
            ("quorate status -o json", "quorate status -o json"),
            ("quorate --help", "quorate --help"),
            ("quorate --endpoint", "quorate --endpoint"),
            ("quorate --endpoint x", "quorate --endpoint x"),
            ("quorate --id 1 serve", "quorate --id 1 serve"),
            ("quorate", "quorate"),
        ] {
            let moved = behind_the_command(before.split(' ').map(Into::into).collect());

            assert_eq!(moved.join(" ".as_ref()).to_str(), Some(behind), "{before}");
        }
    }

    #[test]
    fn the_settings_of_a_member_are_offered() {
        let mut serve = Cli::command().find_subcommand("serve").unwrap().clone();

        let help = serve.render_long_help().to_string();

        for flag in [
            "--zookeeper-addr",
            "--id",
            "--data-dir",
            "--ensemble",
            "--client-addr",
            "--insecure",
            "--tick-ms",
            "--config",
            "--zoo-cfg",
        ] {
            assert!(help.contains(flag), "{help}");
        }
    }
}
