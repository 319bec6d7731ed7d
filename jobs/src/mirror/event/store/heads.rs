//! Heads: the newest version of each replaceable or addressable key that was ever seen. Deleted
//! versions count too, because the result would otherwise depend on the order of arrival.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use sqlx::PgConnection;

use super::{column, rows_of};
use crate::mirror::event::{Event, EventId};

/// A replaceable or addressable key: author, kind and `d` tag, as the store has it.
type Key<'a> = (&'a [u8; 32], u16, Cow<'a, str>);

/// Lets versions compete for their keys and returns the ids of the winners. The newest version
/// wins; within a second, the smallest id wins. The versions that lose are soft-deleted.
pub(super) async fn win(
    tx: &mut PgConnection,
    events: &[&Event],
) -> Result<HashSet<EventId>, sqlx::Error> {
    let mut best: Vec<(Key<'_>, &Event)> = best(events).into_iter().collect();
    if best.is_empty() {
        return Ok(HashSet::new());
    }
    let winners: HashSet<EventId> =
        raise(tx, &best).await?.iter().map(|id| EventId::of_row(id)).collect();
    best.retain(|(_, event)| winners.contains(&event.id));
    replace(tx, &best).await?;
    Ok(winners)
}

/// Returns the best version of each key within the batch. The keys are ordered, because all
/// transactions lock heads in this order.
fn best<'a>(events: &[&'a Event]) -> BTreeMap<Key<'a>, &'a Event> {
    let mut best = BTreeMap::new();
    for event in events {
        let Some(d_tag) = event.key_tag() else { continue };
        let best = best.entry((&event.pubkey, event.kind, d_tag)).or_insert(*event);
        if beats(event, best) {
            *best = event;
        }
    }
    best
}

fn beats(event: &Event, other: &Event) -> bool {
    (event.created_at, other.id) > (other.created_at, event.id)
}

/// Raises the heads that a version beats; the winners' ids.
async fn raise(
    tx: &mut PgConnection,
    best: &[(Key<'_>, &Event)],
) -> Result<Vec<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar!(
        "insert into event_head as head (pubkey, kind, d_tag, created_at, id)
         select * from unnest($1::bytea[], $2::int[], $3::text[], $4::bigint[], $5::bytea[])
         on conflict (pubkey, kind, d_tag) do update
             set created_at = excluded.created_at, id = excluded.id
             where excluded.created_at > head.created_at
                or (excluded.created_at = head.created_at and excluded.id <= head.id)
         returning id",
        &column(best, |(key, _)| key.0.to_vec()),
        &column(best, |(key, _)| i32::from(key.1)),
        &column(best, |(key, _)| key.2.clone().into_owned()),
        &column(best, |(_, event)| event.created_at),
        &rows_of(best.iter().map(|(_, event)| &event.id)),
    )
    .fetch_all(tx)
    .await
}

/// Soft-deletes the versions that the winners replace. This is a separate statement: a statement
/// sees the rows of transactions that committed before it began, and the one above may have waited
/// for some. The lateral join forces one index lookup per key, whatever the planner expects.
async fn replace(tx: &mut PgConnection, winners: &[(Key<'_>, &Event)]) -> Result<(), sqlx::Error> {
    if winners.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "update event set deleted_at = now(), delete_reason = 'replaced'
         where id in (
             select old.id
             from unnest($1::bytea[], $2::int[], $3::text[], $4::bytea[])
                 as won (pubkey, kind, d_tag, id),
                 lateral (select event.id from event
                          where event.pubkey = won.pubkey and event.kind = won.kind
                            and event.d_tag = won.d_tag and event.deleted_at is null
                            and event.id <> won.id limit 1) old)",
        &column(winners, |(key, _)| key.0.to_vec()),
        &column(winners, |(key, _)| i32::from(key.1)),
        &column(winners, |(key, _)| key.2.clone().into_owned()),
        &rows_of(winners.iter().map(|(_, event)| &event.id)),
    )
    .execute(tx)
    .await?;
    Ok(())
}
