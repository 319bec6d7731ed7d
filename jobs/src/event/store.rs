//! Storing: the one way in. A batch is one transaction (kind-5 events: one more); what it decides
//! holds under any concurrency and in any order of arrival:
//!
//! - Storing takes the [`LOCK`] shared, deleting takes it alone: a deletion and its target never pass
//!   each other unseen, and a position below the newest is never still to come (see `outgoing`).
//! - `event_head` decides between versions of a replaceable or addressable key. Rows are locked in the
//!   order of their keys, so nobody deadlocks. A deleted version counts too: else what is left would
//!   depend on what came first.

use std::collections::{HashMap, HashSet};

use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::{Event, EventId, Reason, Rule, deletion};
use crate::queue;

/// Seconds that an event may be ahead of our clock.
const FUTURE: i64 = 900;
/// The advisory lock of the store; any number that nobody else uses.
pub(super) const LOCK: i64 = 0x54_45_4e_44_45_52;

/// What is to be stored together, at most some hundred events.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// The upstream that sent them.
    pub upstream: Uuid,
    /// Events whose id and signature were verified.
    pub events: &'a [Event],
    /// What was refused before: id and time as claimed, and why.
    pub refused: &'a [(EventId, i64, Reason)],
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is here now.
    New,
    /// It was here, or is known not to be wanted.
    Duplicate,
    /// It is not stored, for good or, from the future, for now.
    Refused(Reason),
}

/// What is known of ids before any signature is verified.
#[derive(Debug, Default)]
pub struct Known {
    /// Stored, deleted, or known and not wanted.
    pub ids: HashSet<EventId>,
}

