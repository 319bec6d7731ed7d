//! The processes that run workers: what each serves and runs now, and whether it takes jobs.

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use maud::{Markup, html};
use serde::{Deserialize, Serialize};
use tender_jobs::queue::{
    self, Worker,
    process::{self, Process},
};
use uuid::Uuid;

use super::{
    Dashboard, PATH,
    actions::{self, Action, Answer, Asked, begin},
    export,
    layout::{self, Page},
    lists::{Field, filters, query_of},
    parts::{Ask, Problem, ask, bytes, count, query, scroll, short_key, time},
    session::Viewer,
};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    /// Processes that serve this queue; all if empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    queue: String,
}

pub(super) async fn page(
    State(dashboard): State<Dashboard>,
    viewer: Viewer,
    headers: HeaderMap,
    Query(shown): Query<Shown>,
) -> Result<Response, Problem> {
    let queues = tender_jobs::queues().into_iter().map(|name| (name, name));
    let source = format!("/processes{}", query_of(&shown));
    let page = Page {
        title: "Processes",
        section: "/processes",
        notice: actions::notice(&headers),
        fixed: filters("/processes", true, &[Field::any("Serves", "queue", &shown.queue, queues)]),
        live: Some((&source, live(&dashboard, &shown, &viewer).await?)),
    };
    Ok(actions::without_notice(layout::page(&viewer, &page).into_response()))
}

/// The live part.
pub(super) async fn live(
    dashboard: &Dashboard,
    shown: &Shown,
    viewer: &Viewer,
) -> Result<Markup, sqlx::Error> {
    let mut processes = process::processes(&dashboard.db).await?;
    processes
        .retain(|process| shown.queue.is_empty() || process.stations.contains_key(&shown.queue));
    let workers = queue::workers(&dashboard.db).await?;
    Ok(html! {
        p.quiet {
            "Processes that reported in the last day; one that stops in order is not listed. Each reports every 5 s, and is dead after "
            (queue::DEAD_AFTER.as_secs()) " s without a report. " a href={ (PATH) "/workers" } { "Workers" } " lists the workers of each queue."
        }
        @if processes.is_empty() {
            p { "There is no process with workers. Start " code { "tender work" } " or " code { "tender serve" } "." }
        } @else {
            (scroll("Processes", &html! {
                table.cards {
                    thead { tr {
                        th { "Process" } th { "State" } th { "Started" } th { "Memory" } th { "Wings" }
                        th { "Serves" } th { "Runs now" } th { "Action" }
                    } }
                    tbody { @for process in &processes { (row(process, &workers, viewer)) } }
                }
            }))
            (export::links("processes", ""))
        }
    })
}

fn row(process: &Process, workers: &[Worker], viewer: &Viewer) -> Markup {
    let (version, place) = process.name.split_once(' ').unwrap_or(("", &process.name));
    let workers: Vec<&Worker> = workers.iter().filter(|worker| is_of(worker, process)).collect();
    html! {
        tr id={ "process-" (process.id) } {
            td.any data-label="Process" { div { strong { (place) } @if !version.is_empty() { div.quiet { "version " (version) } } } }
            td data-label="State" { div { (state(process, &workers)) } }
            td data-label="Started" { (time(process.started_at)) }
            td data-label="Memory" { (process.memory_bytes.map_or_else(|| "–".to_owned(), bytes)) }
            td data-label="Wings" { (process.wings.join(", ")) }
            td data-label="Serves" { (serves(process)) }
            td data-label="Runs now" { (runs(&workers)) }
            td.none[!viewer.may_act() || !process.is_alive] data-label="Action" { @if process.is_alive { (action(process, viewer)) } }
        }
    }
}

/// Whether a worker is one of this process. A process that starts again in its container has the name of the dead one.
fn is_of(worker: &Worker, process: &Process) -> bool {
    process.is_alive && worker.is_alive && worker.process == process.name
}

