//! Counts of events, for metrics, commands and pages.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::Reason;

/// Adds to the counts of this minute and of an upstream's rejections.
///
/// # Errors
/// The database did not answer; the events are stored all the same.
pub async fn note(
    db: &PgPool,
    upstream: Uuid,
    stored: i64,
    duplicate: i64,
    rejected: &[(Reason, i64)],
) -> Result<(), sqlx::Error> {
    let reasons: Vec<String> =
        rejected.iter().map(|(reason, _)| reason.as_str().to_owned()).collect();
    let counts: Vec<i64> = rejected.iter().map(|(_, count)| *count).collect();
    let mut tx = db.begin().await?;
    // Counts may miss the last moment before a crash of the server; nothing waits for the disk.
    sqlx::query!("set local synchronous_commit = off").execute(&mut *tx).await?;
    sqlx::query!(
        "with minute as (
             insert into ingest_minute as m (minute, stored, duplicate, rejected)
             values (date_trunc('minute', now()), $2, $3, $4)
             on conflict (minute) do update set
                 stored = m.stored + excluded.stored, duplicate = m.duplicate + excluded.duplicate,
                 rejected = m.rejected + excluded.rejected
         )
         insert into rejection as r (upstream_id, reason, events)
         select upstream.id, n.reason, n.events
         from unnest($5::text[], $6::bigint[]) as n (reason, events), upstream where upstream.id = $1
         order by n.reason
         on conflict (upstream_id, reason) do update
             set events = r.events + excluded.events, last_at = now()",
        upstream,
        stored,
        duplicate,
        counts.iter().sum::<i64>(),
        &reasons,
        &counts,
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}

/// Events by kind.
#[derive(Debug, Clone, Serialize)]
pub struct KindCount {
    /// The kind.
    pub kind: i32,
    /// Live ones.
    pub events: i64,
}

/// Events of a day.
#[derive(Debug, Clone, Serialize)]
pub struct DayCount {
    /// Its beginning, UTC.
    pub day: DateTime<Utc>,
    /// Stored on it.
    pub stored: i64,
}

/// Refused events, by why.
#[derive(Debug, Clone, Serialize)]
pub struct ReasonCount {
    /// Why.
    pub reason: String,
    /// How many.
    pub events: i64,
}

/// The store at one look.
#[derive(Debug, Clone, Serialize)]
pub struct EventStats {
    /// Rows, as the planner estimates them where they are many.
    pub total: i64,
    /// Stored since midnight, UTC.
    pub today: i64,
    /// Mean of the last five whole minutes.
    pub per_minute: f64,
    /// The ten kinds with most live events.
    pub by_kind: Vec<KindCount>,
    /// The last seven days, oldest first.
    pub days: Vec<DayCount>,
    /// Refused by why, most first.
    pub rejected: Vec<ReasonCount>,
}

/// Reads the counts; `with_kinds` costs a scan of an index.
///
/// # Errors
/// The database did not answer.
pub async fn stats(db: &PgPool, with_kinds: bool) -> Result<EventStats, sqlx::Error> {
    let recent = sqlx::query!(
        r#"select coalesce(sum(stored) filter (where minute >= date_trunc('day', now(), 'UTC')), 0)::bigint as "today!",
                  coalesce(sum(stored) filter (where minute >= date_trunc('minute', now()) - interval '5 minutes'
                                                 and minute < date_trunc('minute', now())), 0)::float8 / 5 as "per_minute!"
           from ingest_minute where minute > now() - interval '25 hours'"#
    )
    .fetch_one(db)
    .await?;
    Ok(EventStats {
        total: total(db).await?,
        today: recent.today,
        per_minute: recent.per_minute,
        by_kind: if with_kinds { kinds(db).await? } else { Vec::new() },
        days: days(db).await?,
        rejected: rejected(db).await?,
    })
}

/// Counted where they are few, else as the planner estimates.
async fn total(db: &PgPool) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select case when few.events <= 50000 then few.events
                       else greatest(few.events, table_of.reltuples::bigint) end as "total!"
           from (select count(*) as events from (select from event limit 50001) counted) few,
                pg_class table_of
           where table_of.oid = 'event'::regclass"#
    )
    .fetch_one(db)
    .await
}

async fn kinds(db: &PgPool) -> Result<Vec<KindCount>, sqlx::Error> {
    sqlx::query_as!(
        KindCount,
        r#"select kind, count(*) as "events!" from event where deleted_at is null
           group by kind order by 2 desc, 1 limit 10"#
    )
    .fetch_all(db)
    .await
}

async fn days(db: &PgPool) -> Result<Vec<DayCount>, sqlx::Error> {
    sqlx::query_as!(
        DayCount,
        r#"select day as "day!", coalesce(sum(stored), 0)::bigint as "stored!"
           from generate_series(date_trunc('day', now(), 'UTC') - interval '6 days',
                                date_trunc('day', now(), 'UTC'), interval '1 day') day
           left join ingest_minute on minute >= day and minute < day + interval '1 day'
           group by day order by day"#
    )
    .fetch_all(db)
    .await
}

async fn rejected(db: &PgPool) -> Result<Vec<ReasonCount>, sqlx::Error> {
    sqlx::query_as!(
        ReasonCount,
        r#"select reason, sum(events)::bigint as "events!" from rejection
           group by reason order by 2 desc, 1"#
    )
    .fetch_all(db)
    .await
}
