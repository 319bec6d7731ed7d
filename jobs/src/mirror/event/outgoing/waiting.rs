//! Events behind the position of an upload lane that the upstream should get: those that a
//! reconciliation found missing, and those that are sent once more.

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{Event, Row, candidates::MAX_BYTES};
use crate::mirror::event::{EventId, store::rows_of};

/// An event that waits for the upload lane.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The event.
    pub event: Event,
    /// How often it was sent.
    pub attempts: i32,
    /// Whether the connection was lost before the answer to the last attempt.
    pub is_suspect: bool,
    /// Whether it was sent without an answer, so that a duplicate may be our own copy.
    pub is_sent: bool,
}

/// Finds at most `limit` events whose time has come, and at most 16 MiB of them: suspects last, and
/// otherwise the longest due first. Forgets those that are no longer live, and
/// those that an upstream with admission does not get.
pub async fn waiting(db: &PgPool, upstream: Uuid, limit: i64) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"with due as (
             select v.event_id, v.next_try, v.attempts, v.is_suspect, v.is_sent from upload_verdict v
             where v.upstream_id = $1 and v.verdict = 'pending' and v.next_try <= now()
             order by v.is_suspect, v.next_try limit $2
         ), gone as (
             delete from upload_verdict v using due
             where v.upstream_id = $1 and v.event_id = due.event_id and not exists (
                 select from event e where e.id = due.event_id and e.deleted_at is null
                     and (e.expires_at is null or e.expires_at > extract(epoch from now()))
                     and (exists (select from admission a where a.event_id = e.id and a.upstream_id = $1)
                          or not exists (select from upstream u where u.id = $1 and u.admission)))
         )
         select id as "id!", pubkey as "pubkey!", created_at as "created_at!", kind as "kind!",
                tags as "tags!", content as "content!", sig as "sig!", attempts as "attempts!",
                is_suspect as "is_suspect!", is_sent as "is_sent!"
         from (select *, sum(octet_length(content)
                         + case when pg_column_size(tags) > 1500 then octet_length(tags::text) else 1500 end)
                         over (order by is_suspect, next_try, id) as bytes,
                      row_number() over (order by is_suspect, next_try, id) as number
               from (select e.*, attempts, next_try, is_suspect, is_sent
                     from due join event e on e.id = due.event_id
                     where e.deleted_at is null
                       and (expires_at is null or expires_at > extract(epoch from now()))
                       and (exists (select from admission a where a.event_id = e.id and a.upstream_id = $1)
                            or not exists (select from upstream u where u.id = $1 and u.admission))) live) sized
         where bytes <= $3 or number = 1
         order by is_suspect, next_try, id"#,
        upstream,
        limit,
        MAX_BYTES,
    )
    .fetch_all(db)
    .await?;
    let waiting = rows.into_iter().map(|row| {
        let (id, pubkey, created_at) = (row.id, row.pubkey, row.created_at);
        let (kind, tags, content, sig) = (row.kind, row.tags, row.content, row.sig);
        let event = Event::from(Row { id, pubkey, created_at, kind, tags, content, sig });
        let (attempts, is_suspect, is_sent) = (row.attempts, row.is_suspect, row.is_sent);
        Waiting { event, attempts, is_suspect, is_sent }
    });
    Ok(waiting.collect())
}

/// Stores that waiting events are being sent.
pub async fn mark_sent(
    db: impl PgExecutor<'_>,
    upstream: Uuid,
    ids: &[EventId],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update upload_verdict set is_sent = true
         where upstream_id = $1 and event_id = any($2) and not is_sent",
        upstream,
        &rows_of(ids.iter()),
    )
    .execute(db)
    .await?;
    Ok(())
}
