//! `quorate session`: who is connected to the ensemble.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate::SessionInfo;
use serde::Serialize;

use super::{
    ensemble::Ensemble,
    exit::Failure,
    output::{self, Format},
};

/// Look at the sessions of the ensemble
#[derive(Debug, Subcommand)]
pub(super) enum Session {
    List(List),
}

/// List the live sessions, as the member that is asked knows them
#[derive(Args, Debug)]
pub(super) struct List {
    #[command(flatten)]
    ensemble: Ensemble,
}

/// A session in the words of the admin door.
#[derive(Serialize)]
struct Row {
    id: String,
    timeout_ms: u128,
    member: u32,
    attachment: u64,
    ephemerals: u64,
    client_name: String,
    connected_here: bool,
}

impl Session {
    pub(super) fn format(&self) -> Format {
        match self {
            Self::List(list) => list.ensemble.output,
        }
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        match self {
            Self::List(list) => list.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<ExitCode, Failure> {
        let sessions = self.ensemble.within(self.ensemble.admin()?.sessions()).await??;
        let rows: Vec<_> = sessions.into_iter().map(row).collect();
        match self.ensemble.output {
            Format::Json => output::json(&rows)?,
            Format::Table => output::line(&table(rows))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(session: SessionInfo) -> Row {
    Row {
        id: session.id.to_string(),
        timeout_ms: session.timeout.as_millis(),
        member: session.member,
        attachment: session.attachment,
        ephemerals: session.ephemerals,
        client_name: session.client_name,
        connected_here: session.connected_here,
    }
}

fn table(rows: Vec<Row>) -> String {
    let cells = rows.into_iter().map(|row| {
        [
            row.id,
            row.member.to_string(),
            format!("{} ms", row.timeout_ms),
            row.attachment.to_string(),
            row.ephemerals.to_string(),
            if row.connected_here { "yes" } else { "" }.into(),
            row.client_name,
        ]
    });
    let head = ["SESSION", "MEMBER", "TIMEOUT", "ATTACHED", "EPHEMERALS", "HERE", "CLIENT"];
    output::table(head, [false, true, true, true, true, false, false], cells.collect())
}
