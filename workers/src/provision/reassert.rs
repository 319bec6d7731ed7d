//! Re-assertion: relays in step are sent again, slowly; see `provision::reassert`.

use std::time::Duration;

use serde_json::json;
use tender_jobs::{
    provision::{self, REASSERT},
    queue::Job,
};

use super::Context;
use crate::runtime::outcome;

/// Every minute, away from the other recurring jobs.
pub(super) const SCHEDULE: &str = "45 * * * * *";

/// Runs the recurring job: one step of a round that takes `round`.
pub(super) async fn run(context: Context, job: Job, round: Duration) {
    let work = async {
        let step = provision::reassert(&context.db, round).await?;
        metrics::counter!("tender_relays_reasserted_total").increment(step.relays);
        if step.ended_round {
            tracing::info!("every relay was sent to zooid again; a new round starts");
        }
        Ok(json!({ "relays": step.relays }))
    };
    outcome::recurring(&context.db, &job, REASSERT, Box::pin(work)).await;
}
