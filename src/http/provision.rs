//! The routes of the provision wing: the relays of tenants.

pub(super) mod body;
mod instances;
pub(super) mod relays;

use std::sync::Once;

use axum::{
    Extension,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, ApiError, Expected, auth};

/// Returns the routes; each requires authentication.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(relays::of_tenant))
        .routes(routes!(relays::list, relays::create))
        .routes(routes!(relays::show, relays::update, relays::delete))
        .routes(routes!(relays::deactivate))
        .routes(routes!(relays::reactivate))
        .routes(routes!(relays::sync))
        .routes(routes!(relays::members))
        .routes(routes!(relays::activity))
        .routes(routes!(instances::probe))
        .route_layer(middleware::from_fn(auth::authenticate))
        .route_layer(middleware::from_fn(only_if_configured))
}

/// Whether the log has the reason of the 503 of [`only_if_configured`].
static SAID: Once = Once::new();

/// Answers 503 if `RELAY_DOMAIN` is not set, because relays then have no default domain.
async fn only_if_configured(
    Extension(api): Extension<Api>,
    request: Request,
    next: Next,
) -> Response {
    if api.config.relay_domain.is_empty() {
        let why = "relays are not provisioned here: RELAY_DOMAIN is not set on this server";
        SAID.call_once(|| tracing::warn!("requests for relays are answered with 503: {why}"));
        let mut response = ApiError::Unavailable(why).into_response();
        response.extensions_mut().insert(Expected);
        return response;
    }
    next.run(request).await
}
