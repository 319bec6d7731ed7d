//! Upstreams: every one with its lanes at a glance, and one with all that is known of it.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use tender_jobs::{
    lane::{self, LaneKind, LaneState},
    upstream::{self, Connection, Upstream},
};
use uuid::Uuid;

use super::{
    Dashboard, PATH, actions,
    layout::{self, Page},
    parts::{Ask, Problem, ask, bytes, count, maybe_time, time},
    session::Viewer,
};
use crate::words::span;

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let page = Page {
        title: "Upstreams",
        section: "/upstreams",
        notice: actions::notice(&headers),
        fixed: html! {
            p { "Relays that events are kept in step with. " code { "tender upstream add" } " adds one." }
        },
        live: Some(("/upstreams", table(&dashboard).await?)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

fn stale_secs(dashboard: &Dashboard) -> u64 {
    60 * dashboard.config.sync.stale_threshold_minutes
}

/// Every upstream with its lanes.
pub(super) async fn table(dashboard: &Dashboard) -> Result<Markup, sqlx::Error> {
    let db = &dashboard.db;
    let (upstreams, lanes) =
        (upstream::list(db).await?, lane::states(db, stale_secs(dashboard)).await?);
    let connections = upstream::connections(db).await?;
    Ok(html! {
        @if upstreams.is_empty() { p { "There is none yet." } } @else {
            table.cards {
                thead { tr {
                    th { "Upstream" } th { "Direction" } th { "Connection" } th { "Lanes" }
                    th.n { "Stored" } th.n { "Uploaded" } th.n { "Rejected" } th { "Last sync" } th { "Last error" }
                } }
                tbody { @for one in &upstreams { (row(one, &lanes, &connections)) } }
            }
        }
    })
}

fn row(one: &Upstream, lanes: &[LaneState], connections: &[Connection]) -> Markup {
    let own: Vec<&LaneState> = lanes.iter().filter(|lane| lane.upstream_id == one.id).collect();
    let sum = |number: fn(&LaneState) -> i64| own.iter().map(|lane| number(lane)).sum::<i64>();
    let error = own.iter().find_map(|lane| lane.error_message.as_ref());
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
            td.none[last.is_none()] data-label="Last sync" { (maybe_time(last)) }
            td.error.none[error.is_none()] data-label="Last error" { @if let Some(error) = error { (error) } }
        }
    }
}

/// The best that any process has.
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

fn class_of(lane: &LaneState) -> &'static str {
    match lane.status.as_str() {
        _ if lane.is_stale => "warn",
        "completed" => "good",
        "syncing" => "busy",
        "error" => "bad",
        _ => "off",
    }
}

fn lane_badge(lane: &LaneState) -> Markup {
    let progress = lane.progress.filter(|done| *done < 100.0);
    html! {
        span class={ "badge " (class_of(lane)) } title={ (lane.status) @if lane.is_stale { ", stale" } } {
            (lane.lane) @if let Some(done) = progress { (format!(" {done:.0} %")) }
        }
    }
}

/// The upstream of a page.
pub(super) async fn find(dashboard: &Dashboard, id: &str) -> Result<Upstream, Problem> {
    let id = id.parse().map_err(|_| Problem::NotFound)?;
    upstream::find(&dashboard.db, id).await?.ok_or(Problem::NotFound)
}

