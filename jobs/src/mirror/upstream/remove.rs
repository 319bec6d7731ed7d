//! Removing an upstream. Its row is marked, so that it is in no list and has no work; a job then
//! deletes the rows that mention it, page by page, and the upstream last. Its events stay.
//!
//! ```text
//!  delete ──▶ removing ── pages of 5,000 rows ──▶ gone
//!               ▲  │ the job died: recovery enqueues it again
//!               └──┘
//! ```

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgExecutor, PgPool, error::DatabaseError};
use uuid::Uuid;

use super::{UpstreamError, change::settable, find};
use crate::{console::operator::Entry, mirror::work::Work, queue};

/// The rows that one statement deletes: it holds locks for a short time only.
const PAGE: i64 = 5000;

/// An upstream that is being removed.
#[derive(Debug, Clone, Serialize)]
pub struct Removal {
    /// The id of the row.
    pub id: Uuid,
    /// The address, which is taken until the upstream is gone.
    pub url: String,
    /// When the removal began.
    pub since: DateTime<Utc>,
    /// The rows that were deleted so far.
    pub rows: i64,
}

/// Begins to remove an upstream with its lanes and everything known about it; its events stay. The
/// upstream has no work and is in no list from now on. Returns false if it does not exist, or is
/// being removed already. `by` is written to the operators' record, in the same transaction. An
/// operator cannot remove the row of a connection that the mirror does not use: the wing that uses it does,
/// without `by`.
///
/// # Errors
/// [`UpstreamError::OfService`] if it is the relay of a GRASP service; see also the module
/// [`upstream`](super).
pub async fn delete(db: &PgPool, id: Uuid, by: Option<&str>) -> Result<bool, UpstreamError> {
    try_delete(db, id, by).await.map_err(|error| {
        // 23001 is restrict_violation: the trigger `grasp_keeps_upstream` refuses it.
        let code = error.as_database_error().and_then(DatabaseError::code);
        if code.as_deref() == Some("23001") { UpstreamError::OfService } else { error.into() }
    })
}

async fn try_delete(db: &PgPool, id: Uuid, by: Option<&str>) -> Result<bool, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let before = find(&mut *tx, id).await?;
    let marked = sqlx::query_scalar!(
        "update upstream set removing_at = now(), enabled = false, relay_id = null
         where id = $1 and removing_at is null and (mirrored or $2) returning url",
        id,
        by.is_none(),
    );
    let Some(url) = marked.fetch_optional(&mut *tx).await? else { return Ok(false) };
    if let Some(who) = by {
        let entry = Entry::new(who, "remove_upstream", &url, "");
        entry.changed(&settable(before.as_ref()), &Value::Null).record(&mut *tx).await?;
    }
    sqlx::query!("delete from lane where upstream_id = $1", id).execute(&mut *tx).await?;
    queue::enqueue(&mut *tx, &[Work::RemoveUpstream { upstream: id }.job()]).await?;
    tx.commit().await?;
    Ok(true)
}

/// Enqueues the jobs of removals that have none, because theirs was killed. Returns how many.
///
/// # Errors
/// See the module [`upstream`](super).
pub async fn resume_removals(db: &PgPool) -> Result<usize, sqlx::Error> {
    let job = |removal: &Removal| Work::RemoveUpstream { upstream: removal.id }.job();
    let jobs: Vec<_> = removals(db).await?.iter().map(job).collect();
    if jobs.is_empty() {
        return Ok(0);
    }
    Ok(queue::enqueue(db, &jobs).await?.len())
}

/// Returns the upstreams that are being removed, the oldest removal first; at most 1,000.
///
/// # Errors
/// See the module [`upstream`](super).
pub async fn removals(db: impl PgExecutor<'_>) -> Result<Vec<Removal>, sqlx::Error> {
    sqlx::query_as!(
        Removal,
        r#"select id, url, removing_at as "since!", removed_rows as rows
           from upstream where removing_at is not null order by removing_at, id limit 1000"#,
    )
    .fetch_all(db)
    .await
}

/// Deletes the next page of an upstream that is being removed. Returns false when the upstream is
/// gone, or is not being removed.
///
/// # Errors
/// See the module [`upstream`](super); the pages before stay deleted.
pub async fn remove_page(db: &PgPool, id: Uuid) -> Result<bool, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let removed = sqlx::query_scalar!(
        r#"with source as (
               delete from event_source where ctid = any(array(
                   select ctid from event_source where upstream_id = $1 limit $2)) returning 1
           ), known as (
               delete from known_id where ctid = any(array(
                   select ctid from known_id where upstream_id = $1 limit $2)) returning 1
           ), verdict as (
               delete from upload_verdict where ctid = any(array(
                   select ctid from upload_verdict where upstream_id = $1 limit $2)) returning 1
           ), removed as (
               select (select count(*) from source) + (select count(*) from known)
                      + (select count(*) from verdict) as rows
           )
           update upstream set removed_rows = removed_rows + removed.rows
           from removed where id = $1 and removing_at is not null returning removed.rows as "rows!""#,
        id,
        PAGE,
    )
    .fetch_optional(&mut *tx)
    .await?;
    match removed {
        None => return Ok(false), // rolls back: the upstream is not being removed
        Some(0) => {
            sqlx::query!("delete from upstream where id = $1", id).execute(&mut *tx).await?;
        }
        Some(_) => {}
    }
    tx.commit().await?;
    Ok(removed != Some(0))
}

/// Returns why an address cannot be used by a new upstream.
pub(super) async fn taken(db: impl PgExecutor<'_>, url: &str) -> UpstreamError {
    let removing = sqlx::query_scalar!(
        "select removed_rows from upstream where url = $1 and removing_at is not null",
        url,
    );
    match removing.fetch_optional(db).await {
        Ok(Some(rows)) => UpstreamError::BeingRemoved(rows),
        Ok(None) => UpstreamError::Taken,
        Err(error) => error.into(),
    }
}
