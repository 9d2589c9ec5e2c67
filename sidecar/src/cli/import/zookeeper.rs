//! A client that reads from a running ZooKeeper: one connection, many requests under way, no watches, no writes.
//!
//! A connection that is lost stays lost: an import is run again and goes on where it was.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use quorate_wire::{ConnectResponse, ErrorCode, Request, Response};
use tokio::{
    select,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, interval_at, timeout},
};

use crate::{
    Address,
    cli::zookeeper::{Connection, Heard},
};

/// Requests sent and not answered; further ones wait.
const IN_FLIGHT_MAX: usize = 256;
const SESSION_TIMEOUT_MS: i32 = 30_000;

/// A connection with its session.
#[derive(Debug)]
pub(super) struct Zookeeper {
    requests: mpsc::Sender<Asked>,
    link: JoinHandle<()>,
    /// Why the link has ended.
    end: Arc<OnceLock<String>>,
    answer_within: Duration,
    /// Whether the server has no quorum, so that it may be behind.
    pub(super) read_only: bool,
}

/// Who the connection says it is: `SCHEME:CREDENTIAL`.
#[derive(Clone)]
pub(super) struct Credential {
    scheme: String,
    secret: Bytes,
}

/// The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreachable {
    #[error("{}", .0.join("; "))]
    Nobody(Vec<String>),
    #[error("the connection to ZooKeeper was lost: {0}")]
    Lost(String),
    #[error("ZooKeeper did not answer within {0:?}")]
    Late(Duration),
    #[error("ZooKeeper did not accept a credential")]
    Credential,
}

type Answer = oneshot::Sender<Result<Response, ErrorCode>>;

/// A request and who waits for its answer.
#[derive(Debug)]
struct Asked {
    request: Request<'static>,
    answer: Answer,
}

impl std::str::FromStr for Credential {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some((scheme, secret)) if !scheme.is_empty() => {
                Ok(Self { scheme: scheme.into(), secret: Bytes::copy_from_slice(secret.as_bytes()) })
            }
            _ => Err("a credential reads SCHEME:CREDENTIAL, for instance digest:USER:PASSWORD"),
        }
    }
}

/// Not the secret: arguments are printed when something is wrong with them.
impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:...", self.scheme)
    }
}

impl Zookeeper {
    /// A session with the first server that gives one. `answer_within` bounds the handshake and every answer.
    pub(super) async fn connect(
        servers: &[Address],
        credentials: &[Credential],
        answer_within: Duration,
    ) -> Result<Self, Unreachable> {
        let mut said = Vec::new();
        for server in servers {
            let opening = Connection::open((server.host(), server.port()), SESSION_TIMEOUT_MS, true);
            match timeout(answer_within, opening).await {
                Ok(Ok((connection, granted))) => {
                    let zookeeper = Self::over(connection, &granted, answer_within);
                    zookeeper.authenticate(credentials).await?;
                    return Ok(zookeeper);
                }
                Ok(Err(error)) => said.push(format!("{server}: {error}")),
                Err(_late) => said.push(format!("{server}: no answer within {answer_within:?}")),
            }
        }
        Err(Unreachable::Nobody(said))
    }

    fn over(connection: Connection<Answer>, granted: &ConnectResponse, answer_within: Duration) -> Self {
        // When it is full, whoever asks waits.
        let (requests, asked) = mpsc::channel(IN_FLIGHT_MAX);
        let end = Arc::new(OnceLock::new());
        let ping_every = Duration::from_millis(u64::try_from(granted.timeout_ms).unwrap_or(1).max(30) / 3);
        let link = Link { connection, asked };
        let why = end.clone();
        let link = tokio::spawn(async move {
            // It is set once: here.
            let _ = why.set(link.run(ping_every).await);
        });
        Self { requests, link, end, answer_within, read_only: granted.read_only == Some(true) }
    }

    async fn authenticate(&self, credentials: &[Credential]) -> Result<(), Unreachable> {
        for Credential { scheme, secret } in credentials {
            let request = Request::Auth { scheme: scheme.clone().into(), credential: secret.clone() };
            self.ask(request).await?.map_err(|_code| Unreachable::Credential)?;
        }
        Ok(())
    }

    /// The answer, or the code of a refusal.
    pub(super) async fn ask(&self, request: Request<'static>) -> Result<Result<Response, ErrorCode>, Unreachable> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send(Asked { request, answer }).await.is_err() {
            return Err(self.lost());
        }
        match timeout(self.answer_within, answered).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_dropped)) => Err(self.lost()),
            Err(_late) => Err(Unreachable::Late(self.answer_within)),
        }
    }

    fn lost(&self) -> Unreachable {
        Unreachable::Lost(self.end.get().cloned().unwrap_or_else(|| "it was closed".into()))
    }

    /// Ends the session.
    pub(super) async fn close(self) {
        // A session that is not closed goes with its timeout.
        let _ = self.ask(Request::CloseSession).await;
        drop(self.requests);
        let _ = self.link.await;
    }
}

/// What the task behind a connection owns.
struct Link {
    connection: Connection<Answer>,
    asked: mpsc::Receiver<Asked>,
}

impl Link {
    /// Runs until nobody asks any more, or the connection breaks. Says why it ended.
    async fn run(mut self, ping_every: Duration) -> String {
        let mut ping = interval_at(Instant::now() + ping_every, ping_every);
        loop {
            select! {
                biased;
                exchanged = self.connection.exchange() => {
                    if let Err(error) = exchanged.and_then(|()| self.answer_all()) {
                        return error.to_string();
                    }
                }
                asked = self.asked.recv(), if self.connection.unanswered() < IN_FLIGHT_MAX => {
                    let Some(Asked { request, answer }) = asked else { return "it was closed".into() };
                    self.connection.ask(&request, answer);
                }
                _ = ping.tick() => self.connection.ping(),
            }
        }
    }

    /// Hands every whole answer to whoever waits for it.
    fn answer_all(&mut self) -> std::io::Result<()> {
        while let Some(heard) = self.connection.hear()? {
            if let Heard::Answer(answer, said) = heard {
                // Whoever asked may have given up.
                let _ = answer.send(said);
            }
        }
        Ok(())
    }
}
