//! Syncing many relays again: page by page, each page one transaction of relays, activity and jobs.

use serde_json::json;
use sqlx::{PgConnection, PgPool};

use super::{By, RelayId};
use crate::queue::{self, Cause};

/// What one page did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// Relays that have a new job.
    pub(crate) requested: u64,
    /// The last of them; `None` when there were none.
    pub(crate) last: Option<RelayId>,
}

/// "Again, now" for the next `limit` relays after `after`, in the order of their ids.
pub(crate) async fn page(
    tx: &mut PgConnection,
    after: &str,
    limit: i64,
    by: &By,
) -> Result<Page, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        r#"select id as "id: RelayId" from relay where id > $1 order by id limit $2 for update"#,
        after,
        limit,
    )
    .fetch_all(&mut *tx)
    .await?;
    request(tx, &ids, by).await?;
    let requested = u64::try_from(ids.len()).unwrap_or(u64::MAX);
    Ok(Page { requested, last: ids.into_iter().next_back() })
}

/// "Again, now" for these relays; how many there were.
///
/// # Errors
/// The database did not answer; then none was requested.
pub async fn request_all(db: &PgPool, ids: &[RelayId], by: &By) -> Result<usize, sqlx::Error> {
    let mut tx = db.begin().await?;
    let texts: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
    let ids = sqlx::query_scalar!(
        r#"select id as "id: RelayId" from relay where id = any($1) order by id for update"#,
        &texts,
    )
    .fetch_all(&mut *tx)
    .await?;
    request(&mut tx, &ids, by).await?;
    tx.commit().await?;
    Ok(ids.len())
}

/// The rows are locked by the caller, in the order of their ids.
async fn request(tx: &mut PgConnection, ids: &[RelayId], by: &By) -> Result<(), sqlx::Error> {
    let ids: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
    sqlx::query!(
        "with requested as (
             update relay
             set generation = generation + 1, sync_error = '', failure_kind = null, attempts = 0,
                 retry_at = null, exhausted_at = null, updated_at = now()
             where id = any($1)
             returning id, tenant_pubkey
         )
         insert into activity (tenant_pubkey, activity_type, resource_id, detail)
         select tenant_pubkey, 'update_relay', id, $2 from requested",
        &ids,
        json!({ "by": by.who, "cause": Cause::Operator }),
    )
    .execute(&mut *tx)
    .await?;
    queue::enqueue_many(tx, &ids, Cause::Operator).await
}
