//! Limits of what a tenant may do, decided within the mutation's transaction.

use std::time::Duration;

use sqlx::PgConnection;

use super::{MutationError, NewRelay, RelayId};

/// The interval between two syncs of a relay that its tenant may request.
const SYNC_INTERVAL: Duration = Duration::from_mins(1);

/// Fails if the tenant has `most` relays. Creations of the same tenant run one after the other, so
/// that two of them cannot both take the last place.
pub(super) async fn check_quota(
    tx: &mut PgConnection,
    new: &NewRelay,
    most: u32,
) -> Result<(), MutationError> {
    sqlx::query!(
        "select pg_advisory_xact_lock(hashtextextended('quota:' || $1, 0))",
        new.tenant_pubkey,
    )
    .execute(&mut *tx)
    .await?;
    let is_used_up = sqlx::query_scalar!(
        r#"select count(*) >= $2::bigint as "is_used_up!"
           from (select from relay where tenant_pubkey = $1 limit $2::bigint) relays"#,
        new.tenant_pubkey,
        i64::from(most),
    )
    .fetch_one(tx)
    .await?;
    if is_used_up { Err(MutationError::QuotaUsedUp(most)) } else { Ok(()) }
}

/// Fails if `who` requested a sync of the relay less than [`SYNC_INTERVAL`] ago. The caller has locked
/// the relay.
pub(super) async fn check_sync(
    tx: &mut PgConnection,
    id: &RelayId,
    who: &str,
) -> Result<(), MutationError> {
    // Only the newest records are read: a relay may have any number of older ones.
    let wait = sqlx::query_scalar!(
        r#"select ceil(extract(epoch from created_at + make_interval(secs => $3) - now()))::bigint
               as "wait!"
           from (select * from activity where resource_id = $1 order by id desc limit 200) newest
           where activity_type = 'update_relay' and detail->>'cause' = 'operator'
             and detail->>'by' = $2 and created_at > now() - make_interval(secs => $3)
           order by id desc limit 1"#,
        id.as_str(),
        who,
        SYNC_INTERVAL.as_secs_f64(),
    )
    .fetch_optional(tx)
    .await?;
    match wait {
        Some(wait) => Err(MutationError::TooSoon(u64::try_from(wait).unwrap_or_default().max(1))),
        None => Ok(()),
    }
}
