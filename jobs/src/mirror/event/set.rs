//! The set of a window for negentropy: time and id of every event that is stored or known.

use futures_util::TryStreamExt;
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

use super::{EventId, Limits};
use crate::mirror::filter::Filter;

/// The most items in a set: relays do not compare larger ones.
const MAX_ITEMS: usize = 1_000_000;
/// The length of an item in a row: 8 bytes of time and 32 bytes of id.
const ITEM_BYTES: usize = 40;

/// An event in a set: its time in Unix seconds and its id.
pub type Item = (u64, EventId);

/// The result of [`set`](fn@set).
#[derive(Debug)]
pub enum Set {
    /// The whole set, without an order; an item may occur twice.
    Items(Vec<Item>),
    /// The window has more than a million items.
    TooLarge,
}

/// Returns the set of the window `[since, until]`: every event that must not be fetched from the
/// upstream again. These are the live, deleted and expired events, and the events that were
/// received and not stored, for a reason that applies to this upstream or to all. An event that was
/// refused for its size is left out if the limits admit it now.
pub async fn set(
    db: &PgPool,
    upstream: Uuid,
    filter: &Filter,
    limits: Limits,
    since: i64,
    until: i64,
) -> Result<Set, sqlx::Error> {
    let sql = filter.to_sql();
    let key = filter.tag_key();
    let mut tx = planned(db).await?;
    let most = i64::try_from(MAX_ITEMS).unwrap_or(i64::MAX) + 1;
    // A row holds 5,000 items, which takes a tenth of the time of one row per item. A single row
    // would be too large: a connection keeps a buffer of the size of the largest value that it has
    // read.
    let mut parts = sqlx::query_scalar!(
        r#"select string_agg(int8send(created_at) || id, ''::bytea) as "items!"
           from (select created_at, id, (row_number() over () - 1) / 5000 as part from (
               (select created_at, id from event e
                where created_at between $1 and $2
                  and ($3::bytea[] is null or id = any($3))
                  and ($4::bytea[] is null or pubkey = any($4))
                  and ($5::int[] is null or kind = any($5))
                  and ($11::text is null or tag_keys(plain_tags(e.tags)) && tag_keys(array[$11], $12))
                  and ($6::jsonb is null or not exists (
                      select from jsonb_each($6) wanted (name, values)
                      where not exists (
                          select from indexed_tags(e.tags) tag
                          where tag.name = wanted.name and wanted.values ? tag.value)))
                order by created_at, id
                limit $7)
               union all
               (select created_at, event_id from known_id
                where created_at between $1 and $2
                  and (upstream_id is null or upstream_id = $8)
                  and (retry_after is null or retry_after > now())
                  and (reason <> 'too-large' or size > $9)
                  and (reason <> 'too-many-tags' or size > $10)
                  and ($3::bytea[] is null or event_id = any($3))
                  and ($4::bytea[] is null or pubkey is null or pubkey = any($4))
                  and ($5::int[] is null or kind is null or kind = any($5))
                limit $7)
           ) item) numbered
           group by part"#,
        since,
        until,
        sql.ids.as_deref(),
        sql.authors.as_deref(),
        sql.kinds.as_deref(),
        sql.tags,
        most,
        upstream,
        i32::try_from(limits.bytes).unwrap_or(i32::MAX),
        i32::try_from(limits.tags).unwrap_or(i32::MAX),
        key.as_ref().map(|(letter, _)| letter),
        key.as_ref().map(|(_, values)| values.as_slice()),
    )
    .fetch(&mut *tx);
    let mut items = Vec::new();
    while let Some(part) = parts.try_next().await? {
        items.extend(part.chunks_exact(ITEM_BYTES).map(item));
        if items.len() > MAX_ITEMS {
            return Ok(Set::TooLarge);
        }
    }
    Ok(Set::Items(items))
}

/// Begins a transaction whose statements are planned for their values. A plan for all values reads every event of the
/// window, also for a filter that an index answers; PostgreSQL prefers it from the sixth execution on.
async fn planned(db: &PgPool) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    sqlx::query!("set local plan_cache_mode = force_custom_plan").execute(&mut *tx).await?;
    Ok(tx)
}

fn item(bytes: &[u8]) -> Item {
    let (time, id) = bytes.split_at(8);
    let time = time.iter().fold(0, |time, byte| time << 8 | u64::from(*byte));
    (time, EventId::of_row(id))
}
