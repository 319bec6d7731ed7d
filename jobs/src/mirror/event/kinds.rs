//! Counters of the store by kind. Triggers of the table `event` append differences to `kind_change`,
//! in the transaction that changes the events; [`roll_up`] adds them to `kind_count`. Both tables
//! together have the exact numbers at any time.

use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

/// The live events of a kind.
#[derive(Debug, Clone, Serialize)]
pub struct KindCount {
    /// The number of the kind.
    pub kind: i32,
    /// The number of live events.
    pub events: i64,
}

/// Adds the differences to the counters. The first call after an upgrade counts the whole table once.
///
/// # Errors
/// See the module [`event`](super); nothing is lost, and a further call continues.
pub async fn roll_up(db: &PgPool) -> Result<(), sqlx::Error> {
    if !is_counted(db).await? {
        count_all(db).await?;
    }
    sqlx::query!(
        "with change as (delete from kind_change returning kind, live, stored)
         insert into kind_count as k (kind, live, stored)
         select kind, sum(live), sum(stored) from change group by kind order by kind
         on conflict (kind) do update
             set live = k.live + excluded.live, stored = k.stored + excluded.stored"
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn is_counted(db: impl PgExecutor<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select exists (select from kind_count where kind = -1) as "is!""#)
        .fetch_one(db)
        .await
}

/// Counts the events that are in no difference. One statement has one snapshot, so the events and the
/// differences agree.
async fn count_all(db: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    sqlx::query!("set local statement_timeout = 0").execute(&mut *tx).await?;
    sqlx::query!(
        "insert into kind_count (kind, live, stored)
         select kind, sum(live), sum(stored)
         from (select kind, count(*) filter (where deleted_at is null) as live, count(*) as stored
               from event group by kind
               union all
               select kind, -sum(live), -sum(stored) from kind_change group by kind) counted
         group by kind
         union all select -1, 0, 0
         on conflict do nothing"
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Returns the ten kinds with the most live events, in descending order.
pub(super) async fn top(db: impl PgExecutor<'_>) -> Result<Vec<KindCount>, sqlx::Error> {
    sqlx::query_as!(
        KindCount,
        r#"select kind as "kind!", sum(live)::bigint as "events!"
           from (select kind, live from kind_count
                 union all select kind, live from kind_change) counted
           group by kind having sum(live) > 0 order by 2 desc, 1 limit 10"#
    )
    .fetch_all(db)
    .await
}

/// Returns the number of stored events, deleted ones included. Until the first [`roll_up`] after an
/// upgrade, this is the planner's estimate.
pub(super) async fn total(db: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select case when exists (select from kind_count where kind = -1) then counted.events
                       else greatest(counted.events, table_of.reltuples::bigint) end as "total!"
           from (select coalesce(sum(stored), 0)::bigint as events
                 from (select stored from kind_count union all select stored from kind_change) kinds) counted,
                pg_class table_of
           where table_of.oid = 'event'::regclass"#
    )
    .fetch_one(db)
    .await
}
