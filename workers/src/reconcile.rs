//! Reconcile: every pending relay without a job gets one. Takes no input: it compares all that is
//! wanted with all that waits.

use std::time::Duration;

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::queue::{self, Job};

use crate::{Context, failpoint::failpoint, settle};

/// Pages in one run: a million relays, all pending.
const MAX_PAGES: usize = 1000;

/// Enqueues what is pending and has no job; the number of jobs made.
///
/// # Errors
/// The database did not answer; pages done before stay done.
pub async fn reconcile(db: &PgPool, exhausted_after: Duration) -> Result<i64, sqlx::Error> {
    let mut after = None;
    let mut enqueued = 0;
    for _ in 0..MAX_PAGES {
        let page = queue::enqueue_pending(db, after.as_ref(), exhausted_after).await?;
        enqueued += page.enqueued;
        failpoint!("reconcile-after-page");
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    Ok(enqueued)
}

/// Runs a tick.
pub(crate) async fn run(context: Context, job: Job) {
    let work = async {
        let enqueued = reconcile(&context.db, context.settings.exhausted_after).await?;
        if enqueued > 0 {
            tracing::info!(enqueued, "reconcile enqueued pending relays");
        }
        Ok(json!({ "enqueued": enqueued }))
    };
    settle::recurring(&context.db, &job, work).await;
}
