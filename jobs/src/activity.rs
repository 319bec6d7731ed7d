//! Activity: the append-only record of what was asked of a relay and what came of it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};

use crate::relay::RelayId;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum ActivityType {
    /// A relay was created.
    CreateRelay,
    /// Its wanted state changed, or an operator asked for another sync.
    UpdateRelay,
    /// It was switched on.
    ActivateRelay,
    /// It was switched off, by its tenant or as delinquent.
    DeactivateRelay,
    /// An attempt carried it to zooid.
    CompleteRelaySync,
    /// An attempt failed.
    FailRelaySync,
}

impl ActivityType {
    /// The name stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateRelay => "create_relay",
            Self::UpdateRelay => "update_relay",
            Self::ActivateRelay => "activate_relay",
            Self::DeactivateRelay => "deactivate_relay",
            Self::CompleteRelaySync => "complete_relay_sync",
            Self::FailRelaySync => "fail_relay_sync",
        }
    }
}

/// One record.
#[derive(Debug, Clone, Serialize)]
pub struct Activity {
    /// Grows with time; what `before` of a page names.
    pub id: i64,
    /// When, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// The relay's tenant, 64 hex digits.
    pub tenant_pubkey: String,
    /// What happened.
    pub activity_type: ActivityType,
    /// Always `relay` so far.
    pub resource_type: String,
    /// The relay's id; the relay itself may be gone.
    pub resource_id: String,
    /// A mutation: `by` and what changed. A sync: `job, attempt, method, duration_ms, generation`;
    /// when it failed also `error, status, kind, retry_at`.
    pub detail: Value,
}

/// Appends a record about a relay, within the caller's transaction.
pub(crate) async fn append(
    conn: &mut PgConnection,
    relay_id: &RelayId,
    tenant_pubkey: &str,
    activity_type: ActivityType,
    detail: &Value,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into activity (tenant_pubkey, activity_type, resource_id, detail)
         values ($1, $2, $3, $4)",
        tenant_pubkey,
        activity_type.as_str(),
        relay_id.as_str(),
        detail,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A relay's activity, newest first: at most `limit` records with ids below `before`.
///
/// # Errors
/// The database did not answer.
pub async fn of_relay(
    db: impl PgExecutor<'_>,
    relay_id: &RelayId,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Activity>, sqlx::Error> {
    sqlx::query_as!(
        Activity,
        r#"select id, created_at, tenant_pubkey, activity_type as "activity_type: ActivityType",
                  resource_type, resource_id, detail
           from activity
           where resource_id = $1 and ($2::bigint is null or id < $2)
           order by id desc
           limit $3"#,
        relay_id.as_str(),
        before,
        limit,
    )
    .fetch_all(db)
    .await
}
