//! The output of `queue status`, `queue list` and `queue show`.

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::json;
use tender_jobs::{
    provision::relay,
    queue::{self, COUNT_CAP, JobState, JobSummary, Page},
};

use crate::{
    command::print::{self, Cell, Color, Column, Size, Table},
    postgres::Database,
    selection::Selected,
};

const QUEUES: [Column; 11] = [
    Column::whole("QUEUE", Column::ALWAYS),
    Column::whole("", 10),
    Column::whole("WAITING", 9),
    Column::whole("RETRYING", 8),
    Column::whole("QUEUED", 3),
    Column::whole("RUNNING", 7),
    Column::whole("KILLED", 9),
    Column::whole("DONE", 2),
    Column::whole("DUE FOR", 6),
    Column::whole("NEXT IN", 1),
    Column::whole("WORKERS", 8),
];

const JOBS: [Column; 6] = [
    Column::whole("ID", Column::ALWAYS),
    Column::whole("QUEUE", 9),
    Column::whole("STATE", 8),
    Column::whole("ATTEMPT", 3),
    Column::whole("WHEN", 5),
    Column::text("LAST ERROR", 7, 16),
];

pub(super) async fn status(database: &Database, json: bool) -> anyhow::Result<()> {
    let db = &database.pool;
    let (queues, workers) =
        (queue::status(db, &tender_jobs::queues()).await?, queue::workers(db).await?);
    let relays = relay::summary(db).await?;
    if json {
        return print::json(&json!({ "queues": queues, "workers": workers, "relays": relays }));
    }
    let now = queue::now(db).await?;
    let brief = |at: Option<_>| at.map_or_else(|| "-".to_owned(), |at| print::distance(at, now));
    let ago = |at: Option<_>| at.map_or_else(|| "-".to_owned(), |at| print::relative(at, now));
    let mut table = Table::new(&QUEUES);
    for queue in &queues {
        let alive = workers.iter().filter(|w| w.serves() && w.queue == queue.queue).count();
        table.add_row(vec![
            Cell::new(&queue.queue),
            if queue.paused_at.is_some() {
                Cell::new("paused").fg(Color::Yellow)
            } else {
                "".into()
            },
            at_least(queue.waiting).into(),
            alarming(queue.retrying, Color::Yellow),
            queue.queued.into(),
            queue.running.into(),
            alarming(queue.killed, Color::Red),
            at_least(queue.done).into(),
            brief(queue.oldest_due_at).into(),
            brief(queue.next_due_at).into(),
            if alive == 0 { Cell::new("none").fg(Color::Red) } else { alive.into() },
        ]);
    }
    table.print()?;
    print::line(&format!(
        "\nrelays: {}{} synced, {} pending, {} failing, {} gave up; oldest pending: {}",
        if relays.is_capped { "at most " } else { "" },
        relays.synced,
        relays.pending,
        relays.retrying,
        relays.gave_up,
        ago(relays.oldest_pending_at)
    ))
}

/// Formats a count. A `+` marks a count that stopped at [`COUNT_CAP`].
fn at_least(count: i64) -> String {
    if count >= COUNT_CAP { format!("{count}+") } else { count.to_string() }
}

/// Returns a cell with a count, in colour unless it is zero.
fn alarming(count: i64, color: Color) -> Cell {
    if count == 0 { count.into() } else { Cell::new(count).fg(color) }
}

pub(super) async fn list(
    database: &Database,
    selected: &Selected,
    page: &Page,
    size: Size,
    json: bool,
) -> anyhow::Result<()> {
    let jobs = queue::jobs(&database.pool, &selected.filter, page, size.read()).await?;
    let (jobs, cut) = size.cut(jobs, |last| last.cursor().to_string());
    if json {
        print::json(&jobs)?;
    } else if jobs.is_empty() {
        print::line("no jobs")?;
    } else {
        print_jobs(&jobs, queue::now(&database.pool).await?)?;
    }
    cut.say()?;
    selected.limits().iter().try_for_each(|words| print::note(words))
}

fn print_jobs(jobs: &[JobSummary], now: DateTime<Utc>) -> anyhow::Result<()> {
    let mut table = Table::new(&JOBS);
    for job in jobs {
        let when = match job.done_at {
            Some(at) => format!("ended {} ago", print::distance(at, now)),
            None if job.run_at > now => format!("due in {}", print::distance(job.run_at, now)),
            None => format!("due for {}", print::distance(job.run_at, now)),
        };
        table.add_row(vec![
            Cell::new(&job.id),
            job.queue.as_str().into(),
            state_cell(job),
            format!("{} of {}", job.attempts, job.max_attempts).into(),
            when.into(),
            job.error.as_deref().unwrap_or_default().into(),
        ]);
    }
    table.print()
}

fn state_cell(job: &JobSummary) -> Cell {
    let color = match job.state {
        JobState::Waiting => Color::Cyan,
        JobState::Retrying => Color::Yellow,
        JobState::Queued | JobState::Running => Color::Blue,
        JobState::Done => Color::Green,
        JobState::Killed => Color::Red,
    };
    Cell::new(job.state.as_str()).fg(color)
}

pub(super) async fn show(database: &Database, id: &str, json: bool) -> anyhow::Result<()> {
    let job = queue::job(&database.pool, id).await?;
    let job = job.with_context(|| format!("there is no job {id}; see `tender queue list`"))?;
    if json {
        return print::json(&job);
    }
    let time = |at: Option<DateTime<Utc>>| {
        at.map_or_else(|| "-".to_owned(), |at| at.format("%F %T UTC").to_string())
    };
    let summary = &job.summary;
    print::pairs(&[
        ("id", summary.id.clone()),
        ("queue", summary.queue.clone()),
        ("state", summary.state.as_str().to_owned()),
        ("attempts", format!("{} of {}", summary.attempts, summary.max_attempts)),
        ("due", time(Some(summary.run_at))),
        ("ended", time(summary.done_at)),
        ("priority", summary.priority.to_string()),
        ("key", job.key.unwrap_or_else(|| "-".to_owned())),
        ("held by", summary.lock_by.clone().unwrap_or_else(|| "-".to_owned())),
        ("held since", time(summary.lock_at)),
        ("last error", summary.error.clone().unwrap_or_else(|| "-".to_owned())),
        ("payload", print::short(&job.payload, 2000)),
    ])
}
