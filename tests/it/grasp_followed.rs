//! Followed relays in the ledger: claims, leases, shares, health, plans and their ends.

use std::time::Duration;

use chrono::TimeDelta;
use sqlx::PgPool;
use tender_jobs::{
    grasp::{
        batch::{self, Again, Fetched},
        coverage,
        family::{Family, Purpose},
        followed::{
            self, Claimed, Lease, Status,
            health::{Failure, Fault},
        },
    },
    queue::Settled,
};
use uuid::Uuid;

use crate::support::{TestDatabase, time::Bracket};

async fn relay(db: &PgPool, name: &str) -> Uuid {
    let url = format!("wss://{name}.test");
    let add = "insert into grasp_relay (url) values ($1) returning id";
    sqlx::query_scalar(add).bind(url).fetch_one(db).await.unwrap()
}

async fn want(db: &PgPool, relay: Uuid, family: &str, items: &[&str]) {
    for item in items {
        sqlx::query("insert into grasp_coverage (relay_id, family, item) values ($1, $2, $3)")
            .bind(relay)
            .bind(family)
            .bind(item)
            .execute(db)
            .await
            .unwrap();
    }
}

async fn run(db: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(db).await.unwrap();
}

async fn text(db: &PgPool, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(db).await.unwrap()
}

async fn states(db: &PgPool) -> Vec<(String, String)> {
    let sql = "select item, state from grasp_coverage order by family, item";
    sqlx::query_as(sql).fetch_all(db).await.unwrap()
}

async fn claim_one(db: &PgPool, process: &str) -> Claimed {
    let mut claimed = followed::claim(db, process, 1).await.unwrap();
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

fn failure(error: &str) -> Failure<'_> {
    Failure { error, jitter: 0.5, ..Failure::default() }
}

async fn expire(db: &PgPool) {
    run(
        db,
        "update grasp_relay set lease_until = now() - interval '1 s' where lease_until is not null",
    )
    .await;
}

async fn make_due(db: &PgPool) {
    run(db, "update grasp_relay set next_attempt_at = now() - interval '1 s'").await;
}

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
    let late = followed::note_status(db, dead, Status::InStep).await.unwrap();
    assert_eq!(late, Settled::LeaseLost, "the lease is over, and nobody has taken it");
    let next = claim_one(db, "two").await.lease;
    assert_eq!(next.epoch, dead.epoch + 1);
    assert_eq!(states(db).await, [("30617:aa:x".to_owned(), "missing".to_owned())]);
    let lost = Settled::LeaseLost;
    assert_eq!(followed::connected(db, dead).await.unwrap(), lost);
    assert_eq!(followed::note_status(db, dead, Status::InStep).await.unwrap(), lost);
    assert_eq!(followed::good(db, dead).await.unwrap(), lost);
    assert_eq!(followed::count(db, dead, 1, 1).await.unwrap(), lost);
    assert_eq!(followed::note_subscriptions(db, dead, 1, 1).await.unwrap(), lost);
    assert_eq!(followed::resynced(db, dead, Some(1), Duration::ZERO).await.unwrap(), lost);
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
    followed::note_status(db, claimed[1].lease, Status::InStep).await.unwrap();
    run(db, "update grasp_relay set last_good_at = null, lease_until = now() + interval '3 s'")
        .await;
    let mut tx = db.begin().await.unwrap();
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
    followed::heartbeat(db, "one").await.unwrap();
    assert_eq!(followed::tick(db, "one").await.unwrap().share(), 5);
    followed::heartbeat(db, "two").await.unwrap();
    let tick = followed::tick(db, "one").await.unwrap();
    assert!((tick.share(), tick.is_claimable) == (3, true), "{tick:?}");
    run(db, "update grasp_process set seen_at = now() - interval '31 s' where process = 'two'")
        .await;
    assert_eq!(
        followed::tick(db, "one").await.unwrap().share(),
        5,
        "a silent process has no share"
    );
    let claimed = followed::claim(db, "one", 8).await.unwrap();
    assert!(!followed::tick(db, "one").await.unwrap().is_claimable);
    followed::release(db, claimed[0].lease, "surplus").await.unwrap();
    assert!(
        followed::tick(db, "two").await.unwrap().is_claimable,
        "a released relay is due at once"
    );
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

