//! Releasing parked events by the keys of what they wait for. A transaction that accepts events releases a
//! limited number; for the rest it leaves the keys, which the job of releases follows page by page.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{grasp::admission, mirror::event::column};

/// About the most events that one acceptance releases at once: at least one for each of its keys.
const AT_ONCE: usize = 5000;
/// The events that one page of a key releases.
const PAGE: i64 = 1000;

/// Releases the events that wait for keys, each given with its service. Returns the services that have
/// something to release.
pub(super) async fn wake_keys(
    tx: &mut PgConnection,
    keys: &[(Uuid, String)],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let each = (AT_ONCE / keys.len().max(1)).max(1);
    sqlx::query_scalar!(
        r#"with found as materialized (
             select n.service, n.key, k.event_id, k.place
             from unnest($1::uuid[], $2::text[]) n (service, key)
             cross join lateral (
                 select few.event_id, row_number() over (order by few.event_id) as place
                 from (select k.event_id from parked_key k
                       where k.upstream_id = n.service and k.key = n.key
                       order by k.event_id limit $3) few) k
         ), woken as (
             insert into grasp_release (upstream_id, event_id)
             select distinct service, event_id from found order by 1, 2
             on conflict do nothing
         ), others as (
             insert into grasp_wake (upstream_id, key, after)
             select distinct on (service, key) service, key, event_id from found where place = $3 order by 1, 2
             on conflict (upstream_id, key) do update set after = excluded.after
         )
         select distinct service as "service!" from found"#,
        &column(keys, |(service, _)| *service),
        &column(keys, |(_, key)| key.clone()),
        i64::try_from(each).unwrap_or(i64::MAX),
    )
    .fetch_all(tx)
    .await
}

/// Releases the next page of a key that an acceptance left. Returns false if there is none. An event that
/// is parked meanwhile needs no release: it was judged after the acceptance. It runs under the lock of
/// admission, because an acceptance writes the same rows.
pub(super) async fn wake_page(db: &PgPool, service: Uuid) -> Result<bool, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    admission::lock(&mut tx).await?;
    let found = sqlx::query_scalar!(
        r#"with next as materialized (
             select w.key, w.after from grasp_wake w join grasp_service s using (upstream_id)
             where w.upstream_id = $1 and s.enabled and s.removing_at is null
             order by w.key limit 1
         ), found as materialized (
             select k.event_id
             from next cross join lateral (
                 select k.event_id from parked_key k
                 where k.upstream_id = $1 and k.key = next.key and k.event_id > next.after
                 order by k.event_id limit $2) k
         ), woken as (
             insert into grasp_release (upstream_id, event_id)
             select $1, event_id from found order by 2 on conflict do nothing
         ), ended as (
             delete from grasp_wake w using next
             where w.upstream_id = $1 and w.key = next.key and (select count(*) from found) < $2
         ), moved as (
             update grasp_wake w set after = (select event_id from found order by event_id desc limit 1)
             from next
             where w.upstream_id = $1 and w.key = next.key and (select count(*) from found) = $2
         )
         select count(*) as "found!" from next"#,
        service,
        PAGE,
    );
    let found = found.fetch_one(&mut *tx).await?;
    tx.commit().await?;
    Ok(found > 0)
}
