//! What is deleted when it is old: activity and the actions of operators.

use std::time::Duration;

use sqlx::PgPool;
use tender_jobs::{
    console::operator,
    provision::activity,
    queue::{self, Retention},
};

use crate::support::World;

const YEAR: Duration = Duration::from_hours(24 * 365);

/// Lets this much time pass for all records.
async fn pass(db: &PgPool, days: i32) {
    for table in ["activity", "operator_action"] {
        let past =
            format!("update {table} set created_at = created_at - make_interval(days => $1)");
        sqlx::query(sqlx::AssertSqlSafe(past)).bind(days).execute(db).await.unwrap();
    }
}

#[tokio::test]
async fn old_activity_is_deleted_and_the_newest_record_of_each_relay_stays() {
    let world = World::new().await;
    let (quiet, busy) = (world.relay("quiet").await, world.relay("busy").await);
    world.rename(&quiet, "one").await;
    world.rename(&busy, "one").await;
    assert_eq!(activity::prune(&world.db, YEAR, 20).await.unwrap(), 0, "all is young");
    pass(&world.db, 366).await;
    world.rename(&busy, "two").await;
    assert_eq!(activity::prune(&world.db, YEAR, 20).await.unwrap(), 3);
    assert_eq!(world.history(&quiet).await, ["update_relay"], "the newest, although it is old");
    assert_eq!(world.history(&busy).await, ["update_relay"], "the young one");
    assert_eq!(world.records(&busy).await[0].detail["changed"]["info_name"], "two");
    // What was the newest goes when a later record has become old.
    world.rename(&quiet, "two").await;
    world.rename(&quiet, "three").await;
    pass(&world.db, 366).await;
    assert_eq!(activity::prune(&world.db, YEAR, 20).await.unwrap(), 2);
    assert_eq!(world.records(&quiet).await[0].detail["changed"]["info_name"], "three");
    assert_eq!(activity::prune(&world.db, YEAR, 20).await.unwrap(), 0, "nothing is left to do");
}

#[tokio::test]
async fn pruning_continues_where_its_bound_ended_it() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    sqlx::query(
        "insert into activity (tenant_pubkey, activity_type, resource_id, detail, created_at)
         select $1, 'update_relay', $2, '{}', now() - interval '2 years'
         from generate_series(1, 12000)",
    )
    .bind(&relay.tenant_pubkey)
    .bind(relay.id.as_str())
    .execute(&world.db)
    .await
    .unwrap();
    let prune = async || activity::prune(&world.db, YEAR, 1).await.unwrap();
    // The first record is the creation, which is young; the pages count it.
    assert!(prune().await <= 5000);
    while prune().await > 0 {}
    assert_eq!(world.history(&relay).await.len(), 1, "the newest of the old ones");
}

#[tokio::test]
async fn old_actions_of_operators_are_deleted() {
    let world = World::new().await;
    let record = async |target: &str| {
        operator::record(&world.db, "test", "probe", target, "done").await.unwrap();
    };
    record("old").await;
    pass(&world.db, 366).await;
    record("young").await;
    assert_eq!(operator::prune(&world.db, YEAR).await.unwrap(), 1);
    let left = operator::last(&world.db, 10).await.unwrap();
    assert_eq!(left.iter().map(|one| one.target.as_str()).collect::<Vec<_>>(), ["young"]);
    // More than a million are not kept, however young they are.
    let jump = "select setval(pg_get_serial_sequence('operator_action', 'id'), 1000010)";
    sqlx::query(jump).execute(&world.db).await.unwrap();
    record("youngest").await;
    assert_eq!(operator::prune(&world.db, YEAR).await.unwrap(), 1);
    assert_eq!(operator::last(&world.db, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn failures_that_no_operator_has_seen_outlive_their_retention() {
    let world = World::new().await;
    // Killed jobs of one age: unseen, seen, and of a relay, which says itself that it gave up; and an unseen one that
    // is ten times as old.
    let relay = world.relay("alpha").await;
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, done_at, metadata)
         select id, 'prune', '{}', 'Killed', now() - age, metadata
         from (values ('unseen', interval '25 h', null),
                      ('seen', interval '25 h', hstore('seen', 'yes')),
                      ('of-relay', interval '25 h', hstore('key', 'relay:' || $1)),
                      ('ancient', interval '241 h', null)) job (id, age, metadata)",
    )
    .bind(relay.id.as_str())
    .execute(&world.db)
    .await
    .unwrap();
    let day = Duration::from_hours(24);
    let keep = Retention { done: day, killed: day };
    assert_eq!(queue::kept(&world.db, keep).await.unwrap(), ["unseen"]);
    assert_eq!(queue::prune(&world.db, keep, 20).await.unwrap().jobs, 3);
    assert!(queue::job(&world.db, "unseen").await.unwrap().is_some());
    queue::mark_seen(&world.db, &["unseen".to_owned()]).await.unwrap();
    assert_eq!(queue::prune(&world.db, keep, 20).await.unwrap().jobs, 1);
}
