//! The queue as apalis's own tools read it.

use apalis_postgres::{Config, PostgresStorage};
use serde_json::Value;
use sqlx::PgPool;

/// apalis's view of a queue, for its board. Only to be read: what it would put in has none of our
/// keys.
pub fn board(db: &PgPool, queue: &str) -> PostgresStorage<Value> {
    PostgresStorage::new(db).with_config(Config::default().queue(queue))
}
