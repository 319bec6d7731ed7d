//! Leases of followed relays: claims, shares, takeovers and ends.

use std::time::Duration;

use tender_jobs::{
    grasp::{
        batch::{self, Again, Fetched},
        coverage,
        family::{Family, Purpose},
        followed,
    },
    queue::Settled,
};

use super::{claim_one, expire, failure, relay, run, states, text, want};
use crate::support::TestDatabase;

#[tokio::test]
async fn a_relay_has_one_holder_and_gets_a_row_for_its_connection() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    let first = claim_one(db, "one").await;
    assert!(followed::claim(db, "two", 8).await.unwrap().is_empty());
    let upstream = first.upstream.expect("a row for the connection");
    let found = tender_jobs::mirror::upstream::find(db, upstream).await.unwrap().unwrap();
    assert!(!found.mirrored && !found.enabled, "the mirror has no work for it");
    assert_eq!(first.good_until, None);
    assert_eq!(text(db, "select status from grasp_relay").await, "connecting");
}

#[tokio::test]
async fn a_dead_holders_relay_is_taken_over_and_its_late_writes_change_nothing() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "address", &["30617:aa:x"]).await;
    let dead = claim_one(db, "one").await.lease;
    let batch = coverage::plan(db, dead).await.unwrap().unwrap();
    expire(db).await;
    let late = followed::note_verified(db, dead, true).await.unwrap();
    assert_eq!(late, Settled::LeaseLost, "the lease is over, and nobody has taken it");
    let next = claim_one(db, "two").await.lease;
    assert_eq!(next.epoch, dead.epoch + 1);
    assert_eq!(states(db).await, [("30617:aa:x".to_owned(), "missing".to_owned())]);
    let lost = Settled::LeaseLost;
    assert_eq!(followed::connected(db, dead).await.unwrap(), lost);
    assert_eq!(followed::note_verified(db, dead, true).await.unwrap(), lost);
    assert_eq!(followed::good(db, dead).await.unwrap(), lost);
    assert_eq!(followed::count(db, dead, 1, 1).await.unwrap(), lost);
    assert_eq!(
        followed::note_subscriptions(db, dead, &followed::Subscriptions::default()).await.unwrap(),
        lost
    );
    assert_eq!(followed::resynced(db, dead, Some(1), None, Duration::ZERO).await.unwrap(), lost);
    let none = followed::Refusals::default();
    assert_eq!(followed::note_refusals(db, dead, none, none).await.unwrap(), lost);
    assert_eq!(followed::limit(db, dead, "late").await.unwrap(), Settled::LeaseLost);
    assert_eq!(followed::fail(db, dead, failure("late")).await.unwrap(), lost);
    assert_eq!(followed::release(db, dead, "late").await.unwrap(), lost);
    assert!(followed::renew_busy(db, dead).await.unwrap().is_none());
    assert!(followed::renew(db, "one").await.unwrap().is_empty());
    assert_eq!(batch::confirm(db, &batch, Fetched::default()).await.unwrap(), lost);
    assert_eq!(
        batch::fail(db, &batch, "late", Again::Later, Fetched::default()).await.unwrap(),
        lost
    );
    assert!(coverage::plan(db, dead).await.unwrap().is_none());
    assert!(
        batch::open(db, dead, Family::Address, Purpose::Daily, Vec::new()).await.unwrap().is_none()
    );
    let row = text(
        db,
        "select concat_ws(' ', status, lease_owner, received, drift_total, failures) from grasp_relay",
    );
    assert_eq!(row.await, "connecting two 0 0 0");
    assert_eq!(
        text(db, "select reason from grasp_batch").await,
        "the process that fetched it lost the relay"
    );
}

#[tokio::test]
async fn the_reaper_frees_the_relays_of_a_dead_process() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "state", &["x"]).await;
    let lease = claim_one(db, "one").await.lease;
    coverage::plan(db, lease).await.unwrap().unwrap();
    assert_eq!(followed::reap(db).await.unwrap(), 0, "the lease holds");
    expire(db).await;
    assert_eq!(followed::reap(db).await.unwrap(), 1);
    assert_eq!(text(db, "select status from grasp_relay").await, "waiting");
    assert_eq!(states(db).await[0].1, "missing");
}

#[tokio::test]
async fn a_process_renews_its_leases_in_one_statement_and_a_busy_relay_apart() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    for name in ["a", "b", "c"] {
        relay(db, name).await;
    }
    let claimed = followed::claim(db, "one", 8).await.unwrap();
    let busy = claimed[0].lease;
    followed::note_verified(db, claimed[1].lease, true).await.unwrap();
    run(db, "update grasp_relay set last_good_at = null, lease_until = now() + interval '3 s'")
        .await;
    let mut tx = tender_jobs::database::begin(db).await.unwrap();
    sqlx::query("select from grasp_relay where id = $1 for share")
        .bind(busy.relay)
        .execute(&mut *tx)
        .await
        .unwrap();
    let renewed = followed::renew(db, "one").await.unwrap();
    assert_eq!(renewed.len(), 2, "a transaction that stores events delays its own relay only");
    tx.commit().await.unwrap();
    assert!(followed::renew_busy(db, busy).await.unwrap().is_some());
    let sql = "select count(*)::text from grasp_relay where lease_until > now() + interval '20 s'";
    assert_eq!(text(db, sql).await, "3");
    let sql = "select count(*)::text from grasp_relay where last_good_at is not null";
    assert_eq!(text(db, sql).await, "1", "only a relay in step is known good");
}

