//! Authentication by NIP-98. A request carries a strict event, which is signed for this request, or
//! a session event, which a client signs once and reuses for 15 minutes.

use std::net::SocketAddr;

use axum::{
    Extension,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, FromRequestParts, Request},
    http::request::Parts,
    middleware::Next,
    response::Response,
};
use nostr::{
    event::{Event, Kind},
    key::PublicKey,
    types::Timestamp,
};
use tender_jobs::provision::relay::By;
use tender_workers::runtime::trace;

use super::{Api, ApiError, MAX_BODY, REQUEST_ID};
use crate::{
    config::network,
    nip98::{STRICT_AGE, check_payload, event_of, tag},
};

/// The maximum age of a session event, in seconds.
const SESSION_AGE: u64 = 15 * 60;
/// How far a session event may be dated in the future, in seconds, for clients whose clock is
/// ahead.
const SESSION_AHEAD: u64 = 60;

/// The authenticated caller of a request.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) pubkey: String,
    pub(super) is_admin: bool,
    pub(super) request_id: Option<String>,
}

impl Caller {
    pub(super) fn may_see(&self, tenant_pubkey: &str) -> bool {
        self.is_admin || self.pubkey == tenant_pubkey
    }

    pub(super) fn by(&self) -> By {
        let trace = trace::current().or_else(|| self.request_id.clone());
        By { who: self.pubkey.clone(), trace }
    }
}

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, ApiError> {
        parts.extensions.get::<Self>().cloned().ok_or(ApiError::Unauthenticated("no caller"))
    }
}

/// The request that an event must be signed for.
struct Asked<'a> {
    base_url: &'a str,
    method: &'a str,
    path_and_query: &'a str,
    body: &'a Bytes,
    now: u64,
}

/// Reads the body up to [`MAX_BODY`], authenticates the caller, and counts the request against the
/// rate limit of the caller, or of the address if it failed.
pub(super) async fn authenticate(
    Extension(api): Extension<Api>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let address = address_of(&parts, &api);
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| ApiError::TooLarge)?;
    let asked = Asked {
        base_url: &api.config.base_url,
        method: parts.method.as_str(),
        path_and_query: parts.uri.path_and_query().map_or("/", |path| path.as_str()),
        body: &body,
        now: Timestamp::now().as_secs(),
    };
    let found = event_of(&parts.headers).and_then(|event| caller_of(&event, &asked));
    let counted = match &found {
        Ok(pubkey) => api.limits.check_authenticated(&pubkey.to_hex(), &address),
        Err(_) => api.limits.check_failed(&address),
    };
    counted.map_err(ApiError::TooManyRequests)?;
    let pubkey = found.map_err(ApiError::Unauthenticated)?;
    let request_id = parts.headers.get(&REQUEST_ID).and_then(|id| id.to_str().ok());
    let caller = Caller {
        pubkey: pubkey.to_hex(),
        is_admin: api.config.admins.contains(&pubkey),
        request_id: request_id.map(str::to_owned),
    };
    parts.extensions.insert(caller);
    Ok(next.run(Request::from_parts(parts, Body::from(body))).await)
}

/// Returns the address of the client, or its network; see [`network`]. A trusted proxy names it.
pub(super) fn address_of(parts: &Parts, api: &Api) -> String {
    let Some(ConnectInfo(peer)) = parts.extensions.get::<ConnectInfo<SocketAddr>>() else {
        return String::new();
    };
    let forwarded = parts.headers.get_all("x-forwarded-for").iter();
    let forwarded = forwarded.filter_map(|value| value.to_str().ok());
    network(api.config.proxies.client(peer.ip(), forwarded)).to_string()
}

fn caller_of(event: &Event, asked: &Asked<'_>) -> Result<PublicKey, &'static str> {
    if event.kind != Kind::HttpAuth {
        return Err("the event's kind must be 27235");
    }
    let url = tag(event, "u").ok_or("the event has no u tag")?;
    let method = tag(event, "method").ok_or("the event has no method tag")?;
    let is_strict = url == format!("{}{}", asked.base_url, asked.path_and_query)
        && method.eq_ignore_ascii_case(asked.method);
    let is_session =
        url.trim_end_matches('/') == asked.base_url && method.eq_ignore_ascii_case("GET");
    let created_at = event.created_at.as_secs();
    let (age, ahead) = (asked.now.saturating_sub(created_at), created_at.saturating_sub(asked.now));
    if is_strict && age <= STRICT_AGE && ahead <= STRICT_AGE {
        check_payload(event, asked.body)?;
    } else if !(is_session && age <= SESSION_AGE && ahead <= SESSION_AHEAD) {
        return Err(if is_strict || is_session {
            "the event is too old, or dated too far in the future"
        } else {
            "the event's u and method tags must name this request, or the API's base URL and GET"
        });
    }
    event.verify().map_err(|_| "the event's id or signature is invalid")?;
    Ok(event.pubkey)
}
