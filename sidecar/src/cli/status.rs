//! `quorate status`: how the members are.

use std::process::ExitCode;

use clap::Args;
use quorate::{Error, MemberStatus};
use quorate_tree::{MemberId, Zxid};
use serde::Serialize;

use super::{
    ensemble::Ensemble,
    exit::{Exit, Failure},
    output::{self, Format},
};
use crate::front::admin::{self, Role, StatusReport};

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
        let answers = self.ensemble.within(self.ensemble.admin()?.status_of_each()).await?;
        if let Some(error) = nobody(&answers) {
            return Err(error.into());
        }
        let rows: Vec<_> = answers.into_iter().map(row).collect();
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

/// What they all say, where no member answers.
fn nobody(answers: &[(String, Result<MemberStatus, Error>)]) -> Option<Error> {
    let said: Option<Vec<_>> = answers.iter().map(|(_, answer)| answer.as_ref().err().map(reason)).collect();
    Some(Error::Unreachable { message: said?.join("; ") })
}

/// The message names the endpoint already.
fn reason(error: &Error) -> String {
    match error {
        Error::Unreachable { message } => message.clone(),
        other => other.to_string(),
    }
}

fn row((endpoint, answer): (String, Result<MemberStatus, Error>)) -> Row {
    let (report, error) = match answer {
        Ok(status) => match report(status) {
            Some(report) => (Some(report), None),
            None => (None, Some(format!("{endpoint}: this is no member of an ensemble"))),
        },
        Err(error) => (None, Some(reason(&error))),
    };
    Row { endpoint, error, report }
}

/// The answer in the words of the admin door, so that scripts meet one schema.
fn report(status: MemberStatus) -> Option<StatusReport> {
    let members = status.members.into_iter().map(|member| {
        Some(admin::MemberStatus {
            id: member_id(member.id)?,
            peer_address: member.peer_address,
            voter: member.voter,
            matched_index: member.matched_index,
        })
    });
    let report = admin::Status {
        id: member_id(status.id)?,
        role: match status.role {
            quorate::Role::Leader => Role::Leader,
            quorate::Role::Follower => Role::Follower,
            quorate::Role::Candidate => Role::Candidate,
            quorate::Role::Observer => Role::Observer,
            _ => return None,
        },
        leader: status.leader.and_then(member_id),
        term: status.term,
        zxid: Zxid(status.zxid),
        digest: status.digest,
        sessions: status.sessions,
        znodes: status.znodes,
        watches: status.watches,
        members: members.collect::<Option<_>>()?,
        log_index: status.log_index,
        snapshot_index: status.snapshot_index,
        connections: status.connections,
    };
    Some(StatusReport { status: report, version: status.version, ready: status.ready, not_ready: status.not_ready })
}

fn member_id(id: u32) -> Option<MemberId> {
    u8::try_from(id).ok().filter(|id| (1..=254).contains(id)).map(MemberId)
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
