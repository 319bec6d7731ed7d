//! What goes out: events that an upstream has not got yet, in the order of their arrival here, and what
//! became of those that were sent.

use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    Event, EventId,
    store::{LOCK, column, rows_of},
};
use crate::{filter::Filter, queue::one_line};

/// An event's row.
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
        pubkey.copy_from_slice(&row.pubkey[..32]); // the lengths are checked by the table
        sig.copy_from_slice(&row.sig[..64]);
        Self {
            id: EventId::of_row(&row.id),
            pubkey,
            created_at: row.created_at,
            kind: u16::try_from(row.kind).unwrap_or_default(),
            tags: serde_json::from_value(row.tags).unwrap_or_default(),
            content: row.content,
            sig,
        }
    }
}

/// Events and the position that is settled when all of them have a verdict.
#[derive(Debug)]
pub struct Candidates {
    /// Oldest arrival first.
    pub events: Vec<Event>,
    /// Everything up to here is among the events, has a verdict, or is not for this upstream.
    pub up_to: i64,
    /// There may be more beyond.
    pub more: bool,
}

/// The newest position below which none is still to come: nobody is storing while it is read.
///
/// # Errors
/// The database did not answer.
async fn horizon(db: &PgPool) -> Result<i64, sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
    let newest =
        sqlx::query_scalar!(r#"select coalesce(max(position), 0) as "newest!" from event"#);
    let newest = newest.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(newest)
}

/// Up to `limit` events beyond `after` that the upstream should get and, as far as we know, has not:
/// live, within its filter, neither ephemeral nor of NIP-42 nor protected, without a verdict of its.
///
/// # Errors
/// The database did not answer.
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

/// Up to `limit` events whose upload is to be tried again now, those that wait longest first.
///
/// # Errors
/// The database did not answer.
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

/// Of these ids, the events that the upstream should get and has not.
///
/// # Errors
/// The database did not answer.
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

/// Stored events by their ids, deleted ones included, in no order.
///
/// # Errors
/// The database did not answer.
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

/// What an upstream said of an event that was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It has it now.
    Accepted,
    /// It had it.
    Duplicate,
    /// It will never take it; its words.
    Rejected(String),
    /// It may take it later; its words, or ours where it said nothing.
    Pending(String),
}

/// Attempts after which an event that stays pending counts as rejected.
const MAX_ATTEMPTS: i32 = 5;

/// Writes verdicts; how many pending ones gave up with this.
///
/// # Errors
/// The database did not answer; writing them again is harmless.
pub async fn judge(
    db: &PgPool,
    upstream: Uuid,
    verdicts: &[(EventId, Verdict)],
) -> Result<u64, sqlx::Error> {
    let mut tx = db.begin().await?;
    let (held, open): (Vec<_>, Vec<_>) = verdicts
        .iter()
        .partition(|(_, verdict)| matches!(verdict, Verdict::Accepted | Verdict::Duplicate));
    sqlx::query!(
        "with settled as (
             delete from upload_verdict where upstream_id = $2 and event_id = any($1)
         )
         insert into event_source (event_id, upstream_id)
         select n.id, upstream.id from unnest($1::bytea[]) as n (id), upstream where upstream.id = $2
         order by n.id
         on conflict do nothing",
        &rows_of(held.iter().map(|(id, _)| id)),
        upstream,
    )
    .execute(&mut *tx)
    .await?;
    let mut open: Vec<(EventId, bool, String)> = open.into_iter().filter_map(of_open).collect();
    open.sort_unstable();
    open.dedup_by_key(|(id, _, _)| *id);
    let written = sqlx::query_scalar!(
        r#"insert into upload_verdict as v
               (upstream_id, event_id, verdict, message, attempts, next_try)
           select upstream.id, n.id, case when n.is_final then 'rejected' else 'pending' end,
                  n.message, 1, case when not n.is_final then now() + interval '1 minute' end
           from unnest($1::bytea[], $2::bool[], $3::text[]) as n (id, is_final, message), upstream
           where upstream.id = $4
           on conflict (upstream_id, event_id) do update set
               attempts = v.attempts + 1, message = excluded.message, updated_at = now(),
               verdict = case when v.attempts + 1 >= $5 then 'rejected' else excluded.verdict end,
               next_try = case when v.attempts + 1 >= $5 then null
                               when excluded.verdict = 'pending'
                               then now() + interval '1 minute' * 4 ^ v.attempts end
           returning verdict = 'rejected' and attempts > 1 as "gave_up!""#,
        &column(&open, |(id, _, _)| id.0.to_vec()),
        &column(&open, |(_, is_final, _)| *is_final),
        &column(&open, |(_, _, message)| message.clone()),
        upstream,
        MAX_ATTEMPTS,
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    let gave_up = written.iter().filter(|gave_up| **gave_up).count();
    Ok(u64::try_from(gave_up).unwrap_or(u64::MAX))
}

fn of_open((id, verdict): &(EventId, Verdict)) -> Option<(EventId, bool, String)> {
    match verdict {
        Verdict::Accepted | Verdict::Duplicate => None,
        Verdict::Rejected(message) => Some((*id, true, one_line(message))),
        Verdict::Pending(message) => Some((*id, false, one_line(message))),
    }
}
