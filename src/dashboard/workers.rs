//! The workers that sent a heartbeat in the last day, and the jobs that they hold.

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use tender_jobs::queue::{self, Worker};

use super::{
    Dashboard, PATH, export,
    layout::{self, Page},
    parts::{Problem, count, maybe_time, query, scroll, short_worker, time},
    session::Viewer,
};

/// The jobs of a worker that are linked. A station that fetches in batches holds hundreds.
const JOBS: usize = 50;
/// The most jobs that `queue::workers` returns per worker.
const MOST_HELD: i64 = 1000;

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Shown {
    /// Workers of this queue; of all queues if empty.
    #[serde(default)]
    queue: String,
    /// `alive` or `dead`; both if empty.
    #[serde(default)]
    state: String,
}

impl Shown {
    pub(super) fn matches(&self, worker: &Worker) -> bool {
        let state = if worker.is_alive { ALIVE } else { DEAD };
        (self.queue.is_empty() || worker.queue == self.queue)
            && (self.state.is_empty() || self.state == state)
    }
}

const ALIVE: &str = "alive";
const DEAD: &str = "dead";

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let table = live(&dashboard, &shown).await?;
    let source = format!("/workers{}", query(&[("queue", &shown.queue), ("state", &shown.state)]));
    let page = Page {
        title: "Workers",
        section: "/processes",
        notice: None,
        fixed: filters(&shown),
        live: Some((&source, table)),
    };
    Ok(layout::page(&viewer, &page).into_response())
}

fn filters(shown: &Shown) -> Markup {
    let is_known = tender_jobs::queues().contains(&shown.queue.as_str());
    html! {
        form.filters method="get" action={ (PATH) "/workers" } role="search" {
            label { "Queue" select name="queue" {
                option value="" { "any" }
                @for name in tender_jobs::queues() { option value=(name) selected[shown.queue == name] { (name) } }
                @if !is_known && !shown.queue.is_empty() { option value=(shown.queue) selected { (shown.queue) } }
            } }
            label { "State" select name="state" {
                option value="" { "any" }
                @for state in [ALIVE, DEAD] { option value=(state) selected[shown.state == state] { (state) } }
            } }
            button { "Show" }
        }
    }
}

/// The live part.
pub(super) async fn live(dashboard: &Dashboard, shown: &Shown) -> Result<Markup, sqlx::Error> {
    let mut workers = queue::workers(&dashboard.db).await?;
    workers.retain(|worker| shown.matches(worker));
    Ok(html! {
        p.quiet { "Workers that sent a heartbeat in the last day. A dead worker sent none for " (queue::DEAD_AFTER.as_secs()) " s; its jobs are rescued." }
        @if workers.is_empty() {
            p { "There is no worker. Start " code { "tender work" } " or " code { "tender serve" } "." }
        } @else {
            (scroll("Workers", &html! {
                table.cards {
                    thead { tr {
                        th { "Worker" } th { "Queue" } th { "State" } th { "Process" } th { "Started" }
                        th { "Last heartbeat" } th { "Holds" }
                    } }
                    tbody { @for worker in &workers { (row(worker)) } }
                }
            }))
            (export::links("workers", &query(&[("queue", &shown.queue), ("state", &shown.state)])))
        }
    })
}

fn row(worker: &Worker) -> Markup {
    let (class, state) = if worker.is_alive { ("good", "alive") } else { ("bad", "dead") };
    html! {
        tr id={ "worker-" (worker.id) } {
            td data-label="Worker" { code title=(worker.id) { (short_worker(&worker.id)) } }
            td data-label="Queue" { a href={ (PATH) "/jobs" (query(&[("queue", &worker.queue)])) } { (worker.queue) } }
            td data-label="State" { span class={ "badge " (class) } { (state) } }
            td data-label="Process" { (worker.process) }
            td data-label="Started" { (maybe_time(worker.started_at)) }
            td data-label="Last heartbeat" { (time(worker.last_seen)) }
            td data-label="Holds" { (held(worker)) }
        }
    }
}

/// The number of held jobs and a link to each of the first [`JOBS`].
fn held(worker: &Worker) -> Markup {
    let unit = if worker.running == 1 { "job" } else { "jobs" };
    let running = query(&[("queue", &worker.queue), ("state", "running")]);
    html! {
        div.held {
            span { (count(worker.running, worker.running >= MOST_HELD)) " " (unit) }
            @for job in worker.jobs.iter().take(JOBS) {
                " " a href={ (PATH) "/jobs/" (job) } title=(job) { (short_job(job)) }
            }
            @if worker.jobs.len() > JOBS {
                " " a href={ (PATH) "/jobs" (running) } { "all running jobs of the queue" }
            }
        }
    }
}

/// Returns the end of a job's id. The start of a ULID is its time, which is the same for many jobs.
fn short_job(id: &str) -> String {
    match id.get(id.len().saturating_sub(6)..) {
        Some(end) if id.len() == 26 => format!("…{end}"),
        _ => id.to_owned(),
    }
}
