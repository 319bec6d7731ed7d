//! `queue …`: look at the queue and steer it.

use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use comfy_table::{Cell, Color};
use serde_json::json;
use tender_jobs::{
    queue::{self, JobFilter, JobState, JobSummary, Steered},
    relay,
};

use super::{load, operator, print, with_database};
use crate::{config::Needs, postgres::Database};

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Counts per queue, relays and workers: what to look at first.
    Status,
    /// List jobs: what is waiting, retrying, running, killed.
    List {
        /// Only of this queue.
        #[arg(long)]
        queue: Option<String>,
        /// Only in this state.
        #[arg(long, value_enum)]
        state: Option<StateArg>,
        /// Jobs to show.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show one job: payload, attempts, error, lock.
    Show {
        /// Its id.
        job: String,
    },
    /// Run a killed or retrying job again, now.
    Retry {
        /// Its id.
        job: String,
    },
    /// End a waiting or retrying job; its relay stays as it is until it is changed or synced.
    Cancel {
        /// Its id.
        job: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StateArg {
    Waiting,
    Retrying,
    Running,
    Done,
    Killed,
}

impl From<StateArg> for JobState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Waiting => Self::Waiting,
            StateArg::Retrying => Self::Retrying,
            StateArg::Running => Self::Running,
            StateArg::Done => Self::Done,
            StateArg::Killed => Self::Killed,
        }
    }
}

impl QueueCommand {
    pub(super) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        with_database(&config, async |database| match self {
            Self::Status => status(database, json).await,
            Self::List { queue, state, limit } => {
                let filter = JobFilter { queue, state: state.map(JobState::from), error: None };
                list(database, &filter, limit.into(), json).await
            }
            Self::Show { job } => show(database, &job, json).await,
            Self::Retry { job } => {
                let steered = queue::retry(&database.pool, &job, &operator()).await?;
                print::done(json, &words(&steered))
            }
            Self::Cancel { job } => {
                let steered = queue::cancel(&database.pool, &job, &operator()).await?;
                print::done(json, &words(&steered))
            }
        })
        .await
    }
}

fn words(steered: &Steered) -> String {
    match steered {
        Steered::RelayRequeued(id) => format!("relay {id} has a new job, due now"),
        Steered::Requeued => "the job is due now".to_owned(),
        Steered::Cancelled => {
            "the job will not run; its relay waits for a change or `tender relay sync`".to_owned()
        }
    }
}

async fn status(database: &Database, json: bool) -> anyhow::Result<()> {
    let db = &database.pool;
    let (queues, workers) = (queue::status(db).await?, queue::workers(db).await?);
    let relays = relay::summary(db).await?;
    if json {
        return print::json(&json!({ "queues": queues, "workers": workers, "relays": relays }));
    }
    let now = queue::now(db).await?;
    let ago = |at: Option<_>| at.map_or_else(|| "-".to_owned(), |at| print::relative(at, now));
    let header = [
        "QUEUE",
        "WAITING",
        "RETRYING",
        "RUNNING",
        "KILLED",
        "DONE",
        "OLDEST DUE",
        "NEXT DUE",
        "WORKERS",
    ];
    let mut table = print::table(&header);
    for queue in &queues {
        let alive = workers.iter().filter(|w| w.is_alive && w.queue == queue.queue).count();
        table.add_row(vec![
            Cell::new(&queue.queue),
            queue.waiting.into(),
            alarming(queue.retrying, Color::Yellow),
            queue.running.into(),
            alarming(queue.killed, Color::Red),
            queue.done.into(),
            ago(queue.oldest_due_at).into(),
            ago(queue.next_due_at).into(),
            if alive == 0 { Cell::new("none").fg(Color::Red) } else { alive.into() },
        ]);
    }
    print::line(&table.trim_fmt())?;
    print::line(&format!(
        "\nrelays: {} synced, {} pending, {} retrying, {} gave up; oldest pending: {}",
        relays.synced,
        relays.pending,
        relays.retrying,
        relays.gave_up,
        ago(relays.oldest_pending_at)
    ))
}

/// A count in colour, unless it is zero.
fn alarming(count: i64, color: Color) -> Cell {
    if count == 0 { count.into() } else { Cell::new(count).fg(color) }
}

async fn list(
    database: &Database,
    filter: &JobFilter,
    limit: i64,
    json: bool,
) -> anyhow::Result<()> {
    let jobs = queue::jobs(&database.pool, filter, limit).await?;
    if json {
        return print::json(&jobs);
    }
    if jobs.is_empty() {
        return print::line("no jobs");
    }
    let now = queue::now(&database.pool).await?;
    let mut table = print::table(&["ID", "QUEUE", "STATE", "ATTEMPT", "WHEN", "LAST ERROR"]);
    for job in &jobs {
        let when = match job.done_at {
            Some(at) => format!("ended {}", print::relative(at, now)),
            None => format!("due {}", print::relative(job.run_at, now)),
        };
        table.add_row(vec![
            Cell::new(&job.id),
            job.queue.as_str().into(),
            state_cell(job),
            format!("{} of {}", job.attempts, job.max_attempts).into(),
            when.into(),
            print::short(job.error.as_deref().unwrap_or_default(), 80).into(),
        ]);
    }
    print::line(&table.trim_fmt())
}

fn state_cell(job: &JobSummary) -> Cell {
    let color = match job.state {
        JobState::Waiting => Color::Cyan,
        JobState::Retrying => Color::Yellow,
        JobState::Running => Color::Blue,
        JobState::Done => Color::Green,
        JobState::Killed => Color::Red,
    };
    Cell::new(job.state.as_str()).fg(color)
}

async fn show(database: &Database, id: &str, json: bool) -> anyhow::Result<()> {
    let job = queue::job(&database.pool, id).await?;
    let job = job.with_context(|| format!("there is no job {id}; see `tender queue list`"))?;
    if json {
        return print::json(&job);
    }
    let time = |at: Option<chrono::DateTime<chrono::Utc>>| {
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
        ("priority", job.priority.to_string()),
        ("key", job.key.unwrap_or_else(|| "-".to_owned())),
        ("held by", job.lock_by.unwrap_or_else(|| "-".to_owned())),
        ("held since", time(job.lock_at)),
        ("last error", summary.error.clone().unwrap_or_else(|| "-".to_owned())),
        ("payload", print::short(&job.payload, 2000)),
    ])
}
