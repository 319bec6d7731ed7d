//! Login by a signed event of a known key, by the password, or by a link; and logout.

use std::net::SocketAddr;

use axum::{
    Form, Json,
    body::Bytes,
    extract::{ConnectInfo, Query, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use tender_jobs::console::{
    operator,
    session::{self as sessions, Role},
};

use super::{
    Dashboard, PATH, layout,
    parts::{Problem, is_ours},
    password::Password,
    session,
    throttle::Throttle,
};
use crate::nip98;

/// When a login is worth trying again that found too many others waiting, in seconds.
const BUSY_WAIT: u64 = 5;

/// The password and the limit of its attempts.
pub(super) struct Login {
    password: Password,
    throttle: Throttle,
}

impl Login {
    pub(super) fn new(password: Option<&SecretString>) -> Self {
        Self { password: Password::new(password), throttle: Throttle::default() }
    }
}

/// The page that the person wanted before the login.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Wanted {
    #[serde(default)]
    next: String,
}

impl Wanted {
    /// Returns the path of the page if it is one of the dashboard, else that of the overview.
    fn page(&self) -> &str {
        if is_ours(&self.next) { &self.next } else { PATH }
    }
}

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    Query(wanted): Query<Wanted>,
) -> Response {
    login_page(&dashboard, &wanted, None).into_response()
}

fn login_page(dashboard: &Dashboard, wanted: &Wanted, problem: Option<&str>) -> Markup {
    let has_keys = !dashboard.config.admins.is_empty() || !dashboard.config.viewers.is_empty();
    let url = format!("{}{PATH}/login/nostr", dashboard.config.base_url);
    layout::bare(
        "Log in",
        &html! {
            @if let Some(problem) = problem { p #problem .problem role="alert" { (problem) } }
            @if has_keys {
                button #nostr-login type="button" data-url=(url) data-next=(wanted.page()) { "Log in with your Nostr key" }
                p #nostr-problem .problem role="alert" hidden {}
                noscript { p { "Login by key needs scripts and a Nostr signer in your browser." } }
            }
            @if dashboard.config.dashboard_password.is_some() {
                form method="post" action={ (PATH) "/login/password" } {
                    input type="hidden" name="next" value=(wanted.page());
                    label for="password" { "Password" }
                    input #password type="password" name="password" autocomplete="current-password" required
                        autofocus[problem.is_some()] aria-invalid=[problem.map(|_| "true")]
                        aria-describedby=[problem.map(|_| "problem")];
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
    #[serde(default)]
    next: String,
}

pub(super) async fn by_password(
    State(dashboard): State<Dashboard>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    Form(form): Form<PasswordForm>,
) -> Result<Response, Problem> {
    let wanted = Wanted { next: form.next };
    let forwarded = headers.get_all("x-forwarded-for").iter();
    let forwarded = forwarded.filter_map(|value| value.to_str().ok());
    let client = dashboard.config.proxies.client(peer.ip(), forwarded);
    let left = match dashboard.login.throttle.check(client) {
        Ok(left) => left,
        Err(wait) => {
            let words = format!("Too many attempts. Wait {wait} s and try again.");
            return Ok(later(&dashboard, &wanted, StatusCode::TOO_MANY_REQUESTS, wait, &words));
        }
    };
    let Ok(is_right) = dashboard.login.password.is(form.password).await else {
        let words = format!(
            "Too many people log in by password now, so this attempt was not checked. Wait {BUSY_WAIT} s and \
             try again, or use a login link."
        );
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        return Ok(later(&dashboard, &wanted, busy, BUSY_WAIT, &words));
    };
    if !is_right {
        tracing::warn!(%client, "login failed: wrong password");
        let page = login_page(&dashboard, &wanted, Some(&wrong(left)));
        return Ok((StatusCode::UNAUTHORIZED, page).into_response());
    }
    let cookie = logged_in(&dashboard, session::PASSWORD, Role::Operator).await?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to(wanted.page())).into_response())
}

/// The login page for an attempt that was not made, with the wait in seconds.
fn later(
    dashboard: &Dashboard,
    wanted: &Wanted,
    status: StatusCode,
    wait: u64,
    words: &str,
) -> Response {
    let page = login_page(dashboard, wanted, Some(words));
    (status, [(header::RETRY_AFTER, wait.to_string())], page).into_response()
}

/// What is said of a wrong password, with the number of tries that are left at once.
fn wrong(left: u32) -> String {
    match left {
        0 => "Wrong password. No try is left: wait 6 s before the next.".to_owned(),
        1 => "Wrong password. 1 try is left; then wait 6 s before each.".to_owned(),
        left => format!("Wrong password. {left} tries are left; then wait 6 s before each."),
    }
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
        return Ok((
            StatusCode::UNAUTHORIZED,
            login_page(&dashboard, &Wanted::default(), Some(words)),
        )
            .into_response());
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
