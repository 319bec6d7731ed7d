//! The relay that an operator names.

use anyhow::Context;
use sqlx::PgPool;
use tender_jobs::provision::relay::{self, Relay, RelayId};

/// Finds a relay by its id or its whole host.
pub(in crate::command) async fn find(db: &PgPool, text: &str) -> anyhow::Result<Relay> {
    let found = if let Ok(id) = text.parse::<RelayId>() {
        relay::find(db, &id).await?
    } else {
        relay::find_by_host(db, &text.to_lowercase()).await?
    };
    found.with_context(|| {
        format!(
            "there is no relay {text}: give its id or whole host; `tender relay list` shows both"
        )
    })
}
