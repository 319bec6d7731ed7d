//! Resync: every relay again, a page at a time; see `provision::advance_resync`.

use tender_jobs::{
    provision::{self, ResyncPayload, Resynced},
    queue::{self, Job},
};

use super::Context;
use crate::runtime::outcome;

/// Requests one page of relays.
pub(super) async fn run(context: Context, job: Job) {
    let db = &context.db;
    let payload = match serde_json::from_slice::<ResyncPayload>(&job.payload) {
        Ok(payload) if payload.v == 1 => payload,
        _ => {
            outcome::kill_unreadable(db, &job, "the payload is unreadable").await;
            return;
        }
    };
    if outcome::persist(&job, || queue::start(db, &job)).await.is_none() {
        return;
    }
    match outcome::persist(&job, || provision::advance_resync(db, &job, &payload)).await {
        Some(Resynced::GoesOn(done)) => tracing::info!(job.id, done, "resync goes on"),
        Some(Resynced::Finished(done)) => tracing::info!(job.id, done, "resync is done"),
        None => {} // logged; the job is rescued
    }
}
