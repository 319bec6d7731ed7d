//! What each queue did in the last day and week.

use std::{collections::HashMap, sync::Arc, time::Duration};

use maud::{Markup, html};
use sqlx::PgPool;
use tender_jobs::queue::{self, COUNT_CAP, Flow, QueueFigures};

use crate::dashboard::{
    Dashboard, PATH,
    parts::{count, duration, maybe_time, query, scroll},
};

/// All open pages share figures of this age. Reading them takes tens of milliseconds when the queues
/// are busy.
const FRESH: Duration = Duration::from_secs(10);

/// The figures of every queue.
pub(in crate::dashboard) struct Figures {
    pub(super) figures: Vec<QueueFigures>,
    pub(super) flow: HashMap<String, Flow>,
}

pub(super) async fn read(dashboard: &Dashboard) -> Result<Arc<Figures>, sqlx::Error> {
    dashboard.figures.get(FRESH, read_all(&dashboard.db)).await
}

/// Reads the figures of Tender's queues, then of any others that have jobs.
async fn read_all(db: &PgPool) -> Result<Figures, sqlx::Error> {
    let found = queue::names(db).await?;
    let known = tender_jobs::queues();
    let others = found.iter().map(String::as_str).filter(|name| !known.contains(name));
    let mut figures = Vec::new();
    let names: Vec<&str> = known.iter().copied().chain(others).collect();
    for name in &names {
        figures.push(queue::figures(db, name).await?);
    }
    Ok(Figures { figures, flow: queue::flow(db, &names).await? })
}

pub(super) fn section(queues: &[QueueFigures]) -> Markup {
    html! {
        h2 #figures { "The last day" }
        p.quiet {
            "These figures count only jobs whose rows still exist: pruning deletes done jobs after 24 h and killed jobs after 7 days, unless the retention is set differently. "
            "Mean time is the time from due to done, over the last 1,000 done jobs."
        }
        (scroll("Figures of the queues", &html! {
            table.cards {
                thead { tr {
                    th { "Queue" } th { "Workers" } th { "Longest running" } th.n { "Ended, 1 h" }
                    th.n { "Ended, 24 h" } th.n { "Killed, 24 h" } th.n { "Killed, 7 days" }
                    th.n { "Kill rate, 24 h" } th.n { "Mean time" } th { "Done per hour, 24 h" }
                } }
                tbody { @for queue in queues { (row(queue)) } }
            }
        }))
    }
}

fn row(queue: &QueueFigures) -> Markup {
    let counted = |(number, is_capped)| count(number, is_capped);
    let killed = |number| count(number, number >= COUNT_CAP);
    html! {
        tr {
            td data-label="Queue" { (queue.queue) }
            td data-label="Workers" { (workers(queue)) }
            td.none[queue.longest_job.is_none()] data-label="Longest running" { (longest(queue)) }
            td.n data-label="Ended, 1 h" { (counted(queue.ended_hour())) }
            td.n data-label="Ended, 24 h" { (counted(queue.ended_day())) }
            td.n data-label="Killed, 24 h" { (killed(queue.killed_day)) }
            td.n data-label="Killed, 7 days" { (killed(queue.killed_week)) }
            td.n data-label="Kill rate, 24 h" { (kill_rate(queue)) }
            td.n data-label="Mean time" { (mean(queue)) }
            td data-label="Done per hour, 24 h" { (bars(&queue.done_per_hour)) }
        }
    }
}

fn workers(queue: &QueueFigures) -> Markup {
    let workers = query(&[("queue", queue.queue.as_str()), ("state", "alive")]);
    html! {
        a href={ (PATH) "/workers" (workers) } { (count(queue.workers, false)) " alive" }
    }
}

fn longest(queue: &QueueFigures) -> Markup {
    html! {
        @match &queue.longest_job {
            Some(job) => { a href={ (PATH) "/jobs/" (job) } { (maybe_time(queue.longest_since)) } },
            None => "–",
        }
    }
}

fn kill_rate(queue: &QueueFigures) -> String {
    match queue.kill_rate() {
        Some((rate, false)) => format!("{:.1} %", rate * 100.0),
        Some((rate, true)) => format!("at most {:.1} %", rate * 100.0),
        None => "–".to_owned(),
    }
}

fn mean(queue: &QueueFigures) -> String {
    let time = queue.mean_seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.map_or_else(|| "–".to_owned(), duration)
}

/// A bar per hour, the past hour at the right, as high as its share of the busiest hour.
fn bars(done_per_hour: &[i64]) -> Markup {
    let most = done_per_hour.iter().copied().max().unwrap_or_default();
    let hours = done_per_hour.iter().rev().enumerate();
    let height = |done: i64| if most == 0 { 0 } else { (done * 20 + most - 1) / most };
    html! {
        svg.bars viewBox="0 0 95 21" role="img" aria-label={ "at most " (count(most, false)) " in an hour" } {
            @for (place, done) in hours {
                rect x=(place * 4) y=(20 - height(*done)) width="3" height=(height(*done) + 1) {
                    title { (count(*done, false)) ", " (done_per_hour.len() - place - 1) " h ago" }
                }
            }
        }
    }
}
