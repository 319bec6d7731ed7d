//! Pruning: finished rows leave the queue's table.

use serde_json::json;
use tender_jobs::queue::{self, Job};

use crate::{Context, settle};

/// Batches of one run; with a run every ten minutes, 150 jobs/s can be kept up with for ever.
const BATCHES: u32 = 20;

/// Runs a tick.
pub(crate) async fn run(context: Context, job: Job) {
    let work = async {
        let pruned = queue::prune(&context.db, context.settings.retention, BATCHES).await?;
        Ok(json!(pruned))
    };
    settle::recurring(&context.db, &job, work).await;
}
