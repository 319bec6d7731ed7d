//! Keys of the mirror's API, `/api/v1`. A token is shown once, when it is created; its row stores
//! the token's HMAC and first eight characters.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

/// An API key, without its token or digest.
#[derive(Debug, Clone, Serialize)]
pub struct ApiKey {
    /// The id of the row.
    pub id: Uuid,
    /// The operator's name for the key, at most [`MAX_NAME`] characters.
    pub name: String,
    /// The first eight characters of the token.
    #[serde(rename = "key_prefix")]
    pub prefix: String,
    /// Time of creation, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// Time of the last use, to the minute; `None` if the key was never used.
    pub last_used_at: Option<DateTime<Utc>>,
    /// Time of revocation; `None` while the key is active.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// The longest name, in characters.
pub const MAX_NAME: usize = 200;

/// Stores a new key, whose token has the HMAC `digest`, and returns it.
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

/// An active key that a request holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The id of the row.
    pub id: Uuid,
    /// The operator's name for the key.
    pub name: String,
}

/// The most digests that [`digests`] returns.
const MANY: i64 = 10_000;

/// Returns the digests of the active keys, the latest first; at most 10,000.
pub async fn digests(db: impl PgExecutor<'_>) -> Result<Vec<[u8; 32]>, sqlx::Error> {
    let digests = sqlx::query_scalar!(
        "select digest from api_key where revoked_at is null order by created_at desc limit $1",
        MANY,
    );
    let digests = digests.fetch_all(db).await?;
    Ok(digests.into_iter().filter_map(|digest| digest.try_into().ok()).collect())
}

/// Returns the active key with this digest. Records the time of use at most once a minute.
pub async fn authenticate(db: &PgPool, digest: &[u8; 32]) -> Result<Option<Holder>, sqlx::Error> {
    let found = sqlx::query!(
        r#"select id, name, coalesce(last_used_at < now() - interval '1 minute', true) as "is_due!"
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
    Ok(Some(Holder { id: found.id, name: found.name }))
}

/// Returns the active keys, and with `all` also the revoked ones, newest first. At most 1,000.
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

/// Revokes a key, keeps its row, and returns it; `None` if the key does not exist. A second revocation
/// keeps the time of the first.
pub async fn revoke(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<ApiKey>, sqlx::Error> {
    sqlx::query_as!(
        ApiKey,
        "update api_key set revoked_at = coalesce(revoked_at, now()), updated_at = now() where id = $1
         returning id, name, prefix, created_at, last_used_at, revoked_at",
        id,
    )
    .fetch_optional(db)
    .await
}

/// Returns the active keys whose stored token prefix starts with `prefix`, oldest first.
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
