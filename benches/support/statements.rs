//! A profile of a measurement by statement: `STATEMENTS=1 cargo bench …` has PostgreSQL count its own time in each, and
//! prints the most expensive ones. A benchmark of statements always does so.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use sqlx::PgPool;
use tender::{config::DatabaseConfig, postgres::Database};

/// How many statements are printed.
const PRINTED: i64 = 15;

/// Whether the benchmark wants them, whatever the environment says.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Has PostgreSQL count statements from now on, also without `STATEMENTS`.
pub fn want() {
    WANTED.store(true, Relaxed);
}

fn are_wanted() -> bool {
    WANTED.load(Relaxed) || std::env::var_os("STATEMENTS").is_some()
}

/// Opens the private PostgreSQL; with `pg_stat_statements`, which it loads when it starts, if that is wanted.
pub async fn open(config: &DatabaseConfig) -> Database {
    let database = Database::open(config).await.unwrap();
    if !are_wanted() {
        return database;
    }
    let load = "alter system set shared_preload_libraries = 'pg_stat_statements'";
    sqlx::query(load).execute(&database.pool).await.unwrap();
    database.close().await;
    let database = Database::open(config).await.unwrap();
    for set_up in [
        "create extension pg_stat_statements",
        "alter system set pg_stat_statements.track = 'all'",
        "select pg_reload_conf()",
    ] {
        sqlx::query(set_up).execute(&database.pool).await.unwrap();
    }
    database
}

/// Forgets what was counted so far.
pub async fn reset(db: &PgPool) {
    if are_wanted() {
        sqlx::query("select pg_stat_statements_reset()").execute(db).await.unwrap();
    }
}

/// Prints the statements that took the most time, with those that they call themselves.
pub async fn print(db: &PgPool) {
    if !are_wanted() {
        return;
    }
    let rows: Vec<(bool, i64, f64, f64, i64, String)> = sqlx::query_as(
        "select toplevel, calls, total_exec_time, mean_exec_time, rows,
                left(regexp_replace(query, '\\s+', ' ', 'g'), 100)
         from pg_stat_statements order by total_exec_time desc limit $1",
    )
    .bind(PRINTED)
    .fetch_all(db)
    .await
    .unwrap();
    println!("  calls |     ms | ms each |   rows | statement (* called by another)");
    for (is_first, calls, total, mean, rows, query) in rows {
        let mark = if is_first { ' ' } else { '*' };
        println!("{calls:7} | {total:6.0} | {mean:7.3} | {rows:6} |{mark}{query}");
    }
}

/// Returns the executions of each statement that was sent to PostgreSQL, the most frequent first, and the time in
/// milliseconds that they and their plans took.
pub async fn sent(db: &PgPool) -> Vec<(i64, f64, String)> {
    sqlx::query_as(
        "select calls, total_exec_time + total_plan_time, left(regexp_replace(query, '\\s+', ' ', 'g'), 100)
         from pg_stat_statements where toplevel and query not like '%pg_stat_%' order by calls desc",
    )
    .fetch_all(db)
    .await
    .unwrap()
}

/// Returns the living and the dead rows of the tables that a change writes, as PostgreSQL counts them.
pub async fn dead_tuples(db: &PgPool) -> String {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "select relname::text, n_live_tup, n_dead_tup from pg_stat_user_tables
         where relname in ('jobs', 'relay', 'zooid_instance', 'sync_minute') order by relname",
    )
    .fetch_all(db)
    .await
    .unwrap();
    rows.iter()
        .map(|(name, live, dead)| format!("{name} {live} live {dead} dead"))
        .collect::<Vec<_>>()
        .join(", ")
}
