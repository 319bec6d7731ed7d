//! The dashboard: pages for operators. They show whether the relays are in step, what failed and why,
//! and offer the actions that help. The server renders them, and every page works without scripts.
//! Server-sent events update the live parts.
//!
//! Every page requires a session (`session`). Every action requires an operator's session, the token
//! of that session, and a confirmation (`actions`). A page is one call into the ledger and one
//! function of markup.

mod actions;
mod assets;
mod attention;
mod charts;
mod export;
mod fleet;
mod grasp;
mod jobs;
mod json;
mod layout;
mod lists;
mod live;
mod login;
mod mirror;
mod parts;
mod password;
mod processes;
mod provision;
mod queues;
mod schedule;
mod scheme;
mod search;
mod session;
mod shared;
mod steer;
mod throttle;
mod workers;

use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use maud::html;
use sqlx::PgPool;
use tender_jobs::{console::charts::Charts, grasp::view::ParkedGroup, queue::QueueStatus};
use tender_workers::provision::zooid::Zooid;
use tokio_util::sync::CancellationToken;

use crate::{config::ApiConfig, fleet::Fleet};
use parts::Problem;
pub use session::{LINK_MINUTES, new_link};
use shared::Shared;

/// The path below which every page is.
pub const PATH: &str = "/dashboard";

/// The state that every page has access to.
#[derive(Clone)]
pub struct Dashboard {
    db: PgPool,
    zooid: Option<Arc<Zooid>>,
    config: Arc<ApiConfig>,
    shutdown: CancellationToken,
    login: Arc<login::Login>,
    fleet: Arc<Shared<Fleet>>,
    figures: Arc<Shared<queues::Figures>>,
    statuses: Arc<Shared<Vec<QueueStatus>>>,
    parked: Arc<Shared<Vec<ParkedGroup>>>,
    charts: Arc<[Shared<Charts>; 3]>,
    streams: Arc<tokio::sync::Semaphore>,
    exports: Arc<tokio::sync::Semaphore>,
}

impl Dashboard {
    /// Returns a dashboard over this ledger. Without `zooid`, the page of a relay does not show the
    /// body of the next request.
    pub fn new(
        db: PgPool,
        zooid: Option<Arc<Zooid>>,
        config: Arc<ApiConfig>,
        shutdown: CancellationToken,
    ) -> Self {
        let login = Arc::new(login::Login::new(config.dashboard_password.as_ref()));
        let dashboard = Self {
            db,
            zooid,
            config,
            shutdown,
            login,
            fleet: Arc::default(),
            figures: Arc::default(),
            statuses: Arc::default(),
            parked: Arc::default(),
            charts: Arc::default(),
            streams: Arc::new(tokio::sync::Semaphore::new(live::MOST_STREAMS)),
            exports: Arc::new(tokio::sync::Semaphore::new(export::AT_ONCE)),
        };
        if !dashboard.is_configured() {
            tracing::info!(
                "nobody has permanent access to the dashboard: set ADMIN_PUBKEYS or DASHBOARD_PASSWORD, or use \
                 `tender dashboard-link`"
            );
        }
        dashboard
    }

    /// Whether a login without a link is possible.
    fn is_configured(&self) -> bool {
        let config = &self.config;
        !config.admins.is_empty()
            || !config.viewers.is_empty()
            || config.dashboard_password.is_some()
    }

    /// The attempts that a SyncRelay job may make, for "attempt 2 of 7".
    fn max_attempts(&self) -> u32 {
        self.config.backoff.max_attempts()
    }

    fn is_https(&self) -> bool {
        self.config.base_url.starts_with("https://")
    }
}

/// Returns who is logged in to the dashboard by the cookie of a request; `None` without a valid session.
pub async fn logged_in(
    dashboard: &Dashboard,
    headers: &axum::http::HeaderMap,
) -> Result<Option<String>, sqlx::Error> {
    Ok(session::viewer(dashboard, headers).await?.map(|viewer| viewer.who))
}

