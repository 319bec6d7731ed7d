//! Sessions of the dashboard, and what lets in once. Only hashes are stored: who reads the database
//! cannot log in with it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::PgExecutor;

/// What a session may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "lowercase")]
#[sqlx(type_name = "text", rename_all = "lowercase")]
pub enum Role {
    /// Look and act.
    Operator,
    /// Look.
    Viewer,
}

impl Role {
    /// The name stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Viewer => "viewer",
        }
    }
}

/// A session that holds.
#[derive(Debug, Clone)]
pub struct Session {
    /// A public key in hex, `password` or `link`.
    pub who: String,
    /// What it may do.
    pub role: Role,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// Begins a session of `hours` hours under the hash of its token.
///
/// # Errors
/// The database did not answer.
pub async fn begin(
    db: impl PgExecutor<'_>,
    token_hash: &[u8],
    who: &str,
    role: Role,
    hours: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into dashboard_session (token_hash, who, role, expires_at)
         values ($1, $2, $3, now() + make_interval(hours => $4))",
        token_hash,
        who,
        role.as_str(),
        hours,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The session under this hash, if it is neither over nor revoked.
///
/// # Errors
/// The database did not answer.
pub async fn find(
    db: impl PgExecutor<'_>,
    token_hash: &[u8],
) -> Result<Option<Session>, sqlx::Error> {
    sqlx::query_as!(
        Session,
        r#"select who, role as "role: Role", expires_at from dashboard_session
           where token_hash = $1 and expires_at > now() and revoked_at is null"#,
        token_hash,
    )
    .fetch_optional(db)
    .await
}

/// Revokes one session, or all of them; how many held until now.
///
/// # Errors
/// The database did not answer.
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

/// Makes a link's ticket that lets in once within `minutes`.
///
/// # Errors
/// The database did not answer.
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

/// Uses a link's ticket. False when there is none, or it was used, or its time is over.
///
/// # Errors
/// The database did not answer.
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

/// Marks a signed event as used, by its id. False when it was used before: a replay.
///
/// # Errors
/// The database did not answer.
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

/// Whether a link lets somebody in, or let in somebody whose session holds.
///
/// # Errors
/// The database did not answer.
pub async fn any_link(db: impl PgExecutor<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from dashboard_ticket where used_at is null and expires_at > now())
               or exists (select from dashboard_session
                          where who = 'link' and expires_at > now() and revoked_at is null) as "any!""#
    )
    .fetch_one(db)
    .await
}

/// Forgets sessions and tickets that were over a day ago.
///
/// # Errors
/// The database did not answer.
pub async fn prune(db: impl PgExecutor<'_>) -> Result<u64, sqlx::Error> {
    let pruned = sqlx::query!(
        "with sessions as (
             delete from dashboard_session where expires_at < now() - interval '1 day'
         )
         delete from dashboard_ticket where expires_at < now() - interval '1 day'"
    );
    Ok(pruned.execute(db).await?.rows_affected())
}
