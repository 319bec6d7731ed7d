//! The job that removes a service, page by page. Each page commits alone, so a job that starts again
//! continues where the last one ended.

use std::time::{Duration, Instant};

use serde_json::json;
use tender_jobs::{grasp::service, queue::Job};
use uuid::Uuid;

use super::Context;
use crate::runtime::{Outcome, outcome};

/// A job that has run for this long leaves the other pages to its next run.
const WITHIN: Duration = Duration::from_secs(20);
/// When a job that failed is retried.
const AFTER_ERROR: Duration = Duration::from_secs(30);

/// Runs the job, and settles it.
pub(super) async fn run(context: &Context, job: &Job, service: Uuid) {
    outcome::attempt(&context.db, job, async {
        match Box::pin(remove(context, service)).await {
            Ok(Some(_)) => Outcome::Done(json!("the service is gone")),
            Ok(None) => Outcome::Requeue(Duration::ZERO),
            Err(error) => Outcome::Retry { after: AFTER_ERROR, error: error.to_string() },
        }
    })
    .await;
}

/// Deletes pages until the service is gone, and returns 0, or `None` if the time is over.
async fn remove(context: &Context, service: Uuid) -> Result<Option<usize>, sqlx::Error> {
    let begun = Instant::now();
    while service::remove_page(&context.db, service).await? {
        if begun.elapsed() > WITHIN || context.stopping.is_cancelled() {
            return Ok(None);
        }
    }
    Ok(Some(0))
}
