//! Events that an upload lane has not reached yet.

use sqlx::PgPool;
use uuid::Uuid;

use super::{Event, Row};
use crate::mirror::{event::store::LOCK, filter::Filter};

/// The positions of one page, so that a statement stays short however few of the events are for the
/// upstream.
const SCAN: i64 = 50_000;

/// The most bytes of events in one page, apart from a first event that is larger.
pub(super) const MAX_BYTES: i64 = 16 * 1024 * 1024;

/// An event that the upstream should get.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The event.
    pub event: Event,
    /// Its place in the order of arrival.
    pub position: i64,
}

/// Events to be uploaded, and the position that the lane reaches when all of them have a verdict.
#[derive(Debug)]
pub struct Candidates {
    /// The events, oldest arrival first.
    pub events: Vec<Candidate>,
    /// Every event up to this position is in `events`, has a verdict, or is not for this upstream.
    pub up_to: i64,
    /// Whether there may be further events beyond `up_to`.
    pub more: bool,
}

/// Returns the highest position below which every transaction has committed. The store's lock keeps
/// other transactions from storing while the position is read.
pub(crate) async fn horizon(db: &PgPool) -> Result<i64, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
    let newest =
        sqlx::query_scalar!(r#"select coalesce(max(position), 0) as "newest!" from event"#);
    let newest = newest.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(newest)
}

/// Finds at most `limit` events beyond the position `after` that the upstream should get and, as
/// far as is known, does not have. These are live events within its filter on which it gave no
/// verdict; ephemeral, protected and NIP-42 events are left out. With `author`, only the events of
/// this public key are for the upstream. An upstream with admission gets admitted events only.
pub async fn candidates(
    db: &PgPool,
    upstream: Uuid,
    filter: &Filter,
    author: Option<[u8; 32]>,
    after: i64,
    limit: i64,
) -> Result<Candidates, sqlx::Error> {
    let first = first_after(db, after).await?;
    if first == after {
        // Nothing is visible beyond the position, which does not move: no lock is needed to say so.
        return Ok(Candidates { events: Vec::new(), up_to: after, more: false });
    }
    let horizon = horizon(db).await?;
    let end = horizon.min(first.saturating_add(SCAN));
    let (rows, is_cut) = page(db, upstream, filter, author, after..end, limit).await?;
    let last = rows.last().map(|candidate| candidate.position);
    let up_to = last.filter(|_| is_cut).unwrap_or(end).max(after);
    let events = rows.into_iter().filter(|candidate| !candidate.event.is_protected()).collect();
    Ok(Candidates { events, up_to, more: up_to < horizon })
}

/// Returns the first position beyond `after`, or `after` if there is none: positions may have wide gaps.
pub(crate) async fn first_after(db: &PgPool, after: i64) -> Result<i64, sqlx::Error> {
    let first = sqlx::query_scalar!("select min(position) from event where position > $1", after);
    Ok(first.fetch_one(db).await?.unwrap_or(after))
}

/// Returns the events of a range of positions, and whether there may be more of them: `limit` is
/// reached, or [`MAX_BYTES`].
async fn page(
    db: &PgPool,
    upstream: Uuid,
    filter: &Filter,
    author: Option<[u8; 32]>,
    positions: std::ops::Range<i64>,
    limit: i64,
) -> Result<(Vec<Candidate>, bool), sqlx::Error> {
    let sql = filter.to_sql();
    let rows = sqlx::query!(
        r#"select position as "position!", id as "id!", pubkey as "pubkey!", created_at as "created_at!",
                  kind as "kind!", tags as "tags!", content as "content!", sig as "sig!", found as "found!"
           from (select *, count(*) over () as found,
                        sum(octet_length(content)
                            + case when pg_column_size(tags) > 1500 then octet_length(tags::text) else 1500 end)
                            over (order by position) as bytes, row_number() over (order by position) as number
                 from (
           select position, id, pubkey, created_at, kind, tags, content, sig
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
                     select from indexed_tags(e.tags) tag
                     where tag.name = wanted.name and wanted.values ? tag.value)))
             and ($9::bytea is null or pubkey = $9)
             and source is distinct from (select number from upstream where id = $7)
             and not exists (select from event_source s where s.event_id = e.id and s.upstream_id = $7)
             and not exists (select from upload_verdict v where v.event_id = e.id and v.upstream_id = $7)
             and (exists (select from admission a where a.event_id = e.id and a.upstream_id = $7)
                  or not exists (select from upstream u where u.id = $7 and u.admission))
           order by position
           limit $8
           ) page) sized
           where bytes <= $10 or number = 1
           order by position"#,
        positions.start,
        positions.end,
        sql.ids.as_deref(),
        sql.authors.as_deref(),
        sql.kinds.as_deref(),
        sql.tags,
        upstream,
        limit,
        author.as_ref().map(<[u8; 32]>::as_slice),
        MAX_BYTES,
    )
    .fetch_all(db)
    .await?;
    let found = rows.first().map_or(0, |row| row.found);
    let is_cut = found == limit || i64::try_from(rows.len()).is_ok_and(|taken| taken < found);
    let candidates = rows.into_iter().map(|row| {
        let (id, pubkey, created_at) = (row.id, row.pubkey, row.created_at);
        let (kind, tags, content, sig) = (row.kind, row.tags, row.content, row.sig);
        let event = Event::from(Row { id, pubkey, created_at, kind, tags, content, sig });
        Candidate { event, position: row.position }
    });
    Ok((candidates.collect(), is_cut))
}
