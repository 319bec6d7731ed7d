//! Jobs by the start of their ids.

use serde::Serialize;
use sqlx::PgExecutor;

/// A job as a search shows it.
#[derive(Debug, Clone, Serialize)]
pub struct FoundJob {
    /// The id of the row, a ULID.
    pub id: String,
    /// The queue.
    pub queue: String,
}

/// Returns at most `limit` jobs whose id starts with a text of 8 to 26 characters, in the order of their ids; none
/// for any other text. Case does not matter.
///
/// # Errors
/// See [`queue`](super).
pub async fn starting_with(
    db: impl PgExecutor<'_>,
    text: &str,
    limit: i64,
) -> Result<Vec<FoundJob>, sqlx::Error> {
    let text = text.to_uppercase();
    if !(8..=26).contains(&text.len()) || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Ok(Vec::new());
    }
    sqlx::query_as!(
        FoundJob,
        r#"select id, job_type as queue from apalis.jobs where id between $1 and $2 order by id limit $3"#,
        text,
        format!("{text}{}", "Z".repeat(26 - text.len())),
        limit,
    )
    .fetch_all(db)
    .await
}
