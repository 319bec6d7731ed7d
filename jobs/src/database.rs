//! The database: how it is connected to, and its schema. apalis's migrations run first and keep their history in the schema
//! `apalis`; Tender's migrations follow.
//!
//! Functions return [`sqlx::Error`] when the database is unreachable or refuses the statement.

mod connections;
mod silence;

use apalis_postgres::PostgresStorage;
use sqlx::{PgPool, postgres::PgPoolOptions};

pub use connections::{Path, pool};
pub use silence::{ANSWER_WITHIN, answered, hang_up, watch, within};

/// Tender's migrations. They refer to apalis's tables, so they run after apalis's migrations.
static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Why the schema could not be migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The extension `hstore`, which apalis needs, is not installed, or this role may not create
    /// it.
    #[error(
        "could not create the PostgreSQL extension hstore, which the queue needs: install the \
         contrib package, or run `create extension hstore` in this database as a superuser"
    )]
    Hstore(#[source] apalis_postgres::Error),
    /// One of apalis's migrations failed.
    #[error("failed to migrate the queue's tables")]
    Queue(#[source] apalis_postgres::Error),
    /// One of Tender's migrations failed.
    #[error("failed to migrate Tender's tables")]
    Ledger(#[from] sqlx::migrate::MigrateError),
}

/// Applies the missing migrations of both schemas. Several processes may do this at the same time:
/// each waits for the migration lock.
///
/// # Errors
/// [`MigrateError::Hstore`] if an operator must create the extension first; otherwise the migration
/// that failed.
pub async fn migrate(db: &PgPool) -> Result<(), MigrateError> {
    // On sessions without limits: a migration takes as long as it takes.
    let options = (*db.connect_options()).clone();
    let unlimited = PgPoolOptions::new().max_connections(2).connect_lazy_with(options);
    let migrated = migrate_on(&unlimited).await;
    unlimited.close().await;
    migrated
}

async fn migrate_on(db: &PgPool) -> Result<(), MigrateError> {
    PostgresStorage::<()>::setup(db).await.map_err(|error| match error.to_string() {
        text if text.contains("hstore") => MigrateError::Hstore(error),
        _ => MigrateError::Queue(error),
    })?;
    MIGRATOR.run(db).await?;
    Ok(())
}

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

/// Returns whether the database has at least our newest migration. A database without any migration
/// is not an error: the result is then false.
pub async fn is_migrated(db: &PgPool) -> Result<bool, sqlx::Error> {
    let newest = MIGRATOR.iter().map(|migration| migration.version).max();
    let applied = sqlx::query_scalar::<_, Option<i64>>(
        "select max(version) from _sqlx_migrations where success",
    )
    .fetch_one(db)
    .await;
    match applied {
        Ok(applied) => Ok(applied >= newest),
        // 42P01: the table of migrations does not exist, so no migration was ever applied.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Ok(false),
        Err(error) => Err(error),
    }
}
