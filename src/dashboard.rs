//! The dashboard: is the fleet in step, why is a relay not, and what to do about it. Server-rendered;
//! every page reads without scripts. Live parts come over server-sent events.
//!
//! Nothing here is shown without a session (`session`), and nothing is done without an operator's
//! session, its token, and a confirmation (`actions`). Pages are one call into the ledger and one
//! function of markup each.

mod actions;
mod assets;
mod board;
mod events;
mod fleet;
mod jobs;
mod layout;
mod live;
mod login;
mod parts;
mod queues;
mod relay;
mod relays;
mod session;
mod upstreams;

pub(crate) use session::random_token;

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
use tender_workers::zooid::Zooid;
use tokio_util::sync::CancellationToken;

use crate::config::ApiConfig;
use parts::Problem;
pub use session::{LINK_MINUTES, new_link};

/// Where it is mounted.
pub const PATH: &str = "/dashboard";

/// What every page can reach.
#[derive(Clone)]
pub struct Dashboard {
    db: PgPool,
    zooid: Option<Arc<Zooid>>,
    config: Arc<ApiConfig>,
    /// Of a relay's schedule, for "attempt 2 of 7".
    max_attempts: u32,
    shutdown: CancellationToken,
    login: Arc<login::Login>,
    fleet: Arc<fleet::Cache>,
    kinds: Arc<events::Kinds>,
    streams: Arc<tokio::sync::Semaphore>,
}

impl Dashboard {
    /// A dashboard over this ledger; without zooid, the bodies that would be sent are not shown.
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
            max_attempts: config.max_attempts,
            config,
            shutdown,
            login,
            fleet: Arc::default(),
            kinds: Arc::default(),
            streams: Arc::new(tokio::sync::Semaphore::new(live::MOST_STREAMS)),
        };
        if !dashboard.is_configured() {
            tracing::info!(
                "the dashboard is off: set ADMIN_PUBKEYS or DASHBOARD_PASSWORD, or type \
                 `tender dashboard-link`"
            );
        }
        dashboard
    }

    /// Whether somebody may log in without a link.
    fn is_configured(&self) -> bool {
        let config = &self.config;
        !config.admins.is_empty()
            || !config.viewers.is_empty()
            || config.dashboard_password.is_some()
    }

    fn is_https(&self) -> bool {
        self.config.base_url.starts_with("https://")
    }
}

/// Every route, under [`PATH`].
pub fn router(dashboard: Dashboard) -> Router {
    let inside = Router::new()
        .route("/", get(fleet::page))
        .route("/relays", get(relays::page))
        .route("/relays/{id}", get(relay::page))
        .route("/relays/{id}/{action}", post(actions::relay))
        .route("/upstreams", get(upstreams::page))
        .route("/upstreams/{id}", get(upstreams::one_page))
        .route("/upstreams/{id}/{action}", post(actions::upstream))
        .route("/events", get(events::page))
        .route("/queues", get(queues::page))
        .route("/queues/{queue}/{action}", post(actions::queue))
        .route("/jobs", get(jobs::list_page))
        .route("/jobs/retry-all", post(actions::retry_all))
        .route("/jobs/{id}", get(jobs::page))
        .route("/jobs/{id}/{action}", post(actions::job))
        .route("/instances/probe", post(actions::probe))
        .route("/reconcile", post(actions::reconcile))
        .route("/actions", get(queues::actions_page))
        .route("/live/fleet", get(live::fleet))
        .route("/live/relays/{id}", get(live::relay))
        .route("/live/queues", get(live::queues))
        .route("/live/relays", get(live::relays))
        .route("/live/upstreams", get(live::upstreams))
        .route("/live/upstreams/{id}", get(live::upstream))
        .route("/live/events", get(live::events))
        .route("/live/jobs/{id}", get(live::job))
        .route("/logout", post(login::logout))
        .route("/assets/{file}", get(assets::private))
        .merge(board::router(&dashboard))
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

/// What a page may load and do: only its own.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; font-src 'self'; form-action 'self'; frame-src 'self'; frame-ancestors 'none'; \
    base-uri 'none'";

/// Headers of every answer; the board, whose scripts are not ours, brings its own policy.
async fn headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"), // an action goes back to its page
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
            Self::NotFound => (StatusCode::NOT_FOUND, "There is nothing here."),
            Self::Forbidden => {
                (StatusCode::FORBIDDEN, "You may look, and not act: your key is a viewer's.")
            }
            Self::Stale => (
                StatusCode::FORBIDDEN,
                "This form is not of this session. Go back, reload the page, and try again.",
            ),
            Self::Busy => (StatusCode::SERVICE_UNAVAILABLE, "Too many pages are open; close some."),
            Self::Database => (
                StatusCode::SERVICE_UNAVAILABLE,
                "The database does not answer. Nothing was changed; try again in a moment.",
            ),
        };
        let body =
            layout::bare(words, &html! { p { (words) } p { a href=(PATH) { "To the fleet" } } });
        (status, body).into_response()
    }
}
