//! The rows of an event: the event, and the upstream that holds it. Its tags are found by an index.

use std::{borrow::Cow, collections::HashMap};

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{column, rows_of};
use crate::mirror::{
    event::{Event, EventId, exact},
    work,
};

/// The position of each event that was new.
type Positions = HashMap<EventId, i64>;

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
    let positions = insert_events(tx, events).await?;
    note_source(tx, upstream, events, &positions).await?;
    if !positions.is_empty() {
        work::push_live_uploads(tx).await?;
    }
    Ok(positions.into_keys().collect())
}

async fn insert_events(tx: &mut PgConnection, events: &[&Event]) -> Result<Positions, sqlx::Error> {
    let (tags, contents): (Vec<Value>, Vec<String>) =
        events.iter().map(|event| exact::columns(event)).unzip();
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
        &tags,
        &contents,
        &column(events, |event| event.sig.to_vec()),
        &column(events, |event| event.key_tag().map(Cow::into_owned)) as &[Option<String>],
        &column(events, |event| event.expires_at()) as &[Option<i64>],
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.iter().map(|row| (EventId::of_row(&row.id), row.position)).collect())
}

/// Stores that the upstream holds the events, so that they are not sent back to it; an upstream
/// that takes no events needs no rows. Ids of new events are no longer ids that are known and not
/// stored.
async fn note_source(
    tx: &mut PgConnection,
    upstream: Uuid,
    events: &[&Event],
    positions: &Positions,
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
