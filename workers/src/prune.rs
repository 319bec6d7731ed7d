//! Pruning: finished rows leave the queue's table, and old minutes and sessions theirs.

use serde_json::json;
use tender_jobs::{
    queue::{self, Job},
    session, stats,
};

use crate::{Context, settle};

/// Batches of one run; with a run every minute, 1,600 jobs/s can be kept up with for ever.
const BATCHES: u32 = 20;

/// Runs a tick.
pub(crate) async fn run(context: Context, job: Job) {
    let work = async {
        let pruned = queue::prune(&context.db, context.settings.retention, BATCHES).await?;
        stats::prune(&context.db).await?;
        session::prune(&context.db).await?;
        Ok(json!(pruned))
    };
    settle::recurring(&context.db, &job, work).await;
}
