//! Statistics of the store, for metrics, commands and pages.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    Reason, Tally,
    kinds::{self, KindCount},
};

/// Adds a tally to the counts of this minute, and its rejections to those of the upstream. This is
/// the last statement of the transaction that stores the events, because all such transactions wait
/// for each other at the row of the minute.
pub(super) async fn note(
    db: impl PgExecutor<'_>,
    upstream: Uuid,
    tally: &Tally,
) -> Result<(), sqlx::Error> {
    let word = |reason: &Reason| reason.as_str().to_owned();
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
        tally.stored,
        tally.duplicate,
        tally.rejected(),
        &tally.rejected.keys().map(word).collect::<Vec<_>>(),
        &tally.rejected.values().copied().collect::<Vec<_>>(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The events of a day.
#[derive(Debug, Clone, Serialize)]
pub struct DayCount {
    /// The start of the day, UTC.
    pub day: DateTime<Utc>,
    /// Events stored on this day, deleted ones included.
    pub stored: i64,
}

/// Rejected events by reason.
#[derive(Debug, Clone, Serialize)]
pub struct ReasonCount {
    /// The reason, as [`Reason::as_str`] names it.
    pub reason: String,
    /// The number of rejected events.
    pub events: i64,
}

/// An overview of the store.
#[derive(Debug, Clone, Serialize)]
pub struct EventStats {
    /// Stored events, deleted ones included.
    pub total: i64,
    /// Events stored since midnight, UTC.
    pub today: i64,
    /// Events stored per minute, as the average of the last five whole minutes.
    pub per_minute: f64,
    /// The ten kinds with the most live events, in descending order.
    pub by_kind: Vec<KindCount>,
    /// The last seven days, oldest first.
    pub days: Vec<DayCount>,
    /// Rejected events of all upstreams by reason, in descending order.
    pub rejected: Vec<ReasonCount>,
}

/// Reads the overview from counters: the cost does not grow with the number of events.
pub async fn stats(db: &PgPool) -> Result<EventStats, sqlx::Error> {
    let recent = sqlx::query!(
        r#"select coalesce(sum(stored) filter (where minute >= date_trunc('day', now(), 'UTC')), 0)::bigint as "today!",
                  coalesce(sum(stored) filter (where minute >= date_trunc('minute', now()) - interval '5 minutes'
                                                 and minute < date_trunc('minute', now())), 0)::float8 / 5 as "per_minute!"
           from ingest_minute where minute > now() - interval '25 hours'"#
    )
    .fetch_one(db)
    .await?;
    Ok(EventStats {
        total: kinds::total(db).await?,
        today: recent.today,
        per_minute: recent.per_minute,
        by_kind: kinds::top(db).await?,
        days: days(db).await?,
        rejected: rejected(db).await?,
    })
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

/// Returns the rejected events of an upstream by reason, in descending order.
pub async fn rejected_of(
    db: impl PgExecutor<'_>,
    upstream: Uuid,
) -> Result<Vec<ReasonCount>, sqlx::Error> {
    sqlx::query_as!(
        ReasonCount,
        "select reason, events from rejection where upstream_id = $1
         order by events desc, reason limit 100",
        upstream,
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
