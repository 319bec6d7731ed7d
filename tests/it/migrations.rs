//! Migrations beside a working deployment: what they lock, for how long, and what a failure leaves.

use std::{borrow::Cow, time::Duration};

use sqlx::{
    AssertSqlSafe, Connection, PgConnection, PgPool,
    migrate::{Migration, MigrationType, Migrator},
};
use tender_jobs::database::{self, migrate, migrate_with};
use tokio_util::sync::CancellationToken;

use crate::support::{
    database::{MIGRATIONS, TestDatabase},
    eventually, patiently,
};

/// The newest migration of the databases that exist. Later ones run beside writers.
const LANDED: i64 = 20_261_121_000_006;

/// A migration whose text does not matter to any other test.
fn migration(sql: &'static str, no_tx: bool) -> Migrator {
    let sql = sqlx::SqlSafeStr::into_sql_str(sql);
    let migration = Migration::new(1, Cow::Borrowed("a test"), MigrationType::Simple, sql, no_tx);
    Migrator::with_migrations(vec![migration])
}

async fn one<T>(db: &PgPool, query: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    sqlx::query_scalar(query).fetch_one(db).await.unwrap()
}

#[tokio::test]
async fn two_processes_that_migrate_at_once_both_succeed() {
    let database = TestDatabase::empty().await;
    assert!(!database::is_migrated(&database.pool).await.unwrap());
    let (first, second) = tokio::join!(migrate(&database.pool), migrate(&database.pool));
    first.unwrap();
    second.unwrap();
    assert!(database::is_migrated(&database.pool).await.unwrap());
    // And once more, with nothing to do, also beside the migrations of a newer release.
    let newer =
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
                 values (99991231000000, 'newer', true, '', 0)";
    sqlx::query(newer).execute(&database.pool).await.unwrap();
    migrate(&database.pool).await.unwrap();
    assert!(database::is_migrated(&database.pool).await.unwrap());
}

#[tokio::test]
async fn a_migration_that_waits_for_a_lock_lets_other_statements_pass() {
    let database = TestDatabase::new().await;
    let db = &database.pool;
    let mut reader = tender_jobs::database::begin(db).await.unwrap();
    sqlx::query("select from relay").execute(&mut *reader).await.unwrap();
    let (at, ledger) =
        (db.connect_options(), migration("alter table relay add column probe int", false));
    let others = async {
        eventually("the migration waits for its lock", async || {
            let waits = "select exists(select from pg_locks where not granted
                         and mode = 'AccessExclusiveLock' and relation = 'relay'::regclass)";
            one(db, waits).await
        })
        .await;
        // The reader is still open: without a bound on the wait this statement would never end.
        let select = sqlx::query("select from relay").execute(db);
        patiently("another statement passes", select).await.unwrap();
        reader.rollback().await.unwrap();
    };
    let migrating = patiently("the migration gets its lock", migrate_with(&at, &ledger));
    tokio::join!(migrating, others).0.unwrap();
    assert_eq!(one::<Option<i32>>(db, "select max(probe) from relay").await, None);
}

#[tokio::test]
async fn an_index_that_a_failed_build_left_invalid_is_built_again() {
    let database = TestDatabase::new().await;
    let db = &database.pool;
    sqlx::query("create table thing (id int)").execute(db).await.unwrap();
    sqlx::query("insert into thing values (1), (1)").execute(db).await.unwrap();
    let build =
        "-- no-transaction\ncreate unique index concurrently if not exists thing_idx on thing (id)";
    let (at, ledger) = (db.connect_options(), migration(build, true));
    migrate_with(&at, &ledger).await.expect_err("two rows are equal");
    let is_valid = "select indisvalid from pg_index where indexrelid = 'thing_idx'::regclass";
    assert!(!one::<bool>(db, is_valid).await);
    sqlx::query("delete from thing").execute(db).await.unwrap();
    migrate_with(&at, &ledger).await.unwrap();
    assert!(one::<bool>(db, is_valid).await);
    // A build that ended before it was recorded is only recorded.
    sqlx::query("delete from _sqlx_migrations where version = 1").execute(db).await.unwrap();
    migrate_with(&at, &ledger).await.unwrap();
    assert_eq!(one::<i64>(db, "select count(*) from _sqlx_migrations where version = 1").await, 1);
}

