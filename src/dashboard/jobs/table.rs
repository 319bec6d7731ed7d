//! The rows of a list of jobs.

use std::collections::HashMap;

use maud::{Markup, html};
use tender_jobs::{queue::JobSummary, subject::Subject};

use crate::dashboard::{
    PATH,
    parts::{job_badge, scroll, short_key, time, worker_link},
    session::Viewer,
};

/// What the jobs of a list are about, by the name that jobs give it.
pub(super) type Named = HashMap<String, Subject>;

pub(super) fn table(jobs: &[JobSummary], named: &Named, viewer: &Viewer) -> Markup {
    scroll(
        "Jobs",
        &html! {
            table.cards {
                thead { tr {
                    @if viewer.may_act() { th { "Select" } }
                    th { "Job" } th { "About" } th { "State" } th { "Attempts" } th { "When" }
                    th { "Held by" } th { "Last error" }
                } }
                tbody { @for job in jobs { (row(job, named, viewer)) } }
            }
        },
    )
}

/// A row. Its id, and that of its box, keep a selection with its job while the list changes.
fn row(job: &JobSummary, named: &Named, viewer: &Viewer) -> Markup {
    html! {
        tr id={ "job-" (job.id) } {
            @if viewer.may_act() {
                td data-label="Select" { input type="checkbox" name="job" value=(job.id) id={ "pick-" (job.id) } aria-label={ "Select job " (job.id) }; }
            }
            td data-label="Job" { div { a href={ (PATH) "/jobs/" (job.id) } { code { (job.id) } } div.quiet { (work(job)) } } }
            td.any data-label="About" { div { (about(job, named)) } }
            td data-label="State" { div { (job_badge(job.state)) @if job.priority != 0 { div.quiet.word { "priority " (job.priority) } } } }
            td data-label="Attempts" { (job.attempts) " of " (job.max_attempts) }
            td data-label="When" { div { (when(job)) } }
            td.none[job.lock_by.is_none()] data-label="Held by" { div { (holder(job)) } }
            td.error.none[job.error.is_none()] data-label="Last error" { (job.error.as_deref().unwrap_or_default()) }
        }
    }
}

/// The queue, and what the job does there.
fn work(job: &JobSummary) -> Markup {
    html! { (job.queue) @if let Some(kind) = &job.kind { " · " (kind.replace('_', " ")) } }
}

/// The relay, upstream or service of a job, linked to its page.
fn about(job: &JobSummary, named: &Named) -> Markup {
    html! {
        @match job.subject.as_ref().map(|subject| (subject, named.get(subject))) {
            Some((_, Some(subject))) => { (link(subject)) }
            Some((subject, None)) => { span.quiet title=(subject) { (gone(subject)) } }
            None => { span.quiet { "–" } }
        }
    }
}

/// The link to the page of a subject.
pub(super) fn link(subject: &Subject) -> Markup {
    html! {
        @match (&subject.upstream, &subject.relay) {
            (Some(upstream), _) => {
                a href={ (PATH) "/upstreams/" (upstream) } { (subject.name) }
                @if let Some(lane) = &subject.lane { span.quiet { " " (lane) } }
            }
            (None, Some(relay)) => { a href={ (PATH) "/relays/" (relay) } { (subject.name) } }
            (None, None) => { (subject.name) }
        }
    }
}

/// A subject without a row: a relay that is deleted, an event.
pub(super) fn gone(subject: &str) -> String {
    let (what, id) = subject.split_once(':').unwrap_or(("", subject));
    if what == "event" {
        return format!("event {}", short_key(id));
    }
    let start = id.get(..8).unwrap_or(id);
    format!("{what} {start}…, which is gone")
}

/// When an unfinished job is due, or an ended one ended.
fn when(job: &JobSummary) -> Markup {
    html! {
        @match job.done_at {
            Some(at) => { "ended " (time(at)) }
            None => { "due " (time(job.run_at)) }
        }
    }
}

/// The worker that holds a job, and since when.
fn holder(job: &JobSummary) -> Markup {
    html! {
        @match &job.lock_by {
            Some(worker) => {
                (worker_link(worker, &job.queue))
                @if let Some(at) = job.lock_at { " since " (time(at)) }
            },
            None => "–",
        }
    }
}
