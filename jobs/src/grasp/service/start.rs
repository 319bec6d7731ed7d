//! The relays that a service starts from, and the coverage of its relays.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::grasp::wanted;

/// Replaces the relays that a service starts from, and the coverage that follows.
pub(super) async fn bootstrap(
    tx: &mut PgConnection,
    id: Uuid,
    urls: &[String],
) -> Result<(), sqlx::Error> {
    let former = sqlx::query_scalar!(
        "delete from grasp_bootstrap where upstream_id = $1 and url <> all($2) returning url",
        id,
        urls,
    );
    let former = former.fetch_all(&mut *tx).await?;
    sqlx::query!(
        "insert into grasp_bootstrap (upstream_id, url) select $1, url from unnest($2::text[]) n (url) order by 2
         on conflict do nothing",
        id,
        urls,
    )
    .execute(&mut *tx)
    .await?;
    wanted::ensure(tx, urls).await?;
    let touched = [urls, &former].concat();
    let relays = sqlx::query_scalar!(
        "select id from grasp_relay where url = any($1) order by id for no key update",
        &touched,
    );
    for relay in relays.fetch_all(&mut *tx).await? {
        wanted::ask_announcements(tx, relay).await?;
    }
    Ok(())
}
/// Marks the relays of a service, so that their coverage is compared with what is wanted now.
pub(super) async fn mark_relays(tx: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with named as (
             select id from grasp_relay
             where url in (select url from grasp_repo_relay where upstream_id = $1
                           union select url from grasp_bootstrap where upstream_id = $1)
             order by id for no key update
         )
         update grasp_relay r set reconciled_at = null, comparing_since = null from named where r.id = named.id",
        id,
    )
    .execute(tx)
    .await?;
    Ok(())
}
