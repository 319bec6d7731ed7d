//! The recurring job: compares all wanted with all coverage, ends what died, drops what nothing names, and
//! forgets what is old.

use serde_json::{Value, json};
use tender_jobs::grasp::{batch, followed, parked, service, wanted};

use super::Context;

/// Runs once. Returns what was done, for people.
pub(super) async fn reconcile(context: &Context) -> Result<Value, sqlx::Error> {
    let db = &context.db;
    let reaped = followed::reap(db).await?;
    let resumed = service::resume(db).await?;
    let reconciled = wanted::reconcile(db).await?;
    if reconciled.cut > 0 {
        tracing::warn!(
            relays = reconciled.cut,
            "followed relays have too many items to be compared"
        );
    }
    let expired = parked::expire(db).await?;
    let dropped = followed::drop_unwanted(db).await?;
    for one in &dropped {
        tracing::info!(
            url = one.url,
            "a relay that nothing names any more is not followed any more"
        );
    }
    let woken = followed::wake_due(db).await?;
    let pruned = batch::prune(db).await?;
    Ok(json!({
        "reaped": reaped, "resumed": resumed, "reconciled": reconciled, "parked": expired,
        "dropped": dropped.len(), "woken": woken, "pruned": pruned,
    }))
}
