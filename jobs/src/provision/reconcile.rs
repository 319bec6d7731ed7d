//! Reconcile's step: every pending relay without a job gets one. It takes no input but the rows
//! themselves.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::{
    Cause, SYNC_RELAY,
    job::{UNANNOUNCED, sync_job},
    relay::RelayId,
};
use crate::queue::{self, NewJob};

/// Relays that one transaction looks at.
pub const PAGE: i64 = 1000;

/// What one page did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The number of jobs enqueued.
    pub enqueued: usize,
    /// Where the next page starts; `None` after the last page.
    pub next: Option<RelayId>,
}

/// A pending relay that needs a job.
struct Due {
    id: RelayId,
    is_revived: bool,
    attempts: i32,
    not_before: Option<DateTime<Utc>>,
}

/// Enqueues a job for each of the next [`PAGE`] pending relays that have neither a waiting nor a running
/// one. A relay that is in step, and whose last call is to be confirmed, is pending too; its job is due
/// when it can be confirmed.
///
/// A relay that has failed at its current generation keeps its attempts and its next time, so that a
/// lost row cannot reset the cap. A relay that gave up is left alone, unless its failure was transient
/// and `exhausted_after` has passed since (zero: never); then it starts over.
///
/// # Errors
/// See [`provision`](super); then this page did nothing.
pub async fn enqueue_pending(
    db: &PgPool,
    after: Option<&RelayId>,
    exhausted_after: Duration,
) -> Result<Page, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let due = lock_due(&mut tx, after, exhausted_after).await?;
    revive(&mut tx, &due).await?;
    let jobs: Vec<NewJob> = due.iter().map(job).collect();
    let enqueued = queue::enqueue(&mut *tx, &jobs).await?.len();
    tx.commit().await?;
    let is_full = i64::try_from(due.len()).is_ok_and(|seen| seen == PAGE);
    let next = due.into_iter().next_back().filter(|_| is_full).map(|relay| relay.id);
    Ok(Page { enqueued, next })
}

fn job(relay: &Due) -> NewJob {
    sync_job(&relay.id, Cause::Reconcile, None)
        .attempts(relay.attempts)
        .after(UNANNOUNCED)
        .not_before(relay.not_before)
}

async fn lock_due(
    tx: &mut PgConnection,
    after: Option<&RelayId>,
    exhausted_after: Duration,
) -> Result<Vec<Due>, sqlx::Error> {
    sqlx::query_as!(
        Due,
        r#"select relay.id as "id: RelayId", relay.exhausted_at is not null as "is_revived!",
                  case when relay.exhausted_at is null then relay.attempts else 0 end as "attempts!",
                  case when relay.synced then relay.confirm_at
                       when relay.exhausted_at is null then relay.retry_at end as not_before
           from (select id from (
                     (select id from relay where not synced and id > $1 order by id)
                     union all
                     (select id from relay where confirm_at is not null and synced and id > $1 order by id)
                 ) either order by id) pending
           join relay using (id)
           where (not relay.synced or relay.confirm_at is not null)
             and (relay.exhausted_at is null
                  or (relay.failure_kind = 'transient' and $2::float8 > 0
                      and relay.exhausted_at < now() - make_interval(secs => $2)))
             and not exists (select from apalis.jobs job where job.job_type = $4
                             and job.idempotency_key = 'relay:' || relay.id)
             -- By the primary key: the index of held jobs is full of dead entries under load.
             and not exists (select from apalis.jobs job where job.id = relay.lease_job
                             and coalesce(job.status, '') in ('Queued', 'Running'))
           order by relay.id
           limit $3
           for update of relay skip locked"#,
        after.map_or("", RelayId::as_str),
        exhausted_after.as_secs_f64(),
        PAGE,
        SYNC_RELAY,
    )
    .fetch_all(tx)
    .await
}

async fn revive(tx: &mut PgConnection, due: &[Due]) -> Result<(), sqlx::Error> {
    let revived: Vec<String> = due
        .iter()
        .filter(|relay| relay.is_revived)
        .map(|relay| relay.id.as_str().to_owned())
        .collect();
    if revived.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update relay set exhausted_at = null, outage_instance = null, attempts = 0, retry_at = null
         where id = any($1)",
        &revived,
    )
    .execute(tx)
    .await?;
    Ok(())
}
