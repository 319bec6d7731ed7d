//! Coverage: which items a followed relay has delivered. A plan takes missing items in flight; the end
//! of their batch confirms them or makes them missing again ([`batch`](super::batch)).
//!
//! - [`filters`]: the filters of items. `gap`: parts of a history that a relay did not show.
//! - `held`: the events that need not be fetched. `walked`: how far long walks have come.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

pub mod filters;
mod gap;
mod held;
mod walked;

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    batch::Batch,
    family::{Family, Purpose},
    followed::Lease,
};
use crate::{
    mirror::contended,
    queue::{Settled, one_line},
};

pub use gap::{add_gaps, note_gaps};
pub use held::{held, holds_at_least};
pub use walked::{Walked, forget_walked, note_walked, walked};

/// The items of one batch, and of one filter.
pub const ITEMS: usize = 100;

/// Takes due missing items in flight: at most 100 of one family, under a new batch. Items that failed
/// before go apart from others, at most half as many together as in the batch that failed, so that a bad item
/// is soon alone.
/// Returns `None` if nothing is due or the lease is over.
pub async fn plan(db: &PgPool, lease: Lease) -> Result<Option<Batch>, sqlx::Error> {
    contended::retried(|| try_plan(db, lease, true)).await
}

/// As [`plan`], without the items for which the relay's own refusal is recorded.
pub async fn plan_unrefused(db: &PgPool, lease: Lease) -> Result<Option<Batch>, sqlx::Error> {
    contended::retried(|| try_plan(db, lease, false)).await
}

async fn try_plan(
    db: &PgPool,
    lease: Lease,
    with_refused: bool,
) -> Result<Option<Batch>, sqlx::Error> {
    let families: Vec<String> = Family::ALL.iter().map(ToString::to_string).collect();
    let row = sqlx::query!(
        r#"with holder as materialized (
               select id from grasp_relay
               where id = $1 and lease_epoch = $2 and lease_until > now() for share),
           head as materialized (
               select f.family, c.attempts, c.batch_size
               from holder, unnest($3::text[]) with ordinality as f (family, rank), lateral (
                   select attempts, batch_size from grasp_coverage c
                   where c.relay_id = holder.id and c.family = f.family and c.state = 'missing'
                     and c.retry_at <= now() and ($4 or not c.refused)
                   order by c.attempts, c.item limit 1) c
               order by f.rank limit 1),
           due as materialized (
               select c.item, c.refused from grasp_coverage c, head
               where c.relay_id = $1 and c.family = head.family and c.attempts = head.attempts
                 and c.batch_size = head.batch_size and c.state = 'missing' and c.retry_at <= now()
                 and ($4 or not c.refused)
               order by c.item limit (select batch_size from head)
               for update of c skip locked),
           batch as (
               insert into grasp_batch (relay_id, epoch, family, purpose, items)
               select $1, $2, head.family, 'missing', (select count(*) from due) from head
               where exists (select from due)
               returning id, family),
           taken as (
               update grasp_coverage c set state = 'in_flight', batch = batch.id
               from due, batch where (c.relay_id, c.family, c.item) = ($1, batch.family, due.item)
               returning c.item)
           select id as "id!", family as "family!", array(select item from taken order by item) as "items!",
                  (select bool_and(refused) from due) as "is_refused!"
           from batch"#,
        lease.relay,
        lease.epoch,
        &families,
        with_refused,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.and_then(|row| {
        let family = Family::parse(&row.family)?;
        let (id, items, is_refused) = (row.id, row.items, row.is_refused);
        Some(Batch { id, lease, family, purpose: Purpose::Missing, items, is_refused })
    }))
}

/// Makes confirmed items missing, for this reason: the relay does not let them be verified or followed.
/// They are due after 65 s, and back off with each further failure. `is_refused` says that the reason is the
/// relay's own.
pub async fn lose(
    db: &PgPool,
    lease: Lease,
    family: Family,
    items: &[String],
    (reason, is_refused): (&str, bool),
) -> Result<Settled<()>, sqlx::Error> {
    let half = i32::try_from(items.len() / 2).unwrap_or(i32::MAX).clamp(1, 100);
    let lost = contended::retried(|| {
        sqlx::query_scalar!(
            r#"with holder as materialized (
                   select id from grasp_relay
                   where id = $1 and lease_epoch = $2 and lease_until > now() for share),
               lost as (
                   update grasp_coverage c
                   set state = 'missing', reason = $5, attempts = attempts + 1, refused = $6, batch_size = $7,
                       retry_at = now() + interval '65 seconds'
                   from holder
                   where c.relay_id = holder.id and c.family = $3 and c.item = any($4) and c.state = 'confirmed')
               select exists (select from holder) as "is_held!""#,
            lease.relay,
            lease.epoch,
            family.as_str(),
            items,
            one_line(reason),
            is_refused,
            half,
        )
        .fetch_one(db)
    });
    Ok(Settled::of(u64::from(lost.await?)))
}

