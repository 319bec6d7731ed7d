//! Sessions. The cookie holds a random token; the ledger holds its hash.

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{
        HeaderMap, Method, StatusCode, Uri,
        header::{ACCEPT, COOKIE, LOCATION},
        request::Parts,
        uri::PathAndQuery,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use nostr::key::PublicKey;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use subtle::ConstantTimeEq;
use tender_jobs::console::session::{self, Role, Session};

use super::{
    Dashboard, PATH,
    parts::{Problem, query},
    scheme::Scheme,
};
use crate::random;

/// The name of those who logged in by the password.
pub(super) const PASSWORD: &str = "password";
/// How long a session lasts.
pub(super) const HOURS: i32 = 12;
/// How long a login link is valid.
pub const LINK_MINUTES: i32 = 10;

/// The person that a request comes from.
#[derive(Debug, Clone)]
pub(super) struct Viewer {
    /// A public key in hex, `password` or `link`.
    pub(super) who: String,
    pub(super) role: Role,
    /// The token that each form of this session contains.
    pub(super) form_token: String,
    pub(super) token_hash: Vec<u8>,
    /// The colours that the reader chose.
    pub(super) scheme: Scheme,
    /// When the request was read, by the database's clock.
    pub(super) now: DateTime<Utc>,
}

impl Viewer {
    pub(super) fn may_act(&self) -> bool {
        self.role == Role::Operator
    }

    /// Whether a form with this token belongs to this session.
    pub(super) fn owns(&self, form_token: &str) -> bool {
        self.form_token.as_bytes().ct_eq(form_token.as_bytes()).into()
    }
}

impl FromRequestParts<Dashboard> for Viewer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Dashboard) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or(Problem::NotFound)
    }
}

pub(super) fn hash(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

/// Creates a login link that works once within [`LINK_MINUTES`], and returns its path and query.
///
/// # Errors
/// The database is unreachable or refused the statement.
pub async fn new_link(db: &PgPool) -> Result<String, sqlx::Error> {
    let token = random::token();
    session::issue(db, &hash(&token), LINK_MINUTES).await?;
    Ok(format!("{PATH}/link?token={token}"))
}

/// Returns the cookie's name. Over https it has the prefix `__Host-`, which browsers accept only there.
fn cookie_name(dashboard: &Dashboard) -> &'static str {
    if dashboard.is_https() { "__Host-tender" } else { "tender" }
}

/// Begins a session and returns the cookie to set.
pub(super) async fn begin(
    dashboard: &Dashboard,
    who: &str,
    role: Role,
) -> Result<String, sqlx::Error> {
    let token = random::token();
    let credential = (who == PASSWORD).then(|| password_digest(dashboard, &token)).flatten();
    let (hash, credential) = (hash(&token), credential.as_ref().map(<[u8; 32]>::as_slice));
    session::begin(&dashboard.db, &hash, who, role, HOURS, credential).await?;
    Ok(cookie(dashboard, &token, i64::from(HOURS) * 3600))
}

/// Returns the cookie that removes the session from the browser.
pub(super) fn no_cookie(dashboard: &Dashboard) -> String {
    cookie(dashboard, "", 0)
}

fn cookie(dashboard: &Dashboard, token: &str, max_age: i64) -> String {
    let secure = if dashboard.is_https() { "; Secure" } else { "" };
    let name = cookie_name(dashboard);
    format!("{name}={token}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Strict{secure}")
}

/// Returns the value of a cookie.
pub(super) fn cookie_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    cookies
        .flat_map(|cookies| cookies.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .find_map(|(found, value)| (found == name).then_some(value))
}

/// Returns the viewer, if the session is valid and its key still has a role.
pub(super) async fn viewer(
    dashboard: &Dashboard,
    headers: &HeaderMap,
) -> Result<Option<Viewer>, sqlx::Error> {
    let Some(token) = cookie_of(headers, cookie_name(dashboard)) else { return Ok(None) };
    let token_hash = hash(token);
    let Some(session) = session::find(&dashboard.db, &token_hash).await? else { return Ok(None) };
    let Some(role) = role_of(dashboard, &session, token) else { return Ok(None) };
    let form_token = URL_SAFE_NO_PAD.encode(hash(&format!("form:{token}")));
    let scheme = Scheme::of(headers);
    Ok(Some(Viewer { who: session.who, role, form_token, token_hash, scheme, now: session.now }))
}

/// Returns the role that a session has now. A key that was removed from the lists has none, and neither
/// has a session by another password than the present one, even if the session has not expired.
fn role_of(dashboard: &Dashboard, session: &Session, token: &str) -> Option<Role> {
    match session.who.as_str() {
        PASSWORD => {
            let (then, now) = (session.credential.as_deref()?, password_digest(dashboard, token)?);
            bool::from(then.ct_eq(&now)).then_some(session.role)
        }
        "link" => Some(session.role),
        key => role_of_key(dashboard, &PublicKey::from_hex(key).ok()?),
    }
}

/// Returns the HMAC of the password with a session's token as the key; `None` without a password. Who
/// does not have the token can compute nothing from it.
#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn password_digest(dashboard: &Dashboard, token: &str) -> Option<[u8; 32]> {
    let password = dashboard.config.dashboard_password.as_ref()?;
    let mut hmac =
        Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("HMAC takes keys of any length");
    hmac.update(password.expose_secret().as_bytes());
    Some(hmac.finalize().into_bytes().into())
}

/// Returns the role of a key, from the configured lists.
pub(super) fn role_of_key(dashboard: &Dashboard, key: &PublicKey) -> Option<Role> {
    if dashboard.config.admins.contains(key) {
        Some(Role::Operator)
    } else {
        dashboard.config.viewers.contains(key).then_some(Role::Viewer)
    }
}

/// Requires a session. Without one, a page redirects to the login page; any other request is refused.
pub(super) async fn require(
    State(dashboard): State<Dashboard>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if let Some(viewer) = viewer(&dashboard, request.headers()).await? {
        request.extensions_mut().insert(viewer);
        return Ok(next.run(request).await);
    }
    let wants_page = request
        .headers()
        .get(ACCEPT)
        .is_some_and(|accept| accept.as_bytes().starts_with(b"text/html"));
    if request.method() == Method::GET && wants_page {
        let login = [(LOCATION, login_for(request.uri()))];
        return Ok((StatusCode::SEE_OTHER, login).into_response());
    }
    Ok(StatusCode::UNAUTHORIZED.into_response())
}

/// Returns the path of the login page that leads on to a page, whose path here is that below [`PATH`].
fn login_for(below: &Uri) -> String {
    let page = match below.path_and_query().map_or("/", PathAndQuery::as_str) {
        "/" => String::new(),
        page => format!("{PATH}{page}"),
    };
    format!("{PATH}/login{}", query(&[("next", &page)]))
}

/// Answers 404 if no key and no password is configured, unless a login link or a session from one is
/// valid.
pub(super) async fn only_if_open(
    State(dashboard): State<Dashboard>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    if dashboard.is_configured() || session::any_link(&dashboard.db).await? {
        Ok(next.run(request).await)
    } else {
        Ok(StatusCode::NOT_FOUND.into_response())
    }
}
