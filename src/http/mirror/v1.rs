//! The API of the mirror: upstreams, API keys, lanes and triggers. Answers are plain objects and
//! lists, as existing clients expect them. Callers authenticate with bearer tokens.

mod body;
pub(in crate::http) mod keys;

use axum::{
    Extension, Json, body::Bytes, extract::State, http::StatusCode, middleware,
    response::IntoResponse,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::PgExecutor;
use tender_jobs::{
    console::{api_key::Holder, operator},
    mirror::{
        deployment,
        lane::{self, LaneKind, LaneState},
        upstream::{self, Change, Upstream, UpstreamError, settings::Settings},
    },
};
use tender_workers::mirror::orchestrate;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use self::body::UpstreamBody;
use crate::http::{
    Api,
    extract::Segment,
    v1::{Answer, V1Error, authenticate, id_of, who},
};

impl From<UpstreamError> for V1Error {
    fn from(error: UpstreamError) -> Self {
        match error {
            UpstreamError::Invalid(errors) => Self::Invalid(errors),
            UpstreamError::Taken
            | UpstreamError::BeingRemoved(_)
            | UpstreamError::OfService
            | UpstreamError::DecidedByService { .. }
            | UpstreamError::StopsService(_) => Self::Invalid(vec![error.to_string()]),
            UpstreamError::NotFound => Self::NotFound,
            UpstreamError::Database(error) => error.into(),
        }
    }
}

/// Returns the routes below `/api/v1`; each requires a bearer token.
pub(in crate::http) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(relays, create_relay))
        .routes(routes!(relay, update_relay, delete_relay))
        .routes(routes!(keys::api_keys, keys::create_key))
        .routes(routes!(keys::revoke_key))
        .routes(routes!(sync_states))
        .routes(routes!(sync))
        .fallback(|| async { V1Error::NotFound })
        .route_layer(middleware::from_fn(authenticate))
}

/// Records a change in the operators' record, under the name of the key.
async fn record(
    db: impl PgExecutor<'_>,
    holder: &Holder,
    action: &str,
    target: &str,
    result: &str,
) -> Result<(), V1Error> {
    Ok(operator::record(db, &who(holder), action, target, result).await?)
}

fn json_of(bytes: &Bytes) -> Result<Value, V1Error> {
    serde_json::from_slice(bytes).map_err(|_| V1Error::Bad("the body is not JSON"))
}

/// Returns the change in the object `upstream_relay` of a body. Unknown fields are ignored.
fn change_of(api: &Api, holder: &Holder, bytes: &Bytes) -> Result<Change, V1Error> {
    let mut body = json_of(bytes)?;
    let change = body.get_mut("upstream_relay").filter(|change| change.is_object());
    let change = change.ok_or(V1Error::Bad("the body must have an object upstream_relay"))?.take();
    let change: Change = serde_json::from_value(change)
        .map_err(|error| V1Error::Invalid(vec![error.to_string()]))?;
    let must_be_public = !api.config.allow_private_upstreams;
    Ok(Change { must_be_public, by: Some(who(holder)), ..change })
}

/// Returns an upstream with its effective settings and its lanes.
fn body_of(upstream: &Upstream, deployment: &Settings, lanes: &[LaneState]) -> Value {
    let mut body = json!(upstream);
    let own: Vec<&LaneState> =
        lanes.iter().filter(|lane| lane.upstream_id == upstream.id).collect();
    body["effective_config"] = upstream.settings(deployment).to_json();
    body["sync"] = json!(own);
    body
}

/// Returns the silence in seconds after which a lane is shown as stale.
fn stale_secs(deployment: &Settings) -> u64 {
    60 * deployment.stale_threshold_minutes
}

async fn shown(api: &Api, upstream: &Upstream) -> Result<Json<Value>, V1Error> {
    let deployment = deployment::settings(&api.db).await?;
    let lanes = lane::states_of(&api.db, upstream.id, stale_secs(&deployment)).await?;
    Ok(Json(body_of(upstream, &deployment, &lanes)))
}

/// Returns all upstreams.
#[utoipa::path(get, path = "/relays", tag = "mirror", security(("bearer" = [])),
    responses((status = 200), (status = 401)))]
pub(in crate::http) async fn relays(State(api): State<Api>) -> Answer {
    let deployment = deployment::settings(&api.db).await?;
    let lanes = lane::states(&api.db, stale_secs(&deployment)).await?;
    let upstreams = upstream::list(&api.db).await?;
    let bodies: Vec<Value> =
        upstreams.iter().map(|one| body_of(one, &deployment, &lanes)).collect();
    Ok(Json(bodies).into_response())
}

/// Returns an upstream.
#[utoipa::path(get, path = "/relays/{id}", tag = "mirror", security(("bearer" = [])),
    responses((status = 200), (status = 401), (status = 404)))]
