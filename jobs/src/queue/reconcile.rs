//! Reconcile's statement: every pending relay without a job gets one. It takes no input but the
//! rows themselves.

use std::time::Duration;

use sqlx::PgPool;

use super::{DEFAULT_MAX_ATTEMPTS, SYNC_RELAY};
use crate::relay::RelayId;

/// Relays looked at in one transaction.
pub const PAGE: i64 = 1000;

/// What one page did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Jobs made.
    pub enqueued: i64,
    /// Where the next page starts; `None` after the last.
    pub next: Option<RelayId>,
}

/// Enqueues the next [`PAGE`] pending relays that have neither a waiting nor a running job.
///
/// A relay that has failed at this generation goes on with the attempts and the delay that it had,
/// so that a lost row cannot reset the cap. One that gave up is left alone, unless its failure was
/// transient and `exhausted_after` has passed (zero: never): then it starts afresh.
///
/// # Errors
/// The database did not answer; then this page did nothing.
pub async fn enqueue_pending(
    db: &PgPool,
    after: Option<&RelayId>,
    exhausted_after: Duration,
) -> Result<Page, sqlx::Error> {
    // Jobs are due a second ahead: the insert trigger then stays silent, where a thousand
    // notifications in one commit would hold its database-wide lock. Polling finds them.
    let page = sqlx::query!(
        r#"with due as (
               select relay.id, relay.exhausted_at is not null as is_revived,
                      case when relay.exhausted_at is null then relay.attempts else 0 end as attempts,
                      case when relay.exhausted_at is null then relay.retry_at end as retry_at
               from relay
               where not relay.synced and relay.id > $1
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
               for update of relay skip locked
           ), revived as (
               update relay set exhausted_at = null, attempts = 0, retry_at = null
               from due where relay.id = due.id and due.is_revived
           ), queued as (
               insert into apalis.jobs
                   (id, job_type, job, status, attempts, max_attempts, run_at, priority, idempotency_key)
               select apalis.generate_ulid(), $4,
                      convert_to(json_build_object('v', 1, 'relay_id', due.id, 'cause', 'reconcile')::text, 'UTF8'),
                      case when due.attempts > 0 then 'Failed' else 'Pending' end,
                      due.attempts, greatest($5::int, due.attempts + 1),
                      greatest(due.retry_at, now() + interval '1 second'), 0, 'relay:' || due.id
               from due
               on conflict (job_type, idempotency_key) do nothing
               returning id
           )
           select (select count(*) from queued) as "enqueued!",
                  (select count(*) from due) as "seen!",
                  (select max(id) from due) as "last: RelayId""#,
        after.map_or("", RelayId::as_str),
        exhausted_after.as_secs_f64(),
        PAGE,
        SYNC_RELAY,
        DEFAULT_MAX_ATTEMPTS,
    )
    .fetch_one(db)
    .await?;
    let next = page.last.filter(|_| page.seen == PAGE);
    Ok(Page { enqueued: page.enqueued, next })
}
