//! The request to verify followed relays now.

use sqlx::PgExecutor;

/// Makes the daily verification of a followed relay due now, or of all of them if `url` is `None`. Returns
/// the number of relays.
pub async fn request_resync(
    db: impl PgExecutor<'_>,
    url: Option<&str>,
) -> Result<u64, sqlx::Error> {
    let due = sqlx::query!(
        "with chosen as (
             select id from grasp_relay where $1::text is null or url = $1 order by id for update
         )
         update grasp_relay r set resync_due_at = now() from chosen where r.id = chosen.id",
        url,
    )
    .execute(db)
    .await?;
    Ok(due.rows_affected())
}
