//! Reconcile: every pending relay without a job gets one. It takes no input: it compares all pending
//! relays with all jobs.

use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    provision::{self, RECONCILE, activity},
    queue::Job,
};

use super::Context;
use crate::runtime::{failpoint, outcome};

/// The most pages of one run: enough for a million pending relays.
const MAX_PAGES: usize = 1000;
/// Batches of activity that one run prunes; with a run every minute, 400 records per second.
const BATCHES: u32 = 5;

/// Enqueues a job for every pending relay that has none, and returns the number of jobs.
///
/// # Errors
/// The database is unreachable or refuses a statement. Pages before the error stay done.
pub async fn reconcile(db: &PgPool, exhausted_after: Duration) -> Result<usize, sqlx::Error> {
    let mut after = None;
    let mut enqueued = 0;
    for _ in 0..MAX_PAGES {
        let page = provision::enqueue_pending(db, after.as_ref(), exhausted_after).await?;
        enqueued += page.enqueued;
        failpoint!("reconcile-after-page");
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(enqueued)
}

/// Runs the recurring job, which also prunes activity.
pub(super) async fn run(context: Context, job: Job) {
    let work = async {
        let enqueued = reconcile(&context.db, context.settings.exhausted_after).await?;
        if enqueued > 0 {
            tracing::info!(enqueued, "reconcile enqueued pending relays");
        }
        let pruned = activity::prune(&context.db, context.settings.history, BATCHES).await?;
        Ok(json!({ "enqueued": enqueued, "pruned": pruned }))
    };
    outcome::recurring(&context.db, &job, RECONCILE, Box::pin(work)).await;
}
