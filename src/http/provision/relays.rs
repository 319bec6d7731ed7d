//! The routes of relays. A tenant sees and changes its own relays, and an admin all relays. A relay
//! of another tenant is answered with 404.

use axum::{Json, body::Bytes, extract::State, http::StatusCode};
use nostr::key::PublicKey;
use serde::Deserialize;
use serde_json::{Value, json};
use tender_jobs::provision::{
    activity,
    relay::{self, FieldError, NewRelay, Relay, RelayId, Search, Status, SyncState},
};

use super::body::{ActivityBody, RelayBody, parse};
use crate::http::{
    Api, ApiError,
    auth::Caller,
    data,
    extract::{Params, Segment},
};
use crate::search;

/// The most relays that are returned to a client that does not page.
const MOST_OF_TENANT: i64 = 10_000;

type Answer = Result<Json<Value>, ApiError>;

#[derive(Debug, Deserialize)]
pub(in crate::http) struct Page {
    status: Option<String>,
    sync: Option<String>,
    q: Option<String>,
    held_by: Option<String>,
    limit: Option<i64>,
    after: Option<String>,
    before: Option<i64>,
}

/// Returns the relays of a tenant, newest first: all of them, or a page if `limit` is given. `next`,
/// beside `data`, is the value for `after` that returns the following relays; null at the end.
#[utoipa::path(get, path = "/tenants/{pubkey}/relays", tag = "relays",
    params(("limit" = Option<i64>, Query, description = "1 to 1,000; default: all relays, at most 10,000"),
           ("after" = Option<String>, Query, description = "the previous answer's `next`")),
    responses((status = 200, body = Vec<RelayBody>), (status = 404), (status = 422)))]
pub(in crate::http) async fn of_tenant(
    State(api): State<Api>,
    caller: Caller,
    Segment(pubkey): Segment,
    Params(page): Params<Page>,
) -> Answer {
    if !caller.may_see(&pubkey) {
        return Err(ApiError::NotFound);
    }
    let limit = page.limit.map_or(MOST_OF_TENANT, |limit| limit.clamp(1, 1000));
    let after = existing(&api, page.after).await?;
    // One relay more than the page has shows whether there is a next page.
    let mut relays = relay::of_tenant(&api.db, &pubkey, after.as_ref(), limit + 1).await?;
    let is_last = relays.len() <= usize::try_from(limit).unwrap_or(usize::MAX);
    if !is_last {
        relays.pop();
    }
    let next = relays.last().filter(|_| !is_last).map(|relay| relay.id.clone());
    Ok(Json(json!({ "data": bodies(relays), "next": next })))
}

/// Returns the id in `after`. A relay that does not exist has no place in the order, so the page after
/// it would be empty.
async fn existing(api: &Api, after: Option<String>) -> Result<Option<RelayId>, ApiError> {
    let id: Option<RelayId> = known("after", after, |text| text.parse().ok())?;
    let Some(id) = id else { return Ok(None) };
    if relay::find(&api.db, &id).await?.is_some() {
        return Ok(Some(id));
    }
    let problem = "names a relay that does not exist any more: start again without it";
    Err(ApiError::Invalid(vec![FieldError::new("after", problem)]))
}

/// Returns all relays, for admins.
#[utoipa::path(get, path = "/relays", tag = "relays",
    params(("status" = Option<String>, Query, description = "active, inactive, delinquent or deleting"),
           ("sync" = Option<String>, Query, description = "synced, pending, retrying (people read *failing*: the last attempt failed, and a retry is scheduled) or gave_up"),
           ("held_by" = Option<String>, Query, description = "only relays that wait for this zooid instance, whose breaker is open"),
           ("q" = Option<String>, Query, description = "a part of the host or name, or the start of the id or tenant key"),
           ("limit" = Option<i64>, Query, description = "1 to 1,000; default 100"),
           ("after" = Option<String>, Query, description = "id of the last relay of the previous page")),
    responses((status = 200, body = Vec<RelayBody>), (status = 404), (status = 422)))]
