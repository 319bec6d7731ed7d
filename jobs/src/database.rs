//! The schema: apalis's migrations first (their own history, in schema `apalis`), then ours.

use apalis_postgres::PostgresStorage;
use sqlx::PgPool;

/// Our migrations; they expect apalis's tables to exist.
static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Why the schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The extension that apalis needs cannot be made by this user or is not installed.
    #[error(
        "the queue needs the PostgreSQL extension hstore: install the contrib package, or run \
         `create extension hstore` in this database as a superuser"
    )]
    Hstore(#[source] apalis_postgres::Error),
    /// apalis's tables could not be made.
    #[error("failed to migrate the queue's tables")]
    Queue(#[source] apalis_postgres::Error),
    /// Our tables could not be made.
    #[error("failed to migrate Tender's tables")]
    Ledger(#[from] sqlx::migrate::MigrateError),
}

/// Brings both schemas up to date. Safe to run from several processes at once: each takes the
/// migration lock.
///
/// # Errors
/// [`MigrateError::Hstore`] asks for an operator's hand; the others carry the database's words.
pub async fn migrate(db: &PgPool) -> Result<(), MigrateError> {
    PostgresStorage::<()>::setup(db).await.map_err(|error| match error.to_string() {
        text if text.contains("hstore") => MigrateError::Hstore(error),
        _ => MigrateError::Queue(error),
    })?;
    MIGRATOR.run(db).await?;
    Ok(())
}

/// For how long the oldest transaction has kept PostgreSQL from cleaning up, in seconds; other roles'
/// only as far as ours may see them.
///
/// # Errors
/// The database did not answer.
pub async fn oldest_transaction_secs(db: &PgPool) -> Result<f64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select coalesce(max(extract(epoch from clock_timestamp() - xact_start)), 0)::float8 as "secs!"
           from pg_stat_activity
           where backend_xmin is not null and backend_type = 'client backend'"#
    )
    .fetch_one(db)
    .await
}

/// Whether the database answers and carries at least our newest migration.
///
/// # Errors
/// The database did not answer.
pub async fn is_migrated(db: &PgPool) -> Result<bool, sqlx::Error> {
    let newest = MIGRATOR.iter().map(|migration| migration.version).max();
    let applied = sqlx::query_scalar::<_, Option<i64>>(
        "select max(version) from _sqlx_migrations where success",
    )
    .fetch_one(db)
    .await;
    match applied {
        Ok(applied) => Ok(applied >= newest),
        // 42P01: the table of migrations does not exist, so nothing was ever migrated.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Ok(false),
        Err(error) => Err(error),
    }
}
