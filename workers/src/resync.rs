//! `resync`: all relays again, a page at a time; see `queue::advance_resync`.

use tender_jobs::queue::{self, Job, ResyncPayload, Resynced, Settled};

use crate::{Context, settle};

/// Does one page.
pub(crate) async fn run(context: Context, job: Job) {
    let payload = match serde_json::from_slice::<ResyncPayload>(&job.payload) {
        Ok(payload) if payload.v == 1 => payload,
        _ => return unreadable(&context, &job).await,
    };
    let db = &context.db;
    match settle::persist(&job, || queue::start(db, &job)).await {
        Some(true) => {}
        Some(false) => return settle::lease_lost(&job),
        None => return,
    }
    match settle::persist(&job, || queue::advance_resync(db, &job, &payload)).await {
        Some(Settled::Written(Resynced::GoesOn(done))) => {
            tracing::info!(job.id, done, "resync of all relays goes on");
        }
        Some(Settled::Written(Resynced::Finished(done))) => {
            tracing::info!(job.id, done, "resync of all relays has requested every relay");
        }
        Some(Settled::LeaseLost) => settle::lease_lost(&job),
        None => {} // said; it is rescued
    }
}

async fn unreadable(context: &Context, job: &Job) {
    let reason = "the payload is unreadable";
    tracing::error!(job.id, reason, "killed a job that nobody can do");
    let killed = settle::persist(job, || queue::kill(&context.db, job, reason)).await;
    if let Some(Settled::LeaseLost) = killed {
        settle::lease_lost(job);
    }
}
