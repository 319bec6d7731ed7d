//! The database: how it is connected to, and its schema. apalis's migrations run first and keep their history in the schema
//! `apalis`; Tender's migrations follow.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod begin;
mod connections;
mod index;
mod migrate;
mod pooler;
mod server;
mod silence;

use sqlx::PgPool;

pub(crate) use begin::begin_with;
pub use begin::{Begin, begin};
pub use connections::{Path, pool};
pub use server::{Schema, Server, schema, server};
pub use silence::{ANSWER_WITHIN, answered, hang_up, watch, within};

pub use migrate::{MigrateError, migrate, migrate_at, migrate_with};

/// Tender's migrations. They refer to apalis's tables, so they run after apalis's migrations.
static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Returns the age, in seconds, of the oldest transaction that keeps PostgreSQL from removing dead
/// rows; 0 if there is none. Transactions of other roles count only if our role may see them.
pub async fn oldest_transaction_secs(db: &PgPool) -> Result<f64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::float8 as "secs!"
           from pg_stat_activity
           where backend_xmin is not null and backend_type = 'client backend'"#
    )
    .fetch_one(db)
    .await
}

/// Returns whether every migration of this release was applied. A database without any migration is
/// not an error: the result is then false. A database of a newer release is migrated, too.
pub async fn is_migrated(db: &PgPool) -> Result<bool, sqlx::Error> {
    Ok(schema(db).await?.missing == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_without_a_transaction_builds_or_drops_one_index_and_can_run_again() {
        for migration in MIGRATOR.iter().filter(|migration| migration.no_tx) {
            let statements = index::statements(migration.sql.as_str());
            let version = migration.version;
            let [statement] = statements.as_slice() else { panic!("{version}: {statements:?}") };
            assert!(index::built(statement).or(index::dropped(statement)).is_some(), "{version}");
        }
    }
}
