//! Statistics as JSON, below `/stats/api`. They require an API key or a session of the dashboard, unless
//! `STATS_AUTH_ENABLED` is false: the addresses of upstreams and the load of the server are nobody
//! else's business. The page `/stats` is the dashboard's page of events.

mod system;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    extract::{Request, State},
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
};
use serde_json::{Value, json};
use tender_jobs::{
    mirror::{event, upstream},
    queue,
};
use tokio::sync::Mutex;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, ApiError, auth::address_of, tokens, v1::bearer};
use crate::dashboard::{self, Dashboard};

/// How long the counts of events are answered without reading them again.
const EVENTS_FRESH: Duration = Duration::from_secs(30);

/// The state of these routes.
#[derive(Clone)]
pub(super) struct Stats {
    api: Api,
    dashboard: Dashboard,
    events: Arc<Mutex<Fresh>>,
    system: Arc<system::Meter>,
}

/// A value, and when it was read.
type Fresh = Option<(Instant, Value)>;

/// Returns the routes below `/stats`.
pub(super) fn router(api: Api, dashboard: Dashboard) -> Router {
    let stats = Stats { api, dashboard, events: Arc::default(), system: Arc::default() };
    let (router, _) = routes().split_for_parts();
    router.layer(Extension(stats.clone())).with_state(stats)
}

pub(super) fn routes() -> OpenApiRouter<Stats> {
    OpenApiRouter::new()
        .routes(routes!(metrics))
        .routes(routes!(connections))
        .routes(routes!(events))
        .routes(routes!(of_system))
        .route_layer(middleware::from_fn(authenticate))
        .routes(routes!(page))
}

/// Redirects to the dashboard's page of events.
#[utoipa::path(get, path = "/stats", tag = "mirror", security(()), responses((status = 303)))]
pub(super) async fn page() -> Redirect {
    Redirect::to("/dashboard/events")
}

/// Requires an API key or a session, and counts the request against its rate limit.
async fn authenticate(
    Extension(stats): Extension<Stats>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    match may_read(&stats, &parts).await {
        Ok(true) => next.run(Request::from_parts(parts, body)).await,
        Ok(false) => {
            (StatusCode::UNAUTHORIZED, Json(json!({ "error": "Unauthorized" }))).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn may_read(stats: &Stats, parts: &axum::http::request::Parts) -> Result<bool, ApiError> {
    let (api, address) = (&stats.api, address_of(parts, &stats.api));
    let count = |key: &str| api.limits.check_authenticated(key, &address);
    if !api.config.stats_auth {
        return count(&format!("stats {address}"))
            .map(|()| true)
            .map_err(ApiError::TooManyRequests);
    }
    if let Some(who) = dashboard::logged_in(&stats.dashboard, &parts.headers).await? {
        return count(&format!("session {who}")).map(|()| true).map_err(ApiError::TooManyRequests);
    }
    let token = bearer(&parts.headers);
    match &api.config.key_secret {
        Some(secret) => Ok(tokens::holder(api, secret, token, &address).await?.is_some()),
        None => {
            api.limits.check_failed(&address).map(|()| false).map_err(ApiError::TooManyRequests)
        }
    }
}

/// Returns all statistics.
#[utoipa::path(get, path = "/stats/api/metrics", tag = "mirror", security(("bearer" = [])),
    responses((status = 200), (status = 401)))]
pub(super) async fn metrics(State(stats): State<Stats>) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({
        "connections": of_connections(&stats).await?,
        "events": of_events(&stats).await?,
        "system": stats.system.read(&stats.api.db),
        "collected_at": queue::now(&stats.api.db).await?,
    })))
}

/// Returns the connections to upstreams.
#[utoipa::path(get, path = "/stats/api/connections", tag = "mirror", security(("bearer" = [])),
    responses((status = 200), (status = 401)))]
pub(super) async fn connections(State(stats): State<Stats>) -> Result<Json<Value>, ApiError> {
    Ok(Json(of_connections(&stats).await?))
}

/// Returns the counts of events.
#[utoipa::path(get, path = "/stats/api/events", tag = "mirror", security(("bearer" = [])),
    responses((status = 200), (status = 401)))]
pub(super) async fn events(State(stats): State<Stats>) -> Result<Json<Value>, ApiError> {
    Ok(Json(of_events(&stats).await?))
}

/// Returns the figures of this process.
#[utoipa::path(get, path = "/stats/api/system", tag = "mirror", security(("bearer" = [])),
    responses((status = 200), (status = 401)))]
pub(super) async fn of_system(State(stats): State<Stats>) -> Json<Value> {
    Json(stats.system.read(&stats.api.db))
}

async fn of_connections(stats: &Stats) -> Result<Value, ApiError> {
    let mut open = upstream::connections(&stats.api.db).await?;
    open.retain(|connection| connection.state == "open");
    let subscriptions: i64 = open.iter().map(|one| i64::from(one.subscriptions)).sum();
    Ok(json!({ "total": open.len(), "details": open, "total_subscriptions": subscriptions }))
}

async fn of_events(stats: &Stats) -> Result<Value, ApiError> {
    let db = &stats.api.db;
    fresh(&stats.events, EVENTS_FRESH, async {
        let events = event::stats(db).await?;
        Ok(json!({
            "total": events.total, "today": events.today, "per_minute": events.per_minute,
            "by_kind": events.by_kind, "last_7_days": events.days, "rejected": events.rejected,
        }))
    })
    .await
}

/// Returns the value, read again if it is older than `age`. Concurrent requests wait for one read.
async fn fresh(
    cell: &Mutex<Fresh>,
    age: Duration,
    read: impl Future<Output = Result<Value, sqlx::Error>>,
) -> Result<Value, ApiError> {
    let mut cell = cell.lock().await;
    if let Some((at, value)) = &*cell
        && at.elapsed() < age
    {
        return Ok(value.clone());
    }
    let value = read.await?;
    *cell = Some((Instant::now(), value.clone()));
    Ok(value)
}