#[tokio::test]
async fn a_plan_takes_100_items_of_the_first_family_that_is_due() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "deletion", &["ab"]).await;
    want(db, id, "announcements", &["*"]).await;
    let many: Vec<String> = (0..150).map(|number| format!("30617:aa:{number:03}")).collect();
    want(db, id, "address", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let lease = claim_one(db, "one").await.lease;
    let mut plans = Vec::new();
    while let Some(batch) = coverage::plan(db, lease).await.unwrap() {
        plans.push((batch.family, batch.items.len()));
        batch::confirm(db, &batch, Fetched::default()).await.unwrap();
    }
    let (first, address) = (Family::Announcements, Family::Address);
    assert_eq!(plans, [(first, 1), (address, 100), (address, 50), (Family::Deletion, 1)]);
    assert_eq!(coverage::next_due(db, id).await.unwrap(), None);
    let mut confirmed = Vec::new();
    let mut after = None;
    while let Some((family, items)) = coverage::confirmed(db, id, after.as_ref()).await.unwrap() {
        after = items.last().map(|last| (family, last.clone()));
        confirmed.push((family, items.len()));
    }
    assert_eq!(confirmed, plans, "a verification walks through the same items");
}

#[tokio::test]
async fn a_failed_batch_makes_its_items_missing_and_is_halved() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    let many: Vec<String> = (0..100).map(|number| format!("{number:03}")).collect();
    want(db, id, "state", &many.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let lease = claim_one(db, "one").await.lease;
    let mut sizes = Vec::new();
    while let Some(batch) = coverage::plan(db, lease).await.unwrap() {
        sizes.push(batch.items.len());
        // The relay does not bear the item 007.
        if batch.items.iter().any(|item| item == "007") && sizes.len() < 20 {
            batch::fail(db, &batch, "error: 007", Again::Later, Fetched::default()).await.unwrap();
            let delay = coverage::next_due(db, id).await.unwrap().unwrap();
            let attempts = batch_attempts(db).await;
            let wanted = (65 << (attempts - 1)).min(3600);
            assert!(
                (wanted - 5..=wanted).contains(&delay.as_secs()) || delay.is_zero(),
                "{delay:?} {attempts}"
            );
            run(db, "update grasp_coverage set retry_at = now() where state = 'missing'").await;
        } else {
            batch::confirm(db, &batch, Fetched::default()).await.unwrap();
        }
    }
    assert_eq!(sizes[..2], [100, 50]);
    let missing: Vec<_> =
        states(db).await.into_iter().filter(|(_, state)| state == "missing").collect();
    assert!(missing.len() <= 1, "only the bad item is left: {missing:?}");
}

async fn batch_attempts(db: &PgPool) -> u64 {
    let sql = "select max(attempts)::bigint from grasp_coverage where item = '007'";
    u64::try_from(sqlx::query_scalar::<_, i64>(sql).fetch_one(db).await.unwrap()).unwrap()
}

#[tokio::test]
async fn an_item_that_no_filter_can_name_waits_alone() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "state", &["bad", "good"]).await;
    let lease = claim_one(db, "one").await.lease;
    let batch = coverage::plan(db, lease).await.unwrap().unwrap();
    let bad = ["bad".to_owned()];
    batch::refuse(db, &batch, &bad, "too long", Again::Tomorrow).await.unwrap();
    batch::confirm(db, &batch, Fetched::default()).await.unwrap();
    let (missing, confirmed) = ("missing".to_owned(), "confirmed".to_owned());
    assert_eq!(states(db).await, [("bad".to_owned(), missing), ("good".to_owned(), confirmed)]);
    let due = coverage::next_due(db, id).await.unwrap().unwrap();
    assert!(due > Duration::from_hours(23));
}