#[test]
fn a_migration_builds_indexes_of_older_tables_beside_writers() {
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > LANDED) {
        let lines = migration.sql.as_str().lines().filter(|line| !line.trim().starts_with("--"));
        let sql = lines.collect::<Vec<_>>().join(" ").to_lowercase();
        let sql = sql.split_whitespace().collect::<Vec<_>>().join(" ");
        let indexes = sql.split(';').filter(|one| {
            let one = one.trim().replace("unique ", "");
            one.starts_with("create index") && !one.contains("concurrently")
        });
        for index in indexes {
            let table = index.split(" on ").nth(1).unwrap().split([' ', '(']).next().unwrap();
            let is_new = sql.contains(&format!("create table {table} "));
            let version = migration.version;
            assert!(is_new, "{version}: {table} has rows already: build the index concurrently");
        }
    }
}

/// Statements of the previous release, again and again; the longest duration of one.
async fn write(db: PgPool, from: i32, stop: CancellationToken) -> Duration {
    let mut longest = Duration::ZERO;
    let mut conn = PgConnection::connect_with(&db.connect_options()).await.unwrap();
    for number in (0..).map(|step| (from + step * 7) % 200_000) {
        if stop.is_cancelled() {
            break;
        }
        for statement in [
            "update relay set generation = generation + 1 where subdomain = 'r' || $1",
            "insert into activity (tenant_pubkey, activity_type, resource_id, detail)
             select tenant_pubkey, 'update_relay', id, '{}' from relay where subdomain = 'r' || $1",
            "select from activity where resource_id in (select id from relay where subdomain = 'r' || $1)",
            "update apalis.jobs set run_at = now() where id = 'job-' || $1",
        ] {
            let started = std::time::Instant::now();
            sqlx::query(statement).bind(number).execute(&mut conn).await.unwrap();
            longest = longest.max(started.elapsed());
        }
    }
    conn.close().await.unwrap();
    longest
}

/// Rows as a deployment of 200,000 relays has them.
async fn fill(db: &PgPool) {
    for statement in [
        "insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
             policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
             management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled)
         select gen_random_uuid(), repeat('a', 64), 'r' || n, 'zooid.test', 's' || n, true, true,
             true, true, true, true, true, true, true, true
         from generate_series(0, 199999) n",
        "insert into activity (tenant_pubkey, activity_type, resource_id, detail)
         select tenant_pubkey, 'create_relay', id, '{}' from relay, generate_series(1, 2)",
        "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at)
         select 'job-' || n, 'sync-relay', '{}', 'Pending', 0, 7, now() from generate_series(0, 199999) n",
        "analyze",
    ] {
        sqlx::query(AssertSqlSafe(statement)).execute(db).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_statement_waits_more_than_a_moment_beside_the_newest_migrations() {
    let database = TestDatabase::at(LANDED).await;
    fill(&database.pool).await;
    let stop = CancellationToken::new();
    let writers: Vec<_> =
        (0..4).map(|from| tokio::spawn(write(database.pool.clone(), from, stop.clone()))).collect();
    migrate(&database.pool).await.unwrap();
    stop.cancel();
    for writer in writers {
        let longest = patiently("a writer ends", writer).await.unwrap();
        // A migration waits at most 2 s for a lock; the rest is the time of a busy machine.
        assert!(longest < Duration::from_secs(5), "a statement took {longest:?}");
    }
    assert!(database::is_migrated(&database.pool).await.unwrap());
}
