//! One job with every column of its row.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use tender_jobs::{
    provision::SyncPayload,
    queue::{self, JobDetail, JobState},
};

use crate::dashboard::{
    Dashboard, PATH, actions,
    json::{self, SHOWN},
    layout::{self, Page},
    parts::{Ask, Problem, ask, bytes, copyable, job_badge, maybe_time, query, scroll, time},
    session::Viewer,
};

pub(in crate::dashboard) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let job = find(&dashboard, &id).await?;
    let source = format!("/jobs/{}", job.summary.id);
    let page = Page {
        title: "Job",
        section: "/jobs",
        notice: actions::notice(&headers),
        fixed: html! {},
        live: Some((&source, live(&job, &viewer))),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

pub(in crate::dashboard) async fn find(
    dashboard: &Dashboard,
    id: &str,
) -> Result<JobDetail, Problem> {
    queue::job(&dashboard.db, id).await?.ok_or(Problem::NotFound)
}

/// The live part.
pub(in crate::dashboard) fn live(job: &JobDetail, viewer: &Viewer) -> Markup {
    let result = job.result.as_ref().map(ToString::to_string);
    html! {
        (buttons(job, viewer))
        (facts(job))
        (metadata(job))
        (text("Payload", &job.payload))
        @if let Some(result) = result { (text("Result", &result)) }
    }
}

fn buttons(job: &JobDetail, viewer: &Viewer) -> Markup {
    let action = |verb: &str| format!("{PATH}/jobs/{}/{verb}", job.summary.id);
    let state = job.summary.state;
    html! {
        div.buttons {
            @if matches!(state, JobState::Killed | JobState::Retrying) {
                (ask(viewer, &Ask {
                    action: &action("retry"), label: "Retry", question: "Retry this job now?",
                    fields: &[], is_grave: false,
                }))
            }
            @if matches!(state, JobState::Waiting | JobState::Retrying) {
                (ask(viewer, &Ask {
                    action: &action("cancel"), label: "Cancel", fields: &[], is_grave: true,
                    question: "Cancel this job? If it syncs a relay, the relay counts as given up until it changes or a sync is requested.",
                }))
            }
        }
    }
}

fn facts(job: &JobDetail) -> Markup {
    let summary = &job.summary;
    let relay = SyncPayload::parse(job.payload.as_bytes()).ok().map(|payload| payload.relay_id);
    html! {
        dl.facts {
            dt { "Id" } dd { (copyable(&summary.id)) }
            dt { "Queue" } dd { a href={ (PATH) "/jobs" (query(&[("queue", &summary.queue)])) } { (summary.queue) } }
            dt { "State" } dd { (job_badge(summary.state)) }
            dt { "Attempts" } dd { (summary.attempts) " of " (summary.max_attempts) }
            dt { "Priority" } dd { (summary.priority) }
            dt { "Key" } dd { (job.key.as_deref().unwrap_or("–")) }
            dt { "Due" } dd { (time(summary.run_at)) }
            (holder(job))
            dt { "Ended" } dd { (maybe_time(summary.done_at)) }
            @if let Some(error) = &summary.error { dt { "Last error" } dd.error { (error) } }
            @if let Some(relay) = relay {
                dt { "Relay" } dd { a href={ (PATH) "/relays/" (relay) } { (relay) } ", with the error of every attempt" }
            }
        }
    }
}

/// The worker that holds the job, or the start of the last attempt.
fn holder(job: &JobDetail) -> Markup {
    let summary = &job.summary;
    let workers = query(&[("queue", &summary.queue)]);
    html! {
        @match (&summary.lock_by, summary.lock_at) {
            (Some(worker), at) => {
                dt { "Held by" }
                dd {
                    a href={ (PATH) "/workers" (workers) "#worker-" (worker) } { (worker) }
                    @if let Some(at) = at { " since " (time(at)) }
                }
            },
            (None, Some(at)) => { dt { "Last started" } dd { (time(at)) } },
            (None, None) => {},
        }
    }
}

fn metadata(job: &JobDetail) -> Markup {
    html! {
        h2 { "Metadata" }
        @if job.metadata.is_empty() { p { "None." } } @else {
            (scroll("Metadata", &html! {
                table.cards.small {
                    thead { tr { th { "Name" } th { "Value" } } }
                    tbody {
                        @for (name, value) in &job.metadata {
                            tr { td data-label="Name" { code { (name) } } td.any data-label="Value" { (value.as_deref().unwrap_or("–")) } }
                        }
                    }
                }
            }))
        }
    }
}

/// A stored text under its title.
fn text(title: &str, stored: &str) -> Markup {
    let text = json::readable(stored);
    let length = |bytes_long: usize| bytes(i64::try_from(bytes_long).unwrap_or(i64::MAX));
    html! {
        h2 { (title) }
        pre.scroll tabindex="0" { (text.shown) }
        @if text.is_cut {
            p.quiet { "Only the first " (SHOWN / 1024) " KiB are shown; " (length(stored.len())) " are stored." }
        }
    }
}
