//! What is known of an upstream: whether it speaks NIP-77, whose events it takes, and its NIP-11
//! document.

use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use crate::queue::one_line;

/// Stores for 24 hours whether the upstream supports NIP-77. `refused` is its message when it
/// refused.
pub async fn judge_negentropy(
    db: impl PgExecutor<'_>,
    id: Uuid,
    refused: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update upstream set
             negentropy_verdict = case when $2::text is null then 'supported' else 'unsupported' end,
             negentropy_verdict_until = now() + interval '24 hours', negentropy_reason = $2
         where id = $1",
        id,
        refused.map(one_line),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns whether NIP-77 is enabled and no valid verdict says that the upstream does not support
/// it.
pub async fn tries_negentropy(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool, sqlx::Error> {
    let tries = sqlx::query_scalar!(
        r#"select negentropy and (negentropy_verdict <> 'unsupported'
                                  or negentropy_verdict_until < now()) as "tries!"
           from upstream where id = $1"#,
        id,
    );
    Ok(tries.fetch_optional(db).await?.unwrap_or(false))
}

/// Stores that the upstream takes events from their authors only; `reason` is its message. Known
/// until the upstream is reset or its URL changes.
pub async fn note_authors_only(
    db: impl PgExecutor<'_>,
    id: Uuid,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update upstream set authors_only_at = coalesce(authors_only_at, now()), authors_only_reason = $2
         where id = $1",
        id,
        one_line(reason),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns whether the NIP-11 document was not requested within the last day.
pub async fn wants_information(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool, sqlx::Error> {
    let wants = sqlx::query_scalar!(
        r#"select coalesce(information_at < now() - interval '1 day', true) as "wants!"
           from upstream where id = $1"#,
        id,
    );
    Ok(wants.fetch_optional(db).await?.unwrap_or(false))
}

/// Stores the NIP-11 document. `None` means that it could not be read: the stored document stays,
/// and the next request follows after a day.
pub async fn note_information(
    db: impl PgExecutor<'_>,
    id: Uuid,
    information: Option<&Value>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update upstream set information = coalesce($2, information), information_at = now()
         where id = $1",
        id,
        information,
    )
    .execute(db)
    .await?;
    Ok(())
}
