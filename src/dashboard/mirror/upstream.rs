//! One upstream: its lanes, settings and connections.

use std::collections::HashMap;

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use sqlx::PgPool;
use tender_jobs::mirror::{
    event::{self, ReasonCount},
    lane::{
        self, Condition, LaneKind, LaneState,
        gap::{self, GapRow},
    },
    upstream::{self, Connection, Learned, Upstream},
};
use uuid::Uuid;

use super::upstreams::{class_of, stale_secs};
use crate::dashboard::{
    Dashboard, PATH, actions,
    layout::{self, Page},
    parts::{Ask, Problem, ask, bytes, copyable, count, maybe_time, scroll, time},
    session::Viewer,
};
use crate::words::{lane as words, span};

/// The most gaps of a lane that the page lists.
const SHOWN_GAPS: i64 = 20;

/// Returns the upstream with this id.
pub(in crate::dashboard) async fn find(
    dashboard: &Dashboard,
    id: &str,
) -> Result<Upstream, Problem> {
    let id = id.parse().map_err(|_| Problem::NotFound)?;
    upstream::find(&dashboard.db, id).await?.ok_or(Problem::NotFound)
}

pub(in crate::dashboard) async fn page(
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

/// The live part.
pub(in crate::dashboard) async fn live(
    dashboard: &Dashboard,
    upstream: &Upstream,
    viewer: &Viewer,
) -> Result<Markup, sqlx::Error> {
    let db = &dashboard.db;
    let lanes = lane::states_of(db, upstream.id, stale_secs(db).await?).await?;
    let gaps = gaps_of(db, &lanes).await?;
    let learned = upstream::learned(db, upstream.id).await?;
    let rejected = event::rejected_of(db, upstream.id).await?;
    let mut connections = upstream::connections(db).await?;
    connections.retain(|one| one.upstream_id == upstream.id);
    Ok(html! {
        (buttons(upstream, viewer))
        section aria-labelledby="lanes" {
            h2 #lanes { "Lanes" }
            @if lanes.is_empty() { p { "No lane has run yet." } }
            @for lane in &lanes { (lane_section(lane, gaps.get(&lane.id).map_or(&[], Vec::as_slice))) }
        }
        (facts(upstream, &learned, &rejected))
        (connection_table(&connections))
    })
}

/// Returns the first gaps of each lane that has some.
async fn gaps_of(
    db: &PgPool,
    lanes: &[LaneState],
) -> Result<HashMap<Uuid, Vec<GapRow>>, sqlx::Error> {
    let mut gaps = HashMap::new();
    for lane in lanes.iter().filter(|lane| lane.gaps() > 0) {
        gaps.insert(lane.id, gap::gaps(db, lane.id, SHOWN_GAPS).await?);
    }
    Ok(gaps)
}

fn buttons(upstream: &Upstream, viewer: &Viewer) -> Markup {
    let action = |verb: &str| format!("{PATH}/upstreams/{}/{verb}", upstream.id);
    let modes = LaneKind::MODES.into_iter().filter(|mode| upstream.takes_part_in(*mode));
    html! {
        div.buttons {
            @for mode in modes {
                (ask(viewer, &Ask {
                    action: &action(mode.as_str()), label: &format!("Run {mode} now"),
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
                    action: &action("enable"), label: "Enable", question: "Enable this upstream?",
                    fields: &[], is_grave: false,
                }))
            }
            (ask(viewer, &Ask {
                action: &action("reset"), label: "Reset", is_grave: true, fields: &[],
                question: "Forget everything believed of this upstream? Its lanes start from the beginning. Stored events are kept.",
            }))
        }
    }
}

fn lane_section(lane: &LaneState, gaps: &[GapRow]) -> Markup {
    html! {
        div class={ "item " (class_of(lane)) } {
            h3 { (lane.lane) " " span class={ "badge " (class_of(lane)) } { (lane.condition().as_str()) } }
            @if let Some(done) = words::progress(lane) { (progress(lane, done)) }
            (failure(lane))
            @if let Some(words) = &lane.upload_refusal {
                p { "It last refused an upload " (maybe_time(lane.upload_refused_at)) ": " span.error { (words) } }
            }
            (missing(lane, gaps))
            dl.facts {
                dt { "Last progress" } dd { (maybe_time(lane.last_synced_at)) }
                @if let Some(method) = &lane.method { dt { "Method" } dd { (method) } }
                @if let Some(window) = lane.window_seconds { dt { "Window" } dd { (span(window)) } }
                @if let Some(age) = lane.cursor_age { dt { "Cursor behind" } dd { (span(age.max(0))) } }
                @for (name, number) in numbers(lane) { dt { (name) } dd { (count(number, false)) } }
            }
        }
    }
}

/// Why the lane failed or retries.
fn failure(lane: &LaneState) -> Markup {
    let next = lane.retry_at.or(lane.next_attempt_at);
    html! {
        @if let (Some(failure), Some(error)) = (words::failure(lane), &lane.last_error) {
            p {
                "This lane: " (failure) " " (maybe_time(lane.last_error_at)) ": " span.error { (error) }
                @if next.is_some() { ". Next attempt " (maybe_time(next)) }
            }
        }
    }
}

/// What the lane knows to be missing: the sums, and the first gaps.
fn missing(lane: &LaneState, gaps: &[GapRow]) -> Markup {
    html! {
        @if let Some(sums) = words::gaps(lane) {
            p { "Missing: " (sums) ". The oldest was found " (maybe_time(lane.gaps_since)) ", the next retry is due " (maybe_time(lane.gap_retry_at)) "." }
            ul.changes { @for gap in gaps { (gap_item(gap)) } }
        }
    }
}

fn gap_item(gap: &GapRow) -> Markup {
    let at = |second: i64| chrono::DateTime::from_timestamp(second, 0);
    html! {
        li {
            @if let Some(id) = &gap.event_id { "event " code { (id) } }
            @else if gap.since == gap.until { "second " (maybe_time(at(gap.since))) }
            @else { (maybe_time(at(gap.since))) " to " (maybe_time(at(gap.until))) }
            ": " (gap.reason) "; " (gap.attempts) " retries, the next " (time(gap.retry_at))
        }
    }
}

/// How much of the history is done, in per cent.
fn progress(lane: &LaneState, done: f64) -> Markup {
    let instant = |at: i64| chrono::DateTime::from_timestamp(at, 0);
    html! {
        p {
            @if lane.condition() == Condition::Syncing {
                progress max="100" value=(format!("{done:.1}")) aria-label="share of the history that is done" {}
            }
            (format!(" {done:.1} % of history"))
            @if let Some(until) = lane.backfill_until.and_then(instant) { ", back to " (until.format("%F %T UTC")) }
            @if let Some(target) = lane.backfill_target.and_then(instant) { ", target " (target.format("%F")) }
        }
    }
}

/// The counts that are not zero.
fn numbers(lane: &LaneState) -> Vec<(&'static str, i64)> {
    let all = [
        ("Received", lane.received),
        ("Stored", lane.stored),
        ("Duplicates", lane.duplicate),
        ("Rejected", lane.rejected),
        ("Uploaded", lane.uploaded),
        ("Uploads already there", lane.upload_duplicate),
        ("Uploads rejected", lane.upload_rejected),
        ("Uploads to retry", lane.upload_pending),
        ("Listed but not delivered", lane.unavailable),
        ("Received without a request", lane.violations),
        ("Seconds with more events than a page", lane.saturated_seconds),
    ];
    all.into_iter().filter(|(_, number)| *number > 0).collect()
}

fn facts(upstream: &Upstream, learned: &Learned, rejected: &[ReasonCount]) -> Markup {
    html! {
        section aria-labelledby="about" {
            h2 #about { "Settings" }
            dl.facts {
                dt { "Id" } dd { (copyable(&upstream.id.to_string())) }
                dt { "Direction" } dd { (upstream.direction) }
                dt { "Backfill" } dd { @if upstream.backfill { "yes" } @else { "no" } }
                dt { "Live" } dd { @if upstream.live { "yes" } @else { "no" } }
                dt { "Negentropy" } dd {
                    @if upstream.negentropy { (upstream.negentropy_verdict) } @else { "off" }
                    @if let Some(until) = upstream.negentropy_verdict_until { " until " (time(until)) }
                    @if let Some(reason) = &upstream.negentropy_reason { " " span.error { (reason) } }
                }
                @if let Some(relay) = &upstream.relay_id { dt { "Hosted relay" } dd { a href={ (PATH) "/relays/" (relay) } { (relay) } } }
                dt { "Overrides" } dd { code { (upstream.config) } }
                @if let Some(reason) = &upstream.authors_only_reason {
                    dt { "Uploads" } dd { "Only events of our own key: it refused others with “" (reason) "”" }
                }
                @for one in rejected { dt { "Rejected events" } dd { (count(one.events, false)) " " (one.reason) } }
                @for sentence in learned.sentences() { dt { "Learned" } dd { (sentence) } }
                @if let Some(information) = &upstream.information { dt { "NIP-11 document" } dd { code { (information) } } }
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
                (scroll("Connections", &html! {
                    table.cards {
                        thead { tr {
                            th { "Process" } th { "State" } th.n { "Subscriptions" } th.n { "Attempts" }
                            th.n { "Received" } th.n { "Sent" } th { "Error" }
                        } }
                        tbody { @for one in connections { (connection_row(one)) } }
                    }
                }))
            }
        }
    }
}

fn connection_row(one: &Connection) -> Markup {
    html! {
        tr {
            td data-label="Process" { (one.process) } td data-label="State" { (one.state) }
            td.n data-label="Subscriptions" { (one.subscriptions) } td.n data-label="Attempts" { (one.attempts) }
            td.n data-label="Received" { (bytes(one.bytes_in)) } td.n data-label="Sent" { (bytes(one.bytes_out)) }
            td.error.none[one.error.is_none()] data-label="Error" { @if let Some(error) = &one.error { (error) } }
        }
    }
}
