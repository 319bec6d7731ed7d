//! The event store: its size, its rate, its kinds, and the reasons for rejected events.

use std::time::{Duration, Instant};

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use tender_jobs::mirror::event::{self, EventStats, KindCount};
use tokio::sync::Mutex;

use crate::dashboard::{
    Dashboard,
    layout::{self, Page},
    parts::{Problem, count},
    session::Viewer,
};

/// The age at which the counts by kind are read again. Reading them scans a whole index.
const KINDS_FRESH: Duration = Duration::from_mins(10);

/// The last counts by kind, shared by all open pages.
#[derive(Default)]
pub(in crate::dashboard) struct Kinds(Mutex<Option<(Instant, Vec<KindCount>)>>);

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
) -> Result<Response, Problem> {
    let page = Page {
        title: "Events",
        section: "/events",
        notice: None,
        fixed: html! {},
        live: Some(("/events", live(&dashboard).await?)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

/// Reads the statistics; the counts by kind only if they are old.
async fn stats(dashboard: &Dashboard) -> Result<EventStats, sqlx::Error> {
    let mut kinds = dashboard.kinds.0.lock().await;
    let known = kinds.as_ref().filter(|(at, _)| at.elapsed() < KINDS_FRESH).map(|(_, k)| k.clone());
    let mut stats = event::stats(&dashboard.db, known.is_none()).await?;
    match known {
        Some(known) => stats.by_kind = known,
        None => *kinds = Some((Instant::now(), stats.by_kind.clone())),
    }
    Ok(stats)
}

/// The live part.
pub(in crate::dashboard) async fn live(dashboard: &Dashboard) -> Result<Markup, sqlx::Error> {
    let stats = stats(dashboard).await?;
    Ok(html! {
        section.numbers aria-label="Counts" {
            (number("in the store", &count(stats.total, false)))
            (number("stored today (UTC)", &count(stats.today, false)))
            (number("per minute (5-minute average)", &format!("{:.1}", stats.per_minute)))
        }
        (days(&stats))
        div.columns {
            (list("By kind", "Kind", stats.by_kind.iter().map(|one| (one.kind.to_string(), one.events))))
            (list("Rejected events by reason", "Reason", stats.rejected.iter().map(|one| (one.reason.clone(), one.events))))
        }
    })
}

fn number(name: &str, figure: &str) -> Markup {
    html! { div.number { span.figure { (figure) } span { (name) } } }
}

fn days(stats: &EventStats) -> Markup {
    let most = stats.days.iter().map(|day| day.stored).max().unwrap_or(0).max(1);
    html! {
        section aria-labelledby="days" {
            h2 #days { "Stored per day" }
            table {
                thead { tr { th { "Day" } th.n { "Stored" } th { "" } } }
                tbody {
                    @for day in &stats.days {
                        tr {
                            td { (day.day.format("%a %d %b")) }
                            td.n { (count(day.stored, false)) }
                            td.bar { meter max=(most) value=(day.stored) aria-label="share of the busiest day" {} }
                        }
                    }
                }
            }
        }
    }
}

fn list(title: &str, name: &str, rows: impl Iterator<Item = (String, i64)>) -> Markup {
    let rows: Vec<_> = rows.collect();
    html! {
        section {
            h2 { (title) }
            @if rows.is_empty() { p { "None." } } @else {
                table {
                    thead { tr { th { (name) } th.n { "Events" } } }
                    tbody { @for (what, events) in &rows { tr { td { (what) } td.n { (count(*events, false)) } } } }
                }
            }
        }
    }
}