pub(in crate::http) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Params(page): Params<Page>,
) -> Answer {
    if !caller.is_admin {
        return Err(ApiError::NotFound);
    }
    let search = Search {
        status: known("status", page.status, status_of)?,
        sync: known("sync", page.sync, SyncState::parse)?,
        text: page.q.as_deref().and_then(search::normal),
        held_by: page.held_by.map(|name| name.replace('\0', "")).filter(|name| !name.is_empty()),
        after: existing(&api, page.after).await?,
        ..Search::default()
    };
    let limit = page.limit.unwrap_or(100).clamp(1, 1000);
    Ok(data(bodies(relay::list(&api.db, &search, limit).await?)))
}

/// Creates a relay. A worker creates it on zooid afterwards.
#[utoipa::path(post, path = "/relays", tag = "relays", request_body = super::body::RelayChange,
    responses((status = 201, body = RelayBody), (status = 400), (status = 409), (status = 413), (status = 422)))]
pub(in crate::http) async fn create(
    State(api): State<Api>,
    caller: Caller,
    bytes: Bytes,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let sent = parse(&bytes)?;
    let tenant = tenant_of(&caller, sent.tenant_pubkey)?;
    let (domain, domains) = (&api.config.relay_domain, &api.config.domains);
    let new = NewRelay::parse(tenant, &sent.change, domain, domains).map_err(ApiError::Invalid)?;
    let relay = if caller.is_admin {
        relay::create(&api.db, &new, &caller.by()).await?
    } else {
        relay::create_within(&api.db, &new, api.config.relays_per_tenant, &caller.by()).await?
    };
    Ok((StatusCode::CREATED, data(RelayBody::from(relay))))
}

/// Returns a relay.
#[utoipa::path(get, path = "/relays/{id}", tag = "relays",
    responses((status = 200, body = RelayBody), (status = 404)))]
pub(in crate::http) async fn show(
    State(api): State<Api>,
    caller: Caller,
    Segment(id): Segment,
) -> Answer {
    Ok(data(RelayBody::from(visible(&api, &caller, &id).await?)))
}

/// Changes any subset of the settable fields.
#[utoipa::path(put, path = "/relays/{id}", tag = "relays", request_body = super::body::RelayChange,
    responses((status = 200, body = RelayBody), (status = 400), (status = 404), (status = 409), (status = 413), (status = 422)))]
pub(in crate::http) async fn update(
    State(api): State<Api>,
    caller: Caller,
    Segment(id): Segment,
    bytes: Bytes,
) -> Answer {
    let relay = visible(&api, &caller, &id).await?;
    let change = parse(&bytes)?.change;
    let problems = change.problems_for(&relay, &api.config.domains, &api.config.instances);
    if !problems.is_empty() {
        return Err(ApiError::Invalid(problems));
    }
    let requested = relay::update(&api.db, &relay.id, &change, &caller.by()).await?;
    Ok(data(RelayBody::from(requested.relay)))
}

/// Deletes a relay, for admins. zooid deletes it first; until then it keeps its host.
#[utoipa::path(delete, path = "/relays/{id}", tag = "relays",
    responses((status = 202, body = RelayBody), (status = 404)))]
pub(in crate::http) async fn delete(
    State(api): State<Api>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    if !caller.is_admin {
        return Err(ApiError::NotFound);
    }
    let relay = visible(&api, &caller, &id).await?;
    let requested = relay::delete(&api.db, &relay.id, &caller.by()).await?;
    Ok((StatusCode::ACCEPTED, data(RelayBody::from(requested.relay))))
}

/// Deactivates a relay.
#[utoipa::path(post, path = "/relays/{id}/deactivate", tag = "relays",
    responses((status = 200, body = RelayBody), (status = 404), (status = 409)))]
pub(in crate::http) async fn deactivate(
    State(api): State<Api>,
    caller: Caller,
    Segment(id): Segment,
) -> Answer {
    set_status(&api, &caller, &id, Status::Inactive).await
}

/// Activates a relay.
#[utoipa::path(post, path = "/relays/{id}/reactivate", tag = "relays",
    responses((status = 200, body = RelayBody), (status = 404), (status = 409)))]
pub(in crate::http) async fn reactivate(
    State(api): State<Api>,
    caller: Caller,
    Segment(id): Segment,
) -> Answer {
    set_status(&api, &caller, &id, Status::Active).await
}

/// Sends a relay to zooid again at once, even if it gave up. A tenant may do this once a minute.
#[utoipa::path(post, path = "/relays/{id}/sync", tag = "relays",
    responses((status = 202, body = RelayBody), (status = 404), (status = 429)))]
