//! The SyncRelay job: its payload, its key, and how it gets into the queue.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;

use super::relay::RelayId;
use crate::queue::{self, NewJob};

/// The queue of the jobs that carry a relay to zooid.
pub const SYNC_RELAY: &str = "sync-relay";
/// The queue of the recurring reconcile job.
pub const RECONCILE: &str = "reconcile";
/// The queue of the job that syncs every relay again, page by page.
pub const RESYNC: &str = "resync";
/// The queue of the recurring job that sends relays in step to zooid again.
pub const REASSERT: &str = "reassert";

/// The attempts of a new job; a settled failure writes the number of the worker's own schedule.
const MAX_ATTEMPTS: i32 = 7;

/// Why a relay is to be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The relay was created.
    Create,
    /// Its wanted state changed.
    Update,
    /// It was activated.
    Activate,
    /// It was deactivated.
    Deactivate,
    /// It is to be deleted.
    Delete,
    /// Reconcile found it pending without a job.
    Reconcile,
    /// It is in step, and is sent again in case zooid's document was changed behind our back.
    Reassert,
    /// An operator or the tenant asked for a sync.
    Operator,
}

impl Cause {
    /// A tenant's change never waits behind a bulk resync.
    pub(super) fn priority(self) -> i32 {
        match self {
            _ if self.is_change() => 10,
            Self::Operator => 5,
            Self::Reassert => -5,
            _ => 0,
        }
    }

    /// Whether a tenant changed the relay, and waits.
    pub fn is_change(self) -> bool {
        matches!(
            self,
            Self::Create | Self::Update | Self::Activate | Self::Deactivate | Self::Delete
        )
    }
}

/// The payload of a SyncRelay job: ids only.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SyncPayload {
    /// The version of this shape, 1.
    pub v: u32,
    /// The relay to carry to zooid, in the state that it has when the attempt starts.
    pub relay_id: RelayId,
    /// Why the job was enqueued.
    pub cause: Cause,
    /// The trace of the request that caused the job, as W3C `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// Why a payload cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum UnreadablePayload {
    /// It is not JSON of the expected shape.
    #[error("the payload is unreadable: {0}")]
    Shape(#[from] serde_json::Error),
    /// A later release wrote it.
    #[error("the payload has version {0}; this worker reads version 1")]
    Version(u32),
}

impl SyncPayload {
    /// Reads the payload of a job.
    ///
    /// # Errors
    /// [`UnreadablePayload`]; the job can never be done.
    pub fn parse(bytes: &[u8]) -> Result<Self, UnreadablePayload> {
        let payload: Self = serde_json::from_slice(bytes)?;
        if payload.v == 1 { Ok(payload) } else { Err(UnreadablePayload::Version(payload.v)) }
    }
}

/// Returns the key of a relay's waiting job.
pub(super) fn key(id: &RelayId) -> String {
    format!("relay:{id}")
}

/// A job for the relay, due now.
pub(super) fn sync_job(relay_id: &RelayId, cause: Cause, trace: Option<&str>) -> NewJob {
    let (relay_id, trace) = (relay_id.clone(), trace.map(str::to_owned));
    let key = key(&relay_id);
    NewJob::new(SYNC_RELAY, &SyncPayload { v: 1, relay_id, cause, trace })
        .key(key)
        .priority(cause.priority())
        .max_attempts(MAX_ATTEMPTS)
}

/// Makes sure that a due job for the relay waits. The caller's transaction must hold the lock of the
/// relay's row.
pub(super) async fn enqueue_sync(
    db: impl PgExecutor<'_>,
    relay_id: &RelayId,
    cause: Cause,
    trace: Option<&str>,
) -> Result<(), sqlx::Error> {
    queue::enqueue_or_restart(db, &[sync_job(relay_id, cause, trace)]).await
}

/// Like [`enqueue_sync`], for many relays. The jobs are due a second ahead and therefore not announced:
/// see [`NewJob::after`].
pub(super) async fn enqueue_many(
    db: impl PgExecutor<'_>,
    relay_ids: &[RelayId],
    cause: Cause,
) -> Result<(), sqlx::Error> {
    let job = |id| sync_job(id, cause, None).after(UNANNOUNCED);
    let jobs: Vec<NewJob> = relay_ids.iter().map(job).collect();
    queue::enqueue_or_restart(db, &jobs).await
}

/// The delay of jobs that are enqueued in bulk.
pub(super) const UNANNOUNCED: Duration = Duration::from_secs(1);
