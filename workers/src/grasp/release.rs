//! The job that judges released events of a service, page by page. It gives its key away before it begins,
//! so that events which are released while it runs get a job of their own: none is left behind.

use std::time::{Duration, Instant};

use serde_json::json;
use tender_jobs::{
    grasp::parked,
    queue::{self, Job},
};
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
        if let Err(error) = queue::free_key(&context.db, job).await {
            return Outcome::Retry { after: AFTER_ERROR, error: error.to_string() };
        }
        match Box::pin(release(context, service)).await {
            Ok(Some(judged)) => Outcome::Done(json!({ "judged": judged })),
            Ok(None) => Outcome::Requeue(Duration::ZERO),
            Err(error) => Outcome::Retry { after: AFTER_ERROR, error: error.to_string() },
        }
    })
    .await;
}

/// Judges pages until none is left, and returns the number of events, or `None` if the time is over.
async fn release(context: &Context, service: Uuid) -> Result<Option<usize>, sqlx::Error> {
    let (begun, mut judged) = (Instant::now(), 0);
    while let Some(page) = parked::released(&context.db, service).await? {
        judged += page.judged;
        if begun.elapsed() > WITHIN || context.stopping.is_cancelled() {
            return Ok(None);
        }
    }
    Ok(Some(judged))
}
