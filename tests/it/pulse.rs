//! The heartbeats of a process carry its report, and neither waits for the other.

use std::collections::BTreeMap;

use sqlx::PgPool;
use tender_jobs::queue::{
    self,
    process::{self, Orders, Report, Served},
};
use uuid::Uuid;

use crate::support::World;

fn report() -> Report {
    let served = Served { jobs: 16, configured: 16 };
    Report {
        id: Uuid::new_v4(),
        name: "1.2.3 web-1:42".to_owned(),
        wings: vec!["provision".to_owned()],
        stations: BTreeMap::from([("sync-relay".to_owned(), served)]),
        memory_bytes: Some(50_000_000),
    }
}

/// Registers a worker, whose last heartbeat was a while ago.
async fn worker(world: &World) -> [String; 1] {
    queue::register(&world.db, "one", "sync-relay", "1.2.3 web-1:42").await.unwrap();
    fall_silent(world).await;
    ["one".to_owned()]
}

async fn fall_silent(world: &World) {
    let age = "update apalis.workers set last_seen = now() - interval '20 s' where id = 'one'";
    sqlx::query(age).execute(&world.db).await.unwrap();
}

/// Whether the worker's last heartbeat is new.
async fn has_beaten(world: &World) -> bool {
    let sql = "select last_seen > now() - interval '10 s' from apalis.workers where id = 'one'";
    sqlx::query_scalar(sql).fetch_one(&world.db).await.unwrap()
}

#[tokio::test]
async fn one_statement_beats_reports_and_reads_the_orders() {
    let world = World::new().await;
    let (workers, mut report) = (worker(&world).await, report());
    process::report(&world.db, &report).await.unwrap();
    process::drain(&world.db, report.id, "test", None).await.unwrap();
    queue::scale(&world.db, "sync-relay", 3, "test", None).await.unwrap();
    let age = "update process set last_seen_at = now() - interval '20 s'";
    sqlx::query(age).execute(&world.db).await.unwrap();
    report.memory_bytes = Some(60_000_000);
    let pulse = process::pulse(&world.db, &report, &workers).await.unwrap();
    let at_once = BTreeMap::from([("sync-relay".to_owned(), 3)]);
    assert_eq!(pulse.orders, Some(Orders { is_draining: true, at_once }));
    assert!(pulse.alive[0].has_beaten && has_beaten(&world).await);
    let listed = process::processes(&world.db).await.unwrap().remove(0);
    assert_eq!(listed.memory_bytes, Some(60_000_000));
    let since = queue::now(&world.db).await.unwrap() - listed.last_seen_at;
    assert!(since.num_seconds() < 20, "{since}");
}

#[tokio::test]
async fn a_process_that_is_not_listed_or_whose_row_is_held_beats_all_the_same() {
    let world = World::new().await;
    let (workers, report) = (worker(&world).await, report());
    let pulse = process::pulse(&world.db, &report, &workers).await.unwrap();
    assert!(pulse.orders.is_none() && has_beaten(&world).await, "{pulse:?}");

    fall_silent(&world).await;
    process::report(&world.db, &report).await.unwrap();
    let mut other = tender_jobs::database::begin(&world.db).await.unwrap();
    sqlx::query("select from process for update").execute(&mut *other).await.unwrap();
    let options = (*world.db.connect_options()).clone().options([("lock_timeout", "100ms")]);
    let db = PgPool::connect_with(options).await.unwrap();
    let pulse = process::pulse(&db, &report, &workers).await.unwrap();
    assert_eq!(pulse.orders, Some(Orders::default()));
    assert!(has_beaten(&world).await);
    other.rollback().await.unwrap();
}
