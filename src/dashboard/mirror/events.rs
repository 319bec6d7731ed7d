//! The event store: its size, its rate, its kinds, and the reasons for rejected events.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use tender_jobs::mirror::event::{self, EventStats};

use crate::dashboard::{
    Dashboard,
    layout::{self, Page},
    parts::{Problem, count},
    session::Viewer,
};

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

/// The live part.
pub(in crate::dashboard) async fn live(dashboard: &Dashboard) -> Result<Markup, sqlx::Error> {
    let stats = event::stats(&dashboard.db).await?;
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
                thead { tr { th { "Day" } th.n { "Stored" } th { "Beside the busiest day" } } }
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
