//! Reviving: relays that gave up in an outage start over when their instance answers again.

use sqlx::PgPool;

use super::{Cause, SYNC_RELAY, hold::RELEASE_WITHIN, job::sync_job, relay::RelayId};
use crate::queue::{self, NewJob};

/// Relays that one transaction revives.
const PAGE: i64 = 1000;

/// Gives a new job to relays that gave up before the last recovery of their instance, spread over 2 s.
/// Returns how many were revived, at most 1,000: the caller asks again. A relay that a transaction
/// holds is left for the next call.
///
/// # Errors
/// See [`provision`](super); then none was revived.
pub async fn revive(db: &PgPool) -> Result<usize, sqlx::Error> {
    let mut tx = db.begin().await?;
    let ids = sqlx::query_scalar!(
        r#"with due as (
               select relay.id from zooid_instance instance
               join relay on relay.outage_instance = instance.name
               where relay.outage_instance is not null and instance.opened_at is null
                 and relay.exhausted_at <= instance.recovered_at
               order by relay.id
               limit $1
               for update of relay skip locked
           )
           update relay
           set exhausted_at = null, outage_instance = null, attempts = 0, retry_at = null
           from due
           where relay.id = due.id
             and not exists (select from apalis.jobs
                             where job_type = $2 and idempotency_key = 'relay:' || relay.id)
           returning relay.id as "id: RelayId""#,
        PAGE,
        SYNC_RELAY,
    )
    .fetch_all(&mut *tx)
    .await?;
    let job = |id| sync_job(id, Cause::Reconcile, None).spread(RELEASE_WITHIN);
    let jobs: Vec<NewJob> = ids.iter().map(job).collect();
    queue::enqueue(&mut *tx, &jobs).await?;
    tx.commit().await?;
    Ok(ids.len())
}
