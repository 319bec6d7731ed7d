//! One job: what it belongs to, its attempts, and every column of its row.

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use sqlx::PgPool;
use tender_jobs::{
    provision::activity::{self, Activity},
    queue::{self, JobDetail},
    steer::Verb,
    subject::{self, Subject},
};

use super::table;

use crate::dashboard::{
    Dashboard, PATH, actions,
    json::{self, SHOWN},
    layout::{self, Page},
    parts::{Ask, Problem, ask, bytes, copyable, job_badge, maybe_time, query, scroll, time},
    provision::relay::entry,
    session::Viewer,
};

/// The records of a relay in which the attempts of its job are searched.
const RECORDS: i64 = 500;

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
        live: Some((&source, live(&dashboard, &job, &viewer).await?)),
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
pub(in crate::dashboard) async fn live(
    dashboard: &Dashboard,
    job: &JobDetail,
    viewer: &Viewer,
) -> Result<Markup, sqlx::Error> {
    let db = &dashboard.db;
    let about = job.summary.subject.as_deref();
    let subject = subject::named(db, about).await?.into_values().next();
    let records = records(db, job).await?;
    let result = job.result.as_ref().map(ToString::to_string);
    Ok(html! {
        (buttons(job, viewer))
        (facts(job, subject.as_ref()))
        (attempts(job, &records, viewer.now))
        (metadata(job))
        (text("Payload", &job.payload))
        @if let Some(result) = result { (text("Result", &result)) }
    })
}

fn buttons(job: &JobDetail, viewer: &Viewer) -> Markup {
    let action = |verb: &str| format!("{PATH}/jobs/{}/{verb}", job.summary.id);
    let may = |verb: Verb| verb.states().contains(&job.summary.state);
    html! {
        div.buttons {
            @if may(Verb::Retry) {
                (ask(viewer, &Ask {
                    action: &action("retry"), label: "Retry", question: "Retry this job now?",
                    fields: &[], is_grave: false,
                }))
            }
            @if may(Verb::Cancel) {
                (ask(viewer, &Ask {
                    action: &action("cancel"), label: "Cancel", fields: &[], is_grave: true,
                    question: "Cancel this job? If it syncs a relay, the relay counts as given up until it changes or a sync is requested.",
                }))
            }
            @if may(Verb::Delete) {
                (ask(viewer, &Ask {
                    action: &action("delete"), label: "Delete", fields: &[], is_grave: true,
                    question: "Delete this job for good? What its relay or upstream still needs gets a new job.",
                }))
            }
        }
    }
}

fn facts(job: &JobDetail, subject: Option<&Subject>) -> Markup {
    let summary = &job.summary;
    html! {
        dl.facts {
            dt { "Id" } dd { (copyable(&summary.id)) }
            (belongs(job, subject))
            dt { "Queue" } dd { a href={ (PATH) "/jobs" (query(&[("queue", &summary.queue)])) } { (summary.queue) } }
            @if let Some(kind) = &summary.kind { dt { "Work" } dd { (kind.replace('_', " ")) } }
            dt { "State" } dd { (job_badge(summary.state)) }
            dt { "Attempts" } dd { (spent(job)) }
            dt { "Priority" } dd { (summary.priority) }
            dt { "Key" } dd { (job.key.as_deref().unwrap_or("–")) }
            dt { "Due" } dd { (time(summary.run_at)) }
            (holder(job))
            dt { "Ended" } dd { (maybe_time(summary.done_at)) }
            @if let Some(error) = &summary.error { dt { "Last error" } dd.error { (error) } }
        }
    }
}

/// What the job is about, linked, and the other jobs about it.
fn belongs(job: &JobDetail, subject: Option<&Subject>) -> Markup {
    html! {
        @match (subject, &job.summary.subject) {
            (Some(subject), _) => {
                dt { "About" } dd {
                    (table::link(subject)) ", "
                    a href={ (PATH) "/jobs" (query(&[("host", &subject.name)])) } { "its jobs" }
                    @if let (Some(relay), Some(_)) = (&subject.relay, &subject.upstream) {
                        ", " a href={ (PATH) "/relays/" (relay) } { "the relay that we host there" }
                    }
                }
                @if let Some(tenant) = &subject.tenant {
                    dt { "Tenant" } dd {
                        div { a href={ (PATH) "/relays" (query(&[("q", tenant)])) } { code { (tenant) } } }
                        div { a href={ (PATH) "/jobs" (query(&[("tenant", tenant)])) } { "its jobs" } }
                    }
                }
            }
            (None, Some(subject)) => { dt { "About" } dd { (table::gone(subject)) } }
            (None, None) => {}
        }
    }
}

/// The attempts that are spent, and of these the deaths of workers.
fn spent(job: &JobDetail) -> String {
    let attempts = format!("{} of {}", job.summary.attempts, job.summary.max_attempts);
    match job.metadata.get("crashes").and_then(Option::as_deref) {
        Some(crashes) if crashes != "0" => format!("{attempts}; the worker died in {crashes}"),
        _ => attempts,
    }
}

/// The records of the job's attempts, the last first; only relays have such records.
async fn records(db: &PgPool, job: &JobDetail) -> Result<Vec<Activity>, sqlx::Error> {
    let relay = job.summary.subject.as_deref().and_then(|subject| subject.strip_prefix("relay:"));
    let Some(relay) = relay.and_then(|id| id.parse().ok()) else { return Ok(Vec::new()) };
    let mut records = activity::of_relay(db, &relay, None, RECORDS).await?;
    records.retain(|record| record.detail["job"] == job.summary.id.as_str());
    Ok(records)
}

fn attempts(job: &JobDetail, records: &[Activity], now: DateTime<Utc>) -> Markup {
    html! {
        @if !records.is_empty() {
            section aria-labelledby="attempts" {
                h2 #attempts { "Attempts" }
                ol.timeline { @for record in records { (entry(record, now)) } }
            }
        } @else if job.summary.attempts > 0 {
            p.quiet { "Only the error of the last attempt is kept for jobs of " (job.summary.queue) "; the page of what the job is about has the history." }
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