fn state(process: &Process, workers: &[&Worker]) -> Markup {
    let running: i64 = workers.iter().map(|worker| worker.running).sum();
    html! {
        @if !process.is_alive {
            span.badge.bad { "dead" } " last report " (time(process.last_seen_at))
        } @else if let Some(at) = process.drain_at {
            @if running > 0 { span.badge.warn { "draining" } } @else { span.badge.off { "drained" } }
            " since " (time(at)) " by " (by(process.drain_by.as_deref()))
            @if let Some(reason) = &process.drain_reason { ": " (reason) }
        } @else {
            span.badge.good { "takes jobs" }
        }
    }
}

fn by(who: Option<&str>) -> Markup {
    let who = who.unwrap_or_default();
    html! { span title=(who) { (short_key(who)) } }
}

/// The queues with the jobs that run at the same time.
fn serves(process: &Process) -> Markup {
    html! {
        ul.plain {
            @for (queue, served) in &process.stations {
                li {
                    a href={ (PATH) "/jobs" (query(&[("queue", queue)])) } { (queue) } " × " (served.jobs)
                    @if served.jobs != served.configured { span.quiet { " (configured: " (served.configured) ")" } }
                }
            }
        }
    }
}

/// The number of jobs that it runs, by queue.
fn runs(workers: &[&Worker]) -> Markup {
    let busy: Vec<_> = workers.iter().filter(|worker| worker.running > 0).collect();
    html! {
        @if busy.is_empty() { span.quiet { "nothing" } } @else {
            ul.plain {
                @for worker in busy {
                    li {
                        a href={ (PATH) "/workers" (query(&[("queue", &worker.queue)])) "#worker-" (worker.id) } {
                            (count(worker.running, false)) " of " (worker.queue)
                        }
                    }
                }
            }
        }
    }
}

fn action(process: &Process, viewer: &Viewer) -> Markup {
    let path = |verb: &str| format!("{PATH}/processes/{}/{verb}", process.id);
    html! {
        @if process.drain_at.is_some() {
            (ask(viewer, &Ask {
                action: &path("undrain"), label: "Take jobs again", question: "Let this process take jobs again?",
                fields: &[], is_grave: false,
            }))
        } @else if viewer.may_act() {
            details.snooze id={ "drain-" (process.id) } {
                summary { "Drain" }
                form method="post" action=(path("drain")) {
                    input type="hidden" name="form_token" value=(viewer.form_token);
                    input type="hidden" name="confirmed" value="yes";
                    label { "Why?" input name="reason" id={ "drain-reason-" (process.id) } required maxlength="300"; }
                    button.grave { "Take no more jobs" }
                }
            }
        }
    }
}

/// Drains a process, or lets it take jobs again.
pub(super) async fn steer(Path((id, verb)): Path<(Uuid, String)>, asked: Asked) -> Answer {
    if let Err(refused) = asked.allow("steer_process", &id.to_string()).await {
        return Ok(*refused);
    }
    let db = &asked.dashboard.db;
    let question = match verb.as_str() {
        "drain" => "Let this process finish what it runs, and take no more jobs?",
        "undrain" => "Let this process take jobs again?",
        _ => return Err(Problem::NotFound),
    };
    let found = process::processes(db).await?.into_iter().find(|process| process.id == id);
    let action = Action {
        name: format!("{verb}_process"),
        target: found.map_or_else(|| id.to_string(), |process| process.name),
        question,
        path: format!("{PATH}/processes/{id}/{verb}"),
        otherwise: format!("{PATH}/processes"),
    };
    let doing = begin!(asked, action);
    let mut tx = doing.open().await?;
    if verb == "undrain" {
        let words = if process::undrain(&mut *tx, id).await? {
            "The process takes jobs again, within 5 s."
        } else {
            "The process did not drain; nothing changed."
        };
        return doing.commit(tx, Ok(words.to_owned())).await;
    }
    let reason = match asked.reason() {
        Ok(reason) => reason.to_owned(),
        Err(words) => return doing.commit(tx, Err(words)).await,
    };
    let words = if process::drain(&mut *tx, id, &asked.viewer.who, Some(&reason)).await? {
        format!("The process takes no more jobs, within 5 s: {reason}. What it runs ends.")
    } else {
        "The process drains already, or has stopped; nothing changed.".to_owned()
    };
    doing.commit(tx, Ok(words)).await
}