/// Returns every route, below [`PATH`].
pub fn router(dashboard: Dashboard) -> Router {
    let inside = Router::new()
        .route("/", get(fleet::page))
        .route("/relays", get(provision::relays::page))
        .route("/relays/{id}", get(provision::relay::page))
        .route("/relays/{id}/{action}", post(provision::actions::relay))
        .route("/upstreams", get(mirror::upstreams::page))
        .route("/upstreams/{id}", get(mirror::upstream::page))
        .route("/upstreams/{id}/{action}", post(mirror::actions::upstream))
        .route("/events", get(mirror::events::page))
        .route("/charts", get(charts::page))
        .route("/repositories", get(grasp::repos::page))
        .route("/repository", get(grasp::repo::page))
        .route("/followed", get(grasp::relays::page))
        .route("/followed/{id}", get(grasp::relay::page))
        .route("/followed/{id}/resync", post(grasp::actions::resync))
        .route("/parked", get(grasp::parked::page))
        .route("/queues", get(queues::page))
        .route("/queues/{queue}/{action}", post(queues::actions::queue))
        .route("/jobs", get(jobs::page))
        .route("/jobs/steer", post(jobs::bulk::steer))
        .route("/jobs/{id}", get(jobs::one::page))
        .route("/jobs/{id}/{action}", post(steer::job))
        .route("/workers", get(workers::page))
        .route("/processes", get(processes::page))
        .route("/processes/{id}/{action}", post(processes::steer))
        .route("/schedule", get(schedule::page))
        .route("/schedule/{name}/run", post(schedule::run))
        .route("/attention/snooze", post(attention::snooze))
        .route("/attention/wake", post(attention::wake))
        .route("/attention/sync", post(attention::sync))
        .route("/instances/probe", post(provision::actions::probe))
        .route("/reconcile", post(provision::actions::reconcile))
        .route("/actions", get(actions::log::page))
        .route("/search", get(search::page))
        .route("/export/{file}", get(export::file))
        .route("/session", get(|| async { StatusCode::NO_CONTENT }))
        .route("/live/attention", get(live::attention))
        .route("/live/fleet", get(live::pages::fleet))
        .route("/live/charts", get(live::pages::charts))
        .route("/live/relays/{id}", get(live::pages::relay))
        .route("/live/queues", get(live::pages::queues))
        .route("/live/workers", get(live::pages::workers))
        .route("/live/processes", get(live::pages::processes))
        .route("/live/schedule", get(live::pages::schedule))
        .route("/live/repositories", get(live::pages::repos))
        .route("/live/repository", get(live::pages::repo))
        .route("/live/followed", get(live::pages::followed))
        .route("/live/followed/{id}", get(live::pages::followed_relay))
        .route("/live/parked", get(live::pages::parked))
        .route("/live/jobs", get(live::pages::jobs))
        .route("/live/relays", get(live::pages::relays))
        .route("/live/upstreams", get(live::pages::upstreams))
        .route("/live/upstreams/{id}", get(live::pages::upstream))
        .route("/live/events", get(live::pages::events))
        .route("/live/jobs/{id}", get(live::pages::job))
        .route("/scheme", post(scheme::choose))
        .route("/logout", post(login::logout))
        .route("/assets/{file}", get(assets::private))
        .route_layer(middleware::from_fn_with_state(dashboard.clone(), actions::failed::record))
        .route_layer(middleware::from_fn_with_state(dashboard.clone(), session::require));
    let outside = Router::new()
        .route("/login", get(login::page))
        .route("/login/nostr", post(login::by_nostr))
        .route("/login/password", post(login::by_password))
        .route("/link", get(login::link_page).post(login::by_link))
        .route("/public/{file}", get(assets::public));
    Router::new()
        .nest(PATH, inside.merge(outside).fallback(|| async { Problem::NotFound }))
        .route(&format!("{PATH}/"), get(fleet::to_root))
        .layer(middleware::from_fn_with_state(dashboard.clone(), session::only_if_open))
        .layer(middleware::from_fn(headers))
        .with_state(dashboard)
}

/// The content security policy: a page loads and contacts only its own origin.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; font-src 'self'; form-action 'self'; frame-ancestors 'none'; \
    base-uri 'none'";

/// Sets the security headers of a response, unless the handler has set them.
async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"), // actions return to the page of their form
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=()"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::NotFound => (StatusCode::NOT_FOUND, "This page does not exist."),
            Self::Forbidden => (
                StatusCode::FORBIDDEN,
                "This action was not done: a viewer cannot act. Log in as an operator.",
            ),
            Self::Stale => (
                StatusCode::FORBIDDEN,
                "This action was not done: the form belongs to another session. Go back, reload the \
                 page and try again.",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "This page is not live: too many pages are open. Close some and reload.",
            ),
            Self::Database => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The database did not answer. Try again in a moment. If this was an action, look \
                 first whether it was done.",
            ),
        };
        let body =
            layout::bare(words, &html! { p { (words) } p { a href=(PATH) { "Go to the fleet" } } });
        (status, body).into_response()
    }
}