pub(super) async fn one_page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let upstream = find(&dashboard, &id).await?;
    let source = format!("/upstreams/{}", upstream.id);
    let page = Page {
        title: &upstream.url,
        section: "/upstreams",
        notice: actions::notice(&headers),
        fixed: html! {},
        live: Some((&source, live(&dashboard, &upstream, &viewer).await?)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

/// The part that changes by itself.
pub(super) async fn live(
    dashboard: &Dashboard,
    upstream: &Upstream,
    viewer: &Viewer,
) -> Result<Markup, sqlx::Error> {
    let db = &dashboard.db;
    let lanes = lane::states_of(db, upstream.id, stale_secs(dashboard)).await?;
    let mut connections = upstream::connections(db).await?;
    connections.retain(|one| one.upstream_id == upstream.id);
    Ok(html! {
        (buttons(upstream, viewer))
        section aria-labelledby="lanes" {
            h2 #lanes { "Lanes" }
            @if lanes.is_empty() { p { "Nothing was synced yet." } }
            @for lane in &lanes { (lane_section(lane)) }
        }
        (facts(upstream))
        (connection_table(&connections))
    })
}

fn buttons(upstream: &Upstream, viewer: &Viewer) -> Markup {
    let action = |verb: &str| format!("{PATH}/upstreams/{}/{verb}", upstream.id);
    let modes = LaneKind::MODES.into_iter().filter(|mode| mode.is_for(upstream));
    html! {
        div.buttons {
            @for mode in modes {
                (ask(viewer, &Ask {
                    action: &action(mode.as_str()), label: &format!("Sync {mode} now"),
                    question: &format!("Start {mode} of {} now?", upstream.url), fields: &[], is_grave: false,
                }))
            }
            @if upstream.enabled {
                (ask(viewer, &Ask {
                    action: &action("disable"), label: "Disable", question: "Stop all work on this upstream?",
                    fields: &[], is_grave: true,
                }))
            } @else {
                (ask(viewer, &Ask {
                    action: &action("enable"), label: "Enable", question: "Work on this upstream again?",
                    fields: &[], is_grave: false,
                }))
            }
            (ask(viewer, &Ask {
                action: &action("reset"), label: "Reset", is_grave: true, fields: &[],
                question: "Forget the progress of all its lanes? They begin anew; events stay.",
            }))
        }
    }
}

fn lane_section(lane: &LaneState) -> Markup {
    let instant = |at: i64| chrono::DateTime::from_timestamp(at, 0);
    html! {
        div.item class=(class_of(lane)) {
            h3 { (lane.lane) " " span class={ "badge " (class_of(lane)) } { (lane.status) @if lane.is_stale { " (stale)" } } }
            @if let Some(done) = lane.progress {
                p {
                    progress max="100" value=(format!("{done:.1}")) aria-label="history done" {}
                    (format!(" {done:.1} % of history"))
                    @if let Some(until) = lane.backfill_until.and_then(instant) { ", back to " (until.format("%F %T UTC")) }
                    @if let Some(target) = lane.backfill_target.and_then(instant) { ", wanted back to " (target.format("%F")) }
                }
            }
            @if let Some(error) = &lane.error_message {
                p { span.error { (error) } " " (maybe_time(lane.failed_at)) ", again " (maybe_time(lane.retry_at)) ", " (lane.consecutive_failures) " in a row" }
            }
            dl.facts {
                dt { "Last sync" } dd { (maybe_time(lane.last_synced_at)) }
                @if let Some(method) = &lane.method { dt { "By" } dd { (method) } }
                @if let Some(window) = lane.window_seconds { dt { "Window" } dd { (span(window)) } }
                @if let Some(age) = lane.cursor_age { dt { "Cursor behind" } dd { (span(age.max(0))) } }
                @for (name, number) in numbers(lane) { dt { (name) } dd { (count(number, false)) } }
            }
        }
    }
}

/// What is not zero, and what always says something.
fn numbers(lane: &LaneState) -> Vec<(&'static str, i64)> {
    let all = [
        ("Received", lane.received),
        ("Stored", lane.stored),
        ("Duplicate", lane.duplicate),
        ("Rejected", lane.rejected),
        ("Uploaded", lane.uploaded),
        ("There already", lane.upload_duplicate),
        ("Refused there", lane.upload_rejected),
        ("To be sent again", lane.upload_pending),
        ("Listed, not delivered", lane.unavailable),
        ("Not asked for", lane.violations),
        ("Seconds beyond a page", lane.saturated_seconds),
    ];
    all.into_iter().filter(|(_, number)| *number > 0).collect()
}

fn facts(upstream: &Upstream) -> Markup {
    html! {
        section aria-labelledby="about" {
            h2 #about { "About it" }
            dl.facts {
                dt { "Direction" } dd { (upstream.direction) }
                dt { "Backfill" } dd { @if upstream.backfill { "yes" } @else { "no" } }
                dt { "Live" } dd { @if upstream.live { "yes" } @else { "no" } }
                dt { "Negentropy" } dd {
                    @if upstream.negentropy { (upstream.negentropy_verdict) } @else { "not tried" }
                    @if let Some(until) = upstream.negentropy_verdict_until { " until " (time(until)) }
                    @if let Some(reason) = &upstream.negentropy_reason { " " span.error { (reason) } }
                }
                @if let Some(relay) = &upstream.relay_id { dt { "Hosted" } dd { a href={ (PATH) "/relays/" (relay) } { "this relay" } } }
                dt { "Set differently" } dd { code { (upstream.config) } }
                @if let Some(information) = &upstream.information { dt { "Says of itself" } dd { code { (information) } } }
                @if let Some(notes) = &upstream.notes { dt { "Notes" } dd { (notes) } }
            }
        }
    }
}

fn connection_table(connections: &[Connection]) -> Markup {
    html! {
        section aria-labelledby="connections" {
            h2 #connections { "Connections" }
            @if connections.is_empty() { p { "No process is connected." } } @else {
                div.scroll tabindex="0" role="region" aria-label="Connections" {
                    table {
                        thead { tr { th { "Process" } th { "State" } th.n { "Subscriptions" } th.n { "Attempts" } th.n { "In" } th.n { "Out" } th { "Error" } } }
                        tbody {
                            @for one in connections {
                                tr {
                                    td { (one.process) } td { (one.state) }
                                    td.n { (one.subscriptions) } td.n { (one.attempts) }
                                    td.n { (bytes(one.bytes_in)) } td.n { (bytes(one.bytes_out)) }
                                    td.error { @if let Some(error) = &one.error { (error) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
