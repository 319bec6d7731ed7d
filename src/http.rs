//! The HTTP API. A handler makes one call into the ledger and turns the result into a status and a
//! body; it contains no SQL and no URL of zooid.
//!
//! Answers are `{"data": …}` or `{"error": "…"}`, except below `/api/v1`. [`router`] lists the
//! routes, and `/openapi.json` describes the contract.

mod auth;
mod error;
mod extract;
mod grasp;
mod limit;
mod listen;
mod mirror;
mod openapi;
mod probes;
mod provision;
mod root;
mod stats;
mod tokens;
mod v1;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header},
    middleware,
};
use serde_json::json;
use sqlx::PgPool;
use tender_workers::{provision::zooid::Zooid, runtime::Vitals};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::{
    catch_panic::CatchPanicLayer,
    cors::{Any, CorsLayer},
    request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
    timeout::TimeoutLayer,
    trace::TraceLayer,
};
use utoipa_axum::{router::OpenApiRouter, routes};
use uuid::Uuid;

use crate::{
    config::ApiConfig,
    dashboard::{self, Dashboard},
    telemetry,
};
pub use error::ApiError;
pub(crate) use mirror::v1::keys::key_name;
pub use openapi::document as openapi_document;

/// The longest request body, in bytes.
pub const MAX_BODY: usize = 64 * 1024;
/// The longest duration of a request, including a call to zooid for members.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The state that the handlers share.
#[derive(Clone)]
pub struct Api {
    db: PgPool,
    zooid: Option<Arc<Zooid>>,
    config: Arc<ApiConfig>,
    limits: Arc<limit::Limits>,
    tokens: Arc<tokens::Tokens>,
    probes: Arc<probes::Probes>,
    /// The heartbeats of this process's workers; `None` if it has none.
    vitals: Option<Vitals>,
}

impl Api {
    /// Returns an API over this ledger. Without `zooid`, requests for members are answered with
    /// 503.
    pub fn new(db: PgPool, zooid: Option<Arc<Zooid>>, config: ApiConfig) -> Self {
        telemetry::metrics(); // installed before the first request is counted
        probes::begin();
        Self {
            db,
            zooid,
            limits: Arc::new(limit::Limits::new(config.rate_limit)),
            config: Arc::new(config),
            tokens: Arc::default(),
            probes: Arc::default(),
            vitals: None,
        }
    }

    /// Makes `/healthz` fail when the workers of this process have sent no heartbeat for 30 s.
    #[must_use]
    pub fn alive_with(self, vitals: Vitals) -> Self {
        Self { vitals: Some(vitals), ..self }
    }
}

/// Returns the router of all routes of the API and the probes.
pub fn router(api: Api) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(|| async { ApiError::NotFound })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_TIMEOUT))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(probes::observe))
        .layer(
            TraceLayer::new_for_http().make_span_with(span).on_failure(()).on_response(log_failure),
        )
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(SetRequestIdLayer::new(REQUEST_ID, FreshId))
        .layer(middleware::from_fn(drop_strange_id))
        .layer(cors())
        .layer(Extension(api.clone()))
        .with_state(api)
}

/// Returns the routes of the API. They are the source of `/openapi.json` too.
fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .merge(provision::routes())
        .nest("/api/v1/grasp", grasp::routes())
        .nest("/api/v1", mirror::v1::routes())
        .merge(probes_routes())
        .routes(routes!(openapi::show))
        .routes(routes!(root::root))
}

/// Returns the router of the API and the dashboard.
fn site(api: Api, shutdown: CancellationToken) -> Router {
    let (db, zooid, config) = (api.db.clone(), api.zooid.clone(), api.config.clone());
    let dashboard = Dashboard::new(db, zooid, config, shutdown);
    let stats = stats::router(api.clone(), dashboard.clone());
    let dashboard = dashboard::router(dashboard)
        .merge(stats)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, REQUEST_TIMEOUT))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(probes::observe));
    router(api).merge(dashboard)
}

/// Serves the API and the dashboard until `shutdown`, then waits for running requests, at most
/// `ConnectionLimits::drain`.
///
/// # Errors
/// The listener has no address.
pub async fn serve(
    listener: TcpListener,
    api: Api,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    tokio::spawn(telemetry::keep_up(shutdown.clone()));
    let limits = api.config.connections;
    listen::serve(listener, site(api, shutdown.clone()), limits, shutdown).await
}

/// Serves only the probes and the metrics until `shutdown`, for processes without the API.
///
/// # Errors
/// The listener has no address.
pub async fn serve_probes(
    listener: TcpListener,
    api: Api,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    tokio::spawn(telemetry::keep_up(shutdown.clone()));
    let limits = api.config.connections;
    let (probes, _) = probes_routes().split_for_parts();
    let probes = probes.fallback(|| async { ApiError::NotFound }).with_state(api);
    listen::serve(listener, probes, limits, shutdown).await
}

fn probes_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(probes::up))
        .routes(routes!(probes::metrics))
}

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE])
        .expose_headers([REQUEST_ID, header::RETRY_AFTER])
        .max_age(Duration::from_hours(1))
}

#[derive(Debug, Clone, Copy)]
struct FreshId;

impl MakeRequestId for FreshId {
    fn make_request_id<B>(&mut self, _request: &Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&Uuid::new_v4().to_string()).ok().map(RequestId::new)
    }
}

/// Removes a client's request id unless it is short and plain, because it is copied to logs and
/// payloads.
async fn drop_strange_id(
    mut request: axum::extract::Request,
    next: middleware::Next,
) -> axum::response::Response {
    let is_plain = |id: &HeaderValue| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        !id.is_empty() && id.len() <= 64 && id.as_bytes().iter().all(plain)
    };
    if !request.headers().get(&REQUEST_ID).is_some_and(is_plain) {
        request.headers_mut().remove(&REQUEST_ID);
    }
    next.run(request).await
}

/// Returns the span of a request. It has the path without the query, because a search text is
/// private.
fn span<B>(request: &Request<B>) -> tracing::Span {
    let id = request.headers().get(&REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    tracing::info_span!("request", method = %request.method(), path = request.uri().path(), id)
}

/// Marks a failure that the operator chose, such as a wing that is not configured. It is no error of the
/// log.
#[derive(Debug, Clone, Copy)]
struct Expected;

/// Logs an answer with a status of 5xx, once per request.
fn log_failure<B>(response: &Response<B>, latency: Duration, _span: &tracing::Span) {
    let is_expected = response.extensions().get::<Expected>().is_some();
    if response.status().is_server_error() && !is_expected {
        let (status, latency) = (response.status().as_u16(), latency.as_millis());
        tracing::error!(status, latency_ms = latency, "a request failed");
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the layer requires this signature")]
fn panicked(panic: Box<dyn std::any::Any + Send>) -> axum::response::Response {
    let words = panic.downcast_ref::<&str>().copied();
    let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = words, "a request panicked");
    axum::response::IntoResponse::into_response(ApiError::Internal)
}

/// Returns the body `{"data": …}`.
fn data<T: serde::Serialize>(data: T) -> Json<serde_json::Value> {
    Json(json!({ "data": data }))
}
