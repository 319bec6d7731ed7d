//! Forgetting an upstream: everything that is believed of it goes, because it may be another relay now,
//! or may have lost its events. Stored events stay.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{console::operator, mirror::contended};

/// Forgets what is believed of an upstream, or of all upstreams: the progress of its lanes, which events
/// it holds or refused, its NIP-11 document and what it was found to support. Running jobs lose their
/// lanes. `by` is written to the operators' record, in the same transaction. Returns the number of lanes that start from the beginning. Takes as long as the number of
/// beliefs requires.
pub async fn reset(
    db: &PgPool,
    upstream: Option<Uuid>,
    by: Option<&str>,
) -> Result<u64, sqlx::Error> {
    let ids = match upstream {
        Some(id) => vec![id],
        None => sqlx::query_scalar!("select id from upstream order by id").fetch_all(db).await?,
    };
    let mut lanes = 0;
    for id in ids {
        lanes += contended::retried(|| reset_one(db, id, by)).await?;
    }
    Ok(lanes)
}

async fn reset_one(db: &PgPool, id: Uuid, by: Option<&str>) -> Result<u64, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let url = sqlx::query_scalar!("select url from upstream where id = $1 for update", id)
        .fetch_optional(&mut *tx)
        .await?;
    let lanes = forget(&mut tx, id).await?;
    if let (Some(who), Some(url)) = (by, url) {
        let words = format!("{lanes} lanes start from the beginning");
        operator::record(&mut *tx, who, "reset_upstream", &url, &words).await?;
    }
    tx.commit().await?;
    Ok(lanes)
}

/// Does the work of [`reset`] in a transaction that has locked the upstream's row: transactions that
/// store events of this upstream wait for it, or have committed.
pub(super) async fn forget(tx: &mut PgConnection, id: Uuid) -> Result<u64, sqlx::Error> {
    sqlx::query!("set local statement_timeout = 0").execute(&mut *tx).await?;
    sqlx::query!("delete from upload_verdict where upstream_id = $1", id).execute(&mut *tx).await?;
    sqlx::query!("delete from event_source where upstream_id = $1", id).execute(&mut *tx).await?;
    sqlx::query!("delete from known_id where upstream_id = $1", id).execute(&mut *tx).await?;
    sqlx::query!("delete from upstream_connection where upstream_id = $1", id)
        .execute(&mut *tx)
        .await?;
    // With another number, the upstream is no longer the source of any event.
    sqlx::query!(
        "update upstream set number = default, negentropy_verdict = 'unknown', negentropy_verdict_until = null,
                negentropy_reason = null, information = null, information_at = null,
                authors_only_at = null, authors_only_reason = null, page_cap = null,
                page_cap_at = null, negentropy_cap = null, negentropy_cap_at = null,
                exclusive_until_at = null
         where id = $1",
        id,
    )
    .execute(&mut *tx)
    .await?;
    let lanes = sqlx::query!("delete from lane where upstream_id = $1", id).execute(tx).await?;
    Ok(lanes.rows_affected())
}
