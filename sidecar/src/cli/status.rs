//! `quorate status`: how the members are.

use std::process::ExitCode;

use clap::Args;
use quorate_proto::v1;
use serde::Serialize;

use super::{
    ensemble::{self, Ensemble, Member},
    exit::{Exit, Failure},
    output::{self, Format},
};
use crate::front::admin::StatusReport;

/// Show how the members are that --endpoint names
///
/// Ends with 0 if all of them serve clients, with 5 if one that answers does not, with 4 if none answers.
#[derive(Args, Debug)]
pub(super) struct Status {
    #[command(flatten)]
    ensemble: Ensemble,
}

/// One member's answer, or why there is none.
#[derive(Serialize)]
struct Row {
    endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    report: Option<StatusReport>,
}

impl Status {
    pub(super) fn format(&self) -> Format {
        self.ensemble.output
    }

    pub(super) async fn run(self) -> Result<ExitCode, Failure> {
        let members = self.ensemble.members()?;
        let rows = futures_util::future::join_all(members.into_iter().map(ask)).await;

        let silent: Vec<_> = rows.iter().filter_map(|row| row.error.clone()).collect();
        if silent.len() == rows.len() {
            return Err(ensemble::unreachable(&silent.join("; ")));
        }
        match self.ensemble.output {
            Format::Json => output::json(&rows)?,
            Format::Table => output::line(&table(&rows))?,
        }
        let unwell = rows.iter().filter_map(|row| match &row.report {
            Some(report) if report.ready => None,
            Some(report) => Some(format!("{}: not ready: {}", row.endpoint, report.not_ready.join(", "))),
            None => row.error.clone(),
        });
        match unwell.collect::<Vec<_>>() {
            unwell if unwell.is_empty() => Ok(ExitCode::SUCCESS),
            unwell => Err(Failure::new(Exit::NoQuorum, unwell.join("; "))),
        }
    }
}

async fn ask(member: Member) -> Row {
    let answer = member.admin().status(v1::StatusRequest {}).await;
    let (report, error) = match answer.map(|answer| StatusReport::try_from(answer.into_inner())) {
        Ok(Ok(report)) => (Some(report), None),
        Ok(Err(error)) => (None, Some(format!("{}: {error}", member.url))),
        Err(status) => (None, Some(member.explain(&status))),
    };
    Row { endpoint: member.url, error, report }
}

fn table(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| match &row.report {
        Some(StatusReport { status, ready, .. }) => [
            row.endpoint.clone(),
            status.id.to_string(),
            status.role.to_string(),
            status.leader.map_or_else(|| "-".into(), |id| id.to_string()),
            status.term.to_string(),
            status.zxid.to_string(),
            format!("{:016x}", status.digest),
            status.znodes.to_string(),
            status.sessions.to_string(),
            status.watches.to_string(),
            if *ready { "yes" } else { "no" }.into(),
        ],
        None => {
            let mut cells = [const { String::new() }; 11];
            cells[0].clone_from(&row.endpoint);
            cells[2] = "unreachable".into();
            cells
        }
    });
    let head = ["ENDPOINT", "ID", "ROLE", "LEADER", "TERM", "ZXID", "DIGEST", "NODES", "SESSIONS", "WATCHES", "READY"];
    let right = [false, true, false, true, true, true, false, true, true, true, false];
    output::table(head, right, cells.collect())
}
