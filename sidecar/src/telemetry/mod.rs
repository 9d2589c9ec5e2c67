//! What the process tells about itself: logs, traces and metrics.
//!
//! Logs and traces belong to the process and are set up once, here. Metrics belong to a member, because several may
//! live in one process: each has its own [`metrics::Metrics`]. Nothing here waits for a collector: an exporter that
//! is down delays neither the start nor, beyond [`limits::TELEMETRY_FLUSH_MAX`], the end.

use tracing_subscriber::{Layer as _, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::limits;

mod logging;
pub(crate) mod metrics;
pub(crate) mod traces;

pub(crate) use logging::{LogFormat, log_level_of_env};

/// The version of this build.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the operator wants to be told, and where.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// A level or a list of filters, as RUST_LOG takes it.
    pub(crate) log_level: String,
    pub(crate) log_format: LogFormat,
    /// Absent: what OTEL_EXPORTER_OTLP_ENDPOINT says; if that is absent too, no traces.
    pub(crate) otlp_endpoint: Option<String>,
}

/// Why there can be no telemetry as wanted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TelemetryError {
    /// The filter is none.
    #[error("--log-level `{filter}`: {source} (a level, or filters like info,quorate_sidecar=debug)")]
    Filter {
        /// As it was given.
        filter: String,
        /// What is wrong.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The collector's address is none.
    #[error("the OTLP endpoint cannot be used: {0}")]
    Otlp(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Somebody in this process has set up logging before.
    #[error("logging is set up already: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Logs and traces of this process; [`Telemetry::shutdown`] sends what is still queued.
#[derive(Debug)]
pub(crate) struct Telemetry {
    traces: Option<traces::Traces>,
}

/// Sets up logs and, where a collector is named, traces. Must run inside the runtime: the exporter lives on it.
pub(crate) fn init(options: &Options) -> Result<Telemetry, TelemetryError> {
    let traces = traces::start(options.otlp_endpoint.as_deref())?;
    let filter = logging::filter(&options.log_level)?;
    tracing_subscriber::registry()
        .with(logging::layer(options.log_format).with_filter(filter))
        .with(traces.as_ref().map(traces::Traces::layer))
        .try_init()?;
    Ok(Telemetry { traces })
}

impl Telemetry {
    /// Sends the spans that are queued, for at most [`limits::TELEMETRY_FLUSH_MAX`].
    pub(crate) async fn shutdown(self) {
        let Some(traces) = self.traces else { return };
        let flushed = tokio::task::spawn_blocking(move || traces.flush(limits::TELEMETRY_FLUSH_MAX)).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last traces could not be sent");
        }
    }
}
