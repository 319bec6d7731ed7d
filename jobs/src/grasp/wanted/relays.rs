//! The rows of followed relays, as far as they are wanted.

use sqlx::PgConnection;

/// Makes sure that each URL has a row that is wanted. The rows cannot be deleted until the end of the
/// transaction. The caller holds the lock of admission, so that no two transactions add the same URL.
pub(in crate::grasp) async fn ensure(
    tx: &mut PgConnection,
    urls: &[String],
) -> Result<(), sqlx::Error> {
    if urls.is_empty() {
        return Ok(());
    }
    let held = sqlx::query!(
        "select url, unwanted_since from grasp_relay where url = any($1) order by id for key share",
        urls,
    )
    .fetch_all(&mut *tx)
    .await?;
    if held.iter().any(|row| row.unwanted_since.is_some()) {
        sqlx::query!(
            "with again as (
                 select id from grasp_relay where url = any($1) and unwanted_since is not null
                 order by id for no key update
             )
             update grasp_relay r set unwanted_since = null from again where r.id = again.id",
            urls,
        )
        .execute(&mut *tx)
        .await?;
    }
    let is_held = |url: &&String| held.iter().any(|row| row.url == **url);
    let new: Vec<String> = urls.iter().filter(|url| !is_held(url)).cloned().collect();
    if !new.is_empty() {
        sqlx::query!(
            "insert into grasp_relay (url) select distinct url from unnest($1::text[]) n (url) order by 1
             on conflict do nothing",
            &new,
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// Marks those of the relays as unwanted that nothing wants any more.
pub(super) async fn forsake(tx: &mut PgConnection, urls: &[String]) -> Result<(), sqlx::Error> {
    if urls.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "with unwanted as (
             select id from grasp_relay
             where url = any($1) and unwanted_since is null and not grasp_wants(url, 'announcements', '*')
             order by id for no key update
         )
         update grasp_relay r set unwanted_since = now() from unwanted where r.id = unwanted.id",
        urls,
    )
    .execute(tx)
    .await?;
    Ok(())
}
