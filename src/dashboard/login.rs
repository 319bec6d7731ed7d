//! Login by a signed event of a known key, by the password, or by a link; and logout.

use std::{num::NonZeroU32, time::Duration};

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use axum::{
    Form, Json,
    body::Bytes,
    extract::{ConnectInfo, Query, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use maud::{Markup, html};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tender_jobs::console::{
    operator,
    session::{self as sessions, Role},
};
use tokio::sync::Semaphore;

use super::{Dashboard, PATH, layout, parts::Problem, session};
use crate::nip98;

/// The limit of password attempts, over all clients: 5 at once, then one per 6 s.
const PAUSE: Duration = Duration::from_secs(6);
const BURST: u32 = 5;
/// The longest password that is hashed, in bytes.
const MAX_PASSWORD: usize = 1024;

/// The password and its limits.
pub(super) struct Login {
    password: Option<String>,
    limit: DefaultDirectRateLimiter,
    /// Allows one hash at a time, because each takes 19 MiB and tens of milliseconds.
    hashing: Semaphore,
}

impl Login {
    pub(super) fn new(password: Option<&SecretString>) -> Self {
        let password = password.and_then(|password| match hashed(password.expose_secret()) {
            Ok(hash) => Some(hash),
            Err(error) => {
                tracing::error!(%error, "DASHBOARD_PASSWORD cannot be used; login by password is off");
                None
            }
        });
        let quota = Quota::with_period(PAUSE).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        let burst = NonZeroU32::new(BURST).unwrap_or(NonZeroU32::MIN);
        let limit = RateLimiter::direct(quota.allow_burst(burst));
        Self { password, limit, hashing: Semaphore::new(1) }
    }

    /// Whether this is the password. Takes tens of milliseconds.
    async fn is_password(&self, given: String) -> bool {
        let (Some(hash), Ok(_permit)) = (self.password.clone(), self.hashing.acquire().await)
        else {
            return false;
        };
        let verified = tokio::task::spawn_blocking(move || {
            let hash = PasswordHash::new(&hash).ok()?;
            Argon2::default().verify_password(given.as_bytes(), &hash).ok()
        });
        matches!(verified.await, Ok(Some(())))
    }
}

/// Returns the hash of the password. A password that is a hash already is returned as it is.
fn hashed(password: &str) -> anyhow::Result<String> {
    if password.starts_with("$argon2") {
        return Ok(PasswordHash::new(password)?.to_string());
    }
    Ok(Argon2::default().hash_password(password.as_bytes())?.to_string())
}

pub(super) async fn page(State(dashboard): State<Dashboard>) -> Response {
    login_page(&dashboard, None).into_response()
}

fn login_page(dashboard: &Dashboard, problem: Option<&str>) -> Markup {
    let has_keys = !dashboard.config.admins.is_empty() || !dashboard.config.viewers.is_empty();
    let url = format!("{}{PATH}/login/nostr", dashboard.config.base_url);
    layout::bare(
        "Log in",
        &html! {
            @if let Some(problem) = problem { p.problem role="alert" { (problem) } }
            @if has_keys {
                button #nostr-login type="button" data-url=(url) { "Log in with your Nostr key" }
                p #nostr-problem .problem role="alert" hidden {}
                noscript { p { "Login by key needs scripts and a Nostr signer in your browser." } }
            }
            @if dashboard.config.dashboard_password.is_some() {
                form method="post" action={ (PATH) "/login/password" } {
                    label for="password" { "Password" }
                    input #password type="password" name="password" autocomplete="current-password" required;
                    button { "Log in" }
                }
            }
            p.quiet { "For a login link, run " code { "tender dashboard-link" } " on the host of Tender." }
            script src={ (PATH) "/public/login.js" } defer {}
        },
    )
}

/// Logs in by the signed event in the header, which is valid for one login. The body is empty.
pub(super) async fn by_nostr(
    State(dashboard): State<Dashboard>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let url = format!("{}{PATH}/login/nostr", dashboard.config.base_url);
    let refuse = |words: &str| (StatusCode::UNAUTHORIZED, Json(json!({ "error": words })));
    let event = match nip98::strict(&headers, &Method::POST, &url, &body) {
        Ok(event) => event,
        Err(words) => return Ok(refuse(words).into_response()),
    };
    let Some(role) = session::role_of_key(&dashboard, &event.pubkey) else {
        return Ok(refuse("this key has no access: add it to ADMIN_PUBKEYS").into_response());
    };
    if !sessions::spend(&dashboard.db, event.id.as_bytes()).await? {
        return Ok(refuse("this event was used before: sign a new one").into_response());
    }
    let who = event.pubkey.to_hex();
    let cookie = logged_in(&dashboard, &who, role).await?;
    Ok(([(header::SET_COOKIE, cookie)], Json(json!({ "data": PATH }))).into_response())
}

#[derive(Deserialize)]
pub(super) struct PasswordForm {
    password: String,
}

pub(super) async fn by_password(
    State(dashboard): State<Dashboard>,
    ConnectInfo(peer): ConnectInfo<std::net::SocketAddr>,
    Form(form): Form<PasswordForm>,
) -> Result<Response, Problem> {
    if dashboard.login.limit.check().is_err() {
        let page =
            login_page(&dashboard, Some("Too many attempts. Wait some seconds and try again."));
        return Ok((StatusCode::TOO_MANY_REQUESTS, page).into_response());
    }
    let is_right =
        form.password.len() <= MAX_PASSWORD && dashboard.login.is_password(form.password).await;
    if !is_right {
        tracing::warn!(peer = %peer.ip(), "login failed: wrong password");
        let page = login_page(&dashboard, Some("Wrong password."));
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    }
    let cookie = logged_in(&dashboard, session::PASSWORD, Role::Operator).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(PATH)).into_response())
}

