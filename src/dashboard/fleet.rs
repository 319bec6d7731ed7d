//! The fleet: what needs attention first, then the numbers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Redirect, Response},
};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use tender_jobs::{
    queue::{
        self, QueueStatus, Worker,
        instance::{BreakerState, Instance},
    },
    recurring::Recurring,
    relay::{Relay, Row},
    stats::{self, Minute},
};
use tokio::sync::Mutex;

use super::{
    Dashboard, PATH, actions,
    layout::{self, Page},
    parts::{Ask, Problem, ask, count, maybe_time, time},
    session::Viewer,
};
use crate::fleet::{Attention, Fleet};

/// All open pages share what was read within this time.
const FRESH: Duration = Duration::from_millis(900);

/// The last look.
#[derive(Default)]
pub(super) struct Cache(Mutex<Option<(Instant, Arc<Fleet>)>>);

/// The fleet as of now or a moment ago: one read a second, however many pages are open.
pub(super) async fn look(dashboard: &Dashboard) -> Result<Arc<Fleet>, sqlx::Error> {
    let mut last = dashboard.fleet.0.lock().await;
    if let Some((at, fleet)) = last.as_ref()
        && at.elapsed() < FRESH
    {
        return Ok(fleet.clone());
    }
    let fleet = Arc::new(Fleet::read(&dashboard.db).await?);
    *last = Some((Instant::now(), fleet.clone()));
    Ok(fleet)
}

