//! How transactions begin: a caller that leaves meanwhile leaves none open on a connection that others get.

use std::pin::pin;

use chrono::{DateTime, Utc};
use futures_util::poll;
use sqlx::PgPool;
use tender_jobs::{
    database::{self, Path},
    queue::{self, JobFilter, Page},
};

use crate::support::{database::TestDatabase, eventually};

/// Starts `work` while the pool's connection is free, and leaves it when it has waited for the `polls`th time.
async fn leave<T>(db: &PgPool, polls: usize, work: impl Future<Output = T>) {
    eventually("the connection is free", async || db.num_idle() == 1).await;
    let mut work = pin!(work);
    for _ in 0..polls {
        if poll!(&mut work).is_ready() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// Whether the pool's only connection is inside of a transaction: in it, the time stands still.
async fn is_open(db: &PgPool) -> bool {
    let now = async || -> DateTime<Utc> {
        sqlx::query_scalar("select now()").fetch_one(db).await.unwrap()
    };
    now().await == now().await
}

#[tokio::test]
async fn a_caller_that_leaves_while_a_transaction_begins_leaves_none_open() {
    let database = TestDatabase::new().await;
    let options = (*database.pool.connect_options()).clone();
    let pool = database::pool(&options, Path::Direct, "select").max_connections(1);
    let db = pool.connect_with(options).await.unwrap();
    assert!(!is_open(&db).await);
    let filter = JobFilter { queue: Some("a".to_owned()), ..JobFilter::default() };
    for polls in 1..10 {
        leave(&db, polls, database::begin(&db)).await;
        assert!(!is_open(&db).await, "after {polls} polls");
        let jobs = queue::jobs(&db, &filter, &Page::First, 10);
        leave(&db, polls, jobs).await;
        assert!(!is_open(&db).await, "of a list, after {polls} polls");
    }
}
