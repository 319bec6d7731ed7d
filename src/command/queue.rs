//! `queue …`: look at the queue and steer it.

mod view;

use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use serde_json::json;
use tender_jobs::{
    operator,
    queue::{self, JobFilter, JobState, Matching, Steered},
};

use super::{load, operator, print, serve, with_database};
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
    /// Run a killed or retrying job again, now; or all that match.
    Retry {
        /// Its id.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        job: Option<String>,
        /// All killed and retrying jobs, but for relays that are in step; at most 10,000.
        #[arg(long)]
        all: bool,
        /// Only those with this: queue=NAME, state=killed|retrying, error=TEXT; may be repeated.
        #[arg(long = "where", value_name = "NAME=VALUE", requires = "all")]
        conditions: Vec<String>,
    },
    /// End a waiting or retrying job; its relay stays as it is until it is changed or synced.
    Cancel {
        /// Its id.
        job: String,
    },
    /// Let nobody fetch from a queue until it is resumed: what runs ends, nothing new starts.
    Pause {
        /// Its name.
        queue: String,
    },
    /// Let a paused queue go on.
    Resume {
        /// Its name.
        queue: String,
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
            Self::Status => view::status(database, json).await,
            Self::List { queue, state, limit } => {
                let filter = JobFilter { queue, state: state.map(JobState::from), error: None };
                view::list(database, &filter, limit.into(), json).await
            }
            Self::Show { job } => view::show(database, &job, json).await,
            Self::Retry { job: Some(job), .. } => {
                let steered = queue::retry(&database.pool, &job, &operator()).await?;
                done(database, "retry_job", &job, &words(&steered), json).await
            }
            Self::Retry { job: None, conditions, .. } => {
                retry_all(database, &conditions, json).await
            }
            Self::Cancel { job } => {
                let steered = queue::cancel(&database.pool, &job, &operator()).await?;
                done(database, "cancel_job", &job, &words(&steered), json).await
            }
            Self::Pause { queue } => pause(database, &queue, json).await,
            Self::Resume { queue } => resume(database, &queue, json).await,
        })
        .await
    }
}

/// Records an action, and says what came of it.
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

async fn pause(database: &Database, queue: &str, json: bool) -> anyhow::Result<()> {
    serve::known_queues([queue])?;
    let changed = queue::pause(&database.pool, queue, &operator().who).await?;
    let words =
        if changed { "is paused; every process obeys within 5 s" } else { "was paused already" };
    done(database, "pause_queue", queue, &format!("{queue} {words}"), json).await
}

async fn resume(database: &Database, queue: &str, json: bool) -> anyhow::Result<()> {
    serve::known_queues([queue])?;
    let changed = queue::resume(&database.pool, queue).await?;
    let words = if changed { "goes on" } else { "was not paused" };
    done(database, "resume_queue", queue, &format!("{queue} {words}"), json).await
}

async fn retry_all(database: &Database, conditions: &[String], json: bool) -> anyhow::Result<()> {
    let matching = matching(conditions)?;
    let retried = queue::retry_all(&database.pool, &matching, &operator()).await?;
    let (target, result) = (conditions.join(" "), format!("{retried} go again"));
    operator::record(&database.pool, &operator().who, "retry_all", &target, &result).await?;
    if json { print::json(&json!({ "retried": retried })) } else { print::line(&result) }
}

/// Reads `queue=…`, `state=…` and `error=…`.
fn matching(conditions: &[String]) -> anyhow::Result<Matching> {
    let mut matching = Matching::default();
    for condition in conditions {
        match condition.split_once('=') {
            Some(("queue", queue)) => {
                serve::known_queues([queue])?;
                matching.queue = Some(queue.to_owned());
            }
            Some(("state", "killed")) => matching.state = Some(JobState::Killed),
            Some(("state", "retrying")) => matching.state = Some(JobState::Retrying),
            Some(("error", text)) => matching.error = Some(text.to_owned()),
            _ => bail!(
                "`--where {condition}` is not known; use queue=NAME, state=killed, state=retrying \
                 or error=TEXT"
            ),
        }
    }
    Ok(matching)
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
