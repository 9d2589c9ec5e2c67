//! Logs on standard error: for people on a terminal, as JSON lines for everything else.

use std::{
    env,
    io::{self, IsTerminal},
};

use clap::ValueEnum;
use serde::Deserialize;
use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, Layer, fmt, registry::LookupSpan};

use super::TelemetryError;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What RUST_LOG says, if anything.
pub(crate) fn log_level_of_env() -> Option<String> {
    env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.is_empty())
}

/// What these crates say of themselves matters only when it is bad; what it means for the member is ours to say. A
/// filter that names them wins.
const QUIET: &str = "openraft=error,opentelemetry=warn,opentelemetry_sdk=warn,opentelemetry-otlp=warn";

/// Reads a level or a list of filters; a bad one is refused whole.
pub(super) fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder()
        .parse(format!("{QUIET},{text}"))
        .map_err(|source| TelemetryError::Filter { filter: text.into(), source })
}

/// The layer that writes.
pub(super) fn layer<S>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let terminal = io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(io::stderr);
    match format {
        LogFormat::Auto if !terminal => layer.json().flatten_event(true).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Auto | LogFormat::Human => {
            let colours = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            layer.compact().with_ansi(colours).boxed()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_a_level_or_a_list() {
        for text in ["info", "warn,quorate_sidecar=debug", "quorate_sidecar::ensemble=trace"] {
            assert!(filter(text).is_ok(), "{text}");
        }

        let named = filter("opentelemetry_sdk=debug").unwrap().to_string();
        assert!(named.contains("opentelemetry_sdk=debug") && !named.contains("opentelemetry_sdk=warn"), "{named}");

        let error = filter("info,quorate_sidecar=loud").unwrap_err().to_string();
        assert!(error.starts_with("--log-level `info,quorate_sidecar=loud`: "), "{error}");
    }
}
