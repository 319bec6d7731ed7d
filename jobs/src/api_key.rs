//! Keys of event sync's API. A token is shown once; its row holds what recognises it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

/// A key, without what it opens.
#[derive(Debug, Clone, Serialize)]
pub struct ApiKey {
    /// Its row's id.
    pub id: Uuid,
    /// What people call it.
    pub name: String,
    /// The first eight characters of its token.
    #[serde(rename = "key_prefix")]
    pub prefix: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The longest name.
pub const MAX_NAME: usize = 200;

/// Keeps a new key: `digest` is the token's HMAC.
///
/// # Errors
/// The database did not answer.
pub async fn create(
    db: impl PgExecutor<'_>,
    name: &str,
    prefix: &str,
    digest: &[u8; 32],
) -> Result<ApiKey, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        "insert into api_key (name, prefix, digest) values ($1, $2, $3)
         returning id, name, prefix, created_at, last_used_at, revoked_at",
        name,
        prefix,
        digest.as_slice(),
    )
    .fetch_one(db)
    .await
}

/// The active key with this digest; notes that it was used, at most once a minute.
///
/// # Errors
/// The database did not answer.
pub async fn authenticate(db: &PgPool, digest: &[u8; 32]) -> Result<Option<Uuid>, sqlx::Error> {
    let found = sqlx::query!(
        r#"select id, coalesce(last_used_at < now() - interval '1 minute', true) as "is_due!"
           from api_key where digest = $1 and revoked_at is null"#,
        digest.as_slice(),
    )
    .fetch_optional(db)
    .await?;
    let Some(found) = found else { return Ok(None) };
    if found.is_due {
        sqlx::query!("update api_key set last_used_at = now() where id = $1", found.id)
            .execute(db)
            .await?;
    }
    Ok(Some(found.id))
}

/// Keys, the newest first; revoked ones too with `all`. At most 1,000.
///
/// # Errors
/// The database did not answer.
pub async fn list(db: impl PgExecutor<'_>, all: bool) -> Result<Vec<ApiKey>, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        "select id, name, prefix, created_at, last_used_at, revoked_at
         from api_key where $1 or revoked_at is null order by created_at desc limit 1000",
        all,
    )
    .fetch_all(db)
    .await
}

/// Revokes a key; its row stays. False when there is none; revoking again is harmless.
///
/// # Errors
/// The database did not answer.
pub async fn revoke(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool, sqlx::Error> {
    let revoked = sqlx::query!(
        "update api_key set revoked_at = coalesce(revoked_at, now()), updated_at = now() where id = $1",
        id,
    )
    .execute(db)
    .await?;
    Ok(revoked.rows_affected() == 1)
}

/// Active keys whose token begins so.
///
/// # Errors
/// The database did not answer.
pub async fn with_prefix(
    db: impl PgExecutor<'_>,
    prefix: &str,
) -> Result<Vec<ApiKey>, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        "select id, name, prefix, created_at, last_used_at, revoked_at
         from api_key where starts_with(prefix, $1) and revoked_at is null order by created_at",
        prefix,
    )
    .fetch_all(db)
    .await
}
