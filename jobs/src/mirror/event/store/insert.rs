//! The rows of an event: the event, and the upstream that holds it. Its tags are found by an index.

use std::{borrow::Cow, collections::HashSet};

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{column, rows_of};
use crate::mirror::{
    event::{Event, EventId, exact},
    work,
};

/// Inserts events and returns the ids of those that were new. Live upstreams that take events get
/// an upload job.
pub(super) async fn insert(
    tx: &mut PgConnection,
    upstream: Uuid,
    events: &[&Event],
) -> Result<Vec<EventId>, sqlx::Error> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let new = insert_events(tx, upstream, events).await?;
    note_source(tx, upstream, events, &new).await?;
    if !new.is_empty() {
        work::push_live_uploads(tx).await?;
    }
    Ok(new)
}

/// Inserts the rows of the events, each with its source if that takes events: nothing is sent back to it. The
/// constraint is named, because the key of a store in partitions is the time and the id (ADR 29).
async fn insert_events(
    tx: &mut PgConnection,
    upstream: Uuid,
    events: &[&Event],
) -> Result<Vec<EventId>, sqlx::Error> {
    let (tags, contents): (Vec<Value>, Vec<String>) =
        events.iter().map(|event| exact::columns(event)).unzip();
    let rows = sqlx::query_scalar!(
        "insert into event (id, pubkey, created_at, kind, tags, content, sig, d_tag, expires_at, source)
         select n.*, (select number from upstream where id = $10 and direction in ('up', 'both'))
         from unnest($1::bytea[], $2::bytea[], $3::bigint[], $4::int[], $5::jsonb[],
                     $6::text[], $7::bytea[], $8::text[], $9::bigint[]) n
         on conflict on constraint event_pkey do nothing
         returning id",
        &rows_of(events.iter().map(|event| &event.id)),
        &column(events, |event| event.pubkey.to_vec()),
        &column(events, |event| event.created_at),
        &column(events, |event| i32::from(event.kind)),
        &tags,
        &contents,
        &column(events, |event| event.sig.to_vec()),
        &column(events, |event| event.key_tag().map(Cow::into_owned)) as &[Option<String>],
        &column(events, |event| event.expires_at()) as &[Option<i64>],
        upstream,
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(|id| EventId::of_row(id)).collect())
}

/// Stores that the upstream holds the events too that others sent before; an upstream that takes no
/// events needs no rows. Ids of new events are no longer ids that are known and not stored.
async fn note_source(
    tx: &mut PgConnection,
    upstream: Uuid,
    events: &[&Event],
    new: &[EventId],
) -> Result<(), sqlx::Error> {
    let is_new: HashSet<&EventId> = new.iter().collect();
    let others = events.iter().map(|event| &event.id).filter(|id| !is_new.contains(id));
    sqlx::query!(
        "with welcome as (
             delete from known_id where event_id = any($3) and upstream_id is null
         )
         insert into event_source (event_id, upstream_id)
         select here.id, upstream.id
         from upstream, unnest($1::bytea[]) as n (id),
              lateral (select id, source from event where event.id = n.id limit 1) here
         where upstream.id = $2 and upstream.direction in ('up', 'both')
           and here.source is distinct from upstream.number
         order by here.id
         on conflict do nothing",
        &rows_of(others),
        upstream,
        &rows_of(new.iter()),
    )
    .execute(tx)
    .await?;
    Ok(())
}
