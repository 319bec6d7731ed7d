//! (not written yet)

use serde_json::json;
use tender_jobs::queue::Job;
use uuid::Uuid;

use super::Context;
use crate::runtime::{Outcome, outcome};

/// Runs the job, and settles it.
pub(super) async fn run(context: &Context, job: &Job, _service: Uuid) {
    outcome::attempt(&context.db, job, async { Outcome::Done(json!({})) }).await;
}
