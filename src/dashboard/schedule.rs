//! The recurring jobs: when each runs, when it ran, how long that took, and how it ended.

use std::time::Duration;

use axum::{
    extract::{Path, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use maud::{Markup, html};
use tender_jobs::queue::schedule::{self, Recurring, Run};

use super::{
    Dashboard, PATH,
    actions::{self, Action, Answer, Asked, begin},
    export,
    layout::{self, Page},
    parts::{Ask, Problem, ask, duration, maybe_time, numbered, query, scroll, time},
    session::Viewer,
};
use crate::words::schedule::schedule as in_words;

/// The runs of each recurring job that the page shows.
const RUNS: i64 = 30;

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let page = Page {
        title: "Schedule",
        section: "/schedule",
        notice: actions::notice(&headers),
        fixed: html! {
            p.quiet { "Jobs that run again and again, in UTC. A run that fails is not retried, because the next run does all of its work. Of each, the last " (RUNS) " runs are shown." }
        },
        live: Some(("/schedule", live(&dashboard, &viewer).await?)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

/// The live part.
pub(super) async fn live(dashboard: &Dashboard, viewer: &Viewer) -> Result<Markup, sqlx::Error> {
    let recurring = schedule::list(&dashboard.db).await?;
    let runs = schedule::runs(&dashboard.db, RUNS).await?;
    Ok(html! {
        @if recurring.is_empty() {
            p { "No recurring job is known: a worker records them when it starts. Start " code { "tender work" } " or " code { "tender serve" } "." }
        } @else {
            (scroll("Recurring jobs", &html! {
                table.cards {
                    thead { tr {
                        th { "Job" } th { "Runs" } th { "Next" } th { "Last" } th { "Took" } th { "Last runs" }
                        th { "Last error" } th { "Action" }
                    } }
                    tbody { @for one in &recurring { (row(one, &runs, viewer)) } }
                }
            }))
            (export::links("schedule", ""))
        }
    })
}

fn row(one: &Recurring, runs: &[Run], viewer: &Viewer) -> Markup {
    let runs: Vec<&Run> = runs.iter().filter(|run| run.name == one.name).collect();
    let took = runs.first().and_then(|run| took(run));
    html! {
        tr id={ "recurring-" (one.name) } {
            td data-label="Job" { div { strong { (one.name) } div.quiet { (one.wing) } } }
            td data-label="Runs" { span title=(one.expression) { (in_words(&one.expression)) } }
            td data-label="Next" { (maybe_time(one.next_at)) }
            td data-label="Last" { div { (last(one)) } }
            td.none[took.is_none()] data-label="Took" { (took.map_or_else(|| "–".to_owned(), duration)) }
            td data-label="Last runs" { div { (history(&one.name, &runs)) } }
            td.error.none[one.last_error.is_none()] data-label="Last error" { (one.last_error.as_deref().unwrap_or_default()) }
            td.none[!viewer.may_act()] data-label="Action" { div { (buttons(one, viewer)) } }
        }
    }
}

/// When the last run ended, or that one runs.
fn last(one: &Recurring) -> Markup {
    let is_running = one.last_started_at > one.last_ended_at;
    html! {
        @if is_running { span.badge.busy { "runs" } " since " (maybe_time(one.last_started_at)) } @else {
            @match one.last_ended_at {
                Some(at) => {
                    @if one.last_error.is_some() { span.badge.bad { "failed" } } @else { span.badge.good { "done" } }
                    " " (time(at))
                }
                None => { span.quiet { "not yet" } }
            }
        }
    }
}

fn took(run: &Run) -> Option<Duration> {
    let started = run.started_at.filter(|started| *started <= run.ended_at)?;
    (run.ended_at - started).to_std().ok()
}

/// A bar per run, the last at the right, as high as its share of the longest; and the runs as text.
fn history(name: &str, runs: &[&Run]) -> Markup {
    let times: Vec<_> = runs.iter().rev().map(|run| (run, took(run).unwrap_or_default())).collect();
    let longest = times.iter().map(|(_, took)| took.as_millis()).max().unwrap_or_default().max(1);
    let height = |took: Duration| 1 + took.as_millis() * 20 / longest;
    html! {
        @if runs.is_empty() { span.quiet { "none yet" } } @else {
            svg.bars viewBox="0 0 119 21" role="img" aria-label={ "durations of " (runs.len()) " runs" } {
                @for (place, (run, took)) in times.iter().enumerate() {
                    rect.bad[run.error.is_some()] x=(place * 4) y=(21 - height(*took)) width="3" height=(height(*took)) {
                        title { (run.ended_at.format("%F %T UTC")) ", " (duration(*took)) @if run.error.is_some() { ", failed" } }
                    }
                }
            }
            details id={ "runs-" (name) } {
                summary { (numbered(i64::try_from(runs.len()).unwrap_or(i64::MAX), "run")) }
                ol.plain { @for run in runs { li { (told(run)) } } }
            }
        }
    }
}

fn told(run: &Run) -> Markup {
    let ended: DateTime<Utc> = run.ended_at;
    html! {
        (time(ended))
        @if let Some(took) = took(run) { ", " (duration(took)) }
        @if let Some(error) = &run.error { ": " span.error { (error) } }
    }
}

fn buttons(one: &Recurring, viewer: &Viewer) -> Markup {
    html! {
        @if let Some(queue) = &one.queue {
            (ask(viewer, &Ask {
                action: &format!("{PATH}/schedule/{}/run", one.name), label: "Run now",
                question: &format!("Enqueue a run of {} now?", one.name), fields: &[], is_grave: false,
            }))
            " " a href={ (PATH) "/jobs" (query(&[("queue", queue)])) } { "Jobs" }
        }
    }
}

/// Enqueues a run now.
pub(super) async fn run(Path(name): Path<String>, asked: Asked) -> Answer {
    let db = &asked.dashboard.db;
    let action = Action {
        name: "run_recurring".to_owned(),
        target: name.clone(),
        question: "Enqueue a run of this job now?",
        path: format!("{PATH}/schedule/{name}/run"),
        otherwise: format!("{PATH}/schedule"),
    };
    let doing = begin!(asked, action);
    // PostgreSQL does not accept NUL in text.
    let run = if name.contains('\0') {
        None
    } else {
        schedule::run_now(db, &name, &tender_jobs::queues()).await?
    };
    let done = match run {
        Some(job) => Ok(format!("A run of {name} is due now, as job {job}.")),
        None => Err(format!("{name} is not a recurring job that a running process knows")),
    };
    doing.done(done).await
}
