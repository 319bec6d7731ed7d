//! `queue …`: shows queues and jobs; retries, cancels and deletes jobs; pauses and resumes queues.

mod steer;
mod view;

use clap::Subcommand;
use sqlx::{Postgres, Transaction};
use tender_jobs::{
    queue::{self, Cursor, LONGEST_REASON, MOST_AT_ONCE, Page},
    steer::Verb,
};

use super::{audit, load, operator, print, serve, with_database};
use crate::{config::Needs, postgres::Database};
use steer::{Filters, Which};

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Show counts of jobs and workers per queue, and of relays.
    Status,
    /// List jobs.
    List {
        #[command(flatten)]
        filters: Filters,
        /// Only jobs after this place: the mark at the end of the page before.
        #[arg(long, value_name = "MARK", value_parser = mark)]
        after: Option<Cursor>,
        #[command(flatten)]
        size: print::Size,
    },
    /// Show a job with its payload, attempts, last error and lock.
    Show {
        /// Id of the job.
        job: String,
    },
    /// Retry a killed or retrying job now, or all that match except those of relays in step.
    Retry(Which),
    /// Cancel a waiting or retrying job, or all that match. A sync-relay job's relay waits for a change or a sync.
    Cancel(Which),
    /// Delete a job that has ended, as pruning does later, or all that match. Relays and upstreams keep what they still
    /// need.
    Delete(Which),
    /// Pause a queue. Running jobs go on; no other job starts until the queue is resumed.
    Pause {
        /// Name of the queue.
        #[arg(value_parser = serve::known_queue)]
        queue: String,
        /// Why, for other operators; at most 300 characters.
        #[arg(long, value_parser = reason)]
        reason: Option<String>,
    },
    /// Resume a paused queue.
    Resume {
        /// Name of the queue.
        #[arg(value_parser = serve::known_queue)]
        queue: String,
    },
    /// Set how many jobs of a queue each process runs at the same time. Every process follows within 5 s.
    Scale {
        /// Name of the queue.
        #[arg(value_parser = serve::known_queue)]
        queue: String,
        /// The number of jobs, 1 to 1000.
        #[arg(required_unless_present = "reset", conflicts_with = "reset",
              value_parser = clap::value_parser!(i32).range(1..=i64::from(MOST_AT_ONCE)))]
        jobs: Option<i32>,
        /// Go back to the number that each process is configured with.
        #[arg(long)]
        reset: bool,
        /// Why, for other operators; at most 300 characters.
        #[arg(long, value_parser = reason, conflicts_with = "reset")]
        reason: Option<String>,
    },
}

impl QueueCommand {
    pub(super) async fn run(self, json: bool) -> anyhow::Result<()> {
        let config = load(Needs::Database, "warn")?;
        with_database(&config, async |database| match self {
            Self::Status => view::status(database, json).await,
            Self::List { filters, after, size } => {
                let selected = filters.selection().find(&database.pool).await?;
                let page = after.map_or(Page::First, Page::After);
                view::list(database, &selected, &page, size, json).await
            }
            Self::Show { job } => view::show(database, &job, json).await,
            Self::Retry(which) => which.run(database, Verb::Retry, json).await,
            Self::Cancel(which) => which.run(database, Verb::Cancel, json).await,
            Self::Delete(which) => which.run(database, Verb::Delete, json).await,
            Self::Pause { queue, reason } => pause(database, &queue, reason.as_deref(), json).await,
            Self::Resume { queue } => resume(database, &queue, json).await,
            Self::Scale { queue, jobs, reason, .. } => {
                scale(database, &queue, jobs, reason.as_deref(), json).await
            }
        })
        .await
    }
}

/// Commits an operator's action with its record, and prints its result.
async fn done(
    tx: Transaction<'_, Postgres>,
    action: &str,
    target: &str,
    result: &str,
    json: bool,
) -> anyhow::Result<()> {
    audit::commit(tx, action, target, result).await?;
    print::done(json, result)
}

/// Reads an operator's reason.
pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        1..=LONGEST_REASON => Ok(text.to_owned()),
        _ => Err(format!("a reason has 1 to {LONGEST_REASON} characters")),
    }
}

async fn pause(
    database: &Database,
    queue: &str,
    reason: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let mut tx = tender_jobs::database::begin(&database.pool).await?;
    let changed = queue::pause(&mut *tx, queue, &operator().who, reason).await?;
    let words =
        if changed { "is paused; workers stop fetching within 5 s" } else { "was already paused" };
    done(tx, "pause_queue", queue, &format!("{queue} {words}"), json).await
}

async fn resume(database: &Database, queue: &str, json: bool) -> anyhow::Result<()> {
    let mut tx = tender_jobs::database::begin(&database.pool).await?;
    let changed = queue::resume(&mut *tx, queue).await?;
    let words = if changed { "is resumed" } else { "was not paused" };
    done(tx, "resume_queue", queue, &format!("{queue} {words}"), json).await
}

/// Without a number, goes back to the configured one.
async fn scale(
    database: &Database,
    queue: &str,
    jobs: Option<i32>,
    reason: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let mut tx = tender_jobs::database::begin(&database.pool).await?;
    let Some(jobs) = jobs else {
        let changed = queue::unscale(&mut *tx, queue).await?;
        let words =
            if changed { "is back to its configured number of jobs" } else { "was not scaled" };
        return done(tx, "unscale_queue", queue, &format!("{queue} {words}"), json).await;
    };
    queue::scale(&mut *tx, queue, jobs, &operator().who, reason).await?;
    let result = format!("each process runs {jobs} jobs of {queue} at the same time, within 5 s");
    done(tx, "scale_queue", queue, &result, json).await
}

/// Parses the mark of a page.
fn mark(text: &str) -> Result<Cursor, &'static str> {
    Cursor::parse(text)
        .ok_or("not the mark of a page: copy the one that `tender queue list` prints")
}
