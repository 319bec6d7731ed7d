//! Low-water marks: what a look passes by, and what it must not.

mod model;

use sqlx::PgConnection;
use tender_jobs::queue::{
    self,
    low_water::{self, Barrier},
};

use crate::support::{World, patiently};

/// With a margin of 10 ms. A step takes about a millisecond: the marks pass jobs within a case.
async fn with_margin() -> World {
    let world = World::new().await;
    let margin =
        "create or replace function low_water_margin() returns interval language sql immutable
                  parallel safe return interval '10 ms'";
    sqlx::query(margin).execute(&world.db).await.unwrap();
    world
}

/// Moves the mark as far as it goes.
async fn moved(world: &World, queue: &str) {
    let barrier = low_water::advance(&world.db, &[queue.to_owned()], None).await.unwrap();
    move_to(world, queue, barrier).await;
}

/// Moves the mark when no transaction holds the barrier any more.
async fn move_to(world: &World, queue: &str, barrier: Barrier) {
    let queues = [queue.to_owned()];
    patiently("the transactions before the barrier end", async {
        while low_water::advance(&world.db, &queues, Some(&barrier)).await.unwrap() == barrier {}
    })
    .await;
}

/// Returns the blocks that a fetch reads which finds nothing. The first one of a session reads the catalogue too.
async fn blocks_of_a_fetch(world: &World, db: &mut PgConnection, queue: &str) -> i64 {
    let plan: serde_json::Value = sqlx::query_scalar(
        "explain (analyze, buffers, format json) select * from fetch_jobs($1, $2, 10)",
    )
    .bind(&world.worker)
    .bind(queue)
    .fetch_one(db)
    .await
    .unwrap();
    assert_eq!(plan[0]["Plan"]["Actual Rows"].as_f64(), Some(0.0), "{plan}");
    plan[0]["Plan"]["Shared Hit Blocks"].as_i64().unwrap()
}

#[tokio::test]
async fn a_fetch_passes_by_what_ended_while_a_snapshot_is_held_open() {
    let world = with_margin().await;
    let mut reader = tender_jobs::database::begin(&world.db).await.unwrap();
    let snapshot = "set transaction isolation level repeatable read";
    sqlx::query(snapshot).execute(&mut *reader).await.unwrap();
    sqlx::query("select from apalis.jobs").execute(&mut *reader).await.unwrap();
    for sql in [
        "insert into apalis.jobs (id, job_type, job) select 'job ' || i, 'held', '{}' from generate_series(1, 30000) i",
        "update apalis.jobs set status = 'Done', done_at = now() where job_type = 'held'",
    ] {
        sqlx::query(sql).execute(&world.db).await.unwrap();
    }
    let mut db = world.db.acquire().await.unwrap();
    blocks_of_a_fetch(&world, &mut db, "none").await;
    let from_the_beginning = blocks_of_a_fetch(&world, &mut db, "held").await;
    assert!(from_the_beginning > 300, "{from_the_beginning} blocks from the beginning");
    moved(&world, "held").await;
    let from_the_mark = blocks_of_a_fetch(&world, &mut db, "held").await;
    assert!(from_the_mark < 100, "{from_the_mark} blocks from the mark");
    reader.rollback().await.unwrap();
}

#[tokio::test]
async fn a_move_passes_by_a_mark_that_another_process_moves() {
    let world = with_margin().await;
    moved(&world, "shared").await;
    let mark = "select since::text from queue_low_water where queue = 'shared' and priority = 0";
    let before: String = sqlx::query_scalar(mark).fetch_one(&world.db).await.unwrap();
    let barrier = low_water::advance(&world.db, &["shared".to_owned()], None).await.unwrap();
    let mut other = tender_jobs::database::begin(&world.db).await.unwrap();
    let locks = "select from queue_low_water where queue = 'shared' for update";
    sqlx::query(locks).execute(&mut *other).await.unwrap();
    move_to(&world, "shared", barrier).await;
    let after: String = sqlx::query_scalar(mark).fetch_one(&world.db).await.unwrap();
    assert_eq!(before, after);
    other.rollback().await.unwrap();
    moved(&world, "shared").await;
    let after: String = sqlx::query_scalar(mark).fetch_one(&world.db).await.unwrap();
    assert!(before < after, "{before}, then {after}");
}

#[tokio::test]
async fn a_job_that_was_written_without_the_trigger_is_found_by_the_check() {
    let world = with_margin().await;
    moved(&world, "odd").await;
    let mut tx = tender_jobs::database::begin(&world.db).await.unwrap();
    for sql in [
        "set local session_replication_role = replica",
        "insert into apalis.jobs (id, job_type, job, run_at) values ('odd', 'odd', '{}', now() - interval '1 hour')",
    ] {
        sqlx::query(sql).execute(&mut *tx).await.unwrap();
    }
    tx.commit().await.unwrap();
    let queues = ["odd".to_owned()];
    assert!(low_water::next_due(&world.db, &queues).await.unwrap().is_empty());
    assert_eq!(low_water::check(&world.db, &queues).await.unwrap(), 1);
    let due = low_water::next_due(&world.db, &queues).await.unwrap();
    assert!(due.len() == 1 && due[0].is_due, "{due:?}");
    assert_eq!(low_water::check(&world.db, &queues).await.unwrap(), 0);
}

#[tokio::test]
async fn a_mark_ahead_of_the_clock_is_none_and_comes_back() {
    let world = with_margin().await;
    moved(&world, "ahead").await;
    let ahead =
        "update queue_low_water set since = now() + interval '1 year' where queue = 'ahead'";
    sqlx::query(ahead).execute(&world.db).await.unwrap();
    let insert = "insert into apalis.jobs (id, job_type, job) values ('job', 'ahead', '{}')";
    sqlx::query(insert).execute(&world.db).await.unwrap();
    assert_eq!(queue::fetch(&world.db, &world.worker, "ahead", 1).await.unwrap().len(), 1);
    moved(&world, "ahead").await;
    let is_back = "select bool_and(since < now()) from queue_low_water where queue = 'ahead'";
    assert!(sqlx::query_scalar::<_, bool>(is_back).fetch_one(&world.db).await.unwrap());
}
