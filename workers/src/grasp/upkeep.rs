//! The recurring job: compares all wanted with all coverage, ends what died, and forgets what is old.

use serde_json::{Value, json};
use tender_jobs::grasp::{parked, service, wanted};

use super::Context;

/// Runs once.
pub(super) async fn reconcile(context: &Context) -> Result<Value, sqlx::Error> {
    let db = &context.db;
    let resumed = service::resume(db).await?;
    let reconciled = wanted::reconcile(db).await?;
    let expired = parked::expire(db).await?;
    Ok(json!({ "resumed": resumed, "reconciled": reconciled, "parked": expired }))
}