#[derive(Deserialize)]
pub(super) struct LinkForm {
    token: String,
}

/// Shows a button, because a program that previews links must not use the link up.
pub(super) async fn link_page(Query(link): Query<LinkForm>) -> Markup {
    layout::bare(
        "Log in",
        &html! {
            form method="post" action={ (PATH) "/link" } {
                input type="hidden" name="token" value=(link.token);
                button { "Log in with this link" }
            }
            p.quiet { "The link works once." }
        },
    )
}

pub(super) async fn by_link(
    State(dashboard): State<Dashboard>,
    Form(link): Form<LinkForm>,
) -> Result<Response, Problem> {
    if !sessions::redeem(&dashboard.db, &session::hash(&link.token)).await? {
        let words = "This link was used or has expired. Run `tender dashboard-link` for a new one.";
        return Ok((StatusCode::UNAUTHORIZED, login_page(&dashboard, Some(words))).into_response());
    }
    let cookie = logged_in(&dashboard, "link", Role::Operator).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(PATH)).into_response())
}

async fn logged_in(dashboard: &Dashboard, who: &str, role: Role) -> Result<String, sqlx::Error> {
    let cookie = session::begin(dashboard, who, role).await?;
    operator::record(&dashboard.db, who, "log_in", "", role.as_str()).await?;
    tracing::info!(who, role = role.as_str(), "logged in to the dashboard");
    Ok(cookie)
}

#[derive(Deserialize)]
pub(super) struct LogoutForm {
    form_token: String,
}

pub(super) async fn logout(
    State(dashboard): State<Dashboard>,
    viewer: session::Viewer,
    Form(form): Form<LogoutForm>,
) -> Result<Response, Problem> {
    if !viewer.owns(&form.form_token) {
        return Err(Problem::Stale);
    }
    sessions::revoke(&dashboard.db, Some(&viewer.token_hash)).await?;
    operator::record(&dashboard.db, &viewer.who, "log_out", "", "session ended").await?;
    let cookie = session::no_cookie(&dashboard);
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/dashboard/login")).into_response())
}
