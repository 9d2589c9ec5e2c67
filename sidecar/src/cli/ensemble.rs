//! Reaching a running ensemble: which endpoints, how long, and what is said when nobody answers.

use std::time::Duration;

use clap::Args;
use humantime::DurationError;
use quorate_proto::v1::admin_client::AdminClient;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{
    exit::{Exit, Failure},
    output::Format,
};

/// What every command against a running ensemble takes.
#[derive(Args, Clone, Debug)]
pub(super) struct Ensemble {
    /// Members to ask, separated by commas
    #[arg(
        long,
        env = "QUORATE_ENDPOINT",
        value_name = "URL,...",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7101",
        help_heading = "Ensemble"
    )]
    pub(super) endpoint: Vec<String>,

    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, help_heading = "Ensemble")]
    pub(super) timeout: Duration,

    /// The form of the answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table", help_heading = "Ensemble")]
    pub(super) output: Format,
}

/// Reads `1s`, `500ms`, `2m`.
pub(super) fn duration(text: &str) -> Result<Duration, DurationError> {
    humantime::parse_duration(text)
}

impl Ensemble {
    /// The members to ask; a list that is none is a usage error before anything is sent.
    pub(super) fn members(&self) -> Result<Vec<Member>, Failure> {
        self.endpoint.iter().map(|url| Member::new(url, self.timeout)).collect()
    }

    /// Asks one member after the other until one answers.
    pub(super) async fn ask<T, F>(&self, question: impl Fn(AdminClient<Channel>) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let mut refused = Vec::new();
        for member in self.members()? {
            match question(member.admin()).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) if status.code() == Code::Unavailable => refused.push(member.explain(&status)),
                Err(status) => return Err(failure(&member.explain(&status), status.code())),
            }
        }
        Err(unreachable(&refused.join("; ")))
    }
}

/// One member's door for clients.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) url: String,
    endpoint: Endpoint,
}

impl Member {
    fn new(url: &str, timeout: Duration) -> Result<Self, Failure> {
        let endpoint = Endpoint::from_shared(url.to_owned()).ok();
        // Without a scheme, a host and a port parse as scheme and path.
        let endpoint = endpoint.filter(|endpoint| ["http", "https"].map(Some).contains(&endpoint.uri().scheme_str()));
        let Some(endpoint) = endpoint else {
            let failure = Failure::new(Exit::Usage, format_args!("`{url}` is not the URL of a member"));
            return Err(failure.next("an endpoint reads http://HOST:PORT, with the port of the client door"));
        };
        Ok(Self { url: url.to_owned(), endpoint: endpoint.timeout(timeout).connect_timeout(timeout) })
    }

    /// Connects when the first question is asked.
    pub(super) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.endpoint.connect_lazy())
    }

    /// What the status says, with the member that said it and the reason underneath.
    pub(super) fn explain(&self, status: &Status) -> String {
        let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(status);
        let mut deepest = None;
        while let Some(error) = cause {
            deepest = Some(error.to_string());
            cause = error.source();
        }
        format!("{}: {}", self.url, deepest.as_deref().unwrap_or(status.message()))
    }
}

/// Nobody could be asked.
pub(super) fn unreachable(tried: &str) -> Failure {
    let failure = Failure::new(Exit::Unreachable, format_args!("no member answers: {tried}"));
    failure.next("is one running? `quorate dev` starts three; --endpoint or QUORATE_ENDPOINT names others")
}

fn failure(said: &str, code: Code) -> Failure {
    let exit = match code {
        Code::DeadlineExceeded | Code::Cancelled => Exit::TimedOut,
        Code::NotFound => Exit::NotFound,
        Code::PermissionDenied | Code::Unauthenticated => Exit::NotPermitted,
        Code::DataLoss => Exit::Damaged,
        _ => Exit::Refused,
    };
    Failure::new(exit, said)
}
