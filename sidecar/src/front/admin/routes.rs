//! The paths of the operators' door and what each answers.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    http::{HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::get,
};
use quorate_tree::SessionId;
use serde::{Deserialize, Serialize};

use super::status::{Check, SessionStatus, StatusSource};
use crate::{
    config::limits,
    telemetry::{self, metrics::Metrics},
};

const PATHS: [&str; 6] = ["/livez", "/readyz", "/metrics", "/api/v1/status", "/api/v1/sessions", "/version"];

#[derive(Clone)]
struct Door {
    source: Arc<dyn StatusSource>,
    metrics: Metrics,
}

pub(super) fn router(source: Arc<dyn StatusSource>, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(serve_metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/sessions", get(sessions))
        .route("/version", get(version))
        .fallback(not_found)
        .method_not_allowed_fallback(read_only)
        .with_state(Door { source, metrics })
        .layer(axum::middleware::map_response(uncached))
}

/// `?verbose`, with or without a value, lists the checks that pass too.
#[derive(Deserialize)]
struct HealthQuery {
    verbose: Option<String>,
}

#[derive(Serialize)]
struct Health {
    ok: bool,
    /// Why not, one clause a failed check.
    reasons: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Vec<Check>>,
}

fn health(checks: Vec<Check>, query: &HealthQuery) -> (StatusCode, Json<Health>) {
    let reasons: Vec<_> = checks.iter().filter(|check| !check.ok).map(|check| check.detail.clone()).collect();
    let ok = reasons.is_empty();
    let status = if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Health { ok, reasons, checks: query.verbose.is_some().then_some(checks) }))
}

async fn livez(State(door): State<Door>, Query(query): Query<HealthQuery>) -> impl IntoResponse {
    health(door.source.liveness(), &query)
}

async fn readyz(State(door): State<Door>, Query(query): Query<HealthQuery>) -> impl IntoResponse {
    health(door.source.readiness(), &query)
}

async fn serve_metrics(State(door): State<Door>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, Metrics::CONTENT_TYPE)], door.metrics.render(&door.source.levels()))
}

async fn status(State(door): State<Door>) -> impl IntoResponse {
    Json(door.source.report())
}

#[derive(Deserialize)]
struct SessionsQuery {
    /// The last id of the page before, as it was printed.
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct SessionsAnswer {
    sessions: Vec<SessionStatus>,
    /// What to give as `after` for the next page; null on the last one.
    next: Option<String>,
}

async fn sessions(
    State(door): State<Door>,
    query: Result<Query<SessionsQuery>, QueryRejection>,
) -> Result<Json<SessionsAnswer>, Refused> {
    let Query(query) = query.map_err(|error| Refused::bad(error.body_text()))?;
    let after = match &query.after {
        Some(text) => session_id(text).ok_or_else(|| Refused::bad(format!("`{text}` is not a session id")))?,
        None => SessionId::NONE,
    };
    let limit = query.limit.unwrap_or(limits::ADMIN_SESSIONS_PAGE_MAX).clamp(1, limits::ADMIN_SESSIONS_PAGE_MAX);

    // One more than asked for tells whether there is a next page.
    let mut sessions = door.source.sessions(after, limit + 1);
    let more = sessions.len() > limit;
    sessions.truncate(limit);
    let next = sessions.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(SessionsAnswer { sessions, next }))
}

fn session_id(text: &str) -> Option<SessionId> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok().map(SessionId)
}

#[derive(Serialize)]
struct Version {
    version: &'static str,
}

async fn version() -> impl IntoResponse {
    Json(Version { version: telemetry::VERSION })
}

async fn not_found(uri: Uri) -> Refused {
    let message = format!("there is no {}; there are {}", uri.path(), PATHS.join(", "));
    Refused { status: StatusCode::NOT_FOUND, message }
}

async fn read_only() -> Refused {
    Refused { status: StatusCode::METHOD_NOT_ALLOWED, message: "this door only reads: use GET".into() }
}

/// A request that is not answered, and the sentence that says why.
struct Refused {
    status: StatusCode,
    message: String,
}

impl Refused {
    fn bad(message: String) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
        }
        (self.status, Json(Body { error: self.message })).into_response()
    }
}

/// All answers are of the moment.
async fn uncached(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