pub(super) async fn to_root() -> Redirect {
    Redirect::permanent(PATH)
}

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let fleet = look(&dashboard).await?;
    let page = Page {
        title: "Fleet",
        section: "",
        notice: actions::notice(&headers),
        fixed: html! {},
        live: Some(("/fleet", live(&fleet, &viewer))),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

/// The part that changes by itself.
pub(super) fn live(fleet: &Fleet, viewer: &Viewer) -> Markup {
    html! {
        (attention(fleet, viewer))
        (numbers(fleet))
        (chart(fleet))
        div.columns {
            (workers(&fleet.workers))
            (instances(&fleet.instances))
            (schedule(&fleet.recurring))
        }
    }
}

fn attention(fleet: &Fleet, viewer: &Viewer) -> Markup {
    let items = fleet.attention();
    let is_in_step = fleet.summary.pending + fleet.summary.retrying == 0;
    html! {
        section.attention.calm[items.is_empty()] aria-labelledby="attention" {
            h2 #attention { "Needs attention" }
            @if items.is_empty() {
                p { "Nothing. " @if is_in_step { "All in step." } @else { "What is not in step is on its way." } }
            }
            @for item in &items { (attention_item(item, viewer)) }
        }
    }
}

fn attention_item(item: &Attention<'_>, viewer: &Viewer) -> Markup {
    match item {
        Attention::GaveUp(relay) => gave_up(relay, viewer),
        Attention::MoreGaveUp(more) => html! {
            div.item.bad { p { a href={ (PATH) "/relays?sync=gave_up" } { (count(*more, false)) " more gave up" } } }
        },
        Attention::BreakerOpen(instance) => breaker(instance, viewer),
        Attention::LongPending(row) => long_pending(row, viewer),
        Attention::NoWorker => html! {
            div.item.bad {
                p { "No worker of " code { (queue::SYNC_RELAY) } " is alive: nothing reaches zooid. Start " code { "tender work" } " or " code { "tender serve" } "." }
            }
        },
        Attention::Lane(lane) => html! {
            div.item.warn {
                p {
                    (lane.lane) " of " a href={ (PATH) "/upstreams/" (lane.upstream_id) } { (lane.url) }
                    @if lane.is_stale { " is held by somebody who shows no sign of life." } @else { " failed " (maybe_time(lane.failed_at)) ": " }
                    @if let Some(error) = &lane.error_message { span.error { (error) } }
                }
            }
        },
        Attention::NoSyncWorker => html! {
            div.item.bad {
                p { "No worker of " code { (queue::SYNC) } " is alive: upstreams are not kept in step. Start " code { "tender work" } " or " code { "tender serve" } "." }
            }
        },
        Attention::Killed(queue) => killed(queue, viewer),
        Attention::Paused(queue, since) => paused(queue, *since, viewer),
    }
}

fn gave_up(relay: &Relay, viewer: &Viewer) -> Markup {
    let host = relay.host();
    let action = format!("{PATH}/relays/{}/sync", relay.id);
    let question = format!("Send {host} to zooid again, now?");
    html! {
        div.item.bad {
            p {
                a href={ (PATH) "/relays/" (relay.id) } { (host) } " gave up "
                (maybe_time(relay.exhausted_at)) ": " span.error { (relay.sync_error) }
            }
            (ask(viewer, &Ask { action: &action, label: "Sync now", question: &question, fields: &[], is_grave: false }))
        }
    }
}

fn breaker(instance: &Instance, viewer: &Viewer) -> Markup {
    html! {
        div.item.bad {
            p {
                "zooid at " (instance.name) " is out: its breaker is " (instance.breaker.as_str())
                " since " (maybe_time(instance.opened_at)) ". Next probe " (maybe_time(instance.retry_at)) ". "
                span.error { (instance.last_error) }
            }
            (ask(viewer, &Ask {
                action: &format!("{PATH}/instances/probe"), label: "Probe now",
                question: &format!("Try zooid at {} now?", instance.name),
                fields: &[("instance", &instance.name)], is_grave: false,
            }))
        }
    }
}

fn long_pending(row: &Row, viewer: &Viewer) -> Markup {
    html! {
        div.item.warn {
            p {
                a href={ (PATH) "/relays?order=waiting" } { "The longest-waiting relay" } ", "
                a href={ (PATH) "/relays/" (row.id) } { (row.host) } ", was changed "
                (time(row.updated_at)) " and is not on zooid yet."
                @if !row.sync_error.is_empty() { " " span.error { (row.sync_error) } }
            }
            (ask(viewer, &Ask {
                action: &format!("{PATH}/reconcile"), label: "Reconcile now",
                question: "Enqueue every pending relay that has no job, now?",
                fields: &[], is_grave: false,
            }))
        }
    }
}

fn killed(queue: &QueueStatus, viewer: &Viewer) -> Markup {
    html! {
        div.item.warn {
            p {
                a href={ (PATH) "/jobs?queue=" (queue.queue) "&state=killed" } {
                    (count(queue.killed_open, queue.killed_open >= 1000)) " killed"
                }
                " in " (queue.queue)
            }
            (ask(viewer, &Ask {
                action: &format!("{PATH}/jobs/retry-all"), label: "Retry all",
                question: &format!("Retry every killed job of {} whose relay is not in step?", queue.queue),
                fields: &[("queue", &queue.queue), ("state", "killed")], is_grave: false,
            }))
        }
    }
}

fn paused(queue: &QueueStatus, since: DateTime<Utc>, viewer: &Viewer) -> Markup {
    html! {
        div.item.warn {
            p { (queue.queue) " is paused since " (time(since)) "." }
            (ask(viewer, &Ask {
                action: &format!("{PATH}/queues/{}/resume", queue.queue), label: "Resume",
                question: &format!("Let {} go on?", queue.queue), fields: &[], is_grave: false,
            }))
        }
    }
}

fn numbers(fleet: &Fleet) -> Markup {
    let summary = &fleet.summary;
    let capped = summary.is_capped;
    let synced = count(summary.synced, false);
    let synced = if capped { format!("≤ {synced}") } else { synced };
    html! {
        section.numbers aria-label="Counts" {
            (number("synced", &synced, "?sync=synced", "good"))
            (number("pending", &count(summary.pending, capped), "?sync=pending", "busy"))
            (number("retrying", &count(summary.retrying, capped), "?sync=retrying", "warn"))
            (number("gave up", &count(summary.gave_up, capped), "?sync=gave_up", "bad"))
            (number("switched off", &count(summary.inactive, false), "?status=off", "off"))
            div.number {
                span.figure { (maybe_time(summary.oldest_pending_at)) }
                span { "oldest pending" }
            }
        }
    }
}

fn number(name: &str, figure: &str, query: &str, class: &str) -> Markup {
    html! {
        a class={ "number " (class) } href={ (PATH) "/relays" (query) } {
            span.figure { (figure) }
            span { (name) }
        }
    }
}

fn chart(fleet: &Fleet) -> Markup {
    let minutes: &[Minute] = &fleet.minutes;
    let points: Vec<_> = minutes
        .iter()
        .map(|minute| (minute.minute.timestamp(), minute.synced, minute.failed))
        .collect();
    let (synced, failed) = fleet.hour();
    let percentile = |share| stats::percentile(minutes, share).map_or("–".to_owned(), spoken);
    html! {
        section aria-labelledby="last-hour" {
            h2 #last-hour { "The last hour" }
            p {
                (count(synced, false)) " syncs, " (count(failed, false)) " failures. From a change to zooid: half within "
                (percentile(0.5)) ", 95 of 100 within " (percentile(0.95)) "."
            }
            tender-chart data-points=(serde_json::to_string(&points).unwrap_or_default()) {
                details {
                    summary { "Figures per minute" }
                    table {
                        thead { tr { th { "Minute" } th.n { "Synced" } th.n { "Failed" } } }
                        tbody {
                            @for minute in minutes.iter().rev().filter(|m| m.synced + m.failed > 0) {
                                tr { td { (minute.minute.format("%H:%M UTC")) } td.n { (minute.synced) } td.n { (minute.failed) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn spoken(time: Duration) -> String {
    match time.as_millis() {
        ms @ ..1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn workers(workers: &[Worker]) -> Markup {
    html! {
        section aria-labelledby="workers" {
            h2 #workers { "Workers" }
            @if workers.is_empty() { p { "None is alive." } } @else {
                div.scroll tabindex="0" role="region" aria-label="Workers" {
                    table {
                        thead { tr { th { "Queue" } th { "Process" } th { "Heartbeat" } th.n { "Runs" } } }
                        tbody {
                            @for worker in workers {
                                tr {
                                    td.word { (worker.queue) }
                                    td { (worker.process) }
                                    td { (time(worker.last_seen)) }
                                    td.n {
                                        (worker.running)
                                        @if let Some(job) = worker.jobs.first() { " " a href={ (PATH) "/jobs/" (job) } aria-label="a job that it runs" { "↗" } }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn instances(instances: &[Instance]) -> Markup {
    html! {
        section aria-labelledby="instances" {
            h2 #instances { "zooid" }
            @if instances.is_empty() { p { "No worker has named an instance yet." } } @else {
                div.scroll tabindex="0" role="region" aria-label="zooid instances" {
                    table {
                        thead { tr { th { "Instance" } th { "Breaker" } th.n { "In flight" } } }
                        tbody {
                            @for instance in instances {
                                tr {
                                    td { (instance.name) }
                                    td { span class={ "badge " (if instance.breaker == BreakerState::Closed { "good" } else { "bad" }) } { (instance.breaker.as_str()) } }
                                    td.n { (instance.in_flight) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn schedule(recurring: &[Recurring]) -> Markup {
    html! {
        section aria-labelledby="schedule" {
            h2 #schedule { "Schedule" }
            @if recurring.is_empty() { p { "No worker has planned anything yet." } } @else {
                div.scroll tabindex="0" role="region" aria-label="Schedule" {
                    table {
                        thead { tr { th { "Job" } th { "Last" } th { "Next" } } }
                        tbody {
                            @for job in recurring {
                                tr {
                                    td.word { (job.queue) br; code { (job.expression) } }
                                    td {
                                        (maybe_time(job.last_ended_at))
                                        @if let Some(error) = &job.last_error { " " span.error { (error) } }
                                    }
                                    td { (maybe_time(job.next_at)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
