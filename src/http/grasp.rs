//! The API of the GRASP wing: services, repositories, followed relays, parked events. It only reads.
//! Callers authenticate with bearer tokens, as for the mirror's routes.

mod page;

use axum::{Json, extract::State, middleware, response::IntoResponse};
use serde_json::json;
use tender_jobs::{
    grasp::{
        admission,
        view::{self, ParkedSearch, RelaySearch, RepoSearch},
    },
    mirror::event::EventId,
};

use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    extract::{Params, Segment},
    v1::{Answer, V1Error, authenticate, id_of},
};
use crate::{page::cut, search};
use page::Asked;

/// Rows of each list within an answer about one thing.
const LISTED: i64 = 100;

/// Returns the routes below `/api/v1/grasp`; each requires a bearer token.
pub(super) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(services))
        .routes(routes!(repos))
        .routes(routes!(repo))
        .routes(routes!(relays))
        .routes(routes!(relay))
        .routes(routes!(plan))
        .routes(routes!(explain))
        .routes(routes!(parked))
        .fallback(|| async { V1Error::NotFound })
        .route_layer(middleware::from_fn(authenticate))
}

/// Returns all services.
#[utoipa::path(get, path = "/services", tag = "grasp", security(("bearer" = [])),
    responses((status = 200), (status = 401)))]
pub(super) async fn services(State(api): State<Api>) -> Answer {
    Ok(Json(json!({ "services": view::services(&api.db).await? })).into_response())
}

/// Returns repositories with their coverage. `after` of an answer is the parameter for the next page.
#[utoipa::path(get, path = "/repos", tag = "grasp", security(("bearer" = [])),
    params(("q" = Option<String>, Query, description = "text in the address or the name"),
        ("service" = Option<String>, Query, description = "id of a service"),
        ("missing" = Option<bool>, Query, description = "only those of which something is missing"),
        ("after" = Option<String>, Query), ("limit" = Option<u16>, Query, description = "1 to 1000, default 100")),
    responses((status = 200), (status = 401), (status = 422)))]
pub(super) async fn repos(State(api): State<Api>, Params(asked): Params<Asked>) -> Answer {
    let limit = asked.limit()?;
    let search = RepoSearch {
        service: asked.service()?,
        text: asked.q.as_deref().and_then(search::normal),
        is_missing: asked.missing()?,
        after: asked.after(RepoSearch::parse_mark)?,
    };
    let rows = view::repos(&api.db, &search, limit + 1).await?;
    let (rows, after) = cut(rows, limit, view::RepoRow::mark);
    Ok(Json(json!({ "repos": rows, "after": after })).into_response())
}

/// Returns a repository in each service that has it: its relays, roots, what is missing, and what happened
/// last; at most 100 of each.
#[utoipa::path(get, path = "/repos/{address}", tag = "grasp", security(("bearer" = [])),
    responses((status = 200), (status = 401), (status = 404)))]
pub(super) async fn repo(State(api): State<Api>, Segment(address): Segment) -> Answer {
    let mut shown = Vec::new();
    for repo in view::repo(&api.db, &address).await? {
        let relays = view::repo_relays(&api.db, repo.service_id, &address).await?;
        let missing = view::missing_of(&api.db, repo.service_id, &address, LISTED).await?;
        let roots = view::roots(&api.db, repo.service_id, &address, LISTED).await?;
        let timeline = view::timeline(&api.db, repo.service_id, &address, LISTED).await?;
        shown.push(json!({
            "repository": repo, "relays": relays, "missing": missing, "roots": roots, "timeline": timeline,
        }));
    }
    if shown.is_empty() {
        return Err(V1Error::NotFound);
    }
    Ok(Json(json!({ "repos": shown })).into_response())
}

/// Returns followed relays in the order of their addresses.
#[utoipa::path(get, path = "/relays", tag = "grasp", security(("bearer" = [])),
    params(("q" = Option<String>, Query, description = "text in the address"),
        ("state" = Option<String>, Query, description = "in_step, catching_up, connecting, waiting, limited, \
            fault, dead, no_room or unwanted"),
        ("after" = Option<String>, Query), ("limit" = Option<u16>, Query, description = "1 to 1000, default 100")),
    responses((status = 200), (status = 401), (status = 422)))]
