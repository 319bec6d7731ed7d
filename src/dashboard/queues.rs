//! The queues: what they hold now, what flows through them, and what they did lately.

pub(super) mod actions;
mod figures;
mod flow;

use std::time::Duration;

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use tender_jobs::queue::{self, COUNT_CAP, JobState, Paused, QueueStatus, process};

pub(super) use figures::Figures;

use super::{
    Dashboard, PATH, actions as results, export,
    layout::{self, Page},
    parts::{Ask, Problem, ask, count, maybe_time, query, scroll, short_key, time},
    session::Viewer,
};

/// All open pages share the counts of this age: they cost more than all else on the page.
const FRESH: Duration = Duration::from_millis(900);

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tables = live(&dashboard, &viewer).await?;
    let page = Page {
        title: "Queues",
        section: "/queues",
        notice: results::notice(&headers),
        fixed: html! {},
        live: Some(("/queues", tables)),
    };
    Ok(results::without_notice(layout::page(&viewer, &page).into_response()))
}

/// The live part.
pub(super) async fn live(dashboard: &Dashboard, viewer: &Viewer) -> Result<Markup, sqlx::Error> {
    let db = &dashboard.db;
    let read = figures::read(dashboard).await?;
    let names: Vec<&str> = read.figures.iter().map(|one| one.queue.as_str()).collect();
    let queues = dashboard.statuses.get(FRESH, queue::status(db, &names)).await?;
    let (paused, scaled) = (queue::paused(db).await?, queue::scaled(db).await?);
    let processes = process::processes(db).await?;
    let flows =
        flow::Flows { queues: &queues, flow: &read.flow, processes: &processes, scaled: &scaled };
    Ok(html! {
        (scroll("Queues", &html! {
            table.cards {
                thead { tr {
                    th { "Queue" } th.n { "Waiting" } th.n { "Retrying" } th.n { "Queued" }
                    th.n { "Running" } th.n { "Killed" } th.n { "Done" } th { "Oldest due" }
                    th { "Next due" } th { "State" }
                } }
                tbody { @for queue in queues.iter() { (row(queue, &paused, viewer)) } }
            }
        }))
        (export::links("queues", ""))
        (flow::section(&flows, viewer))
        (figures::section(&read.figures))
    })
}

fn row(queue: &QueueStatus, paused: &[Paused], viewer: &Viewer) -> Markup {
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
            td data-label="State" { div { (state(&queue.queue, paused, viewer)) } }
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

/// Whether the queue is paused, by whom and why, and the form that changes it. A queue that Tender does not know
/// has none, because no worker serves it.
fn state(queue: &str, paused: &[Paused], viewer: &Viewer) -> Markup {
    html! {
        @if !tender_jobs::queues().contains(&queue) { span.badge.warn { "unknown" } } @else {
            @match paused.iter().find(|one| one.queue == queue) {
                Some(pause) => { (paused_state(pause, viewer)) },
                None => { span.badge.good { "active" } " " (pause_form(queue, viewer)) },
            }
        }
    }
}

fn paused_state(pause: &Paused, viewer: &Viewer) -> Markup {
    let queue = &pause.queue;
    html! {
        span.badge.warn { "paused" } " " (time(pause.paused_at)) " by " span title=(pause.paused_by) { (short_key(&pause.paused_by)) }
        @if let Some(reason) = &pause.reason { ": " (reason) }
        " "
        (ask(viewer, &Ask {
            action: &format!("{PATH}/queues/{queue}/resume"), label: "Resume", question: &format!("Resume {queue}?"),
            fields: &[], is_grave: false,
        }))
    }
}

/// The form that pauses a queue. The reason that is typed is the confirmation.
fn pause_form(queue: &str, viewer: &Viewer) -> Markup {
    html! {
        @if viewer.may_act() {
            details.snooze id={ "pause-" (queue) } {
                summary { "Pause" }
                form method="post" action={ (PATH) "/queues/" (queue) "/pause" } {
                    input type="hidden" name="form_token" value=(viewer.form_token);
                    input type="hidden" name="confirmed" value="yes";
                    label { "Why?" input name="reason" id={ "pause-reason-" (queue) } required maxlength="300"; }
                    button.grave { "Pause " (queue) }
                }
            }
        }
    }
}
