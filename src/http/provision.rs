//! The routes of the provision wing: the relays of tenants.

pub(super) mod body;
pub(super) mod relays;

use std::sync::Once;

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};

use super::{Api, ApiError, Expected, auth};

/// Returns the routes; each requires authentication.
pub(super) fn router(api: &Api) -> Router<Api> {
    Router::new()
        .route("/tenants/{pubkey}/relays", get(relays::of_tenant))
        .route("/relays", get(relays::list).post(relays::create))
        .route("/relays/{id}", get(relays::show).put(relays::update).delete(relays::delete))
        .route("/relays/{id}/deactivate", post(relays::deactivate))
        .route("/relays/{id}/reactivate", post(relays::reactivate))
        .route("/relays/{id}/sync", post(relays::sync))
        .route("/relays/{id}/members", get(relays::members))
        .route("/relays/{id}/activity", get(relays::activity))
        .route_layer(middleware::from_fn_with_state(api.clone(), auth::authenticate))
        .route_layer(middleware::from_fn_with_state(api.clone(), only_if_configured))
}

/// Whether the log has the reason of the 503 of [`only_if_configured`].
static SAID: Once = Once::new();

/// Answers 503 if `RELAY_DOMAIN` is not set, because relays then have no default domain.
async fn only_if_configured(State(api): State<Api>, request: Request, next: Next) -> Response {
    if api.config.relay_domain.is_empty() {
        let why = "relays are not provisioned here: RELAY_DOMAIN is not set on this server";
        SAID.call_once(|| tracing::warn!("requests for relays are answered with 503: {why}"));
        let mut response = ApiError::Unavailable(why).into_response();
        response.extensions_mut().insert(Expected);
        return response;
    }
    next.run(request).await
}
