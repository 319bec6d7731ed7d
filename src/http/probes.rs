//! Routes without authentication: liveness, readiness, metrics.

mod grasp;
mod mirror;
mod provision;

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use axum::{
    Json,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use chrono::{DateTime, Utc};
use metrics::{counter, gauge, histogram};
use serde_json::Value;
use tender_jobs::{database, queue};
use tokio::sync::Mutex;

use super::{Api, ApiError, data, openapi};
use crate::telemetry;

/// The minimum interval between two measurements of the gauges that need a query.
const FRESH: Duration = Duration::from_secs(10);
/// The longest wait for the database; after that the process is not ready.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct Probes {
    measured_at: Mutex<Option<Instant>>,
    /// The metrics of the mirror and of GRASP at the last measurement, as text.
    wings: std::sync::Mutex<String>,
}

/// Answers 200 if the process runs, and 503 if it has workers and none of them has sent a heartbeat for
/// 30 s.
#[utoipa::path(get, path = "/healthz", tag = "probes", security(()), responses((status = 200), (status = 503)))]
pub(super) async fn healthz(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    if api.vitals.as_ref().is_some_and(|vitals| !vitals.are_good()) {
        return Err(ApiError::Unavailable(
            "no worker of this process has sent a heartbeat for 30 s",
        ));
    }
    Ok(data("alive"))
}

/// Answers 200 if the process runs and the database is reachable.
#[utoipa::path(get, path = "/up", tag = "probes", security(()), responses((status = 200), (status = 503)))]
pub(super) async fn up(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    match tokio::time::timeout(PATIENCE, queue::now(&api.db)).await {
        Ok(Ok(_)) => Ok(data("up")),
        _ => Err(ApiError::Unavailable("the database does not answer")),
    }
}

/// Answers 200 if the database is reachable and migrated.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()), responses((status = 200), (status = 503)))]
pub(super) async fn readyz(State(api): State<Api>) -> Result<Json<Value>, ApiError> {
    match tokio::time::timeout(PATIENCE, database::is_migrated(&api.db)).await {
        Ok(Ok(true)) => Ok(data("ready")),
        Ok(Ok(false)) => {
            Err(ApiError::Unavailable("the database is not migrated: run `tender migrate`"))
        }
        _ => Err(ApiError::Unavailable("the database does not answer")),
    }
}

/// Returns the metrics in the text format of Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "probes", security(()), responses((status = 200)))]
pub(super) async fn metrics(State(api): State<Api>) -> String {
    let mut measured_at = api.probes.measured_at.lock().await;
    if measured_at.is_none_or(|at| at.elapsed() > FRESH) {
        let measured = tokio::time::timeout(PATIENCE, measure(&api)).await;
        gauge!("tender_database_up").set(f64::from(u8::from(matches!(measured, Ok(Ok(()))))));
        *measured_at = Some(Instant::now());
    }
    let of_wings = api.probes.wings.lock().unwrap_or_else(PoisonError::into_inner).clone();
    telemetry::metrics().render() + &of_wings
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
async fn measure(api: &Api) -> Result<(), sqlx::Error> {
    let now = queue::now(&api.db).await?;
    let workers = queue::workers(&api.db).await?;
    for queue in tender_jobs::queues() {
        let alive = workers.iter().filter(|worker| worker.serves() && worker.queue == queue);
        gauge!("tender_workers", "queue" => queue).set(alive.count() as f64);
    }
    let oldest = database::oldest_transaction_secs(&api.db).await?;
    gauge!("tender_oldest_transaction_seconds").set(oldest);
    let idle = api.db.num_idle();
    gauge!("tender_database_connections", "state" => "idle").set(idle as f64);
    let used = usize::try_from(api.db.size()).unwrap_or(usize::MAX).saturating_sub(idle);
    gauge!("tender_database_connections", "state" => "used").set(used as f64);
    measure_queues(api, now).await?;
    provision::measure(api, now).await?;
    let of_wings = mirror::measure(api).await? + &grasp::measure(api).await?;
    *api.probes.wings.lock().unwrap_or_else(PoisonError::into_inner) = of_wings;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
async fn measure_queues(api: &Api, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    for status in queue::status(&api.db, &tender_jobs::queues()).await? {
        let paused = f64::from(u8::from(status.paused_at.is_some()));
        gauge!("tender_queue_paused", "queue" => status.queue.clone()).set(paused);
        let late = status.oldest_due_at.map_or(0, |at| (now - at).num_milliseconds().max(0));
        gauge!("tender_queue_oldest_due_seconds", "queue" => status.queue.clone())
            .set(late as f64 / 1000.0);
        for (state, count) in [
            ("waiting", status.waiting),
            ("retrying", status.retrying),
            ("queued", status.queued),
            ("running", status.running),
            ("killed", status.killed),
            ("killed_open", status.killed_open),
        ] {
            gauge!("tender_jobs", "queue" => status.queue.clone(), "state" => state)
                .set(count as f64);
        }
    }
    Ok(())
}

/// Begins the count of each answer that the document of the API names at 0.
pub(super) fn begin() {
    for (method, route, statuses) in openapi::operations() {
        for status in statuses {
            counter!("tender_http_requests_total", "route" => route.clone(), "method" => method, "status" => status)
                .absolute(0);
        }
    }
    for reason in ["limit", "system"] {
        counter!("tender_http_connections_refused_total", "reason" => reason).absolute(0);
    }
}

/// Counts and times each request by its route. Paths are not used, because their number is
/// unbounded.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let route = route.unwrap_or_else(|| "unmatched".to_owned());
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "HEAD") => {
            known.to_owned()
        }
        _ => "other".to_owned(),
    };
    let started = Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    histogram!("tender_http_request_duration_seconds", "route" => route.clone())
        .record(started.elapsed().as_secs_f64());
    counter!("tender_http_requests_total", "route" => route, "method" => method, "status" => status)
        .increment(1);
    response
}
