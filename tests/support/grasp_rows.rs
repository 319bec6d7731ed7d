//! Rows of the GRASP wing, for tests of what people see.

use sqlx::{Executor, PgPool};

/// The address of the repository `alpha`.
pub const ALPHA: &str =
    "30617:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa:alpha";

/// Fills the tables: a service with two repositories, a followed relay in each state, coverage, batches,
/// a gap, and parked events.
pub async fn fill(db: &PgPool) {
    db.execute(sqlx::raw_sql(include_str!("grasp_rows.sql"))).await.unwrap();
}