/// Which of the ids need no further work; notes that the upstream holds those that are stored.
///
/// # Errors
/// The database did not answer.
pub async fn known(db: &PgPool, upstream: Uuid, ids: &[EventId]) -> Result<Known, sqlx::Error> {
    // One lookup each: left to itself, the planner may read the whole table while its statistics are
    // young.
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

/// Stores a batch; answers in the order of its events.
///
/// # Errors
/// The database did not answer. What was stored before stays; asking again is harmless.
pub async fn store(db: &PgPool, batch: Batch<'_>) -> Result<Vec<Stored>, sqlx::Error> {
    let mut outcomes: HashMap<EventId, Stored> = HashMap::new();
    let (deletions, others): (Vec<&Event>, Vec<&Event>) =
        unique(batch.events).into_iter().partition(|event| event.is_deletion());
    if !others.is_empty() || !batch.refused.is_empty() {
        let mut tx = begin(db).await?;
        sqlx::query!("select pg_advisory_xact_lock_shared($1)", LOCK).execute(&mut *tx).await?;
        store_others(&mut tx, batch, &others, &mut outcomes).await?;
        tx.commit().await?;
    }
    if !deletions.is_empty() {
        let mut tx = begin(db).await?;
        sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
        store_deletions(&mut tx, batch.upstream, &deletions, &mut outcomes).await?;
        tx.commit().await?;
    }
    // A second copy within the batch is a duplicate of the first.
    let mut outcome = |event: &Event| {
        let first = outcomes.get(&event.id).copied().unwrap_or(Stored::Duplicate);
        if first == Stored::New {
            outcomes.insert(event.id, Stored::Duplicate);
        }
        first
    };
    Ok(batch.events.iter().map(&mut outcome).collect())
}

/// A transaction whose commit does not wait for the disk. Nothing is lost by that: a window is done by a
/// later commit that does wait, and PostgreSQL's log keeps the order of commits, so that whoever sees
/// the window done after a crash finds its events too.
async fn begin(db: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query!("set local synchronous_commit = off").execute(&mut *tx).await?;
    Ok(tx)
}

/// One copy of each, in the order in which rows are locked everywhere.
fn unique(events: &[Event]) -> Vec<&Event> {
    let mut events: Vec<&Event> = events.iter().collect();
    events.sort_by_key(|event| (event.created_at, event.id));
    events.dedup_by_key(|event| event.id);
    events
}

async fn store_others(
    tx: &mut PgConnection,
    batch: Batch<'_>,
    events: &[&Event],
    outcomes: &mut HashMap<EventId, Stored>,
) -> Result<(), sqlx::Error> {
    let now = unix_now(tx).await?;
    let (late, events): (Vec<&Event>, Vec<&Event>) =
        events.iter().partition(|event| refusal(event, now).is_some());
    let mut refused: Vec<_> = late
        .iter()
        .filter_map(|event| Some((event.id, event.created_at, refusal(event, now)?)))
        .collect();
    let deleted = marked(tx, &events).await?;
    let winners = win(tx, &events).await?;
    let reason = |event: &Event| {
        if deleted.contains(&event.id) {
            return Some(Reason::Deleted);
        }
        (event.d_tag().is_some() && !winners.contains(&event.id)).then_some(Reason::Superseded)
    };
    refused.extend(
        events.iter().filter_map(|event| Some((event.id, event.created_at, reason(event)?))),
    );
    let kept: Vec<&Event> =
        events.iter().copied().filter(|event| reason(event).is_none()).collect();
    let new = insert(tx, batch.upstream, &kept).await?;
    outcomes.extend(new.into_iter().map(|id| (id, Stored::New)));
    outcomes.extend(refused.iter().map(|(id, _, reason)| (*id, Stored::Refused(*reason))));
    refused.extend_from_slice(batch.refused);
    remember(tx, batch.upstream, &refused, now).await
}

async fn store_deletions(
    tx: &mut PgConnection,
    upstream: Uuid,
    events: &[&Event],
    outcomes: &mut HashMap<EventId, Stored>,
) -> Result<(), sqlx::Error> {
    let now = unix_now(tx).await?;
    let (late, events): (Vec<&Event>, Vec<&Event>) =
        events.iter().partition(|event| refusal(event, now).is_some());
    let refused: Vec<_> = late
        .iter()
        .filter_map(|event| Some((event.id, event.created_at, refusal(event, now)?)))
        .collect();
    let new = insert(tx, upstream, &events).await?;
    deletion::apply(tx, &events).await?;
    outcomes.extend(new.into_iter().map(|id| (id, Stored::New)));
    outcomes.extend(refused.iter().map(|(id, _, reason)| (*id, Stored::Refused(*reason))));
    remember(tx, upstream, &refused, now).await
}

/// What holds of an event wherever it comes from, at this time.
fn refusal(event: &Event, now: i64) -> Option<Reason> {
    if event.rule() == Rule::Ephemeral {
        return Some(Reason::Ephemeral);
    }
    if event.created_at > now + FUTURE {
        return Some(Reason::Future);
    }
    if event.expires_at().is_some_and(|at| at <= now) {
        return Some(Reason::Expired);
    }
    event.is_protected().then_some(Reason::Protected)
}

async fn unix_now(tx: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select extract(epoch from clock_timestamp())::bigint as "now!""#)
        .fetch_one(tx)
        .await
}

/// Which of the events some deletion covers.
async fn marked(tx: &mut PgConnection, events: &[&Event]) -> Result<HashSet<EventId>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        r#"select n.id as "id!"
           from unnest($1::bytea[], $2::bytea[], $3::int[], $4::text[], $5::bigint[])
               as n (id, pubkey, kind, d_tag, created_at)
           where exists (select from deletion_mark m where m.target = n.id and m.author = n.pubkey)
              or exists (select from deletion_address a
                         where a.author = n.pubkey and a.kind = n.kind and a.d_tag = n.d_tag
                           and a.up_to >= n.created_at)"#,
        &rows_of(events.iter().map(|event| &event.id)),
        &column(events, |event| event.pubkey.to_vec()),
        &column(events, |event| i32::from(event.kind)),
        &column(events, |event| event.d_tag().map(str::to_owned)) as &[Option<String>],
        &column(events, |event| event.created_at),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(|id| EventId::of_row(id)).collect())
}

