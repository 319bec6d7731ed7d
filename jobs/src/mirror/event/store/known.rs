//! Ids that need no further work: events that are stored, and events that were refused before.

use std::collections::HashSet;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Refused, column, rows_of, sieve::FUTURE};
use crate::mirror::event::{EventId, Reason};

/// The longest wait of an event from the future, in seconds: ten years stand for "never".
const LONGEST_WAIT: i64 = 315_360_000;

/// The result of looking up ids. No signature is verified for it.
#[derive(Debug, Default)]
pub struct Known {
    /// Ids of events that are stored, deleted, or known and not wanted.
    pub ids: HashSet<EventId>,
}

/// Returns which of the ids need no further work, and stores that the upstream holds the stored
/// ones.
pub async fn known(db: &PgPool, upstream: Uuid, ids: &[EventId]) -> Result<Known, sqlx::Error> {
    // The lateral joins force one index lookup per id. Without them the planner may scan the whole
    // table while its statistics are young.
    let rows = sqlx::query!(
        r#"with asked as materialized (select distinct id from unnest($1::bytea[]) as asked (id)),
           here as materialized (
               select found.id from asked, lateral (select id from event where id = asked.id limit 1) found),
           held as (
               insert into event_source (event_id, upstream_id)
               select here.id, upstream.id from here, upstream
               where upstream.id = $2 and upstream.direction in ('up', 'both')
               order by here.id
               on conflict do nothing
           )
           select id as "id!" from here
           union
           select found.event_id from asked, lateral (
               select event_id from known_id
               where event_id = asked.id and upstream_id is null
                 and (retry_after is null or retry_after > now()) limit 1) found"#,
        &rows_of(ids.iter()),
        upstream,
    )
    .fetch_all(db)
    .await?;
    Ok(Known { ids: rows.iter().map(|row| EventId::of_row(&row.id)).collect() })
}

/// Remembers refused events. A reason that holds for the event itself is remembered for every
/// upstream; one that holds for this copy only, for the upstream that sent it.
pub(super) async fn remember(
    tx: &mut PgConnection,
    upstream: Uuid,
    refused: &[Refused],
    now: i64,
) -> Result<(), sqlx::Error> {
    let mut refused = refused.to_vec();
    refused.sort_unstable();
    refused.dedup_by_key(|(id, _, _)| *id);
    let (of_event, of_copy): (Vec<Refused>, Vec<Refused>) =
        refused.into_iter().partition(|(_, _, reason)| reason.is_of_event());
    if !of_event.is_empty() {
        remember_events(tx, &of_event, now).await?;
    }
    if !of_copy.is_empty() {
        remember_copies(tx, upstream, &of_copy).await?;
    }
    Ok(())
}

async fn remember_events(
    tx: &mut PgConnection,
    refused: &[Refused],
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into known_id (event_id, created_at, reason, retry_after)
         select n.id, n.created_at, n.reason, now() + make_interval(secs => n.wait)
         from unnest($1::bytea[], $2::bigint[], $3::text[], $4::float8[])
             as n (id, created_at, reason, wait)
         on conflict (event_id) where upstream_id is null
         do update set reason = excluded.reason, retry_after = excluded.retry_after",
        &rows_of(refused.iter().map(|(id, _, _)| id)),
        &column(refused, |(_, at, _)| *at),
        &column(refused, |(_, _, reason)| reason.as_str().to_owned()),
        &column(refused, |event| wait(event, now)) as &[Option<f64>],
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The seconds until an event from the future is accepted; `None` for other reasons, which stay.
fn wait((_, at, reason): &Refused, now: i64) -> Option<f64> {
    let wait = (*at - FUTURE - now).clamp(0, LONGEST_WAIT);
    (*reason == Reason::Future).then(|| f64::from(i32::try_from(wait).unwrap_or(i32::MAX)))
}

async fn remember_copies(
    tx: &mut PgConnection,
    upstream: Uuid,
    refused: &[Refused],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into known_id (event_id, upstream_id, created_at, reason)
         select n.id, upstream.id, n.created_at, n.reason
         from unnest($1::bytea[], $2::bigint[], $3::text[]) as n (id, created_at, reason), upstream
         where upstream.id = $4
         on conflict (event_id, upstream_id) where upstream_id is not null
         do update set reason = excluded.reason",
        &rows_of(refused.iter().map(|(id, _, _)| id)),
        &column(refused, |(_, at, _)| *at),
        &column(refused, |(_, _, reason)| reason.as_str().to_owned()),
        upstream,
    )
    .execute(tx)
    .await?;
    Ok(())
}
