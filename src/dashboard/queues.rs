//! The queues, and what operators did.

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use tender_jobs::{
    operator::{self, Action},
    queue::{self, COUNT_CAP, QueueStatus},
};

use super::{
    Dashboard, PATH, actions,
    layout::{self, Page},
    parts::{Ask, Problem, ask, count, maybe_time, short_key, time},
    session::Viewer,
};

/// Actions shown.
const ACTIONS: i64 = 200;

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let table = live(&dashboard, &viewer).await?;
    let page = Page {
        title: "Queues",
        section: "/queues",
        notice: actions::notice(&headers),
        fixed: html! {},
        live: Some(("/queues", table)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

pub(super) async fn live(dashboard: &Dashboard, viewer: &Viewer) -> Result<Markup, sqlx::Error> {
    let queues = queue::status(&dashboard.db).await?;
    Ok(html! {
        table.cards {
            thead { tr {
                th { "Queue" } th.n { "Waiting" } th.n { "Retrying" } th.n { "Running" } th.n { "Killed" }
                th.n { "Done" } th { "Oldest due" } th { "Next due" } th { "State" }
            } }
            tbody { @for queue in &queues { (row(queue, viewer)) } }
        }
    })
}

fn row(queue: &QueueStatus, viewer: &Viewer) -> Markup {
    let cell = |label: &str, state: &str, number: i64| {
        html! {
            td.n data-label=(label) {
                a href={ (PATH) "/jobs?queue=" (queue.queue) "&state=" (state) } { (count(number, number >= COUNT_CAP)) }
            }
        }
    };
    let (label, verb, question) = match queue.paused_at {
        Some(_) => ("Resume", "resume", format!("Let {} go on?", queue.queue)),
        None => (
            "Pause",
            "pause",
            format!("Pause {}? What runs ends; nothing new starts.", queue.queue),
        ),
    };
    let action = format!("{PATH}/queues/{}/{verb}", queue.queue);
    html! {
        tr {
            td data-label="Queue" { (queue.queue) }
            (cell("Waiting", "waiting", queue.waiting))
            (cell("Retrying", "retrying", queue.retrying))
            (cell("Running", "running", queue.running))
            (cell("Killed", "killed", queue.killed))
            (cell("Done", "done", queue.done))
            td data-label="Oldest due" { (maybe_time(queue.oldest_due_at)) }
            td data-label="Next due" { (maybe_time(queue.next_due_at)) }
            td data-label="State" {
                @match queue.paused_at {
                    Some(at) => { span.badge.warn { "paused" } " " (time(at)) " " },
                    None => { span.badge.good { "going" } " " },
                }
                (ask(viewer, &Ask { action: &action, label, question: &question, fields: &[], is_grave: queue.paused_at.is_none() }))
            }
        }
    }
}

pub(super) async fn actions_page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
) -> Result<Response, Problem> {
    let last = operator::last(&dashboard.db, ACTIONS).await?;
    let page = Page {
        title: "Actions",
        section: "/actions",
        notice: None,
        fixed: actions_table(&last),
        live: None,
    };
    Ok(layout::page(&viewer, &page).into_response())
}

fn actions_table(actions: &[Action]) -> Markup {
    html! {
        p { "What operators did, the last first. A relay's own changes are in its timeline too." }
        @if actions.is_empty() { p { "Nothing yet." } } @else {
            table.cards {
                thead { tr { th { "When" } th { "Who" } th { "What" } th { "With" } th { "Result" } } }
                tbody {
                    @for action in actions {
                        tr {
                            td data-label="When" { (time(action.created_at)) }
                            td data-label="Who" { code title=(action.who) { (short_key(&action.who)) } }
                            td data-label="What" { (action.action.replace('_', " ")) }
                            td data-label="With" { (action.target) }
                            td data-label="Result" { (action.result) }
                        }
                    }
                }
            }
        }
    }
}
