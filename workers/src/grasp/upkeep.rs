//! The recurring job: compares all wanted with all coverage, ends what died, and forgets what is old.

use serde_json::{Value, json};

use super::Context;

/// Runs once.
#[expect(clippy::unused_async, reason = "not written yet")]
pub(super) async fn reconcile(_context: &Context) -> Result<Value, sqlx::Error> {
    Ok(json!({}))
}
