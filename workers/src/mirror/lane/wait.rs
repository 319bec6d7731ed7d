//! Requeues of a lane's job that spend no attempt.

use std::time::Duration;

use tender_jobs::{
    mirror::{lane::Lane, work},
    queue::{self, Job, Requeue},
};

use crate::{mirror::Context, runtime::outcome};

/// The longest wait of a job that found all connections in use. The end of another job shortens it.
pub(in crate::mirror) const NO_ROOM_WAIT: Duration = Duration::from_secs(2);

/// Requeues a job that lost its lane, if the job's row is still its own: the lane was reset, freed or
/// retired. The next claim finds what is left to do. If another worker has the row, nothing is written.
pub(super) async fn lose(context: &Context, job: &Job) {
    requeue(context, job, Duration::ZERO).await;
}

/// Requeues the job, because the process stops. The job still owns the lane, so that another worker
/// can continue at once.
pub(super) async fn give_back(context: &Context, job: &Job) {
    requeue(context, job, Duration::ZERO).await;
}

/// Requeues a job that found all connections in use.
pub(super) async fn wait_for_room(context: &Context, job: &Job, lane: &Lane) {
    requeue(context, job, NO_ROOM_WAIT).await;
    context.connections.wait_for_room(lane.id, lane.kind);
}

/// Makes the job of the lane due that has waited longest for a connection, if there is room for it now.
/// If this fails, the job starts after its delay.
pub(super) async fn hurry_waiting(context: &Context) {
    let Some((lane, kind)) = context.connections.next_waiting() else { return };
    if let Err(error) = work::hurry_lane(&context.db, lane, kind).await {
        tracing::debug!(%lane, %error, "could not hurry a lane that waits for a connection");
    }
}

async fn requeue(context: &Context, job: &Job, after: Duration) {
    let waits = Requeue::wait(after);
    outcome::persist(job, || queue::requeue(&context.db, job, &waits)).await;
}
