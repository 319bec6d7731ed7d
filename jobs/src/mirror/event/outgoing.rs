//! Outgoing events: those that an upstream does not have yet, in the order of their arrival, and
//! the verdicts of upstreams on events that were sent.

mod verdict;

use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    Event, EventId, exact,
    store::{LOCK, rows_of},
};
use crate::mirror::filter::Filter;

pub use verdict::{UploadTally, Verdict, judge};

/// The row of an event.
struct Row {
    id: Vec<u8>,
    pubkey: Vec<u8>,
    created_at: i64,
    kind: i32,
    tags: Value,
    content: String,
    sig: Vec<u8>,
}

impl From<Row> for Event {
    fn from(row: Row) -> Self {
        let (mut pubkey, mut sig) = ([0; 32], [0; 64]);
        pubkey.copy_from_slice(&row.pubkey[..32]); // the table checks the lengths
        sig.copy_from_slice(&row.sig[..64]);
        let (tags, content) = exact::read(row.tags, row.content);
        Self {
            id: EventId::of_row(&row.id),
            pubkey,
            created_at: row.created_at,
            kind: u16::try_from(row.kind).unwrap_or_default(),
            tags,
            content,
            sig,
        }
    }
}

/// Events to be uploaded, and the position that the lane reaches when all of them have a verdict.
#[derive(Debug)]
pub struct Candidates {
    /// The events, oldest arrival first.
    pub events: Vec<Event>,
    /// Every event up to this position is in `events`, has a verdict, or is not for this upstream.
    pub up_to: i64,
    /// Whether there may be further events beyond `up_to`.
    pub more: bool,
}

/// Returns the highest position below which every transaction has committed. The store's lock keeps
/// other transactions from storing while the position is read.
async fn horizon(db: &PgPool) -> Result<i64, sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
    let newest =
        sqlx::query_scalar!(r#"select coalesce(max(position), 0) as "newest!" from event"#);
    let newest = newest.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(newest)
}

/// Finds at most `limit` events beyond the position `after` that the upstream should get and, as
/// far as is known, does not have. These are live events within its filter on which it gave no
/// verdict; ephemeral, protected and NIP-42 events are left out.
pub async fn candidates(
    db: &PgPool,
    upstream: Uuid,
    filter: &Filter,
    after: i64,
    limit: i64,
) -> Result<Candidates, sqlx::Error> {
    let horizon = horizon(db).await?;
    let sql = filter.to_sql();
    let rows = sqlx::query!(
        r#"select position, id, pubkey, created_at, kind, tags, content, sig
           from event e
           where position > $1 and position <= $2
             and deleted_at is null and (expires_at is null or expires_at > extract(epoch from now()))
             and kind not between 20000 and 29999 and kind <> 22242
             and ($3::bytea[] is null or id = any($3))
             and ($4::bytea[] is null or pubkey = any($4))
             and ($5::int[] is null or kind = any($5))
             and ($6::jsonb is null or not exists (
                 select from jsonb_each($6) wanted (name, values)
                 where not exists (
                     select from event_tag tag
                     where tag.position = e.position and tag.name = wanted.name
                       and wanted.values ? tag.value)))
             and not exists (select from event_source s where s.event_id = e.id and s.upstream_id = $7)
             and not exists (select from upload_verdict v where v.event_id = e.id and v.upstream_id = $7)
           order by position
           limit $8"#,
        after,
        horizon,
        sql.ids.as_deref(),
        sql.authors.as_deref(),
        sql.kinds.as_deref(),
        sql.tags,
        upstream,
        limit,
    )
    .fetch_all(db)
    .await?;
    let more = i64::try_from(rows.len()).is_ok_and(|found| found == limit);
    let last = rows.last().map_or(after, |row| row.position);
    let events = rows.into_iter().map(|row| {
        let (id, pubkey, created_at) = (row.id, row.pubkey, row.created_at);
        let (kind, tags, content, sig) = (row.kind, row.tags, row.content, row.sig);
        Event::from(Row { id, pubkey, created_at, kind, tags, content, sig })
    });
    let up_to = if more { last } else { horizon.max(after) };
    Ok(Candidates { events: events.filter(|event| !event.is_protected()).collect(), up_to, more })
}

/// Finds at most `limit` events whose upload is due for a retry, the longest due first.
pub async fn pending(db: &PgPool, upstream: Uuid, limit: i64) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "select id, pubkey, e.created_at, kind, tags, content, sig
         from upload_verdict v join event e on e.id = v.event_id
         where v.upstream_id = $1 and v.verdict = 'pending' and v.next_try <= now()
           and e.deleted_at is null and (expires_at is null or expires_at > extract(epoch from now()))
         order by v.next_try limit $2",
        upstream,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Event::from).collect())
}

/// Finds the events among `ids` that the upstream should get and, as far as is known, does not
/// have. The upstream's filter is not applied.
pub async fn wanted_of(
    db: &PgPool,
    upstream: Uuid,
    ids: &[EventId],
) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "select id, pubkey, created_at, kind, tags, content, sig
         from event e
         where id = any($1)
           and deleted_at is null and (expires_at is null or expires_at > extract(epoch from now()))
           and kind not between 20000 and 29999 and kind <> 22242
           and not exists (select from event_source s where s.event_id = e.id and s.upstream_id = $2)
           and not exists (select from upload_verdict v
                           where v.event_id = e.id and v.upstream_id = $2 and v.verdict = 'rejected')
         order by position",
        &rows_of(ids.iter()),
        upstream,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Event::from).filter(|event| !event.is_protected()).collect())
}

/// Finds stored events by their ids, deleted ones included, in no particular order.
pub async fn by_ids(db: impl PgExecutor<'_>, ids: &[EventId]) -> Result<Vec<Event>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "select id, pubkey, created_at, kind, tags, content, sig from event where id = any($1)",
        &rows_of(ids.iter()),
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Event::from).collect())
}
