//! Sends traces to a collector, by OTLP over HTTP with JSON.

use std::sync::OnceLock;

use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use reqwest::Url;
use tracing::Subscriber;
use tracing_opentelemetry::OpenTelemetryLayer;
use tracing_subscriber::registry::LookupSpan;

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// Returns a layer that sends spans to `endpoint`. If it cannot be created, prints the reason and
/// returns `None`.
pub(super) fn layer<S>(
    endpoint: &Url,
) -> Option<OpenTelemetryLayer<S, opentelemetry_sdk::trace::SdkTracer>>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let client =
        Client { http: reqwest::Client::new(), runtime: tokio::runtime::Handle::current() };
    let url = format!("{}/v1/traces", endpoint.as_str().trim_end_matches('/'));
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpJson)
        .with_endpoint(url)
        .with_http_client(client)
        .build();
    let exporter = match exporter {
        Ok(exporter) => exporter,
        Err(error) => {
            complain(&error.to_string());
            return None;
        }
    };
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(Resource::builder().with_service_name("tender").build())
        .build();
    let tracer = provider.tracer("tender");
    let _set_once = PROVIDER.set(provider);
    Some(OpenTelemetryLayer::new(tracer))
}

/// Prints to stderr, because the log is not initialised yet.
#[expect(clippy::print_stderr, reason = "the log is not initialised yet")]
fn complain(error: &str) {
    eprintln!("tender: could not start sending traces: {error}");
}

/// Sends the remaining spans.
pub(super) fn shutdown() {
    if let Some(provider) = PROVIDER.get()
        && let Err(error) = provider.shutdown()
    {
        tracing::warn!(%error, "could not send the remaining traces");
    }
}

/// An HTTP client whose requests run on our runtime, because the exporter runs in a thread without
/// one.
#[derive(Debug)]
struct Client {
    http: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let http = self.http.clone();
        let sending = self.runtime.spawn(async move {
            let answer = http.execute(request).await?;
            let status = answer.status();
            Ok::<_, reqwest::Error>((status, answer.bytes().await?))
        });
        let (status, bytes) = sending.await??;
        Ok(Response::builder().status(status).body(bytes)?)
    }
}
