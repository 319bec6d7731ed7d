//! The queues: what they hold now, and what they did lately.

mod figures;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use tender_jobs::queue::{self, COUNT_CAP, JobState, QueueStatus};

use super::{
    Dashboard, PATH, actions,
    layout::{self, Page},
    parts::{Ask, Problem, ask, count, maybe_time, query, scroll, time},
    session::Viewer,
};

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tables = live(&dashboard, &viewer).await?;
    let page = Page {
        title: "Queues",
        section: "/queues",
        notice: actions::notice(&headers),
        fixed: html! {},
        live: Some(("/queues", tables)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

/// The live part.
pub(super) async fn live(dashboard: &Dashboard, viewer: &Viewer) -> Result<Markup, sqlx::Error> {
    let figures = figures::read(dashboard).await?;
    let names: Vec<&str> = figures.iter().map(|one| one.queue.as_str()).collect();
    let queues = queue::status(&dashboard.db, &names).await?;
    Ok(html! {
        (scroll("Queues", &html! {
            table.cards {
                thead { tr {
                    th { "Queue" } th.n { "Waiting" } th.n { "Retrying" } th.n { "Queued" }
                    th.n { "Running" } th.n { "Killed" } th.n { "Done" } th { "Oldest due" }
                    th { "Next due" } th { "State" }
                } }
                tbody { @for queue in &queues { (row(queue, viewer)) } }
            }
        }))
        (figures::section(&figures))
    })
}

fn row(queue: &QueueStatus, viewer: &Viewer) -> Markup {
    html! {
        tr {
            td data-label="Queue" { (queue.queue) }
            (cell(queue, "Waiting", JobState::Waiting, queue.waiting))
            (cell(queue, "Retrying", JobState::Retrying, queue.retrying))
            (cell(queue, "Queued", JobState::Queued, queue.queued))
            (cell(queue, "Running", JobState::Running, queue.running))
            (cell(queue, "Killed", JobState::Killed, queue.killed))
            (cell(queue, "Done", JobState::Done, queue.done))
            td data-label="Oldest due" { (maybe_time(queue.oldest_due_at)) }
            td data-label="Next due" { (maybe_time(queue.next_due_at)) }
            td data-label="State" { (state(queue, viewer)) }
        }
    }
}

/// The number of jobs in a state, linked to the list of those jobs.
fn cell(queue: &QueueStatus, label: &str, state: JobState, number: i64) -> Markup {
    let jobs = query(&[("queue", &queue.queue), ("state", state.as_str())]);
    html! {
        td.n data-label=(label) {
            a href={ (PATH) "/jobs" (jobs) } { (count(number, number >= COUNT_CAP)) }
        }
    }
}

/// Whether the queue is paused, and the button that changes it. A queue that Tender does not know has
/// no button, because no worker serves it.
fn state(queue: &QueueStatus, viewer: &Viewer) -> Markup {
    let name = &queue.queue;
    let (label, verb, question) = match queue.paused_at {
        Some(_) => ("Resume", "resume", format!("Resume {name}?")),
        None => {
            ("Pause", "pause", format!("Pause {name}? Running jobs end, and no other job starts."))
        }
    };
    let action = format!("{PATH}/queues/{name}/{verb}");
    let is_grave = queue.paused_at.is_none();
    html! {
        @if !tender_jobs::queues().contains(&name.as_str()) { span.badge.warn { "unknown" } } @else {
            @match queue.paused_at {
                Some(at) => { span.badge.warn { "paused" } " " (time(at)) " " },
                None => { span.badge.good { "active" } " " },
            }
            (ask(viewer, &Ask { action: &action, label, question: &question, fields: &[], is_grave }))
        }
    }
}
