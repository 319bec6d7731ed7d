//! New generations of many relays, page by page. Each page is one transaction that writes relays,
//! activity and jobs.

use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::{By, RelayId};
use crate::provision::{Cause, job::enqueue_many};

/// The result of one page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// The number of relays on the page; each has a new job.
    pub(crate) requested: u64,
    /// The last relay of the page; `None` if the page is empty.
    pub(crate) last: Option<RelayId>,
}

/// Starts a new generation of the next `limit` relays after `after`, in the order of their ids.
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

/// Starts a new generation of these relays, in one transaction or within the caller's. Returns the number of relays that
/// exist.
pub async fn request_all(
    db: &mut PgConnection,
    ids: &[RelayId],
    by: &By,
) -> Result<usize, sqlx::Error> {
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

/// Writes the generations, activity and jobs. The caller has locked the rows, in the order of their
/// ids.
async fn request(tx: &mut PgConnection, ids: &[RelayId], by: &By) -> Result<(), sqlx::Error> {
    let texts: Vec<String> = ids.iter().map(|id| id.as_str().to_owned()).collect();
    sqlx::query!(
        "with requested as (
             update relay
             set generation = generation + 1
             where id = any($1)
             returning id, tenant_pubkey
         )
         insert into activity (tenant_pubkey, activity_type, resource_id, detail)
         select tenant_pubkey, 'update_relay', id, $2 from requested",
        &texts,
        json!({ "by": by.who, "cause": Cause::Operator }),
    )
    .execute(&mut *tx)
    .await?;
    enqueue_many(tx, ids, Cause::Operator).await
}