pub(in crate::http) async fn sync(
    State(api): State<Api>,
    caller: Caller,
    Segment(id): Segment,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let relay = visible(&api, &caller, &id).await?;
    let relay = if caller.is_admin {
        relay::request_sync(&api.db, &relay.id, &caller.by()).await?
    } else {
        relay::request_own_sync(&api.db, &relay.id, &caller.by()).await?
    };
    Ok((StatusCode::ACCEPTED, data(RelayBody::from(relay))))
}

/// Returns the members of a relay, from zooid.
#[utoipa::path(get, path = "/relays/{id}/members", tag = "relays",
    responses((status = 200, description = "{\"members\": [public keys in hex]}"), (status = 404), (status = 502)))]
pub(in crate::http) async fn members(
    State(api): State<Api>,
    caller: Caller,
    Segment(id): Segment,
) -> Answer {
    let relay = visible(&api, &caller, &id).await?;
    let zooid = api.zooid.as_ref();
    let zooid = zooid.ok_or(ApiError::Unavailable("zooid is not configured on this server"))?;
    Ok(data(json!({ "members": zooid.members(&relay).await? })))
}

/// Returns the activity of a relay, newest first: requested changes and outcomes.
#[utoipa::path(get, path = "/relays/{id}/activity", tag = "relays",
    params(("limit" = Option<i64>, Query, description = "1 to 500; default 50"),
           ("before" = Option<i64>, Query, description = "id of the last record of the previous page")),
    responses((status = 200, description = "{\"activity\": […]}", body = Vec<ActivityBody>), (status = 404)))]
pub(in crate::http) async fn activity(
    State(api): State<Api>,
    caller: Caller,
    Segment(id): Segment,
    Params(page): Params<Page>,
) -> Answer {
    let relay = visible(&api, &caller, &id).await?;
    let limit = page.limit.unwrap_or(50).clamp(1, 500);
    let records = activity::of_relay(&api.db, &relay.id, page.before, limit).await?;
    let records: Vec<_> = records.into_iter().map(ActivityBody::from).collect();
    Ok(data(json!({ "activity": records })))
}

/// Sets the status of a relay. Only an admin may change the status of a delinquent relay.
async fn set_status(api: &Api, caller: &Caller, id: &str, status: Status) -> Answer {
    let relay = visible(api, caller, id).await?;
    let requested = if caller.is_admin {
        relay::set_status(&api.db, &relay.id, status, &caller.by()).await?
    } else {
        relay::set_own_status(&api.db, &relay.id, status, &caller.by()).await?
    };
    Ok(data(RelayBody::from(requested.relay)))
}

/// Returns the relay if the caller may see it, else 404.
async fn visible(api: &Api, caller: &Caller, id: &str) -> Result<Relay, ApiError> {
    let id: RelayId = id.parse().map_err(|_| ApiError::NotFound)?;
    let relay = relay::find(&api.db, &id).await?;
    relay.filter(|relay| caller.may_see(&relay.tenant_pubkey)).ok_or(ApiError::NotFound)
}

fn tenant_of(caller: &Caller, sent: Option<String>) -> Result<String, ApiError> {
    let Some(tenant) = sent else { return Ok(caller.pubkey.clone()) };
    let invalid =
        |problem: &str| ApiError::Invalid(vec![FieldError::new("tenant_pubkey", problem)]);
    let key = PublicKey::from_hex(&tenant)
        .map_err(|_| invalid("must be a public key of 64 hex digits"))?;
    key.xonly().map_err(|_| invalid("is not a public key: no secret key has it"))?;
    if caller.may_see(&key.to_hex()) {
        Ok(key.to_hex())
    } else {
        Err(invalid(
            "must be the caller's own key; only an admin may create relays for other tenants",
        ))
    }
}

fn bodies(relays: Vec<Relay>) -> Vec<RelayBody> {
    relays.into_iter().map(RelayBody::from).collect()
}

fn known<T>(
    field: &'static str,
    text: Option<String>,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, ApiError> {
    let Some(text) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    let problem = || {
        ApiError::Invalid(vec![FieldError::new(field, "has an unknown value; see /openapi.json")])
    };
    parse(&text).map(Some).ok_or_else(problem)
}

fn status_of(text: &str) -> Option<Status> {
    Status::ALL.into_iter().find(|status| status.as_str() == text)
}
