//! The queue: durable jobs in apalis's tables. This room knows no wing.
//!
//! A job is a row. Its states are `Pending` (waiting), `Queued` (fetched by a worker), `Running`
//! (started), `Failed` (waiting for its retry), `Done` and `Killed`; `docs/ARCHITECTURE.md` draws the
//! transitions. Each transition is one statement that names the state it expects and reports
//! whether it changed a row.
//!
//! | to | call |
//! |---|---|
//! | add jobs | [`enqueue`], or [`enqueue_or_restart`] to make a waiting job due again |
//! | take due jobs for a worker | [`fetch`], then [`start`] |
//! | end a job | [`finish`], [`finish_and_empty`] or [`kill`] |
//! | put a job back | [`requeue`], with the case in [`Requeue`] |
//! | put back the jobs of dead workers | [`rescue`] |
//! | read | [`status`], [`figures`], [`flow`], [`names`], [`jobs`], [`count`], [`job`], [`workers`] |
//! | steer | [`retry`], [`pause`], [`resume`], [`scale`], [`process::drain`]; [`crate::steer`] for jobs of any wing |
//!
//! Statements that name a row by its id check its state and its worker through `coalesce`. The indexes of held jobs and
//! of workers then do not qualify, which are full of dead entries under load: the planner would walk all of them for
//! one row.
//!
//! A job may have a *key*. At most one job of a queue has a given key, so a key answers "is there
//! already a job for this thing?" without a race. The key is free again when the job ends, with one
//! exception: the key of a recurring job's run contains an `@` (`prune@1700000000`) and stays, because
//! it records that this run was enqueued. A wing may free the key when the job starts, as provisioning
//! does; it then keeps it under `key` in the row's metadata, where [`requeue`] finds it.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.
//!
//! ```
//! use tender_jobs::queue::{self, NewJob, Settled};
//! # async fn example(db: &sqlx::PgPool) -> Result<(), sqlx::Error> {
//! let job = NewJob::new("greet", &serde_json::json!({ "v": 1, "name": "Ada" })).key("greet:ada");
//! queue::enqueue(db, &[job]).await?;
//!
//! queue::register(db, "greet-1", "greet", "example").await?;
//! for job in queue::fetch(db, "greet-1", "greet", 10).await? {
//!     if queue::start(db, &job).await? == Settled::Written(()) {
//!         queue::finish(db, &job, &serde_json::json!("greeted")).await?;
//!     }
//! }
//! # Ok(())
//! # }
//! ```

mod enqueue;
mod fetch;
mod figures;
mod finish;
mod flow;
mod inspect;
mod list;
pub mod low_water;
mod named;
mod pause;
mod payload;
pub mod process;
mod prune;
mod requeue;
mod rescue;
mod scale;
pub mod schedule;
mod state;
mod steer;
mod walk;
mod worker;

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgPool;

pub use enqueue::{NewJob, enqueue, enqueue_keyed, enqueue_or_restart, has_due, has_job, hurry};
pub use fetch::{fetch, free_key, start};
pub use figures::{QueueFigures, figures};
pub(crate) use finish::supersede;
pub use finish::{finish, finish_and_empty, kill};
pub use flow::{Flow, flow};
pub use inspect::{COUNT_CAP, JobDetail, QueueStatus, WaitingKind, job, status, waiting_kinds};
pub(crate) use list::count_all;
pub use list::{
    About, Cursor, JobFilter, JobSummary, Page, SEARCHED, SEARCHED_UNSEEN, WithError, count, jobs,
    names,
};
pub use named::{FoundJob, starting_with};
pub use pause::{LONGEST_REASON, Paused, pause, paused, resume};
pub use payload::parse;
pub use prune::{KEPT_TIMES, Pruned, Retention, kept, prune};
pub use requeue::{Guard, Requeue, Requeued, requeue, requeue_all};
pub use rescue::{Rescued, rescue};
pub use scale::{MOST_AT_ONCE, Scaled, scale, scaled, unscale};
pub use state::JobState;
pub(crate) use steer::{cancel, count_in, delete, queues_of, retry_page};
pub use steer::{mark_seen, retry};
pub(crate) use walk::{PAGE, Walk};
pub use worker::{
    Alive, Worker, died_young, heartbeat, put_back, register, release, unregister, workers,
};

