//! Pruning of activity. The newest record of each relay is kept, however old it is.

use std::time::Duration;

use sqlx::PgPool;

/// Rows that one transaction looks at.
const BATCH: i64 = 5000;

/// Deletes records older than `keep`, and returns their number. It looks at most at `batches` × 5,000
/// rows, and the next call continues after them.
///
/// A row that was the newest of its relay when it was looked at is deleted when the next row of its
/// relay is. Each row is thus read once, although old rows stay.
///
/// # Errors
/// The database is unreachable or refuses a statement. Rows deleted before the error stay deleted.
pub async fn prune(db: &PgPool, keep: Duration, batches: u32) -> Result<u64, sqlx::Error> {
    let mut deleted = 0;
    for _ in 0..batches {
        let Some(batch) = prune_batch(db, keep).await? else { break };
        deleted += batch;
    }
    Ok(deleted)
}

/// Returns `None` if no further row is old enough, or if another process prunes now.
async fn prune_batch(db: &PgPool, keep: Duration) -> Result<Option<u64>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    sqlx::query!(
        "insert into prune_position (name, passed) values ('activity', 0) on conflict do nothing"
    )
    .execute(&mut *tx)
    .await?;
    let position = sqlx::query_scalar!(
        "select passed from prune_position where name = 'activity' for update skip locked"
    );
    let Some(passed) = position.fetch_optional(&mut *tx).await? else { return Ok(None) };
    let page = sqlx::query!(
        r#"select count(*) filter (where is_old) as "old!", max(id) filter (where is_old) as last
           from (select id, created_at < now() - make_interval(secs => $2) as is_old
                 from activity where id > $1 order by id limit $3) page"#,
        passed,
        keep.as_secs_f64(),
        BATCH,
    )
    .fetch_one(&mut *tx)
    .await?;
    let Some(last) = page.last else { return Ok(None) };
    let deleted = sqlx::query!(
        "with page as (
             select resource_id, max(id) as id from activity
             where id > $1 and id <= $2 and created_at < now() - make_interval(secs => $3)
             group by resource_id
         )
         delete from activity gone using page
         where gone.resource_id = page.resource_id
           and (gone.id < page.id
                or (gone.id = page.id and exists (
                    select from activity later
                    where later.resource_id = page.resource_id and later.id > page.id)))",
        passed,
        last,
        keep.as_secs_f64(),
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("update prune_position set passed = $1 where name = 'activity'", last)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok((page.old > 0).then_some(deleted.rows_affected()))
}
