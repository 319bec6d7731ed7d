//! The log and the metrics of this process.

use std::{io::IsTerminal, sync::OnceLock};

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Buckets of every `…_seconds` histogram: from a fast local call to the longest attempt.
const SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// Writes the log to stderr, so that stdout is a command's answer. Once per process.
pub fn init(log: &LogConfig, default_level: &str) {
    // apalis tells each start of a worker at info; ours tells what matters.
    let default = format!("{default_level},apalis_core=warn,sqlx=error");
    let level = log.level.as_deref().unwrap_or(&default);
    let filter = EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = if log.json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    if set.is_err() {
        tracing::debug!("the log was set up already");
    }
}

/// The process's metrics, as Prometheus reads them.
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
                tracing::warn!("another metrics recorder is in place; /metrics stays empty");
            }
            handle
        })
        .clone()
}
