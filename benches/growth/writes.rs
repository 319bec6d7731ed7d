//! What is written to a large store: new events, purges, the removal of an upstream, and the vacuum after them.

use std::time::Instant;

use sha2::{Digest, Sha256};
use tender_jobs::{
    mirror::{
        event::{self, Batch, Event, EventId, outgoing},
        upstream,
    },
    queue::{self, Settled},
};
use uuid::Uuid;

use crate::{
    support::{Bench, report},
    times,
};

/// The batches that are stored, and their events: as many as the mirror stores at once.
const BATCHES: usize = 100;
const BATCH: usize = 500;
/// One event of so many has a second upstream, which is removed.
const SECOND: i64 = 20;

pub(crate) async fn measure(bench: &Bench, upstream: Uuid) {
    store(bench, upstream).await;
    purge(bench).await;
    times("purge that finds nothing", 40, async |_| {
        event::purge(bench.db(), 30, 10).await.unwrap();
    })
    .await;
    remove(bench).await;
    for what in ["after all of this", "again"] {
        let begun = Instant::now();
        sqlx::raw_sql("vacuum event").execute(&bench.bulk()).await.unwrap();
        println!("  vacuum {what}: {:.1} s", begun.elapsed().as_secs_f64());
    }
}

/// Stores new events like those that the store has.
async fn store(bench: &Bench, upstream: Uuid) {
    let batches = batches(bench).await;
    let (begun, mut waits, mut stored) = (Instant::now(), Vec::new(), 0_usize);
    for batch in &batches {
        let started = Instant::now();
        let outcomes = event::store(bench.db(), Batch::new(upstream, batch)).await.unwrap();
        waits.push(started.elapsed());
        let Settled::Written(outcomes) = outcomes else { panic!("the batch has no lease") };
        stored += outcomes.iter().filter(|outcome| **outcome == event::Stored::New).count();
    }
    let seconds = begun.elapsed().as_secs_f64();
    let offered = batches.iter().map(Vec::len).sum::<usize>();
    println!("  stored {stored} of {offered} events, {:.0}/s", offered as f64 / seconds);
    report("  a batch of 500 events stored", waits);
}

/// Events of the store under new ids, from the last day. Some lose against a version that the store has.
async fn batches(bench: &Bench) -> Vec<Vec<Event>> {
    let ids: Vec<Vec<u8>> =
        sqlx::query_scalar("select id from event order by position desc limit $1")
            .bind(i64::try_from(BATCHES * BATCH).unwrap())
            .fetch_all(&bench.bulk())
            .await
            .unwrap();
    let ids: Vec<EventId> = ids.into_iter().map(|id| EventId(id.try_into().unwrap())).collect();
    let now = queue::now(bench.db()).await.unwrap().timestamp();
    let mut batches = Vec::new();
    for ids in ids.chunks(BATCH) {
        let events = outgoing::by_ids(bench.db(), ids).await.unwrap();
        let at = now - 86_400 + i64::try_from(batches.len() * BATCH).unwrap();
        batches
            .push((0..).zip(events).map(|(number, event)| renamed(event, at + number)).collect());
    }
    batches
}

fn renamed(event: Event, created_at: i64) -> Event {
    let id = Sha256::digest([event.id.0, [1; 32]].concat());
    Event { id: EventId(id.into()), created_at, ..event }
}

/// Removes events that were deleted long ago.
async fn purge(bench: &Bench) {
    let old = "update event set deleted_at = now() - interval '31 days', delete_reason = 'deleted'
               where id in (select id from event where kind <> 5 order by position limit 50000)";
    sqlx::query(old).execute(&bench.bulk()).await.unwrap();
    times("purge of 2,000 events", 20, async |_| {
        let purged = event::purge(bench.db(), 30, 1).await.unwrap();
        assert_eq!(purged.removed, 2000);
    })
    .await;
    while event::purge(bench.db(), 30, 10).await.unwrap().removed > 0 {}
}

/// Removes an upstream that holds one event of twenty.
async fn remove(bench: &Bench) {
    let second: Uuid = sqlx::query_scalar(
        "insert into upstream (url, direction) values ('wss://second.test', 'both') returning id",
    )
    .fetch_one(bench.db())
    .await
    .unwrap();
    sqlx::query("insert into event_source select id, $1 from event where position % $2 = 0")
        .bind(second)
        .bind(SECOND)
        .execute(&bench.bulk())
        .await
        .unwrap();
    sqlx::raw_sql("vacuum analyze event_source").execute(&bench.bulk()).await.unwrap();
    let begun = Instant::now();
    upstream::delete(bench.db(), second, None).await.unwrap();
    println!("  an upstream is marked for removal: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    let mut waits = Vec::new();
    loop {
        let started = Instant::now();
        let goes_on = upstream::remove_page(bench.db(), second).await.unwrap();
        waits.push(started.elapsed());
        if !goes_on {
            break;
        }
    }
    println!(
        "  its rows are deleted in {:.1} s",
        waits.iter().sum::<std::time::Duration>().as_secs_f64()
    );
    report("  a page of 5,000 rows", waits);
}
