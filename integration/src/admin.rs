//! Asks a member's operators' door: plain HTTP by hand, one connection a question.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long one answer may take. It is taken from memory: a member that needs longer is stopped or gone.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// What `/api/v1/status` says of a member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Status {
    /// The member.
    pub id: u8,
    /// `leader`, `follower`, `observer` or `candidate`.
    pub role: String,
    /// The leader it knows.
    pub leader: Option<u8>,
    /// Its term.
    pub term: u64,
    /// The last change it applied.
    pub zxid: u64,
    /// Of its tree at that zxid.
    pub digest: String,
    /// Live sessions of the ensemble.
    pub sessions: u64,
    /// Nodes.
    pub znodes: u64,
    /// The members it knows.
    pub members: Vec<MemberStatus>,
    /// The last log entry it applied.
    pub log_index: u64,
    /// The last log entry its newest snapshot contains.
    pub snapshot_index: u64,
    /// Whether it serves clients.
    pub ready: bool,
    /// Why not.
    pub not_ready: Vec<String>,
}

/// A member as another one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MemberStatus {
    /// Which one.
    pub id: u8,
    /// Whether it has a vote.
    pub voter: bool,
}

/// Asks for a path and returns the HTTP status and the body.
pub async fn get(admin: SocketAddr, path: &str) -> Result<(u16, String)> {
    timeout(ANSWER_WITHIN, ask(admin, path))
        .await
        .with_context(|| format!("no answer from {admin}{path} within {ANSWER_WITHIN:?}"))?
        .with_context(|| format!("asking {admin}{path}"))
}

/// Where a member stands.
pub async fn status(admin: SocketAddr) -> Result<Status> {
    let (code, body) = get(admin, "/api/v1/status").await?;
    ensure!(code == 200, "{admin} answered {code} to a question for its status: {body}");
    serde_json::from_str(&body).with_context(|| format!("{admin} answered {body}"))
}

async fn ask(admin: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(admin).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok((code.with_context(|| format!("the answer begins with {head:?}"))?, body.into()))
}
