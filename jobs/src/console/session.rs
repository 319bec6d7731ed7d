//! Sessions of the dashboard, and one-time login tickets. Only hashes of their tokens are stored,
//! so a copy of the database does not allow a login.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;

/// The permissions of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Role {
    /// May read every page and act.
    Operator,
    /// May read every page.
    Viewer,
}

impl Role {
    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

/// A valid session.
#[derive(Debug, Clone)]
pub struct Session {
    /// How the session began: a public key in hex, `password` or `link`.
    pub who: String,
    /// Whether the session may act.
    pub role: Role,
    /// Time of expiry, by the database's clock.
    pub expires_at: DateTime<Utc>,
    /// Now, by the database's clock.
    pub now: DateTime<Utc>,
    /// The digest of the credential that began the session, if it ends with that credential.
    pub credential: Option<Vec<u8>>,
}

/// Starts a session that expires after `hours` hours. Only the hash of its token is stored, and a digest
/// of the credential if the session is to end with it.
pub async fn begin(
    db: impl PgExecutor<'_>,
    token_hash: &[u8],
    who: &str,
    role: Role,
    hours: i32,
    credential: Option<&[u8]>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into dashboard_session (token_hash, who, role, expires_at, credential)
         values ($1, $2, $3, now() + make_interval(hours => $4), $5)",
        token_hash,
        who,
        role.as_str(),
        hours,
        credential,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns the session with this hash; `None` if it does not exist, has expired or was revoked.
pub async fn find(
    db: impl PgExecutor<'_>,
    token_hash: &[u8],
) -> Result<Option<Session>, sqlx::Error> {
    sqlx::query_as!(
        Session,
        r#"select who, role as "role: Role", expires_at, now() as "now!", credential
           from dashboard_session where token_hash = $1 and expires_at > now() and revoked_at is null"#,
        token_hash,
    )
    .fetch_optional(db)
    .await
}

/// Revokes one session, or every session if `token_hash` is `None`. Returns the number of sessions
/// that were valid until now.
pub async fn revoke(
    db: impl PgExecutor<'_>,
    token_hash: Option<&[u8]>,
) -> Result<u64, sqlx::Error> {
    let revoked = sqlx::query!(
        "update dashboard_session set revoked_at = now()
         where ($1::bytea is null or token_hash = $1) and revoked_at is null and expires_at > now()",
        token_hash,
    )
    .execute(db)
    .await?;
    Ok(revoked.rows_affected())
}

/// Returns the number of sessions that have not ended.
pub async fn count(db: impl PgExecutor<'_>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from dashboard_session
           where revoked_at is null and expires_at > now()"#
    )
    .fetch_one(db)
    .await
}

/// Creates a one-time login ticket that expires after `minutes` minutes. `hash` is the hash of the
/// token in the link.
pub async fn issue(db: impl PgExecutor<'_>, hash: &[u8], minutes: i32) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into dashboard_ticket (hash, expires_at)
         values ($1, now() + make_interval(mins => $2))",
        hash,
        minutes,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Uses a login ticket. Returns false if the ticket does not exist, was used before or has expired.
pub async fn redeem(db: impl PgExecutor<'_>, hash: &[u8]) -> Result<bool, sqlx::Error> {
    let redeemed = sqlx::query!(
        "update dashboard_ticket set used_at = now()
         where hash = $1 and used_at is null and expires_at > now()",
        hash,
    )
    .execute(db)
    .await?;
    Ok(redeemed.rows_affected() == 1)
}

/// Marks a signed login event as used. Returns false if it was used before, which means a replay.
pub async fn spend(db: impl PgExecutor<'_>, event_id: &[u8]) -> Result<bool, sqlx::Error> {
    let spent = sqlx::query!(
        "insert into dashboard_ticket (hash, expires_at, used_at)
         values ($1, now() + interval '10 minutes', now()) on conflict do nothing",
        event_id,
    )
    .execute(db)
    .await?;
    Ok(spent.rows_affected() == 1)
}

/// Returns whether a login ticket is unused and valid, or a session that began with one is valid.
pub async fn any_link(db: impl PgExecutor<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from dashboard_ticket where used_at is null and expires_at > now())
               or exists (select from dashboard_session
                          where who = 'link' and expires_at > now() and revoked_at is null) as "any!""#
    )
    .fetch_one(db)
    .await
}

/// Deletes sessions and tickets that expired more than a day ago. Returns the number of deleted
/// tickets.
pub async fn prune(db: impl PgExecutor<'_>) -> Result<u64, sqlx::Error> {
    let pruned = sqlx::query!(
        "with sessions as (
             delete from dashboard_session where expires_at < now() - interval '1 day'
         )
         delete from dashboard_ticket where expires_at < now() - interval '1 day'"
    );
    Ok(pruned.execute(db).await?.rows_affected())
}
