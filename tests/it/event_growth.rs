//! What the event store reads does not grow with what it holds. The events are those of the benchmark `growth`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tender_jobs::{
    mirror::{
        MIRROR,
        event::{self, Limits, Set},
        filter::Filter,
        lane::{self, Ending, LaneKind, Lease, Progress},
        upstream::{self, Change, settings::Settings},
    },
    queue::{self, NewJob, Settled},
};
use uuid::Uuid;

use crate::{
    event_bytes::fill,
    support::database::{TestDatabase, in_a_session},
};

const LIMITS: Limits = Limits { bytes: 1_000_000, tags: 2000 };
/// Enough that a plan that reads all of them stands out.
const EVENTS: i64 = 10_000;
/// Sessions prefer plans for all values from the sixth execution on.
const EXECUTIONS: usize = 8;

/// The pages that tables and indexes were read in, as PostgreSQL counts them.
async fn pages(db: &mut PgConnection) -> i64 {
    let read = "select sum(pg_stat_get_blocks_fetched(oid))::bigint from pg_class
                where relkind in ('r', 'i', 't') and relnamespace = 'public'::regnamespace";
    sqlx::query_scalar(read).fetch_one(db).await.unwrap()
}

/// A filled store. The session that filled it has reported to the statistics.
async fn filled() -> TestDatabase {
    let database = TestDatabase::new().await;
    in_a_session(&database.pool, async |db| fill(db, EVENTS).await).await;
    database
}

/// The pages that `work` reads in a session of its own, each of eight times.
async fn pages_of(db: &PgPool, work: impl AsyncFn(&PgPool)) -> i64 {
    let mut own = db.acquire().await.unwrap();
    let before = pages(&mut own).await;
    in_a_session(db, async |session| {
        for _ in 0..EXECUTIONS {
            work(session).await;
        }
    })
    .await;
    (pages(&mut own).await - before) / i64::try_from(EXECUTIONS).unwrap()
}

fn filters() -> Vec<(&'static str, Filter)> {
    let topic = BTreeSet::from(["topic5".to_owned()]);
    let author: String = "author300".to_owned();
    let author = hex::encode(<sha2::Sha256 as sha2::Digest>::digest(author));
    vec![
        ("tag", Filter { tags: BTreeMap::from([('t', topic)]), ..Filter::default() }),
        ("kind", Filter { kinds: BTreeSet::from([5]), ..Filter::default() }),
        ("author", Filter { authors: BTreeSet::from([author]), ..Filter::default() }),
    ]
}

async fn size_of(db: &PgPool, filter: &Filter) -> usize {
    match event::set(db, Uuid::nil(), filter, LIMITS, 0, i64::MAX).await.unwrap() {
        Set::Items(items) => items.len(),
        Set::TooLarge => panic!("the set is small"),
    }
}

#[tokio::test]
async fn a_set_of_a_filter_reads_the_events_of_the_filter_also_by_the_eighth_time() {
    let database = filled().await;
    for (what, filter) in filters() {
        let found = in_a_session(&database.pool, async |db| size_of(db, &filter).await).await;
        let found = i64::try_from(found).unwrap();
        assert!(found > 0 && found < EVENTS / 20, "{what}: {found} events");
        let pages = pages_of(&database.pool, async |db| {
            size_of(db, &filter).await;
        })
        .await;
        // A page for each event, and those of the indexes.
        assert!(pages < found + 100, "{what}: {pages} pages for {found} events");
    }
}

#[tokio::test]
async fn a_purge_reads_no_event_that_expires_later() {
    let database = filled().await;
    let later = "update event set expires_at = 4000000000 where deleted_at is null";
    run(&database.pool, later).await;
    run(&database.pool, "vacuum analyze event").await;
    let pages = pages_of(&database.pool, async |db| {
        assert_eq!(event::purge(db, 30, 10).await.unwrap(), event::Purged::default());
    })
    .await;
    assert!(pages < 100, "{pages} pages");
}

/// Runs a statement in a session that ends.
async fn run(db: &PgPool, statement: &'static str) {
    in_a_session(db, async |db| sqlx::raw_sql(statement).execute(db).await.unwrap()).await;
}

/// Without statistics, and with those of a full table.
#[tokio::test]
async fn removing_events_reads_no_verdict_or_source_of_others() {
    let database = filled().await;
    let db = &database.pool;
    let others = "with upstream as (insert into upstream (url, direction) values ('wss://b.test', 'both') returning id),
                       source as (insert into event_source select sha256(n::text::bytea), id
                                  from upstream, generate_series(1, 30000) n)
                  insert into upload_verdict (upstream_id, event_id, verdict)
                  select id, sha256(n::text::bytea), 'rejected' from upstream, generate_series(1, 30000) n";
    run(db, others).await;
    for statistics in ["select", "analyze"] {
        run(db, statistics).await;
        let old = "update event set deleted_at = now() - interval '31 days', delete_reason = 'deleted'
                   where id in (select id from event where deleted_at is null and kind <> 5 limit 10)";
        run(db, old).await;
        let mut own = db.acquire().await.unwrap();
        let before = pages(&mut own).await;
        let purged = in_a_session(db, async |db| event::purge(db, 30, 1).await.unwrap()).await;
        assert_eq!(purged.removed, 10);
        let pages = pages(&mut own).await - before;
        // Each event is looked up in five tables; all verdicts and sources of others have 700 pages.
        assert!(pages < 400, "{statistics}: {pages} pages");
    }
}

/// A lane that uploads and has sent everything.
async fn uploads(db: &PgPool) -> (Lease, Progress) {
    let change = Change {
        url: Some("wss://b.test".to_owned()),
        direction: Some("both".to_owned()),
        live: Some(true),
        ..Change::default()
    };
    let upstream = upstream::create(db, &change).await.unwrap();
    let lane = lane::ensure(db, &upstream, LaneKind::Upload, &Settings::default()).await.unwrap();
    let newest: i64 =
        sqlx::query_scalar("select max(position) from event").fetch_one(db).await.unwrap();
    let lease = Lease { lane, epoch: 1, claimed_at: 0, deaths: 0 };
    (lease, Progress { upload_horizon: Some(newest), ..Progress::default() })
}

/// It reads under the lock of the store, so that every store waits for it.
#[tokio::test]
async fn the_end_of_an_upload_reads_no_event_that_was_sent() {
    let database = filled().await;
    let db = &database.pool;
    run(db, "vacuum analyze event").await;
    let (lease, progress) = uploads(db).await;
    queue::register(db, "test", MIRROR, "test").await.unwrap();
    queue::enqueue(db, &[NewJob::new(MIRROR, &json!({}))]).await.unwrap();
    let job = queue::fetch(db, "test", MIRROR, 1).await.unwrap().remove(0);
    let rests = Ending::Rests { is_complete: false };
    let pages = pages_of(db, async |db| {
        let settled = lane::settle(db, &job, &lease, &progress, &rests, &json!({})).await.unwrap();
        assert_eq!(settled, Settled::LeaseLost);
    })
    .await;
    assert!(pages < 50, "{pages} pages");
}
