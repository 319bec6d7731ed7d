//! Charts of the last hour, day or week: syncs, latencies, events; with marks of what may explain a change.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use serde::Deserialize;
use tender_jobs::console::charts::{self, Charts, Mark, Range, Slot};

use super::{
    Dashboard, PATH,
    layout::{self, Page},
    parts::{Problem, count, duration, scroll, time},
    session::Viewer,
};

/// What the page shows.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
pub(super) struct Shown {
    #[serde(default)]
    range: Range,
}

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let source = format!("/charts?range={}", shown.range.as_str());
    let page = Page {
        title: "Charts",
        section: "/charts",
        notice: None,
        fixed: ranges(Some(shown.range)),
        live: Some((&source, live(&dashboard, shown).await?)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

/// Links to the ranges.
fn ranges(current: Option<Range>) -> Markup {
    html! {
        nav.ranges aria-label="Range" {
            @for range in Range::ALL {
                a href={ (PATH) "/charts?range=" (range.as_str()) } aria-current=[(current == Some(range)).then_some("page")] {
                    (words(range))
                }
            }
        }
    }
}

const fn words(range: Range) -> &'static str {
    match range {
        Range::Hour => "1 hour",
        Range::Day => "24 hours",
        Range::Week => "7 days",
    }
}

/// All open pages share charts of an age that fits their slots.
const fn fresh(range: Range) -> Duration {
    match range {
        Range::Hour => Duration::from_millis(900),
        Range::Day => Duration::from_secs(10),
        Range::Week => Duration::from_mins(1),
    }
}

pub(super) async fn read(dashboard: &Dashboard, range: Range) -> Result<Arc<Charts>, sqlx::Error> {
    let [hour, day, week] = &*dashboard.charts;
    let shared = match range {
        Range::Hour => hour,
        Range::Day => day,
        Range::Week => week,
    };
    shared.get(fresh(range), charts::read(&dashboard.db, range)).await
}

/// The live part.
pub(super) async fn live(dashboard: &Dashboard, shown: Shown) -> Result<Markup, sqlx::Error> {
    let charts = read(dashboard, shown.range).await?;
    let per = per(shown.range);
    Ok(html! {
        (syncs(&charts, &format!("Syncs per {per}"), &html! {}))
        section aria-labelledby="latency" {
            h2 #latency { "Time from a change to its sync" }
            (chart(&charts, "ms", &[("half within", "good"), ("95 % within", "warn")], |slot| vec![ms(slot.p50), ms(slot.p95)]))
        }
        section aria-labelledby="ingest" {
            h2 #ingest { "Events per " (per) }
            (chart(&charts, "", &[("stored", "good"), ("rejected", "bad")], |slot| vec![Some(slot.stored), Some(slot.rejected)]))
        }
        (figures(&charts.slots))
        (marks(&charts.marks))
    })
}

const fn per(range: Range) -> &'static str {
    match range {
        Range::Hour => "minute",
        Range::Day => "10 minutes",
        Range::Week => "hour",
    }
}

/// The last hour, for the overview.
pub(super) fn last_hour(charts: &Charts, summary: &Markup) -> Markup {
    let above = html! { (summary) (ranges(None)) };
    html! { (syncs(charts, "The last hour, per minute", &above)) (figures(&charts.slots)) }
}

fn syncs(charts: &Charts, title: &str, above: &Markup) -> Markup {
    html! {
        section aria-labelledby="syncs" {
            h2 #syncs { (title) }
            (above)
            (chart(charts, "", &[("synced", "good"), ("failed", "bad")], |slot| vec![Some(slot.synced), Some(slot.failed)]))
        }
    }
}

/// A value of a chart, in the chart's unit.
type Value = Option<i64>;

/// A chart; scripts draw it. `series` are names and colours.
fn chart(
    charts: &Charts,
    unit: &str,
    series: &[(&str, &str)],
    values: impl Fn(&Slot) -> Vec<Value>,
) -> Markup {
    let points: Vec<Vec<Value>> = charts
        .slots
        .iter()
        .map(|slot| [vec![Some(slot.at.timestamp())], values(slot)].concat())
        .collect();
    let marks: Vec<_> =
        charts.marks.iter().map(|mark| (mark.at.timestamp(), named(mark))).collect();
    html! {
        tender-chart data-unit=(unit) data-series=(json(&series)) data-points=(json(&points)) data-marks=(json(&marks)) {}
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn ms(time: Option<Duration>) -> Value {
    time.map(|time| i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

fn named(mark: &Mark) -> String {
    format!("{} {} {}", mark.at.format("%H:%M UTC"), mark.subject, happened(mark))
}

fn happened(mark: &Mark) -> &'static str {
    match mark.kind.as_str() {
        "paused" => "was paused",
        "resumed" => "was resumed",
        "breaker_opened" => "is out: its breaker opened",
        "breaker_closed" => "answers: its breaker closed",
        _ => "started",
    }
}

/// The figures of the charts as a table, also for browsers without scripts.
fn figures(slots: &[Slot]) -> Markup {
    let has_any = |slot: &&Slot| slot.synced + slot.failed + slot.stored + slot.rejected > 0;
    html! {
        section aria-label="Figures of the charts" { details #figures {
            summary { "Figures" }
            (scroll("Figures", &html! {
                table.cards.small {
                    thead { tr {
                        th { "From" } th.n { "Synced" } th.n { "Failed" } th.n { "Half within" } th.n { "95 % within" }
                        th.n { "Stored" } th.n { "Rejected" }
                    } }
                    tbody { @for slot in slots.iter().rev().filter(has_any) { (row(slot)) } }
                }
            }))
        } }
    }
}

fn row(slot: &Slot) -> Markup {
    let time = |time: Option<Duration>| time.map_or("–".to_owned(), duration);
    html! {
        tr {
            td.word data-label="From" { (instant(slot.at)) }
            td.n data-label="Synced" { (count(slot.synced, false)) }
            td.n data-label="Failed" { (count(slot.failed, false)) }
            td.n data-label="Half within" { (time(slot.p50)) }
            td.n data-label="95 % within" { (time(slot.p95)) }
            td.n data-label="Stored" { (count(slot.stored, false)) }
            td.n data-label="Rejected" { (count(slot.rejected, false)) }
        }
    }
}

fn instant(at: DateTime<Utc>) -> String {
    at.format("%d %b %H:%M UTC").to_string()
}

/// The marks as text, the last first.
fn marks(marks: &[Mark]) -> Markup {
    html! {
        section aria-labelledby="marks" {
            h2 #marks { "Pauses, breakers, starts" }
            @if marks.is_empty() { p { "None in this time." } } @else {
                ul.timeline { @for mark in marks.iter().rev() {
                    li { p { (time(mark.at)) " " span.any { (mark.subject) } " " (happened(mark)) "." } }
                } }
            }
        }
    }
}
