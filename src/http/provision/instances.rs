//! The routes of zooid instances, for admins. For others they are answered with 404.

use axum::{Json, body::Bytes, extract::State};
use serde::Deserialize;
use serde_json::{Value, json};
use tender_jobs::{console::operator, provision::instance};
use utoipa::ToSchema;

use crate::{
    http::{Api, ApiError, auth::Caller, data},
    words::probe::{ANSWERED_WITHIN, found},
};

/// Which instance to probe.
#[derive(Debug, Deserialize, ToSchema)]
pub(in crate::http) struct ProbeRequest {
    /// The name of the instance: the URL of its API, without credentials.
    instance: String,
}

/// Probes a zooid instance whose breaker is open now, for admins. Answers what the probe found, after at most 10 s.
#[utoipa::path(post, path = "/instances/probe", tag = "relays", request_body = ProbeRequest,
    responses((status = 200, description = "{\"found\": \"answered\", \"failed\" (with error, refuses_key and next_at), \"not_open\" or \"awaited\", \"message\": the same in words}"),
              (status = 400), (status = 404)))]
pub(in crate::http) async fn probe(
    State(api): State<Api>,
    caller: Caller,
    bytes: Bytes,
) -> Result<Json<Value>, ApiError> {
    if !caller.is_admin {
        return Err(ApiError::NotFound);
    }
    let asked: ProbeRequest =
        serde_json::from_slice(&bytes).map_err(|error| ApiError::BadJson(error.to_string()))?;
    let name = asked.instance.replace('\0', "");
    if !instance::list(&api.db).await?.iter().any(|one| one.name == name) {
        return Err(ApiError::NotFound);
    }
    let probe = instance::probe(&api.db, &name, ANSWERED_WITHIN).await?;
    let words = found(&name, &probe);
    operator::record(&api.db, &caller.pubkey, "probe_instance", &name, &words).await?;
    let mut answer = json!(probe);
    answer["message"] = json!(words);
    Ok(data(answer))
}
