//! The OpenAPI document, generated from the annotations of the handlers.

use axum::Json;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme},
};

use super::{
    grasp,
    mirror::v1,
    probes,
    provision::{body, relays},
    root, stats,
};

#[derive(OpenApi)]
#[openapi(
    info(title = "Tender", description = "Provisions the relays of a Nostr relay host on \
        zooid, mirrors events with other relays, and follows the relays that git repositories \
        name.\n\n\
        Answers are {\"data\": …} or {\"error\": \"…\"}, except below /api/v1. Every route with \
        authentication may answer 401 not authenticated, 429 too many requests (with Retry-After) \
        and 500 internal error."),
    paths(
        relays::of_tenant, relays::list, relays::create, relays::show, relays::update, relays::delete,
        relays::deactivate, relays::reactivate, relays::sync, relays::members, relays::activity,
        v1::relays, v1::relay, v1::create_relay, v1::update_relay, v1::delete_relay, v1::keys::api_keys,
        v1::keys::create_key, v1::keys::revoke_key, v1::sync_states, v1::sync,
        grasp::services, grasp::repos, grasp::repo, grasp::relays, grasp::relay, grasp::plan,
        grasp::explain, grasp::parked,
        stats::metrics, stats::connections, stats::events, stats::of_system,
        probes::healthz, probes::readyz, probes::up, probes::metrics, root::root, show
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
            "`Nostr <base64 event>`: a NIP-98 event for this request, or a session event with the \
             base URL as u and the method GET, at most 15 minutes old",
        )));
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("nostr", scheme);
        let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("bearer", bearer);
    }
}

/// Returns the OpenAPI document of all routes.
pub fn document() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

/// Returns this document.
#[utoipa::path(get, path = "/openapi.json", tag = "probes", security(()), responses((status = 200)))]
pub(super) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(document())
}
