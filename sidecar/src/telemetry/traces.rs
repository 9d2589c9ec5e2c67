//! Traces to an OTLP collector, and the W3C context that ties them to those of callers and members.
//!
//! Bounds: at most [`limits::TRACE_SPANS_QUEUED_MAX`] spans wait for the collector; further ones are dropped, and the
//! exporter says how many. Task: the exporter's own thread, stopped by [`Traces::flush`].

use std::{collections::HashMap, env, time::Duration};

use opentelemetry::{propagation::TextMapPropagator, trace::TracerProvider};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    propagation::TraceContextPropagator,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tracing::{Span, Subscriber, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{Layer, filter::Targets, registry::LookupSpan};

use crate::config::limits;

/// A running exporter.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
}

/// Starts the exporter if a collector is named by `endpoint` or by the standard variables. Connects later, by itself.
pub(super) fn start(endpoint: Option<&str>) -> Result<Option<Traces>, ExporterBuildError> {
    let named = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    let exporter = SpanExporter::builder().with_tonic();
    let exporter = match endpoint {
        Some(endpoint) => exporter.with_endpoint(endpoint).build()?,
        None if named.into_iter().any(|name| env::var_os(name).is_some_and(|url| !url.is_empty())) => {
            exporter.build()?
        }
        None => return Ok(None),
    };
    let bounds = BatchConfigBuilder::default().with_max_queue_size(limits::TRACE_SPANS_QUEUED_MAX).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource())
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(bounds).build())
        .build();
    Ok(Some(Traces { provider }))
}

/// Who we are to a collector; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say more.
fn resource() -> Resource {
    let version = opentelemetry::KeyValue::new("service.version", super::VERSION);
    let builder = Resource::builder().with_attribute(version);
    match env::var_os("OTEL_SERVICE_NAME") {
        Some(_) => builder.build(),
        None => builder.with_service_name("quorate").build(),
    }
}

impl Traces {
    /// The layer that turns our spans into traces. Other crates' spans stay out, the exporter's own among them, or
    /// sending a trace would make the next one.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        let ours = Targets::new().with_target("quorate", LevelFilter::DEBUG);
        tracing_opentelemetry::layer().with_tracer(self.provider.tracer("quorate")).with_filter(ours)
    }

    /// Sends what is queued and stops. Blocks for at most `within`.
    pub(super) fn flush(self, within: Duration) -> OTelSdkResult {
        self.provider.shutdown_with_timeout(within)
    }
}

/// Makes `span` a child of the span that `traceparent` (W3C) names. Text that names none changes nothing.
pub(crate) fn continue_from(span: &Span, traceparent: &str) {
    if traceparent.is_empty() || span.is_disabled() {
        return;
    }
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    let caller = TraceContextPropagator::new().extract(&carrier);
    // Fails only where no layer makes traces of spans, or the span has been entered already; both lose a link at most.
    if let Err(error) = span.set_parent(caller) {
        tracing::debug!(%error, "a trace could not be continued");
    }
}

/// The W3C `traceparent` of `span`; empty where it is not sampled, as nobody needs to continue it then.
pub(crate) fn traceparent(span: &Span) -> String {
    use opentelemetry::trace::TraceContextExt;

    let context = span.context();
    if !context.span().span_context().is_sampled() {
        return String::new();
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove("traceparent").unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    };
    use tokio::sync::mpsc;
    use tonic::{Request, Response, Status, transport::server::TcpIncoming};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn traced<T>(f: impl FnOnce() -> T) -> T {
        let traces = Traces { provider: SdkTracerProvider::builder().build() };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(traces.layer()), f)
    }

    #[test]
    fn a_trace_goes_on_from_caller_to_callee() {
        traced(|| {
            let span = tracing::info_span!(target: "quorate", "write");
            continue_from(&span, CALLER);

            let onward = traceparent(&span);

            assert!(onward.starts_with("00-0af7651916cd43dd8448eb211c80319c-"), "{onward}");
            assert!(!onward.contains("b7ad6b7169203331"), "the callee has a span of its own: {onward}");
        });
    }

    #[test]
    fn what_names_no_span_starts_a_trace_of_its_own() {
        traced(|| {
            for text in ["", "nonsense", "00-0-0-01", &CALLER[..CALLER.len() - 3]] {
                let span = tracing::info_span!(target: "quorate", "write");
                continue_from(&span, text);

                assert!(traceparent(&span).ends_with("-01"), "{text}");
            }
        });
    }

    #[test]
    fn without_a_collector_nothing_is_sent_on() {
        let span = tracing::info_span!("write");
        continue_from(&span, CALLER);

        assert_eq!(traceparent(&span), "");
    }

    #[test]
    fn an_unsampled_caller_is_followed() {
        traced(|| {
            let span = tracing::info_span!(target: "quorate", "write");
            continue_from(&span, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");

            assert_eq!(traceparent(&span), "");
        });
    }

    /// A collector; full, it refuses.
    struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            self.0.try_send(request.into_inner()).map_err(|_| Status::resource_exhausted("full"))?;
            Ok(Response::new(ExportTraceServiceResponse::default()))
        }
    }

    #[tokio::test]
    async fn spans_reach_a_collector_with_who_sent_them() {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let endpoint = format!("http://{}", incoming.local_addr().unwrap());
        let (collector, mut collected) = mpsc::channel(16);
        let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(collector)));
        let server = tokio::spawn(server.serve_with_incoming(incoming));

        let traces = start(Some(&endpoint)).unwrap().unwrap();
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!(target: "quorate", "write");
            continue_from(&span, CALLER);
            drop(span);
            drop(tracing::info_span!(target: "tonic", "somebody else's"));
        });
        tokio::task::spawn_blocking(move || traces.flush(Duration::from_secs(20))).await.unwrap().unwrap();

        let sent = collected.recv().await.unwrap().resource_spans.remove(0);
        let resource = format!("{:?}", sent.resource);
        assert!(resource.contains("service.version") && resource.contains(super::super::VERSION), "{resource}");
        let spans = &sent.scope_spans[0].spans;
        assert_eq!((spans.len(), spans[0].name.as_str()), (1, "write"));
        assert_eq!(spans[0].parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        server.abort();
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_refused_and_a_silent_collector_is_not_waited_for() {
        assert!(start(Some("not an address")).is_err());

        // Listens and never answers.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let traces = start(Some(&endpoint)).unwrap().unwrap();
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        tracing::subscriber::with_default(subscriber, || drop(tracing::info_span!(target: "quorate", "write")));

        let flush = tokio::task::spawn_blocking(move || traces.flush(Duration::from_millis(50)));

        assert!(flush.await.unwrap().is_err(), "a flush that cannot be must say so");
    }
}