pub(in crate::http) async fn relay(State(api): State<Api>, Segment(id): Segment) -> Answer {
    let upstream = upstream::find(&api.db, id_of(&id)?).await?.ok_or(V1Error::NotFound)?;
    Ok(shown(&api, &upstream).await?.into_response())
}

/// Adds an upstream.
#[utoipa::path(post, path = "/relays", tag = "mirror", security(("bearer" = [])),
    request_body(content = UpstreamBody, description = "url is required"),
    responses((status = 201), (status = 400), (status = 401), (status = 422)))]
pub(in crate::http) async fn create_relay(
    State(api): State<Api>,
    Extension(holder): Extension<Holder>,
    bytes: Bytes,
) -> Answer {
    let upstream = upstream::create(&api.db, &change_of(&api, &holder, &bytes)?).await?;
    Ok((StatusCode::CREATED, shown(&api, &upstream).await?).into_response())
}

/// Changes any subset of an upstream's fields. `config` is replaced as a whole.
#[utoipa::path(method(put, patch), path = "/relays/{id}", tag = "mirror", security(("bearer" = [])),
    request_body(content = UpstreamBody, description = "the fields to change"),
    responses((status = 200), (status = 400), (status = 401), (status = 404), (status = 422)))]
pub(in crate::http) async fn update_relay(
    State(api): State<Api>,
    Extension(holder): Extension<Holder>,
    Segment(id): Segment,
    bytes: Bytes,
) -> Answer {
    let id = id_of(&id)?;
    let upstream = upstream::update(&api.db, id, &change_of(&api, &holder, &bytes)?).await?;
    Ok(shown(&api, &upstream).await?.into_response())
}

/// Removes an upstream: its work ends at once, and its address is free when its rows are deleted. Its
/// events are kept.
#[utoipa::path(delete, path = "/relays/{id}", tag = "mirror", security(("bearer" = [])),
    responses((status = 204), (status = 401), (status = 404)))]
pub(in crate::http) async fn delete_relay(
    State(api): State<Api>,
    Extension(holder): Extension<Holder>,
    Segment(id): Segment,
) -> Answer {
    let upstream = upstream::find(&api.db, id_of(&id)?).await?.ok_or(V1Error::NotFound)?;
    if !upstream::delete(&api.db, upstream.id, Some(&who(&holder))).await? {
        return Err(V1Error::NotFound);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Returns the states of all lanes.
#[utoipa::path(get, path = "/sync_states", tag = "mirror", security(("bearer" = [])),
    responses((status = 200), (status = 401)))]
pub(in crate::http) async fn sync_states(State(api): State<Api>) -> Answer {
    let deployment = deployment::settings(&api.db).await?;
    Ok(Json(lane::states(&api.db, stale_secs(&deployment)).await?).into_response())
}

#[derive(Debug, Deserialize, ToSchema)]
struct Trigger {
    /// `realtime`, `backfill`, `full` or `upload`; default `realtime`.
    mode: Option<String>,
    /// The address of one upstream; default: all.
    relay_url: Option<String>,
}

/// Triggers a mode for one upstream or for all. The default mode is `realtime`.
#[utoipa::path(post, path = "/sync", tag = "mirror", security(("bearer" = [])), request_body = Trigger,
    responses((status = 202), (status = 400), (status = 401), (status = 404), (status = 422)))]
pub(in crate::http) async fn sync(
    State(api): State<Api>,
    Extension(holder): Extension<Holder>,
    bytes: Bytes,
) -> Answer {
    let body = json_of(&bytes)?;
    if !body.is_object() {
        return Err(V1Error::Bad("the body must be an object, such as {\"mode\": \"realtime\"}"));
    }
    let trigger: Trigger =
        serde_json::from_value(body).map_err(|error| V1Error::Invalid(vec![error.to_string()]))?;
    let mode = trigger.mode.as_deref().unwrap_or("realtime");
    let mode = LaneKind::parse_mode(mode).ok_or_else(|| {
        V1Error::Invalid(vec![
            "Mode is not in the list: realtime, backfill, full, upload".to_owned(),
        ])
    })?;
    let only = match &trigger.relay_url {
        Some(url) => Some(upstream::find_named(&api.db, url).await?.ok_or(V1Error::NotFound)?.id),
        None => None,
    };
    let relays = orchestrate::dispatch(&api.db, mode, only, true).await?;
    let dispatched = relays.iter().filter(|relay| relay.skipped.is_none()).count();
    let target = trigger.relay_url.as_deref().unwrap_or("all");
    record(&api.db, &holder, "trigger_mirror", target, &format!("{mode}: {dispatched} enqueued"))
        .await?;
    let body = json!({ "mode": mode, "dispatched": dispatched, "relays": relays });
    Ok((StatusCode::ACCEPTED, Json(body)).into_response())
}
