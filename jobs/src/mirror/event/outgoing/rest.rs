//! Whether an upload lane may rest.
//!
//! An event that is stored while a run goes on finds the lane's key taken, and enqueues no job. The
//! run must therefore look again before it frees the key, or the event waits for the next scheduled
//! run. Both sides meet at the store's lock:
//!
//! ```text
//!  a transaction T that stores            the run's settling transaction R
//!  shared lock                            exclusive lock
//!  events or waiting rows                 has_work? ── yes ──▶ the next job is enqueued
//!  enqueue, unless the key is taken             └──── no ───▶ the key is freed
//!  commit frees the lock                  commit frees the lock
//! ```
//!
//! If T has the lock first, R waits for T's commit and sees what T stored. If R has it first, T waits
//! for R's commit: then the key is free, or belongs to the job that R enqueued, which has not begun.

use sqlx::PgConnection;

use crate::mirror::{event::store::alone, lane::Lease};

/// Whether there is work for the upload lane now, beyond the position `horizon` up to which its run
/// looked: a new event, if the upstream is live, or a waiting event. Until the end of the
/// transaction nothing is stored.
pub(in crate::mirror) async fn has_work(
    tx: &mut PgConnection,
    lease: &Lease,
    horizon: i64,
) -> Result<bool, sqlx::Error> {
    alone(tx).await?;
    sqlx::query_scalar!(
        // The next position is read from the index. Where the statement only asks whether one exists, PostgreSQL
        // may read the whole table.
        r#"select (u.live and (select position from event where position > $2 order by position limit 1) is not null)
                  or exists (select from upload_verdict v join event e on e.id = v.event_id
                             where v.upstream_id = u.id and v.verdict = 'pending' and v.next_try <= now()
                               and e.deleted_at is null
                               and (e.expires_at is null or e.expires_at > extract(epoch from now()))
                               and (not u.admission
                                    or exists (select from admission a
                                               where a.upstream_id = u.id and a.event_id = e.id))
                             ) as "has_work!"
           from upstream u where u.id = $1"#,
        lease.lane.upstream_id,
        horizon,
    )
    .fetch_optional(tx)
    .await
    .map(|has_work| has_work.unwrap_or(false))
}