/// Lets the versions of replaceable and addressable keys compete: newest first, and of one second the
/// smallest id. The winners; what they replace is soft-deleted.
async fn win(tx: &mut PgConnection, events: &[&Event]) -> Result<HashSet<EventId>, sqlx::Error> {
    let mut best: HashMap<(&[u8; 32], u16, &str), &Event> = HashMap::new();
    for event in events {
        let Some(d_tag) = event.d_tag() else { continue };
        let best = best.entry((&event.pubkey, event.kind, d_tag)).or_insert(event);
        if (event.created_at, best.id) > (best.created_at, event.id) {
            *best = event;
        }
    }
    let mut best: Vec<_> = best.into_iter().collect();
    if best.is_empty() {
        return Ok(HashSet::new());
    }
    best.sort_by_key(|(key, _)| *key);
    let winners = sqlx::query_scalar!(
        "insert into event_head as head (pubkey, kind, d_tag, created_at, id)
         select * from unnest($1::bytea[], $2::int[], $3::text[], $4::bigint[], $5::bytea[])
         on conflict (pubkey, kind, d_tag) do update
             set created_at = excluded.created_at, id = excluded.id
             where excluded.created_at > head.created_at
                or (excluded.created_at = head.created_at and excluded.id <= head.id)
         returning id",
        &column(&best, |(key, _)| key.0.to_vec()),
        &column(&best, |(key, _)| i32::from(key.1)),
        &column(&best, |(key, _)| key.2.to_owned()),
        &column(&best, |(_, event)| event.created_at),
        &rows_of(best.iter().map(|(_, event)| &event.id)),
    )
    .fetch_all(&mut *tx)
    .await?;
    // A statement of its own: only after waiting for the heads does it see what others replaced.
    sqlx::query!(
        "update event set deleted_at = now(), delete_reason = 'replaced'
         from unnest($1::bytea[]) as won (id) join event_head head on head.id = won.id
         where event.pubkey = head.pubkey and event.kind = head.kind and event.d_tag = head.d_tag
           and event.deleted_at is null and event.id <> head.id",
        &winners,
    )
    .execute(tx)
    .await?;
    Ok(winners.iter().map(|id| EventId::of_row(id)).collect())
}

/// Inserts events with their tags; which of them were new. Local changes are pushed at once to the
/// upstreams that want that.
async fn insert(
    tx: &mut PgConnection,
    upstream: Uuid,
    events: &[&Event],
) -> Result<Vec<EventId>, sqlx::Error> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let tags = |event: &Event| serde_json::to_value(&event.tags).unwrap_or_default();
    let rows = sqlx::query!(
        "insert into event (id, pubkey, created_at, kind, tags, content, sig, d_tag, expires_at)
         select * from unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::int[], $5::jsonb[],
                              $6::text[], $7::bytea[], $8::text[], $9::bigint[])
         on conflict (id) do nothing
         returning id, position",
        &rows_of(events.iter().map(|event| &event.id)),
        &column(events, |event| event.pubkey.to_vec()),
        &column(events, |event| event.created_at),
        &column(events, |event| i32::from(event.kind)),
        &column(events, |event| tags(event)),
        &column(events, |event| event.content.clone()),
        &column(events, |event| event.sig.to_vec()),
        &column(events, |event| event.d_tag().map(str::to_owned)) as &[Option<String>],
        &column(events, |event| event.expires_at()) as &[Option<i64>],
    )
    .fetch_all(&mut *tx)
    .await?;
    let positions: HashMap<EventId, i64> =
        rows.iter().map(|row| (EventId::of_row(&row.id), row.position)).collect();
    insert_tags(tx, events, &positions).await?;
    hold(tx, upstream, events, &positions).await?;
    if !positions.is_empty() {
        queue::push_live_uploads(tx).await?;
    }
    Ok(positions.into_keys().collect())
}

