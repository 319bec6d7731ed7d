//! The list of upstreams with the state of their lanes.

use axum::{
    extract::{Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use sqlx::PgPool;
use tender_jobs::mirror::{
    deployment,
    lane::{self, Condition, LaneState},
    upstream::{self, Connection, Removal, Upstream},
};
use uuid::Uuid;

use crate::dashboard::{
    Dashboard, PATH, actions, export,
    layout::{self, Page},
    parts::{Problem, count, maybe_time, query, scroll},
    session::Viewer,
};
use crate::words::lane as words;

/// The filter of the list, from the address.
#[derive(Debug, Clone, Default, Deserialize)]
pub(in crate::dashboard) struct Shown {
    /// Only upstreams with a lane that does not work for this cause.
    cause: Option<String>,
}

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let source = match &shown.cause {
        Some(cause) => format!("/upstreams{}", query(&[("cause", cause)])),
        None => "/upstreams".to_owned(),
    };
    let page = Page {
        title: "Upstreams",
        section: "/upstreams",
        notice: actions::notice(&headers),
        fixed: html! {
            @if let Some(cause) = &shown.cause {
                p {
                    "Only upstreams with a lane that failed with: " span.error { (cause) } ". "
                    a href={ (PATH) "/upstreams" } { "Show all" }
                }
            } @else {
                p { "The relays that events are mirrored with. " code { "tender mirror add" } " adds one." }
            }
        },
        live: Some((&source, table(&dashboard, &shown).await?)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

/// Returns the age of a heartbeat from which a lane counts as stale, unless its upstream overrides it.
pub(super) async fn stale_secs(db: &PgPool) -> Result<u64, sqlx::Error> {
    Ok(60 * deployment::settings(db).await?.stale_threshold_minutes)
}

/// Returns the upstreams that match.
pub(in crate::dashboard) async fn listed(
    db: &PgPool,
    shown: &Shown,
) -> Result<Vec<Upstream>, sqlx::Error> {
    let mut upstreams = upstream::list(db).await?;
    if let Some(cause) = &shown.cause {
        let troubled = lane::upstreams_with(db, &cause.replace('\0', "")).await?;
        upstreams.retain(|one| troubled.contains(&one.id));
    }
    Ok(upstreams)
}

/// The live part.
pub(in crate::dashboard) async fn table(
    dashboard: &Dashboard,
    shown: &Shown,
) -> Result<Markup, sqlx::Error> {
    let db = &dashboard.db;
    let (upstreams, lanes) =
        (listed(db, shown).await?, lane::states(db, stale_secs(db).await?).await?);
    let connections = upstream::connections(db).await?;
    Ok(html! {
        (removals(&upstream::removals(db).await?))
        @if upstreams.is_empty() { p { @if shown.cause.is_some() { "No upstream has this failure any more." } @else { "There is no upstream yet." } } } @else {
            (scroll("Upstreams", &html! {
                table.cards {
                    thead { tr {
                        th { "Upstream" } th { "Direction" } th { "Connection" } th { "Lanes" }
                        th.n { "Stored" } th.n { "Uploaded" } th.n { "Rejected" } th { "Last progress" } th { "Last error" }
                    } }
                    tbody { @for one in &upstreams { (row(one, &lanes, &connections)) } }
                }
            }))
            (export::links("upstreams", &query(&[("cause", shown.cause.as_deref().unwrap_or_default())])))
        }
    })
}

/// The upstreams that are being removed, with the progress.
fn removals(removals: &[Removal]) -> Markup {
    html! {
        @for one in removals {
            p { "Removing " (one.url) ": " (count(one.rows, false)) " rows deleted so far." }
        }
    }
}

fn row(one: &Upstream, lanes: &[LaneState], connections: &[Connection]) -> Markup {
    let own: Vec<&LaneState> = lanes.iter().filter(|lane| lane.upstream_id == one.id).collect();
    let sum = |number: fn(&LaneState) -> i64| own.iter().map(|lane| number(lane)).sum::<i64>();
    let error = own.iter().find_map(|lane| lane.last_error.as_ref());
    let last = own.iter().filter_map(|lane| lane.last_synced_at).max();
    html! {
        tr {
            td data-label="Upstream" {
                a href={ (PATH) "/upstreams/" (one.id) } { (one.url) }
                @if !one.enabled { " " span class="badge off" { "off" } }
                @if one.live { " " span class="badge good" { "live" } }
            }
            td data-label="Direction" { (one.direction) }
            td data-label="Connection" { (connection_badge(one.id, connections)) }
            td data-label="Lanes" {
                @for lane in &own { (lane_badge(lane)) " " }
                @if own.is_empty() { "–" }
            }
            td.n data-label="Stored" { (count(sum(|lane| lane.stored), false)) }
            td.n data-label="Uploaded" { (count(sum(|lane| lane.uploaded), false)) }
            td.n data-label="Rejected" { (count(sum(|lane| lane.rejected + lane.upload_rejected), false)) }
            td.none[last.is_none()] data-label="Last progress" { (maybe_time(last)) }
            td.error.none[error.is_none()] data-label="Last error" { @if let Some(error) = error { (error) } }
        }
    }
}

/// The best connection of any process.
fn connection_badge(upstream: Uuid, connections: &[Connection]) -> Markup {
    let mut own = connections.iter().filter(|one| one.upstream_id == upstream);
    let best = own.clone().find(|one| one.state == "open").or_else(|| own.next());
    let state = best.map_or("closed", |one| one.state.as_str());
    let class = match state {
        "open" => "good",
        "connecting" => "busy",
        "waiting" => "warn",
        _ => "off",
    };
    html! { span class={ "badge " (class) } { (state) } }
}

/// The class of a lane, for its colour.
pub(super) fn class_of(lane: &LaneState) -> &'static str {
    match lane.condition() {
        Condition::Stale | Condition::Retrying | Condition::Gaps => "warn",
        Condition::Completed => "good",
        Condition::Syncing => "busy",
        Condition::Error => "bad",
        Condition::Idle => "off",
    }
}

fn lane_badge(lane: &LaneState) -> Markup {
    let progress = words::progress(lane).filter(|done| *done < 100.0);
    let title = match words::gaps(lane) {
        Some(gaps) => format!("{}: {gaps}", lane.condition().as_str()),
        None => lane.condition().as_str().to_owned(),
    };
    html! {
        span class={ "badge " (class_of(lane)) } title=(title) {
            (lane.lane) @if let Some(done) = progress { (format!(" {done:.0} %")) }
            @if lane.gaps() > 0 { " · " (count(lane.gaps(), false)) " missing" }
        }
    }
}
