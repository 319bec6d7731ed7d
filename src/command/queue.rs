//! `queue …`: shows queues and jobs; retries, cancels and deletes jobs; pauses and resumes queues.

mod view;

use clap::{Subcommand, ValueEnum};
use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    console::operator,
    queue::{self, Cursor, JobFilter, JobState, LONGEST_REASON, MOST_AT_ONCE, Page, WithError},
    steer::{self, Steered, Verb},
};

use super::{ask::Yes, load, operator, print, serve, with_database};
use crate::{config::Needs, postgres::Database};

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Show counts of jobs and workers per queue, and of relays.
    Status,
    /// List jobs.
    List {
        /// Only jobs of this queue.
        #[arg(long, value_name = "NAME", value_parser = serve::known_queue)]
        queue: Option<String>,
        /// Only jobs in this state.
        #[arg(long, value_enum)]
        state: Option<StateArg>,
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
    /// Retry a killed or retrying job now, or all that match.
    Retry {
        /// Id of the job.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        job: Option<String>,
        /// Retry all killed and retrying jobs except those of relays in step.
        #[arg(long)]
        all: bool,
        /// Only jobs that match: queue=NAME, state=killed|retrying, error=TEXT; may be repeated.
        #[arg(long = "where", value_name = "NAME=VALUE", requires = "all", value_parser = condition)]
        conditions: Vec<Condition>,
    },
    /// Cancel a waiting or retrying job. A sync-relay job's relay waits for a change or a sync.
    Cancel {
        /// Id of the job.
        job: String,
    },
    /// Delete a job that has ended, as pruning does later. Relays and upstreams keep what they still need.
    Delete {
        /// Id of the job.
        job: String,
        #[command(flatten)]
        yes: Yes,
    },
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

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum StateArg {
    Waiting,
    Retrying,
    Queued,
    Running,
    Done,
    Killed,
}

impl From<StateArg> for JobState {
    fn from(state: StateArg) -> Self {
        match state {
            StateArg::Waiting => Self::Waiting,
            StateArg::Retrying => Self::Retrying,
            StateArg::Queued => Self::Queued,
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
            Self::Status => view::status(database, json).await,
            Self::List { queue, state, after, size } => {
                let state = state.map(JobState::from);
                let filter = JobFilter { queue, state, ..JobFilter::default() };
                let page = after.map_or(Page::First, Page::After);
                view::list(database, &filter, &page, size, json).await
            }
            Self::Show { job } => view::show(database, &job, json).await,
            Self::Retry { job: Some(job), .. } => {
                let steered = steer::retry(&database.pool, &job, &operator()).await?;
                done(database, "retry_job", &job, &words(&steered), json).await
            }
            Self::Retry { job: None, conditions, .. } => {
                retry_all(database, &conditions, json).await
            }
            Self::Cancel { job } => {
                let steered = steer::cancel(&database.pool, &job, &operator()).await?;
                done(database, "cancel_job", &job, &words(&steered), json).await
            }
            Self::Delete { job, yes } => delete(database, &job, yes, json).await,
            Self::Pause { queue, reason } => pause(database, &queue, reason.as_deref(), json).await,
            Self::Resume { queue } => resume(database, &queue, json).await,
            Self::Scale { queue, jobs, reason, .. } => {
                scale(database, &queue, jobs, reason.as_deref(), json).await
            }
        })
        .await
    }
}

/// Records an operator's action in the audit log and prints its result.
async fn done(
    database: &Database,
    action: &str,
    target: &str,
    result: &str,
    json: bool,
) -> anyhow::Result<()> {
    operator::record(&database.pool, &operator().who, action, target, result).await?;
    print::done(json, result)
}

async fn delete(database: &Database, job: &str, yes: Yes, json: bool) -> anyhow::Result<()> {
    yes.or_asks(&format!("Delete 1 job, {job}?")).await?;
    let steered = steer::delete(&database.pool, job, &operator()).await?;
    done(database, "delete_job", job, &words(&steered), json).await
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
    let changed = queue::pause(&database.pool, queue, &operator().who, reason).await?;
    let words =
        if changed { "is paused; workers stop fetching within 5 s" } else { "was already paused" };
    done(database, "pause_queue", queue, &format!("{queue} {words}"), json).await
}

