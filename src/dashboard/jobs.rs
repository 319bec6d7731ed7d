//! Jobs: a list by queue and state, and one job with all that its row holds.

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::Deserialize;
use tender_jobs::queue::{self, JobDetail, JobFilter, JobState, JobSummary, SyncPayload};

use super::{
    Dashboard, PATH, actions,
    layout::{self, Page},
    parts::{Ask, Problem, ask, job_badge, maybe_time, time},
    session::Viewer,
};

/// Jobs in the list.
const MOST: i64 = 100;
const STATES: [JobState; 5] =
    [JobState::Waiting, JobState::Retrying, JobState::Running, JobState::Killed, JobState::Done];

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Shown {
    #[serde(default)]
    queue: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    error: String,
}

impl Shown {
    fn filter(&self) -> JobFilter {
        JobFilter {
            queue: queue::QUEUES.iter().find(|name| **name == self.queue).map(|q| (*q).to_owned()),
            state: state_of(&self.state),
            error: (!self.error.is_empty()).then(|| self.error.replace('\0', "")),
        }
    }
}

pub(super) fn state_of(name: &str) -> Option<JobState> {
    STATES.into_iter().find(|state| state.as_str() == name)
}

pub(super) async fn list_page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let jobs = queue::jobs(&dashboard.db, &shown.filter(), MOST).await?;
    let page = Page {
        title: "Jobs",
        section: "/jobs",
        notice: actions::notice(&headers),
        fixed: html! { (filters(&shown)) (retry_all(&viewer, &shown)) (list(&jobs)) },
        live: None,
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

fn filters(shown: &Shown) -> Markup {
    html! {
        form.filters method="get" action={ (PATH) "/jobs" } role="search" {
            label { "Queue" select name="queue" {
                option value="" { "any" }
                @for name in queue::QUEUES { option value=(name) selected[shown.queue == name] { (name) } }
            } }
            label { "State" select name="state" {
                option value="" { "any" }
                @for state in STATES { option value=(state.as_str()) selected[shown.state == state.as_str()] { (state.as_str()) } }
            } }
            label { "Error contains" input type="search" name="error" value=(shown.error); }
            button { "Show" }
        }
    }
}

fn retry_all(viewer: &Viewer, shown: &Shown) -> Markup {
    let state = state_of(&shown.state);
    html! {
        @if matches!(state, Some(JobState::Killed | JobState::Retrying)) {
            (ask(viewer, &Ask {
                action: &format!("{PATH}/jobs/retry-all"),
                label: "Retry all that match",
                question: "Retry all jobs that match, but for relays that are in step?",
                fields: &[("queue", &shown.queue), ("state", &shown.state), ("error", &shown.error)],
                is_grave: false,
            }))
        }
    }
}

fn list(jobs: &[JobSummary]) -> Markup {
    html! {
        @if jobs.is_empty() { p { "No jobs." } } @else {
            table.cards {
                thead { tr { th { "Job" } th { "Queue" } th { "State" } th { "Attempts" } th { "When" } th { "Last error" } } }
                tbody {
                    @for job in jobs {
                        tr {
                            td data-label="Job" { a href={ (PATH) "/jobs/" (job.id) } { (job.id) } }
                            td data-label="Queue" { (job.queue) }
                            td data-label="State" { (job_badge(job.state)) }
                            td data-label="Attempts" { (job.attempts) " of " (job.max_attempts) }
                            td data-label="When" {
                                @match job.done_at { Some(at) => { "ended " (time(at)) }, None => { "due " (time(job.run_at)) } }
                            }
                            td.error data-label="Last error" { (job.error.as_deref().unwrap_or_default()) }
                        }
                    }
                }
            }
            p.quiet { "At most " (MOST) " are shown." }
        }
    }
}

pub(super) async fn page(
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

pub(super) async fn find(dashboard: &Dashboard, id: &str) -> Result<JobDetail, Problem> {
    queue::job(&dashboard.db, id).await?.ok_or(Problem::NotFound)
}

pub(super) fn live(job: &JobDetail, viewer: &Viewer) -> Markup {
    let summary = &job.summary;
    let action = |verb: &str| format!("{PATH}/jobs/{}/{verb}", summary.id);
    let relay = SyncPayload::parse(job.payload.as_bytes()).ok().map(|payload| payload.relay_id);
    html! {
        div.buttons {
            @if matches!(summary.state, JobState::Killed | JobState::Retrying) {
                (ask(viewer, &Ask { action: &action("retry"), label: "Retry", question: "Retry this job, now?", fields: &[], is_grave: false }))
            }
            @if matches!(summary.state, JobState::Waiting | JobState::Retrying) {
                (ask(viewer, &Ask { action: &action("cancel"), label: "Cancel", question: "Cancel this job? Its relay counts as given up until it changes or is asked for.", fields: &[], is_grave: true }))
            }
        }
        dl.facts {
            dt { "Id" } dd { code { (summary.id) } }
            dt { "Queue" } dd { (summary.queue) }
            dt { "State" } dd { (job_badge(summary.state)) }
            dt { "Attempts" } dd { (summary.attempts) " of " (summary.max_attempts) }
            dt { "Due" } dd { (time(summary.run_at)) }
            dt { "Ended" } dd { (maybe_time(summary.done_at)) }
            dt { "Priority" } dd { (job.priority) }
            dt { "Key" } dd { (job.key.as_deref().unwrap_or("–")) }
            dt { "Held by" } dd { (job.lock_by.as_deref().unwrap_or("–")) @if let Some(at) = job.lock_at { " since " (time(at)) } }
            @if let Some(error) = &summary.error { dt { "Last error" } dd.error { (error) } }
            @if let Some(relay) = relay { dt { "Relay" } dd { a href={ (PATH) "/relays/" (relay) } { (relay) } ", with every attempt's error" } }
        }
        h2 { "Payload" }
        pre.scroll tabindex="0" { (job.payload.chars().take(4000).collect::<String>()) }
        @if let Some(result) = &job.result {
            h2 { "Result" }
            pre.scroll tabindex="0" { (result) }
        }
    }
}
