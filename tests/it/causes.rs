//! Why relays gave up: grouped over all of them, listed by cause, and requested by cause.

use std::time::Duration;

use tender_jobs::provision::relay::{self, CauseRequested, Order, RelayId, Row, Search};

use crate::support::{World, begun, by};

/// Inserts relays that gave up one after the other, a millisecond apart, the first of them `ago` seconds ago.
async fn give_up(world: &World, prefix: &str, relays: i32, error: &str, ago: f64) {
    sqlx::query(
        "insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
             policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
             management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled,
             sync_error, failure_kind, attempts, exhausted_at)
         select gen_random_uuid()::text, repeat('ab', 32), $1 || n, 'zooid.test', $1 || n, false, false, false,
                false, false, false, false, false, false, false,
                replace($2, 'HOST', $1 || n || '.zooid.test'), 'permanent', 1,
                now() - make_interval(secs => $3) + n * interval '1 ms'
         from generate_series(1, $4) n",
    )
    .bind(prefix)
    .bind(error)
    .bind(ago)
    .bind(relays)
    .execute(&world.db)
    .await
    .unwrap();
}

async fn counts(world: &World, limit: i64) -> (Vec<(String, i64)>, i64) {
    let causes = relay::causes(&world.db, limit).await.unwrap();
    let largest = causes.largest.into_iter().map(|cause| (cause.cause, cause.relays));
    (largest.collect(), causes.others)
}

/// A rare cause from an hour ago, and 1,500 relays that gave up since.
async fn two_causes() -> World {
    let world = World::new().await;
    give_up(&world, "old", 1, "HOST is taken", 3600.0).await;
    give_up(&world, "new", 1500, "zooid refused the keys of HOST", 60.0).await;
    world
}

const NEW: &str = "zooid refused the keys of …";

fn listed(cause: &str, count: i64) -> (String, i64) {
    (cause.to_owned(), count)
}

#[tokio::test]
async fn a_cause_is_grouped_however_many_relays_gave_up_for_others_since() {
    let world = two_causes().await;
    let both = vec![listed(NEW, 1500), listed("… is taken", 1)];
    assert_eq!(counts(&world, 10).await, (both, 0));
    assert_eq!(counts(&world, 1).await, (vec![listed(NEW, 1500)], 1), "the rest is counted");
    let causes = relay::causes(&world.db, 10).await.unwrap().largest;
    let newest = &causes[0];
    assert_eq!(newest.latest_host, "new1500.zooid.test", "the one that gave up last");
    assert_eq!(newest.latest_error, "zooid refused the keys of new1500.zooid.test");
    assert!(causes[1].since < newest.since);
}

#[tokio::test]
async fn the_list_of_a_cause_has_exactly_its_relays_and_the_last_ones_first() {
    let world = two_causes().await;
    let mut search =
        Search { cause: Some(NEW.to_owned()), order: Order::GaveUp, ..Search::default() };
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let page = relay::search(&world.db, &search, 600).await.unwrap();
        let Some(last) = page.last() else { break };
        search.after = Some(last.id.parse::<RelayId>().unwrap());
        rows.extend(page);
    }
    let hosts: Vec<&str> = rows.iter().map(|row| row.host.as_str()).collect();
    let expected: Vec<String> = (1..=1500).rev().map(|n| format!("new{n}.zooid.test")).collect();
    assert_eq!(hosts, expected);
}

#[tokio::test]
async fn a_request_goes_through_all_relays_of_a_cause_and_no_other() {
    let world = two_causes().await;
    let requested = relay::request_cause(&world.db, NEW, &by(), begun(&world).await).await.unwrap();
    assert_eq!(requested, CauseRequested { relays: 1500, left: 0 });
    assert_eq!(counts(&world, 10).await, (vec![listed("… is taken", 1)], 0));
    assert_eq!(world.jobs().await.len(), 1500);
}

#[tokio::test]
async fn a_request_ends_after_its_time_and_says_what_is_left() {
    let world = two_causes().await;
    for (relays, left) in [(1000, 500), (500, 0)] {
        let (db, by, record) = (&world.db, by(), begun(&world).await);
        let requested = relay::request_within(db, NEW, &by, record, Duration::ZERO).await.unwrap();
        assert_eq!(requested, CauseRequested { relays, left });
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from relay where not synced and exhausted_at is null",
        )
        .fetch_one(db)
        .await
        .unwrap();
        assert_eq!(waiting, 1500 - left);
    }
}

#[tokio::test]
async fn the_cause_follows_the_error_and_relays_from_before_the_column_get_theirs() {
    let world = World::new().await;
    sqlx::raw_sql("alter table relay disable trigger relay_cause")
        .execute(&world.db)
        .await
        .unwrap();
    give_up(&world, "before", 2, "zooid answered 400: HOST has no name", 60.0).await;
    assert_eq!(counts(&world, 10).await, (vec![], 0));
    sqlx::raw_sql("alter table relay enable trigger relay_cause").execute(&world.db).await.unwrap();
    let fill = include_str!("../../migrations/20261122000108_relay_cause_filled.sql");
    sqlx::raw_sql(fill).execute(&world.db).await.unwrap();
    let cause = "zooid answered 400: … has no name";
    assert_eq!(counts(&world, 10).await, (vec![listed(cause, 2)], 0));
    let cancel = "update relay set sync_error = 'cancelled by me' where subdomain = 'before1'";
    sqlx::raw_sql(cancel).execute(&world.db).await.unwrap();
    let both = vec![listed("cancelled by me", 1), listed(cause, 1)];
    assert_eq!(counts(&world, 10).await, (both, 0));
}
