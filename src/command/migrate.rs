//! `migrate`, and the check of every other command that the database has this release's schema.

use anyhow::{Context, bail};
use tender_jobs::database;
use tender_workers::runtime::Listen;

use super::print;
use crate::{config::Config, postgres::Database};

/// Opens the database, brings it up to date and says so.
pub(super) async fn migrate(config: &Config, json: bool) -> anyhow::Result<()> {
    let database = open_and_migrate(config).await?;
    database.close().await;
    print::done(json, "the database is up to date")
}

/// Checks that there is a database to read.
///
/// # Errors
/// `DATABASE_URL` is not set, and no private PostgreSQL was ever created.
pub(super) fn check_exists(config: &Config) -> anyhow::Result<()> {
    if Database::exists(&config.database)? {
        return Ok(());
    }
    bail!(
        "there is no database yet: DATABASE_URL is not set, and {} has no private PostgreSQL; `tender \
         serve` creates one and starts, `tender demo` shows Tender at work",
        config.database.data_dir.display()
    )
}

/// Opens a database that this release's migrations were applied to. A private PostgreSQL is migrated
/// first, because it has one user.
///
/// # Errors
/// The database is unreachable, or the operator must run `tender migrate`.
pub(super) async fn open(config: &Config) -> anyhow::Result<Database> {
    if config.database.url.is_none() {
        return open_and_migrate(config).await;
    }
    let database = Database::open(&config.database).await?;
    if is_migrated(&database).await? {
        return Ok(database);
    }
    database.close().await;
    bail!(
        "the database does not have this release's schema: run `tender migrate`, then run this \
         command again; processes of the previous release may run meanwhile"
    )
}

/// Opens the database, and applies the missing migrations.
///
/// # Errors
/// The database is unreachable, or a migration failed.
pub(super) async fn open_and_migrate(config: &Config) -> anyhow::Result<Database> {
    let database = Database::open(&config.database).await?;
    match bring_up_to_date(config, &database).await {
        Ok(()) => Ok(database),
        Err(error) => {
            database.close().await;
            Err(error)
        }
    }
}

/// A role that may not change the schema is enough for a database that is up to date.
async fn bring_up_to_date(config: &Config, database: &Database) -> anyhow::Result<()> {
    if is_migrated(database).await? {
        return Ok(());
    }
    match &config.runtime.listen {
        Listen::At(direct) => database::migrate_at(direct).await?,
        Listen::Pool | Listen::Off => database::migrate(&database.pool).await?,
    }
    if !is_migrated(database).await? {
        bail!("DATABASE_LISTEN_URL names another database than DATABASE_URL");
    }
    Ok(())
}

async fn is_migrated(database: &Database) -> anyhow::Result<bool> {
    let is_migrated = database::is_migrated(&database.pool).await;
    is_migrated.map_err(explain).context("failed to read the schema's version")
}

/// Adds advice to the first error of a database, where the error itself does not say what to do.
fn explain(error: sqlx::Error) -> anyhow::Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    // A prepared statement exists already, or does not exist.
    if matches!(code.as_deref(), Some("42P05" | "26000")) {
        return anyhow::Error::new(error).context(
            "a pooler in transaction mode does not keep prepared statements: use PgBouncer 1.21 or \
             newer with max_prepared_statements, or session mode",
        );
    }
    error.into()
}
