//! One followed relay: coverage, batches, gaps, subscriptions, errors.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use chrono::DateTime;
use maud::{Markup, html};
use sqlx::PgPool;
use tender_jobs::{
    grasp::view::{self, BatchRow, GapRow, Minute, RelayRow},
    queue,
};
use uuid::Uuid;

use super::{coverage, missing_list, state_badge};
use crate::{
    dashboard::{
        Dashboard, PATH, actions,
        layout::{self, Page},
        parts::{Ask, Problem, ask, count, maybe_time, numbered, scroll, time},
        session::Viewer,
    },
    words::grasp as words,
};

/// Rows of each list of the page.
const LISTED: i64 = 20;
/// Batches are long as cards.
const BATCHES: i64 = 10;

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let one = find(&dashboard, &id).await?;
    let source = format!("/followed/{}", one.id);
    let page = Page {
        title: &one.url,
        section: "/followed",
        notice: actions::notice(&headers),
        fixed: html! {},
        live: Some((&source, live(&dashboard.db, &one, &viewer).await?)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

/// Returns the followed relay with this id.
pub(in crate::dashboard) async fn find(
    dashboard: &Dashboard,
    id: &str,
) -> Result<RelayRow, Problem> {
    let id: Uuid = id.parse().map_err(|_| Problem::NotFound)?;
    view::relay(&dashboard.db, &id.to_string()).await?.ok_or(Problem::NotFound)
}

/// The live part.
pub(in crate::dashboard) async fn live(
    db: &PgPool,
    one: &RelayRow,
    viewer: &Viewer,
) -> Result<Markup, sqlx::Error> {
    let missing = view::missing(db, one.id, words::READ).await?;
    let batches = view::batches(db, one.id, BATCHES).await?;
    let gaps = view::gaps(db, one.id, LISTED).await?;
    let minutes = view::minutes(db, one.id).await?;
    let now = queue::now(db).await?;
    Ok(html! {
        (buttons(one, viewer))
        (facts(one))
        @if !missing.is_empty() {
            section aria-labelledby="missing" {
                h2 #missing { "Missing" }
                (missing_list(&missing, one.missing + one.in_flight, false, now))
            }
        }
        (batch_table(&batches))
        (gap_list(&gaps, one.gaps))
        (hour(&minutes))
    })
}

fn buttons(one: &RelayRow, viewer: &Viewer) -> Markup {
    html! {
        div.buttons {
            (ask(viewer, &Ask {
                action: &format!("{PATH}/followed/{}/resync", one.id), label: "Verify now",
                question: &format!("Verify everything that {} has delivered now?", one.url),
                fields: &[], is_grave: false,
            }))
        }
    }
}

fn facts(one: &RelayRow) -> Markup {
    let told = words::told(one);
    html! {
        section aria-labelledby="about" {
            h2 #about { "State" }
            dl.facts {
                dt { "State" } dd {
                    (state_badge(one.state, one.fault.as_deref())) " "
                    @match told.at { Some(at) => { (told.words) " " (time(at)) } None => { "since " (time(one.status_at)) } }
                }
                dt { "Coverage" } dd { (coverage(one.confirmed, one.items())) }
                dt { "In flight" } dd { (numbered(one.in_flight, "item")) " in " (numbered(one.open_batches, "batch")) }
                dt { "Named by" } dd {
                    (numbered(one.repositories, "repository")) @if one.is_bootstrap { ", and a service starts from it" }
                }
                dt { "Next try" } dd { (maybe_time(words::next_try(one))) }
                dt { "Held by" } dd { @match &one.holder { Some(holder) => span title=(holder) { (words::holder(holder)) }, None => "–" } }
                dt { "Subscriptions" } dd {
                    (words::subscriptions(one))
                }
                dt { "Live" } dd { (format!("{:.1}", one.live_per_minute)) " accepted events per minute (5-minute average)" }
                dt { "NIP-77" } dd { (one.nip77) }
                dt { "Last good" } dd { (maybe_time(one.last_good_at)) }
                dt { "Verified" } dd {
                    @match one.resynced_at { Some(at) => (time(at)), None => "not yet" }
                    @if let Some(at) = one.resync_due_at { ", next " (time(at)) }
                    @if let Some(note) = &one.resync_note { ": " span.error { (crate::words::visible(note)) } }
                }
                dt { "Drift" } dd { (numbered(one.drift_last, "event")) " at the last verification, " (count(one.drift_total, false)) " in total" }
                dt { "Connections" } dd { (count(one.connects, false)) " of " (numbered(one.attempts, "attempt")) }
                @if one.failures > 0 { dt { "Failures in a row" } dd { (one.failures) } }
                @if let Some(error) = &one.last_error { dt { "Last error" } dd { (maybe_time(one.last_error_at)) ": " span.error { (error) } } }
                dt { "Events" } dd { (count(one.received, false)) " received, " (count(one.stored, false)) " stored" }
            }
        }
    }
}

fn batch_table(batches: &[BatchRow]) -> Markup {
    html! {
        section aria-labelledby="batches" {
            h2 #batches { "Batches" }
            @if batches.is_empty() { p { "None yet." } } @else {
                (scroll("Batches", &html! {
                    table.cards {
                        thead { tr {
                            th { "Batch" } th { "Status" } th { "Begun" } th { "Items" } th { "Purpose" } th { "Method" }
                            th.n { "Pages" } th.n { "Received" } th.n { "Stored" } th { "Reason" }
                        } }
                        tbody { @for one in batches { (batch_row(one)) } }
                    }
                }))
            }
        }
    }
}

fn batch_row(one: &BatchRow) -> Markup {
    let class = match one.status.as_str() {
        "done" => "good",
        "failed" => "bad",
        _ => "busy",
    };
    html! {
        tr {
            td data-label="Batch" { (one.id) }
            td data-label="Status" { span class={ "badge " (class) } { (one.status) } }
            td data-label="Begun" { (time(one.begun_at)) }
            td.word data-label="Items" { (words::items(one.items.into(), &one.family)) }
            td data-label="Purpose" { (one.purpose) }
            td data-label="Method" { (one.method.as_deref().unwrap_or("–")) }
            td.n data-label="Pages" { (one.pages) }
            td.n data-label="Received" { (count(one.received, false)) }
            td.n data-label="Stored" { (count(one.stored, false)) }
            td.error.none[one.reason.is_none()] data-label="Reason" { @if let Some(reason) = &one.reason { (reason) } }
        }
    }
}

fn gap_list(gaps: &[GapRow], total: i64) -> Markup {
    let at = |second: i64| match DateTime::from_timestamp(second, 0) {
        Some(at) => at.format("%F %T UTC").to_string(),
        None => second.to_string(),
    };
    let more = total - i64::try_from(gaps.len()).unwrap_or_default();
    html! {
        @if !gaps.is_empty() {
            section aria-labelledby="gaps" {
                h2 #gaps { "Gaps" }
                ul.changes {
                    @for one in gaps {
                        li {
                            @if one.since == one.until { "second " (at(one.since)) }
                            @else { (at(one.since)) " to " (at(one.until)) }
                            ", " (words::items(one.items.into(), &one.family)) ": " (one.reason) "; found " (time(one.first_seen_at))
                        }
                    }
                    @if more > 0 { li { (count(more, false)) " more" } }
                }
            }
        }
    }
}

fn hour(minutes: &[Minute]) -> Markup {
    html! {
        @if !minutes.is_empty() {
            section aria-labelledby="hour" {
                h2 #hour { "The last hour" }
                details {
                    summary { "Accepted events per minute" }
                    table {
                        thead { tr { th { "Minute" } th.n { "Live" } th.n { "History" } } }
                        tbody {
                            @for one in minutes.iter().rev() {
                                tr { td { (one.minute.format("%H:%M UTC")) } td.n { (one.live) } td.n { (one.history) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
