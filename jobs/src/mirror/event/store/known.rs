//! Ids that need no further work: events that are stored, and events that were refused before.

use std::collections::HashSet;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{column, rows_of, sieve::FUTURE};
use crate::mirror::event::{Event, EventId, Reason};

/// How long a refused id is remembered, in seconds: 30 days. A rule that refused an event refuses it
/// again, so that forgetting an id costs one more fetch and one more verification.
pub(in crate::mirror::event) const REMEMBERED: i64 = 2_592_000;
/// How long an event that the database refused is remembered: another release may take it.
const REFUSED_BY_STORE: i64 = 86_400;
/// The most ids of one upstream's bad copies: a hostile upstream can invent any number.
const MAX_COPIES: i64 = 100_000;

/// A refused event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refused {
    /// The id that the event claims.
    pub id: EventId,
    /// The time that the event claims, in Unix seconds.
    pub created_at: i64,
    /// Why the event was refused.
    pub reason: Reason,
    /// The kind that the event claims; `None` if it is unreadable.
    pub kind: Option<u16>,
    /// The author that the event claims; `None` if it is unreadable.
    pub author: Option<[u8; 32]>,
    /// The value that exceeds a limit; a raised limit makes the id unknown again.
    pub size: Option<i32>,
}

impl Refused {
    /// Describes an event that was refused for a reason other than its size.
    pub fn of(event: &Event, reason: Reason) -> Self {
        let (id, created_at) = (event.id, event.created_at);
        Self {
            id,
            created_at,
            reason,
            kind: Some(event.kind),
            author: Some(event.pubkey),
            size: None,
        }
    }

    /// Returns for how many seconds the id is remembered. An event from the future is fetched again
    /// when its time has come.
    fn remembered(&self, now: i64) -> i64 {
        match self.reason {
            Reason::Future => (self.created_at - FUTURE - now).clamp(0, REMEMBERED),
            Reason::RefusedByStore => REFUSED_BY_STORE,
            _ => REMEMBERED,
        }
    }
}

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
               select found.id, found.source from asked, lateral (select id, source from event where id = asked.id limit 1) found),
           held as (
               insert into event_source (event_id, upstream_id)
               select here.id, upstream.id from here, upstream
               where upstream.id = $2 and upstream.direction in ('up', 'both')
                 and here.source is distinct from upstream.number
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

/// Remembers refused events, except for ephemeral ones. A reason that holds for the event itself is
/// remembered for every upstream; one that holds for this copy only, for the upstream that sent it.
pub(super) async fn remember(
    tx: &mut PgConnection,
    upstream: Uuid,
    refused: &[Refused],
    now: i64,
) -> Result<(), sqlx::Error> {
    let mut refused = refused.to_vec();
    refused.retain(|one| one.reason != Reason::Ephemeral);
    refused.sort_unstable();
    refused.dedup_by_key(|one| one.id);
    let (of_event, of_copy): (Vec<Refused>, Vec<Refused>) =
        refused.into_iter().partition(|one| one.reason.is_of_event());
    if !of_event.is_empty() {
        remember_events(tx, &of_event, now).await?;
    }
    if !of_copy.is_empty() {
        remember_copies(tx, upstream, &of_copy, now).await?;
    }
    Ok(())
}

async fn remember_events(
    tx: &mut PgConnection,
    refused: &[Refused],
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into known_id (event_id, created_at, reason, kind, pubkey, retry_after)
         select n.id, n.created_at, n.reason, n.kind, n.pubkey, now() + make_interval(secs => n.secs)
         from unnest($1::bytea[], $2::bigint[], $3::text[], $4::int[], $5::bytea[], $6::bigint[])
             as n (id, created_at, reason, kind, pubkey, secs)
         on conflict (event_id) where upstream_id is null
         do update set reason = excluded.reason, retry_after = excluded.retry_after",
        &rows_of(refused.iter().map(|one| &one.id)),
        &column(refused, |one| one.created_at),
        &column(refused, |one| one.reason.as_str().to_owned()),
        &column(refused, |one| one.kind.map(i32::from)) as &[Option<i32>],
        &column(refused, |one| one.author.map(Vec::from)) as &[Option<Vec<u8>>],
        &column(refused, |one| one.remembered(now)),
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn remember_copies(
    tx: &mut PgConnection,
    upstream: Uuid,
    refused: &[Refused],
    now: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into known_id (event_id, upstream_id, created_at, reason, kind, pubkey, size, retry_after)
         select n.id, upstream.id, n.created_at, n.reason, n.kind, n.pubkey, n.size,
                now() + make_interval(secs => n.secs)
         from unnest($1::bytea[], $2::bigint[], $3::text[], $4::int[], $5::bytea[], $6::int[], $7::bigint[])
                  as n (id, created_at, reason, kind, pubkey, size, secs),
              upstream
         where upstream.id = $8
           and (select count(*) from (select from known_id where upstream_id = $8 limit $9) few) < $9
         on conflict (event_id, upstream_id) where upstream_id is not null
         do update set reason = excluded.reason, size = excluded.size,
                       retry_after = excluded.retry_after",
        &rows_of(refused.iter().map(|one| &one.id)),
        &column(refused, |one| one.created_at),
        &column(refused, |one| one.reason.as_str().to_owned()),
        &column(refused, |one| one.kind.map(i32::from)) as &[Option<i32>],
        &column(refused, |one| one.author.map(Vec::from)) as &[Option<Vec<u8>>],
        &column(refused, |one| one.size) as &[Option<i32>],
        &column(refused, |one| one.remembered(now)),
        upstream,
        MAX_COPIES,
    )
    .execute(tx)
    .await?;
    Ok(())
}
