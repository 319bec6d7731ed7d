//! Activity: the append-only record of the changes requested of a relay and of the outcomes of its
//! attempts.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod prune;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor};

use crate::provision::relay::RelayId;
pub use prune::prune;

/// The type of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum ActivityType {
    /// The relay was created.
    CreateRelay,
    /// The wanted state changed, or an operator requested another attempt.
    UpdateRelay,
    /// The relay was activated.
    ActivateRelay,
    /// The relay was deactivated by its tenant, or marked as delinquent.
    DeactivateRelay,
    /// The relay is to be deleted.
    DeleteRelay,
    /// An attempt succeeded: zooid has the wanted state, or has no such relay any more.
    CompleteRelaySync,
    /// An attempt failed.
    FailRelaySync,
}

impl ActivityType {
    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CreateRelay => "create_relay",
            Self::UpdateRelay => "update_relay",
            Self::ActivateRelay => "activate_relay",
            Self::DeactivateRelay => "deactivate_relay",
            Self::DeleteRelay => "delete_relay",
            Self::CompleteRelaySync => "complete_relay_sync",
            Self::FailRelaySync => "fail_relay_sync",
        }
    }
}

/// One record about a relay.
#[derive(Debug, Clone, Serialize)]
pub struct Activity {
    /// The id of the row. Later records have larger ids; a page is requested by the id that it ends
    /// before.
    pub id: i64,
    /// Time of the record, by the database's clock.
    pub created_at: DateTime<Utc>,
    /// The public key of the relay's tenant, 64 hex digits.
    pub tenant_pubkey: String,
    /// The requested change, or the outcome.
    pub activity_type: ActivityType,
    /// The type of the resource; always `relay`.
    pub resource_type: String,
    /// The relay's id. The relay itself may have been deleted.
    pub resource_id: String,
    /// For a change: `by` and the changed values. For an attempt: `job, attempt, method,
    /// duration_ms, generation`; for a failed one also `error, status, kind, retry_at`, and `sent`, the
    /// body with its secrets masked.
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

/// Returns at most `limit` records of a relay with ids below `before`, newest first.
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
