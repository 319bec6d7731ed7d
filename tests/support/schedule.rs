//! Recurring jobs: their rows, and runs that started and ended.

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    PRUNE,
    queue::{
        self, Job, NewJob, Settled,
        schedule::{self, Tick},
    },
};
use uuid::Uuid;

/// Stores the row of a recurring job without a next run.
pub async fn plan(db: &PgPool, wing: &str, name: &str, expression: &str) {
    let tick = Tick { name, wing, expression: expression.to_owned(), next_at: None, run: None };
    schedule::tick(db, &[tick]).await.unwrap();
}

/// Starts a run of a recurring job, in the queue of pruning.
pub async fn start(db: &PgPool, name: &str) -> Job {
    let run = Uuid::new_v4();
    let (key, worker) = (format!("{name}@{run}"), format!("prune-{run}"));
    let enqueued = NewJob::new(PRUNE, &json!({ "v": 1 })).key(key);
    queue::enqueue(db, &[enqueued]).await.unwrap();
    queue::register(db, &worker, PRUNE, "test").await.unwrap();
    let job = queue::fetch(db, &worker, PRUNE, 1).await.unwrap().remove(0);
    assert_eq!(schedule::start(db, &job, name).await.unwrap(), Settled::Written(()));
    job
}

/// Ends a run, well or with an error.
pub async fn end(db: &PgPool, job: &Job, name: &str, error: Option<&str>) {
    let result = json!("done");
    let result = error.map_or(Ok(&result), Err);
    assert_eq!(schedule::end(db, job, name, result).await.unwrap(), Settled::Written(()));
}

/// A run that has ended.
pub async fn run(db: &PgPool, name: &str, error: Option<&str>) {
    let job = start(db, name).await;
    end(db, &job, name, error).await;
}