#[tokio::test]
async fn a_lost_wake_up_is_repaired() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    let lease = claim_one(db, "one").await.lease;
    followed::connected(db, lease).await.unwrap();
    assert_eq!(followed::wake_due(db).await.unwrap(), 0);
    want(db, id, "state", &["x"]).await;
    run(db, "update grasp_coverage set retry_at = now() - interval '20 s'").await;
    assert_eq!(followed::wake_due(db).await.unwrap(), 1);
    assert_eq!(followed::tick(db, "one").await.unwrap().plans, [id]);
    assert!(followed::tick(db, "one").await.unwrap().plans.is_empty());
}

#[tokio::test]
async fn a_gap_is_forgotten_by_a_later_pass_that_does_not_find_it() {
    use tender_jobs::mirror::lane::gap::Gap;
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    let lease: Lease = claim_one(db, "one").await.lease;
    let items = ["x".to_owned(), "y".to_owned()];
    let note = |gaps: Vec<Gap>| async move {
        let items = ["x".to_owned(), "y".to_owned()];
        coverage::note_gaps(db, lease, Family::State, &items, &gaps).await.unwrap();
    };
    note(vec![Gap::second(7, "full"), Gap::second(9, "full")]).await;
    note(vec![Gap::second(9, "full")]).await;
    let found = "select string_agg(concat_ws(' ', item, items, since), ',') from grasp_gap";
    assert_eq!(text(db, found).await, "x 2 9");
    coverage::note_gaps(db, lease, Family::State, &items, &[]).await.unwrap();
    assert_eq!(text(db, "select count(*)::text from grasp_gap").await, "0");
}

#[tokio::test]
async fn only_a_relay_that_was_good_a_short_time_ago_is_caught_up_incrementally() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    let lease = claim_one(db, "one").await.lease;
    followed::note_status(db, lease, Status::InStep).await.unwrap();
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

#[tokio::test]
async fn a_gap_of_recent_events_is_added_to_those_of_the_history() {
    use tender_jobs::mirror::lane::gap::Gap;
    let world = TestDatabase::new().await;
    let db = &world.pool;
    relay(db, "a").await;
    let lease: Lease = claim_one(db, "one").await.lease;
    let items = ["x".to_owned()];
    let (old, new) = ([Gap::second(7, "full")], [Gap::second(9, "full")]);
    coverage::note_gaps(db, lease, Family::State, &items, &old).await.unwrap();
    coverage::add_gaps(db, lease, Family::State, &items, &new).await.unwrap();
    let found = "select string_agg(since::text, ',' order by since) from grasp_gap";
    assert_eq!(text(db, found).await, "7,9");
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
async fn what_cannot_be_verified_is_missing_and_waits() {
    let world = TestDatabase::new().await;
    let db = &world.pool;
    let id = relay(db, "a").await;
    want(db, id, "state", &["x", "y"]).await;
    let lease = claim_one(db, "one").await.lease;
    let batch = coverage::plan(db, lease).await.unwrap().unwrap();
    batch::confirm(db, &batch, Fetched::default()).await.unwrap();
    let items = ["x".to_owned()];
    let lost = coverage::lose(db, lease, Family::State, &items, "refused").await.unwrap();
    assert_eq!(lost, Settled::Written(()));
    let found = "select string_agg(concat_ws(' ', item, state, reason, attempts), ',' order by item) from grasp_coverage";
    assert_eq!(text(db, found).await, "x missing refused 1,y confirmed 0");
    assert!(coverage::plan(db, lease).await.unwrap().is_none(), "it waits");
    let old = Lease { epoch: lease.epoch - 1, ..lease };
    let lost = coverage::lose(db, old, Family::State, &items, "refused").await.unwrap();
    assert_eq!(lost, Settled::LeaseLost);
}
