//! Reaching a running ensemble: which endpoints, how long, as whom, and what is said when it cannot be done.

use std::time::Duration;

use clap::Args;
use humantime::DurationError;
use quorate::{Admin, Client, ClientBuilder, Error};

use super::{
    exit::{Exit, Failure},
    output::Format,
};

/// How long the end of a command waits for its session to be closed; otherwise it goes with its timeout.
const CLOSE_MAX: Duration = Duration::from_secs(2);

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
    endpoint: Vec<String>,

    /// Be this user, for nodes with an access list
    #[arg(long, env = "QUORATE_AUTH", value_name = "USER:PASSWORD", hide_env_values = true, help_heading = "Ensemble")]
    auth: Option<String>,

    /// How long an answer may take
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
    /// The members, as one text.
    pub(super) fn endpoints(&self) -> String {
        self.endpoint.join(",")
    }

    /// The members, one by one.
    pub(super) fn endpoint_list(&self) -> Vec<String> {
        self.endpoint.clone()
    }

    /// Whether there is a user to be.
    pub(super) fn says_who_it_is(&self) -> bool {
        self.auth.is_some()
    }

    /// For questions that need no session.
    pub(super) fn admin(&self) -> Result<Admin, Failure> {
        Ok(Admin::new(&self.endpoint)?)
    }

    /// The answer to a question, or that it did not come in time.
    pub(super) async fn within<T>(&self, answer: impl Future<Output = T>) -> Result<T, Failure> {
        let late = || Failure::new(Exit::TimedOut, format_args!("no answer within {:?}", self.timeout));
        tokio::time::timeout(self.timeout, answer).await.map_err(|_| late().next("--timeout waits longer"))
    }

    /// A client that is served. `settle` may set it up further.
    pub(super) async fn client(&self, settle: impl FnOnce(ClientBuilder) -> ClientBuilder) -> Result<Client, Failure> {
        // A client keeps looking for a member. Here somebody waits who wants to know at once that there is none.
        self.within(self.admin()?.status()).await??;
        let mut builder = Client::builder(&self.endpoint).connect_timeout(self.timeout).request_timeout(self.timeout);
        if let Some(auth) = &self.auth {
            builder = builder.auth("digest", auth.as_bytes());
        }
        let client = settle(builder).build()?;
        client.ready(self.timeout).await.map_err(|error| not_served(&error))?;
        Ok(client)
    }

    /// Does something with a session of its own, and closes it.
    pub(super) async fn with_client<T>(
        &self,
        command: impl AsyncFnOnce(&Client) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let client = self.client(|builder| builder).await?;
        let outcome = command(&client).await;
        // What is left goes with the session's timeout.
        let _ = client.close(CLOSE_MAX).await;
        outcome
    }
}

/// Members answer, and none of them takes a session.
fn not_served(error: &Error) -> Failure {
    match error {
        Error::Unreachable { .. } | Error::Timeout { .. } => Failure::new(Exit::NoQuorum, error)
            .next("`quorate status` tells which members are ready, and why the others are not"),
        _ => Failure::from_client(error),
    }
}

impl Failure {
    fn from_client(error: &Error) -> Self {
        let exit = match error {
            Error::NoNode { .. } => Exit::NotFound,
            Error::NoAuth { .. } | Error::AuthFailed => Exit::NotPermitted,
            Error::InvalidPath { .. }
            | Error::InvalidAcl { .. }
            | Error::BadArguments { .. }
            | Error::Config { .. }
            | Error::RequestTooLarge { .. } => Exit::Usage,
            Error::Timeout { .. } => Exit::TimedOut,
            Error::SessionLost { .. } => Exit::Lost,
            Error::Unreachable { .. } => Exit::Unreachable,
            _ => Exit::Refused,
        };
        let failure = Self::new(exit, error);
        match next(error) {
            Some(next) => failure.next(next),
            None => failure,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::from_client(&error)
    }
}

/// What to do about it.
fn next(error: &Error) -> Option<String> {
    Some(match error {
        Error::NoNode { path } => {
            let parent = path.rsplit_once('/').map_or("/", |(parent, _)| if parent.is_empty() { "/" } else { parent });
            format!("`quorate ls {parent}` shows what there is; `create --parents` makes what is missing above")
        }
        Error::NodeExists { path } => format!("`quorate set {path} DATA` changes its data"),
        Error::BadVersion { path } => format!("`quorate stat {path}` shows its version"),
        Error::NotEmpty { path } => format!("`quorate rm -r {path}` deletes what is below it too"),
        Error::NoAuth { .. } => "--auth USER:PASSWORD or QUORATE_AUTH says who you are".into(),
        Error::Unreachable { .. } => {
            "is one running? `quorate dev` starts three; --endpoint or QUORATE_ENDPOINT names others".into()
        }
        Error::Config { .. } => "an endpoint reads http://HOST:PORT, with the port of the client door".into(),
        error if error.is_unknown_outcome() => "it may have happened: look before you do it again".into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_step_after_a_missing_node_is_its_parent() {
        for (path, parent) in [("/a", "`quorate ls /`"), ("/a/b", "`quorate ls /a`")] {
            let next = next(&Error::NoNode { path: path.into() }).unwrap();

            assert!(next.starts_with(parent), "{next}");
        }
    }

    #[test]
    fn an_unknown_outcome_is_said_to_be_unknown() {
        let error = Error::Timeout { op: "set", after: Duration::from_secs(1), ambiguous: true };

        assert_eq!(next(&error).unwrap(), "it may have happened: look before you do it again");
    }
}
