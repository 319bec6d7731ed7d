//! The table of tags gives way to an index: nothing is lost, and the release before goes on beside it.

use sqlx::{AssertSqlSafe, PgPool};
use tender_jobs::database::migrate;
use tokio_util::sync::CancellationToken;

use crate::support::{database::TestDatabase, patiently};

/// The last migration before the table goes.
const BEFORE: i64 = 20_261_122_000_121;

/// Event $1 as the release before this one stores it. Each tenth contains U+0000.
const EVENT: &str = r#"
    insert into event (id, pubkey, created_at, kind, tags, content, sig)
    select sha256(n::text::bytea), sha256('a'), n, 1,
           case when n % 10 = 0
                then jsonb_build_array(jsonb_build_object('exact', encode(convert_to(
                    '[[["e","x"],["t","t' || n || '"],["t","a\u0000"],["tt","b"]],"c\u0000"]', 'UTF8'), 'hex')))
                else jsonb_build_array('["e","x"]'::jsonb, jsonb_build_array('t', 't' || n), '["-"]'::jsonb,
                                       jsonb_build_array('p', repeat('p', 256))) end,
           '', sha256('a') || sha256('b')
    from (select $1::bigint as n) number returning position"#;

/// The tags of event $1, which has position $2.
const ITS_TAGS: &str = "
    insert into event_tag (position, name, value, index)
    select $2, name, value, index from (values ('e', 'x', 0), ('t', 't' || $1::bigint, 1)) tag (name, value, index)";

const TAGS: &str =
    "select array_agg(format('%s %s %s %s', created_at, name, value, index) order by 1)
                    from event_tag join event using (position)";

async fn store(db: &PgPool, number: i64) {
    let mut tx = tender_jobs::database::begin(db).await.unwrap();
    let event = sqlx::query_scalar(EVENT).bind(number).fetch_one(&mut *tx);
    let position: i64 = event.await.unwrap();
    sqlx::query(ITS_TAGS).bind(number).bind(position).execute(&mut *tx).await.unwrap();
    tx.commit().await.unwrap();
}

async fn texts(db: &PgPool, query: &'static str) -> Vec<String> {
    let mut texts: Vec<String> = sqlx::query_scalar(query).fetch_one(db).await.unwrap();
    texts.sort();
    texts
}

#[tokio::test(flavor = "multi_thread")]
async fn the_release_before_goes_on_while_its_table_becomes_a_view() {
    let database = TestDatabase::at(BEFORE).await;
    let db = &database.pool;
    for number in 0..500 {
        store(db, number).await;
    }
    let before = texts(db, TAGS).await;
    let stop = CancellationToken::new();
    let writer = tokio::spawn({
        let (db, stop) = (db.clone(), stop.clone());
        async move {
            let mut number = 500;
            while !stop.is_cancelled() || number < 520 {
                store(&db, number).await;
                number += 1;
            }
            number
        }
    });
    migrate(db).await.unwrap();
    stop.cancel();
    let stored = patiently("the writer ends", writer).await.unwrap();
    store(db, stored).await; // certainly after the migration

    let after = texts(db, TAGS).await;
    assert_eq!(after.len(), 2 * usize::try_from(stored + 1).unwrap());
    assert!(before.iter().all(|tag| after.binary_search(tag).is_ok()), "a tag is lost");
    for number in [0, 7, stored] {
        let found = format!(
            "select array_agg(created_at::text) from events_tagged('{{t}}', '{{t{number}}}')"
        );
        let found: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(found)).fetch_one(db).await.unwrap();
        assert_eq!(found, [number.to_string()]);
    }
    let deleted =
        sqlx::query("delete from event where created_at < 100").execute(db).await.unwrap();
    assert_eq!(deleted.rows_affected(), 100, "the release before purges");
    assert_eq!(texts(db, TAGS).await.len(), after.len() - 200);
}
