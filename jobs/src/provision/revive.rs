//! Reviving: relays that gave up in an outage start over when their instance answers again, and relays that
//! gave up waiting for a host start over when it is free.

use sqlx::{PgConnection, PgPool};

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
    let mut tx = crate::database::begin(db).await?;
    let ids = sqlx::query_scalar!(
        r#"with due as (
               select relay.id from zooid_instance instance
               join relay on relay.outage_instance = instance.name
               where relay.outage_instance is not null and instance.opened_at is null
                 and relay.exhausted_at <= instance.recovered_at and relay.failure_kind = 'transient'
               order by relay.id
               limit $1
               for update of relay skip locked
           )
           update relay
           set exhausted_at = null, outage_instance = null, attempts = 0, retry_at = null, revived_at = now()
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
    enqueue(&mut tx, &ids).await?;
    tx.commit().await?;
    Ok(ids.len())
}

/// Gives a new job to the relays that want one of these hosts and gave up for a transient reason. A relay
/// that a transaction holds is left to reconcile.
pub(super) async fn revive_waiting(db: &PgPool, freed: &[String]) -> Result<(), sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let ids = sqlx::query_scalar!(
        r#"with due as (
               select relay.id
               from unnest($1::text[]) freed
               join relay on subdomain = split_part(freed, '.', 1)
                         and zooid_domain = substr(freed, strpos(freed, '.') + 1)
               where exhausted_at is not null and failure_kind = 'transient'
               order by relay.id
               for update of relay skip locked
           )
           update relay
           set exhausted_at = null, outage_instance = null, attempts = 0, retry_at = null
           from due
           where relay.id = due.id
           returning relay.id as "id: RelayId""#,
        freed,
    )
    .fetch_all(&mut *tx)
    .await?;
    enqueue(&mut tx, &ids).await?;
    tx.commit().await
}

async fn enqueue(tx: &mut PgConnection, ids: &[RelayId]) -> Result<(), sqlx::Error> {
    let job = |id| sync_job(id, Cause::Reconcile, None).spread(RELEASE_WITHIN);
    let jobs: Vec<NewJob> = ids.iter().map(job).collect();
    queue::enqueue(tx, &jobs).await?;
    Ok(())
}