/// The channel on which PostgreSQL announces when jobs of a queue are due (`note_waiting` in the schema).
pub const CHANNEL: &str = "apalis::job::insert";

/// A worker without a heartbeat for this long is dead: six missed heartbeats.
pub const DEAD_AFTER: Duration = Duration::from_secs(30);

/// The priorities that a job may have, highest first. [`fetch`] and [`status`] look only at these.
pub const PRIORITIES: [i32; 4] = [10, 5, 0, -5];

/// The longest error that is stored, in characters.
pub const MAX_ERROR_CHARS: usize = 1000;

/// The error of a job whose first attempts all crashed.
const RESCUED: &str = "the worker died; the job was rescued";

/// A job that a worker fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The id of the row, a ULID.
    pub id: String,
    /// The queue that the job belongs to.
    pub queue: String,
    /// The payload as stored. The handler parses it, because a row may hold anything.
    pub payload: Vec<u8>,
    /// The number of this attempt, from 1: the persisted count of attempts plus one.
    pub attempt: i32,
    /// How many attempts the job may make. Each crash raises it by one, so that a crash spends none
    /// of the allowed attempts.
    pub max_attempts: i32,
    /// How many attempts ended with the death of their worker.
    pub crashes: i32,
    /// The error of the last attempt that stored one; `None` if no attempt did.
    pub last_error: Option<String>,
    /// The name of the worker that fetched the job, unique per start.
    pub worker: String,
    /// How long the job was due before it was fetched.
    pub waited: Duration,
}

impl Job {
    /// Whether a failure of this attempt leaves no further one.
    pub fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }

    /// How many attempts may fail. As many may crash.
    pub fn allowed_attempts(&self) -> i32 {
        self.max_attempts.saturating_sub(self.crashes).max(1)
    }

    /// The number of this attempt, from 1, without the attempts that crashed: the place in a schedule of
    /// retries.
    pub fn place(&self) -> i32 {
        self.attempt.saturating_sub(self.crashes).max(1)
    }

    /// Why a job that crashed too often is killed: how often, and the last error of an attempt that
    /// ended. `None` if it may run again.
    pub fn crashed_too_often(&self, allowed: i32) -> Option<String> {
        if self.crashes < allowed {
            return None;
        }
        let last = self.last_error.as_deref().map(|error| format!("; the last error was: {error}"));
        Some(format!("the worker died in {} attempts{}", self.crashes, last.unwrap_or_default()))
    }
}

/// Whether a guarded write found the state that it expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled<T> {
    /// The write changed the row.
    Written(T),
    /// The job or the lease belongs to another worker now; nothing was written.
    LeaseLost,
}

impl<T> Settled<T> {
    /// Applies `change` to the value of a write.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Settled<U> {
        match self {
            Self::Written(value) => Settled::Written(change(value)),
            Self::LeaseLost => Settled::LeaseLost,
        }
    }
}

impl Settled<()> {
    /// From the number of rows that a write of one row changed.
    pub(crate) fn of(rows: u64) -> Self {
        if rows == 1 { Self::Written(()) } else { Self::LeaseLost }
    }
}

/// Returns `text` on one line, without control characters, cut at [`MAX_ERROR_CHARS`] characters.
pub fn one_line(text: &str) -> String {
    let words = text.replace(char::is_control, " ");
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    line.chars().take(MAX_ERROR_CHARS).collect()
}

/// Reads the database's clock.
///
/// # Errors
/// See the module.
pub async fn now(db: &PgPool) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(db).await
}
