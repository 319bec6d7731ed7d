//! Events that an upstream turned out to lack: they wait for the upload lane, the one uploader of
//! the upstream.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::super::{
    EventId,
    store::{begin, rows_of, shared},
};
use crate::mirror::{contended, lane, work};

/// The events of one transaction.
const PAGE: usize = 1000;

/// Stores that an upstream lacks the events `ids`, as a reconciliation has proven that began at
/// `begun`, by the database's clock. What was believed of them before is forgotten: each waits for
/// the upload lane, and the lane has a job. Returns the number of events that wait because of this
/// call.
///
/// Left out are events that the upload lane has not reached yet, because it will; events that the
/// upstream took since `begun`; events that it refused permanently; events that an upstream with
/// admission does not get; and events that are never uploaded. Without `begun`, nothing that is believed is forgotten.
///
/// Call this before the window is settled: one call takes a transaction for each thousand events,
/// repeating it is harmless, and a window that is not settled is repeated.
pub async fn lost(
    db: &PgPool,
    upstream: Uuid,
    begun: Option<DateTime<Utc>>,
    ids: &[EventId],
) -> Result<u64, sqlx::Error> {
    let mut waiting = 0;
    for page in ids.chunks(PAGE) {
        match contended::retried(|| lose(db, upstream, begun, page)).await? {
            Some(of_page) => waiting += of_page,
            None => break, // nothing is uploaded
        }
    }
    Ok(waiting)
}

/// Runs one transaction; `None` if the upstream has no upload lane.
async fn lose(
    db: &PgPool,
    upstream: Uuid,
    begun: Option<DateTime<Utc>>,
    ids: &[EventId],
) -> Result<Option<u64>, sqlx::Error> {
    let mut tx = begin(db, upstream).await?;
    // The upload lane looks for work under this lock before it rests, so that the rows are found
    // or the job is inserted.
    shared(&mut tx).await?;
    let Some(lane) = lane::ensure_upload(&mut tx, upstream).await? else { return Ok(None) };
    let waiting = wait(&mut tx, upstream, begun, ids).await?;
    forget(&mut tx, upstream, begun, ids).await?;
    work::push_upload(&mut tx, lane).await?;
    tx.commit().await?;
    Ok(Some(waiting))
}

async fn wait(
    tx: &mut PgConnection,
    upstream: Uuid,
    begun: Option<DateTime<Utc>>,
    ids: &[EventId],
) -> Result<u64, sqlx::Error> {
    let written = sqlx::query!(
        r#"insert into upload_verdict (upstream_id, event_id, verdict, message, next_try)
           select $1, e.id, 'pending', 'the upstream does not have the event', now()
           from unnest($2::bytea[]) asked (id)
           cross join lateral (select * from event where event.id = asked.id limit 1) e
           left join event_source s on s.event_id = e.id and s.upstream_id = $1
           cross join lateral (
               select coalesce(s.first_seen_at, case when e.source = u.number then e.first_seen_at end) as since
               from upstream u where u.id = $1) held
           where e.deleted_at is null and (e.expires_at is null or e.expires_at > extract(epoch from now()))
             and e.kind not between 20000 and 29999 and e.kind <> 22242
             and not exists (select from jsonb_array_elements(e.tags) tag where tag = '["-"]')
             and (exists (select from admission a where a.event_id = e.id and a.upstream_id = $1)
                  or not exists (select from upstream u where u.id = $1 and u.admission))
             and case when held.since is null
                      then e.position <= (select upload_position from lane
                                          where upstream_id = $1 and lane = 'upload')
                      else held.since < $3 end
           order by e.id
           on conflict do nothing"#,
        upstream,
        &rows_of(ids.iter()),
        begun,
    )
    .execute(tx)
    .await?;
    Ok(written.rows_affected())
}

/// Forgets that the upstream holds the events.
async fn forget(
    tx: &mut PgConnection,
    upstream: Uuid,
    begun: Option<DateTime<Utc>>,
    ids: &[EventId],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with other as (
             delete from event_source where upstream_id = $1 and event_id = any($2) and first_seen_at < $3
         )
         update event set source = null
         where id in (select e.id from event e
                      where e.id = any($2) and e.first_seen_at < $3
                        and e.source = (select number from upstream where id = $1)
                      order by e.created_at, e.id for update)",
        upstream,
        &rows_of(ids.iter()),
        begun,
    )
    .execute(tx)
    .await?;
    Ok(())
}
