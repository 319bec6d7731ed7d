//! Applies migrations while processes work on the database. Each migration waits for locks only for
//! a moment and is then tried again, because every statement that arrives behind a waiting
//! `alter table` waits with it.

use std::{error::Error, time::Duration};

use apalis_postgres::PostgresStorage;
use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    migrate::{Migrate, Migration, Migrator},
    postgres::PgConnectOptions,
};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{MIGRATOR, index, pooler};

/// The advisory lock of the process that migrates; any number that nothing else uses.
const LOCK: i64 = 0x7465_6e64_6572;
/// The table in which sqlx records our migrations.
const TABLE: &str = "_sqlx_migrations";
/// The interval between two attempts to take [`LOCK`], and their number: ten minutes.
const LOCK_POLL: Duration = Duration::from_millis(500);
const LOCK_TRIES: u32 = 1200;
/// The longest wait of a migration for another transaction's lock. Other statements may wait as long.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// The longest wait of a concurrent index build for older transactions. No other statement waits.
const CONCURRENT_WAIT: Duration = Duration::from_mins(10);
/// Attempts to apply migrations that did not get their locks, and the interval between them. Between
/// two attempts, the statements that waited are done.
const TRIES: u32 = 24;
const TRY_INTERVAL: Duration = Duration::from_secs(7);

