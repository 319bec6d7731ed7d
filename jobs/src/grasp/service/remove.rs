//! Removing a service. Its row is marked, so that it judges nothing and wants nothing; a job then deletes
//! its rows, page by page, and the service last. Its events stay. If its relay was an upstream of the mirror
//! before, the upstream has its former settings again; otherwise the mirror has no upstream of it any more.

use sqlx::PgPool;
use uuid::Uuid;

use super::start::mark_relays;
use crate::{
    console::operator,
    grasp::{admission, work::Work},
    mirror::contended,
    queue,
};

/// The rows that one statement deletes: it holds locks for a short time only.
const PAGE: i64 = 5000;

/// Begins to remove a service. Returns false if it does not exist, or is being removed already. `by` is
/// written to the operators' record.
///
/// # Errors
/// See the module [`service`](super).
pub async fn delete(db: &PgPool, id: Uuid, by: Option<&str>) -> Result<bool, sqlx::Error> {
    contended::retried(|| try_delete(db, id, by)).await
}

async fn try_delete(db: &PgPool, id: Uuid, by: Option<&str>) -> Result<bool, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let url = sqlx::query_scalar!(
        "update upstream u set admission = false, updated_at = now(), mirrored = u.created_at <> s.created_at,
             enabled = coalesce((s.former->>'enabled')::bool, u.enabled) and u.created_at <> s.created_at,
             direction = case when u.relay_id is null then coalesce(s.former->>'direction', 'down') else 'down' end,
             live = coalesce((s.former->>'live')::bool, u.live),
             backfill = coalesce((s.former->>'backfill')::bool, u.backfill),
             negentropy = coalesce((s.former->>'negentropy')::bool, u.negentropy),
             allow_private = coalesce((s.former->>'allow_private')::bool, u.allow_private)
         from grasp_service s
         where u.id = $1 and s.upstream_id = u.id and s.removing_at is null
         returning u.url",
        id,
    );
    let Some(url) = url.fetch_optional(&mut *tx).await? else { return Ok(false) };
    admission::lock(&mut tx).await?;
    sqlx::query!("update grasp_service set removing_at = now() where upstream_id = $1", id)
        .execute(&mut *tx)
        .await?;
    // The lane of uploads has passed what the service did not accept: a new one begins at the first event.
    sqlx::query!(
        "delete from lane using upstream u
         where lane.upstream_id = $1 and u.id = $1 and (not u.mirrored or lane.lane = 'upload')",
        id,
    )
    .execute(&mut *tx)
    .await?;
    mark_relays(&mut tx, id).await?;
    if let Some(who) = by {
        operator::record(&mut *tx, who, "remove_service", &url, "").await?;
    }
    let jobs = [Work::RemoveService { service: id }.job(), Work::Reconcile.job()];
    queue::enqueue(&mut *tx, &jobs).await?;
    tx.commit().await?;
    Ok(true)
}

/// Deletes the next page of a service that is being removed. Returns false when the service is gone, or is
/// not being removed.
///
/// # Errors
/// See the module [`service`](super); the pages before stay deleted.
pub async fn remove_page(db: &PgPool, id: Uuid) -> Result<bool, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let marked = sqlx::query_scalar!(
        "select upstream_id from grasp_service where upstream_id = $1 and removing_at is not null for update",
        id,
    );
    if marked.fetch_optional(&mut *tx).await?.is_none() {
        return Ok(false);
    }
    let rows = sqlx::query_scalar!(
        r#"with release as (
               delete from grasp_release where ctid = any(array(
                   select ctid from grasp_release where upstream_id = $1 limit $2)) returning 1
           ), wake as (
               delete from grasp_wake where ctid = any(array(
                   select ctid from grasp_wake where upstream_id = $1 limit $2)) returning 1
           ), key as (
               delete from parked_key where ctid = any(array(
                   select ctid from parked_key where upstream_id = $1 limit $2)) returning 1
           ), admitted as (
               delete from admission where ctid = any(array(
                   select ctid from admission where upstream_id = $1 limit $2)) returning 1
           ), root as (
               delete from grasp_root where ctid = any(array(
                   select ctid from grasp_root where upstream_id = $1 limit $2)) returning 1
           ), author as (
               delete from grasp_author where ctid = any(array(
                   select ctid from grasp_author where upstream_id = $1 limit $2)) returning 1
           ), relay as (
               delete from grasp_repo_relay where ctid = any(array(
                   select ctid from grasp_repo_relay where upstream_id = $1 limit $2)) returning 1
           ), bootstrap as (
               delete from grasp_bootstrap where upstream_id = $1 returning 1
           )
           select (select count(*) from release) + (select count(*) from wake) + (select count(*) from key) + (select count(*) from admitted)
                  + (select count(*) from root) + (select count(*) from author) + (select count(*) from relay)
                  + (select count(*) from bootstrap) as "rows!""#,
        id,
        PAGE,
    );
    let mut rows = rows.fetch_one(&mut *tx).await?;
    if rows == 0 {
        // Only now: these rows are referred to by those above.
        let last = sqlx::query_scalar!(
            r#"with parked as (
                   delete from parked where ctid = any(array(
                       select ctid from parked where upstream_id = $1 limit $2)) returning 1
               ), repo as (
                   delete from grasp_repo where ctid = any(array(
                       select ctid from grasp_repo where upstream_id = $1 limit $2)) returning 1
               )
               select (select count(*) from parked) + (select count(*) from repo) as "rows!""#,
            id,
            PAGE,
        );
        rows = last.fetch_one(&mut *tx).await?;
    }
    if rows == 0 {
        sqlx::query!("delete from grasp_service where upstream_id = $1", id)
            .execute(&mut *tx)
            .await?;
    }
    tx.commit().await?;
    Ok(rows > 0)
}
