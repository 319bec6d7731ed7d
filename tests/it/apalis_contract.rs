//! The facts of apalis that we lean on: an upgrade that changes one fails here.

use apalis_postgres::{PgTask, PostgresStorage, queries::push_tasks};
use sqlx::postgres::PgListener;
use tender_jobs::queue;

use crate::support::{World, eventually, patiently};

async fn insert(world: &World, id: &str, status: &str, attempts: i32, run_in: i32, priority: i32) {
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, priority)
         values ($1, 'contract', '{}', $2, $3, 7, now() + make_interval(secs => $4), $5)",
    )
    .bind(id).bind(status).bind(attempts).bind(f64::from(run_in)).bind(priority)
    .execute(&world.db)
    .await
    .unwrap();
}

async fn fetched(world: &World, limit: i32) -> Vec<String> {
    let jobs = queue::fetch(&world.db, &world.worker, "contract", limit).await.unwrap();
    jobs.into_iter().map(|job| job.id).collect()
}

#[tokio::test]
async fn get_jobs_takes_what_is_due_by_priority_then_age() {
    let world = World::new().await;
    insert(&world, "young", "Pending", 0, -1, 0).await;
    insert(&world, "old", "Pending", 0, -9, 0).await;
    insert(&world, "urgent", "Pending", 0, -1, 10).await;
    insert(&world, "later", "Pending", 0, 60, 99).await;
    insert(&world, "retry", "Failed", 6, -5, 0).await;
    insert(&world, "spent", "Failed", 7, -5, 0).await;
    for finished in ["Done", "Killed", "Running", "Queued"] {
        insert(&world, finished, finished, 0, -5, 0).await;
    }
    assert_eq!(fetched(&world, 100).await, ["urgent", "old", "retry", "young"]);
    assert!(fetched(&world, 100).await.is_empty());
}

#[tokio::test]
async fn get_jobs_marks_what_it_takes_as_queued_and_locked_and_leaves_attempts() {
    let world = World::new().await;
    insert(&world, "a", "Failed", 3, -1, 0).await;
    fetched(&world, 1).await;
    let job = world.job_by_id("a").await;
    assert_eq!((job.summary.state, job.summary.attempts), (queue::JobState::Queued, 3));
    assert_eq!(job.summary.lock_by.as_deref(), Some(world.worker.as_str()));
    assert!(job.summary.lock_at.is_some());
}

#[tokio::test]
async fn get_jobs_skips_what_another_transaction_holds() {
    let world = World::new().await;
    insert(&world, "a", "Pending", 0, -1, 0).await;
    insert(&world, "b", "Pending", 0, -1, 0).await;
    let mut other = tender_jobs::database::begin(&world.db).await.unwrap();
    sqlx::query("select id from apalis.jobs where id = 'a' for update")
        .execute(&mut *other)
        .await
        .unwrap();
    assert_eq!(fetched(&world, 10).await, ["b"]);
}

#[tokio::test]
async fn a_lock_needs_a_registered_worker() {
    let world = World::new().await;
    insert(&world, "a", "Pending", 0, -1, 0).await;
    let refused = queue::fetch(&world.db, "nobody", "contract", 1).await;
    assert!(refused.unwrap_err().to_string().contains("fk_worker_lock_by"));
}

#[tokio::test]
async fn a_job_that_comes_to_wait_is_announced_at_commit_with_the_time_until_it_is_due() {
    let world = World::new().await;
    let mut listener = PgListener::connect_with(&world.db).await.unwrap();
    listener.listen(queue::CHANNEL).await.unwrap();
    let insert = "insert into apalis.jobs (id, job_type, job, run_at) values ($1, 'contract', '{}', now() + $2 * interval '1 s')";
    let mut rolled_back = tender_jobs::database::begin(&world.db).await.unwrap();
    sqlx::query(insert).bind("rolled back").bind(0).execute(&mut *rolled_back).await.unwrap();
    rolled_back.rollback().await.unwrap();
    sqlx::query(insert).bind("much later").bind(60).execute(&world.db).await.unwrap();
    sqlx::query(insert).bind("later").bind(20).execute(&world.db).await.unwrap();
    sqlx::query(insert).bind("due").bind(0).execute(&world.db).await.unwrap();
    let again = "update apalis.jobs set run_at = now() where id = 'much later'";
    sqlx::query(again).execute(&world.db).await.unwrap();
    for due_in in [20, 0, 0] {
        let notification = patiently("a notification", listener.recv()).await.unwrap();
        let told: serde_json::Value = serde_json::from_str(notification.payload()).unwrap();
        assert_eq!((&told["due_in"], &told["job_type"]), (&due_in.into(), &"contract".into()));
    }
}

#[tokio::test]
async fn a_key_is_unique_in_its_queue_over_all_states() {
    let world = World::new().await;
    let insert = "insert into apalis.jobs (id, job_type, job, status, idempotency_key) values ($1, $2, '{}', 'Done', 'k')";
    sqlx::query(insert).bind("a").bind("one").execute(&world.db).await.unwrap();
    sqlx::query(insert).bind("b").bind("two").execute(&world.db).await.unwrap();
    let error = sqlx::query(insert).bind("c").bind("one").execute(&world.db).await.unwrap_err();
    let error = error.into_database_error().unwrap();
    assert_eq!(error.constraint(), Some("idx_jobs_idempotency_key"));
}

#[tokio::test]
async fn its_own_push_joins_our_transaction_and_our_workers_can_take_it() {
    let world = World::new().await;
    let mut tx = tender_jobs::database::begin(&world.db).await.unwrap();
    push_tasks(&mut *tx, "contract", vec![PgTask::new(b"{}".to_vec())]).await.unwrap();
    tx.rollback().await.unwrap();
    push_tasks(
        &mut *world.db.acquire().await.unwrap(),
        "contract",
        vec![PgTask::new(b"{}".to_vec())],
    )
    .await
    .unwrap();
    // Its run_at is the whole second of a clock that is not the database's.
    eventually("the pushed job is due", async || !fetched(&world, 10).await.is_empty()).await;
}

#[tokio::test]
async fn its_migrations_can_run_again() {
    let world = World::new().await;
    PostgresStorage::<()>::setup(&world.db).await.unwrap();
    tender_jobs::database::migrate(&world.db).await.unwrap();
    assert!(tender_jobs::database::is_migrated(&world.db).await.unwrap());
}
