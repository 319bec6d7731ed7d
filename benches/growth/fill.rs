//! A store of many events, filled as fast as possible: by two sessions, without indexes, which are built afterwards.

use std::time::Instant;

use futures_util::future::try_join_all;
use sqlx::{AssertSqlSafe, PgPool};
use uuid::Uuid;

use crate::support::Bench;

/// The events of one statement.
const WINDOW: i64 = 20_000;
const SESSIONS: usize = 2;

/// Fills the store with events that one upstream sent, and returns this upstream.
pub(crate) async fn fill(bench: &Bench, events: i64) -> Uuid {
    let (db, begun) = (bench.bulk(), Instant::now());
    let (upstream, number): (Uuid, i32) = sqlx::query_as(
        "insert into upstream (url, direction) values ('wss://bench.test', 'both') returning id, number",
    )
    .fetch_one(&db)
    .await
    .unwrap();
    let indexes = without_indexes(&db).await;
    let sessions = (0..SESSIONS).map(|session| insert(&db, session, events, number));
    try_join_all(sessions).await.unwrap();
    let inserted = begun.elapsed();
    // Before the indexes: every replaced version would change all of them.
    for statement in include_str!("../bytes/versions.sql").split(";\n") {
        sqlx::raw_sql(statement).execute(&db).await.unwrap();
    }
    for index in indexes {
        build(&db, index).await;
    }
    sqlx::raw_sql("vacuum analyze").execute(&db).await.unwrap();
    println!(
        "{events} events: inserted in {:.0} s, all of it {:.0} s",
        inserted.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    upstream
}

/// Drops the indexes, and returns the statements that build them again; that of live versions comes with the
/// versions.
async fn without_indexes(db: &PgPool) -> Vec<String> {
    let statements: Vec<(String, String)> = sqlx::query_as(
        "select case when conname is null then format('drop index %I', indexrelid::regclass)
                     else format('alter table event drop constraint %I', conname) end,
                case when conname is null then pg_get_indexdef(indexrelid)
                     else format('alter table event add constraint %I %s', conname, pg_get_constraintdef(c.oid)) end
         from pg_index left join pg_constraint c on conindid = indexrelid and contype in ('p', 'u')
         where indrelid = 'event'::regclass",
    )
    .fetch_all(db)
    .await
    .unwrap();
    let mut built = Vec::new();
    for (drop, build) in statements {
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(db).await.unwrap();
        built.extend((!build.contains("event_live_version")).then_some(build));
    }
    built
}

async fn insert(db: &PgPool, session: usize, events: i64, source: i32) -> Result<(), sqlx::Error> {
    let mut db = db.acquire().await?;
    sqlx::raw_sql("set synchronous_commit = off").execute(&mut *db).await?;
    for first in
        (0..events).step_by(usize::try_from(WINDOW).unwrap()).skip(session).step_by(SESSIONS)
    {
        sqlx::query(include_str!("../bytes/mix.sql"))
            .bind(first + 1)
            .bind(first + WINDOW)
            .bind(source)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

async fn build(db: &PgPool, index: String) {
    let mut db = db.acquire().await.unwrap();
    sqlx::raw_sql("set maintenance_work_mem = '1GB'").execute(&mut *db).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(index)).execute(&mut *db).await.unwrap();
}
