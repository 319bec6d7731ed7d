//! Forgetting parked events: those that are too old, and the oldest of too many.

use serde::Serialize;
use sqlx::PgPool;

/// How many parked events a service keeps.
const MAX_PARKED: i64 = 200_000;
/// The rows that one statement deletes.
const PAGE: i64 = 5000;
/// The statements of one call.
const PAGES: u32 = 20;

/// The parked events that were forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Expired {
    /// Those whose time was over.
    pub expired: u64,
    /// Those beyond the limit of their service.
    pub evicted: u64,
}

/// Forgets parked events that are older than 7 days, and the oldest of each service beyond 200,000; at
/// most 100,000 of each in one call.
///
/// # Errors
/// The database is unreachable or refused a statement.
pub async fn expire(db: &PgPool) -> Result<Expired, sqlx::Error> {
    expire_beyond(db, MAX_PARKED).await
}

/// Like [`expire`], with another limit of events per service.
///
/// # Errors
/// See [`expire`].
pub async fn expire_beyond(db: &PgPool, limit: i64) -> Result<Expired, sqlx::Error> {
    let mut all = Expired::default();
    for _ in 0..PAGES {
        let (expired, evicted) = (old(db).await?, beyond(db, limit).await?);
        all.expired += expired;
        all.evicted += evicted;
        if expired + evicted == 0 {
            break;
        }
    }
    Ok(all)
}

async fn old(db: &PgPool) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from parked where (upstream_id, event_id) in (
             select upstream_id, event_id from parked where expires_at <= now()
             order by expires_at limit $1 for update skip locked)",
        PAGE,
    );
    Ok(deleted.execute(db).await?.rows_affected())
}

async fn beyond(db: &PgPool, limit: i64) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from parked p using (
             select old.upstream_id, old.event_id
             from (select s.upstream_id, (select count(*) from parked p where p.upstream_id = s.upstream_id) as events
                   from grasp_service s) held
             cross join lateral (
                 select upstream_id, event_id from parked
                 where parked.upstream_id = held.upstream_id
                 order by parked_at, event_id limit least(greatest(held.events - $1, 0), $2)) old) old
         where (p.upstream_id, p.event_id) = (old.upstream_id, old.event_id)",
        limit,
        PAGE,
    );
    Ok(deleted.execute(db).await?.rows_affected())
}
