//! The root: a browser is led to the dashboard, a program gets JSON.

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::dashboard;

/// Redirects to the dashboard if HTML is accepted, else says what this is and where to go on.
#[utoipa::path(get, path = "/", tag = "probes", security(()), responses((status = 200), (status = 303)))]
pub(super) async fn root(headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accepted.is_some_and(|accept| accept.contains("text/html")) {
        let headers = [(header::LOCATION, dashboard::PATH), (header::VARY, "accept")];
        return (StatusCode::SEE_OTHER, headers).into_response();
    }
    let about = json!({
        "name": "tender",
        "version": env!("CARGO_PKG_VERSION"),
        "dashboard": dashboard::PATH,
        "openapi": "/openapi.json",
        "ready": "/readyz",
    });
    ([(header::VARY, "accept")], Json(json!({ "data": about }))).into_response()
}
