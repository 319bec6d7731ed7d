//! The size of the store, with the events of the benchmark `bytes`.

use sqlx::PgPool;

use crate::support::database::TestDatabase;

/// Enough for indexes with hundreds of pages.
const EVENTS: i64 = 20_000;

/// Fills the store with `events` of the mix, a multiple of 2,000.
pub(crate) async fn fill(db: &PgPool, events: i64) {
    let source: i32 = sqlx::query_scalar(
        "insert into upstream (url, direction) values ('wss://a.test', 'both') returning number",
    )
    .fetch_one(db)
    .await
    .unwrap();
    sqlx::raw_sql("drop index event_live_version").execute(db).await.unwrap();
    for first in (1..events).step_by(2000) {
        let mix = sqlx::query(include_str!("../../benches/bytes/mix.sql"));
        mix.bind(first).bind(first + 1999).bind(source).execute(db).await.unwrap();
    }
    for statement in include_str!("../../benches/bytes/versions.sql").split(";\n") {
        sqlx::raw_sql(statement).execute(db).await.unwrap();
    }
}

/// Were it more, a table or an index has come back that repeats what the row has: see ADR 27.
#[tokio::test]
async fn an_event_takes_at_most_one_and_a_half_times_the_bytes_of_its_json() {
    let database = TestDatabase::new().await;
    fill(&database.pool, EVENTS).await;
    let sizes: Vec<(i32, String, f64)> =
        sqlx::query_as(include_str!("../../benches/bytes/sizes.sql"))
            .fetch_all(&database.pool)
            .await
            .unwrap();
    let (json, all) = (&sizes[0], sizes.last().unwrap());
    assert_eq!((json.0, all.0), (0, 3), "the first row and the last one");
    assert!(json.2 > 500.0, "{sizes:?}");
    assert!(all.2 < 1.5 * json.2, "{sizes:#?}");
}