/// Why the schema could not be migrated. Migrations that were applied before the error stay applied.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database is unreachable or refused a statement.
    #[error("failed to prepare the migration")]
    Database(#[from] sqlx::Error),
    /// A pooler in transaction mode is between this process and PostgreSQL.
    #[error(
        "migrations cannot run through a pooler in transaction mode: set DATABASE_LISTEN_URL to the \
         address of PostgreSQL itself, or run `tender migrate` with DATABASE_URL set to it"
    )]
    Pooler,
    /// Another process holds the migration lock.
    #[error(
        "another process has been migrating this database for 10 min: wait until it ends; \
         `select pid from pg_locks where locktype = 'advisory' and granted` finds its session"
    )]
    Busy,
    /// Another transaction holds a lock that a migration needs.
    #[error(
        "a migration did not get its locks in {TRIES} attempts, because another transaction holds \
         them: end it (`select pid, xact_start, query from pg_stat_activity order by xact_start`), \
         then run `tender migrate` again"
    )]
    Locked(#[source] Box<Self>),
    /// The extension `hstore`, which apalis needs, is not installed, or this role may not create
    /// it.
    #[error(
        "could not create the PostgreSQL extension hstore, which the queue needs: install the \
         contrib package, or run `create extension hstore` in this database as a superuser"
    )]
    Hstore(#[source] sqlx::migrate::MigrateError),
    /// One of apalis's migrations failed.
    #[error("failed to migrate the queue's tables")]
    Queue(#[source] sqlx::migrate::MigrateError),
    /// One of Tender's migrations failed.
    #[error("failed to migrate Tender's tables")]
    Ledger(#[source] sqlx::migrate::MigrateError),
}

/// Applies the missing migrations to the database of this pool; see [`migrate_at`].
///
/// # Errors
/// As [`migrate_at`].
pub async fn migrate(db: &PgPool) -> Result<(), MigrateError> {
    migrate_at(&db.connect_options()).await
}

/// Applies the missing migrations of both schemas on one connection of its own. Several processes may
/// do this at the same time: each waits for the migration lock, and the later ones find nothing to do.
///
/// # Errors
/// [`MigrateError`]: what an operator must do first, or the migration that failed.
pub async fn migrate_at(at: &PgConnectOptions) -> Result<(), MigrateError> {
    migrate_with(at, &MIGRATOR).await
}

/// As [`migrate_at`], with other migrations than Tender's after apalis's.
///
/// # Errors
/// As [`migrate_at`].
pub async fn migrate_with(at: &PgConnectOptions, ledger: &Migrator) -> Result<(), MigrateError> {
    let mut conn = PgConnection::connect_with(at).await?;
    if pooler::shares_sessions(&mut conn, at).await? {
        return Err(MigrateError::Pooler);
    }
    lock(&mut conn).await?;
    let migrated = apply_missing(&mut conn, ledger).await;
    // The lock ends with the session, also after an error.
    let _whether_it_said_goodbye = conn.close().await;
    migrated
}

/// Takes the migration lock. It polls, because a session that waits in `pg_advisory_lock` has a snapshot,
/// and `create index concurrently` in the session that has the lock would wait for it.
async fn lock(conn: &mut PgConnection) -> Result<(), MigrateError> {
    let mut ticks = ticks(LOCK_POLL);
    for _ in 0..LOCK_TRIES {
        ticks.tick().await;
        let taken = sqlx::query_scalar("select pg_try_advisory_lock($1)").bind(LOCK);
        if taken.fetch_one(&mut *conn).await? {
            return Ok(());
        }
    }
    Err(MigrateError::Busy)
}

/// Applies what is missing. An attempt that did not get its locks is repeated; it has changed nothing.
async fn apply_missing(conn: &mut PgConnection, ledger: &Migrator) -> Result<(), MigrateError> {
    sqlx::raw_sql("set statement_timeout = 0; set idle_in_transaction_session_timeout = 0")
        .execute(&mut *conn)
        .await?;
    let mut ticks = ticks(TRY_INTERVAL);
    for _ in 1..TRIES {
        ticks.tick().await;
        match apply_once(conn, ledger).await {
            Err(error) if is_lock(&error) => {}
            applied => return applied,
        }
    }
    ticks.tick().await;
    apply_once(conn, ledger).await.map_err(|error| match error {
        error if is_lock(&error) => MigrateError::Locked(Box::new(error)),
        error => error,
    })
}

async fn apply_once(conn: &mut PgConnection, ledger: &Migrator) -> Result<(), MigrateError> {
    set_lock_timeout(conn, LOCK_WAIT).await?;
    let queue = unlocked(PostgresStorage::<()>::migrations());
    queue.run(&mut *conn).await.map_err(|error| match error.to_string() {
        text if text.contains("hstore") => MigrateError::Hstore(error),
        _ => MigrateError::Queue(error),
    })?;
    let ledger = unlocked(Migrator::with_migrations(ledger.iter().cloned().collect()));
    for migration in missing(conn, &ledger).await.map_err(MigrateError::Ledger)? {
        set_lock_timeout(conn, LOCK_WAIT).await?;
        if migration.no_tx {
            index::drop_invalid(conn, migration.sql.as_str()).await?;
            set_lock_timeout(conn, CONCURRENT_WAIT).await?;
        }
        let applied = ledger.run_to(migration.version, &mut *conn).await;
        applied.map_err(MigrateError::Ledger)?;
    }
    Ok(())
}

/// Returns the migrations that were not applied, in their order.
async fn missing<'a>(
    conn: &mut PgConnection,
    ledger: &'a Migrator,
) -> Result<Vec<&'a Migration>, sqlx::migrate::MigrateError> {
    conn.ensure_migrations_table(TABLE).await?;
    let applied = conn.list_applied_migrations(TABLE).await?;
    let is_missing = |one: &&Migration| applied.iter().all(|done| done.version != one.version);
    Ok(ledger.iter().filter(is_missing).collect())
}

/// A migrator that takes no lock, because [`lock`] has it, and that accepts the migrations of a newer
/// release.
fn unlocked(mut migrator: Migrator) -> Migrator {
    migrator.set_locking(false).set_ignore_missing(true);
    migrator
}

async fn set_lock_timeout(conn: &mut PgConnection, wait: Duration) -> Result<(), sqlx::Error> {
    let set = format!("set lock_timeout = {}", wait.as_millis());
    sqlx::raw_sql(AssertSqlSafe(set)).execute(conn).await?;
    Ok(())
}

/// Whether a statement did not get its lock in time, or was the victim of a deadlock.
fn is_lock(error: &MigrateError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(sqlx::Error::Database(error)) = error.downcast_ref() {
            return matches!(error.code().as_deref(), Some("55P03" | "40P01"));
        }
        cause = error.source();
    }
    false
}

fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
