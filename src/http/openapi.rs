//! The OpenAPI document, made from the handlers' own annotations.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};

use super::{body, probes, relays, v1};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tender", description = "Relays of a Nostr relay host, kept in step with zooid.\n\n\
        Answers are {\"data\": …} or {\"error\": \"…\"}. Errors that every route shares: 401 not \
        authenticated, 429 too many requests (with Retry-After), 500 ours."),
    paths(
        relays::of_tenant, relays::list, relays::create, relays::show, relays::update,
        relays::deactivate, relays::reactivate, relays::sync, relays::members, relays::activity,
        v1::relays, v1::relay, v1::create_relay, v1::update_relay, v1::delete_relay, v1::api_keys,
        v1::create_key, v1::revoke_key, v1::sync_states, v1::sync,
        probes::healthz, probes::readyz, probes::metrics, show
    ),
    components(schemas(body::RelayBody, body::RelayChange, body::ActivityBody)),
    security(("nostr" = [])),
    modifiers(&Nip98)
)]
struct Document;

struct Nip98;

impl Modify for Nip98 {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "Authorization",
            "`Nostr <base64 event>`, NIP-98 for this request, or a session event: u = base URL, \
             method GET, at most 15 minutes old",
        )));
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("nostr", scheme);
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", bearer);
    }
}

/// The document.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "probes", security(()), responses((status = 200)))]
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
