//! The health of followed relays: failures, faults, pauses, and how far they are known good.

use std::time::Duration;

use chrono::TimeDelta;
use tender_jobs::{
    grasp::followed::{
        self,
        health::{Failure, Fault},
    },
    queue::Settled,
};

use super::{claim_one, failure, make_due, relay, run, text};
use crate::support::{TestDatabase, time::Bracket};

#[tokio::test]
async fn failures_back_off_and_an_accept_then_drop_relay_keeps_backing_off() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    for seconds in [5, 10, 20, 40] {
        make_due(db).await;
        let lease = claim_one(db, "one").await.lease;
        followed::connected(db, lease).await.unwrap(); // accepts, and then drops
        let (_, around) = Bracket::of(db, followed::fail(db, lease, failure("dropped"))).await;
        let next: chrono::DateTime<chrono::Utc> =
            sqlx::query_scalar("select next_attempt_at from grasp_relay")
                .fetch_one(db)
                .await
                .unwrap();
        around.assert(next, Duration::from_secs(seconds));
        assert!(followed::claim(db, "one", 1).await.unwrap().is_empty(), "not due");
    }
    make_due(db).await;
    let lease = claim_one(db, "one").await.lease;
    followed::good(db, lease).await.unwrap(); // a completed batch
    followed::fail(db, lease, failure("dropped")).await.unwrap();
    assert_eq!(text(db, "select failures::text from grasp_relay").await, "1");
}

#[tokio::test]
async fn a_dead_relay_and_a_permanent_fault_are_tried_seldom() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let next =
        "select round(extract(epoch from next_attempt_at - now()) / 3600)::text from grasp_relay";
    relay(db, "a").await;
    let lease = claim_one(db, "one").await.lease;
    let fault = Failure { fault: Some(Fault::Dns), ..failure("no such name") };
    followed::fail(db, lease, fault).await.unwrap();
    assert_eq!(text(db, next).await, "6");
    run(db, "update grasp_relay set failing_since = now() - interval '25 hours', fault = null, fault_since = null").await;
    make_due(db).await;
    let lease = claim_one(db, "one").await.lease;
    followed::fail(db, lease, failure("refused")).await.unwrap();
    assert_eq!(text(db, next).await, "24");
}

#[tokio::test]
async fn a_rate_limit_is_a_pause_that_doubles_and_no_failure_shortens() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    let lease = claim_one(db, "one").await.lease;
    let limit = || followed::limit(db, lease, "NOTICE: slow down");
    assert!(matches!(limit().await.unwrap(), Settled::Written(64..=65)));
    assert!(matches!(limit().await.unwrap(), Settled::Written(1..=65)), "of the same pause");
    run(db, "update grasp_relay set limited_until = now() - interval '1 s'").await;
    assert!(matches!(limit().await.unwrap(), Settled::Written(129..=130)));
    followed::fail(db, lease, failure("lost")).await.unwrap();
    make_due(db).await;
    assert!(followed::claim(db, "one", 1).await.unwrap().is_empty(), "no reconnect in a pause");
    run(db, "update grasp_relay set limited_until = now() - interval '1 s'").await;
    assert_eq!(followed::claim(db, "one", 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn only_a_relay_that_was_good_a_short_time_ago_is_caught_up_incrementally() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    let lease = claim_one(db, "one").await.lease;
    followed::note_verified(db, lease, true).await.unwrap();
    followed::release(db, lease, "test").await.unwrap();
    let again = claim_one(db, "one").await;
    assert!(again.good_until.is_some());
    followed::release(db, again.lease, "test").await.unwrap();
    run(db, "update grasp_relay set last_good_at = now() - interval '16 minutes'").await;
    assert!(claim_one(db, "one").await.good_until.is_none());
    let due: chrono::DateTime<chrono::Utc> =
        sqlx::query_scalar("select resync_due_at from grasp_relay").fetch_one(db).await.unwrap();
    let from_now = due - tender_jobs::queue::now(db).await.unwrap();
    assert!(from_now > TimeDelta::hours(22) && from_now < TimeDelta::hours(26), "{from_now}");
}
