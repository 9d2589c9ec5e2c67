//! `quorate session`: who is connected to the ensemble.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use quorate_proto::v1::{self, admin_client::AdminClient};

use super::{
    ensemble::Ensemble,
    exit::{Exit, Failure},
    output::{self, Format},
};
use crate::front::admin::SessionStatus;

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
        let ask = |mut admin: AdminClient<_>| async move { admin.list_sessions(v1::ListSessionsRequest {}).await };
        let reply = self.ensemble.ask(ask).await?;
        let sessions: Result<Vec<_>, _> = reply.sessions.into_iter().map(SessionStatus::try_from).collect();
        let sessions = sessions.map_err(|error| Failure::new(Exit::Damaged, error))?;
        match self.ensemble.output {
            Format::Json => output::json(&sessions)?,
            Format::Table => output::line(&table(sessions))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(sessions: Vec<SessionStatus>) -> String {
    let cells = sessions.into_iter().map(|session| {
        [
            session.id.to_string(),
            session.member.to_string(),
            format!("{} ms", session.timeout_ms),
            session.attachment.to_string(),
            session.ephemerals.to_string(),
            if session.connected_here { "yes" } else { "" }.into(),
            session.client_name,
        ]
    });
    let head = ["SESSION", "MEMBER", "TIMEOUT", "ATTACHED", "EPHEMERALS", "HERE", "CLIENT"];
    output::table(head, [false, true, true, true, true, false, false], cells.collect())
}