pub(super) async fn relays(State(api): State<Api>, Params(asked): Params<Asked>) -> Answer {
    let limit = asked.limit()?;
    let search = RelaySearch {
        state: asked.state()?,
        text: asked.q.as_deref().and_then(search::normal),
        after: asked.after(|url| Some(url.to_owned()))?,
    };
    let rows = view::relays(&api.db, &search, limit + 1).await?;
    let (rows, after) = cut(rows, limit, |last| last.url.clone());
    Ok(Json(json!({ "relays": rows, "after": after })).into_response())
}

/// Returns a followed relay with its last batches, its gaps, and what is missing; at most 100 of each.
#[utoipa::path(get, path = "/relays/{id}", tag = "grasp", security(("bearer" = [])),
    responses((status = 200), (status = 401), (status = 404)))]
pub(super) async fn relay(State(api): State<Api>, Segment(id): Segment) -> Answer {
    let id = id_of(&id)?;
    let relay = view::relay(&api.db, &id.to_string()).await?.ok_or(V1Error::NotFound)?;
    let body = json!({
        "relay": relay,
        "batches": view::batches(&api.db, id, LISTED).await?,
        "missing": view::missing(&api.db, id, LISTED).await?,
        "gaps": view::gaps(&api.db, id, LISTED).await?,
        "minutes": view::minutes(&api.db, id).await?,
    });
    Ok(Json(body).into_response())
}

/// Returns the batches that a followed relay would be asked for now, with their filters, without asking.
#[utoipa::path(get, path = "/relays/{id}/plan", tag = "grasp", security(("bearer" = [])),
    responses((status = 200), (status = 401), (status = 404)))]
pub(super) async fn plan(State(api): State<Api>, Segment(id): Segment) -> Answer {
    let relay = view::relay(&api.db, &id_of(&id)?.to_string()).await?.ok_or(V1Error::NotFound)?;
    let batches = view::plan(&api.db, relay.id).await?;
    Ok(Json(json!({ "url": relay.url, "batches": batches })).into_response())
}

/// Returns what each enabled service decides on a stored or parked event: the rule, or the reason and what the
/// event waits for.
#[utoipa::path(get, path = "/events/{id}", tag = "grasp", security(("bearer" = [])),
    params(("id" = String, Path, description = "id of the event, 64 hex characters")),
    responses((status = 200), (status = 401), (status = 404)))]
pub(super) async fn explain(State(api): State<Api>, Segment(id): Segment) -> Answer {
    let id = EventId::parse(&id).ok_or(V1Error::NotFound)?;
    let event = admission::find_event(&api.db, id).await?.ok_or(V1Error::NotFound)?;
    Ok(Json(json!({ "services": admission::explain(&api.db, &event).await? })).into_response())
}

/// Returns the counts of parked events by reason, and one page of the events.
#[utoipa::path(get, path = "/parked", tag = "grasp", security(("bearer" = [])),
    params(("reason" = Option<String>, Query, description = "code of a reason"),
        ("service" = Option<String>, Query, description = "id of a service"),
        ("after" = Option<String>, Query), ("limit" = Option<u16>, Query, description = "1 to 1000, default 100")),
    responses((status = 200), (status = 401), (status = 422)))]
pub(super) async fn parked(State(api): State<Api>, Params(asked): Params<Asked>) -> Answer {
    let limit = asked.limit()?;
    let search = ParkedSearch {
        service: asked.service()?,
        reason: asked.reason()?,
        after: asked.after(ParkedSearch::parse_mark)?,
    };
    let rows = view::parked(&api.db, &search, limit + 1).await?;
    let (rows, after) = cut(rows, limit, view::ParkedRow::mark);
    let groups = view::parked_groups(&api.db).await?;
    Ok(Json(json!({ "groups": groups, "events": rows, "after": after })).into_response())
}