#[tokio::test]
async fn processes_share_the_relays_evenly() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    for name in ["a", "b", "c", "d", "e"] {
        relay(db, name).await;
    }
    assert_eq!(followed::tick(db, "one", true).await.unwrap().share(), 5);
    assert_eq!(followed::tick(db, "two", true).await.unwrap().share(), 3);
    let tick = followed::tick(db, "one", false).await.unwrap();
    assert!((tick.share(), tick.is_claimable) == (3, true), "{tick:?}");
    run(db, "update grasp_process set seen_at = now() - interval '31 s' where process = 'two'")
        .await;
    assert_eq!(
        followed::tick(db, "one", false).await.unwrap().share(),
        5,
        "a silent process has no share"
    );
    let claimed = followed::claim(db, "one", 8).await.unwrap();
    assert!(!followed::tick(db, "one", false).await.unwrap().is_claimable);
    followed::release(db, claimed[0].lease, "surplus").await.unwrap();
    assert!(
        followed::tick(db, "two", false).await.unwrap().is_claimable,
        "a released relay is due at once"
    );
}

#[tokio::test]
async fn relays_that_nothing_names_any_more_cost_the_others_no_lease() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    for name in ["a", "b", "c"] {
        relay(db, name).await;
    }
    assert_eq!(followed::claim(db, "one", 8).await.unwrap().len(), 3);
    run(db, "update grasp_relay set unwanted_since = now() where url like '%a%'").await;
    let held = "select count(*) from grasp_relay where unwanted_since is not null";
    assert_eq!(sqlx::query_scalar::<_, i64>(held).fetch_one(db).await.unwrap(), 1);
    assert_eq!(followed::tick(db, "one", false).await.unwrap().share(), 3);
}

#[tokio::test]
async fn a_relay_that_delivered_nothing_is_not_known_good() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    let item = "insert into grasp_coverage (relay_id, family, item, state, refused, confirmed_at)
                values ($1, 'state', $2, $3, $3 = 'missing', case when $3 = 'confirmed' then now() end)";
    for (name, state, lacks) in [("x", "missing", "unproven"), ("y", "confirmed", "refused")] {
        sqlx::query(item).bind(id).bind(name).bind(state).execute(db).await.unwrap();
        let told = sqlx::query_scalar::<_, String>("select grasp_lacks($1)").bind(id);
        assert_eq!(told.fetch_one(db).await.unwrap(), lacks);
    }
}

#[tokio::test]
async fn a_stopping_process_leaves_no_lease_and_nothing_in_flight() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    for name in ["a", "b"] {
        let id = relay(db, name).await;
        want(db, id, "address", &["30617:aa:x", "30617:aa:y"]).await;
    }
    for one in followed::claim(db, "one", 8).await.unwrap() {
        coverage::plan(db, one.lease).await.unwrap().unwrap();
    }
    assert_eq!(followed::release_all(db, "one").await.unwrap(), 2);
    assert!(states(db).await.iter().all(|(_, state)| state == "missing"));
    let open = "select count(*)::text from grasp_batch where status = 'open'";
    assert_eq!(text(db, open).await, "0");
    assert_eq!(followed::claim(db, "two", 8).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_relay_that_is_given_back_stays_due_and_shows_that_there_is_no_room() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    run(db, "update grasp_relay set next_attempt_at = now() - interval '2 minutes'").await;
    let lease = claim_one(db, "one").await.lease;
    followed::give_back(db, lease, "no room").await.unwrap();
    let state = "select grasp_relay_state(r) from grasp_relay r";
    assert_eq!(text(db, state).await, "no_room");
    claim_one(db, "two").await;
}

#[tokio::test]
async fn a_relay_that_nothing_names_is_dropped_after_a_minute_and_comes_back_if_named() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "announcements", &["*"]).await;
    let lease = claim_one(db, "one").await.lease;
    run(db, "update grasp_relay set unwanted_since = now() - interval '59 s'").await;
    assert!(!followed::renew(db, "one").await.unwrap()[0].is_unwanted);
    run(db, "update grasp_relay set unwanted_since = now() - interval '61 s'").await;
    assert!(followed::renew(db, "one").await.unwrap()[0].is_unwanted);
    assert!(followed::drop_unwanted(db).await.unwrap().is_empty(), "it has a holder");
    followed::release(db, lease, "unwanted").await.unwrap();
    assert!(followed::claim(db, "one", 1).await.unwrap().is_empty(), "nobody follows it");
    let dropped = followed::drop_unwanted(db).await.unwrap();
    assert_eq!(dropped[0].url, "wss://a.test");
    assert!(states(db).await.is_empty());
    let removing = "select count(*)::text from upstream where removing_at is not null";
    assert_eq!(text(db, removing).await, "1", "the row of its connection goes too");
}