/// Returns in how long the next missing item is due; `None` if no item is to be tried.
pub async fn next_due(
    db: impl PgExecutor<'_>,
    relay: Uuid,
) -> Result<Option<Duration>, sqlx::Error> {
    due_in(db, relay, true).await
}

/// As [`next_due`], without the items for which the relay's own refusal is recorded.
pub async fn next_unrefused(
    db: impl PgExecutor<'_>,
    relay: Uuid,
) -> Result<Option<Duration>, sqlx::Error> {
    due_in(db, relay, false).await
}

async fn due_in(
    db: impl PgExecutor<'_>,
    relay: Uuid,
    with_refused: bool,
) -> Result<Option<Duration>, sqlx::Error> {
    let seconds = sqlx::query_scalar!(
        r#"select extract(epoch from min(c.retry_at) - now())::float8
           from unnest(array['announcements', 'state', 'address', 'root', 'deletion']) as f (family), lateral (
               select retry_at from grasp_coverage c
               where c.relay_id = $1 and c.family = f.family and c.state = 'missing' and c.retry_at is not null
                 and ($2 or not c.refused)
               order by retry_at limit 1) c"#,
        relay,
        with_refused,
    )
    .fetch_one(db)
    .await?;
    Ok(seconds
        .map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}

/// Returns the confirmed items that follow `after`, at most 100 of one family; none at the end.
pub async fn confirmed(
    db: impl PgExecutor<'_>,
    relay: Uuid,
    after: Option<&(Family, String)>,
) -> Result<Option<(Family, Vec<String>)>, sqlx::Error> {
    let families: Vec<String> = Family::ALL.iter().map(ToString::to_string).collect();
    let row = sqlx::query!(
        r#"select f.family as "family!", c.items as "items!"
           from unnest($2::text[]) with ordinality as f (family, rank), lateral (
               select array_agg(item order by item) as items from (
                   select item from grasp_coverage c
                   where c.relay_id = $1 and c.family = f.family and c.state = 'confirmed'
                     and (f.family <> $3 or item > $4)
                   order by item limit $5) page) c
           where f.rank >= array_position($2, $3) and c.items is not null
           order by f.rank limit 1"#,
        relay,
        &families,
        after.map_or(Family::ALL[0].as_str(), |(family, _)| family.as_str()),
        after.map_or("", |(_, item)| item.as_str()),
        i64::try_from(ITEMS).unwrap_or(i64::MAX),
    )
    .fetch_optional(db)
    .await?;
    Ok(row.and_then(|row| Some((Family::parse(&row.family)?, row.items))))
}

/// Returns items that are not confirmed, in order after `after`, at most 1,000: each with the number of items
/// that may be asked for together.
pub async fn unconfirmed(
    db: impl PgExecutor<'_>,
    relay: Uuid,
    after: Option<&(String, String)>,
) -> Result<Vec<(String, String, i32)>, sqlx::Error> {
    let rows = sqlx::query!(
        "select family, item, batch_size from grasp_coverage
         where relay_id = $1 and state <> 'confirmed' and (family, item) > ($2, $3)
         order by family, item limit 1000",
        relay,
        after.map_or("", |(family, _)| family.as_str()),
        after.map_or("", |(_, item)| item.as_str()),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (row.family, row.item, row.batch_size)).collect())
}

/// Returns those of the items that are still wanted from the relay.
pub async fn still_wanted(
    db: impl PgExecutor<'_>,
    relay: Uuid,
    family: Family,
    items: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "select item from grasp_coverage
         where relay_id = $1 and family = $2 and item = any($3) order by item",
        relay,
        family.as_str(),
        items,
    )
    .fetch_all(db)
    .await
}