async fn insert_tags(
    tx: &mut PgConnection,
    events: &[&Event],
    positions: &HashMap<EventId, i64>,
) -> Result<(), sqlx::Error> {
    let tags: Vec<_> = events
        .iter()
        .filter_map(|event| Some((positions.get(&event.id)?, event)))
        .flat_map(|(position, event)| event.indexed_tags().map(move |tag| (*position, tag)))
        .collect();
    if tags.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into event_tag (position, name, value, index)
         select * from unnest($1::bigint[], $2::text[], $3::text[], $4::int[])",
        &column(&tags, |(position, _)| *position),
        &column(&tags, |(_, tag)| tag.name.to_string()),
        &column(&tags, |(_, tag)| tag.value.to_owned()),
        &column(&tags, |(_, tag)| i32::try_from(tag.index).unwrap_or(i32::MAX)),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that the upstream holds the events, where something could be sent back to it; and forgets
/// that the new ones were not stored before.
async fn hold(
    tx: &mut PgConnection,
    upstream: Uuid,
    events: &[&Event],
    positions: &HashMap<EventId, i64>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with welcome as (
             delete from known_id where event_id = any($3) and upstream_id is null
         )
         insert into event_source (event_id, upstream_id)
         select n.id, upstream.id from unnest($1::bytea[]) as n (id), upstream
         where upstream.id = $2 and upstream.direction in ('up', 'both')
         order by n.id
         on conflict do nothing",
        &rows_of(events.iter().map(|event| &event.id)),
        upstream,
        &rows_of(positions.keys()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Remembers what was not stored: for every upstream where it was verified, else for this one.
async fn remember(
    tx: &mut PgConnection,
    upstream: Uuid,
    refused: &[(EventId, i64, Reason)],
    now: i64,
) -> Result<(), sqlx::Error> {
    let mut refused = refused.to_vec();
    refused.sort_unstable();
    refused.dedup_by_key(|(id, _, _)| *id);
    let (of_event, of_copy): (Vec<_>, Vec<_>) =
        refused.iter().partition(|(_, _, reason)| reason.is_of_event());
    let retry = |(_, at, reason): &(EventId, i64, Reason)| {
        let wait = (*at - FUTURE - now).clamp(0, 315_360_000); // ten years are as good as never
        (*reason == Reason::Future).then(|| f64::from(i32::try_from(wait).unwrap_or(i32::MAX)))
    };
    if !of_event.is_empty() {
        sqlx::query!(
            "insert into known_id (event_id, created_at, reason, retry_after)
             select n.id, n.created_at, n.reason, now() + make_interval(secs => n.wait)
             from unnest($1::bytea[], $2::bigint[], $3::text[], $4::float8[])
                 as n (id, created_at, reason, wait)
             on conflict (event_id) where upstream_id is null
             do update set reason = excluded.reason, retry_after = excluded.retry_after",
            &rows_of(of_event.iter().map(|(id, _, _)| id)),
            &column(&of_event, |(_, at, _)| *at),
            &column(&of_event, |(_, _, reason)| reason.as_str().to_owned()),
            &column(&of_event, retry) as &[Option<f64>],
        )
        .execute(&mut *tx)
        .await?;
    }
    if !of_copy.is_empty() {
        sqlx::query!(
            "insert into known_id (event_id, upstream_id, created_at, reason)
             select n.id, upstream.id, n.created_at, n.reason
             from unnest($1::bytea[], $2::bigint[], $3::text[]) as n (id, created_at, reason), upstream
             where upstream.id = $4
             on conflict (event_id, upstream_id) where upstream_id is not null
             do update set reason = excluded.reason",
            &rows_of(of_copy.iter().map(|(id, _, _)| id)),
            &column(&of_copy, |(_, at, _)| *at),
            &column(&of_copy, |(_, _, reason)| reason.as_str().to_owned()),
            upstream,
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Ids as a query's parameter.
pub(super) fn rows_of<'a>(ids: impl Iterator<Item = &'a EventId>) -> Vec<Vec<u8>> {
    ids.map(|id| id.0.to_vec()).collect()
}

/// One column of many rows as a query's parameter.
pub(super) fn column<Row, Value>(rows: &[Row], value: impl Fn(&Row) -> Value) -> Vec<Value> {
    rows.iter().map(value).collect()
}
