//! The job that removes an upstream, page by page. Each page commits alone, so a job that starts again
//! continues where the last one ended.

use std::time::{Duration, Instant};

use serde_json::json;
use tender_jobs::{mirror::upstream, queue::Job};
use uuid::Uuid;

use super::Context;
use crate::runtime::outcome::{self, Outcome};

/// A job that has run for this long leaves the other pages to its next run.
const WITHIN: Duration = Duration::from_secs(20);
/// When a job that failed is retried.
const AFTER_ERROR: Duration = Duration::from_secs(30);

/// Runs a job that removes an upstream.
pub(super) async fn run(context: &Context, job: &Job, upstream: Uuid) {
    outcome::attempt(&context.db, job, async {
        match Box::pin(remove(context, upstream)).await {
            Ok(true) => Outcome::Done(json!("the upstream is gone")),
            Ok(false) => Outcome::Requeue(Duration::ZERO),
            Err(error) => Outcome::Retry { after: AFTER_ERROR, error: error.to_string() },
        }
    })
    .await;
}

/// Deletes pages until the upstream is gone, and returns true, or until the time is over or the process
/// stops.
async fn remove(context: &Context, upstream: Uuid) -> Result<bool, sqlx::Error> {
    let begun = Instant::now();
    while upstream::remove_page(&context.db, upstream).await? {
        if begun.elapsed() > WITHIN || context.stopping.is_cancelled() {
            return Ok(false);
        }
    }
    Ok(true)
}
