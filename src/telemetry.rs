//! The log, the metrics and the traces of this process.

pub(crate) mod catalogue;
#[cfg(feature = "otel")]
mod traces;

use std::{io::IsTerminal, sync::OnceLock, time::Duration};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::SubscriberExt,
    registry::LookupSpan,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::LogConfig;

/// The interval of [`keep_up`].
const UPKEEP: Duration = Duration::from_secs(5);
/// The upper bounds of the buckets of every `…_seconds` histogram: from a fast local call to the
/// longest attempt.
const SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// Starts the log on stderr, because stdout carries the output of a command. To be called once per
/// process, before the first line is logged.
pub fn init(log: &LogConfig, default_level: &str) {
    // apalis logs each start of a worker at level info, which would only repeat Tender's own lines.
    let default = format!("{default_level},apalis_core=warn,sqlx=error");
    let level = log.level.as_deref().unwrap_or(&default);
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    if start(log, filter).is_err() {
        tracing::debug!("the log was initialised before");
    }
    if log.traces.is_some() && !cfg!(feature = "otel") {
        tracing::warn!(
            "OTEL_EXPORTER_OTLP_ENDPOINT has no effect in this build: build with --features otel"
        );
    }
}

fn start(log: &LogConfig, filter: EnvFilter) -> Result<(), TryInitError> {
    let registry = tracing_subscriber::registry();
    #[cfg(feature = "otel")]
    if let Some(traces) = log.traces.as_ref().and_then(traces::layer) {
        let traces = traces.with_filter(EnvFilter::new("off,tender=info,tender_workers=info"));
        return registry.with(traces).with(lines(log).with_filter(filter)).try_init();
    }
    // One filter for all, where there is only one layer: a filter of a layer loses the line after each one that sqlx asked
    // about and that was not wanted, such as a notice of a migration.
    registry.with(filter).with(lines(log)).try_init()
}

/// The lines of the log.
fn lines<S>(log: &LogConfig) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    if log.json {
        // Each span once, in the list; else the innermost one would be there twice.
        lines.json().flatten_event(true).with_current_span(false).boxed()
    } else {
        lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed()
    }
}

/// Aggregates the recorded values of histograms at a fixed interval. Without this, every value
/// would stay in memory until the next request for the metrics.
pub async fn keep_up(shutdown: CancellationToken) {
    while tokio::time::timeout(UPKEEP, shutdown.cancelled()).await.is_err() {
        metrics().run_upkeep();
    }
}

/// Sends the remaining traces. To be called at the end of the process.
pub fn shutdown() {
    #[cfg(feature = "otel")]
    traces::shutdown();
}

/// Returns the handle that renders the process's metrics for Prometheus. The first call installs
/// the recorder, describes every metric and begins every counter of workers at 0.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new();
            let builder = builder
                .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
                .unwrap_or_else(|_| PrometheusBuilder::new());
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed; /metrics stays empty");
            }
            catalogue::describe();
            tender_workers::metrics::begin();
            handle
        })
        .clone()
}
