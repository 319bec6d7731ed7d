//! What lists and counts of jobs cost beside many ended jobs.

use sqlx::{Executor, PgPool};
use tender_jobs::queue::{self, JobFilter, Page};

use crate::support::{
    World,
    database::{in_a_session, read},
};

/// Many done jobs and a few killed ones, in no order, as after a quiet day. The plans follow their statistics.
async fn history(db: &PgPool, count: i64) {
    let jobs = "insert into apalis.jobs (id, job_type, job, status, done_at, last_result, metadata)
                select 'job ' || n, 'sync-relay', '{}', case when n % 1000 = 0 then 'Killed' else 'Done' end,
                       now() - (n * 7919 % 200003) * interval '1 s', '{\"Ok\": \"synced\"}', ''
                from generate_series(1, $1) n";
    sqlx::query(jobs).bind(count).execute(db).await.unwrap();
    db.execute("vacuum analyze apalis.jobs").await.unwrap();
}

#[tokio::test]
async fn a_page_of_jobs_reads_the_rows_of_the_page() {
    let world = World::new().await;
    history(&world.db, 200_000).await;
    in_a_session(&world.db, async |db| {
        let before = read(db).await;
        let jobs = queue::jobs(db, &JobFilter::default(), &Page::First, 100).await.unwrap();
        let rows = read(db).await - before;
        assert_eq!(jobs.len(), 100);
        assert!(rows < 1000, "{rows} rows read for a hundred");
    })
    .await;
}

#[tokio::test]
async fn the_count_of_jobs_that_need_attention_calls_nothing_per_job() {
    let world = World::new().await;
    history(&world.db, 50_000).await;
    let status = queue::status(&world.db, &["sync-relay"]).await.unwrap().remove(0);
    assert_eq!((status.killed, status.killed_open), (50, 50));
    let counted = "explain (verbose) select count(*) from apalis.jobs
                   where status = 'Killed' and exists (select from needs_attention(metadata, done_at))";
    let plan: Vec<String> = sqlx::query_scalar(counted).fetch_all(&world.db).await.unwrap();
    let plan = plan.join("\n");
    assert!(plan.contains("recurring_job") && !plan.contains("needs_attention"), "{plan}");
}
