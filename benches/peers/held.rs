//! A snapshot that stays open for ten minutes beside 100 changes per second, so that vacuum removes no row that dies
//! meanwhile; then a burst beside it, and one after its end.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use tender_jobs::provision::relay::{self, Relay};

use crate::{
    graphile,
    support::{Bench, by, report, statements, statements::dead_tuples, steady::Steady},
};

const RELAYS: usize = 5000;
const MINUTES: u32 = 10;
const PER_SECOND: u32 = 100;
/// What changes a relay, and enqueues its job, in graphile-worker.
const CHANGE: &str =
    "with changed as (update relay set generation = generation + 1, info_name = $2 where id = $1)
    select graphile_worker.add_job('carry', json_build_object('id', $1::text))";

pub(crate) async fn tender() {
    println!("a snapshot held for {MINUTES} minutes, {PER_SECOND} changes/s: Tender");
    let bench = Bench::new().await;
    let worker = bench.spawn("work");
    bench.until_workers(1).await;
    let relays = bench.in_step(RELAYS).await;
    beside_a_snapshot(&bench, Steady::new(&relays, PER_SECOND), async || {
        let ids: Vec<_> = relays.iter().map(|relay| relay.id.clone()).collect();
        relay::request_all(&mut bench.db().acquire().await.unwrap(), &ids, &by()).await.unwrap();
    })
    .await;
    drop(worker);
    bench.database.destroy().await;
}

/// The same by graphile-worker.
pub(crate) async fn graphile() {
    let Some(folder) = &graphile::install() else { return };
    println!("a snapshot held for {MINUTES} minutes, {PER_SECOND} changes/s: graphile-worker");
    let bench = Bench::new().await;
    let relays = made(&bench).await;
    let worker = graphile::spawn(&bench, folder, &bench.zooid.url(), "16");
    bench.until("select count(*) from relay where synced", RELAYS as i64).await;
    beside_a_snapshot(&bench, Steady::new(&relays, PER_SECOND).with(CHANGE), async || {
        for statement in [
            "update relay set generation = generation + 1",
            "select graphile_worker.add_job('carry', json_build_object('id', id)) from relay",
        ] {
            sqlx::query(statement).execute(bench.db()).await.unwrap();
        }
    })
    .await;
    drop(worker);
    bench.database.destroy().await;
}

/// New relays without jobs of Tender.
async fn made(bench: &Bench) -> Vec<Relay> {
    let mut relays = Vec::new();
    for number in 0..RELAYS {
        relays.push(bench.make(number).await);
    }
    sqlx::query("delete from apalis.jobs").execute(&bench.bulk()).await.unwrap();
    relays
}

async fn beside_a_snapshot(bench: &Bench, mut steady: Steady<'_>, all: impl AsyncFn()) {
    burst(bench, "before", &all).await;
    let options = (*bench.db().connect_options()).clone();
    let mut holder = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from relay where synced")
        .execute(&mut holder)
        .await
        .unwrap();
    for minute in 1..=MINUTES {
        let waits = steady.minutes(bench, 1).await;
        let dead = dead_tuples(bench.db()).await;
        report(&format!("  minute {minute}, {dead}"), waits);
    }
    statements::reset(bench.db()).await;
    burst(bench, "at the end, still held", &all).await;
    statements::print(bench.db()).await;
    sqlx::raw_sql("rollback").execute(&mut holder).await.unwrap();
    sqlx::raw_sql("vacuum analyze").execute(&bench.bulk()).await.unwrap();
    burst(bench, "after its end and a vacuum", &all).await;
}

/// Asks for a sync of all relays at once, and prints the rate from the first call to the last one. Calls are counted, because
/// to count rows reads all dead ones.
async fn burst(bench: &Bench, what: &str, all: impl AsyncFn()) {
    let before = bench.zooid.call_count();
    all().await;
    let mut look = tokio::time::interval(Duration::from_millis(20));
    while bench.zooid.call_count() < before + RELAYS {
        look.tick().await;
    }
    let calls = bench.zooid.calls();
    let took = (calls[before + RELAYS - 1].at - calls[before].at).as_secs_f64();
    println!("  burst {what}: {RELAYS} in {took:.2} s, {:.0}/s", RELAYS as f64 / took);
    bench.until("select count(*) from relay where synced", RELAYS as i64).await;
}