async fn resume(database: &Database, queue: &str, json: bool) -> anyhow::Result<()> {
    let changed = queue::resume(&database.pool, queue).await?;
    let words = if changed { "is resumed" } else { "was not paused" };
    done(database, "resume_queue", queue, &format!("{queue} {words}"), json).await
}

/// Without a number, goes back to the configured one.
async fn scale(
    database: &Database,
    queue: &str,
    jobs: Option<i32>,
    reason: Option<&str>,
    json: bool,
) -> anyhow::Result<()> {
    let Some(jobs) = jobs else {
        let changed = queue::unscale(&database.pool, queue).await?;
        let words =
            if changed { "is back to its configured number of jobs" } else { "was not scaled" };
        return done(database, "unscale_queue", queue, &format!("{queue} {words}"), json).await;
    };
    queue::scale(&database.pool, queue, jobs, &operator().who, reason).await?;
    let result = format!("each process runs {jobs} jobs of {queue} at the same time, within 5 s");
    done(database, "scale_queue", queue, &result, json).await
}

async fn retry_all(
    database: &Database,
    conditions: &[Condition],
    json: bool,
) -> anyhow::Result<()> {
    let db = &database.pool;
    let matching = matching(db, conditions).await?;
    let bulk = steer::matching(db, Verb::Retry, &matching, usize::MAX, &operator()).await?;
    let (target, result) = (typed(conditions), format!("{} jobs requeued", bulk.done));
    operator::record(db, &operator().who, "retry_jobs", &target, &result).await?;
    if json {
        return print::json(&json!({ "retried": bulk.done }));
    }
    print::line(&result)
}

/// Parses the mark of a page.
fn mark(text: &str) -> Result<Cursor, &'static str> {
    Cursor::parse(text)
        .ok_or("not the mark of a page: copy the one that `tender queue list` prints")
}

/// Returns conditions as they were typed.
pub(super) fn typed(conditions: &[Condition]) -> String {
    conditions.iter().map(|condition| condition.typed.as_str()).collect::<Vec<_>>().join(" ")
}

/// A condition on jobs, such as `state=killed`.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    typed: String,
    wanted: Wanted,
}

#[derive(Debug, Clone)]
enum Wanted {
    Queue(String),
    State(JobState),
    Error(String),
}

/// Parses a condition of the form `queue=…`, `state=…` or `error=…`.
fn condition(text: &str) -> Result<Condition, String> {
    let wanted = match text.split_once('=') {
        Some(("queue", queue)) => Wanted::Queue(serve::known_queue(queue)?),
        Some(("state", "killed")) => Wanted::State(JobState::Killed),
        Some(("state", "retrying")) => Wanted::State(JobState::Retrying),
        Some(("error", text)) => Wanted::Error(text.to_owned()),
        _ => {
            let known = "use queue=NAME, state=killed, state=retrying or error=TEXT";
            return Err(format!("unknown condition; {known}"));
        }
    };
    Ok(Condition { typed: text.to_owned(), wanted })
}

async fn matching(db: &PgPool, conditions: &[Condition]) -> Result<JobFilter, sqlx::Error> {
    let mut matching = JobFilter::default();
    for condition in conditions {
        match condition.wanted.clone() {
            Wanted::Queue(queue) => matching.queue = Some(queue),
            Wanted::State(state) => matching.state = Some(state),
            Wanted::Error(text) => matching.error = Some(WithError::find(db, &text).await?),
        }
    }
    Ok(matching)
}

fn words(steered: &Steered) -> String {
    match steered {
        Steered::RelayRequeued(id) => format!("relay {id} has a new job, due now"),
        Steered::Requeued => "the job is due now".to_owned(),
        Steered::Deleted => "the job is deleted".to_owned(),
        Steered::Cancelled => {
            "the job is cancelled; its relay, if any, waits for a change or `tender relay sync`"
                .to_owned()
        }
    }
}
