//! The first page: the problems that need attention, then the numbers of the fleet.

mod attention;
mod charts;

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use maud::{Markup, html};
use tender_jobs::{
    console::charts::Range,
    provision::instance::{BreakerState, Instance},
    queue::{Worker, schedule::Recurring},
};

use super::{
    Dashboard, PATH, actions,
    layout::{self, Page},
    parts::{Problem, maybe_time, query, scroll, time},
    session::Viewer,
};
use crate::{fleet::Fleet, words::schedule::schedule as in_words};

/// All open pages share a fleet of this age: at most one read per second and process.
const FRESH: Duration = Duration::from_millis(900);

/// Returns the fleet as of now or a moment ago.
pub(super) async fn read(dashboard: &Dashboard) -> Result<Arc<Fleet>, sqlx::Error> {
    dashboard.fleet.get(FRESH, Fleet::read(&dashboard.db)).await
}

pub(super) async fn to_root() -> Redirect {
    Redirect::permanent(PATH)
}

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let fleet = read(&dashboard).await?;
    let page = Page {
        title: "Fleet",
        section: "",
        notice: actions::notice(&headers),
        fixed: html! {},
        live: Some(("/fleet", live(&dashboard, &viewer).await?)),
    };
    let title = match fleet.attention().len() {
        0 => page.title.to_owned(),
        items => format!("({items}) {}", page.title),
    };
    Ok(actions::without_notice(layout::titled(&viewer, &page, &title).into_response()))
}

/// The live part.
pub(super) async fn live(dashboard: &Dashboard, viewer: &Viewer) -> Result<Markup, sqlx::Error> {
    let fleet = read(dashboard).await?;
    let hour = super::charts::read(dashboard, Range::Hour).await?;
    Ok(html! {
        (attention::section(&fleet, viewer))
        (charts::numbers(&fleet))
        (charts::last_hour(&fleet, &hour))
        div.columns {
            (workers(&fleet.workers))
            (instances(&fleet.instances))
            (schedule(&fleet.recurring))
        }
    })
}

fn workers(workers: &[Worker]) -> Markup {
    html! {
        section aria-labelledby="workers" {
            h2 #workers { a href={ (PATH) "/workers" } { "Workers" } }
            @if workers.is_empty() { p { "No worker is alive." } } @else {
                (scroll("Workers", &html! {
                    table.cards.small {
                        thead { tr { th { "Queue" } th { "Process" } th { "Heartbeat" } th.n { "Jobs" } } }
                        tbody { @for worker in workers { (worker_row(worker)) } }
                    }
                }))
            }
        }
    }
}

fn worker_row(worker: &Worker) -> Markup {
    let workers = query(&[("queue", &worker.queue)]);
    html! {
        tr {
            td.word data-label="Queue" { a href={ (PATH) "/workers" (workers) } { (worker.queue) } }
            td data-label="Process" { (worker.process) }
            td data-label="Heartbeat" { (time(worker.last_seen)) }
            td.n data-label="Jobs" {
                (worker.running)
                @if let Some(job) = worker.jobs.first() { " " a href={ (PATH) "/jobs/" (job) } aria-label="one of its jobs" { "↗" } }
            }
        }
    }
}

fn instances(instances: &[Instance]) -> Markup {
    html! {
        section aria-labelledby="instances" {
            h2 #instances { "zooid" }
            @if instances.is_empty() { p { "No worker has called zooid yet." } } @else {
                (scroll("zooid instances", &html! {
                    table.cards.small {
                        thead { tr { th { "Instance" } th { "Breaker" } th.n { "In flight" } th.n { "Limit" } } }
                        tbody { @for instance in instances { (instance_row(instance)) } }
                    }
                }))
            }
        }
    }
}

fn instance_row(instance: &Instance) -> Markup {
    let class = if instance.breaker == BreakerState::Closed { "good" } else { "bad" };
    html! {
        tr {
            td.any data-label="Instance" {
                (instance.name)
                @if instance.is_forgotten { br; "in no process's configuration since " (maybe_time(Some(instance.seen_at))) }
            }
            td data-label="Breaker" { span class={ "badge " (class) } { (instance.breaker.as_str()) } }
            td.n data-label="In flight" { (instance.in_flight) }
            td.n data-label="Limit" {
                @if let Some(allowed) = instance.calls_allowed { (format!("{:.0}", allowed.floor())) } @else { "–" }
            }
        }
    }
}

fn schedule(recurring: &[Recurring]) -> Markup {
    html! {
        section aria-labelledby="schedule" {
            h2 #schedule { "Schedule" }
            @if recurring.is_empty() { p { "No worker has started yet; the first one writes the schedule." } } @else {
                (scroll("Schedule", &html! {
                    table.cards.small {
                        thead { tr { th { "Job" } th { "Last run" } th { "Next run" } } }
                        tbody { @for job in recurring { (schedule_row(job)) } }
                    }
                }))
            }
        }
    }
}

fn schedule_row(job: &Recurring) -> Markup {
    html! {
        tr {
            td.word data-label="Job" { (job.name) br; span.quiet title=(job.expression) { (in_words(&job.expression)) } }
            td data-label="Last run" {
                (maybe_time(job.last_ended_at))
                @if let Some(error) = &job.last_error { " " span.error { (error) } }
            }
            td data-label="Next run" { (maybe_time(job.next_at)) }
        }
    }
}
